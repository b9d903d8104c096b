"""Deliveries that made no event: refused and failed requests, recorded beside the hot path.

Bounded: a token bucket per outcome and source, a bounded queue, and the oldest refused rows are
trimmed, so that nobody can fill the disk by being refused.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import asyncpg
import structlog

from ledger import database
from ledger.errors import LedgerError
from ledger.metrics import DELIVERIES_DROPPED
from ledger.settings import Settings

LOGGER = structlog.get_logger("ledger.deliveries")

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
TRIM_EVERY: Final = 10_000
OTHER: Final = "unknown"


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
class Deliveries:
    """Collects records and writes them in batches."""

    dsn: str
    settings: Settings
    _queue: deque[tuple[Any, ...]] = field(default_factory=deque)
    _buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _written: int = 0

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
        row = (known, at, outcome, answer, _clean(path_event), peer, reason, body_bytes)
        self._queue.append(row)
        self._wake.set()

    async def run(self) -> None:
        """Write records until cancelled; a database that is away keeps them waiting."""
        connection: Any = None
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    try:
                        if connection is None or connection.is_closed():
                            connection = await database.connect(self.dsn)
                        await self._write(connection)
                    except (LedgerError, asyncpg.PostgresError, *database.LOST) as error:
                        LOGGER.warning("deliveries_wait", error=type(error).__name__)
                        if connection is not None:
                            connection.terminate()
                        await asyncio.sleep(1)
                await asyncio.sleep(PACE_SECONDS)
        finally:
            if connection is not None:
                connection.terminate()

    async def _write(self, connection: Any) -> None:
        rows = list(self._queue)
        columns = [list(column) for column in zip(*rows, strict=True)]
        await connection.execute(INSERT_DELIVERIES, *columns)
        for _ in rows:
            self._queue.popleft()
        before, self._written = self._written, self._written + len(rows)
        if before // TRIM_EVERY != self._written // TRIM_EVERY:
            for source in {row[0] for row in rows}:
                await connection.execute(TRIM_DELIVERIES, source, self.settings.refused_rows_max)


def _clean(text: str | None) -> str | None:
    return text.encode("ascii", "backslashreplace").decode().replace("\x00", "") if text else text
