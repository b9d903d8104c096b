"""Promise: one callback sent again for ever is counted, and does not fill the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from ledger.eventlog.appender import Log
from ledger.eventlog.new_event import NewEvent
from tests.asking import payment, serving
from tests.conftest import Database
from tests.integration.eventlog.test_append import MOMENT
from tests.integration.receiver.test_receiver_limits import new_event

SELECT_ROWS = """
SELECT position, count, at, last_at FROM ledger.deliveries
 WHERE outcome = 'duplicate' ORDER BY id
"""


async def append(database: Database, stated: Sequence[NewEvent]) -> None:
    """Append everything in as few batches as the appender makes of it."""
    log = Log(database.service_dsn, database.settings)
    waiting = [log.appenders["straitsx"].append(each) for each in stated]
    running = asyncio.create_task(log.run())
    await asyncio.gather(*waiting)
    log.stop()
    await running


async def rows(database: Database) -> list[tuple[int, int, datetime, datetime | None]]:
    async with database.service() as connection:
        return [tuple(row) for row in await connection.fetch(SELECT_ROWS)]


def again(number: int, at: datetime) -> NewEvent:
    return msgspec.structs.replace(new_event(number), received_at=at)


@pytest.mark.parametrize("sizes", [(1, 250), (1, 99, 151), (1, 100, 1, 149), (101, 150)])
async def test_the_first_hundred_of_an_event_and_day_are_rows_and_the_rest_is_counted(
    database: Database, sizes: tuple[int, ...]
) -> None:
    stated = [again(1, MOMENT + timedelta(seconds=n)) for n in range(251)]
    for size in sizes:
        await append(database, stated[:size])
        stated = stated[size:]
    found = await rows(database)
    assert len(found) == 100
    assert sum(count for _, count, _, _ in found) == 250
    assert [count for _, count, _, _ in found[:99]] == [1] * 99
    assert found[99][2:] == (MOMENT + timedelta(seconds=100), MOMENT + timedelta(seconds=250))


async def test_events_and_days_are_counted_apart(database: Database) -> None:
    midnight = MOMENT.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    await append(database, [new_event(1), new_event(2)])
    stated: list[NewEvent] = []
    for second in (-1, 0):
        at = midnight + timedelta(seconds=second)
        stated += [again(number, at) for number in (1, 2) for _ in range(130)]
    await append(database, stated)
    await append(database, stated[:1])
    found = await rows(database)
    by_event_and_day: dict[tuple[int, Any], list[int]] = {}
    for position, count, at, _ in found:
        by_event_and_day.setdefault((position, at.date()), []).append(count)
    assert sorted((len(counts), sum(counts)) for counts in by_event_and_day.values()) == [
        (100, 130), (100, 130), (100, 130), (100, 131),
    ]  # fmt: skip


async def test_the_list_of_deliveries_states_how_many_a_row_stands_for(database: Database) -> None:
    async with serving(database) as service:
        for _ in range(104):
            await service.post_json("straitsx", payment(1))
        answer = await service.ask("/v1/deliveries", event="straitsx:1", limit=200)
        counts = [row["count"] for row in answer["deliveries"]]
        assert (len(counts), sum(counts), counts[0]) == (101, 104, 4)
        assert answer["deliveries"][0]["last_at"] > answer["deliveries"][0]["at"]
        assert {row["last_at"] for row in answer["deliveries"][1:]} == {None}
