"""The first pass over a batch: events into the states of their streams, stream by stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ledger.fold.change import DECISION, StreamKey, TranslatedEvent
from ledger.fold.known_streams import MENTIONS, NAMED, KnownStreams
from ledger.model import ATTRIBUTE, Decision, RecordedFact, SourceTerms, StreamProjection

STREAM_DECISIONS: Final = frozenset({"keep", ATTRIBUTE})
"""The decisions that change what a stream means."""


class FoldStep(NamedTuple):
    """An event on its way through a batch: its stream, and the stream's state after it."""

    event: TranslatedEvent
    key: StreamKey | None
    state: Any
    """An exception when folding the event raised it."""
    links: tuple[str, ...]
    is_outline_new: bool = False
    """Whether those that mention the stream see something else of it after the event."""


def stream_of(
    event: TranslatedEvent, streams_of: Mapping[str, StreamProjection]
) -> StreamKey | None:
    """Return the stream of an event; None when it has none. A decision belongs to its target."""
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
        recorded = RecordedFact(
            fact, event.position, event.event_id, event.received_at, event.recorded_at
        )
        return projection.fold(state, recorded)
    if state is None or projection.decide is None or fact.status not in STREAM_DECISIONS:
        return state
    stated = fact.details
    decision = Decision(
        str(stated.get("reason")), stated.get("keep"), event.position, fact.status,
        stated.get("customer_id"),
    )  # fmt: skip
    return projection.decide(state, decision)


def links_of(projection: StreamProjection, state: Any) -> tuple[str, ...]:
    """Return the links of a state: the names that it has, and those that it mentions."""
    links: tuple[str, ...] = ()
    if projection.names is not None:
        links = tuple([NAMED + name for name in projection.names(state)])
    if projection.mentions is not None:
        links += tuple([MENTIONS + name for name in projection.mentions(state)])
    return links


def fold_states(
    events: Sequence[TranslatedEvent],
    keys: Sequence[StreamKey | None],
    known: KnownStreams,
    terms: SourceTerms,
) -> list[FoldStep]:
    """Fold every event into its stream's state; `keys` are the streams of the events."""
    steps: list[FoldStep] = []
    latest: dict[StreamKey, Any] = {}
    outlines: dict[StreamKey, Any] = {}
    for event, key in zip(events, keys, strict=True):
        if key is None or key in known.parked:
            steps.append(FoldStep(event, key, None, ()))
            continue
        projection = known.streams_of[key[0]]
        state = latest.get(key)
        if state is None and key in known.streams:
            state = known.streams[key].stored.state
        links: tuple[str, ...] = ()
        is_outline_new = False
        try:
            before, state = state, advance(projection, state, event)
            if state is not None:
                links = links_of(projection, state)
            if projection.outline is not None and state is not None:
                if key not in outlines and before is not None:
                    outlines[key] = projection.outline(before, terms)
                outline = projection.outline(state, terms)
                is_outline_new = outline != outlines.get(key)
                outlines[key] = outline
        except Exception as error:  # noqa: BLE001 - a fold's bug parks its stream only
            state = error
        else:
            latest[key] = state
        steps.append(FoldStep(event, key, state, links, is_outline_new))
    return steps
