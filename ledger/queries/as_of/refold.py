"""As-of, the pure part: the requested positions, and streams without later facts. No SQL.

An earlier state is not stored: the folds that make the books fold it again from the facts that
count, so the answer is what the books were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ledger.fold.change import StreamKey, TranslatedEvent, is_attribution
from ledger.fold.known_streams import NAMED_MAX
from ledger.fold.states import advance
from ledger.model import Received, Related, SourceTerms, StreamProjection
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
    _early: dict[StreamKey, list[TranslatedEvent]] = field(default_factory=dict)
    """Attributions of streams of which no fact counts yet."""

    def add(self, events: Iterable[tuple[StreamKey, TranslatedEvent]]) -> None:
        """Fold further events into their streams; those of one stream come in log order.

        An attribution applies to all facts of its stream that count, also where the first of them
        came after it: the facts that were there before it are dated later.
        """
        for key, event in events:
            projection = self.streams_of[key[0]]
            if key not in self.states and is_attribution(event):
                self._early.setdefault(key, []).append(event)
                continue
            state = advance(projection, self.states.get(key), event)
            for decision in self._early.pop(key, ()) if state is not None else ():
                state = advance(projection, state, decision)
            if state is not None:
                self.states[key] = state

    def mentions(self, key: StreamKey) -> Sequence[str]:
        """Return the names that a stream mentions: those that have one must be added, too."""
        mentions = self.streams_of[key[0]].mentions
        return () if mentions is None or key not in self.states else mentions(self.states[key])

    def can_receive(self, key: StreamKey) -> bool:
        """Tell whether other streams may count something towards a stream."""
        return key in self.states and self.streams_of[key[0]].names is not None

    def row(
        self,
        key: StreamKey,
        named: Mapping[str, Sequence[StreamKey]],
        received: Sequence[Received],
    ) -> dict[str, Any] | None:
        """Return a stream's row as its table would have it; None when nothing is known of it.

        `named` are the streams that may have the names that it mentions, `received` is what others
        count towards it.
        """
        if key not in self.states:
            return None
        mentioned = {
            name: outlines
            for name in self.mentions(key)
            if (outlines := self._outlines(name, named.get(name, ())))
        }
        related = Related(mentioned, received)
        view = self.streams_of[key[0]].view(self.states[key], related, self.terms)
        return {**view.row, "source": self.terms.source, "kind": key[0], "id": key[1]}

    def _outlines(self, name: str, keys: Sequence[StreamKey]) -> list[Any]:
        """Return the outlines of the first streams that have a name by now."""
        found = []
        for key in sorted(keys):
            projection = self.streams_of[key[0]]
            if key not in self.states or projection.names is None or projection.outline is None:
                continue
            if name in projection.names(self.states[key]):
                found.append(projection.outline(self.states[key], self.terms))
        return found[:NAMED_MAX]
