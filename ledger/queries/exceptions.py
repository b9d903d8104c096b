"""Reading what an operator should look at, and checking what is decided about it.

Exceptions of the log are about one event each. After them, source by source, come findings: what
looks incomplete by now. A finding has no row of its own; only a decision on it is an event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from ledger.config.reconciliation import Rules
from ledger.errors import Conflicting, InvalidRequest, NotFound
from ledger.model import RETRY
from ledger.queries import findings
from ledger.queries.findings import FindingsRequest, key_of
from ledger.queries.params import QueryParams, after, write_cursor
from ledger.queries.schemas.log import EventRef, Exceptions, OperatorException
from ledger.queries.schemas.money import from_row
from ledger.queries.schemas.reconciliation import FindingAnswer
from ledger.queries.snapshot import DatabaseRow, Listing, Snapshot

RETRIED: Final = ("parked", "rows_refused")
"""Reasons of exceptions about events that were parked and may be folded again."""

# An exception is its latest row; one that was opened again starts over.
SELECT_EXCEPTIONS: Final = """
SELECT o.source, o.id, o.position, o.reason, o.detail, o.kind, o.resource_id, o.event_id,
       o.at AS opened_at, latest.state,
       CASE WHEN latest.state <> 'open' THEN latest.at END AS closed_at, decision.note
  FROM exceptions AS o
 CROSS JOIN LATERAL (
       SELECT CASE x.action WHEN 'opened' THEN 'open' ELSE x.action END AS state, x.at
         FROM exceptions AS x WHERE x.source = o.source AND x.id = o.id
        ORDER BY x.position DESC, x.action DESC LIMIT 1) AS latest
  LEFT JOIN LATERAL (
       SELECT x.note FROM exceptions AS x
        WHERE x.source = o.source AND x.id = o.id AND x.position >= o.position
          AND x.action = 'resolved'
        ORDER BY x.position DESC LIMIT 1) AS decision ON true
 WHERE o.source = $1 AND o.action = 'opened'
   AND ($3::bigint IS NULL OR (o.position, o.id) < ($3, $4::text))
   AND o.position = (SELECT x.position FROM exceptions AS x
                      WHERE x.source = o.source AND x.id = o.id AND x.action = 'opened'
                      ORDER BY x.position DESC LIMIT 1)
   AND ($5::text IS NULL OR o.id = $5) AND ($6::text IS NULL OR o.reason = $6)
   AND ($7::text IS NULL OR o.kind = $7) AND ($8::text IS NULL OR latest.state = $8)
 ORDER BY o.position DESC, o.id DESC LIMIT $2
"""
SELECT_OPEN: Final = """
SELECT o.source, o.id, o.position, o.reason, o.detail, o.kind, o.resource_id, o.event_id,
       o.at AS opened_at, 'open' AS state, NULL::timestamptz AS closed_at, NULL AS note
  FROM open_exceptions AS k
  JOIN exceptions AS o
    ON o.source = k.source AND o.id = k.id AND o.position = k.position AND o.action = 'opened'
 WHERE k.source = $1 AND ($3::bigint IS NULL OR (k.position, k.id) < ($3, $4::text))
   AND ($5::text IS NULL OR k.reason = $5) AND ($6::text IS NULL OR k.kind = $6)
 ORDER BY k.position DESC, k.id DESC LIMIT $2
"""
SELECT_STREAM_POSITIONS: Final = """
SELECT position FROM history
 WHERE source = $1 AND kind = $2 AND id = $3 AND hashtextextended(id, 0) = hashtextextended($3, 0)
 ORDER BY position
"""
SELECT_RESOLVED: Final = """
SELECT id, at, note FROM exceptions
 WHERE source = $1 AND id = ANY ($2::text[]) AND action = 'resolved' ORDER BY position
"""
SELECT_EVENT_IDS: Final = """
SELECT position, encode(event_id, 'hex') AS event_id FROM ledger.events
 WHERE source = $1 AND position = ANY ($2::bigint[])
"""

EXCEPTIONS: Final = Listing(SELECT_EXCEPTIONS, {"position": int, "id": str})
OPEN: Final = Listing(SELECT_OPEN, {"position": int, "id": str})

Keyed: TypeAlias = tuple[int, OperatorException]
"""What orders an exception, and the exception: its event's position, or below 0 for a finding."""


async def exceptions(
    snapshot: Snapshot, params: QueryParams, rules: Mapping[str, Rules]
) -> Exceptions:
    """Read what an operator should look at: of each source its exceptions, then its findings.

    Both the newest first. Findings are not read when the page is full without them.
    """
    listed: list[Keyed] = []
    following = None
    for source in snapshot.sources(params):
        start = after(params, source, [int, str])
        listed += await _logged(snapshot, params, source, start, params.limit + 1 - len(listed))
        count = params.limit + 1 - len(listed)
        if count > 0 and params.text("state") != "cleared":
            declared = rules.get(source, Rules())
            listed += await _findings(snapshot, params, source, declared, (start, count))
        if len(listed) > params.limit:
            listed = listed[: params.limit]
            order, last = listed[-1]
            following = write_cursor([last.source, order, last.id])
            break
    rows = [exception for _, exception in listed]
    return Exceptions(exceptions=rows, next=following, position=snapshot.position)


async def _logged(
    snapshot: Snapshot, params: QueryParams, source: str, start: Sequence[Any], count: int
) -> list[Keyed]:
    """Read exceptions of the log; none when the page before ended among the findings."""
    if start[0] is not None and start[0] < 0:
        return []
    filters, state = [params.text(name) for name in ("reason", "kind")], params.text("state")
    if state == "open":
        rows = await OPEN.rows(snapshot, source, count, start, *filters)
    else:
        rows = await EXCEPTIONS.rows(snapshot, source, count, start, None, *filters, state)
    return [(row["position"], _exception(row)) for row in rows]


def _exception(row: DatabaseRow) -> OperatorException:
    event = EventRef(position=row["position"], event_id=row["event_id"])
    return from_row(OperatorException, row, event=event)


async def _findings(
    snapshot: Snapshot, params: QueryParams, source: str, rules: Rules,
    part: tuple[Sequence[Any], int],
) -> list[Keyed]:  # fmt: skip
    """Read findings as exceptions: `part` is the key after which to begin, and how many."""
    (order, name), count = part
    start = None if order is None or order >= 0 else (order, name)
    request = FindingsRequest(
        await findings.now(snapshot), count, start, params.text("reason"),
        params.text("kind"), params.text("state"),
    )  # fmt: skip
    rows = await findings.read_findings(snapshot, source, request, rules)
    resolved = await _resolved(snapshot, source, [row.exception for row in rows])
    positions = [row.event_position for row in rows if row.event_position is not None]
    events = {
        event["position"]: EventRef(position=event["position"], event_id=event["event_id"])
        for event in await snapshot.rows(SELECT_EVENT_IDS, source, positions)
    }
    return [
        (
            key_of(row)[0],
            _as_exception(row, events.get(row.event_position or 0), resolved.get(row.exception)),
        )
        for row in rows
    ]


async def _resolved(
    snapshot: Snapshot, source: str, names: Sequence[str]
) -> dict[str, DatabaseRow]:
    """Return the latest decision on each finding that has one."""
    if not names:
        return {}
    return {row["id"]: row for row in await snapshot.rows(SELECT_RESOLVED, source, list(names))}


def _as_exception(
    finding: FindingAnswer, event: EventRef | None, resolved: DatabaseRow | None
) -> OperatorException:
    return OperatorException(
        id=finding.exception,
        source=finding.source,
        reason=finding.reason,
        detail=finding.detail,
        kind=finding.kind,
        resource_id=finding.id,
        event=event,
        state="resolved" if resolved else "open",
        opened_at=finding.since,
        closed_at=resolved["at"] if resolved else None,
        note=resolved["note"] if resolved else None,
    )


async def prepare_decision(
    snapshot: Snapshot, exception_id: str, action: str, keep: int | None,
    rules: Mapping[str, Rules],
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """Check a decision against its exception; return its source and the details of its event.

    Raises NotFound, Conflicting when the exception is closed, InvalidRequest when the action does
    not fit it.
    """
    row = await _logged_one(snapshot, exception_id) or await _finding(snapshot, exception_id, rules)
    if row is None:
        raise NotFound(f"there is no exception {exception_id!r}; /v1/exceptions lists them")
    if row["state"] != "open":
        raise Conflicting(f"exception {exception_id} is {row['state']} already")
    stream = row["source"], row["kind"], row["resource_id"]
    if action == RETRY and row["reason"] not in RETRIED:
        raise InvalidRequest(
            f"{row['reason']} is not about an event that was parked, so there is nothing to "
            f"retry; retry is for: {', '.join(RETRIED)}"
        )
    if action == "keep":
        if "event_id" not in row:
            raise InvalidRequest(
                f"{row['reason']} is no contradiction between events, so none can be kept; "
                "acknowledge it"
            )
        positions = [r["position"] for r in await snapshot.rows(SELECT_STREAM_POSITIONS, *stream)]
        if keep not in positions:
            known = ", ".join(map(str, positions)) or "none"
            raise InvalidRequest(f"keep must be the position of one of its events: {known}")
    details = {
        "exception": exception_id,
        "kind": row["kind"],
        "resource": row["resource_id"],
        "reason": row["reason"],
    }
    return row["source"], details


async def _logged_one(snapshot: Snapshot, exception_id: str) -> DatabaseRow | None:
    for source in snapshot.places:
        row = await snapshot.row(
            SELECT_EXCEPTIONS, source, 1, None, None, exception_id, None, None, None
        )
        if row is not None:
            return row
    return None


async def _finding(
    snapshot: Snapshot, exception_id: str, rules: Mapping[str, Rules]
) -> DatabaseRow | None:
    """Return a finding like a row of the log's exceptions, without an event of its own."""
    as_of = await findings.now(snapshot)
    for source in snapshot.places:
        request = FindingsRequest(as_of, 1, name=exception_id)
        declared = rules.get(source, Rules())
        for finding in await findings.read_findings(snapshot, source, request, declared):
            resolved = await _resolved(snapshot, source, [exception_id])
            return {
                "source": source, "kind": finding.kind, "resource_id": finding.id,
                "reason": finding.reason, "state": "resolved" if resolved else "open",
            }  # fmt: skip
    return None
