"""Reading what an operator looks after: exceptions, decisions on them, and the state of all."""

from __future__ import annotations

from typing import Any, Final

from ledger import __version__, database
from ledger.answers import build
from ledger.answers_log import (
    DatabaseStatus,
    EventRef,
    Exceptions,
    OperatorException,
    SourceStatus,
    Status,
)
from ledger.errors import BadQuestion, Conflicting, NotFound
from ledger.questions import Question
from ledger.reads import Listing, Row, Snapshot

# An exception is its latest row; one that was opened again starts anew.
SELECT_EXCEPTIONS: Final = """
SELECT o.source, o.id, o.position, o.reason, o.detail, o.kind, o.resource_id, o.event_id,
       o.at AS opened_at, latest.state,
       CASE WHEN latest.state <> 'open' THEN latest.at END AS closed_at, said.note
  FROM exceptions AS o
 CROSS JOIN LATERAL (
       SELECT CASE x.action WHEN 'opened' THEN 'open' ELSE x.action END AS state, x.at
         FROM exceptions AS x WHERE x.source = o.source AND x.id = o.id
        ORDER BY x.position DESC, x.action DESC LIMIT 1) AS latest
  LEFT JOIN LATERAL (
       SELECT x.note FROM exceptions AS x
        WHERE x.source = o.source AND x.id = o.id AND x.position >= o.position
          AND x.action = 'resolved'
        ORDER BY x.position DESC LIMIT 1) AS said ON true
 WHERE o.source = $1 AND o.action = 'opened'
   AND ($3::bigint IS NULL OR (o.position, o.id) < ($3, $4::text))
   AND NOT EXISTS (SELECT FROM exceptions AS x
                    WHERE x.source = o.source AND x.id = o.id AND x.action = 'opened'
                      AND x.position > o.position)
   AND ($5::text IS NULL OR o.id = $5) AND ($6::text IS NULL OR o.reason = $6)
   AND ($7::text IS NULL OR o.kind = $7) AND ($8::text IS NULL OR latest.state = $8)
 ORDER BY o.position DESC, o.id DESC LIMIT $2
"""
SELECT_STREAM_POSITIONS: Final = """
SELECT position FROM history
 WHERE source = $1 AND kind = $2 AND id = $3 AND hashtextextended(id, 0) = hashtextextended($3, 0)
 ORDER BY position
"""
SELECT_LAGS: Final = """
SELECT h.source,
       greatest(0, coalesce(
           extract(epoch FROM clock_timestamp() - e.recorded_at), 0))::float8 AS lag_seconds,
       (SELECT count(*) FROM exceptions AS o
         WHERE o.source = h.source AND o.action = 'opened'
           AND NOT EXISTS (SELECT FROM exceptions AS x
                            WHERE x.source = o.source AND x.id = o.id
                              AND (x.position, x.action) > (o.position, o.action))) AS exceptions
  FROM ledger.heads AS h
  LEFT JOIN checkpoints AS c ON c.source = h.source
  LEFT JOIN ledger.events AS e
    ON e.source = h.source AND e.position = coalesce(c.position, 0) + 1
"""
SHOW_VERSION: Final = "SELECT current_setting('server_version') AS version"

EXCEPTIONS: Final = Listing(SELECT_EXCEPTIONS, {"position": int, "id": str})


async def exceptions(snapshot: Snapshot, question: Question) -> Exceptions:
    """Read what an operator should look at, the newest first."""
    rows, following = await EXCEPTIONS.page(
        snapshot,
        question,
        None,
        question.text("reason"),
        question.text("kind"),
        question.text("state"),
    )
    found = [_exception(row) for row in rows]
    return Exceptions(exceptions=found, next=following, position=snapshot.position)


def _exception(row: Row) -> OperatorException:
    event = EventRef(position=row["position"], event_id=row["event_id"])
    return build(OperatorException, row, event=event)


async def decision(
    snapshot: Snapshot, exception_id: str, action: str, keep: int | None
) -> tuple[str, dict[str, Any]]:
    """Check a decision against its exception; return its source and what it is about.

    Raises NotFound, Conflicting when the exception is closed, BadQuestion when the action does
    not suit it.
    """
    row = await _open_exception(snapshot, exception_id)
    stream = row["source"], row["kind"], row["resource_id"]
    if action == "keep":
        positions = [r["position"] for r in await snapshot.rows(SELECT_STREAM_POSITIONS, *stream)]
        if keep not in positions:
            known = ", ".join(map(str, positions)) or "none"
            raise BadQuestion(f"keep must be the position of one of its events: {known}")
    about = {
        "exception": exception_id,
        "kind": row["kind"],
        "resource": row["resource_id"],
        "reason": row["reason"],
    }
    return row["source"], about


async def _open_exception(snapshot: Snapshot, exception_id: str) -> Row:
    for source in snapshot.places:
        row = await snapshot.row(
            SELECT_EXCEPTIONS, source, 1, None, None, exception_id, None, None, None
        )
        if row is None:
            continue
        if row["state"] != "open":
            raise Conflicting(f"exception {exception_id} is {row['state']} already")
        return row
    raise NotFound(f"there is no exception {exception_id!r}; /v1/exceptions lists them")


async def status(snapshot: Snapshot, warnings: list[str]) -> Status:
    """Read how far each log and its books are, and whether the database keeps its word."""
    lags = {row["source"]: row for row in await snapshot.rows(SELECT_LAGS)}
    sources = [
        SourceStatus(
            source=source,
            head=place.head,
            books_position=place.books,
            lag_events=place.head - place.books,
            lag_seconds=round(lags[source]["lag_seconds"], 3),
            parked=place.parked,
            exceptions=lags[source]["exceptions"],
            generation=snapshot.generation,
        )
        for source, place in snapshot.places.items()
    ]
    version = await snapshot.row(SHOW_VERSION)
    unsafe = await database.safety_problems(snapshot.connection)
    return Status(
        sources=sources,
        generation=snapshot.generation,
        books_version=snapshot.version,
        version=__version__,
        database=DatabaseStatus(
            version=str(version["version"]) if version else "", safe=not unsafe
        ),
        warnings=[*warnings, *unsafe],
        position=snapshot.position,
    )
