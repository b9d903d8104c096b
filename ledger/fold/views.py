"""The second pass over a batch: views of the changed streams, their journal entries and rows."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from ledger.fold.journal import add_entries, add_shares, add_up, check_balanced, share_changes
from ledger.fold.known_streams import ChangedStream, KnownStreams
from ledger.fold.states import FoldStep
from ledger.fold.stream_state import StreamState
from ledger.model import (
    Entry,
    FoldResult,
    Issue,
    Projection,
    Received,
    Related,
    Share,
    SourceTerms,
    View,
)


class ProjectedRows(NamedTuple):
    """The rows of an event-wise projection, and what makes them."""

    rows: list[tuple[Any, ...]]
    rows_of: Callable[[FoldResult], Sequence[tuple[Any, ...]]]


_EMPTY: Final = StreamState(None, (), (), ())
_UNRELATED: Final = Related()


class Viewed(NamedTuple):
    """A stream with its new state and what it means."""

    stream: LoadedStream
    stored: StreamState
    view: View


@dataclass(slots=True)
class ViewFold:
    """Turns the states of a batch into what changes in the books, event by event."""

    terms: SourceTerms
    known: KnownStreams
    projections: Sequence[Projection]
    _parks: list[Park] = field(default_factory=list)
    _new_links: list[tuple[str, str, str]] = field(default_factory=list)
    _projected: list[ProjectedRows] = field(default_factory=list)
    """In the order of the projections."""

    def __post_init__(self) -> None:
        self._projected = [ProjectedRows([], projection.rows) for projection in self.projections]

    def fold(self, step: FoldStep) -> None:
        """Fold the next event; one that raises is parked, and so are later ones of its stream."""
        event, key, state, *_ = step
        fact, known = event.fact, self.known
        decides = fact is not None and fact.kind == DECISION
        if key is None or (decides and (key in known.parked or key not in known.streams)):
            self._add(self._result(event, opened=own_issues(event), decided=decided(fact)))
        elif key in known.parked:
            self._park(event, key, "an earlier event of the stream is parked")
        elif isinstance(state, Exception):
            self._park(event, key, _cause(state))
        elif event.issue is not None:
            self._park(event, key, f"{event.issue.reason}: {event.issue.detail}")
        else:
            stream = known.streams.get(key)
            if stream is None:
                place = event.position
                stream = LoadedStream(
                    key, known.streams_of[key[0]], _EMPTY, place, place, is_new=True
                )
            try:
                if decides or not self._fold_alone(step, stream):
                    self._fold_together(step, stream)
            except Exception as error:  # noqa: BLE001 - a view's bug parks its stream only
                self._park(event, key, _cause(error))

    def changes(self) -> ChangeSet:
        """Return what the events folded so far change."""
        rows: dict[str, list[tuple[Any, ...]]] = {}
        sums: dict[str, dict[tuple[Any, ...], list[Decimal]]] = {}
        for projection, projected in zip(self.projections, self._projected, strict=True):
            table = projection.table
            if table.mode == "sum":
                sums[table.name] = add_up(projected.rows, len(table.key))
            else:
                rows[table.name] = projected.rows
        changed = [stream for stream in self.known.streams.values() if stream.row is not None]
        return ChangeSet(changed, rows, sums, self._new_links, self._parks)

    def _fold_alone(self, step: FoldStep, stream: LoadedStream) -> bool:
        """Fold an ordinary event: of a stream without relations and issues.

        Returns False, with nothing changed, for any other.
        """
        event, _, state, links, is_outline_new = step
        before = stream.stored
        if before.issues or before.shares or before.received:
            return False
        if stream.projection.mentions is not None and links:
            return False
        if is_outline_new and self.known.mentioning(stream.key, links, before.links):
            return False
        view = stream.projection.view(state, _UNRELATED, self.terms)
        if view.issues:
            return False
        entries: list[Entry] = []
        if view.legs:
            check_balanced(view.legs)
        if view.legs or before.legs:
            add_entries(entries, stream.key, before.legs, view.legs)
        self._add(self._result(event, entries))
        self._apply(stream, StreamState(state, view.legs, (), links), view)
        stream.position = event.position
        return True

    def _fold_together(self, step: FoldStep, stream: LoadedStream) -> None:
        """Fold an event of a stream with relations or issues."""
        evaluated = self._evaluate(step, stream)
        self._add(self._difference(step.event, evaluated))
        for each, stored, view in evaluated:
            self._apply(each, stored, view)
            each.position = step.event.position

    def _evaluate(self, step: FoldStep, stream: LoadedStream) -> list[Viewed]:
        """View the stream with its new state, and every stream whose view changes with it.

        These are the streams that mention it, when its outline changes, and those that any of them
        counts something else towards. Changes nothing.
        """
        known = self.known
        own = ChangedStream(stream.key, step.state, step.links)
        streams = {own.key: stream}
        if step.is_outline_new:
            mentioning = known.mentioning(own.key, own.links, stream.stored.links)
            streams |= {key: known.streams[key] for key in sorted(mentioning)}
        evaluated = {
            key: self._viewed(each, own, each.stored.received) for key, each in streams.items()
        }
        every = ChainMap(streams, known.streams)
        for key, received in _received(evaluated.values(), every).items():
            evaluated[key] = self._viewed(every[key], own, received)
        return list(evaluated.values())

    def _viewed(
        self, stream: LoadedStream, own: ChangedStream, received: Sequence[Received]
    ) -> Viewed:
        is_own = stream.key == own.key
        state = own.state if is_own else stream.stored.state
        links = own.links if is_own else stream.stored.links
        related = Related(self.known.outlines(links, own, self.terms), received)
        view = stream.projection.view(state, related, self.terms)
        if view.legs:
            check_balanced(view.legs)
        reasons = [issue.reason for issue in view.issues] if view.issues else ()
        stored = StreamState(state, view.legs, reasons, links, view.shares, received)
        return Viewed(stream, stored, view)

    def _difference(self, event: TranslatedEvent, evaluated: Sequence[Viewed]) -> FoldResult:
        """Return what the event changes: journal entries, shares, issues opened and cleared."""
        entries: list[Entry] = []
        shares: list[tuple[str, str, Share]] = []
        opened: list[tuple[str, str, Issue]] = []
        cleared: list[tuple[str, str, str]] = []
        for stream, stored, view in evaluated:
            before = stream.stored
            if view.legs or before.legs:
                add_entries(entries, stream.key, before.legs, view.legs)
            kind, resource = stream.key
            if view.shares or before.shares:
                changes = share_changes(before.shares, view.shares)
                shares += [(kind, resource, change) for change in changes]
            if view.issues or before.issues:
                opened += [
                    (kind, resource, t) for t in view.issues if t.reason not in before.issues
                ]
                gone = set(before.issues) - set(stored.issues)
                cleared += [(kind, resource, reason) for reason in sorted(gone)]
        return self._result(event, entries, opened, cleared, decided(event.fact), shares=shares)

    def _apply(self, stream: LoadedStream, stored: StreamState, view: View) -> None:
        for link in stored.links:
            if link not in stream.stored.links:
                self._new_links.append((link, *stream.key))
                self.known.relate(link, stream.key)
        stream.stored = stored
        stream.row = view.row
        stream.customers = view.customers
        self.known.streams[stream.key] = stream

    def _park(self, event: TranslatedEvent, key: StreamKey, reason: str) -> None:
        self._parks.append(Park(event.position, key, reason[:500]))
        issue = Issue(PARKED, reason[:500])
        opened = [] if key in self.known.parked else [(key[0], key[1], issue)]
        self.known.parked.add(key)
        self._add(self._result(event, opened=opened, folded=False))

    def _add(self, result: FoldResult) -> None:
        """Make the rows of an event: all of them, or none when a projection raises."""
        made = [rows_of(result) for _, rows_of in self._projected]
        for (rows, _), own in zip(self._projected, made, strict=True):
            rows += own

    def _result(
        self,
        event: TranslatedEvent,
        entries: Sequence[Entry] = (),
        opened: Sequence[tuple[str, str, Issue]] = (),
        cleared: Sequence[tuple[str, str, str]] = (),
        decided: tuple[str, str, str] | None = None,
        *,
        shares: Sequence[tuple[str, str, Share]] = (),
        folded: bool = True,
    ) -> FoldResult:
        fact = event.fact if folded else None
        identity = fact or event
        return FoldResult(
            self.terms.source, event.position, event.event_id, identity.kind,
            identity.resource_id, identity.status, event.received_at, event.recorded_at, fact,
            entries, shares, opened, cleared, decided,
        )  # fmt: skip


def _received(
    evaluated: Iterable[Viewed], streams: Mapping[StreamKey, LoadedStream]
) -> dict[StreamKey, Sequence[Received]]:
    """Return what streams have received after an event, of those for which it changes that."""
    changes: dict[StreamKey, list[Share]] = {}
    for stream, stored, _ in evaluated:
        for share in share_changes(stream.stored.shares, stored.shares):
            changes.setdefault((share.kind, share.id), []).append(share)
    return {key: add_shares(streams[key].stored.received, changes[key]) for key in sorted(changes)}


def _cause(error: Exception) -> str:
    """Return what books keep of an error that parked a stream: its name and its message."""
    name = getattr(error, "name_in_books", type(error).__name__)
    return f"{name}: {error}"
