"""The second pass over a batch: views of the changed streams, their journal entries and rows.

An event that changes the views of very many streams is folded page by page: `begin_pages`, then
`fold_page` for each, then `end_pages`. The pages give the rows that the event gives in one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NamedTuple

from ledger.callback_errors import LedgerError
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
    WHOLE,
    Entry,
    FoldResult,
    Issue,
    Page,
    Projection,
    Received,
    Related,
    Share,
    SourceTerms,
    View,
    changed,
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


class ViewFailed(LedgerError):
    """A view raised while an event was folded page by page; `event` is the same, to be parked."""

    def __init__(self, event: TranslatedEvent) -> None:
        super().__init__()
        self.event = event


@dataclass(slots=True)
class PagedEvent:
    """An event on its way through its pages."""

    step: FoldStep
    stream: LoadedStream
    entries: int = 0
    """Journal lines so far."""
    shares: int = 0
    received: dict[StreamKey, Sequence[Received]] = field(default_factory=dict)
    """What the pages so far change of what streams have received."""

    @property
    def own(self) -> ChangedStream:
        """The event's stream after it."""
        return ChangedStream(self.stream.key, self.step.state, self.step.links)


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
            stream = self._stream(event, key)
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
        """Fold an event of a stream with relations or issues.

        It changes the views of the streams that mention its own, when the outline of that changes,
        of its own, and of those that any of them counts something else towards.
        """
        paged = PagedEvent(step, stream)
        evaluated = self._mentioning(paged, self.mentioning(paged))
        evaluated += self._own_and_receiving(paged)
        self._put(paged, evaluated, WHOLE)

    def begin_pages(self, step: FoldStep) -> PagedEvent:
        """Return an event that `fold` would fold, to be folded page by page."""
        assert step.key is not None
        return PagedEvent(step, self._stream(step.event, step.key))

    def mentioning(self, paged: PagedEvent) -> list[StreamKey]:
        """Return the streams whose views change because they mention that of the event."""
        if not paged.step.is_outline_new:
            return []
        own = paged.own
        return sorted(self.known.mentioning(own.key, own.links, paged.stream.stored.links))

    def fold_page(self, paged: PagedEvent, keys: Sequence[StreamKey]) -> ChangeSet:
        """Fold the next of the streams that mention the event's; return what they change.

        Raises ViewFailed.
        """
        page = Page(paged.entries, paged.shares, is_last=False)
        return self._folded_page(paged, page, lambda: self._mentioning(paged, keys))

    def end_pages(self, paged: PagedEvent) -> ChangeSet:
        """Fold the rest of an event: its own stream, and those that the pages counted towards."""
        page = Page(paged.entries, paged.shares)
        return self._folded_page(paged, page, lambda: self._own_and_receiving(paged))

    def _folded_page(
        self, paged: PagedEvent, page: Page, evaluate: Callable[[], list[Viewed]]
    ) -> ChangeSet:
        try:
            self._put(paged, evaluate(), page)
        except Exception as error:
            issue = Issue(_name(error), str(error))
            raise ViewFailed(changed(paged.step.event, issue=issue)) from error
        change = self.changes()
        self._new_links = []
        self._projected = [ProjectedRows([], projection.rows) for projection in self.projections]
        return change

    def _put(self, paged: PagedEvent, evaluated: Sequence[Viewed], page: Page) -> None:
        """Make the rows of what was evaluated, and keep the new states."""
        event = paged.step.event
        result = self._difference(event, evaluated, page)
        self._add(result)
        paged.entries += len(result.entries)
        paged.shares += len(result.shares)
        for each, stored, view in evaluated:
            self._apply(each, stored, view)
            each.position = event.position

    def _mentioning(self, paged: PagedEvent, keys: Sequence[StreamKey]) -> list[Viewed]:
        """View streams that mention the event's; add up what they count towards others."""
        streams, own = self.known.streams, paged.own
        evaluated = [self._viewed(streams[key], own, streams[key].stored.received) for key in keys]
        for each in evaluated:
            _count(each, paged.received)
        return evaluated

    def _own_and_receiving(self, paged: PagedEvent) -> list[Viewed]:
        """View the event's stream, and those that what was evaluated counts towards."""
        streams, own, received = self.known.streams, paged.own, paged.received
        viewed = self._viewed(paged.stream, own, _sum(paged.stream, received.pop(own.key, ())))
        _count(viewed, received)
        return [
            viewed,
            *(self._viewed(streams[key], own, _sum(streams[key], received[key]))
              for key in sorted(received)),
        ]  # fmt: skip

    def _stream(self, event: TranslatedEvent, key: StreamKey) -> LoadedStream:
        """Return the stream of an event, an empty one for its first."""
        stream = self.known.streams.get(key)
        if stream is not None:
            return stream
        place = event.position
        return LoadedStream(key, self.known.streams_of[key[0]], _EMPTY, place, place, is_new=True)

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

    def _difference(
        self, event: TranslatedEvent, evaluated: Sequence[Viewed], page: Page
    ) -> FoldResult:
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
        if page.entries_before:
            entries = [changed(e, line=e.line + page.entries_before) for e in entries]
        decision = decided(event.fact) if page.is_last else None
        return self._result(event, entries, opened, cleared, decision, shares=shares, page=page)

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
        page: Page = WHOLE,
        folded: bool = True,
    ) -> FoldResult:
        fact = event.fact if folded else None
        identity = fact or event
        return FoldResult(
            self.terms.source, event.position, event.event_id, identity.kind,
            identity.resource_id, identity.status, event.received_at, event.recorded_at, fact,
            entries, shares, opened, cleared, decided, page,
        )  # fmt: skip


def _count(viewed: Viewed, received: dict[StreamKey, Sequence[Received]]) -> None:
    """Add what a stream counts otherwise than before to the changes of what others received."""
    before = viewed.stream.stored.shares
    if viewed.stored.shares or before:
        for share in share_changes(before, viewed.stored.shares):
            key = (share.kind, share.id)
            received[key] = add_shares(received.get(key, ()), [share])


def _sum(stream: LoadedStream, changes: Sequence[Received]) -> Sequence[Received]:
    """Return what a stream has received after changes of it."""
    return add_shares(stream.stored.received, changes) if changes else stream.stored.received


def _name(error: Exception) -> str:
    """Name an error as the books do."""
    return str(getattr(error, "name_in_books", type(error).__name__))


def _cause(error: Exception) -> str:
    """Return what books keep of an error that parked a stream: its name and its message."""
    return f"{_name(error)}: {error}"
