"""Promise: the log is read in order, within the limits of a batch, with the columns of a fold."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ledger.eventlog.appender import APPEND
from ledger.eventlog.reader import read_at, read_next, read_range
from ledger.fold.translate import EVENT_COLUMNS
from tests.conftest import Database

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


async def append(connection: Any, *bodies: bytes) -> None:
    """Append one event for each body."""
    n = len(bodies)
    columns: list[list[Any]] = [
        [i.to_bytes(16, "big") for i in range(1, n + 1)], [f"key/{i}" for i in range(n)],
        ["payment"] * n, [f"contract_{i}" for i in range(n)], ["completed"] * n, [None] * n,
        [None] * n, [None] * n, ["callback"] * n, [None] * n, [None] * n, [""] * n, ["{}"] * n,
        list(bodies), [MOMENT.isoformat()] * n,
    ]  # fmt: skip
    await connection.fetchrow(APPEND, "straitsx", *columns)


def positions(rows: list[Any]) -> list[int]:
    """Return the positions of rows."""
    return [row["position"] for row in rows]


async def test_the_next_events_end_at_either_limit(database: Database) -> None:
    async with database.service() as connection:
        await append(connection, b"aaaa", b"bb", b"cccc", b"d")
        rows = await read_next(connection, "straitsx", 0, events_max=3, bytes_max=100)
        assert positions(rows) == [1, 2, 3]
        rows = await read_next(connection, "straitsx", 1, events_max=3, bytes_max=6)
        assert positions(rows) == [2, 3]
        assert await read_next(connection, "straitsx", 4, events_max=3, bytes_max=6) == []


async def test_an_event_larger_than_a_batch_is_read_alone(database: Database) -> None:
    async with database.service() as connection:
        await append(connection, b"large", b"s")
        rows = await read_next(connection, "straitsx", 0, events_max=3, bytes_max=2)
        assert positions(rows) == [1]


async def test_a_range_excludes_its_start_and_includes_its_end(database: Database) -> None:
    async with database.service() as connection:
        await append(connection, b"a", b"b", b"c", b"d")
        assert positions(await read_range(connection, "straitsx", 1, 3)) == [2, 3]


async def test_events_at_positions_come_in_the_order_of_the_log(database: Database) -> None:
    async with database.service() as connection:
        await append(connection, b"a", b"b", b"c")
        rows = await read_at(connection, "straitsx", [3, 1, 9])
        assert positions(rows) == [1, 3]
        assert [row["body"] for row in rows] == [b"a", b"c"]
        assert tuple(rows[0].keys()) == EVENT_COLUMNS
