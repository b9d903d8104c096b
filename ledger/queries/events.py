"""Reading the log: events, their bodies, and the deliveries that brought them or were refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ledger.config.source import EVENT_NAME
from ledger.errors import InvalidRequest, NotFound
from ledger.queries.params import POSITION_MAX, QueryParams, after, write_cursor
from ledger.queries.schemas.log import Deliveries, Delivery, Event, EventDetail, Events
from ledger.queries.schemas.money import from_row
from ledger.queries.snapshot import DatabaseRow, Listing, Snapshot

SELECT_EVENTS: Final = """
SELECT source, position, encode(event_id, 'hex') AS event_id, idempotency_key, kind, resource_id,
       status, idempotency_id, provider_at, path_event, origin, verdict, reason, detail, peer,
       received_at, recorded_at, octet_length(body) AS body_bytes
  FROM ledger.events
 WHERE source = $1 AND ($3::bigint IS NULL OR position < $3)
   AND ($4::text IS NULL OR kind = $4) AND ($5::text IS NULL OR resource_id = $5)
   AND ($6::text IS NULL OR status = $6) AND ($7::text IS NULL OR verdict = $7)
   AND ($8::timestamptz IS NULL
        OR position > ledger.position_at($1, $8 - interval '1 microsecond'))
   AND ($9::timestamptz IS NULL
        OR position <= ledger.position_at($1, $9 - interval '1 microsecond'))
 ORDER BY position DESC LIMIT $2
"""
# Limits and their requests are streams of a customer and an id; events have the id alone.
SELECT_PROVIDER_ID: Final = """
SELECT provider_id FROM limits WHERE source = $1 AND kind = $2 AND id = $3
 UNION ALL
SELECT provider_id FROM limit_requests WHERE source = $1 AND kind = $2 AND id = $3
"""
SELECT_EVENT: Final = """
SELECT source, position, encode(event_id, 'hex') AS event_id, idempotency_key, kind, resource_id,
       status, idempotency_id, provider_at, path_event, origin, verdict, reason, detail, peer,
       received_at, recorded_at, octet_length(body) AS body_bytes, headers
  FROM ledger.events WHERE source = $1 AND position = $2
"""
SELECT_BODY: Final = """
SELECT encode(event_id, 'hex') AS event_id, body
  FROM ledger.events WHERE source = $1 AND position = $2
"""
# Both take: $1 source, $2 rows, $3 before, $4 outcome, $5 event, $6 from, $7 to, $8 path event.
SELECT_FIRST_DELIVERIES: Final = """
SELECT source, recorded_at AS at, verdict AS outcome, 200 AS answer, position, path_event, peer,
       reason, octet_length(body) AS body_bytes, 1 AS count, NULL::timestamptz AS last_at,
       position AS place
  FROM ledger.events
 WHERE source = $1 AND position < $3 AND origin = 'callback'
   AND ($4::text IS NULL OR verdict = $4) AND ($5::bigint IS NULL OR position = $5)
   AND ($6::timestamptz IS NULL
        OR position > ledger.position_at($1, $6 - interval '1 microsecond'))
   AND ($7::timestamptz IS NULL
        OR position <= ledger.position_at($1, $7 - interval '1 microsecond'))
   AND ($8::text IS NULL OR path_event = $8)
 ORDER BY position DESC LIMIT $2
"""
SELECT_OTHER_DELIVERIES: Final = """
SELECT source, at, outcome, answer, position, path_event, peer, reason, body_bytes, count, last_at,
       id AS place
  FROM ledger.deliveries
 WHERE source = $1 AND id < $3
   AND ($4::text IS NULL OR outcome = $4) AND ($5::bigint IS NULL OR position = $5)
   AND ($6::timestamptz IS NULL OR at >= $6) AND ($7::timestamptz IS NULL OR at < $7)
   AND ($8::text IS NULL OR path_event = $8)
 ORDER BY id DESC LIMIT $2
"""
SELECT_POSITION: Final = "SELECT position FROM ledger.events WHERE source = $1 AND event_id = $2"
# Deliveries to a URL that names no source are recorded under a name that has no log.
SELECT_DELIVERY_SOURCES: Final = """
WITH RECURSIVE names(source) AS (
       (SELECT source FROM ledger.deliveries ORDER BY source LIMIT 1)
        UNION ALL
       SELECT (SELECT d.source FROM ledger.deliveries AS d
                WHERE d.source > n.source ORDER BY d.source LIMIT 1)
         FROM names AS n WHERE n.source IS NOT NULL)
SELECT source FROM names WHERE source IS NOT NULL
"""

PLACE: Final = re.compile(r"(?:([^:]+):)?([0-9]{1,18})", re.ASCII)
EVENT_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
NO_POSITION: Final = 0
"""A position that no event has."""

EVENTS: Final = Listing(SELECT_EVENTS, {"position": int})


async def events(snapshot: Snapshot, params: QueryParams) -> Events:
    """Read envelopes, the newest first; the answer is true at the head of each log."""
    rows, following = await EVENTS.page(
        snapshot,
        params,
        params.text("kind"),
        await _resource(snapshot, params),
        params.text("status"),
        params.text("verdict"),
        params.time("from"),
        params.time("to"),
    )
    events = [from_row(Event, row) for row in rows]
    return Events(events=events, next=following, position=snapshot.head)


async def _resource(snapshot: Snapshot, params: QueryParams) -> str | None:
    """Return the resource that events have which is asked for, also by the id of its row."""
    kind, resource = params.text("kind"), params.text("resource_id")
    if kind is not None and resource is not None:
        for source in snapshot.sources(params):
            row = await snapshot.row(SELECT_PROVIDER_ID, source, kind, resource)
            if row is not None and row["provider_id"] is not None:
                return str(row["provider_id"])
    return resource


async def event(snapshot: Snapshot, params: QueryParams) -> EventDetail:
    """Read one envelope with its headers. Raises NotFound."""
    return from_row(EventDetail, await _event(snapshot, params, SELECT_EVENT))


async def body(snapshot: Snapshot, params: QueryParams) -> tuple[str, bytes]:
    """Read an event's id and its body, byte for byte as it arrived. Raises NotFound."""
    row = await _event(snapshot, params, SELECT_BODY)
    return row["event_id"], row["body"]


async def _event(snapshot: Snapshot, params: QueryParams, statement: str) -> DatabaseRow:
    source, position = snapshot.check(params.need("source")), params.number("position")
    row = await snapshot.row(statement, source, position)
    if row is None:
        head = snapshot.places[source].head
        raise NotFound(f"source {source} has no event {position}; its log ends at {head}")
    return row


async def deliveries(snapshot: Snapshot, params: QueryParams) -> Deliveries:
    """Read what reached the receiver, the newest first; true at the head of each log.

    Two series are merged by time, each read backwards along its own key, so a page costs the
    same however long they are.
    """
    rows: list[DatabaseRow] = []
    position = snapshot.head
    for source in await _sources(snapshot, params):
        start = after(params, source, (int, int))
        places = [POSITION_MAX if place is None else int(place) for place in start]
        count = params.limit + 1 - len(rows)
        merged = await _merged(snapshot, params, source, places, count)
        if len(merged) == count:
            rows += merged[:-1]
            following = write_cursor([source, *_places_after(places, merged[:-1])])
            return Deliveries(deliveries=_deliveries(rows), next=following, position=position)
        rows += merged
    return Deliveries(deliveries=_deliveries(rows), next=None, position=position)


def _deliveries(rows: Iterable[DatabaseRow]) -> list[Delivery]:
    return [from_row(Delivery, row) for row in rows]


async def _sources(snapshot: Snapshot, params: QueryParams) -> list[str]:
    recorded = {row["source"] for row in await snapshot.rows(SELECT_DELIVERY_SOURCES)}
    requested = params.text("source")
    names = {*snapshot.places, *recorded}
    if requested is not None:
        names = {requested if requested in recorded else snapshot.check(requested)}
    first = str(params.cursor[0]) if params.cursor else ""
    return sorted(name for name in names if name >= first)


async def _merged(
    snapshot: Snapshot, params: QueryParams, source: str, places: list[int], count: int
) -> list[DatabaseRow]:
    """Return the newest `count` rows of both series that lie before `places`."""
    position, path_event = await _event_filter(snapshot, source, params.text("event"))
    filters = (
        params.text("outcome"),
        position,
        params.time("from"),
        params.time("to"),
        path_event,
    )
    first = await snapshot.rows(SELECT_FIRST_DELIVERIES, source, count, places[0], *filters)
    other = await snapshot.rows(SELECT_OTHER_DELIVERIES, source, count, places[1], *filters)
    merged: list[DatabaseRow] = []
    while len(merged) < count and (first or other):
        is_first = not other or (first and first[0]["at"] >= other[0]["at"])
        merged.append((first if is_first else other).pop(0))
    return merged


async def _event_filter(
    snapshot: Snapshot, source: str, event: str | None
) -> tuple[int | None, str | None]:
    """Return the position of `source`, or the event name of a URL, that a parameter names."""
    if event is None:
        return None, None
    if place := PLACE.fullmatch(event):
        return (int(place[2]) if place[1] in (None, source) else NO_POSITION), None
    if EVENT_ID.fullmatch(event):
        row = await snapshot.row(SELECT_POSITION, source, bytes.fromhex(event))
        return (row["position"] if row else NO_POSITION), None
    if not EVENT_NAME.fullmatch(event):
        shown = event[:64]
        raise InvalidRequest(f"event is a position, an event id or an event's name, not {shown!r}")
    return None, event


def _places_after(places: list[int], rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """Return the last row of each series after `rows`."""
    first, other = places
    for row in rows:
        if row["outcome"] in ("accepted", "quarantined"):
            first = row["place"]
        else:
            other = row["place"]
    return [first, other]
