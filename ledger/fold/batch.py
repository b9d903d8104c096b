"""One batch of one source on its way through the fold. Pure; knows no kind and no view.

First the streams of the events are looked up and every event is folded into its stream's state;
then the streams that share links with these are looked up; then views are made, whose differences
become journal entries and rows. Whoever owns the batch answers its lookups from where streams are
stored: `run` from a `StreamStore`, the books' worker from the database, without blocking.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from ledger.fold.change import ChangeSet, StreamKey, TranslatedEvent
from ledger.fold.known_streams import KnownStreams
from ledger.fold.states import FoldStep, fold_states, stream_of
from ledger.fold.views import ViewFold
from ledger.model import Projection, SourceTerms, StreamProjection
from ledger.payload import check_decimal_context

StoredStream: TypeAlias = tuple[StreamKey, int, int, bytes]
"""(key, first position, last position, encoded state)"""


@dataclass(frozen=True, slots=True)
class StreamLookup:
    """Asks for the stored streams among `keys`: answer with `Batch.known.add`."""

    keys: Sequence[StreamKey]


@dataclass(frozen=True, slots=True)
class LinkLookup:
    """Asks for the first RELATED_MAX streams under each link: answer with `Batch.known.relate`."""

    links: Sequence[str]


class StreamStore(Protocol):
    """Where streams are kept between batches."""

    def streams(self, keys: Sequence[StreamKey]) -> Iterable[StoredStream]:
        """Return the stored streams among `keys`."""

    def linked(self, links: Sequence[str]) -> Iterable[tuple[str, StreamKey]]:
        """Return the first RELATED_MAX streams under each of `links`, with the link."""


@dataclass(slots=True)
class Batch:
    """Events of one source, folded in two passes."""

    terms: SourceTerms
    streams_of: Mapping[str, StreamProjection]
    projections: Sequence[Projection]
    events: Sequence[TranslatedEvent]
    parked: set[StreamKey] = field(default_factory=set)
    """Streams that are parked before this batch."""
    known: KnownStreams = field(init=False)
    _views: ViewFold = field(init=False)
    _keys: list[StreamKey | None] = field(init=False)
    _steps: list[FoldStep] = field(default_factory=list)
    _is_viewed: bool = False

    def __post_init__(self) -> None:
        check_decimal_context()
        self.known = KnownStreams(self.streams_of, set(self.parked))
        self._views = ViewFold(self.terms, self.known, self.projections)
        self._keys = [stream_of(event, self.streams_of) for event in self.events]

    def lookups(self) -> Iterator[StreamLookup | LinkLookup]:
        """Yield what must be looked up, fold the states in between; answer each before the next."""
        keys = {key for key in self._keys if key is not None}
        yield from self._unknown(keys)
        links = self.fold_states()
        if links:
            yield from self._related(links)
            # The view of a related stream may depend on streams that it alone names.
            yield from self._related(self.known.links_of(keys, links) - links)

    def fold_states(self) -> set[str]:
        """Fold every event into its stream's state; return the links of the states."""
        self._steps = fold_states(self.events, self._keys, self.known)
        return {link for step in self._steps for link in step.links}

    def _related(self, links: set[str]) -> Iterator[StreamLookup | LinkLookup]:
        if links:
            yield LinkLookup(sorted(links))
            yield from self._unknown({key for link in links for key in self.known.all_under(link)})

    def _unknown(self, keys: set[StreamKey]) -> Iterator[StreamLookup]:
        unknown = [key for key in keys if key not in self.known.streams]
        if unknown:
            yield StreamLookup(unknown)

    def view(self, pause_events: int) -> Iterator[None]:
        """Make views, journal entries and rows, in log order; pause after so many events."""
        for first in range(0, len(self._steps), pause_events):
            for step in self._steps[first : first + pause_events]:
                self._views.fold(step)
            yield
        self._is_viewed = True

    def finish(self) -> ChangeSet:
        """Return what the batch changes, made at once unless `view` has made it."""
        if not self._is_viewed:
            for step in self._steps:
                self._views.fold(step)
        return self._views.changes()


def run(batch: Batch, store: StreamStore) -> ChangeSet:
    """Fold a batch whose streams are in `store`; return what it changes."""
    for lookup in batch.lookups():
        match lookup:
            case StreamLookup(keys):
                for stored in store.streams(keys):
                    batch.known.add(*stored)
            case LinkLookup(links):
                for link, key in store.linked(links):
                    batch.known.relate(link, key)
    return batch.finish()
