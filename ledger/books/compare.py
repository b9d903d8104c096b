"""Comparing two generations of the books, table by table, in PostgreSQL: nothing is held here.

Each table is read once on either side and added up to one number; where the numbers are equal, so
are the tables. Only tables that differ are joined, to name the rows and columns.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import asyncpg
import msgspec

from ledger import registry
from ledger.books import table_sql
from ledger.books.generations import schema_of
from ledger.books.table_sql import FRAMEWORK
from ledger.database.errors import CONNECTION_LOST

DIFFERENCES_MAX: Final = 100
"""Differences listed per table; that there is one is what counts."""

POSITIONS_MAX: Final = 20
"""Positions listed per difference."""

SORT_MEMORY: Final = "SET LOCAL work_mem = '64MB'"

EXPORT_SNAPSHOT: Final = "SELECT pg_export_snapshot()"

SELECT_COLUMNS: Final = """
SELECT table_name AS table, column_name AS name, data_type AS kind FROM information_schema.columns
 WHERE table_schema = $1 ORDER BY table_name, ordinal_position
"""
SELECT_SIZES: Final = """
SELECT c.relname::text AS name
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relkind = 'r' ORDER BY pg_relation_size(c.oid) DESC
"""
_KEPT: Final = {
    "parked": ("source", "position"),
    "links": ("source", "link", "kind", "id"),
    "findings": ("source", "name"),
    "open_exceptions": ("source", "id"),
}
"""Tables of the books that no projection declares, with their keys."""

LINKS: Final = "links"
STATE: Final = ("state", FRAMEWORK["state"])
"""The column that keeps the state of a stream, and its type."""

CELL: Final = ("account", "currency", "hours", "width", "span", "moment")
"""What a cell is of, within a source."""

PLAIN: Final = re.compile(r"[a-z_][a-z0-9_]*")
"""A column's name as projections declare them; any other is a difference, and in no statement."""

COPY: Final = "copy"
"""Numbers the rows of one key, of which there should be one."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that two generations do not share. `live` and `rebuilt` hold what differs, or None.

    `positions` are those of the events that explain it, the first POSITIONS_MAX. With an empty
    `key` it is the table itself that differs, in its columns.
    """

    table: str
    key: dict[str, Any]
    live: dict[str, Any] | None
    rebuilt: dict[str, Any] | None
    positions: tuple[int, ...] = ()

    def __str__(self) -> str:
        named = " ".join(str(value) for value in self.key.values())
        if self.live is None or self.rebuilt is None:
            side = "only a fold of the log has it" if self.live is None else "the log has no cause"
            return f"{self.table} {named}: {side}"
        columns = ", ".join(
            f"{name} is {_shown(self.live.get(name))}, the log says {_shown(value)}"
            for name, value in self.rebuilt.items()
        )
        return f"{self.table} {named}: {columns}"

    def cells(self) -> Iterator[tuple[str, Any, Any]]:
        """Yield (column, live value, rebuilt value); one without a name for a missing row.

        Of objects only the fields that differ: `details.returned_amount`.
        """
        if self.live is None or self.rebuilt is None:
            yield "", self.live, self.rebuilt
            return
        for name in {**self.live, **self.rebuilt}:
            live, rebuilt = self.live.get(name), self.rebuilt.get(name)
            if isinstance(live, dict) and isinstance(rebuilt, dict):
                for field_name in {**live, **rebuilt}:
                    if live.get(field_name) != rebuilt.get(field_name):
                        yield f"{name}.{field_name}", live.get(field_name), rebuilt.get(field_name)
            else:
                yield name, live, rebuilt


@asynccontextmanager
async def sharing(connection: Any, others: Iterable[Any]) -> AsyncIterator[list[Any]]:
    """Let other connections see what `connection` sees in its transaction, for a block.

    Yields all of them.
    """
    others = list(others)
    async with AsyncExitStack() as stack:
        snapshot = await connection.fetchval(EXPORT_SNAPSHOT) if others else ""
        for other in others:
            transaction = other.transaction(isolation="repeatable_read", readonly=True)
            await stack.enter_async_context(transaction)
            await other.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        yield [connection, *others]


async def compare(
    connections: Sequence[Any], live: int, other: int, source: str, *, is_one_version: bool = True
) -> list[Difference]:
    """Return the differences of two generations of one source; [] when they are equal.

    Both must have folded the same events in the snapshot that the connections share; the caller
    sees to that. Every byte of every column counts. Where two versions of the program folded them,
    what only the fold reads does not, nor a table, column or empty field that only one of them has.
    The live books' cells, which lag by nature, are compared with sums over their own entries.
    """
    connection = connections[0]
    keys = {
        sql.table.name: sql.table.key for sql in table_sql.tables(registry.load()).values()
    } | _KEPT
    shapes = [await _shape(connection, generation) for generation in (live, other)]
    if not is_one_version:
        shapes = [_without_internals(shape) for shape in shapes]
    found = await _places(connection, live, other, source)
    for each in connections:
        await each.execute(SORT_MEMORY)
    same = [
        table for table in keys
        if table in shapes[0] and shapes[0][table] == shapes[1][table]
        and all(map(PLAIN.fullmatch, shapes[0][table]))
    ]  # fmt: skip
    read = _as_it_is if is_one_version else _without_empty_fields
    work = _Work(list(connections), source, secrets.randbits(62), read)
    await work.run(live, other, {table: shapes[0][table] for table in same})
    for table, key in keys.items():
        one, two = (shape.get(table, {}) for shape in shapes)
        if table not in same and (one or two):
            found.append(Difference(table, {}, _texts(one), _texts(two)))
        both = [n for n, kind in one.items() if two.get(n) == kind and PLAIN.fullmatch(n)]
        if table not in work.equal and set(key) <= set(both):
            columns = [read(name, one[name]) for name in both]
            rows = await connection.fetch(_statement(table, key, columns, live, other), source)
            found += [_difference(table, key, row["live"], row["other"]) for row in rows]
    gone = shapes[0].keys() - shapes[1].keys()
    found += [Difference(table, {}, _texts(shapes[0][table]), None) for table in sorted(gone)]
    found += work.cells
    if not is_one_version:
        found = [difference for difference in found if difference.key]
    return await _explained(connection, live, other, source, found)


@dataclass(slots=True)
class _Work:
    """Reads all tables of two generations, through all connections at once."""

    connections: Sequence[Any]
    source: str
    seed: int
    read: Callable[[str, str], str]
    """(column, type) → how the column is read."""
    waiting: list[tuple[str, int, str]] = field(default_factory=list)
    """(table, generation, statement) of what is not added up yet."""
    sums: dict[str, dict[int, tuple[Any, ...]]] = field(default_factory=dict)
    """Table → generation → rows and sum."""
    cells: list[Difference] = field(default_factory=list)

    @property
    def equal(self) -> set[str]:
        """Name the tables that are the same in all generations."""
        return {name for name, each in self.sums.items() if len({*each.values()}) == 1}

    async def run(self, live: int, other: int, tables: Mapping[str, Mapping[str, str]]) -> None:
        """Add up tables of two generations, the largest first, and check the live books' cells."""
        rows = await self.connections[0].fetch(SELECT_SIZES, schema_of(live))
        for name in [row["name"] for row in rows if row["name"] in tables]:
            for generation in (live, other):
                columns = [self.read(*column) for column in tables[name].items()]
                self.waiting.append((name, generation, _sum(name, columns, generation)))
        has_cells = any(row["name"] == "cells" for row in rows)
        try:
            async with asyncio.TaskGroup() as tasks:
                for n, each in enumerate(self.connections):
                    cells = _wrong_cells(live) if has_cells and n == 0 else ""
                    tasks.create_task(self._share(each, cells))
        except* (asyncpg.PostgresError, *CONNECTION_LOST) as group:
            raise group.exceptions[0] from None

    async def _share(self, connection: Any, cells: str) -> None:
        if cells:
            rows = await connection.fetch(cells, self.source)
            self.cells = [_difference("cells", CELL, row["live"], row["other"]) for row in rows]
        while self.waiting:
            name, generation, statement = self.waiting.pop(0)
            row = await connection.fetchrow(statement, self.source, self.seed)
            self.sums.setdefault(name, {})[generation] = tuple(row)


async def _places(connection: Any, live: int, other: int, source: str) -> list[Difference]:
    """Compare how far both have folded; live books may claim more events than the log has."""
    both = [await connection.fetchval(_place(generation), source) for generation in (live, other)]
    one, two = ({"position": str(place or 0)} for place in both)
    return [] if one == two else [Difference("checkpoints", {"source": source}, one, two)]


async def _shape(connection: Any, generation: int) -> dict[str, dict[str, str]]:
    """Return table → column → type."""
    found: dict[str, dict[str, str]] = {}
    for row in await connection.fetch(SELECT_COLUMNS, schema_of(generation)):
        found.setdefault(row["table"], {})[row["name"]] = row["kind"]
    return found


def _as_it_is(column: str, _: str) -> str:
    return column


def _without_empty_fields(column: str, kind: str) -> str:
    """Read a column without the empty fields of its objects, which one version may not have."""
    if kind != "jsonb":
        return column
    return (
        f"CASE jsonb_typeof({column}) WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg("  # noqa: S608
        f"f.key, f.value), '{{}}') FROM jsonb_each({column}) AS f "
        f"WHERE f.value NOT IN ('null', '[]', '{{}}')) ELSE {column} END AS {column}"
    )


def _without_internals(shape: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return what a version of the program shows of its books: not what only its fold reads."""
    return {
        table: {name: kind for name, kind in columns.items() if (name, kind) != STATE}
        for table, columns in shape.items()
        if table != LINKS
    }


def _texts(columns: Mapping[str, str]) -> dict[str, Any] | None:
    return {"columns": ", ".join(columns)} if columns else None


def _sum(table: str, columns: Iterable[str], generation: int) -> str:
    """Write the sum of a hash of every row of a source, which no order of the rows changes.

    What is hashed is every byte of a row as it would be sent, lengths, nulls and the scales of
    amounts included. Tables that differ have equal sums with a probability of 2^-64, whatever
    differs: the seed of the hash is drawn for every comparison, so that no one can prepare
    rows to have a sum.
    """
    return f"""
SELECT count(*) AS rows, sum(hash_record_extended(ROW(record_send(t)), $2)) AS hashes
  FROM (SELECT {", ".join(columns)} FROM {schema_of(generation)}.{table}
         WHERE source = $1) AS t
"""  # noqa: S608


def _statement(
    table: str, key: tuple[str, ...], columns: Iterable[str], live: int, other: int
) -> str:
    """Write the comparison of one table. Names come from the projections' code, never from data.

    Rows are compared byte by byte: amounts that are equal but written otherwise differ.
    """
    one, two = (f"{schema_of(generation)}.{table}" for generation in (live, other))
    keys, named = ", ".join(key), ", ".join(columns)
    numbered = f"row_number() OVER (PARTITION BY {keys}) AS {COPY}"
    return f"""
SELECT (to_jsonb(a) - '{COPY}')::text AS live, (to_jsonb(b) - '{COPY}')::text AS other
  FROM (SELECT {named}, {numbered} FROM {one} WHERE source = $1) AS a
  FULL JOIN (SELECT {named}, {numbered} FROM {two} WHERE source = $1) AS b USING ({keys}, {COPY})
 WHERE (a *= b) IS NOT TRUE
 ORDER BY {keys} LIMIT {DIFFERENCES_MAX}
"""  # noqa: S608


def _place(generation: int) -> str:
    """Write the look-up of how far a generation is."""
    return f"SELECT position FROM {schema_of(generation)}.checkpoints WHERE source = $1"  # noqa: S608


def _wrong_cells(generation: int) -> str:
    """Write the comparison of a generation's cells with the sums over its own entries.

    Only what an answer may be read from: spans that are done, of accounts that have cells in any
    currency. The accounts are numbered: sorting entries by their names would take twice as long.
    """
    schema = schema_of(generation)
    return f"""
WITH named AS MATERIALIZED (
       SELECT row_number() OVER () AS n, account
         FROM (SELECT DISTINCT account FROM {schema}.hot WHERE source = $1) AS busy),
     hourly AS MATERIALIZED (
       SELECT m.n, (e.position - 1) / s.size AS span,
              date_bin('1 hour', e.effective_at, '2000-01-01Z') AS moment, e.currency,
              sum(e.debits) AS debits, sum(e.debits - e.amount) AS credits
         FROM {schema}.spans AS s
         JOIN {schema}.entries AS e ON e.source = s.source AND e.position <= s.done * s.size
         JOIN named AS m USING (account)
        WHERE s.source = $1
        GROUP BY 1, 2, 3, 4),
     narrow AS MATERIALIZED (
       SELECT 1 AS hours, * FROM hourly
        UNION ALL
       SELECT 24, n, span, date_bin('1 day', moment, '2000-01-01Z'), currency, sum(debits),
              sum(credits)
         FROM hourly GROUP BY 2, 3, 4, 5),
     due AS (
       SELECT n, hours, 1::bigint AS width, span, moment, currency, debits, credits FROM narrow
        UNION ALL
       SELECT n, hours, s.wide, span / s.wide, moment, currency, sum(debits), sum(credits)
         FROM narrow JOIN {schema}.spans AS s ON s.source = $1 AND span < s.done / s.wide * s.wide
        GROUP BY 1, 2, 3, 4, 5, 6),
     kept AS (
       SELECT m.n, c.hours::int, c.width::bigint, c.span::bigint, c.moment, h.currency,
              c.debits, c.credits
         FROM {schema}.hot AS h JOIN named AS m USING (account)
         JOIN {schema}.cells AS c ON c.hot = h.id
        WHERE h.source = $1)
SELECT (to_jsonb(a) || to_jsonb(m) - 'n')::text AS live,
       (to_jsonb(b) || to_jsonb(m) - 'n')::text AS other
  FROM kept AS a
  FULL JOIN due AS b USING (n, hours, width, span, moment, currency)
  JOIN named AS m USING (n)
 WHERE (a *= b) IS NOT TRUE
 ORDER BY {", ".join(CELL)} LIMIT {DIFFERENCES_MAX}
"""  # noqa: S608


def _difference(
    table: str, key: tuple[str, ...], live: str | None, other: str | None
) -> Difference:
    one, two = _fields(live), _fields(other)
    named = {name: (one or two or {})[name] for name in key}
    if one is None or two is None:
        return Difference(table, named, one, two)
    sides = [(one, _COLUMNS.decode(live or "")), (two, _COLUMNS.decode(other or ""))]
    differing = [name for name in one if sides[0][1][name] != sides[1][1][name]] or [*one]
    # What reads alike (a number and its text within a structure) is shown as it is written.
    shown = [
        {name: side[name] if one[name] != two[name] else bytes(written[name]).decode()
         for name in differing}
        for side, written in sides
    ]  # fmt: skip
    return Difference(table, named, shown[0], shown[1])


async def _explained(
    connection: Any, live: int, other: int, source: str, found: Iterable[Difference]
) -> list[Difference]:
    """Add the positions of the events that explain each difference."""
    done: list[Difference] = []
    touched = {int(d.key["position"]) for d in found if d.table == "entries" and d.key}
    for difference in found:
        key, positions = difference.key, []
        if "position" in key:
            positions = [int(key["position"])]
        elif {"kind", "id"} <= key.keys():
            given = (source, key["kind"], key["id"])
            positions = await _positions(connection, _stream(other), given)
        elif {"account", "currency"} <= key.keys():
            given = (source, key["account"], key["currency"])
            if touched:
                both = [_touching(generation) for generation in (live, other)]
                for statement in both:
                    positions += await _positions(connection, statement, (*given, [*touched]))
            positions = positions or await _positions(connection, _account(other), given)
        done.append(replace(difference, positions=tuple(sorted(set(positions)))))
    return done


async def _positions(connection: Any, statement: str, given: tuple[Any, ...]) -> list[int]:
    return [row["position"] for row in await connection.fetch(statement, *given)]


def _stream(generation: int) -> str:
    """Write the look-up of a stream's events."""
    return f"""
SELECT position FROM {schema_of(generation)}.history
 WHERE source = $1 AND kind = $2 AND id = $3
   AND hashtextextended(id, 0) = hashtextextended($3, 0)
 ORDER BY position LIMIT {POSITIONS_MAX}
"""  # noqa: S608


def _account(generation: int) -> str:
    """Write the look-up of the latest events of an account."""
    return f"""
SELECT position FROM {schema_of(generation)}.entries
 WHERE source = $1 AND account = $2 AND currency = $3
 ORDER BY effective_at DESC LIMIT {POSITIONS_MAX}
"""  # noqa: S608


def _touching(generation: int) -> str:
    """Write the look-up of which events among some touch an account."""
    return f"""
SELECT DISTINCT position FROM {schema_of(generation)}.entries
 WHERE source = $1 AND account = $2 AND currency = $3 AND position = ANY ($4::bigint[])
 ORDER BY position LIMIT {POSITIONS_MAX}
"""  # noqa: S608


_COLUMNS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _fields(text: str | None) -> dict[str, Any] | None:
    """Read a row; amounts stay the exact texts that they are."""
    return None if text is None else dict(json.loads(text, parse_float=str, parse_int=str))


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"
