"""One batch of one source on its way through the fold. Pure; knows no kind and no view.

First the streams of the events are looked up and every event is folded into its stream's state;
then the streams that share links with these are looked up; then views are made, whose differences
become journal entries and rows. Whoever owns the batch answers its lookups from where streams are
stored: `run` from a `StreamStore`, the books' worker from the database, without blocking.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from ledger.callback_errors import LedgerError
from ledger.fold.change import ChangeSet, StreamKey, TranslatedEvent
from ledger.fold.known_streams import MENTIONS, NAMED, NAMED_MAX, KnownStreams
from ledger.fold.states import FoldStep, fold_states, stream_of
from ledger.fold.views import ViewFold
from ledger.model import Projection, SourceTerms, StreamProjection
from ledger.payload import check_decimal_context

MENTIONING_MAX: Final = 1_000
"""Streams that mention changed ones which a batch looks up together, and of a page."""

StoredStream: TypeAlias = tuple[StreamKey, int, int, bytes]
"""(key, first position, last position, encoded state)"""


@dataclass(frozen=True, slots=True)
class StreamLookup:
    """Asks for the stored streams among `keys`: answer with `Batch.known.add`."""

    keys: Sequence[StreamKey]


@dataclass(frozen=True, slots=True)
class LinkLookup:
    """Asks for the streams under each link: answer with `Batch.known.relate`."""

    links: Sequence[str]
    streams_max: int | None
    """How many streams of each link are enough, the first by kind and id; None = all."""


class StreamStore(Protocol):
    """Where streams are kept between batches."""

    def streams(self, keys: Sequence[StreamKey]) -> Iterable[StoredStream]:
        """Return the stored streams among `keys`."""

    def linked(
        self, links: Sequence[str], streams_max: int | None
    ) -> Iterable[tuple[str, StreamKey]]:
        """Return the first streams under each of `links` by kind and id, with the link."""


class TooManyRelated(LedgerError):
    """More streams mention the changed ones than a batch holds: divide it, or fold in pages."""


@dataclass(slots=True)
class Batch:
    """Events of one source, folded in two passes."""

    terms: SourceTerms
    streams_of: Mapping[str, StreamProjection]
    projections: Sequence[Projection]
    events: Sequence[TranslatedEvent]
    parked: set[StreamKey] = field(default_factory=set)
    """Streams that are parked before this batch."""
    mentioning_max: int | None = None
    """How many streams that mention changed ones are held together; None = all."""
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
        """Yield what must be looked up, fold the states in between; answer each before the next.

        Raises TooManyRelated when `mentioning_max` is less than what must be looked up.
        """
        mentioning = yield from self._look_up_changed()
        if self.mentioning_max is not None and len(mentioning) > self.mentioning_max:
            raise TooManyRelated
        yield from self._look_up_with_mentioned(mentioning)

    def pages(self) -> Iterator[StreamLookup | LinkLookup | ChangeSet]:
        """Fold the only event, which has too many related streams, `mentioning_max` at a time.

        Yields what must be looked up, as `lookups`, and what each page changes. All of it belongs
        to one event: write it in one transaction, in this order, or nothing of it. Raises
        ViewFailed where the event must be parked instead.
        """
        yield from self._look_up_changed()
        (step,) = self._steps
        paged = self._views.begin_pages(step)
        keys = self._views.mentioning(paged)
        kept = {*self.known.streams}
        size = self.mentioning_max or len(keys) or 1
        for first in range(0, len(keys), size):
            yield from self._look_up_with_mentioned({*keys[first : first + size]})
            yield self._views.fold_page(paged, keys[first : first + size])
            self.known.forget_others({*kept, *paged.received})
        yield self._views.end_pages(paged)

    def _look_up_changed(self) -> Generator[StreamLookup | LinkLookup, None, set[StreamKey]]:
        """Look up the events' streams and those they mention; return those that mention them."""
        yield from self._unknown({key for key in self._keys if key is not None})
        self.fold_states()
        mentioning = yield from self._look_up_mentioning()
        yield from self._look_up_mentioned(
            {link for step in self._steps for link in step.links if link.startswith(MENTIONS)}
        )
        yield from self._unknown(self.known.receiving())
        return mentioning

    def _look_up_with_mentioned(self, keys: set[StreamKey]) -> Iterator[StreamLookup | LinkLookup]:
        """Look up streams that mention a changed one, and the others that they mention."""
        if not keys:
            return
        yield from self._unknown(keys)
        streams = [self.known.streams[key] for key in keys if key in self.known.streams]
        yield from self._look_up_mentioned({link for s in streams for link in s.stored.links})
        yield from self._unknown(self.known.receiving())

    def fold_states(self) -> None:
        """Fold every event into its stream's state."""
        self._steps = fold_states(self.events, self._keys, self.known, self.terms)

    def _look_up_mentioning(self) -> Generator[StreamLookup | LinkLookup, None, set[StreamKey]]:
        """Look up the streams that mention one whose outline changes; return their keys."""
        names = {
            link.removeprefix(NAMED)
            for step in self._steps
            if step.is_outline_new and step.event.issue is None
            for link in (*step.links, *self._stored_links(step.key))
            if link.startswith(NAMED)
        }
        if not names:
            return set()
        # Nearly all transactions are mentioned by none.
        yield LinkLookup(sorted(MENTIONS + name for name in names), 1)
        names = {name for name in names if self.known.all_under(MENTIONS + name)}
        if not names:
            return set()
        yield LinkLookup(sorted(NAMED + name for name in names), NAMED_MAX + 1)
        found = {name for name in names if len(self.known.all_under(NAMED + name)) <= NAMED_MAX}
        if found:
            yield LinkLookup(sorted(MENTIONS + name for name in found), None)
        return {key for name in found for key in self.known.all_under(MENTIONS + name)}

    def _stored_links(self, key: StreamKey | None) -> Sequence[str]:
        stream = None if key is None else self.known.streams.get(key)
        return () if stream is None else stream.stored.links

    def _look_up_mentioned(self, mentions: set[str]) -> Iterator[StreamLookup | LinkLookup]:
        """Look up the streams whose names are mentioned."""
        named = sorted(
            NAMED + link.removeprefix(MENTIONS) for link in mentions if link.startswith(MENTIONS)
        )
        if named:
            yield LinkLookup(named, NAMED_MAX + 1)
            yield from self._unknown({key for link in named for key in self.known.all_under(link)})

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
        answer(batch, lookup, store)
    return batch.finish()


def answer(batch: Batch, lookup: StreamLookup | LinkLookup, store: StreamStore) -> None:
    """Give a batch what it looks up in `store`."""
    match lookup:
        case StreamLookup(keys):
            for stored in store.streams(keys):
                batch.known.add(*stored)
        case LinkLookup(links, streams_max):
            for link, key in store.linked(links, streams_max):
                batch.known.relate(link, key)
