"""Law: with cells or without, an earlier balance is the plain sum over the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import quantiles
from typing import Any

import pytest

from ledger import registry
from ledger.books import balance_index, compare
from ledger.books.balance_index import FOREVER, Bound
from ledger.books.generations import create_generation, use_generation
from tests.conftest import Database

START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = (
    "source", "position", "line", "kind", "transaction", "account", "currency", "amount",
    "effective_at", "recorded_at", "debits",
)  # fmt: skip
ACCOUNTS = ("assets:wallet:available", "equity:merchant", "expenses:fees", "liabilities:x")
PLAIN = """
SELECT account, currency, sum(debits) AS debits, sum(debits - amount) AS credits
  FROM entries WHERE source = $1 AND position <= $2 AND effective_at <= $3 GROUP BY 1, 2
"""
FILL = """
INSERT INTO entries
SELECT 'straitsx', n, 1, 'payment', 'contract_' || n,
       CASE WHEN n % 20 = 0 THEN 'liabilities:customers:' || n ELSE 'assets:wallet:available' END,
       'XSGD', n % 1000 + 0.25, timestamptz '2026-01-01Z' + random() * interval '120 days',
       now(), n % 1000 + 0.25
  FROM generate_series(1, $1::int) AS n
"""


async def young_books(connection: Any, head: int) -> None:
    """Make books whose checkpoint is at `head`; they have no rows yet."""
    generation = await create_generation(connection, registry.load(), "cells", "live")
    await use_generation(connection, generation)
    await connection.execute("INSERT INTO checkpoints VALUES ('straitsx', $1)", head)


def lines(rng: Random, first: int, last: int, step: int = 1) -> list[tuple[Any, ...]]:
    """Make up journal lines, many on the hour, some long before their neighbours."""
    found = []
    for position in range(first, last + 1, step):
        for line in range(rng.randrange(4)):
            account = rng.choices(ACCOUNTS, (20, 8, 2, 0.2))[0]
            moment = START + timedelta(hours=rng.randrange(30 * 24))
            if rng.random() < 0.7:
                moment += timedelta(microseconds=rng.randrange(3_600_000_000))
            amount = rng.randrange(-900, 900)
            found.append(("straitsx", position, line, "payment", "t", account,
                          rng.choices(("XSGD", "USD", "JPY"), (50, 49, 1))[0], amount, moment,
                          START, max(amount, 0) + rng.randrange(3)))  # fmt: skip
    return found


def bounds(rng: Random, head: int, moments: Sequence[datetime]) -> Bound:
    """Choose a bound: at spans' ends, at entries' own times, or anywhere."""
    position = rng.choice((0, head, rng.randrange(head), rng.randrange(head) // 64 * 64))
    moment = rng.choice(
        (FOREVER, rng.choice(moments), rng.choice(moments) - timedelta(microseconds=1),
         START + timedelta(hours=rng.randrange(740)), START + timedelta(days=rng.randrange(32)))
    )  # fmt: skip
    return Bound("straitsx", position, moment)


@pytest.mark.parametrize(("seed", "step"), [(1, 1), (2, 1), (3, 211)])
async def test_cells_change_no_sum(
    database: Database, seed: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions far apart lie in several slices of the index of accounts."""
    monkeypatch.setattr(balance_index, "BLOCK_POSITIONS", 64 * step)
    monkeypatch.setattr(balance_index, "WIDE_BLOCKS", 3)
    monkeypatch.setattr(balance_index, "INDEXED_ENTRIES_MIN", 12)
    rng = Random(seed)
    every = [
        (account, currency) for account in ACCOUNTS for currency in ("XSGD", "USD", "JPY", "EUR")
    ]
    async with database.service() as connection:
        await young_books(connection, 0)
        head, moments = 0, []
        for _ in range(8):
            fresh = lines(rng, head + 1, head + rng.randrange(50, 300) * step, step)
            head = fresh[-1][1]
            moments += [line[8] for line in fresh]
            await connection.copy_records_to_table("entries", records=fresh, columns=COLUMNS)
            await connection.execute("UPDATE checkpoints SET position = $1", head)
            for _ in range(rng.randrange(4)):
                await balance_index.index_next_block(connection, "straitsx")
            for _ in range(40):
                within = bounds(rng, head, moments)
                plain = await connection.fetch(PLAIN, "straitsx", within.position,
                                               within.effective_at)  # fmt: skip
                known = {(row[0], row[1]): (row[2], row[3]) for row in plain}
                found = await balance_index.sums(connection, within, every)
                assert found == {account: known.get(account, (0, 0)) for account in every}, within
        assert await connection.fetchval("SELECT count(*) FROM hot") > 2
        assert step == 1 or head >> balance_index.SHARD_BITS > 1
        assert await connection.fetchval("SELECT max(span) FROM cells WHERE width = 1") > 3
        assert await connection.fetchval("SELECT max(span) FROM cells WHERE width = 3") > 0


@pytest.mark.parametrize("seed", [4, 5])
async def test_two_who_sum_and_another_size_leave_the_cells_right(
    database: Database, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Books keep the size that they began with; what is busy is judged by the program of now."""
    for name, value in (("BLOCK_POSITIONS", 256), ("WIDE_BLOCKS", 2), ("INDEXED_ENTRIES_MIN", 60)):
        monkeypatch.setattr(balance_index, name, value)
    rng, head = Random(seed), 0
    async with (
        database.service() as connection,
        balance_index.connected(database.service_dsn, seconds_max=60) as other,
    ):
        await young_books(connection, 0)
        await use_generation(other, 1)
        for turn in range(6):
            if turn == 3:
                for name, value in (
                    ("BLOCK_POSITIONS", 64),
                    ("WIDE_BLOCKS", 8),
                    ("INDEXED_ENTRIES_MIN", 15),
                ):
                    monkeypatch.setattr(balance_index, name, value)
            fresh = lines(rng, head + 1, head + rng.randrange(300, 900))
            head = fresh[-1][1]
            await connection.copy_records_to_table("entries", records=fresh, columns=COLUMNS)
            await connection.execute("UPDATE checkpoints SET position = $1", head)
            while await balance_index.next_block_end(connection, "straitsx") <= head:
                await asyncio.gather(
                    *(
                        balance_index.index_next_block(each, "straitsx")
                        for each in (connection, other)
                    )
                )
            assert await connection.fetch(compare._wrong_cells(1), "straitsx") == []
        assert await connection.fetchval("SELECT size FROM spans") == 256
        assert await connection.fetchval("SELECT max(span) FROM cells WHERE width = 2") > 1


async def test_a_span_is_summed_once_it_is_complete(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balance_index, "BLOCK_POSITIONS", 10)
    monkeypatch.setattr(balance_index, "INDEXED_ENTRIES_MIN", 1)
    async with database.service() as connection:
        await young_books(connection, 9)
        made = lines(Random(1), 1, 25)
        await connection.copy_records_to_table("entries", records=made, columns=COLUMNS)
        assert await balance_index.index_next_block(connection, "straitsx") == 10
        assert await connection.fetchval("SELECT count(*) FROM cells") == 0
        await connection.execute("UPDATE checkpoints SET position = 25")
        assert await balance_index.index_next_block(connection, "straitsx") == 20
        assert await balance_index.index_next_block(connection, "straitsx") == 30
        assert await balance_index.index_next_block(connection, "straitsx") == 30
        assert await connection.fetchval("SELECT max(span) FROM cells") == 1
        monkeypatch.setattr(balance_index, "BLOCK_POSITIONS", 1000)
        assert await balance_index.next_block_end(connection, "straitsx") == 30


async def measure(connection: Any, entries: int, times: int) -> list[float]:
    """Fill the journal, sum its spans, and time as-of questions at random; in milliseconds."""
    await young_books(connection, entries)
    await connection.execute(FILL, entries, timeout=1200)
    await connection.execute("ANALYZE entries", timeout=600)
    while await balance_index.next_block_end(connection, "straitsx") <= entries:
        await balance_index.index_next_block(connection, "straitsx")
    rng, took = Random(1), []
    for _ in range(times):
        moment = START + timedelta(seconds=rng.randrange(120 * 86_400))
        within = Bound("straitsx", rng.randrange(entries), moment)
        started = time.perf_counter()
        found = await balance_index.sums(connection, within, [("assets:wallet:available", "XSGD")])
        took.append((time.perf_counter() - started) * 1000)
        assert found
    return took


@pytest.mark.soak
async def test_an_account_with_a_million_entries_is_answered_in_time(database: Database) -> None:
    async with database.service() as connection:
        took = await measure(connection, 1_000_000, 300)
    p50, p99 = quantiles(took, n=100)[49], quantiles(took, n=100)[98]
    print(f"as-of over 1,000,000 entries: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    assert p99 < 250
