"""The command `export`: an audit pack, or tables and journals for other tools."""

from __future__ import annotations

import os
import sys
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ledger.cli.options import Json
from ledger.errors import (
    BooksDisagree,
    CannotSeal,
    DatabaseUnavailable,
    InvalidRequest,
    ServerNotFound,
    Tampered,
)

Format = Literal["jsonl", "csv", "parquet", "hledger", "beancount"]
Out = Annotated[str | None, Parameter(show_default=False, allow_leading_hyphen=True)]
Names = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]


def export(
    *, audit: Path | None = None,
    format: Annotated[Format | None, Parameter(name="--format")] = None,  # noqa: A002
    what: str | None = None, out: Out = None, source: Names = (),
    effective_at: str | None = None, recorded_at: str | None = None, position: Names = (),
    json: Json = False,
) -> int:  # fmt: skip
    """Write everything an auditor needs to one file, or tables and journals for other tools.

    `ledger verify FILE` checks an audit pack on any machine, without a database. Exit status:
    0 written, 1 the log is not what was sealed, 2 usage, 3 could not finish.

    Parameters
    ----------
    audit
        Write an audit pack: events, checkpoints, keys, books and the hashes of all of it.
    format
        Write a table (jsonl, csv, parquet) or the journal (hledger, beancount).
    what
        entries (when not given), balances, transactions, customers, events, or any view that
        `ledger views` lists.
    out
        File to write; - is standard output, the default.
    source
        Only this source; for an audit pack it may be given more than once.
    effective_at
        Only what the provider dates at or before this time, RFC 3339; not for packs, events and
        views that are not dated.
    recorded_at
        As the ledger knew it at this time, RFC 3339; not for packs.
    position
        Up to this position: straitsx:25, more than once or straitsx:25,gokart:3 for several.
    json
        Print what was written as JSON.
    """
    if (audit is None) == (format is None):
        raise InvalidRequest("name either --audit FILE or --format; see `ledger export --help`")
    dated = {"effective_at": effective_at, "recorded_at": recorded_at}
    params = {name: value for name, value in dated.items() if value is not None}
    if position:
        params["position"] = ",".join(position)
    if audit is not None:
        if what or out or dated.keys() & params.keys():
            raise InvalidRequest(
                "an audit pack takes its own FILE and --position only; leave the other options out"
            )
        return _audit(audit, source, params.get("position"), json=json)
    if len(source) > 1:
        raise InvalidRequest("a table is about one --source, or about all when none is named")
    if source:
        params["source"] = source[0]
    return _export(format or "", what or "entries", out or "-", params, json=json)


def _audit(path: Path, sources: tuple[str, ...], position: str | None, *, json: bool) -> int:
    from ledger.export.pack import PackRequest, positions_of, write_file

    settings = _settings()
    request = PackRequest(sources, positions_of(position, sources))
    quiet = json and not sys.stderr.isatty()
    try:
        done = _run(write_file(settings, _dsn(settings), path, request, quiet=quiet))
    except (Tampered, CannotSeal, BooksDisagree) as error:
        print(f"ledger: {error}", file=sys.stderr)
        return 1
    if json:
        _json({"file": str(path), **asdict(done)})
        return 0
    places = ", ".join(f"{source}:{place}" for source, place in done.position.items())
    print(f"{path}: {places}, {done.bytes} bytes, sha256 {done.sha256}")
    for source, count in done.unsealed.items():
        print(f"{source}: its last {count} events are not sealed yet and not in the pack")
    if not done.is_signed:
        print(
            "ledger: warning: its about.json is not signed, because the sealing key is not in "
            f"{settings.data_dir}: checking the pack is INCOMPLETE; export where the service seals",
            file=sys.stderr,
        )
    print(f"check it anywhere: ledger verify {path}")
    for key in done.keys:
        print(f"hand this key over by another way than the pack: {key}")
    return 0


def _export(format_: str, what: str, out: str, params: dict[str, str], *, json: bool) -> int:
    from ledger.api.routes import exported_lists
    from ledger.export.export import ExportRequest, write

    if json and out == "-":
        raise InvalidRequest("--json describes the file that is written: name it with --out FILE")
    if format_ == "parquet" and out == "-" and sys.stdout.isatty():
        raise InvalidRequest("Parquet is not for terminals: name a file with --out FILE")
    request = ExportRequest(format_, what, out, params)
    done = _run(write(_dsn(_settings()), request, exported_lists()))
    for warning in done.warnings:
        print(f"ledger: warning: {warning}", file=sys.stderr)
    if json:
        _json({"file": out, **asdict(done)})
    elif out != "-":
        places = ", ".join(f"{source}:{place}" for source, place in done.position.items())
        print(f"{out}: {done.rows} rows of {what}, true at {places}, sha256 {done.sha256}")
    return 0


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    import asyncio

    return asyncio.run(work)


def _settings() -> Any:
    from ledger.config.settings import load

    return load(os.environ)


def _dsn(settings: Any) -> str:
    from ledger.postgres.attach import database_dsn

    try:
        return database_dsn(settings)
    except ServerNotFound as error:
        raise DatabaseUnavailable(
            f"{error.found}; start `ledger serve`, then export again"
        ) from error


def _json(document: object) -> None:
    import orjson

    sys.stdout.write(orjson.dumps(document).decode() + "\n")
