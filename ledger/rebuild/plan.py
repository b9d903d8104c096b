"""Filling an empty generation in bulk: tables without indexes, rows by COPY, indexes at the end.

The plan and what is done are kept in the generation's own schema, written in the transactions that
do the work, so that a killed load resumes. The last transaction drops these tables and sets the
checkpoints: before it, the generation does not count as books.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from ledger.books import table_sql
from ledger.books.findings import fill
from ledger.books.generations import (
    BOOKKEEPING,
    FORGET_GENERATION,
    create_generation,
    schema_of,
    use_generation,
)
from ledger.books.store import by_table, row_of
from ledger.config.source import LOG_NAME
from ledger.database import copy_format
from ledger.database.errors import is_data_error
from ledger.errors import LedgerError
from ledger.fold.change import ChangeSet, LoadedStream
from ledger.registry import Registry

PARTITION_EVENTS: Final = 10_000
"""Events in a partition of the log, on average: what a process holds at a time."""

CHUNK_EVENTS_MAX: Final = 40_000
CHUNK_EVENTS_MIN: Final = 2_000
CHUNKS: Final = 16
"""Into how many pieces a short log is cut at least, so that processes share them."""

ROWS_AT_ONCE: Final = 10_000
"""Rows written out together: streams that share links may be many more than a partition has."""

SORT: Final = "sort"
FOLD: Final = "fold"
FOLD_LINKED: Final = "fold linked"

SCRATCH: Final = (
    """
CREATE TABLE load_plan (
    source text PRIMARY KEY, target bigint NOT NULL, chunk bigint NOT NULL, partitions int NOT NULL,
    linked int, token text NOT NULL)
""",
    """
CREATE TABLE load_done (
    source text, stage text, number int, events bigint NOT NULL,
    PRIMARY KEY (source, stage, number))
""",
    "CREATE TABLE load_links (source text, partition int, link text, kind text, id text)",
    "CREATE TABLE load_moved (source text, partition int, kind text, id text, target int)",
    "CREATE INDEX ON load_moved (source, partition)",
    "CREATE TABLE load_indexes (name text PRIMARY KEY)",
)
SELECT_LOADING: Final = "SELECT to_regclass('load_plan') IS NOT NULL"
SELECT_TABLE: Final = "SELECT to_regclass($1) IS NOT NULL"
SELECT_STARTED: Final = "SELECT EXISTS (SELECT FROM checkpoints)"
INSERT_PLAN: Final = "INSERT INTO load_plan VALUES ($1, $2, $3, $4, NULL, $5)"
SELECT_PLAN: Final = """
SELECT source, target, chunk, partitions, linked, token FROM load_plan ORDER BY source
"""
INSERT_DONE: Final = "INSERT INTO load_done VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
SELECT_DONE: Final = "SELECT source, stage, number, events FROM load_done"
DELETE_DONE: Final = "DELETE FROM load_done WHERE source = $1 AND stage = $2 AND number = $3"
# Streams that have a name which others mention, and these, with the partitions that they were in.
SELECT_SHARED: Final = """
WITH known AS MATERIALIZED (
       SELECT DISTINCT substr(link, strpos(link, ':') + 1) AS name, kind, id, partition,
              starts_with(link, 'named:') AS is_named
         FROM load_links WHERE source = $1)
SELECT name, kind, id, partition FROM known
 WHERE name IN (SELECT name FROM known GROUP BY name
                HAVING bool_or(is_named) AND bool_or(NOT is_named))
 ORDER BY name, kind, id
"""
UPDATE_LINKED: Final = "UPDATE load_plan SET linked = $2 WHERE source = $1 AND linked IS NULL"
SELECT_MOVED: Final = "SELECT kind, id, target FROM load_moved WHERE source = $1 AND partition = $2"
SELECT_MOVING: Final = (
    "SELECT DISTINCT partition FROM load_moved WHERE source = $1 ORDER BY partition"
)
INSERT_CHECKPOINTS: Final = """
INSERT INTO checkpoints (source, position) SELECT source, target FROM load_plan
"""
SELECT_INDEXES: Final = """
SELECT i.indexrelid::regclass::text AS name, quote_ident(c.conname) AS constraint
  FROM pg_catalog.pg_index AS i
  LEFT JOIN pg_catalog.pg_constraint AS c ON c.conindid = i.indexrelid
 WHERE i.indrelid = $1::regclass
 ORDER BY i.indisprimary DESC, i.indexrelid
"""
INSERT_INDEX: Final = "INSERT INTO load_indexes VALUES ($1)"
# The names asked for are those of the program's own tables.
SELECT_LEFT: Final = """
SELECT name FROM unnest($1::text[]) AS known(name) JOIN load_indexes USING (name)
 ORDER BY pg_total_relation_size(to_regclass(name)) DESC
"""
DELETE_INDEXES: Final = "DELETE FROM load_indexes WHERE name = $1"

SELECT_HEADS: Final = "SELECT source, position FROM ledger.heads"

SORT_MEMORY: Final = "SET LOCAL work_mem = '64MB'"

_LINKS: Final = {"source": "text", "link": "text", "kind": "text", "id": "text"}
_PARKED: Final = {
    "source": "text", "position": "bigint", "kind": "text", "resource_id": "text", "reason": "text",
}  # fmt: skip
_SHARED: Final = {
    "source": "text",
    "partition": "int",
    "link": "text",
    "kind": "text",
    "id": "text",
}
_MOVED: Final = {
    "source": "text",
    "partition": "int",
    "kind": "text",
    "id": "text",
    "target": "int",
}


class CannotResume(LedgerError):
    """Files of a load are lost for good, or its plan is invalid. Begin the load again."""


class CannotBulkLoad(LedgerError):
    """The database refused a row. Use the ordinary fold, which can park single events."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one source is loaded: its last position, chunks of events, and partitions of streams."""

    source: str
    target: int
    chunk: int
    partitions: int
    linked: int | None
    """Parts of streams that share links; None until all links are known."""
    token: str
    """What the folder of this load's files is named after, drawn when the load began."""

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return -(-self.target // self.chunk)

    def bounds(self, number: int) -> tuple[int, int]:
        """Return the positions before the first and of the last event of a chunk."""
        return number * self.chunk, min(self.target, (number + 1) * self.chunk)


async def begin_load(
    connection: Any, registry: Registry, version: str, targets: Mapping[str, int]
) -> int:
    """Make a generation to be loaded up to `targets`, or find the one that was begun; return it.

    One that was begun keeps the targets that it began with.
    """
    async with connection.transaction():
        generation = await create_generation(connection, registry, version, "building")
        await use_generation(connection, generation)
        known = await connection.fetchval(SELECT_LOADING)
        known = known or await connection.fetchval(SELECT_STARTED)
        if not known and any(targets.values()):
            await _strip(connection, registry)
            token = secrets.token_hex(16)
            for source, target in targets.items():
                await connection.execute(INSERT_PLAN, source, target, *_cut(target), token)
        return generation


def _cut(target: int) -> tuple[int, int]:
    """Return events per chunk and the number of partitions for a log of this length."""
    chunk = max(CHUNK_EVENTS_MIN, min(CHUNK_EVENTS_MAX, -(-target // CHUNKS)))
    partitions = -(-target // PARTITION_EVENTS)
    # Two processes can share what is worth sharing.
    return chunk, max(partitions, 4) if target > 2 * CHUNK_EVENTS_MIN else 1


async def _strip(connection: Any, registry: Registry) -> None:
    """Take the indexes off the tables and note of which; how they are made is declared."""
    for statement in SCRATCH:
        await connection.execute(statement)
    for name in loaded_tables(registry):
        for row in await connection.fetch(SELECT_INDEXES, name):
            if row["constraint"] is None:
                await connection.execute(f"DROP INDEX {row['name']}")
            else:
                await connection.execute(f"ALTER TABLE {name} DROP CONSTRAINT {row['constraint']}")
        await connection.execute(INSERT_INDEX, name)
    for sql in table_sql.tables(registry).values():
        if sql.table.mode == "sum":
            await connection.execute(
                f"CREATE TABLE {_addends(sql.table.name)} (LIKE {sql.table.name})"
            )


def loaded_tables(registry: Registry) -> list[str]:
    """Name the tables that a load fills."""
    return [*table_sql.tables(registry), "links", "parked"]


def index_statements(registry: Registry, name: str) -> tuple[str, ...]:
    """Return the statements that give a loaded table its key and indexes, as it is declared."""
    known = table_sql.tables(registry).get(name)
    create = known.create if known else tuple(
        each.strip() for each in BOOKKEEPING if re.search(rf"TABLE {name} |ON {name} ", each)
    )  # fmt: skip
    key = re.search(r"PRIMARY KEY \([^()]*\)", create[0])
    made = [each for each in create if each.startswith("CREATE INDEX")]
    return (f"ALTER TABLE {name} ADD {key[0]}", *made) if key else tuple(made)


def _addends(name: str) -> str:
    return f"load_{name}"


async def read_plans(connection: Any) -> list[Plan]:
    """Return what is to be loaded; [] when the generation is loaded or began without a load."""
    if not await connection.fetchval(SELECT_LOADING):
        return []
    return [_plan(row) for row in await connection.fetch(SELECT_PLAN)]


def _plan(row: Any) -> Plan:
    """Return a plan as it was stored. Raises CannotResume for one that no load has made."""
    plan = Plan(*row)
    numbers = [plan.target, plan.chunk, plan.partitions, plan.linked or 0]
    if (
        not LOG_NAME.fullmatch(str(plan.source))
        or not all(isinstance(each, int) and each >= 0 for each in numbers)
        or not plan.chunk
        or not plan.partitions
    ):
        raise CannotResume("load_plan has a row that no load has made; the load begins again")
    return plan


async def read_done(connection: Any) -> dict[tuple[str, str, int], int]:
    """Return (source, stage, number) → events of what is done."""
    rows = await connection.fetch(SELECT_DONE)
    return {(row["source"], row["stage"], row["number"]): row["events"] for row in rows}


@dataclass(frozen=True, slots=True)
class Loader:
    """Writes what was folded of one source, through a connection in a transaction."""

    connection: Any
    registry: Registry
    source: str

    async def rows(self, change: ChangeSet) -> None:
        """Write the event-wise rows of a change."""
        known = table_sql.tables(self.registry)
        for name, rows in change.rows.items():
            await _copy(self.connection, name, known[name].columns, rows)
        for name, sums in change.sums.items():
            added = [(*key, *amounts) for key, amounts in sums.items()]
            await _copy(self.connection, _addends(name), known[name].columns, added)

    async def streams(
        self, streams: Iterable[LoadedStream], links: Sequence[tuple[str, str, str]],
        parked: Sequence[tuple[int, str, str, str]],
    ) -> None:  # fmt: skip
        """Write each stream once, as it is at the end."""
        known = table_sql.tables(self.registry)
        for name, found in by_table(streams).items():
            sql = known[name]
            for first in range(0, len(found), ROWS_AT_ONCE):
                part = found[first : first + ROWS_AT_ONCE]
                rows = [row_of(sql, self.source, stream) for stream in part]
                await _copy(self.connection, name, sql.columns, rows)
        await _copy(self.connection, "links", _LINKS, [(self.source, *link) for link in links])
        await _copy(self.connection, "parked", _PARKED, [(self.source, *park) for park in parked])


async def write_links(
    connection: Any, source: str, found: Iterable[tuple[int, str, str, str]]
) -> None:
    """Record which streams have which links: (partition, link, kind, id)."""
    await _copy(connection, "load_links", _SHARED, [(source, *each) for each in found])


async def write_moved(
    connection: Any, source: str, found: Iterable[tuple[int, str, str, int]]
) -> None:
    """Record which streams are folded in another partition: (partition, kind, id, target)."""
    await _copy(connection, "load_moved", _MOVED, [(source, *each) for each in found])


async def _copy(
    connection: Any, name: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]
) -> None:
    try:
        for first in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[first : first + ROWS_AT_ONCE]
            data = copy_format.encode(tuple(columns.values()), part)
            await copy_format.copy(connection, name, data, list(columns))
    except (asyncpg.PostgresError, ValueError, TypeError) as error:
        if is_data_error(error):
            raise CannotBulkLoad(f"{name}: {error}") from error
        raise


async def tables_without_indexes(connection: Any, registry: Registry) -> list[str]:
    """Name the tables whose indexes are still to be made, the largest first."""
    rows = await connection.fetch(SELECT_LEFT, loaded_tables(registry))
    return [row["name"] for row in rows]


async def build_indexes(connection: Any, registry: Registry, name: str) -> None:
    """Add up a table of sums, then make the indexes of a table, and let the planner know it."""
    sums = {
        sql.table.name: sql
        for sql in table_sql.tables(registry).values()
        if sql.table.mode == "sum"
    }
    try:
        async with connection.transaction():
            if name in sums:
                await connection.execute(_add_up(sums[name]))
            for statement in index_statements(registry, name):
                await connection.execute(statement)
            await connection.execute(DELETE_INDEXES, name)
    except asyncpg.PostgresError as error:
        if is_data_error(error):
            raise CannotBulkLoad(f"{name}: {error}") from error
        raise
    await connection.execute(f"VACUUM (ANALYZE) {name}")


def _add_up(sql: table_sql.TableSql) -> str:
    """Return the statement that sums the addends; names come from the projections' code."""
    keys = ", ".join(sql.table.key)
    rest = [name for name in sql.columns if name not in sql.table.key]
    sums = ", ".join(f"sum({name})" for name in rest)
    return (
        f"INSERT INTO {sql.table.name} ({keys}, {', '.join(rest)}) "  # noqa: S608
        f"SELECT {keys}, {sums} FROM {_addends(sql.table.name)} GROUP BY {keys}"
    )


async def finish_load(connection: Any, registry: Registry) -> None:
    """Make books of what was loaded: findings, checkpoints set, the load's own tables gone."""
    own = ["load_plan", "load_done", "load_links", "load_moved", "load_indexes"]
    own += [_addends(n) for n, sql in table_sql.tables(registry).items() if sql.table.mode == "sum"]
    async with connection.transaction():
        for plan in await read_plans(connection):
            await fill(connection, plan.source)
        await connection.execute(INSERT_CHECKPOINTS)
        await connection.execute(f"DROP TABLE {', '.join(own)}")


async def drop_generation(connection: Any, generation: int) -> list[str]:
    """Drop a generation with all that it holds; return the tokens of a load that did not end."""
    schema = schema_of(generation)
    async with connection.transaction():
        tokens = []
        if await connection.fetchval(SELECT_TABLE, f"{schema}.load_plan"):
            # Plans of earlier versions have no token, and no files that can be found by one.
            rows = await connection.fetch(
                f"SELECT DISTINCT to_jsonb(p)->>'token' AS token FROM {schema}.load_plan AS p"  # noqa: S608
            )
            tokens = [row["token"] for row in rows if row["token"]]
        await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        await connection.execute(FORGET_GENERATION, generation)
        return tokens


async def positions_of(connection: Any, generation: int) -> dict[str, int]:
    """Return how far a generation is, per source."""
    schema = schema_of(generation)
    rows = await connection.fetch(f"SELECT source, position FROM {schema}.checkpoints")  # noqa: S608
    return {row["source"]: row["position"] for row in rows}


async def folded_positions(connection: Any, generation: int) -> dict[str, int]:
    """Return how far into every log a generation has folded: never more than the log has."""
    heads = {row["source"]: row["position"] for row in await connection.fetch(SELECT_HEADS)}
    found = await positions_of(connection, generation)
    return {source: min(position, heads.get(source, 0)) for source, position in found.items()}


async def read_shared_links(
    connection: Any, source: str
) -> AsyncIterator[tuple[str, str, str, int]]:
    """Yield (link, kind, id, partition) of every stream that shares a link with another."""
    async with connection.transaction():
        await connection.execute(SORT_MEMORY)
        async for row in connection.cursor(SELECT_SHARED, source, prefetch=1000):
            yield row["name"], row["kind"], row["id"], row["partition"]
