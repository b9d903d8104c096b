"""What the addresses about statements and reconciliation do with a checked request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import orjson
from aiohttp import web

from ledger.api.endpoints import QUERY, answer_read
from ledger.api.problems import PAGE_HEADERS, PRIVATE
from ledger.config.reconciliation import Rules
from ledger.errors import InvalidRequest, StatementRefused
from ledger.queries.params import QueryParams, decode_body
from ledger.queries.reconciliation import runs
from ledger.queries.reconciliation.breaks import breaks_to_decide
from ledger.queries.schemas.reconciliation import (
    BreakAnswer,
    BreakDecision,
    RunAnswer,
    Runs,
)
from ledger.queries.schemas.statements import Withdrawal
from ledger.queries.snapshot import Snapshot, read_consistent
from ledger.reconciliation.closing.answers import read_roll_forwards
from ledger.reconciliation.reports import overview, wallet
from ledger.reconciliation.reports.page import STYLE_HASH
from ledger.reconciliation.reports.spreadsheet import breaks_csv

DECISION_BYTES_MAX: Final = 1_048_576
BODY_SECONDS_MAX: Final = 300.0
CHUNK: Final = 65_536

D = TypeVar("D", BreakDecision, Withdrawal)

DSN: Final[web.AppKey[str]] = web.AppKey("RECON_DSN")
ROLE: Final[web.AppKey[str]] = web.AppKey("RECON_ROLE")
NOW: Final[web.AppKey[Callable[[], datetime]]] = web.AppKey("RECON_NOW")
IMPORTING: Final[web.AppKey[set[str]]] = web.AppKey("RECON_IMPORTING")
"""The sources of which this process is importing a file."""


async def read_body(request: web.Request, bytes_max: int) -> bytes:
    """Read a body within its limits. Raises InvalidRequest or StatementRefused."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise InvalidRequest("send the file as it is, without a Content-Encoding")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for chunk in request.content.iter_chunked(CHUNK):
                size += len(chunk)
                if size > bytes_max:
                    raise StatementRefused(
                        f"the file is larger than {bytes_max} bytes; split it by time, or raise "
                        "LEDGER_STATEMENT_BYTES_MAX"
                    )
                chunks.append(chunk)
    except TimeoutError as error:
        raise InvalidRequest("the body took too long to arrive") from error
    return b"".join(chunks)


async def read_decision(request: web.Request, kind: type[D]) -> D:
    """Read a decision. Raises InvalidRequest when it is unreadable or lacks who or why."""
    if request.content_type != "application/json":
        raise InvalidRequest("send the decision as JSON, with Content-Type: application/json")
    raw = await read_body(request, DECISION_BYTES_MAX)
    decision = decode_body(raw, kind, "the decision")
    if not decision.by.strip() or not decision.note.strip():
        raise InvalidRequest('name who decides in "by" and why in "note"')
    return decision


RuledRead: TypeAlias = Callable[[Snapshot, QueryParams, Mapping[str, Rules]], Awaitable[Any]]
"""A read that depends on the declared rules of each source."""


@dataclass(frozen=True, slots=True)
class ReadByRules:
    """The endpoint of an address whose answer depends on the rules of its sources."""

    read: RuledRead

    async def __call__(self, request: web.Request, params: QueryParams) -> web.Response:
        """Answer with what the read gives, and where it is true."""
        rules = request.app[QUERY].settings.rules

        async def read(snapshot: Snapshot, params: QueryParams) -> Any:
            return await self.read(snapshot, params, rules)

        return await answer_read(request, params, read)


async def print_report(request: web.Request, params: QueryParams) -> web.Response:
    """Answer one wallet's reconciliation as a page, or as CSV with `?as=csv`."""
    source, currency = params.need("source"), params.need("currency")
    rules = request.app[QUERY].settings.rules

    async def read(snapshot: Snapshot) -> tuple[RunAnswer, list[BreakAnswer], list[Any]]:
        run, breaks = await runs.wallet_run(snapshot, source, currency, rules)
        return run, breaks, await read_roll_forwards(snapshot, run.source, run.currency, None)

    run, breaks, months = await read_consistent(request.app[QUERY].pool, params.at_least, read)
    if params.text("as") == "csv":
        return _spreadsheet(wallet.csv_of(_json(run), _json(breaks), _json(months)))
    return _page(wallet.html_of(_json(run), _json(breaks), _json(months)))


async def print_overview(request: web.Request, params: QueryParams) -> web.Response:
    """Answer the reconciliations of all wallets as a page, or as CSV with `?as=csv`."""
    rules = request.app[QUERY].settings.rules

    async def read(snapshot: Snapshot) -> Runs:
        return await runs.all_runs(snapshot, params, rules)

    answer = await read_consistent(request.app[QUERY].pool, params.at_least, read)
    if params.text("as") == "csv":
        return _spreadsheet(overview.csv_of(_json(answer)))
    return _page(overview.html_of(_json(answer)))


async def breaks_spreadsheet(request: web.Request, params: QueryParams) -> web.Response:
    """Answer breaks as CSV, with empty columns for decisions."""
    rules = request.app[QUERY].settings.rules

    async def read(snapshot: Snapshot) -> list[BreakAnswer]:
        return await breaks_to_decide(snapshot, params, rules)

    breaks = await read_consistent(request.app[QUERY].pool, params.at_least, read)
    return _spreadsheet(breaks_csv(_json(breaks)))


def _json(answer: Any) -> Any:
    """Return an answer as its JSON says it."""
    return orjson.loads(msgspec.json.encode(answer))


def _spreadsheet(body: bytes) -> web.Response:
    return web.Response(
        body=body, content_type="text/csv", charset="utf-8",
        headers={**PRIVATE, "Content-Disposition": "attachment"},
    )  # fmt: skip


def _page(body: bytes) -> web.Response:
    policy = (
        f"default-src 'none'; style-src '{STYLE_HASH}'; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    )
    return web.Response(
        body=body, content_type="text/html", charset="utf-8",
        headers={**PAGE_HEADERS, "Content-Security-Policy": policy},
    )  # fmt: skip
