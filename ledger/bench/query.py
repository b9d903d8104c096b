"""`ledger bench query`: how long answers take over HTTP, on books of any length."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import aiohttp

from ledger import __version__
from ledger.bench.fill import STEP
from ledger.bench.machine import percentile
from ledger.bench.people import EVENTS_EACH
from ledger.bench.rebuild import Stand, standing, verify_only
from ledger.bench.run import SOURCE, served
from ledger.books.generations import use_generation
from ledger.errors import MeasurementFailed
from ledger.queries.findings import REASONS

WARM: Final = 20
SECONDS_MAX: Final = 60.0
CUSTOMERS: Final = 500
LISTS: Final = (
    "balances", "entries", "transactions", "customers", "bank_accounts", "virtual_accounts",
    "limits", "limit_requests", "rfi", "events", "deliveries", "exceptions", "seals",
    "statements", "statement_lines", "breaks", "reconciliation", "reconciliation/findings",
)  # fmt: skip
"""Every list of the query API but the wallets, which are asked for by themselves."""

OWNED: Final = (
    "transactions", "balances", "bank_accounts", "virtual_accounts", "limits", "limit_requests",
    "rfi",
)  # fmt: skip
"""Lists that can be asked for one customer's part."""

HOT: Final = "assets:wallet:available"
SELECT_CUSTOMERS: Final = """
SELECT DISTINCT customer_id FROM (
       SELECT customer_id FROM transactions
        WHERE source = $1 AND customer_id IS NOT NULL LIMIT $2) AS found
"""
SELECT_HOT: Final = """
SELECT account FROM hot WHERE source = $1 AND account LIKE 'liabilities:customers:%' LIMIT 1
"""
SELECT_DATED: Final = """
SELECT min(effective_at) AS first, max(effective_at) AS last FROM entries WHERE source = $1
"""

Params = dict[str, str]
Ask = Callable[[], tuple[str, Params]]


async def measure_query(
    events: int, customers: int, processes: int, requests: int
) -> dict[str, Any]:
    """Send each request that many times to a service with such books; return the figures."""
    async with standing(events, processes, customers) as stand:
        total = events + customers * EVENTS_EACH
        questions = await _questions(stand, total)
        if customers:
            questions |= _lists(customers)
        async with served(stand.folder, stand.environ, "all") as service:
            url = f"http://127.0.0.1:{await service.port()}"
            async with aiohttp.ClientSession(
                url, timeout=aiohttp.ClientTimeout(total=SECONDS_MAX)
            ) as session:
                peace = {
                    name: (await _ask(session, each, WARM + requests))[WARM:]
                    for name, each in questions.items()
                }
                work = asyncio.create_task(verify_only(stand, processes))
                busy: dict[str, list[float]] = {name: [] for name in questions}
                try:
                    while not work.done():
                        for name, each in questions.items():
                            busy[name] += await _ask(session, each, WARM)
                    outcome = await work
                finally:
                    work.cancel()
        return {
            "bench": "query",
            "version": __version__,
            "machine": stand.machine,
            "log": {
                "events": total,
                "customers": customers,
                "fill_seconds": stand.fill_seconds,
            },
            "peace": {name: _figures(times) for name, times in peace.items()},
            "rebuilding": {name: _figures(times) for name, times in busy.items()},
            "verified": {
                "differences": len(outcome["differences"]),
                **await stand.look.books_are_sound(),
                "ok": outcome["verdict"] == "equal",
            },
        }


async def _questions(stand: Stand, events: int) -> dict[str, Ask]:
    """Return what is asked, each time about another customer and another moment."""
    rng = Random(1)  # noqa: S311 - the same questions every time
    connection = stand.look.connection
    await use_generation(connection, stand.generation)
    customers = [row[0] for row in await connection.fetch(SELECT_CUSTOMERS, SOURCE, CUSTOMERS)]
    hot = await connection.fetchval(SELECT_HOT, SOURCE) or f"liabilities:customers:{customers[0]}"
    first, last = await connection.fetchrow(SELECT_DATED, SOURCE)

    def moment() -> Params:
        dated = first + (last - first) * rng.random()
        known = stand.start + STEP * rng.randrange(1, events + 1)
        return {"effective_at": dated.isoformat(), "recorded_at": known.isoformat()}

    return {
        "wallets": lambda: ("/v1/wallets", {}),
        "customer_balance": lambda: ("/v1/balances", {"customer_id": rng.choice(customers)}),
        "hot_customer_balance": lambda: ("/v1/balances", {"account": hot}),
        "wallets_as_of": lambda: ("/v1/wallets", moment()),
        "hot_account_as_of": lambda: (
            "/v1/balances", {"account": HOT, "currency": "XSGD", **moment()},
        ),
        "hot_customer_as_of": lambda: ("/v1/balances", {"account": hot, **moment()}),
        "customer_balance_as_of": lambda: (
            "/v1/balances", {"customer_id": rng.choice(customers), **moment()},
        ),
    }  # fmt: skip


def _lists(customers: int) -> dict[str, Ask]:
    """Return every list, a page of the usual length, and its usual filters."""
    rng = Random(2)  # noqa: S311 - the same questions every time

    def one() -> str:
        return f"customer_{rng.randrange(customers):07}"

    def asked(path: str, **params: str) -> Ask:
        return lambda: (path, params)

    def own(path: str) -> Ask:
        return lambda: (path, {"customer_id": one()})

    pages = {name: asked(f"/v1/{name}") for name in LISTS}
    return pages | {
        "status": asked("/v1/status"),
        "exceptions_one": asked("/v1/exceptions", limit="1"),
        "exceptions_open": asked("/v1/exceptions", state="open"),
        **{f"findings_{reason}": asked("/v1/exceptions", reason=reason) for reason in REASONS},
        "transactions_changed": asked("/v1/transactions", changed_after="0", source=SOURCE),
        "transactions_by_date": asked("/v1/transactions", sort="-effective_at"),
        "transactions_of_two_statuses": asked("/v1/transactions", status="pending,failed"),
        "transactions_by_date_of_a_customer": lambda: (
            "/v1/transactions",
            {"sort": "effective_at", "customer_id": one()},
        ),
        "transactions_changed_of_a_customer": lambda: (
            "/v1/transactions",
            {"changed_after": "0", "source": SOURCE, "customer_id": one()},
        ),
        "totals_of_a_customer": lambda: (
            "/v1/transactions",
            {"totals": "true", "customer_id": one()},
        ),
        "entries_after": asked("/v1/entries", after="0", source=SOURCE),
        "unverified_customers": asked("/v1/customers", verification_status="pending"),
        "customer": lambda: (f"/v1/customers/{SOURCE}/{one()}", {}),
        "transaction": lambda: (f"/v1/transactions/{SOURCE}/pay_{one()}", {}),
        **{f"{name}_of_a_customer": own(f"/v1/{name}") for name in OWNED},
    }


async def _ask(session: aiohttp.ClientSession, question: Ask, count: int) -> list[float]:
    """Send requests one after the other; return the seconds of each."""
    times = []
    for _ in range(count):
        path, params = question()
        started = time.perf_counter()
        async with session.get(path, params=params) as answer:
            body = await answer.read()
            if answer.status != 200:
                raise MeasurementFailed(f"{path} {params} was answered {answer.status}: {body!r}")
        times.append(time.perf_counter() - started)
    return times


def _figures(times: Sequence[float]) -> dict[str, float | int | None]:
    found: dict[str, float | int | None] = {"questions": len(times)}
    for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
        value = percentile(list(times), share)
        found[name] = None if value is None else round(value * 1_000, 2)
    return found
