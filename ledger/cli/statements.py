"""Commands about statements; all of them ask a running service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from cyclopts import App, Parameter

from ledger.cli.options import (
    ASK,
    FIRST_PAGE,
    NOW,
    Currency,
    Flag,
    Paging,
    ServiceOptions,
    SourceName,
)
from ledger.cli.queries import api, ask_service, show_list, write_file, write_raw
from ledger.errors import InvalidRequest, ServiceRefused
from ledger.terminal.exit_status import OK, PROBLEM

SECONDS_MAX: Final = 600.0

Sha256: TypeAlias = Annotated[
    str, Parameter(help="The file's SHA-256, as `ledger statement` lists it.")
]
StatementSource: TypeAlias = Annotated[str, Parameter(help="The source whose statement it is.")]

statement = App(name="statement", help="Import a provider's statements, or list them.", group=ASK)


@statement.command(name="import")
def import_(
    file: Path, /, *,
    source: str, currency: str | None = None, account: str | None = None,
    format_: Annotated[str | None, Parameter(name="--format")] = None,
    profile: str | None = None,
    from_: Annotated[str | None, Parameter(name="--from")] = None, to: str | None = None,
    column: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    dry_run: Flag = False, replace: Flag = False, add: Flag = False, again: Flag = False,
    service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Import a statement: StraitsX JSON, CSV, XLSX, camt.053 or MT940, also zipped.

    The same file again changes nothing. A file that would change or withdraw lines of earlier ones
    shows them and needs --replace. Exit status: 1 when that is what stopped it.

    Parameters
    ----------
    file
        The file as the provider gave it.
    source
        The source whose statement it is.
    currency
        The wallet, where the file does not name it or names several.
    account
        Which of several accounts of the file; or the account, where the file does not name it.
    format_
        Found out from the file when not given.
    profile
        How the file is written: one of `ledger statement profile`.
    from_
        Begin of the period that the file covers, where it states none: a day of the source's time
        zone, as 2026-06-01, or a time with a zone.
    to
        End of that period, exclusive: 2026-07-01 for all of June.
    column
        For CSV, several times: amount=Amount, effective_at=Date, time_zone=Asia/Singapore …
    dry_run
        Show what the import would do; nothing is stored.
    replace
        Change and withdraw lines of earlier files.
    add
        The file states only some of the lines of its period; withdraw none.
    again
        Import the file again though it was imported before, as after a mistaken newer one.
    """
    import orjson

    from ledger.terminal import tables
    from ledger.terminal.statements import show_import

    params = {"source": source, "currency": currency, "account": account, "format": format_,
              "profile": profile, "from": from_, "to": to, "columns": _columns(column)}  # fmt: skip
    flags = {"dry_run": dry_run, "replace": replace, "add": add, "again": again}
    params |= {name: "true" for name, is_set in flags.items() if is_set}
    try:
        raw = _post_file(service, {k: v for k, v in params.items() if v is not None}, file)
    except ServiceRefused as error:
        if error.status == 404:  # no such source: the command is wrong, and nothing was found
            raise InvalidRequest(str(error)) from error
        if error.status != 409 or not _has_changes(error.body):
            raise
        raw = error.body
    document = orjson.loads(raw)
    if service.json:
        write_raw(raw)
    else:
        show_import(document, tables.console())
    return PROBLEM if "title" in document else OK


def _has_changes(body: bytes) -> bool:
    import orjson

    try:
        return bool(orjson.loads(body).get("changes"))
    except (ValueError, AttributeError):
        return False


def _columns(given: tuple[str, ...]) -> str | None:
    import orjson

    pairs = [text.partition("=") for text in given]
    if not all(name and sign for name, sign, _ in pairs):
        raise InvalidRequest("write --column as what=where, like amount=Amount")
    return orjson.dumps({name: where for name, _, where in pairs}).decode() if pairs else None


def _post_file(service: ServiceOptions, params: dict[str, str], file: Path) -> bytes:
    import asyncio
    import os

    from ledger.client.service_client import Client, service_url
    from ledger.config.settings import load

    body = file.read_bytes()

    async def post() -> bytes:
        settings = load(os.environ)
        token = service.token or next(iter(settings.api_tokens), None)
        async with Client(service_url(settings, service.url), token, SECONDS_MAX) as client:
            return await client.ask("POST", "/v1/statements", params=params, data=body)

    return asyncio.run(post())


@statement.command
def withdraw(
    sha256: Sha256, /, *, source: StatementSource,
    by: Annotated[str, Parameter(help="Who withdraws it.")],
    note: Annotated[str, Parameter(help="Why.")],
    service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Withdraw a mistaken statement; it stays in the log and no longer counts."""
    from ledger.terminal import tables

    path = api("statements", source, sha256, "withdraw")
    document, raw = ask_service(service, path, {}, body={"by": by, "note": note})
    if service.json:
        return write_raw(raw)
    tables.show_one(document, tables.console())
    return 0


@statement.command(name="file")
def file_(
    sha256: Sha256, /, *, source: StatementSource,
    out: Annotated[Path | None, Parameter(help="The file to write; else standard output.")] = None,
    service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Write a statement's file, byte for byte as it was imported."""
    import hashlib

    path = api("statements", source, sha256, "file")
    _, raw = ask_service(service, path, {}, decode=False)
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise ServiceRefused(502, "the file is not whole; ask again, or run `ledger verify`")
    if out is None:
        return write_raw(raw, b"")
    write_file(out, raw)
    return 0


@statement.default
def statements_list(
    *, source: SourceName = None, currency: Currency = None, paging: Paging = FIRST_PAGE,
    service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List the imported statements, the newest first."""
    from ledger.terminal.statements import show_statements

    filters = {"source": source, "currency": currency}
    return show_list("statements", filters, paging, service, show=show_statements)


@statement.command
def lines(
    *, source: SourceName = None, currency: Currency = None,
    contract_id: Annotated[str | None, Parameter(help="Only of this contract.")] = None,
    matched: Annotated[
        Literal["yes", "no"] | None, Parameter(help="Whether in a live match.")
    ] = None,
    matched_by: Annotated[
        str | None, Parameter(help="Only what this rule matched, like amount.")
    ] = None,
    paging: Paging = FIRST_PAGE, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List statement lines, each with its match."""
    from ledger.terminal.statements import show_lines

    filters = {"source": source, "currency": currency, "contract_id": contract_id,
               "matched": matched, "matched_by": matched_by}  # fmt: skip
    return show_list("statement_lines", filters, paging, service, show=show_lines)
