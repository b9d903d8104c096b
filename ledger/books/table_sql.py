"""The statements of the books' tables, made from what the projections declare of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from ledger.database.copy_format import array_of
from ledger.model import Table
from ledger.registry import Registry

FRAMEWORK: Final = {"first_position": "bigint", "position": "bigint", "state": "bytea"}
"""Columns that every stream table gets besides its projection's."""

HASHED: Final = "hashtextextended({}, 0)"
"""How tables are indexed whose rows are never listed in the order of a text: by 8 bytes of it."""


@dataclass(frozen=True, slots=True)
class TableSql:
    """The statements of one table, made from its declaration."""

    table: Table
    columns: Mapping[str, str]
    """Everything stored, in order: name → type."""
    create: tuple[str, ...]
    found: str
    """Reads streams named by arrays of kinds and ids; `{0}` and `{1}` are their parameters."""
    update: str
    """Changes rows of a hashed table, which has no key to conflict with."""
    put: str
    """Inserts rows; those whose key is there are added to, or in a stream's table replaced. `{0}`
    and so on are the parameters of the columns."""
    pick: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    """Takes a row's values in the order of `columns`."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The types of the columns, in order."""
        return tuple(self.columns.values())

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.columns)


def statements(table: Table, *, stream: bool) -> TableSql:
    """Write the SQL of a table. Names come from the projections' code, never from data."""
    columns = {**table.columns, **FRAMEWORK} if stream else dict(table.columns)
    keys = ", ".join(table.key)
    rest = [name for name in columns if name not in table.key]
    slots = [f"{{{n}}}::text::{array_of(kind)}" for n, kind in enumerate(columns.values())]
    texts = ", ".join(slots).format(*_parameters(1, len(columns)))
    named = ", ".join(columns)
    cast = {name: f"u.{name}" if array_of(kind) == f"{kind}[]" else f"u.{name}::{kind}"
            for name, kind in columns.items()}  # fmt: skip
    sets = ", ".join(f"{name} = {cast[name]}" for name in rest)
    before = "" if stream else "t.{0} + "
    sums = ", ".join(f"{name} = {before.format(name)}EXCLUDED.{name}" for name in rest)
    # Planned once, perhaps while the table is empty: no index on `source` must look usable.
    match = " AND ".join(
        f"t.{name} || '' = u.{name}" if name == "source" else f"t.{name} = u.{name}"
        for name in table.key
    )
    place = f" AND {HASHED.format('t.id')} = {HASHED.format('u.id')}" if table.hashed else ""
    return TableSql(
        table,
        columns,
        _create(table, columns, stream=stream),
        found=(
            "SELECT found.* FROM unnest({0}::text[], {1}::text[]) AS u(kind, id) "  # noqa: S608
            "CROSS JOIN LATERAL (SELECT t.kind, t.id, t.first_position, t.position, t.state "
            f"FROM {table.name} AS t WHERE t.source = $1 AND t.kind = u.kind AND t.id = u.id"
            f"{place} LIMIT 1) AS found"
        ),
        update=f"UPDATE {table.name} AS t SET {sets} FROM unnest({texts}) AS u({named}) "  # noqa: S608
        f"WHERE {match}{place}",
        put=f"INSERT INTO {table.name} AS t ({named}) SELECT {', '.join(cast.values())} "  # noqa: S608
        f"FROM unnest({', '.join(slots)}) AS u({named}) ON CONFLICT ({keys}) DO UPDATE SET {sums}",
        pick=itemgetter(*columns),
    )


def _create(table: Table, columns: Mapping[str, str], *, stream: bool) -> tuple[str, ...]:
    body = ", ".join(_column(name, kind) for name, kind in columns.items())
    key = "" if table.hashed else f", PRIMARY KEY ({', '.join(table.key)})"
    create = [
        f"CREATE TABLE {table.name} ({body}{key})",
        f"ALTER TABLE {table.name} ALTER COLUMN source SET STATISTICS 0",
    ]
    if table.hashed:
        # `kind` is there for the planner: two columns look better to it than any other index.
        create.append(f"CREATE INDEX ON {table.name} ({HASHED.format('id')}, kind)")
    for index in table.indexes:
        definition, _, where = index.partition(" WHERE ")
        keyed, _, more = definition.partition(" INCLUDE ")
        included = f" INCLUDE ({more})" if more else ""
        condition = f" WHERE {where}" if where else ""
        create.append(f"CREATE INDEX ON {table.name} ({keyed}){included}{condition}")
    order = ", ".join(table.order)
    for name in table.filters:
        filtered = HASHED.format(name) if table.columns[name] == "text" else name
        create.append(f"CREATE INDEX ON {table.name} (source, {filtered}, {order})")
    if stream:
        create.append(f"CREATE INDEX ON {table.name} (source, first_position)")
    return tuple(create)


def _column(name: str, kind: str) -> str:
    """Declare a column. NaN sorts above every number, so one bound refuses it and infinity."""
    check = f" CHECK (abs({name}) < 1e40)" if kind == "numeric" else ""
    return f"{name} {kind}{check}"


@lru_cache(maxsize=4)
def tables(registry: Registry) -> Mapping[str, TableSql]:
    """Return the statements of every table of the books, by name."""
    found = {}
    for projection in registry.streams.values():
        found[projection.table.name] = statements(projection.table, stream=True)
    for event_wise in registry.projections:
        found[event_wise.table.name] = statements(event_wise.table, stream=False)
    return found


@lru_cache(maxsize=512)
def look_up(registry: Registry, names: tuple[str, ...]) -> str:
    """Return the statement that reads streams out of these tables.

    Its parameters are the source, then the kinds and the ids for each table.
    """
    known = tables(registry)
    return " UNION ALL ".join(
        known[name].found.format(*_parameters(2 + 2 * n, 2)) for n, name in enumerate(names)
    )


@lru_cache(maxsize=512)
def put_together(registry: Registry, names: tuple[str, ...]) -> str:
    """Return the statement that puts rows into these tables; its parameters are their columns."""
    known = tables(registry)
    place, parts = 1, []
    for name in names:
        parts.append(known[name].put.format(*_parameters(place, known[name].width)))
        place += known[name].width
    *first, last = parts
    named = ", ".join(f"put_{n} AS ({part})" for n, part in enumerate(first))
    return f"WITH {named} {last}" if first else last


def _parameters(first: int, count: int) -> list[str]:
    return [f"${place}" for place in range(first, first + count)]
