"""Fetch StraitsX's account statements: paced, retried, checked before they are returned.

`GET /merchant/statements/account-statement` (StraitsX docs, account statement; 5 requests per
second). The docs do not say whether a period includes its ends, so every period is requested with a
margin and cut here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import aiohttp
import msgspec
import stamina
from aiolimiter import AsyncLimiter

from ledger.config.pull import Pull
from ledger.errors import MalformedBody, PullFailed
from ledger.model import JSON, Number, plain, total
from ledger.statements.formats.straitsx import read
from ledger.statements.model import LINES_MAX, Reading, StatementLine
from ledger.strict_json import parse

STATEMENT_PATH: Final = "/merchant/statements/account-statement"
KEY_HEADER: Final = "X-XFERS-APP-API-KEY"
PAGE_ROWS: Final = 1_000
PAGE_BYTES_MAX: Final = 16 * 1024 * 1024
MARGIN: Final = timedelta(seconds=1)
WAIT_SECONDS_MAX: Final = 60.0


class _TryAgain(PullFailed):
    """The provider could not answer now; `after_seconds` is its `Retry-After`."""

    def __init__(self, what: str, after_seconds: float | None = None) -> None:
        super().__init__(f"{what}; it is tried again in the next round")
        self.after_seconds = after_seconds


@asynccontextmanager
async def open_session(pull: Pull) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session that sends the key, limits the rate of requests and the time of each."""
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
    """Fetch one period's statement as canonical JSON: the provider's rows, oldest first.

    The same rows give the same bytes. `session` is one of `open_session`. Raises PullFailed when
    the provider does not answer, StatementRefused when its balances do not add up.
    """
    rows: list[dict[str, JSON]] = []
    pages: list[dict[str, JSON]] = []
    meta: dict[str, JSON] = {}
    async for page in _pages(session, pull, currency, opened_at, closed_at):
        rows += page["data"]
        pages.append({"data": page["data"]})
        meta = page["meta"] if isinstance(page.get("meta"), dict) else meta
        if len(rows) > LINES_MAX:
            raise PullFailed(f"more than {LINES_MAX} rows; shorten every_seconds")
    whole = read(
        msgspec.json.encode(_exact([*pages, {"data": [], "meta": _balances(meta)}])),
        Reading(currency=currency, window=(opened_at - 2 * MARGIN, closed_at + 2 * MARGIN)),
    )
    lines = [line for line in whole.lines if opened_at <= line.effective_at < closed_at]
    opening = _balance_before(whole.opening, whole.lines, opened_at)
    statement = {
        "currency": currency.upper(),
        "from": opened_at.isoformat(),
        "to": closed_at.isoformat(),
        "meta": {
            "openingBalance": _raw(opening),
            "closingBalance": _raw(_balance_after(opening, lines)),
        },
        "data": [rows[line.number - 1] for line in lines],
    }
    return _encoded(statement)


async def _pages(
    session: aiohttp.ClientSession,
    pull: Pull,
    currency: str,
    opened_at: datetime,
    closed_at: datetime,
) -> AsyncIterator[dict[str, JSON]]:
    """Request page after page until one is empty or the last by the page count."""
    number, count = 1, 0
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
        count += len(rows)
        meta = page.get("meta")
        if not rows or _is_last(meta if isinstance(meta, dict) else {}, number, count):
            return
        number += 1


def _is_last(meta: dict[str, JSON], number: int, count: int) -> bool:
    pages, rows = meta.get("pages"), meta.get("total")
    return (isinstance(pages, int) and number >= pages) or (isinstance(rows, int) and count >= rows)


async def _get(
    session: aiohttp.ClientSession, pull: Pull, path: str, query: dict[str, str]
) -> dict[str, JSON]:
    """Request until there is an answer, `attempts_max` times. Raises PullFailed."""
    async for attempt in stamina.retry_context(
        on=_wait, attempts=pull.attempts_max, timeout=None, wait_initial=0.5,
        wait_max=WAIT_SECONDS_MAX,
    ):  # fmt: skip
        with attempt:
            return await _request(session, pull.url + path, query)
    raise PullFailed("no request was made; set attempts_max to at least 1")


def _wait(error: Exception) -> bool | float:
    if isinstance(error, _TryAgain):
        return True if error.after_seconds is None else error.after_seconds
    return False


async def _request(
    session: aiohttp.ClientSession, url: str, query: dict[str, str]
) -> dict[str, JSON]:
    try:
        async with session.get(url, params=query, allow_redirects=False) as answer:
            if answer.status == 429 or answer.status >= 500:
                raise _TryAgain(f"the provider answered {answer.status}", _retry_after(answer))
            if answer.status in (401, 403):
                raise PullFailed(f"the provider answered {answer.status}; check the key of pull")
            if answer.status != 200:
                raise PullFailed(f"the provider answered {answer.status}; check the url of pull")
            body = await _read(answer)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _TryAgain(f"the provider did not answer: {type(error).__name__}") from error
    try:
        return parse(body)
    except MalformedBody as error:
        raise _TryAgain(f"the provider's answer cannot be read: {error}") from error


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > PAGE_BYTES_MAX:
            raise PullFailed(f"an answer is larger than {PAGE_BYTES_MAX} bytes")
    return bytes(body)


def _retry_after(answer: aiohttp.ClientResponse) -> float | None:
    words = answer.headers.get("Retry-After", "")
    return min(float(words), WAIT_SECONDS_MAX) if words.isdecimal() else None


def _balances(meta: dict[str, JSON]) -> dict[str, JSON]:
    names = ("openingBalance", "opening_balance", "closingBalance", "closing_balance")
    return {name: meta[name] for name in names if name in meta}


def _balance_before(
    opening: Decimal | None, lines: tuple[StatementLine, ...], opened_at: datetime
) -> Decimal | None:
    """Return the balance at the beginning of the period, after the lines of the margin."""
    if opening is None and lines and lines[0].balance is not None:
        opening = total(lines[0].balance, lines[0].amount.copy_negate())
    return _balance_after(opening, [line for line in lines if line.effective_at < opened_at])


def _balance_after(opening: Decimal | None, lines: list[StatementLine]) -> Decimal | None:
    return None if opening is None else total(opening, *(line.amount for line in lines))


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _raw(amount: Decimal | None) -> msgspec.Raw | None:
    return None if amount is None else msgspec.Raw(plain(amount).encode())


def _exact(value: JSON) -> Any:
    """Return a parsed value to encode: numbers by their lexemes, keys in order."""
    match value:
        case Number():
            return msgspec.Raw(value.encode())
        case dict():
            return {key: _exact(value[key]) for key in sorted(value)}
        case list():
            return [_exact(element) for element in value]
        case _:
            return value


def _encoded(page: dict[str, JSON]) -> bytes:
    return msgspec.json.encode({key: _exact(value) for key, value in page.items()})
