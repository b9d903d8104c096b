"""The books: the projections' tables in one schema per generation, written batch by batch.

A batch is one transaction with a compare-and-set of the source's checkpoint, so that every table
is true at one position and no two workers can fold the same event twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ledger.books.findings import refreshing
from ledger.books.table_sql import TableSql, look_up, put_together, tables
from ledger.database.copy_format import arrays, copy, encode
from ledger.errors import CheckpointConflict
from ledger.fold.batch import Batch, LinkLookup, StreamLookup
from ledger.fold.change import ChangeSet, LoadedStream
from ledger.fold.stream_state import encode as encode_stored
from ledger.registry import Registry

SELECT_CHECKPOINT: Final = "SELECT position FROM checkpoints WHERE source = $1"
INSERT_CHECKPOINT: Final = """
INSERT INTO checkpoints (source, position) VALUES ($1, 0) ON CONFLICT DO NOTHING
"""
ADVANCE: Final = """
UPDATE checkpoints SET position = $3, moved_at = clock_timestamp()
 WHERE source = $1 AND position = $2
"""
SELECT_PARKED: Final = """
SELECT DISTINCT kind, resource_id FROM parked WHERE source = $1
"""
SELECT_LINKED: Final = """
SELECT l.link, l.kind, l.id FROM unnest($2::text[]) AS requested(link)
 CROSS JOIN LATERAL (SELECT * FROM links WHERE source = $1 AND links.link = requested.link
                        AND hashtextextended(links.link, 0) = hashtextextended(requested.link, 0)
                      ORDER BY kind COLLATE "C", id COLLATE "C" LIMIT $3) AS l
"""

LINK_KINDS: Final = ("text",) * 4
TOGETHER_MAX: Final = 200
"""Rows of a stream table up to which new ones are written with the changed ones, and those of all
such tables together: a statement costs more than the few rows that most batches have for it."""

PARK_KINDS: Final = ("text", "bigint", "text", "text", "text")


class Write(NamedTuple):
    """One step of writing a batch."""

    where: str
    """A table, or a statement."""
    data: bytes | Sequence[Any]
    """What COPY puts into the table, or the statement's arguments."""


@dataclass(frozen=True, slots=True)
class Books:
    """The books of one source in one generation, through one connection."""

    connection: Any
    registry: Registry
    source: str

    async def position(self) -> int:
        """Return the checkpoint: the last position that the tables contain."""
        found = await self.connection.fetchval(SELECT_CHECKPOINT, self.source)
        if found is None:
            await self.connection.execute(INSERT_CHECKPOINT, self.source)
        return int(found or 0)

    async def parked(self) -> set[tuple[str, str]]:
        """Return the streams that wait for a better fold."""
        rows = await self.connection.fetch(SELECT_PARKED, self.source)
        return {(row["kind"], row["resource_id"]) for row in rows}

    async def answer(self, batch: Batch, lookup: StreamLookup | LinkLookup) -> None:
        """Give `batch` what it looks up, as far as the books hold it."""
        match lookup:
            case StreamLookup(keys):
                await self._load(batch, keys)
            case LinkLookup(links, streams_max):
                rows = await self.connection.fetch(SELECT_LINKED, self.source, links, streams_max)
                for row in rows:
                    batch.known.relate(row["link"], (row["kind"], row["id"]))

    async def _load(self, batch: Batch, keys: Iterable[tuple[str, str]]) -> None:
        by_name: dict[str, tuple[list[str], list[str]]] = {}
        streams = self.registry.streams
        for kind, resource in keys:
            kinds, ids = by_name.setdefault(streams[kind].table.name, ([], []))
            kinds.append(kind)
            ids.append(resource)
        names = tuple(sorted(by_name))
        columns = [column for name in names for column in by_name[name]]
        statement = look_up(self.registry, names)
        for row in await self.connection.fetch(statement, self.source, *columns):
            kind, resource, first_position, position, raw = row
            batch.known.add((kind, resource), first_position, position, raw)

    def written(self, change: ChangeSet) -> Iterator[Write]:
        """Write a batch out as the statements that put it into the tables, one by one."""
        known = tables(self.registry)
        few: dict[str, list[str]] = {}
        for name, streams in by_table(change.streams).items():
            sql = known[name]
            if sql.table.hashed or len(streams) > TOGETHER_MAX:
                fresh = [row_of(sql, self.source, stream) for stream in streams if stream.is_new]
                yield from _copied(name, sql.kinds, fresh)
                streams = [stream for stream in streams if not stream.is_new]
            if not streams:
                continue
            columns = arrays(sql.kinds, [row_of(sql, self.source, each) for each in streams])
            if sql.table.hashed:
                yield Write(sql.update, columns)
            else:
                few[name] = columns
        for name, rows in change.rows.items():
            yield from _copied(name, known[name].kinds, rows)
        for name, sums in change.sums.items():
            if sums:
                added = [(*key, *amounts) for key, amounts in sums.items()]
                few[name] = arrays(known[name].kinds, added)
        if few:
            names = tuple(sorted(few))
            yield Write(
                put_together(self.registry, names), [c for name in names for c in few[name]]
            )
        yield from _copied("links", LINK_KINDS, [(self.source, *link) for link in change.links])
        parks = [(self.source, p.position, *p.key, p.reason) for p in change.parked]
        yield from _copied("parked", PARK_KINDS, parks)
        for statement, arguments in refreshing(change, self.source):
            yield Write(statement, arguments)

    @asynccontextmanager
    async def advancing(self, old: int, new: int) -> AsyncIterator[None]:
        """Move the checkpoint from `old` to `new` with what a block puts, all or nothing.

        Raises CheckpointConflict when the checkpoint was not at `old`.
        """
        async with self.connection.transaction():
            if await self.connection.execute(ADVANCE, self.source, old, new) != "UPDATE 1":
                raise CheckpointConflict
            yield

    @asynccontextmanager
    async def trying(self) -> AsyncIterator[None]:
        """Take back what a block puts: it raises what the database refuses."""
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            yield
        finally:
            await transaction.rollback()

    async def put(self, batch: Iterable[Write]) -> None:
        """Put a batch into the tables, within `advancing` or `trying`."""
        for where, data in batch:
            if isinstance(data, bytes):
                await copy(self.connection, where, data)
            else:
                await self.connection.execute(where, *data)


def row_of(sql: TableSql, source: str, stream: LoadedStream) -> tuple[Any, ...]:
    """Return the row of a stream, in the order of its table's columns."""
    kind, resource = stream.key
    values = {
        **(stream.row or {}),
        "source": source,
        "kind": kind,
        "id": resource,
        "first_position": stream.first_position,
        "position": stream.position,
        "state": encode_stored(stream.stored),
    }
    return sql.pick(values)


def _copied(name: str, kinds: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Iterator[Write]:
    if rows:
        yield Write(name, encode(kinds, rows))


def by_table(streams: Iterable[LoadedStream]) -> dict[str, list[LoadedStream]]:
    """Group streams by the table that holds them."""
    found: dict[str, list[LoadedStream]] = {}
    for stream in streams:
        found.setdefault(stream.projection.table.name, []).append(stream)
    return found
