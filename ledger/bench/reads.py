"""What a measurement asks the database: how far log and books are, how big, and whether right."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from ledger.books.generations import SELECT_LIVE, use_generation
from ledger.database import connection as database
from ledger.errors import MeasurementFailed

SELECT_HEAD: Final = "SELECT position FROM ledger.heads WHERE source = $1"
SELECT_CHECKPOINT: Final = "SELECT position FROM checkpoints WHERE source = $1"
SELECT_EVENTS: Final = """
SELECT count(*) AS events, coalesce(sum(octet_length(body)), 0)::bigint AS body_bytes
  FROM ledger.events WHERE source = $1
"""
SELECT_LOG_BYTES: Final = "SELECT pg_total_relation_size('ledger.events')"
SELECT_BOOKS_BYTES: Final = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
  FROM pg_catalog.pg_class AS c
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
"""
SELECT_PARKED: Final = "SELECT count(*) FROM parked WHERE source = $1"
SELECT_UNBALANCED: Final = """
SELECT count(*) FROM (SELECT currency FROM balances WHERE source = $1
                       GROUP BY currency HAVING sum(debits) <> sum(credits)) AS wrong
"""
SELECT_ENTRIES: Final = "SELECT count(*) FROM entries WHERE source = $1"
COPY_LOG: Final = "SELECT * FROM ledger.events WHERE source = $1 ORDER BY position"
SHOW_VERSION: Final = "SHOW server_version"

COMMAND_SECONDS_MAX: Final = 120.0
POLL_SECONDS: Final = 0.01
WATCH_SECONDS: Final = 0.02
"""How often the books are looked at while answers are timed; each look takes a processor half a
millisecond, and a lag is at most so much too long."""


@dataclass(slots=True)
class Gauge:
    """One connection that looks at log and books of one source."""

    connection: Any
    source: str
    generation: int | None = None

    async def head(self) -> int:
        """Return the log's last position."""
        return int(await self.connection.fetchval(SELECT_HEAD, self.source) or 0)

    async def checkpoint(self) -> int | None:
        """Return the position of the live books; None before the projector has made them."""
        if self.generation is None:
            live = await self.connection.fetchrow(SELECT_LIVE)
            if live is None:
                return None
            self.generation = live["generation"]
            await use_generation(self.connection, live["generation"])
        found = await self.connection.fetchval(SELECT_CHECKPOINT, self.source)
        return None if found is None else int(found)

    async def caught_up(self, seconds_max: float) -> float:
        """Wait until the books have reached the log's head; return the seconds it took.

        Raises MeasurementFailed at the deadline.
        """
        started = time.monotonic()
        head = await self.head()
        while (at := await self.checkpoint()) is None or at < head:
            if time.monotonic() - started > seconds_max:
                raise MeasurementFailed(
                    f"the books were at {at} of {head} after {seconds_max:.0f} s: the projector "
                    "does not keep up; measure for fewer seconds"
                )
            await asyncio.sleep(POLL_SECONDS)
        return time.monotonic() - started

    async def sizes(self) -> dict[str, Any]:
        """Return counts and bytes of log and books."""
        ask = self.connection
        row = await ask.fetchrow(SELECT_EVENTS, self.source)
        events = row["events"]
        log, kept = await ask.fetchval(SELECT_LOG_BYTES), await ask.fetchval(SELECT_BOOKS_BYTES)
        each = max(events, 1)
        return {
            "events": events,
            "body_bytes_per_event": round(row["body_bytes"] / each),
            "log_bytes_per_event": round(log / each),
            "books_bytes_per_event": round(kept / each),
        }

    async def books_are_sound(self) -> dict[str, int]:
        """Return what proves that folding did its work: both first figures must be 0."""
        ask = self.connection.fetchval
        return {
            "parked": await ask(SELECT_PARKED, self.source),
            "unbalanced_currencies": await ask(SELECT_UNBALANCED, self.source),
            "entries": await ask(SELECT_ENTRIES, self.source),
        }

    async def copy_log(self) -> float:
        """Copy the whole log of the source out and drop it; return the seconds."""

        async def drop(_data: bytes) -> None:
            return

        started = time.monotonic()
        await self.connection.copy_from_query(
            COPY_LOG, self.source, output=drop, format="binary", timeout=COMMAND_SECONDS_MAX
        )
        return time.monotonic() - started

    async def version(self) -> str:
        """Return the server's version."""
        return str(await self.connection.fetchval(SHOW_VERSION))


@asynccontextmanager
async def gauge(dsn: str, source: str) -> AsyncIterator[Gauge]:
    """Open a Gauge for the length of a block."""
    async with database.connected(dsn, seconds_max=COMMAND_SECONDS_MAX) as connection:
        yield Gauge(connection, source)


@dataclass(slots=True)
class Visibility:
    """When the books were first seen at which position, by the monotonic clock."""

    times: list[float] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    async def watch(self, gauge: Gauge) -> None:
        """Look every WATCH_SECONDS until cancelled."""
        while True:
            at = await gauge.checkpoint()
            self.saw(time.monotonic(), at or 0)
            await asyncio.sleep(WATCH_SECONDS)

    def saw(self, moment: float, position: int) -> None:
        """Keep a position when it is further than the last."""
        if not self.positions or position > self.positions[-1]:
            self.times.append(moment)
            self.positions.append(position)

    def lags(self, acks: Sequence[tuple[float, int]]) -> list[float]:
        """Return for (time of the answer, position) the seconds until the books had it.

        0 when they had it before the answer arrived. Raises MeasurementFailed for a position that
        was never seen.
        """
        found = []
        for moment, position in acks:
            at = bisect_left(self.positions, position)
            if at == len(self.positions):
                raise MeasurementFailed(f"position {position} never became visible in the books")
            found.append(max(0.0, self.times[at] - moment))
        return found
