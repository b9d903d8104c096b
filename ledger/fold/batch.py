"""The fold: events in log order → what changes in the books. Pure; knows no kind and no view.

A batch is folded in three passes: states (stream by stream), then the streams related to them
are fetched by the caller, then views, whose differences become journal entries and rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NamedTuple

from ledger.fold.change import (
    DECISION,
    PARKED,
    ChangeSet,
    LoadedStream,
    Park,
    StreamKey,
    TranslatedEvent,
    decided,
    own_issues,
)
from ledger.fold.journal import add_entries, add_up, check_balanced
from ledger.fold.stream_state import StreamState, decoder
from ledger.model import (
    Decision,
    Entry,
    FoldResult,
    Issue,
    Projection,
    RecordedFact,
    SourceTerms,
    StreamProjection,
    View,
)
from ledger.payload import check_decimal_context

__all__ = [
    "DECISION",
    "RELATED_MAX",
    "Batch",
    "ChangeSet",
    "LoadedStream",
    "Park",
    "StreamKey",
    "TranslatedEvent",
    "advance",
    "stream_of",
]

RELATED_MAX: Final = 16
"""Streams looked at under one link, the same ones however events are cut into batches."""


def stream_of(
    event: TranslatedEvent, streams_of: Mapping[str, StreamProjection]
) -> StreamKey | None:
    """Name the stream of an event; None when it has none. A decision is for its target."""
    fact = event.fact
    if fact is None:
        return None
    key = (fact.kind, fact.resource_id)
    if fact.kind == DECISION:
        key = (str(fact.details.get("kind")), str(fact.details.get("resource")))
    return key if key[0] in streams_of else None


def advance(projection: StreamProjection, state: Any, event: TranslatedEvent) -> Any:
    """Return the state of a stream after an event of it: a fact, or an operator's decision."""
    fact = event.fact
    if fact is None:
        return state
    if fact.kind != DECISION:
        seen = RecordedFact(
            fact, event.position, event.event_id, event.received_at, event.recorded_at
        )
        return projection.fold(state, seen)
    if state is None or projection.decide is None or fact.status != "keep":
        return state
    decision = Decision(str(fact.details.get("reason")), fact.details.get("keep"), event.position)
    return projection.decide(state, decision)


class FoldStep(NamedTuple):
    """An event on its way through a batch: its stream, and the stream's state after it."""

    event: TranslatedEvent
    key: StreamKey | None
    state: Any
    """An exception when folding the event raised it."""
    links: tuple[str, ...]


class Made(NamedTuple):
    """The rows of an event-wise projection, and what makes them."""

    rows: list[tuple[Any, ...]]
    rows_of: Callable[[FoldResult], Sequence[tuple[Any, ...]]]


_EMPTY: Final = StreamState(None, (), (), ())


@dataclass(slots=True)
class Batch:
    """One batch of one source on its way through the fold."""

    terms: SourceTerms
    streams_of: Mapping[str, StreamProjection]
    projections: Sequence[Projection]
    events: Sequence[TranslatedEvent]
    streams: dict[StreamKey, LoadedStream] = field(default_factory=dict)
    parked: set[StreamKey] = field(default_factory=set)
    parks: list[Park] = field(default_factory=list)
    _keys: list[StreamKey | None] = field(default_factory=list)
    _steps: list[FoldStep] = field(default_factory=list)
    _links: set[str] = field(default_factory=set)
    _related: dict[str, set[StreamKey]] = field(default_factory=dict)
    _new_links: list[tuple[str, str, str]] = field(default_factory=list)
    _made: list[Made] = field(default_factory=list)
    """The rows of every event-wise projection, in their order."""
    _is_viewed: bool = False

    def __post_init__(self) -> None:
        check_decimal_context()
        self._keys = [stream_of(event, self.streams_of) for event in self.events]
        self._made = [Made([], projection.rows) for projection in self.projections]

    def keys(self) -> set[StreamKey]:
        """Return the streams that these events belong to; the caller loads them."""
        return {key for key in self._keys if key is not None}

    def add_stream(self, key: StreamKey, first_position: int, position: int, raw: bytes) -> None:
        """Give the batch a stream as the books hold it."""
        projection = self.streams_of[key[0]]
        stored = decoder(projection).decode(raw)
        self.streams[key] = LoadedStream(
            key, projection, stored, first_position, position, is_new=False
        )

    def fold_states(self) -> set[str]:
        """Fold every event into its stream's state; return the link keys that matter.

        The caller gives the streams known under them to `relate` and `add_stream`.
        """
        latest: dict[StreamKey, Any] = {}
        links: set[str] = set()
        for event, key in zip(self.events, self._keys, strict=True):
            if key is None or key in self.parked:
                self._steps.append(FoldStep(event, key, None, ()))
                continue
            projection = self.streams_of[key[0]]
            state = latest.get(key)
            if state is None and key in self.streams:
                state = self.streams[key].stored.state
            found: tuple[str, ...] = ()
            try:
                state = advance(projection, state, event)
                if projection.links is not None and state is not None:
                    found = projection.links(state)
                    links.update(found)
            except Exception as error:  # noqa: BLE001 - a fold's bug parks its stream only
                state = error
            else:
                latest[key] = state
            self._steps.append(FoldStep(event, key, state, found))
        self._links = links
        return links

    def follow(self, earlier: ChangeSet) -> None:
        """Take what an earlier batch changed and the books may not show yet."""
        for stream in earlier.streams:
            self.streams[stream.key] = LoadedStream(
                stream.key,
                stream.projection,
                stream.stored,
                stream.first_position,
                stream.position,
                is_new=False,
            )
        for link, kind, resource in earlier.links:
            self.relate(link, (kind, resource))
        self.parked.update(park.key for park in earlier.parked)

    def links(self) -> set[str]:
        """Return the links of the streams of these events, and of those related to them."""
        wanted = self.keys().union(*(self._related.get(link, ()) for link in self._links))
        streams = [self.streams[key] for key in wanted if key in self.streams]
        return {link for stream in streams for link in stream.stored.links}

    def _under(self, link: str) -> Sequence[StreamKey]:
        """Return the first RELATED_MAX streams under a link, payouts before payments."""
        keys = self._related.get(link)
        if not keys:
            return ()
        if len(keys) == 1:
            return tuple(keys)
        return sorted(sorted(keys), key=lambda key: key[0], reverse=True)[:RELATED_MAX]

    def relate(self, link: str, key: StreamKey) -> None:
        """Tell the batch that the books know `key` under `link`."""
        known = self._related.get(link)
        if known is None:
            self._related[link] = {key}
        else:
            known.add(key)

    def view(self, pause_events: int) -> Iterator[None]:
        """Make views, journal entries and rows, in log order; pause after so many events."""
        for first in range(0, len(self._steps), pause_events):
            for step in self._steps[first : first + pause_events]:
                self._step(step)
            yield
        self._is_viewed = True

    def finish(self) -> ChangeSet:
        """Return what the batch changes, made at once unless `view` has made it."""
        if not self._is_viewed:
            for step in self._steps:
                self._step(step)
        rows: dict[str, list[tuple[Any, ...]]] = {}
        sums: dict[str, dict[tuple[Any, ...], list[Decimal]]] = {}
        for projection, made in zip(self.projections, self._made, strict=True):
            table = projection.table
            if table.mode == "sum":
                sums[table.name] = add_up(made.rows, len(table.key))
            else:
                rows[table.name] = made.rows
        changed = [stream for stream in self.streams.values() if stream.row is not None]
        return ChangeSet(changed, rows, sums, self._new_links, self.parks)

    def _step(self, step: FoldStep) -> None:
        event, key, state, _ = step
        fact = event.fact
        decides = fact is not None and fact.kind == DECISION
        if key is None or (decides and (key in self.parked or key not in self.streams)):
            self._add(self._outcome(event, opened=own_issues(event), decided=decided(fact)))
        elif key in self.parked:
            self._park(event, key, "an earlier event of the stream is parked")
        elif isinstance(state, Exception):
            self._park(event, key, f"{type(state).__name__}: {state}")
        elif event.issue is not None:
            self._park(event, key, f"{event.issue.reason}: {event.issue.detail}")
        else:
            stream = self.streams.get(key)
            if stream is None:
                place = event.position
                stream = LoadedStream(
                    key, self.streams_of[key[0]], _EMPTY, place, place, is_new=True
                )
            try:
                if decides or not self._alone(step, stream):
                    self._together(step, stream)
            except Exception as error:  # noqa: BLE001 - a view's bug parks its stream only
                self._park(event, key, f"{type(error).__name__}: {error}")

    def _alone(self, step: FoldStep, stream: LoadedStream) -> bool:
        """Fold an ordinary event: of a stream without relations and troubles.

        Returns False, with nothing changed, for any other.
        """
        event, key, state, links = step
        before = stream.stored
        for link in (*links, *before.links):
            known = self._related.get(link)
            if known and (len(known) > 1 or key not in known):
                return False
        view = stream.projection.view(state, (), self.terms)
        if view.issues or before.issues:
            return False
        entries: list[Entry] = []
        if view.legs:
            check_balanced(view.legs)
        if view.legs or before.legs:
            add_entries(entries, stream.key, before.legs, view.legs)
        self._add(self._outcome(event, entries))
        self._apply(stream, StreamState(state, view.legs, (), links), view)
        stream.position = event.position
        return True

    def _together(self, step: FoldStep, stream: LoadedStream) -> None:
        """Fold an event of a stream with relations or troubles."""
        evaluated = self._evaluate(step, stream)
        self._add(self._difference(step.event, evaluated))
        for each, stored, view in evaluated:
            self._apply(each, stored, view)
        stream.position = step.event.position

    def _evaluate(
        self, step: FoldStep, stream: LoadedStream
    ) -> list[tuple[LoadedStream, StreamState, View]]:
        """View the stream with its new state, and every stream related to it; change nothing."""
        _, _, state, links = step
        key = stream.key
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
        self, stream: LoadedStream, state: Any, related: Sequence[Any], links: Sequence[str]
    ) -> tuple[LoadedStream, StreamState, View]:
        view = stream.projection.view(state, related, self.terms)
        if view.legs:
            check_balanced(view.legs)
        reasons = [issue.reason for issue in view.issues] if view.issues else ()
        return stream, StreamState(state, view.legs, reasons, links), view

    def _states_under(
        self, links: Sequence[str], key: StreamKey, states: Mapping[StreamKey, Any]
    ) -> list[Any]:
        if not links:
            return []
        keys = {k for link in links for k in self._under(link)} | states.keys()
        if len(keys) == 1:
            return []
        return [
            states[k] if k in states else self.streams[k].stored.state
            for k in sorted(keys)
            if k != key and (k in states or (k in self.streams and k not in self.parked))
        ]

    def _difference(
        self, event: TranslatedEvent, evaluated: list[tuple[LoadedStream, StreamState, View]]
    ) -> FoldResult:
        """Say what the event changes: journal entries, troubles opened and cleared."""
        entries: list[Entry] = []
        opened: list[tuple[str, str, Issue]] = []
        cleared: list[tuple[str, str, str]] = []
        for stream, stored, view in evaluated:
            before = stream.stored
            if view.legs or before.legs:
                add_entries(entries, stream.key, before.legs, view.legs)
            if view.issues or before.issues:
                kind, resource = stream.key
                opened += [
                    (kind, resource, t) for t in view.issues if t.reason not in before.issues
                ]
                gone = set(before.issues) - set(stored.issues)
                cleared += [(kind, resource, reason) for reason in sorted(gone)]
        return self._outcome(event, entries, opened, cleared, decided(event.fact))

    def _apply(self, stream: LoadedStream, stored: StreamState, view: View) -> None:
        for link in stored.links:
            if link not in stream.stored.links:
                self._new_links.append((link, *stream.key))
                self.relate(link, stream.key)
        stream.stored = stored
        stream.row = view.row
        self.streams[stream.key] = stream

    def _park(self, event: TranslatedEvent, key: StreamKey, reason: str) -> None:
        self.parks.append(Park(event.position, key, reason[:500]))
        issue = Issue(PARKED, reason[:500])
        opened = [] if key in self.parked else [(key[0], key[1], issue)]
        self.parked.add(key)
        self._add(self._outcome(event, opened=opened, folded=False))

    def _add(self, outcome: FoldResult) -> None:
        """Make the rows of an event: all of them, or none when a projection raises."""
        made = [rows_of(outcome) for _, rows_of in self._made]
        for (rows, _), own in zip(self._made, made, strict=True):
            rows += own

    def _outcome(
        self,
        event: TranslatedEvent,
        entries: Sequence[Entry] = (),
        opened: Sequence[tuple[str, str, Issue]] = (),
        cleared: Sequence[tuple[str, str, str]] = (),
        decided: tuple[str, str, str] | None = None,
        *,
        folded: bool = True,
    ) -> FoldResult:
        fact = event.fact if folded else None
        said = fact or event
        return FoldResult(
            self.terms.source, event.position, event.event_id, said.kind, said.resource_id,
            said.status, event.received_at, event.recorded_at, fact, entries, opened, cleared,
            decided,
        )  # fmt: skip
