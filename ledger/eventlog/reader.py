"""Reading events back from the log, with the columns that a fold needs (EVENT_COLUMNS)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ledger.fold.translate import EVENT_COLUMNS

_COLUMNS: Final = ", ".join(EVENT_COLUMNS)

# The first event is read whatever its size: a body may be larger than the limit of a batch.
SELECT_NEXT_EVENTS: Final = f"""
SELECT {_COLUMNS}
  FROM (SELECT *, sum(octet_length(body)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS read
          FROM ledger.events
         WHERE source = $1 AND position > $2 AND position <= $2 + $3) AS next
 WHERE read <= $4 OR position = $2 + 1
 ORDER BY position
"""  # noqa: S608 - the names of columns, above
SELECT_EVENT_RANGE: Final = f"""
SELECT {_COLUMNS}
  FROM ledger.events WHERE source = $1 AND position > $2 AND position <= $3 ORDER BY position
"""  # noqa: S608
SELECT_EVENTS_AT: Final = f"""
SELECT {_COLUMNS}
  FROM ledger.events WHERE source = $1 AND position = ANY ($2::bigint[]) ORDER BY position
"""  # noqa: S608


async def read_next(
    connection: Any, source: str, position: int, *, events_max: int, bytes_max: int
) -> list[Any]:
    """Return the events after `position`: at most `events_max`, with `bytes_max` of bodies.

    The first one is returned even if its body alone is larger than `bytes_max`.
    """
    rows: list[Any] = await connection.fetch(
        SELECT_NEXT_EVENTS, source, position, events_max, bytes_max
    )
    return rows


async def read_range(connection: Any, source: str, after: int, last: int) -> list[Any]:
    """Return the events after the position `after`, up to and including the position `last`."""
    rows: list[Any] = await connection.fetch(SELECT_EVENT_RANGE, source, after, last)
    return rows


async def read_at(connection: Any, source: str, positions: Sequence[int]) -> list[Any]:
    """Return the events at `positions`, in the order of the log."""
    rows: list[Any] = await connection.fetch(SELECT_EVENTS_AT, source, positions)
    return rows
