"""The fold: events in log order → what changes in the books. Pure; knows no kind and no view.

A batch is folded in three passes: states (stream by stream), then the streams related to them
are fetched by the caller, then views, whose differences become journal entries and rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

from ledger.journal import add_entries, check_balanced
from ledger.model import (
    Decision,
    Entry,
    Fact,
    Outcome,
    Projection,
    Seen,
    SourceTerms,
    StreamProjection,
    Trouble,
    View,
)
from ledger.stored import Stored, decoder

StreamKey: TypeAlias = tuple[str, str]
"""(kind, resource id)"""

DECISION: Final = "decision"
PARKED: Final = "parked"
RELATED_MAX: Final = 16
"""Streams looked at under one link, the same ones however events are cut into batches."""


@dataclass(frozen=True, slots=True)
class Translated:
    """An event of the log after translation: a fact, or the trouble that prevented one."""

    position: int
    event_id: str
    kind: str
    resource_id: str
    status: str
    received_at: datetime
    recorded_at: datetime
    fact: Fact | None
    trouble: Trouble | None = None


@dataclass(slots=True)
class Stream:
    """A stream during a batch. `row` is None until something in it changed."""

    key: StreamKey
    projection: StreamProjection
    stored: Stored
    first_position: int
    position: int
    is_new: bool
    row: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Park:
    """An event that waits because its stream's fold failed."""

    position: int
    key: StreamKey
    reason: str


@dataclass(slots=True)
class Change:
    """What a batch does to the books of one source, ready to be written."""

    streams: list[Stream]
    rows: dict[str, list[tuple[Any, ...]]]
    sums: dict[str, dict[tuple[Any, ...], list[Decimal]]]
    links: list[tuple[str, str, str]]
    parked: list[Park]


def stream_of(event: Translated, streams_of: Mapping[str, StreamProjection]) -> StreamKey | None:
    """Name the stream of an event; None when it has none. A decision is for its target."""
    fact = event.fact
    if fact is None:
        return None
    key = (fact.kind, fact.resource_id)
    if fact.kind == DECISION:
        key = (str(fact.details.get("kind")), str(fact.details.get("resource")))
    return key if key[0] in streams_of else None


def advance(projection: StreamProjection, state: Any, event: Translated) -> Any:
    """Return the state of a stream after an event of it: a fact, or an operator's decision."""
    fact = event.fact
    if fact is None:
        return state
    if fact.kind != DECISION:
        seen = Seen(fact, event.position, event.event_id, event.received_at, event.recorded_at)
        return projection.fold(state, seen)
    if state is None or projection.decide is None or fact.status != "keep":
        return state
    decision = Decision(str(fact.details.get("reason")), fact.details.get("keep"), event.position)
    return projection.decide(state, decision)


@dataclass(slots=True)
class Batch:
    """One batch of one source on its way through the fold."""

    terms: SourceTerms
    streams_of: Mapping[str, StreamProjection]
    projections: Sequence[Projection]
    events: Sequence[Translated]
    streams: dict[StreamKey, Stream] = field(default_factory=dict)
    parked: set[StreamKey] = field(default_factory=set)
    parks: list[Park] = field(default_factory=list)
    _after: list[Any] = field(default_factory=list)
    _related: dict[str, set[StreamKey]] = field(default_factory=lambda: defaultdict(set))
    _new_links: list[tuple[str, str, str]] = field(default_factory=list)
    _made: list[list[tuple[Any, ...]]] = field(default_factory=list)
    """The rows of every event-wise projection, in their order."""

    def __post_init__(self) -> None:
        self._made = [[] for _ in self.projections]

    def keys(self) -> set[StreamKey]:
        """Return the streams that these events belong to; the caller loads them."""
        return {key for event in self.events if (key := self._key(event)) is not None}

    def add_stream(self, key: StreamKey, first_position: int, position: int, raw: bytes) -> None:
        """Give the batch a stream as the books hold it."""
        projection = self.streams_of[key[0]]
        stored = decoder(projection).decode(raw)
        self.streams[key] = Stream(key, projection, stored, first_position, position, is_new=False)

    def fold_states(self) -> set[str]:
        """Fold every event into its stream's state; return the link keys that matter.

        The caller gives the streams known under them to `relate` and `add_stream`.
        """
        latest: dict[StreamKey, Any] = {}
        links: set[str] = set()
        for event in self.events:
            key = self._key(event)
            state: Any = None
            if key is not None and key not in self.parked:
                projection = self.streams_of[key[0]]
                stream = self.streams.get(key)
                before = latest.get(key, stream.stored.state if stream else None)
                try:
                    state = advance(projection, before, event)
                    if projection.links is not None and state is not None:
                        links.update(projection.links(state))
                except Exception as error:  # noqa: BLE001 - a fold's bug parks its stream only
                    state = error
                else:
                    latest[key] = state
            self._after.append(state)
        return links

    def follow(self, earlier: Change) -> None:
        """Take what an earlier batch changed and the books may not show yet."""
        for stream in earlier.streams:
            self.streams[stream.key] = Stream(
                stream.key,
                stream.projection,
                stream.stored,
                stream.first_position,
                stream.position,
                is_new=False,
            )
        for link, kind, resource in earlier.links:
            self._related[link].add((kind, resource))
        self.parked.update(park.key for park in earlier.parked)

    def links(self) -> set[str]:
        """Return the links of every stream that was loaded."""
        return {link for stream in self.streams.values() for link in stream.stored.links}

    def _under(self, link: str) -> list[StreamKey]:
        """Return the first RELATED_MAX streams under a link, payouts before payments."""
        keys = self._related.get(link)
        if not keys:
            return []
        return sorted(sorted(keys), key=lambda key: key[0], reverse=True)[:RELATED_MAX]

    def relate(self, link: str, key: StreamKey) -> None:
        """Tell the batch that the books know `key` under `link`."""
        self._related[link].add(key)

    def finish(self) -> Change:
        """Make views, journal entries and rows, in log order."""
        for event, state in zip(self.events, self._after, strict=True):
            self._event(event, state)
        rows: dict[str, list[tuple[Any, ...]]] = {}
        sums: dict[str, dict[tuple[Any, ...], list[Decimal]]] = {}
        for projection, found in zip(self.projections, self._made, strict=True):
            table = projection.table
            if table.mode == "sum":
                sums[table.name] = _summed(found, len(table.key))
            else:
                rows[table.name] = found
        changed = [stream for stream in self.streams.values() if stream.row is not None]
        return Change(changed, rows, sums, self._new_links, self.parks)

    def _key(self, event: Translated) -> StreamKey | None:
        return stream_of(event, self.streams_of)

    def _event(self, event: Translated, state: Any) -> None:
        key = self._key(event)
        fact = event.fact
        decides = fact is not None and fact.kind == DECISION
        if key is None or (decides and (key in self.parked or key not in self.streams)):
            self._add(self._outcome(event, opened=_own_troubles(event), decided=_decided(fact)))
            return
        if key in self.parked:
            self._park(event, key, "an earlier event of the stream is parked")
            return
        if isinstance(state, Exception):
            self._park(event, key, f"{type(state).__name__}: {state}")
            return
        if event.trouble is not None:
            self._park(event, key, f"{event.trouble.reason}: {event.trouble.detail}")
            return
        try:
            evaluated = self._evaluate(event, key, state)
            rows = self._rows(self._difference(event, evaluated))
        except Exception as error:  # noqa: BLE001 - a view's bug parks its stream only
            self._park(event, key, f"{type(error).__name__}: {error}")
            return
        self._apply(event, evaluated)
        self._keep(rows)

    def _evaluate(
        self, event: Translated, key: StreamKey, state: Any
    ) -> list[tuple[Stream, Stored, View]]:
        """View the stream with its new state, and every stream related to it; change nothing."""
        stream = self.streams.get(key)
        projection = self.streams_of[key[0]]
        if stream is None:
            empty = Stored(None, [], [], [])
            stream = Stream(key, projection, empty, event.position, event.position, is_new=True)
        links = list(projection.links(state)) if projection.links is not None else []
        if not links and not stream.stored.links:
            return [self._viewed(stream, state, (), [])]
        affected = {key: stream}
        # Sorted: sets have no order, and journal lines are numbered in this one.
        for link in sorted({*links, *stream.stored.links}):
            for other in self._under(link):
                if other != key and other in self.streams and other not in self.parked:
                    affected[other] = self.streams[other]
        states = {k: (state if k == key else s.stored.state) for k, s in affected.items()}
        found = []
        for k, each in affected.items():
            their_links = links if k == key else each.stored.links
            related = self._states_under(their_links, k, states)
            found.append(self._viewed(each, states[k], related, their_links))
        return found

    def _viewed(
        self, stream: Stream, state: Any, related: Sequence[Any], links: list[str]
    ) -> tuple[Stream, Stored, View]:
        view = stream.projection.view(state, related, self.terms)
        check_balanced(view.legs)
        legs = [(leg.effective_at, leg.account, leg.currency, leg.amount) for leg in view.legs]
        stored = Stored(state, legs, [trouble.reason for trouble in view.troubles], links)
        return stream, stored, view

    def _states_under(
        self, links: Sequence[str], key: StreamKey, states: Mapping[StreamKey, Any]
    ) -> list[Any]:
        if not links:
            return []
        keys = {k for link in links for k in self._under(link)} | states.keys()
        return [
            states[k] if k in states else self.streams[k].stored.state
            for k in sorted(keys)
            if k != key and (k in states or (k in self.streams and k not in self.parked))
        ]

    def _difference(
        self, event: Translated, evaluated: list[tuple[Stream, Stored, View]]
    ) -> Outcome:
        """Say what the event changes: journal entries, troubles opened and cleared."""
        entries: list[Entry] = []
        opened: list[tuple[str, str, Trouble]] = []
        cleared: list[tuple[str, str, str]] = []
        for stream, stored, view in evaluated:
            kind, resource = stream.key
            before = stream.stored
            add_entries(entries, stream.key, before.legs, view.legs)
            opened += [
                (kind, resource, t) for t in view.troubles if t.reason not in before.troubles
            ]
            gone = set(before.troubles) - set(stored.troubles)
            cleared += [(kind, resource, reason) for reason in sorted(gone)]
        return self._outcome(
            event, entries=entries, opened=opened, cleared=cleared, decided=_decided(event.fact)
        )

    def _apply(self, event: Translated, evaluated: list[tuple[Stream, Stored, View]]) -> None:
        for stream, stored, view in evaluated:
            for link in stored.links:
                if link not in stream.stored.links:
                    self._new_links.append((link, *stream.key))
                    self._related[link].add(stream.key)
            stream.stored = stored
            stream.row = view.row
            self.streams[stream.key] = stream
        evaluated[0][0].position = event.position

    def _park(self, event: Translated, key: StreamKey, reason: str) -> None:
        self.parks.append(Park(event.position, key, reason[:500]))
        trouble = Trouble(PARKED, reason[:500])
        opened = [] if key in self.parked else [(key[0], key[1], trouble)]
        self.parked.add(key)
        self._add(self._outcome(event, opened=opened, folded=False))

    def _add(self, outcome: Outcome) -> None:
        self._keep(self._rows(outcome))

    def _rows(self, outcome: Outcome) -> list[Sequence[tuple[Any, ...]]]:
        return [projection.rows(outcome) for projection in self.projections]

    def _keep(self, rows: list[Sequence[tuple[Any, ...]]]) -> None:
        for made, found in zip(self._made, rows, strict=True):
            made.extend(found)

    def _outcome(
        self,
        event: Translated,
        *,
        entries: Sequence[Entry] = (),
        opened: Sequence[tuple[str, str, Trouble]] = (),
        cleared: Sequence[tuple[str, str, str]] = (),
        decided: tuple[str, str, str] | None = None,
        folded: bool = True,
    ) -> Outcome:
        fact = event.fact if folded else None
        return Outcome(
            source=self.terms.source,
            position=event.position,
            event_id=event.event_id,
            kind=fact.kind if fact else event.kind,
            resource_id=fact.resource_id if fact else event.resource_id,
            status=fact.status if fact else event.status,
            received_at=event.received_at,
            recorded_at=event.recorded_at,
            fact=fact,
            entries=entries,
            opened=opened,
            cleared=cleared,
            decided=decided,
        )


def _decided(fact: Fact | None) -> tuple[str, str, str] | None:
    if fact is None or fact.kind != DECISION:
        return None
    details = fact.details
    by = f"{details.get('by')}: " if details.get("by") else ""
    return str(details.get("exception")), fact.status, f"{by}{details.get('note') or ''}"


def _own_troubles(event: Translated) -> list[tuple[str, str, Trouble]]:
    """Return the trouble of an event that belongs to no stream."""
    trouble = event.trouble
    if trouble is None and event.fact is not None and event.fact.kind != DECISION:
        trouble = Trouble("no_projection", f"nothing folds callbacks of kind {event.fact.kind}")
    return [] if trouble is None else [(event.kind, event.resource_id, trouble)]


def _summed(
    rows: Iterable[tuple[Any, ...]], key_length: int
) -> dict[tuple[Any, ...], list[Decimal]]:
    sums: dict[tuple[Any, ...], list[Decimal]] = {}
    for row in rows:
        key, amounts = row[:key_length], row[key_length:]
        known = sums.get(key)
        sums[key] = (
            list(amounts) if known is None else [a + b for a, b in zip(known, amounts, strict=True)]
        )
    return sums
