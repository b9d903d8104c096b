"""Conditions: what keeps a process from its work right now, kept where every process can read it.

A process reports a condition again and again while it lasts and clears it afterwards; one that
was not reported for `FRESH_SECONDS` is over, because the process that reported it is gone.
`/v1/status` and `ledger doctor` show what is current. Names are stable words (`fold_retrying`).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

FRESH_SECONDS: Final = 120.0
DETAIL_CHARACTERS_MAX: Final = 1000

REPORT: Final = """
INSERT INTO ledger.conditions AS c (source, name, detail) VALUES ($1, $2, $3)
ON CONFLICT (source, name) DO UPDATE SET detail = EXCLUDED.detail, seen_at = EXCLUDED.seen_at,
       since = CASE WHEN c.seen_at > EXCLUDED.seen_at - make_interval(secs => $4)
                    THEN c.since ELSE EXCLUDED.since END
"""
CLEAR: Final = "DELETE FROM ledger.conditions WHERE source = $1 AND name = $2"
SELECT_CURRENT: Final = """
SELECT source, name, detail, extract(epoch FROM clock_timestamp() - since)::float8 AS seconds
  FROM ledger.conditions
 WHERE seen_at > clock_timestamp() - make_interval(secs => $1)
 ORDER BY source COLLATE "C", name COLLATE "C"
"""


STALLED: Final = "books_stalled"
STALLED_SECONDS: Final = 20.0
"""How long books may stay where they are although the log has more, before it is a condition."""

USE_LIVE: Final = """
SELECT set_config('search_path', 'books_' || generation || ', ledger', true)
  FROM ledger.generations WHERE state = 'live'
"""
# Books that follow the log moved a moment ago, however far behind they are. Those of an earlier
# version do not hold that time (`to_jsonb`), and `recorded_at` may be ahead of the clock.
SELECT_LAGS: Final = """
SELECT h.source, h.position - coalesce(c.position, 0) AS events,
       CASE WHEN h.position > coalesce(c.position, 0) THEN
            coalesce(extract(epoch FROM clock_timestamp() - greatest(
                (to_jsonb(c) ->> 'moved_at')::timestamptz, least(e.recorded_at, e.received_at)
            )), 0)
       ELSE 0 END::float8 AS still_seconds,
       (SELECT count(*) FROM parked AS p WHERE p.source = h.source) AS parked
  FROM ledger.heads AS h
  LEFT JOIN checkpoints AS c ON c.source = h.source
  LEFT JOIN ledger.events AS e
    ON e.source = h.source AND e.position = coalesce(c.position, 0) + 1
 ORDER BY h.source COLLATE "C"
"""


class Lag(NamedTuple):
    """How far the live books of one source are behind its log."""

    source: str
    events: int
    still_seconds: float
    """For how long they have not moved although the log has more; 0 when they are at its end."""
    parked: int


class Condition(NamedTuple):
    """One condition that lasts; `source` is "" when it concerns the whole service."""

    source: str
    name: str
    detail: str
    seconds: float
    """For how long it has lasted; 0 when that is not known."""

    @property
    def sentence(self) -> str:
        """The condition as a sentence for an operator."""
        where = f"{self.source}: " if self.source else ""
        lasted = f" for {self.seconds:.0f} s" if self.seconds else ""
        return f"{where}{self.name}{lasted}: {self.detail}"


async def report(connection: Any, source: str, name: str, detail: str) -> None:
    """Record that a condition lasts; to be called again at least every minute while it does."""
    await connection.execute(REPORT, source, name, detail[:DETAIL_CHARACTERS_MAX], FRESH_SECONDS)


async def clear(connection: Any, source: str, name: str) -> None:
    """Record that a condition is over."""
    await connection.execute(CLEAR, source, name)


async def current(connection: Any) -> list[Condition]:
    """Return what lasts now, by source and name: what is reported, and books that do not move."""
    found = [Condition(*row) for row in await connection.fetch(SELECT_CURRENT, FRESH_SECONDS)]
    found += [
        Condition(
            lag.source, STALLED, f"the log is {lag.events} events ahead of the books, which do "
            "not move; see that the projector runs, and its log", lag.still_seconds,
        )
        for lag in await lags(connection)
        if lag.still_seconds > STALLED_SECONDS
    ]  # fmt: skip
    return sorted(found)


async def lags(connection: Any) -> list[Lag]:
    """Return how far the live books are behind, by source; [] when there are none."""
    async with connection.transaction():
        if await connection.fetchval(USE_LIVE) is None:
            return []
        return [Lag(*row) for row in await connection.fetch(SELECT_LAGS)]
