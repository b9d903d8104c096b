"""The other ways in which the program folds a log: partition by partition, and without a database.

Each is given the facts that `driver.Books` is given, and what it makes is compared with those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from ledger import registry
from ledger.export.jsonl import row_line
from ledger.export.offline_fold import PLACE, OfflineFold, OfflineStore
from ledger.fold.batch import MENTIONING_MAX, Batch, TooManyRelated, answer, run
from ledger.fold.change import ChangeSet, TranslatedEvent
from ledger.fold.states import stream_of
from ledger.model import Fact, SourceTerms
from ledger.rebuild.sorted_files import links_from
from ledger.rebuild.tasks import PartitionFold
from tests.property.driver import Books, event, received_at, translated


def rebuilt(facts: Sequence[Fact], terms: SourceTerms, sizes: Sequence[int]) -> Books:
    """Fold a log as a rebuild does: related streams together, each such partition in pieces."""
    books = Books(terms)
    for partition in _partitions(translated(facts, terms)):
        folding = PartitionFold(terms, registry.load())
        for piece in _cut(partition, sizes):
            books.keep(folding.fold(piece))
    books.head = len(facts)
    return books


def in_pages(facts: Sequence[Fact], terms: SourceTerms, sizes: Sequence[int], page: int) -> Books:
    """Fold a log as the worker does, with so many related streams held together."""
    books = Books(terms)
    for piece in _cut(translated(facts, terms), sizes):
        _divide(books, piece, page)
    books.head = len(facts)
    return books


def _divide(books: Books, events: Sequence[TranslatedEvent], page: int) -> None:
    try:
        books.keep(run(_batch(books, events, page), books))
    except TooManyRelated:
        half = len(events) // 2
        for part in (events[:half], events[half:]) if half else ():
            _divide(books, part, page)
        if not half:
            _keep_pages(books, events, page)


def _keep_pages(books: Books, events: Sequence[TranslatedEvent], page: int) -> None:
    batch = _batch(books, events, page)
    for step in batch.pages():
        if isinstance(step, ChangeSet):
            books.keep(step)
        else:
            answer(batch, step, books)


def _batch(books: Books, events: Sequence[TranslatedEvent], page: int) -> Batch:
    known = registry.load()
    return Batch(
        books.terms, known.streams, known.projections, events,
        parked={*books.parked}, mentioning_max=page,
    )  # fmt: skip


def _partitions(events: Sequence[TranslatedEvent]) -> Iterable[Sequence[TranslatedEvent]]:
    """Return the events of streams that share a name, directly or over others, in log order."""
    streams_of = registry.load().streams
    places = count()
    partition_of: dict[Any, int] = defaultdict(lambda: next(places))
    for each in events:
        key = stream_of(each, streams_of) or each.position
        shared = {
            partition_of[key],
            *(partition_of["name", n.partition(":")[2]] for n in links_from(each, streams_of)),
        }
        for other, partition in partition_of.items():
            if partition in shared:
                partition_of[other] = min(shared)
    partitions: dict[int, list[TranslatedEvent]] = defaultdict(list)
    for each in events:
        partitions[partition_of[stream_of(each, streams_of) or each.position]].append(each)
    return partitions.values()


def _cut(items: Sequence[Any], sizes: Sequence[int]) -> Iterator[Sequence[Any]]:
    """Yield the items in pieces of the given sizes, then the rest."""
    first = 0
    for size in [*sizes, len(items)]:
        if items[first : first + size]:
            yield items[first : first + size]
        first += size


class _Dispatch:
    """Translates a body, which is a position, into the fact there."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.facts = facts

    def translate(self, terms: SourceTerms, origin: str, path: str | None, body: bytes) -> Fact:
        return self.facts[int(body) - 1]


def offline(
    facts: Sequence[Fact],
    terms: SourceTerms,
    sizes: Sequence[int],
    path: Path,
    page: int = MENTIONING_MAX,
) -> dict[str, list[bytes]]:
    """Fold a log without a database; return the lines of every table, sorted."""
    known = registry.load()
    own = SimpleNamespace(
        dispatch=_Dispatch(facts), streams=known.streams, projections=known.projections
    )
    lines: dict[str, list[bytes]] = defaultdict(list)
    rows = [_row(fact, position) for position, fact in enumerate(facts, 1)]
    with OfflineStore(path) as store:
        fold = OfflineFold(
            store,
            terms,
            cast(registry.Registry, own),
            lambda table, line: lines[table].append(line),
            mentioning_max=page,
        )
        for piece in _cut(rows, sizes):
            fold.add(piece)
        fold.finish()
    return {table: sorted(made) for table, made in lines.items() if table != "links"}


def _row(fact: Fact, position: int) -> dict[str, Any]:
    """Return a row of ledger.events."""
    seen = event(fact, position)
    return {
        "position": position,
        "event_id": bytes.fromhex(seen.event_id),
        "kind": seen.kind,
        "resource_id": seen.resource_id,
        "status": seen.status,
        "path_event": None,
        "origin": "operator" if seen.kind == "decision" else "callback",
        "reason": None,
        "detail": None,
        "body": b"%d" % position,
        "received_at": received_at(position),
        "recorded_at": received_at(position),
    }


def lines_of(books: Books) -> dict[str, list[bytes]]:
    """Return the lines of the tables of books, sorted, but for those that hold sums."""
    known = registry.load()
    found: dict[str, list[bytes]] = defaultdict(list)
    for key, row in books.rows.items():
        table = known.streams[key[0]].table
        first, last, _ = books.saved[key]
        place = {"source": books.terms.source, "kind": key[0], "id": key[1],
                 "first_position": first, "position": last}  # fmt: skip
        found[table.name].append(row_line({**table.columns, **PLACE}, {**row, **place}))
    for table in (each.table for each in known.projections if each.table.mode != "sum"):
        for made in books.tables[table.name]:
            values = dict(zip(table.columns, made, strict=True))
            found[table.name].append(row_line(table.columns, values))
    return {table: sorted(made) for table, made in found.items() if made}
