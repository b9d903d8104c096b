"""The streams that a batch knows: as the books hold them, then as the batch leaves them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ledger.fold.change import ChangeSet, LoadedStream, StreamKey
from ledger.fold.stream_state import decoder
from ledger.model import SourceTerms, StreamProjection

NAMED: Final = "named:"
"""What the link of a name that a stream has begins with."""

MENTIONS: Final = "mentions:"
"""What the link of a name that a stream mentions begins with."""

NAMED_MAX: Final = 2
"""Streams of one name whose outlines a view is given, the first in the order of their keys: a view
may tell one from several, and nothing more."""


class ChangedStream(NamedTuple):
    """The stream of an event as it is after the event."""

    key: StreamKey
    state: Any
    links: Sequence[str]


@dataclass(slots=True)
class KnownStreams:
    """Streams by their keys, which of them have links, and which are parked."""

    streams_of: Mapping[str, StreamProjection]
    parked: set[StreamKey] = field(default_factory=set)
    streams: dict[StreamKey, LoadedStream] = field(default_factory=dict)
    _related: dict[str, set[StreamKey]] = field(default_factory=dict)

    def add(self, key: StreamKey, first_position: int, position: int, raw: bytes) -> None:
        """Add a stream as the books hold it; `raw` is its encoded StreamState."""
        projection = self.streams_of[key[0]]
        stored = decoder(projection).decode(raw)
        self.streams[key] = LoadedStream(
            key, projection, stored, first_position, position, is_new=False
        )

    def follow(self, earlier: ChangeSet) -> None:
        """Add what an earlier batch changed and the books may not show yet."""
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

    def relate(self, link: str, key: StreamKey) -> None:
        """Add a stream to those that have `link`."""
        known = self._related.get(link)
        if known is None:
            self._related[link] = {key}
        else:
            known.add(key)

    def forget_others(self, keys: Collection[StreamKey]) -> None:
        """Forget the streams that are not among `keys`; what links they have stays known."""
        self.streams = {key: stream for key, stream in self.streams.items() if key in keys}

    def all_under(self, link: str) -> Collection[StreamKey]:
        """Return the streams known to have a link."""
        return self._related.get(link, ())

    def outlines(
        self, mentions: Iterable[str], step: ChangedStream, terms: SourceTerms
    ) -> dict[str, Sequence[Any]]:
        """Return the outlines of the streams that links mention, by name.

        `step` is the stream that an event changes: its state after the event counts.
        """
        found: dict[str, Sequence[Any]] = {}
        for link in mentions:
            if link.startswith(MENTIONS):
                name = link.removeprefix(MENTIONS)
                named = {*self._related.get(NAMED + name, ())}
                if NAMED + name in step.links:
                    named.add(step.key)
                keys = sorted(named)[:NAMED_MAX]
                if keys:
                    found[name] = [self._outline(key, step, terms) for key in keys]
        return found

    def _outline(self, key: StreamKey, step: ChangedStream, terms: SourceTerms) -> Any:
        outline = self.streams_of[key[0]].outline
        if outline is None:
            return None
        state = step.state if key == step.key else self.streams[key].stored.state
        return outline(state, terms)

    def mentioning(
        self, key: StreamKey, links: Iterable[str], links_before: Collection[str]
    ) -> set[StreamKey]:
        """Return the streams whose views may change when the outline of the stream `key` does.

        Those that mention a name of several streams know only that, whatever these become.
        """
        found: set[StreamKey] = set()
        for link in {*links, *links_before}:
            mentioning = self._related.get(MENTIONS + link.removeprefix(NAMED))
            if mentioning and link.startswith(NAMED):
                others = len({*self._related.get(link, ())} - {key})
                is_changed = (link in links) != (link in links_before)
                if others == 0 or (others < NAMED_MAX and is_changed):
                    found |= mentioning
        return found - {key}

    def receiving(self) -> set[StreamKey]:
        """Return the streams that known ones count something towards."""
        return {
            (share.kind, share.id)
            for stream in self.streams.values()
            for share in stream.stored.shares
        }
