"""As-of, the pure part: what is asked for, and what a stream was before later facts. No SQL.

An earlier state is not kept anywhere: it is folded again, by the folds that make the books, from
the facts that count, so an earlier answer cannot say anything that the books would not have said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ledger.errors import InvalidRequest
from ledger.fold.batch import StreamKey, TranslatedEvent, advance
from ledger.model import SourceTerms, StreamProjection
from ledger.queries.params import AsOfParams

OF_STATEMENTS: Final = ".statements"
"""How the name of a log ends that stands beside a source's own and holds its statements."""


def positions_asked(as_of: AsOfParams, heads: Mapping[str, int]) -> dict[str, int]:
    """Return the positions that a question names, by source; `heads` has the sources asked about.

    A bare number is about the callbacks: neither a log of statements beside them nor a source that
    has none yet makes it vague. Raises BadQuestion for a bare number about several sources, and
    for a source not asked about.
    """
    if as_of.position is not None:
        meant = [source for source in heads if not source.endswith(OF_STATEMENTS)] or list(heads)
        meant = [source for source in meant if heads[source]] or meant
        if len(meant) != 1:
            example = ",".join(f"{source}:{as_of.position}" for source in meant)
            raise InvalidRequest(
                f"position={as_of.position} is about one source: add source=, or write {example}"
            )
        return {meant[0]: as_of.position}
    for source in as_of.positions:
        if source not in heads:
            raise InvalidRequest(f"position names {source}, but the question is not about it")
    return dict(as_of.positions)


@dataclass(slots=True)
class Refold:
    """The states of some streams of one source, folded again from the facts that count."""

    terms: SourceTerms
    streams_of: Mapping[str, StreamProjection]
    states: dict[StreamKey, Any] = field(default_factory=dict)
    _links: dict[str, set[StreamKey]] = field(default_factory=dict)

    def add(self, told: Iterable[tuple[StreamKey, TranslatedEvent]]) -> None:
        """Fold further events into their streams; those of one stream come in log order."""
        for key, event in told:
            state = advance(self.streams_of[key[0]], self.states.get(key), event)
            if state is not None:
                self.states[key] = state

    def links_of(self, keys: Iterable[StreamKey]) -> set[str]:
        """Return the links of streams; what shares one is to be added and related."""
        return {link for key in keys for link in self._links_of(key)}

    def relate(self, keys: Iterable[StreamKey]) -> None:
        """Let streams be seen by those that share a link with them."""
        for key in keys:
            for link in self._links_of(key):
                self._links.setdefault(link, set()).add(key)

    def row(self, key: StreamKey) -> dict[str, Any] | None:
        """Return a stream's row as its table would have it; None when nothing is known of it."""
        if key not in self.states:
            return None
        found = {other for link in self._links_of(key) for other in self._links.get(link, ())}
        related = [self.states[other] for other in sorted(found - {key})]
        view = self.streams_of[key[0]].view(self.states[key], related, self.terms)
        return {**view.row, "source": self.terms.source, "kind": key[0], "id": key[1]}

    def _links_of(self, key: StreamKey) -> tuple[str, ...]:
        links = self.streams_of[key[0]].links
        state = self.states.get(key)
        return () if links is None or state is None else links(state)
