"""The fold without a database server: the books of one source, made from its events alone.

The same handlers, projections and batches as everywhere; what does not fit into memory lies in a
temporary SQLite file. Rows come out as lines: the journal and its like in the order of the log,
tables with one row per stream or account at the end, in the order of their keys.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import orjson

from ledger.books.projection_worker import log_handler_failure
from ledger.export.jsonl import row_line
from ledger.fold.batch import (
    MENTIONING_MAX,
    Batch,
    StoredStream,
    TooManyRelated,
    answer,
    run,
)
from ledger.fold.change import ChangeSet, LoadedStream, StreamKey, TranslatedEvent, park_event
from ledger.fold.stream_state import encode
from ledger.fold.translate import translate
from ledger.fold.views import ViewFailed
from ledger.model import SourceTerms, Table
from ledger.payload import plain, total
from ledger.registry import Registry

StreamLine: TypeAlias = tuple[LoadedStream, bytes]
"""A stream with its row as a line."""

TableLine: TypeAlias = tuple[str, bytes]
"""(table, line)"""

BATCH_EVENTS: Final = 2_000
PLACE: Final = {"first_position": "bigint", "position": "bigint"}
"""Columns of a stream's row besides its projection's."""

LINKS: Final = {"source": "text", "link": "text", "kind": "text", "id": "text"}
PARKED: Final = {
    "source": "text", "position": "bigint", "kind": "text", "resource_id": "text", "reason": "text",
}  # fmt: skip

_SCHEMA: Final = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE streams (kind TEXT, id TEXT, first_position INTEGER, position INTEGER, state BLOB,
                      line BLOB, PRIMARY KEY (kind, id));
CREATE TABLE links (link TEXT, kind TEXT, id TEXT, PRIMARY KEY (link, kind, id)) WITHOUT ROWID;
CREATE TABLE sums (name TEXT, key BLOB, row BLOB, PRIMARY KEY (name, key)) WITHOUT ROWID;
BEGIN;
"""
_STREAM: Final = "SELECT first_position, position, state FROM streams WHERE kind = ? AND id = ?"
_LINKED: Final = "SELECT kind, id FROM links WHERE link = ? ORDER BY kind, id LIMIT ?"
_SUM: Final = "SELECT row FROM sums WHERE name = ? AND key = ?"
_PUT_STREAM: Final = "INSERT OR REPLACE INTO streams VALUES (?, ?, ?, ?, ?, ?)"
_PUT_LINK: Final = "INSERT OR IGNORE INTO links VALUES (?, ?, ?)"
_PUT_SUM: Final = "INSERT OR REPLACE INTO sums VALUES (?, ?, ?)"
_STREAM_LINES: Final = "SELECT line FROM streams WHERE kind = ? ORDER BY id"
_SUM_ROWS: Final = "SELECT row FROM sums WHERE name = ? ORDER BY key"
_LINKS: Final = "SELECT link, kind, id FROM links ORDER BY link, kind, id"


@dataclass(slots=True)
class OfflineStore:
    """What the fold keeps between batches, in a private file."""

    path: Path
    database: sqlite3.Connection = field(init=False)

    def __enter__(self) -> Self:
        self.database = sqlite3.connect(self.path, isolation_level=None)
        self.database.executescript(_SCHEMA)
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()
        self.path.unlink(missing_ok=True)

    def streams(self, keys: Iterable[StreamKey]) -> Iterable[StoredStream]:
        """Return the stored streams among `keys`."""
        for key in keys:
            row = self.database.execute(_STREAM, key).fetchone()
            if row is not None:
                yield key, *row

    def linked(
        self, links: Iterable[str], streams_max: int | None
    ) -> Iterable[tuple[str, StreamKey]]:
        """Return the first streams under each of `links`, or all of them."""
        for link in links:
            for key in self.database.execute(_LINKED, (link, streams_max or -1)):
                yield link, key

    def write(self, change: ChangeSet, lines: Sequence[StreamLine]) -> None:
        """Keep what a batch changed."""
        rows = [
            (*each.key, each.first_position, each.position, encode(each.stored), line)
            for each, line in lines
        ]
        self.database.executemany(_PUT_STREAM, rows)
        self.database.executemany(_PUT_LINK, change.links)
        for name, sums in change.sums.items():
            for key, amounts in sums.items():
                self._add(name, key, amounts)

    def _add(self, name: str, key: tuple[Any, ...], amounts: Sequence[Decimal]) -> None:
        # Texts of the books hold no NUL, so that joined keys sort as their columns do.
        place = "\0".join(map(str, key)).encode()
        known = self.database.execute(_SUM, (name, place)).fetchone()
        before = orjson.loads(known[0])[1] if known else ["0"] * len(amounts)
        after = [plain(total(Decimal(a), b)) for a, b in zip(before, amounts, strict=True)]
        self.database.execute(_PUT_SUM, (name, place, orjson.dumps([key, after])))


@dataclass(slots=True)
class OfflineFold:
    """Folds the events of one source, in log order, into lines of every table of its books."""

    store: OfflineStore
    terms: SourceTerms
    registry: Registry
    emit: Callable[[str, bytes], None]
    """(table, line)"""
    parked: set[StreamKey] = field(default_factory=set)
    parked_at: set[int] = field(default_factory=set)
    """The positions of the events that are parked."""
    mentioning_max: int = MENTIONING_MAX
    """Streams that mention changed ones which are held together."""

    def add(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Fold further events of the log (columns of ledger.events)."""
        for begin in range(0, len(events), BATCH_EVENTS):
            rows = events[begin : begin + BATCH_EVENTS]
            self._fold([self._translated(row) for row in rows])

    def _translated(self, row: Mapping[str, Any]) -> TranslatedEvent:
        return translate(self.registry.dispatch, self.terms, row, log_handler_failure)

    def finish(self) -> None:
        """Write out the tables that have one row per key."""
        for table in sorted({p.table.name for p in self.registry.streams.values()}):
            for kind in sorted(
                k for k, p in self.registry.streams.items() if p.table.name == table
            ):
                for (line,) in self.store.database.execute(_STREAM_LINES, (kind,)):
                    self.emit(table, line)
        for projection in self.registry.projections:
            if projection.table.mode == "sum":
                self._write_sums(projection.table)
        for row in self.store.database.execute(_LINKS):
            values = dict(zip(LINKS, (self.terms.source, *row), strict=True))
            self.emit("links", row_line(LINKS, values))

    def _write_sums(self, table: Table) -> None:
        for (row,) in self.store.database.execute(_SUM_ROWS, (table.name,)):
            key, amounts = orjson.loads(row)
            values = dict(zip(table.columns, (*key, *amounts), strict=True))
            self.emit(table.name, row_line(table.columns, values))

    def _fold(self, events: Sequence[TranslatedEvent]) -> None:
        try:
            change = run(self._batch(events), self.store)
            made = self._lines(change)
        except TooManyRelated as error:
            if len(events) > 1:
                self._isolate(events, error)
            else:
                self._fold_in_pages(events[0])
        except (TypeError, ValueError) as error:
            self._isolate(events, error)
        else:
            self._keep(change, *made)

    def _batch(self, events: Sequence[TranslatedEvent]) -> Batch:
        return Batch(
            self.terms, self.registry.streams, self.registry.projections, events,
            parked=set(self.parked), mentioning_max=self.mentioning_max,
        )  # fmt: skip

    def _fold_in_pages(self, event: TranslatedEvent) -> None:
        """Fold an event of too many related streams page by page.

        It is folded twice, first to see that all of it can be written: lines are not taken back.
        """
        try:
            for change in self._pages(event):
                self._lines(change)
        except ViewFailed as failure:
            self._fold([failure.event])
        except (TypeError, ValueError) as error:
            self._isolate([event], error)
        else:
            for change in self._pages(event):
                self._keep(change, *self._lines(change))

    def _pages(self, event: TranslatedEvent) -> Iterator[ChangeSet]:
        batch = self._batch([event])
        for step in batch.pages():
            if isinstance(step, ChangeSet):
                yield step
            else:
                answer(batch, step, self.store)

    def _lines(self, change: ChangeSet) -> tuple[list[StreamLine], list[TableLine]]:
        """Write out what changes: streams with their lines, and rows of other tables."""
        streams = [(stream, self._stream_line(stream)) for stream in change.streams]
        return streams, list(self._row_lines(change))

    def _keep(
        self, change: ChangeSet, streams: Sequence[StreamLine], rows: Iterable[TableLine]
    ) -> None:
        self.store.write(change, streams)
        self.parked.update(park.key for park in change.parked)
        self.parked_at.update(park.position for park in change.parked)
        for table, line in rows:
            self.emit(table, line)

    def _stream_line(self, stream: LoadedStream) -> bytes:
        table = stream.projection.table
        values = {
            **(stream.row or {}),
            "source": self.terms.source,
            "kind": stream.key[0],
            "id": stream.key[1],
            "first_position": stream.first_position,
            "position": stream.position,
        }
        return row_line({**table.columns, **PLACE}, values)

    def _row_lines(self, change: ChangeSet) -> Iterable[TableLine]:
        for projection in self.registry.projections:
            table = projection.table
            for row in change.rows.get(table.name, ()):
                yield (
                    table.name,
                    row_line(table.columns, dict(zip(table.columns, row, strict=True))),
                )
        for park in change.parked:
            values = (self.terms.source, park.position, *park.key, park.reason)
            yield "parked", row_line(PARKED, dict(zip(PARKED, values, strict=True)))

    def _isolate(self, events: Sequence[TranslatedEvent], error: Exception) -> None:
        """Find the one event whose rows cannot be written, and list it, as the database's fold."""
        if len(events) > 1:
            half = len(events) // 2
            self._fold(events[:half])
            self._fold(events[half:])
            return
        if events[0].issue is not None:
            raise error
        self._fold([park_event(events[0], type(error).__name__)])
