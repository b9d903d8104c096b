"""Reading how the service is doing: each log, its books, and the database under them."""

from __future__ import annotations

from typing import Final

from ledger import __version__
from ledger.database import conditions
from ledger.database import connection as database
from ledger.eventlog.clocks import clock_conditions
from ledger.queries.schemas.log import DatabaseStatus, SourceStatus, Status
from ledger.queries.snapshot import Snapshot

SELECT_LAGS: Final = """
SELECT h.source,
       greatest(0, coalesce(
           extract(epoch FROM clock_timestamp() - e.recorded_at), 0))::float8 AS lag_seconds
  FROM ledger.heads AS h
  LEFT JOIN checkpoints AS c ON c.source = h.source
  LEFT JOIN ledger.events AS e
    ON e.source = h.source AND e.position = coalesce(c.position, 0) + 1
"""
SELECT_EXCEPTIONS: Final = "SELECT source, count(*) AS exceptions FROM open_exceptions GROUP BY 1"
HAS_EXCEPTIONS: Final = "SELECT to_regclass('open_exceptions') IS NOT NULL AS is_there"
"""Books of an earlier version may not have them, and must not keep status from answering."""
SHOW_VERSION: Final = "SELECT current_setting('server_version') AS version"


async def status(snapshot: Snapshot, warnings: list[str]) -> Status:
    """Read how far each log and its books are, and whether its database is safe and writable."""
    lags = {row["source"]: row for row in await snapshot.rows(SELECT_LAGS)}
    known = await snapshot.row(HAS_EXCEPTIONS)
    is_there = bool(known and known["is_there"])
    counted = await snapshot.rows(SELECT_EXCEPTIONS) if is_there else []
    open_exceptions = {row["source"]: row["exceptions"] for row in counted}
    sources = [
        SourceStatus(
            source=source,
            head=place.head,
            books_position=place.books,
            lag_events=place.head - place.books,
            lag_seconds=round(lags[source]["lag_seconds"], 3),
            parked=place.parked,
            exceptions=open_exceptions.get(source, 0),
            generation=snapshot.generation,
        )
        for source, place in snapshot.places.items()
    ]
    version = await snapshot.row(SHOW_VERSION)
    unsafe = await database.safety_problems(snapshot.connection)
    refusal = await database.read_only_reason(snapshot.connection)
    lasting = [
        *await conditions.current(snapshot.connection),
        *await clock_conditions(snapshot.connection),
    ]
    return Status(
        sources=sources,
        generation=snapshot.generation,
        books_version=snapshot.version,
        version=__version__,
        database=DatabaseStatus(
            version=str(version["version"]) if version else "",
            safe=not unsafe,
            writable=not refusal,
        ),
        warnings=[
            *warnings,
            *unsafe,
            *([refusal] if refusal else []),
            *(condition.sentence for condition in lasting),
        ],
        position=snapshot.position,
    )
