"""The command that shows how statement files of banks and providers are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ledger.cli.options import Json, SourceName
from ledger.errors import InvalidRequest

if TYPE_CHECKING:
    from ledger.config.statement_profile import StatementProfile

SHIPPED = "shipped"


def profile(name: str | None = None, /, *, source: SourceName = None, json: Json = False) -> int:
    """List the profiles of statement files, a source's own and shipped ones, or show one as TOML.

    A profile says which column of a CSV or XLSX has what. Without one a file is read by the only
    profile whose columns its header has. What is shown can be pasted into the TOML file and changed
    there.

    Parameters
    ----------
    name
        The profile to show.
    json
        Print the profiles as JSON.
    """
    import sys

    import msgspec

    from ledger.statements.formats.tables.profiles import columns_text, profile_toml
    from ledger.terminal import tables

    known = _known(source)
    if name is not None:
        known = [row for row in known if row[0] == name]
        if not known:
            raise InvalidRequest(f"{name!r} is no profile; `ledger statement profile` lists them")
    rows = [
        {"name": each, "of": owner, "columns": columns_text(declared)}
        for each, owner, declared in known
    ]
    if json:
        found: list[dict[str, Any]] = [
            row | {"settings": msgspec.to_builtins(declared)}
            for row, (_, _, declared) in zip(rows, known, strict=True)
        ]
        sys.stdout.write(msgspec.json.encode({"profiles": found}).decode() + "\n")
    elif name is None:
        tables.show("profiles", {"profiles": rows}, tables.console())
    else:
        each, owner, declared = known[0]
        owner = source or "SOURCE" if owner == SHIPPED else owner
        sys.stdout.write(profile_toml(each, declared, owner))
    return 0


def _known(source: str | None) -> list[tuple[str, str, StatementProfile]]:
    """Return name, owner and profile: those of the sources first."""
    import os

    from ledger.config.settings import load
    from ledger.statements.formats.tables.profiles import shipped_profiles

    sources = load(os.environ).sources
    if source is not None and source not in sources:
        raise InvalidRequest(f"{source!r} is no source; it is one of {', '.join(sources)}")
    own = [
        (name, each.name, declared)
        for each in sources.values()
        if source in (None, each.name)
        for name, declared in each.statements.items()
    ]
    return own + [(name, SHIPPED, declared) for name, declared in shipped_profiles().items()]
