"""What the addresses about statements do with a checked request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime, tzinfo
from typing import Final

import msgspec
from aiohttp import web

from ledger.api.endpoints import QUERY, json_answer
from ledger.api.endpoints_reconciliation import DSN, IMPORTING, NOW, ROLE, read_body, read_decision
from ledger.api.problems import PRIVATE, problem
from ledger.config.source import Source
from ledger.config.statement_profile import profile_of
from ledger.errors import Conflicting, InvalidRequest, NotFound
from ledger.eventlog.identity import statements_log
from ledger.evidence.authenticity import require_secret
from ledger.model import plain, shown
from ledger.queries import statements
from ledger.queries.params import QueryParams, read_time
from ledger.queries.reconciliation.breaks import RulesBySource, zone_name
from ledger.queries.schemas.statements import ChangedLine, Imported, Withdrawal, Withdrawn
from ledger.queries.snapshot import Snapshot, read_consistent
from ledger.statements.formats.tables.profiles import profile_named
from ledger.statements.import_process import ImportOptions, import_file
from ledger.statements.importer import BUSY, ImportResult, Permission, withdraw_statement

ADD: Final = (
    ", with add=true (--add) if it states only some of the lines of its period, or with the period "
    "for which it has every line (from and to; --from, --to)"
)


async def import_statement(request: web.Request, params: QueryParams) -> web.Response:
    """Import a statement's file: read it, check it, append it to the log."""
    settings = request.app[QUERY].settings
    source = _configured(request, params.text("source") or "")
    options = _options(params, settings.sources[source])
    with _alone(request.app[IMPORTING], source):
        body = await read_body(request, settings.statement_bytes_max)
        result = await asyncio.to_thread(
            import_file, request.app[DSN], settings.sources[source], body, options,
            request.app[NOW](), permission=_permission(params),
        )  # fmt: skip
    imported = _imported(result, source, settings.rules)
    if result.status == "refused":
        return problem(
            Conflicting(
                f"the file changes {result.changed} and withdraws {result.withdrawn} lines of "
                "earlier files; import it with replace=true (--replace) if it replaces them"
                + (ADD if result.withdrawn else "")
            ),
            {n: value for n, value in msgspec.to_builtins(imported).items() if n != "status"},
        )
    position = {statements_log(source): result.position} if result.position else {}
    return json_answer(imported, position)


def _imported(result: ImportResult, source: str, rules: RulesBySource) -> Imported:
    fields = asdict(result) | {
        "source": statements_log(source),
        "account": result.account or None,
        "opening": None if result.opening is None else plain(result.opening),
        "closing": None if result.closing is None else plain(result.closing),
        "changes": [
            ChangedLine(
                each.change,
                each.line,
                each.effective_at,
                each.amount,
                each.description,
                each.reference,
                each.file,
                each.now_amount,
                each.now_effective_at,
                each.now_description,
                each.booked_at,
                each.now_booked_at,
                list(each.fields),
            )
            for each in result.changes
        ],
        "notes": list(result.notes),
        "time_zone": zone_name(rules, source),
    }
    return Imported(**fields)


def _moment(text: str | None, name: str, zone: tzinfo) -> datetime | None:
    """Read a time with a zone, or a day of the source's zone, which means its beginning."""
    if text is None:
        return None
    try:
        if len(text) == len("2026-06-01"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{name} is {shown(text)}, no day as 2026-06-01") from error
    return read_time(name, text)


def _permission(params: QueryParams) -> Permission:
    names = ("again", "replace", "add", "dry_run")
    given = {name: params.text(name) in ("true", "yes") for name in names}
    return Permission(**given)


@contextmanager
def _alone(importing: set[str], source: str) -> Iterator[None]:
    """Allow one import per source at a time, so that files do not pile up. Raises Conflicting."""
    if source in importing:
        raise Conflicting(BUSY.format(source))
    importing.add(source)
    try:
        yield
    finally:
        importing.remove(source)


def _configured(request: web.Request, source: str) -> str:
    """Return a source that statements can be appended for. Raises NotFound or Conflicting."""
    sources = request.app[QUERY].settings.sources
    if source not in sources:
        raise NotFound(f"source {source!r} is not configured in this service")
    require_secret(sources[source], request.app[ROLE])
    return source


def _options(params: QueryParams, source: Source) -> ImportOptions:
    zone = source.reconcile.zone
    begin, end = (_moment(params.text(name), name, zone) for name in ("from", "to"))
    if (begin is None) != (end is None):
        raise InvalidRequest("from and to go together: the period that the file covers")
    name, columns = params.text("profile"), params.text("columns")
    try:
        given = msgspec.json.decode(columns, type=dict) if columns else {}
        profile = profile_of(given, profile_named(source, name) if name else None)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidRequest(f"columns is a JSON object: {error}") from error
    window = None if begin is None or end is None else (begin, end)
    return ImportOptions(
        params.text("format"), params.text("currency"), params.text("account"), profile, window
    )


async def withdraw(request: web.Request, params: QueryParams) -> web.Response:
    """Withdraw a mistaken statement; it stays in the log and no longer counts."""
    settings = request.app[QUERY].settings
    source = _configured(request, params.need("source"))
    withdrawal = await read_decision(request, Withdrawal)
    reason = {"by": withdrawal.by, "note": withdrawal.note}
    work = withdraw_statement(
        request.app[DSN], source, params.need("sha256"), reason, request.app[NOW](),
        settings.sources[source],
    )  # fmt: skip
    done = await asyncio.to_thread(asyncio.run, work)
    answer = Withdrawn(
        statements_log(source), done.position, done.files, done.lines, list(done.again)
    )
    return json_answer(answer, {statements_log(source): done.position})


async def statement_file(request: web.Request, params: QueryParams) -> web.StreamResponse:
    """Return a statement's file, part by part."""
    source, sha256 = params.need("source"), params.need("sha256")
    response = web.StreamResponse(
        headers={
            **PRIVATE,
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{sha256[:64]}.bin"',
            "Content-Security-Policy": "sandbox",
        }
    )
    number = count = 1
    while number <= count:
        count, piece = await _part(request, params, source, sha256, number)
        if number == 1:
            await response.prepare(request)
        await response.write(piece)
        number += 1
    await response.write_eof()
    return response


async def _part(
    request: web.Request, params: QueryParams, source: str, sha256: str, number: int
) -> tuple[int, bytes]:
    async def read(snapshot: Snapshot) -> tuple[int, bytes]:
        return await statements.file_part(snapshot, source, sha256, number)

    return await read_consistent(request.app[QUERY].pool, params.at_least, read)
