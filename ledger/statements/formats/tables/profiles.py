"""The profiles that ship with the ledger, and which profile fits a file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Final

import msgspec

from ledger.config.source import Source
from ledger.config.statement_profile import COLUMNS, JOINED, StatementProfile, profile_of
from ledger.errors import InvalidRequest
from ledger.model import shown
from ledger.statements.model import StatementRefused

_FILE: Final = "profiles.toml"


@cache
def shipped_profiles() -> Mapping[str, StatementProfile]:
    """Return the profiles that ship with the ledger, by name."""
    tables = tomllib.loads(files(__package__).joinpath(_FILE).read_text(encoding="utf-8"))
    return {name: profile_of(table) for name, table in tables.items()}


def profile_named(source: Source, name: str) -> StatementProfile:
    """Return a profile of a source, or one that ships. Raises InvalidRequest without one."""
    profile = source.statements.get(name) or shipped_profiles().get(name)
    if profile is None:
        known = ", ".join([*source.statements, *shipped_profiles()])
        raise InvalidRequest(
            f"{shown(name)} is no profile of {source.name}; it is one of {known}, or declare it "
            f"as [sources.{source.name}.statements.{name}]"
        )
    return profile


def fitting_profile(
    fits: Callable[[StatementProfile], bool],
    own: Mapping[str, StatementProfile],
    given: StatementProfile,
    header: str,
) -> tuple[str, StatementProfile]:
    """Return the one profile whose columns a file has, under the settings given, and its name.

    The source's own come before those that ship. Raises StatementRefused, naming what the header
    has, when none or several fit.
    """
    for profiles in (own, shipped_profiles()):
        fitting = profiles_that(fits, profiles)
        if len(fitting) > 1:
            raise StatementRefused(
                f"{header}, which fits the profiles {', '.join(fitting)}; choose one (--profile)"
            )
        for name, profile in fitting.items():
            return name, profile_of(msgspec.to_builtins(given), profile)
    known = ", ".join([*own, *shipped_profiles()])
    raise StatementRefused(
        f"{header}, which fits none of the profiles {known}; name the columns (--column "
        "effective_at=Date --column amount=Amount …), or declare a profile of the source"
    )


def profiles_that(
    fits: Callable[[StatementProfile], bool], profiles: Mapping[str, StatementProfile]
) -> dict[str, StatementProfile]:
    """Return the profiles whose columns a file has."""
    return {name: each for name, each in profiles.items() if _is_table(each) and fits(each)}


def columns_text(profile: StatementProfile) -> str:
    """Return the columns that a profile expects, for people."""
    parts = []
    for setting in COLUMNS:
        names = (", " if setting in JOINED else " or ").join(profile.columns(setting))
        if names:
            parts.append(f"({names})" if setting in profile.optional else names)
    parts += profile.required
    parts += [f"({n})" if n in profile.optional else n for n in profile.skip_where]
    return ", ".join(dict.fromkeys(parts))


def profile_toml(name: str, profile: StatementProfile, source: str) -> str:
    """Return a profile as the table to paste into the TOML file."""
    lines = [f"[sources.{_key(source)}.statements.{_key(name)}]"]
    for setting, value in msgspec.to_builtins(profile).items():
        lines.append(f"{setting} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _is_table(profile: StatementProfile) -> bool:
    """Return whether a profile can be recognised by a header."""
    return bool(profile.effective_at) and profile.header is not False


def _key(name: str) -> str:
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isalnum() and plain.isascii() else json.dumps(name, ensure_ascii=False)


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case dict():
            return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
