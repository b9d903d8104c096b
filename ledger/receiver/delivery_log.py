"""Deliveries that made no event: refused and failed requests, recorded beside the hot path.

Bounded: a token bucket per outcome and source, a bounded queue, and the oldest refused rows are
trimmed, so that refused requests cannot fill the disk.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import asyncpg
import structlog

from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.database.errors import EXPECTED, is_data_error
from ledger.runtime.event_loop import stop_if_cancelled, wait_for
from ledger.runtime.metrics import DELIVERIES_DROPPED

LOGGER = structlog.get_logger(__name__)

INSERT_DELIVERIES: Final = """
INSERT INTO ledger.deliveries (source, at, outcome, answer, path_event, peer, reason, body_bytes)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::int[], $5::text[],
                     $6::text[], $7::text[], $8::int[])
"""
TRIM_DELIVERIES: Final = """
DELETE FROM ledger.deliveries AS d
 WHERE d.source = $1 AND d.outcome <> 'duplicate' AND d.id <= (
       SELECT id FROM ledger.deliveries
        WHERE source = $1 AND outcome <> 'duplicate' ORDER BY id DESC OFFSET $2 LIMIT 1)
"""
QUEUE_MAX: Final = 5_000
PACE_SECONDS: Final = 0.1
RETRY_SECONDS: Final = 1.0
TRIM_EVERY: Final = 10_000
OTHER: Final = "unknown"
INTEGER_MAX: Final = 2**31 - 1


@dataclass(slots=True)
class Bucket:
    """A token bucket: `rate` per second, at most that many at once."""

    rate: int
    clock: Callable[[], float] = time.monotonic
    tokens: float = 0
    filled_at: float = float("-inf")

    def take(self) -> bool:
        """Take a token if there is one."""
        now = self.clock()
        self.tokens = min(self.rate, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(slots=True)
class DeliveryLog:
    """Collects records and writes them in batches."""

    dsn: str
    settings: Settings
    _queue: deque[tuple[Any, ...]] = field(default_factory=deque)
    _buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _written: int = 0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def record(
        self,
        *,
        source: str,
        at: datetime,
        outcome: str,
        answer: int,
        path_event: str | None,
        peer: str,
        reason: str,
        body_bytes: int,
    ) -> None:
        """Queue one record; beyond the bounds it is only counted."""
        known = source if source in self.settings.sources else OTHER
        rate = self.settings.refused_per_second_max
        bucket = self._buckets.setdefault((known, outcome), Bucket(rate))
        if len(self._queue) >= QUEUE_MAX or not bucket.take():
            DELIVERIES_DROPPED.inc()
            return
        size = min(body_bytes, INTEGER_MAX)  # a sender may announce anything
        row = (known, at, outcome, answer, _clean(path_event), peer, reason, size)
        self._queue.append(row)
        self._wake.set()

    def stop(self) -> None:
        """Take nothing new; `run` returns when all is written, or the database is away."""
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Write records until stopped; until then a database that is away keeps them waiting."""
        connection: Any = None
        try:
            while self._queue or not self._stopping.is_set():
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                try:
                    if connection is None or connection.is_closed():
                        connection = await database.connect(self.dsn)
                    await self._write(connection)
                    await wait_for(self._stopping, PACE_SECONDS)
                except EXPECTED as error:
                    stop_if_cancelled()
                    LOGGER.warning("deliveries_wait", error=type(error).__name__)
                    if connection is not None:
                        connection.terminate()
                    if self._stopping.is_set():
                        return
                    await wait_for(self._stopping, RETRY_SECONDS)
        finally:
            if connection is not None:
                connection.terminate()

    async def _write(self, connection: Any) -> None:
        rows = list(self._queue)
        try:
            await _insert(connection, rows)
        except asyncpg.PostgresError as refusal:
            if not is_data_error(refusal):
                raise
            for row in rows:
                try:
                    await _insert(connection, [row])
                except asyncpg.PostgresError as error:
                    if not is_data_error(error):
                        raise
                    LOGGER.error("delivery_refused", sqlstate=error.sqlstate)
                    DELIVERIES_DROPPED.inc()
        for _ in rows:
            self._queue.popleft()
        before, self._written = self._written, self._written + len(rows)
        if before // TRIM_EVERY != self._written // TRIM_EVERY:
            for source in {row[0] for row in rows}:
                await connection.execute(TRIM_DELIVERIES, source, self.settings.refused_rows_max)


async def _insert(connection: Any, rows: Sequence[tuple[Any, ...]]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)]
    await connection.execute(INSERT_DELIVERIES, *columns)


def _clean(text: str | None) -> str | None:
    return text.encode("ascii", "backslashreplace").decode().replace("\x00", "") if text else text
