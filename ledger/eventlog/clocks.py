"""Clocks that were wrong: what it does to `recorded_at`, and which answers it makes doubtful.

`recorded_at` never decreases with position. When the database's clock was ahead and is put right,
events keep the time of the last one before, until the clock has come there: asked as of a time in
between, the log has fewer events than there were.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ledger.database.conditions import Condition

SECONDS_MAX: Final = 60.0
"""How far clocks may be apart before it matters; callbacks wait seconds for their commit."""

LOG_AHEAD: Final = "log_ahead_of_clock"
CLOCKS_DIFFER: Final = "clocks_differ"

SELECT_AHEAD: Final = """
SELECT source, recorded_at,
       extract(epoch FROM recorded_at - clock_timestamp())::float8 AS seconds
  FROM ledger.heads
 WHERE recorded_at > clock_timestamp() + make_interval(secs => $1)
 ORDER BY source COLLATE "C"
"""
SELECT_NOW: Final = "SELECT clock_timestamp()"
# The latest that had arrived by then, and the first that came later, of those recorded late; the
# first event that is left out.
SELECT_LATE: Final = """
SELECT (SELECT e.position FROM ledger.events AS e
         WHERE e.source = $1 AND e.received_at <= $2
           AND CASE WHEN e.received_at BETWEEN '1970-01-01 00:00+00' AND '2200-01-01 00:00+00'
                    AND e.recorded_at BETWEEN '1970-01-01 00:00+00' AND '2200-01-01 00:00+00'
                    THEN e.recorded_at - e.received_at > interval '60 seconds' ELSE false END
         ORDER BY e.received_at DESC LIMIT 1) AS late,
       l.position AS later, l.received_at < n.received_at AS is_inverted
  FROM (VALUES (true)) AS one
  LEFT JOIN LATERAL (
       SELECT e.position, e.received_at FROM ledger.events AS e
        WHERE e.source = $1 AND e.received_at > $2
          AND CASE WHEN e.received_at BETWEEN '1970-01-01 00:00+00' AND '2200-01-01 00:00+00'
                    AND e.recorded_at BETWEEN '1970-01-01 00:00+00' AND '2200-01-01 00:00+00'
                    THEN e.recorded_at - e.received_at > interval '60 seconds' ELSE false END
        ORDER BY e.received_at LIMIT 1) AS l ON true
  LEFT JOIN ledger.events AS n ON n.source = $1 AND n.position = $3 + 1
"""
"""The condition is, word for word, that of the index events_recorded_late."""


async def clock_conditions(connection: Any) -> list[Condition]:
    """Return what is wrong with clocks now: logs ahead of the database, the database of us."""
    before = datetime.now(UTC)
    theirs = await connection.fetchval(SELECT_NOW)
    after = datetime.now(UTC)
    found = []
    apart = max((before - theirs).total_seconds(), (theirs - after).total_seconds())
    if apart > SECONDS_MAX:
        message = (
            f"the service's clock and the database's are {apart:.0f} s apart; synchronise both "
            "machines' clocks (chrony, systemd-timesyncd)"
        )
        found.append(Condition("", CLOCKS_DIFFER, message, 0))
    for row in await connection.fetch(SELECT_AHEAD, SECONDS_MAX):
        message = (
            f"its last event is recorded at {_written(row['recorded_at'])}, {row['seconds']:.0f} s "
            "ahead of the database's clock: what comes until then is recorded at that time, and "
            "asked by recorded_at it seems later than it was; see that the clock is right"
        )
        found.append(Condition(row["source"], LOG_AHEAD, message, 0))
    return found


async def doubts(connection: Any, positions: Mapping[str, int], recorded_at: datetime) -> list[str]:
    """Return a sentence for each source that had events at `recorded_at` which a time leaves out.

    `positions` maps a source to its last position at that time.
    """
    return [
        f"{source}: events after position {position} had arrived by then, but are recorded later, "
        "because a clock was ahead; they are not in this answer: ask with position instead"
        for source, position in positions.items()
        if await _leaves_out(connection, source, position, recorded_at)
    ]


async def _leaves_out(connection: Any, source: str, position: int, recorded_at: datetime) -> bool:
    row = await connection.fetchrow(SELECT_LATE, source, recorded_at, position)
    is_late = row["late"] is not None and row["late"] > position
    # What is dated after a later event was recorded by the clock that was ahead.
    is_ahead = bool(row["is_inverted"]) and row["later"] > position + 1
    return is_late or is_ahead


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
