"""Whole books as text, to compare one fold of a log with another, table by table."""

from __future__ import annotations

from typing import Any

from ledger import registry
from ledger.books.fold_connections import fold_connections
from ledger.books.generations import BOOKKEEPING, create_generation, schema_of
from ledger.books.projection_worker import ProjectionWorker
from ledger.config.settings import Settings
from ledger.database import connection as db
from ledger.eventlog.sources import load_terms
from ledger.rebuild.swap import index_balances
from ledger.registry import Registry

TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY 1"
FRAMEWORK = frozenset({"first_position", "position", "state"})
COLUMNS = """
SELECT column_name FROM information_schema.columns
 WHERE table_schema = $1 AND table_name = $2 ORDER BY ordinal_position
"""

NUMBERED = {"spans": None, "hot": "id", "cells": "hot"}
"""The tables of cells, and their columns that number accounts in the order of becoming busy."""

Dump = dict[str, list[str]]
"""Table → its rows as text, sorted."""


async def dump(
    connection: Any, generation: int, *, framework: bool = True, index: bool = True
) -> Dump:
    """Return every table of a generation.

    `framework=False` leaves out what the fold keeps, `index=False` the cells, which may lag.
    """
    schema = schema_of(generation)
    found: Dump = {}
    for (table,) in await connection.fetch(TABLES, schema):
        if not index and table in NUMBERED:
            continue
        names = [row[0] for row in await connection.fetch(COLUMNS, schema, table)]
        if not framework and "state" in names:
            names = [name for name in names if name not in FRAMEWORK]
        left_out = {NUMBERED.get(table), "moved_at"}  # when the books moved is no fact of theirs
        expected = ", ".join(name for name in names if name not in left_out)
        origin = f"{schema}.{table}"
        if table == "cells":
            origin += f" JOIN {schema}.hot ON id = hot"
            expected += ", source, account, currency"
        rows = await connection.fetch(f"SELECT ROW({expected})::text FROM {origin}")
        found[table] = sorted(row[0] for row in rows)
    assert len(found) > len(BOOKKEEPING)
    return found


def differences(one: Dump, other: Dump) -> dict[str, list[str]]:
    """Return up to five rows per table that only one of two dumps has; {} when equal."""
    assert one.keys() == other.keys()
    return {
        table: sorted(set(one[table]) ^ set(other[table]))[:5] or ["another number of equal rows"]
        for table in one
        if one[table] != other[table]
    }


async def make_books(dsn: str, version: str, known: Registry | None = None) -> int:
    """Make the empty tables of a generation apart from the live one; return its number."""
    async with db.connected(dsn, seconds_max=60) as connection:
        return await create_generation(connection, known or registry.load(), version, "building")


async def fold_all(
    dsn: str, settings: Settings, generation: int, known: Registry | None = None
) -> None:
    """Fold every source into a generation, up to the head of its log."""
    async with db.connected(dsn, seconds_max=60) as connection:
        terms = await load_terms(connection)
    async with fold_connections(dsn, generation) as shared:
        for each in terms:
            await ProjectionWorker(shared, settings, known or registry.load(), each).catch_up()
    await index_balances(dsn, generation, terms)


async def fold_from_zero(dsn: str, settings: Settings, version: str = "from zero") -> int:
    """Fold the whole log into a new generation; return its number."""
    generation = await make_books(dsn, version)
    await fold_all(dsn, settings, generation)
    return generation
