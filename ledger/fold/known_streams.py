"""The streams that a batch knows: as the books hold them, then as the batch leaves them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ledger.fold.change import ChangeSet, LoadedStream, StreamKey
from ledger.fold.stream_state import decoder
from ledger.model import StreamProjection

RELATED_MAX: Final = 16
"""Streams looked at under one link, the same ones however events are cut into batches."""


@dataclass(slots=True)
class KnownStreams:
    """Streams by their keys, which of them share links, and which are parked."""

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
        """Add a stream to those that share `link`."""
        known = self._related.get(link)
        if known is None:
            self._related[link] = {key}
        else:
            known.add(key)

    def is_shared(self, link: str, key: StreamKey) -> bool:
        """Return whether a stream other than `key` has `link`."""
        known = self._related.get(link)
        return known is not None and (len(known) > 1 or key not in known)

    def all_under(self, link: str) -> Collection[StreamKey]:
        """Return the streams known to share a link."""
        return self._related.get(link, ())

    def under(self, link: str) -> Sequence[StreamKey]:
        """Return the first RELATED_MAX streams that share a link, payouts before payments."""
        keys = self._related.get(link)
        if not keys:
            return ()
        if len(keys) == 1:
            return tuple(keys)
        return sorted(sorted(keys), key=lambda key: key[0], reverse=True)[:RELATED_MAX]

    def links_of(self, keys: Iterable[StreamKey], links: Iterable[str]) -> set[str]:
        """Return the stored links of the streams `keys`, and of those that share `links`."""
        all_keys = set(keys).union(*(self._related.get(link, ()) for link in links))
        streams = [self.streams[key] for key in all_keys if key in self.streams]
        return {link for stream in streams for link in stream.stored.links}

    def affected(self, stream: LoadedStream, links: Iterable[str]) -> dict[StreamKey, LoadedStream]:
        """Return a stream, and those with one of `links` whose views may change with it."""
        affected = {stream.key: stream}
        # Sorted: sets have no order, and journal lines are numbered in this one.
        for link in sorted({*links, *stream.stored.links}):
            for other in self.under(link):
                if other != stream.key and other in self.streams and other not in self.parked:
                    affected[other] = self.streams[other]
        return affected

    def states_under(
        self, links: Sequence[str], key: StreamKey, states: Mapping[StreamKey, Any]
    ) -> list[Any]:
        """Return the states of the streams related to `key`; `states` go before stored ones."""
        if not links:
            return []
        keys = {k for link in links for k in self.under(link)} | states.keys()
        if len(keys) == 1:
            return []
        return [
            states[k] if k in states else self.streams[k].stored.state
            for k in sorted(keys)
            if k != key and (k in states or (k in self.streams and k not in self.parked))
        ]
