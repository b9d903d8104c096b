"""Fills a log fast, by COPY: `python -m ledger.bench.fill` reads one command and answers one line.

What it writes is what the receiver would have appended, customers of `bench_people` first, then
the mix of `bench_mix`; only the statement that appends is another. It needs the schema's owner.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from ledger import registry
from ledger.bench import people as bench_people
from ledger.bench.fold import new_event
from ledger.bench.mix import mixed
from ledger.bench.run import SOURCE, tool
from ledger.database import connection as database
from ledger.database import copy_format
from ledger.errors import MeasurementFailed
from ledger.runtime.decimals import configure_decimal
from ledger.simulator.deal import FIRST

BATCH_EVENTS: Final = 5_000
PROCESSES: Final = 2
STEP: Final = timedelta(milliseconds=1)
"""Between the recorded times of two positions."""

EVENTS_PER_SECOND_MIN: Final = 100
COLUMNS: Final = {
    "source": "text", "position": "bigint", "event_id": "bytea", "idempotency_key": "text",
    "kind": "text", "resource_id": "text", "status": "text", "idempotency_id": "text",
    "provider_at": "timestamptz", "path_event": "text", "origin": "text", "verdict": "text",
    "reason": "text", "detail": "text", "peer": "text", "headers": "text", "body": "bytea",
    "received_at": "timestamptz", "recorded_at": "timestamptz",
}  # fmt: skip
UPDATE_HEAD: Final = """
UPDATE ledger.heads SET position = $2, recorded_at = $3 WHERE source = $1 AND position = 0
"""


class FillCommand(msgspec.Struct, frozen=True):
    """Which positions to fill, with what, from which time on."""

    dsn: str
    seed: int
    first: int
    count: int
    start: datetime
    customers: int = 0
    """Of how many customers to tell all, instead of `count` callbacks of the mix."""


def rows(command: FillCommand) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a command's callbacks."""
    known = registry.load()
    began = FIRST + timedelta(seconds=command.first)
    callbacks = mixed(command.seed, command.count, began)
    if command.customers:
        number = command.first // bench_people.EVENTS_EACH
        callbacks = bench_people.callbacks_of(number, command.customers, command.start)
    for n, callback in enumerate(callbacks):
        made = new_event(known, callback)
        position = command.first + n
        at = command.start + STEP * position
        yield (
            SOURCE, position, made.event_id, made.idempotency_key, made.kind, made.resource_id,
            made.status, made.idempotency_id, made.provider_at, made.path_event, made.origin,
            "quarantined" if made.reason else "accepted", made.reason, made.detail, made.peer,
            made.headers, made.body, at, at,
        )  # fmt: skip


async def fill(folder: Path, dsn: str, events: int, customers: int = 0) -> datetime:
    """Fill the empty log with all about `customers`, then `events` callbacks of the mix.

    Returns the time before the first. Raises MeasurementFailed.
    """
    total = events + customers * bench_people.EVENTS_EACH
    start = datetime.now(UTC).replace(microsecond=0) - STEP * total - timedelta(hours=1)
    try:
        async with asyncio.TaskGroup() as tasks:
            for command in commands(dsn, events, customers, start):
                place = folder / f"fill-{command.first}"
                place.mkdir()
                tasks.create_task(_fill(place, command))
    except* MeasurementFailed as group:
        raise group.exceptions[0] from None
    async with database.connected(dsn, seconds_max=600) as connection:
        end = start + STEP * total
        if await connection.execute(UPDATE_HEAD, SOURCE, total, end) != "UPDATE 1":
            raise MeasurementFailed("the log was not empty")
        await connection.execute("VACUUM (ANALYZE) ledger.events")
    return start


def commands(dsn: str, events: int, customers: int, start: datetime) -> Iterator[FillCommand]:
    """Share the work out: a part of the customers, and of the mix after them, for each process."""
    each = bench_people.EVENTS_EACH
    share = -(-customers // PROCESSES)
    for number in range(0, customers, max(share, 1)):
        count = min(share, customers - number)
        yield FillCommand(dsn, 0, number * each + 1, count * each, start, count)
    share = -(-events // PROCESSES)
    for seed, first in enumerate(range(1, events + 1, max(share, 1)), 1):
        count = min(share, events - first + 1)
        yield FillCommand(dsn, seed, customers * each + first, count, start)


async def _fill(folder: Path, command: FillCommand) -> None:
    async with tool(folder, "ledger.bench.fill") as process:
        seconds_max = 60 + command.count / EVENTS_PER_SECOND_MIN
        line = await process.ask(msgspec.json.encode(command), seconds_max)
        if int(line) != command.count:
            raise MeasurementFailed(f"{int(line)} of {command.count} callbacks were written")


async def work(command: FillCommand) -> int:
    """Write the rows of a command; return how many."""
    kinds, made, done = tuple(COLUMNS.values()), rows(command), 0
    async with database.connected(
        command.dsn, seconds_max=600, synchronous_commit="off"
    ) as connection:
        while part := list(islice(made, BATCH_EVENTS)):
            await connection.copy_to_table(
                "events", schema_name="ledger", columns=list(COLUMNS), format="text",
                source=io.BytesIO(copy_format.encode(kinds, part)),
            )  # fmt: skip
            done += len(part)
    return done


def main() -> None:
    """Obey one command."""
    configure_decimal()
    os.nice(5)
    command = msgspec.json.decode(sys.stdin.buffer.readline(), type=FillCommand)
    sys.stdout.write(f"{asyncio.run(work(command))}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
