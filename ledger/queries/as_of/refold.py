"""As-of, the pure part: the requested positions, and streams without later facts. No SQL.

An earlier state is not stored: the folds that make the books fold it again from the facts that
count, so the answer is what the books were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ledger.fold.change import StreamKey, TranslatedEvent
from ledger.fold.states import advance
from ledger.model import SourceTerms, StreamProjection
from ledger.queries.params import AsOfParams, positions_by_source


def requested_positions(as_of: AsOfParams, heads: Mapping[str, int]) -> dict[str, int]:
    """Return the positions that an as-of names, by source. Raises as `positions_by_source`."""
    places = as_of.positions if as_of.position is None else as_of.position
    return positions_by_source("position", places, heads)


@dataclass(slots=True)
class Refold:
    """The states of some streams of one source, folded again from the facts that count."""

    terms: SourceTerms
    streams_of: Mapping[str, StreamProjection]
    states: dict[StreamKey, Any] = field(default_factory=dict)
    _links: dict[str, set[StreamKey]] = field(default_factory=dict)

    def add(self, events: Iterable[tuple[StreamKey, TranslatedEvent]]) -> None:
        """Fold further events into their streams; those of one stream come in log order."""
        for key, event in events:
            state = advance(self.streams_of[key[0]], self.states.get(key), event)
            if state is not None:
                self.states[key] = state

    def links_of(self, keys: Iterable[StreamKey]) -> set[str]:
        """Return the links of streams; streams that share one must be added and related."""
        return {link for key in keys for link in self._links_of(key)}

    def relate(self, keys: Iterable[StreamKey]) -> None:
        """Relate streams to those that share a link with them."""
        for key in keys:
            for link in self._links_of(key):
                self._links.setdefault(link, set()).add(key)

    def row(self, key: StreamKey) -> dict[str, Any] | None:
        """Return a stream's row as its table would have it; None when nothing is known of it."""
        if key not in self.states:
            return None
        linked = {other for link in self._links_of(key) for other in self._links.get(link, ())}
        related = [self.states[other] for other in sorted(linked - {key})]
        view = self.streams_of[key[0]].view(self.states[key], related, self.terms)
        return {**view.row, "source": self.terms.source, "kind": key[0], "id": key[1]}

    def _links_of(self, key: StreamKey) -> tuple[str, ...]:
        links = self.streams_of[key[0]].links
        state = self.states.get(key)
        return () if links is None or state is None else links(state)
