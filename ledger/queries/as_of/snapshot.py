"""As-of: how an earlier state is read: which facts counted, what they stated, their page.

`position` and `recorded_at` limit what the log contained, `effective_at` what the provider dates at
or before a time. An operator's decision counts from its position on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from msgspec import UNSET

from ledger import registry
from ledger.books.balance_index import Bound
from ledger.books.projection_worker import log_handler_failure
from ledger.errors import InvalidRequest
from ledger.eventlog import clocks
from ledger.eventlog.reader import read_at
from ledger.eventlog.sources import load_terms
from ledger.fold.change import StreamKey
from ledger.fold.translate import translate
from ledger.model import Received, SourceTerms
from ledger.queries.as_of.refold import Refold, requested_positions
from ledger.queries.params import AsOfParams, QueryParams, after, write_cursor
from ledger.queries.schemas.money import AsOf, Step, from_row
from ledger.queries.snapshot import BooksBehind, DatabaseRow, Snapshot, SourcePlace, group_rows
from ledger.queries.transactions import HISTORY_MAX

Read: TypeAlias = Callable[[Snapshot, QueryParams], Awaitable[Any]]

STREAMS_AT_ONCE: Final = 64
EVENTS_AT_ONCE: Final = 256
NAMED_ROWS_MAX: Final = 16
"""Streams looked at of one name: a view needs two; an unknown status gives a stream no name."""
LOOKED_AT_MAX: Final = 10_000
"""Candidates that one page reads at most; then it ends early, and its `next` continues."""

SELECT_NOW: Final = "SELECT clock_timestamp() AS now"
SELECT_POSITION_AT: Final = "SELECT ledger.position_at($1, $2) AS position"
SELECT_PARKED_THEN: Final = """
SELECT count(*) AS parked FROM parked WHERE source = $1 AND position <= $2
"""
# Later events of a parked stream were not folded, and neither were decisions on it, or on one that
# was not known yet.
SELECT_FACTS: Final = """
SELECT h.kind, h.id, h.position
  FROM unnest($2::text[], $3::text[]) AS u(kind, id)
  JOIN history AS h ON h.source = $1 AND h.kind = u.kind AND h.id = u.id
   AND hashtextextended(h.id, 0) = hashtextextended(u.id, 0)
 WHERE h.position <= $4 AND h.effective_at <= $5
 UNION
SELECT d.kind, d.id, d.position
  FROM unnest($2::text[], $3::text[]) AS u(kind, id)
  JOIN decisions AS d ON d.source = $1 AND d.kind = u.kind AND d.id = u.id
   AND hashtextextended(d.id, 0) = hashtextextended(u.id, 0)
 WHERE d.position <= $4
   AND EXISTS (SELECT FROM history AS h
                WHERE h.source = $1 AND h.kind = d.kind AND h.id = d.id
                  AND hashtextextended(h.id, 0) = hashtextextended(d.id, 0)
                  AND h.position < d.position)
   AND NOT EXISTS (SELECT FROM parked AS p
                    WHERE p.source = $1 AND p.kind = d.kind AND p.resource_id = d.id
                      AND hashtextextended(p.resource_id, 0) = hashtextextended(d.id, 0)
                      AND p.position < d.position)
 ORDER BY 3
"""
# Streams that had a name then, or one with an unknown status. $4 the time, $5 how many of each.
SELECT_NAMED_THEN: Final = """
SELECT u.name, l.kind, l.id FROM unnest($2::text[]) AS u(name)
 CROSS JOIN LATERAL (
       SELECT links.kind, links.id FROM links
        WHERE links.source = $1 AND links.link = 'named:' || u.name
          AND hashtextextended(links.link, 0) = hashtextextended('named:' || u.name, 0)
          AND EXISTS (SELECT FROM history AS h
                       WHERE h.source = $1 AND h.kind = links.kind AND h.id = links.id
                         AND hashtextextended(h.id, 0) = hashtextextended(links.id, 0)
                         AND (h.idempotency_id = u.name OR h.id = u.name)
                         AND h.position <= $3 AND h.effective_at <= $4)
        ORDER BY links.kind COLLATE "C", links.id COLLATE "C" LIMIT $5) AS l
"""
SELECT_RECEIVED_THEN: Final = """
SELECT r.kind, r.id, r.currency, sum(r.count)::int AS count, sum(r.amount) AS amount
  FROM unnest($2::text[], $3::text[]) AS u(kind, id)
  JOIN returns AS r ON r.source = $1 AND r.kind = u.kind AND r.id = u.id
   AND hashtextextended(r.id, 0) = hashtextextended(u.id, 0)
 WHERE r.position <= $4 AND r.effective_at <= $5
 GROUP BY r.kind, r.id, r.currency
HAVING sum(r.count) <> 0 OR sum(r.amount) <> 0
 ORDER BY r.currency
"""
SELECT_HISTORY_THEN: Final = """
SELECT h.kind, h.id, h.position, h.event_id, h.status, h.idempotency_id, h.effective_at,
       h.received_at, h.recorded_at
  FROM unnest($2::text[], $3::text[]) AS u(kind, id)
 CROSS JOIN LATERAL (
       SELECT * FROM history AS t
        WHERE t.source = $1 AND t.kind = u.kind AND t.id = u.id
          AND hashtextextended(t.id, 0) = hashtextextended(u.id, 0)
          AND t.position <= $4 AND t.effective_at <= $5
        ORDER BY t.position DESC LIMIT $6) AS h
 ORDER BY h.position
"""


def with_as_of(current: Read, historical: Read) -> Read:
    """Return a read that is `current`, or with as-of parameters `historical`."""

    async def read(snapshot: Snapshot, params: QueryParams) -> Any:
        if params.as_of is None:
            return await current(snapshot, params)
        return await historical(await earlier(snapshot, params, params.as_of), params)

    return read


async def earlier(snapshot: Snapshot, params: QueryParams, as_of: AsOfParams) -> Snapshot:
    """Return the snapshot at the requested earlier state.

    Raises NotFound for an unknown source, InvalidRequest beyond the log or the present, and
    BooksBehind when the books have not reached a position that the log has.
    """
    requested = params.text("source")
    sources = list(snapshot.places) if requested is None else [snapshot.check(requested)]
    for source in as_of.positions:
        snapshot.check(source)
    named = requested_positions(as_of, {s: snapshot.places[s].head for s in sources})
    await _check_is_past(snapshot, as_of.recorded_at)
    places = dict(snapshot.places)
    for source in sources:
        position = await _position(snapshot, source, named.get(source), as_of.recorded_at)
        parked = await snapshot.row(SELECT_PARKED_THEN, source, position)
        places[source] = SourcePlace(
            snapshot.places[source].head, position, parked["parked"] if parked else 0
        )
    positions = {source: places[source].books for source in sources}
    warnings: list[str] = []
    if as_of.recorded_at is not None:
        by_time = {s: place for s, place in positions.items() if place < named.get(s, place + 1)}
        warnings = await clocks.doubts(snapshot.connection, by_time, as_of.recorded_at)
    resolved = AsOf(
        effective_at=as_of.effective_at,
        recorded_at=as_of.recorded_at,
        position=positions,
        warnings=warnings or UNSET,
    )
    return replace(snapshot, places=places, as_of=resolved)


async def _check_is_past(snapshot: Snapshot, moment: datetime | None) -> None:
    if moment is None:
        return
    row = await snapshot.row(SELECT_NOW)
    now = row["now"] if row else datetime.now(UTC)
    if moment > now:
        present = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        raise InvalidRequest(f"recorded_at is in the future; it is {present} here")


async def _position(
    snapshot: Snapshot, source: str, named: int | None, recorded_at: datetime | None
) -> int:
    place = snapshot.places[source]
    if named is not None and named > place.head:
        raise InvalidRequest(
            f"position {named} is beyond the log of {source}: it ends at {place.head}"
        )
    limits = [position for position in (named,) if position is not None]
    if recorded_at is not None:
        row = await snapshot.row(SELECT_POSITION_AT, source, recorded_at)
        limits.append(row["position"] if row else 0)
    position = min(limits, default=place.books)
    if position > place.books:
        raise BooksBehind(f"{source}:{position}")
    return position


def bound(snapshot: Snapshot, source: str) -> Bound:
    """Return which part of a source's journal an earlier snapshot shows."""
    return Bound(source, snapshot.places[source].books, snapshot.effective_at)


async def page(
    snapshot: Snapshot,
    params: QueryParams,
    kinds: Mapping[str, type],
    candidates: Callable[[str, int, Sequence[Any]], Awaitable[Sequence[DatabaseRow]]],
    evaluate: Callable[[str, Sequence[DatabaseRow]], Awaitable[Sequence[DatabaseRow | None]]],
) -> tuple[list[DatabaseRow], str | None]:
    """Fill one page with the candidates that were there then; return it and the next cursor.

    `kinds` are the columns of the key, within a source, in whose order candidates come. `evaluate`
    returns the earlier row of each candidate, or None.
    """
    rows: list[DatabaseRow] = []
    last: list[Any] = []
    looked_at = 0
    for source in snapshot.sources(params):
        start: list[Any] = after(params, source, list(kinds.values()))
        more = True
        while more:
            keys = await candidates(source, STREAMS_AT_ONCE, start)
            for key, row in zip(keys, await evaluate(source, keys), strict=True):
                if row is not None and len(rows) == params.limit:
                    return rows, write_cursor(last)
                start = [key[name] for name in kinds]
                if row is not None:
                    rows.append(row)
                    last = [source, *start]
            looked_at += len(keys)
            more = len(keys) == STREAMS_AT_ONCE
            if more and looked_at >= LOOKED_AT_MAX:
                return rows, write_cursor([source, *start])
    return rows, None


async def rows_then(
    snapshot: Snapshot, source: str, keys: Sequence[StreamKey]
) -> list[dict[str, Any] | None]:
    """Return what the rows of streams were; None where nothing was known yet."""
    known = registry.load().streams
    refold = Refold(await _terms(snapshot, source), known)
    await _refold(snapshot, refold, keys)
    named = await _named(snapshot, source, {name for key in keys for name in refold.mentions(key)})
    mentioned = {key for streams in named.values() for key in streams}
    await _refold(snapshot, refold, sorted(mentioned - {*keys}))
    received = await _received(snapshot, source, [key for key in keys if refold.can_receive(key)])
    return [refold.row(key, named, received.get(key, ())) for key in keys]


async def _named(snapshot: Snapshot, source: str, names: set[str]) -> dict[str, list[StreamKey]]:
    """Return the streams that may have had each of `names` then."""
    if not names:
        return {}
    rows = await snapshot.rows(
        SELECT_NAMED_THEN, source, sorted(names), *_within(snapshot, source), NAMED_ROWS_MAX
    )
    found: dict[str, list[StreamKey]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append((row["kind"], row["id"]))
    return found


async def _received(
    snapshot: Snapshot, source: str, keys: Sequence[StreamKey]
) -> dict[StreamKey, list[Received]]:
    """Return what other streams counted towards each of `keys` then."""
    if not keys:
        return {}
    rows = await snapshot.rows(
        SELECT_RECEIVED_THEN, source, *_columns(keys), *_within(snapshot, source)
    )
    found: dict[StreamKey, list[Received]] = {}
    for row in rows:
        received = Received(row["currency"], row["count"], row["amount"])
        found.setdefault((row["kind"], row["id"]), []).append(received)
    return found


async def _terms(snapshot: Snapshot, source: str) -> SourceTerms:
    return next(t for t in await load_terms(snapshot.connection) if t.source == source)


async def _refold(snapshot: Snapshot, refold: Refold, keys: Sequence[StreamKey]) -> None:
    """Fold streams again, a bounded number of bodies at a time."""
    source = refold.terms.source
    facts = await snapshot.rows(SELECT_FACTS, source, *_columns(keys), *_within(snapshot, source))
    known = registry.load()
    for first in range(0, len(facts), EVENTS_AT_ONCE):
        part = facts[first : first + EVENTS_AT_ONCE]
        places = sorted({row["position"] for row in part})
        bodies = {
            row["position"]: translate(known.dispatch, refold.terms, row, log_handler_failure)
            for row in await read_at(snapshot.connection, source, places)
        }
        refold.add(((row["kind"], row["id"]), bodies[row["position"]]) for row in part)


def _within(snapshot: Snapshot, source: str) -> tuple[int, datetime]:
    return snapshot.places[source].books, snapshot.effective_at


def _columns(keys: Iterable[StreamKey]) -> tuple[list[str], list[str]]:
    listed = list(keys)
    return [kind for kind, _ in listed], [id_ for _, id_ in listed]


async def histories_then(
    snapshot: Snapshot, source: str, keys: Sequence[StreamKey]
) -> dict[tuple[Any, ...], list[Step]]:
    """Read the earlier history of streams, by (kind, id)."""
    rows = await snapshot.rows(
        SELECT_HISTORY_THEN, source, *_columns(keys), *_within(snapshot, source), HISTORY_MAX
    )
    return {
        stream: [from_row(Step, row) for row in group]
        for stream, group in group_rows(rows, "kind", "id").items()
    }
