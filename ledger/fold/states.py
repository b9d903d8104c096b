"""The first pass over a batch: events into the states of their streams, stream by stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ledger.fold.change import DECISION, StreamKey, TranslatedEvent
from ledger.fold.known_streams import KnownStreams
from ledger.model import ATTRIBUTE, Decision, RecordedFact, StreamProjection

STREAM_DECISIONS: Final = frozenset({"keep", ATTRIBUTE})
"""The decisions that change what a stream means."""


class FoldStep(NamedTuple):
    """An event on its way through a batch: its stream, and the stream's state after it."""

    event: TranslatedEvent
    key: StreamKey | None
    state: Any
    """An exception when folding the event raised it."""
    links: tuple[str, ...]


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


def fold_states(
    events: Sequence[TranslatedEvent], keys: Sequence[StreamKey | None], known: KnownStreams
) -> list[FoldStep]:
    """Fold every event into its stream's state; `keys` are the streams of the events."""
    steps: list[FoldStep] = []
    latest: dict[StreamKey, Any] = {}
    for event, key in zip(events, keys, strict=True):
        if key is None or key in known.parked:
            steps.append(FoldStep(event, key, None, ()))
            continue
        projection = known.streams_of[key[0]]
        state = latest.get(key)
        if state is None and key in known.streams:
            state = known.streams[key].stored.state
        links: tuple[str, ...] = ()
        try:
            state = advance(projection, state, event)
            if projection.links is not None and state is not None:
                links = projection.links(state)
        except Exception as error:  # noqa: BLE001 - a fold's bug parks its stream only
            state = error
        else:
            latest[key] = state
        steps.append(FoldStep(event, key, state, links))
    return steps
