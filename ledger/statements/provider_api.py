"""Fetch StraitsX's account statements and balances: paced, retried, checked before handed on.

`GET /merchant/statements/account-statement` and `GET /merchant/account-balance` (StraitsX docs,
account statement; 5 requests per second). Whether the provider counts the ends of a period in is
not documented, so every period is asked for with a margin and cut here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec
import stamina
import structlog
from aiolimiter import AsyncLimiter

from ledger.config.pull import Pull
from ledger.errors import InvalidCallback, LedgerError, MalformedBody, PullFailed
from ledger.model import JSON, Number, as_money, plain, total
from ledger.runtime.event_loop import stop_if_cancelled
from ledger.statements.model import LINES_MAX, StatementLine
from ledger.statements.straitsx import read
from ledger.strict_json import parse

STATEMENT_PATH: Final = "/merchant/statements/account-statement"
BALANCE_PATH: Final = "/merchant/account-balance"
KEY_HEADER: Final = "X-XFERS-APP-API-KEY"
PAGE_ROWS: Final = 1_000
PAGE_BYTES_MAX: Final = 16 * 1024 * 1024
MARGIN: Final = timedelta(seconds=1)
PERIOD_MAX: Final = timedelta(days=1)
WAIT_SECONDS_MAX: Final = 60.0

log = structlog.get_logger(__name__)


class Span(NamedTuple):
    """From when up to when statements are imported."""

    opened_at: datetime
    closed_at: datetime


class _Again(PullFailed):
    """The provider could not answer now; `after_seconds` is when it wants to be asked again."""

    def __init__(self, what: str, after_seconds: float | None = None) -> None:
        super().__init__(f"{what}; it is asked again in the next round")
        self.after_seconds = after_seconds


@asynccontextmanager
async def opened(pull: Pull) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session that carries the key, keeps to the provider's pace and bounds every wait."""
    limiter = AsyncLimiter(1, 1 / pull.requests_per_second)

    async def paced(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        async with limiter:
            return await handler(request)

    async with aiohttp.ClientSession(
        headers={KEY_HEADER: pull.key, "Accept": "application/json"},
        timeout=aiohttp.ClientTimeout(total=pull.answer_seconds_max),
        middlewares=(paced,),
    ) as session:
        yield session


async def fetch_statement(
    session: aiohttp.ClientSession,
    pull: Pull,
    currency: str,
    opened_at: datetime,
    closed_at: datetime,
) -> bytes:
    """Fetch one period's statement as canonical JSON, oldest row first, raw but in one page.

    The same rows give the same bytes. `session` is one that `opened` made. Raises PullFailed when
    the provider does not answer, StatementRefused when what it says does not add up.
    """
    rows: list[dict[str, JSON]] = []
    meta: dict[str, JSON] = {}
    async for page in _pages(session, pull, currency, opened_at, closed_at):
        rows += page["data"]
        meta = page["meta"] if isinstance(page.get("meta"), dict) else meta
        if len(rows) > LINES_MAX:
            raise PullFailed(f"more than {LINES_MAX} rows; shorten every_seconds")
    told = {"data": rows, "meta": _balances(meta)}
    span = opened_at - 2 * MARGIN, closed_at + 2 * MARGIN
    whole = read(_encoded(told), currency, span)
    lines = [line for line in whole.lines if opened_at <= line.effective_at < closed_at]
    opening = _balance_before(whole.opening, whole.lines, opened_at)
    cut = {
        "currency": currency.upper(),
        "from": opened_at.isoformat(),
        "to": closed_at.isoformat(),
        "meta": {
            "openingBalance": _raw(opening),
            "closingBalance": _raw(_after(opening, lines)),
        },
        "data": [rows[line.number - 1] for line in lines],
    }
    return _encoded(cut)


async def fetch_balances(session: aiohttp.ClientSession, pull: Pull) -> dict[str, Decimal]:
    """Fetch what is available now: currency, upper case → amount. Raises PullFailed."""
    answer = await _get(session, pull, BALANCE_PATH, {})
    data = answer.get("data", answer)
    if isinstance(data, dict) and isinstance(data.get("attributes"), dict):
        data = data["attributes"]
    try:
        if isinstance(data, list):
            return dict(_balance(row) for row in data)
        return {str(name).upper(): _known(as_money(name, value)) for name, value in data.items()}
    except InvalidCallback as error:
        raise PullFailed(f"the balances cannot be read: {error}; tell the provider") from error


async def run(
    pull: Pull,
    importer: Callable[[bytes], Awaitable[None]],
    now: Callable[[], datetime],
    covered: MutableMapping[str, Span],
) -> None:
    """Fetch and import what is new, for ever, every `every_seconds`.

    `covered` says per currency from when up to when statements are imported; it is kept up to date
    and only moves after `importer` returned. What fails is logged and tried again later.
    """
    async with opened(pull) as session:
        while True:
            for currency in pull.currencies:
                try:
                    await catch_up(session, pull, currency, importer, now, covered)
                except Exception as error:  # noqa: BLE001 - the outermost loop; nothing moved
                    stop_if_cancelled()
                    reason = str(error) if isinstance(error, LedgerError) else type(error).__name__
                    log.warning("pull_failed", name=currency, reason=reason[:300])
            await asyncio.sleep(pull.every_seconds)


async def catch_up(
    session: aiohttp.ClientSession,
    pull: Pull,
    currency: str,
    importer: Callable[[bytes], Awaitable[None]],
    now: Callable[[], datetime],
    covered: MutableMapping[str, Span],
) -> None:
    """Import one currency's statements up to `delay_seconds` ago, a day at most at a time.

    The first period begins `overlap_seconds` before what is covered ends: rows that were entered
    late take their place line by line.
    """
    until = (now() - timedelta(seconds=pull.delay_seconds)).replace(microsecond=0)
    first = (pull.since or until.replace(hour=0, minute=0, second=0)).astimezone(UTC)
    begin, end = covered.get(currency, Span(first, first))
    opened_at = max(begin, end - timedelta(seconds=pull.overlap_seconds))
    while end < until:
        closed_at = min(end + PERIOD_MAX, until)
        await importer(await fetch_statement(session, pull, currency, opened_at, closed_at))
        opened_at = end = closed_at
        covered[currency] = Span(begin, end)
        log.info("pulled", name=currency, state=closed_at.isoformat())


async def _pages(
    session: aiohttp.ClientSession,
    pull: Pull,
    currency: str,
    opened_at: datetime,
    closed_at: datetime,
) -> AsyncIterator[dict[str, JSON]]:
    """Ask for page after page until one is empty or the last of those told."""
    number, had = 1, 0
    while True:
        page = await _get(
            session,
            pull,
            STATEMENT_PATH,
            {
                "filter[currency]": currency.lower(),
                "filter[from]": _instant(opened_at - MARGIN),
                "filter[to]": _instant(closed_at + MARGIN),
                "page[size]": str(PAGE_ROWS),
                "page[number]": str(number),
            },
        )
        rows = page.get("data")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise PullFailed("the statement has no rows in data; see the provider's change log")
        yield page
        had += len(rows)
        meta = page.get("meta")
        if not rows or _is_last(meta if isinstance(meta, dict) else {}, number, had):
            return
        number += 1


def _is_last(meta: dict[str, JSON], number: int, had: int) -> bool:
    pages, rows = meta.get("pages"), meta.get("total")
    return (isinstance(pages, int) and number >= pages) or (isinstance(rows, int) and had >= rows)


async def _get(
    session: aiohttp.ClientSession, pull: Pull, path: str, query: dict[str, str]
) -> dict[str, JSON]:
    """Ask until there is an answer, `attempts_max` times. Raises PullFailed."""
    async for attempt in stamina.retry_context(
        on=_wait, attempts=pull.attempts_max, timeout=None, wait_initial=0.5,
        wait_max=WAIT_SECONDS_MAX,
    ):  # fmt: skip
        with attempt:
            return await _ask(session, pull.url + path, query)
    raise PullFailed("the provider was not asked; set attempts_max to at least 1")


def _wait(error: Exception) -> bool | float:
    if isinstance(error, _Again):
        return True if error.after_seconds is None else error.after_seconds
    return False


async def _ask(session: aiohttp.ClientSession, url: str, query: dict[str, str]) -> dict[str, JSON]:
    try:
        async with session.get(url, params=query, allow_redirects=False) as answer:
            if answer.status == 429 or answer.status >= 500:
                raise _Again(f"the provider answered {answer.status}", _retry_after(answer))
            if answer.status in (401, 403):
                raise PullFailed(f"the provider answered {answer.status}; check the key of pull")
            if answer.status != 200:
                raise PullFailed(f"the provider answered {answer.status}; check the url of pull")
            body = await _read(answer)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _Again(f"the provider did not answer: {type(error).__name__}") from error
    try:
        return parse(body)
    except MalformedBody as error:
        raise _Again(f"the provider's answer cannot be read: {error}") from error


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    async for chunk in answer.content.iter_any():
        found += chunk
        if len(found) > PAGE_BYTES_MAX:
            raise PullFailed(f"an answer is larger than {PAGE_BYTES_MAX} bytes")
    return bytes(found)


def _retry_after(answer: aiohttp.ClientResponse) -> float | None:
    words = answer.headers.get("Retry-After", "")
    return min(float(words), WAIT_SECONDS_MAX) if words.isdecimal() else None


def _balances(meta: dict[str, JSON]) -> dict[str, JSON]:
    names = ("openingBalance", "opening_balance", "closingBalance", "closing_balance")
    return {name: meta[name] for name in names if name in meta}


def _balance_before(
    opening: Decimal | None, lines: tuple[StatementLine, ...], opened_at: datetime
) -> Decimal | None:
    """Return the balance when the period begins, after the lines of the margin before it."""
    if opening is None and lines and lines[0].balance is not None:
        opening = total(lines[0].balance, lines[0].amount.copy_negate())
    return _after(opening, [line for line in lines if line.effective_at < opened_at])


def _after(opening: Decimal | None, lines: list[StatementLine]) -> Decimal | None:
    return None if opening is None else total(opening, *(line.amount for line in lines))


def _balance(row: JSON) -> tuple[str, Decimal]:
    fields = row.get("attributes", row) if isinstance(row, dict) else {}
    for name in ("amount", "availableBalance", "available_balance"):
        if name in fields and isinstance(fields.get("currency"), str):
            return fields["currency"].upper(), _known(as_money(name, fields[name]))
    raise PullFailed("a balance lacks currency or amount; see the provider's change log")


def _known(amount: Decimal | None) -> Decimal:
    if amount is None:
        raise PullFailed("a balance has no amount; see the provider's change log")
    return amount


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _raw(amount: Decimal | None) -> msgspec.Raw | None:
    return None if amount is None else msgspec.Raw(plain(amount).encode())


def _exact(value: JSON) -> Any:
    """Return a parsed value as it must be encoded: numbers by their lexemes, keys in order."""
    match value:
        case Number():
            return msgspec.Raw(value.encode())
        case dict():
            return {key: _exact(value[key]) for key in sorted(value)}
        case list():
            return [_exact(each) for each in value]
        case _:
            return value


def _encoded(page: dict[str, JSON]) -> bytes:
    return msgspec.json.encode({key: _exact(value) for key, value in page.items()})
