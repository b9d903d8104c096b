"""What `/metrics` reads from the database: how far the books are, what hinders processes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily

from ledger.database import conditions
from ledger.database import connection as database
from ledger.database.errors import EXPECTED
from ledger.eventlog import clocks
from ledger.runtime.metrics import gauge

READ_SECONDS_MAX: Final = 2.0


@dataclass(slots=True)
class DatabaseGauges:
    """Reads the gauges, one reading at a time, through a connection that it keeps."""

    dsn: str
    _connection: Any = None
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self) -> list[GaugeMetricFamily]:
        """Return the gauges; only `ledger_database_up 0` when the database does not answer."""
        try:
            async with asyncio.timeout(READ_SECONDS_MAX), self._reading:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await database.connect(self.dsn)
                lags = await conditions.lags(self._connection)
                current = await conditions.current(self._connection)
                current += await clocks.clock_conditions(self._connection)
        except EXPECTED:
            self.close()
            return [_up(0)]
        return [
            _up(1),
            gauge("ledger_books_lag_events", "Events of the log that the books do not contain yet",
                  ["source"], {(lag.source,): lag.events for lag in lags}),
            gauge("ledger_books_still_seconds", "How long the books have not moved while behind",
                  ["source"], {(lag.source,): lag.still_seconds for lag in lags}),
            gauge("ledger_parked_events", "Events that are left out of the books, and listed",
                  ["source"], {(lag.source,): lag.parked for lag in lags}),
            gauge("ledger_condition", "1 while a process reports what keeps it from its work",
                  ["source", "condition"], {(each.source, each.name): 1 for each in current}),
        ]  # fmt: skip

    def close(self) -> None:
        """Give up the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _up(value: float) -> GaugeMetricFamily:
    return gauge("ledger_database_up", "1 when the database answers", [], {(): value})
