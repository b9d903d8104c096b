"""Generations of the books: one schema of tables each, made, swapped in and retired.

One generation is live and answers; one may be building beside it, and the previous one is kept.
"""

from __future__ import annotations

from typing import Any, Final

from ledger.books import balance_index, findings
from ledger.books.table_sql import tables
from ledger.errors import CheckpointConflict
from ledger.registry import Registry

BOOKKEEPING: Final = (
    """
CREATE TABLE checkpoints (
    source text PRIMARY KEY, position bigint NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp()) WITH (fillfactor = 50)
""",
    """
CREATE TABLE parked (
    source text, position bigint, kind text NOT NULL, resource_id text NOT NULL,
    reason text NOT NULL, PRIMARY KEY (source, position))
""",
    "CREATE INDEX ON parked (hashtextextended(resource_id, 0), kind)",
    "CREATE TABLE links (source text, link text, kind text, id text)",
    # Two identifiers of 512 characters do not fit into one key.
    "CREATE INDEX ON links (hashtextextended(link, 0), source)",
    *balance_index.TABLES,
    *findings.TABLES,
)
FUNCTIONS: Final = (
    """
CREATE FUNCTION journal_positions(p_source text, p_kind text, p_id text) RETURNS bigint[]
LANGUAGE sql STABLE
RETURN ARRAY(
       SELECT h.position FROM history AS h
        WHERE h.source = p_source AND h.id = p_id AND (p_kind IS NULL OR h.kind = p_kind)
          AND hashtextextended(h.id, 0) = hashtextextended(p_id, 0)
        UNION
       SELECT e.position FROM echoes AS e
        WHERE e.source = p_source AND e.id = p_id AND (p_kind IS NULL OR e.kind = p_kind)
          AND hashtextextended(e.id, 0) = hashtextextended(p_id, 0))
""",
)
"""What finds things in the tables: where a transaction may have journal lines."""

SELECT_POSITIONS: Final = "SELECT source, position FROM checkpoints"
# Damaged books may claim more events than the log has; no fold can be as far as that.
SELECT_FOLDED: Final = """
SELECT c.source, least(c.position, coalesce(h.position, 0)) AS position
  FROM checkpoints AS c LEFT JOIN ledger.heads AS h USING (source)
"""
SELECT_LIVE: Final = "SELECT generation, version FROM ledger.generations WHERE state = 'live'"
SELECT_BUILDING: Final = """
SELECT generation FROM ledger.generations WHERE state = 'building' AND version = $1
"""
NEXT_GENERATION: Final = "SELECT coalesce(max(generation), 0) + 1 FROM ledger.generations"
INSERT_GENERATION: Final = """
INSERT INTO ledger.generations (generation, version, state) VALUES ($1, $2, $3)
"""
LOCK_GENERATIONS: Final = "LOCK TABLE ledger.generations IN SHARE ROW EXCLUSIVE MODE"
RETIRE_LIVE: Final = "UPDATE ledger.generations SET state = 'previous' WHERE state = 'live'"
MAKE_LIVE: Final = "UPDATE ledger.generations SET state = 'live' WHERE generation = $1"
FORGET_GENERATION: Final = "DELETE FROM ledger.generations WHERE generation = $1"


def schema_of(generation: int) -> str:
    """Name the schema of a generation."""
    return f"books_{generation:d}"


async def create_generation(connection: Any, registry: Registry, version: str, state: str) -> int:
    """Make the empty tables of a new generation in state `building` or `live`; return its number.

    Two services that start together make one generation: the table lock lets one of them find
    the other's.
    """
    async with connection.transaction():
        await connection.execute(LOCK_GENERATIONS)
        live = await connection.fetchrow(SELECT_LIVE)
        known = await connection.fetchval(SELECT_BUILDING, version)
        if state == "live" and live is not None:
            known = live["generation"]
        if known is not None:
            return int(known)
        generation = int(await connection.fetchval(NEXT_GENERATION))
        await create_tables(connection, registry, generation)
        await connection.execute(INSERT_GENERATION, generation, version, state)
        return generation


async def create_tables(connection: Any, registry: Registry, generation: int) -> None:
    """Make the schema of a generation with its empty tables, and use it."""
    await connection.execute(f"CREATE SCHEMA {schema_of(generation)}")
    await use_generation(connection, generation)
    for statement in ddl(registry):
        await connection.execute(statement)


def ddl(registry: Registry) -> list[str]:
    """Return the statements that make the tables and functions of a generation, in order."""
    made = [statement for table in tables(registry).values() for statement in table.create]
    return [*BOOKKEEPING, *made, *FUNCTIONS]


async def try_swap(connection: Any, generation: int) -> bool:
    """Make `generation` the one that answers, in one short transaction.

    False when it is behind the live one in any source: no answer may go back in time.
    """
    async with connection.transaction():
        await connection.execute(LOCK_GENERATIONS)
        live = await connection.fetchrow(SELECT_LIVE)
        mine = await _positions(connection, generation, SELECT_POSITIONS)
        theirs = await _positions(connection, live["generation"], SELECT_FOLDED)
        if any(mine.get(source, -1) < position for source, position in theirs.items()):
            return False
        await connection.execute(RETIRE_LIVE)
        if await connection.execute(MAKE_LIVE, generation) != "UPDATE 1":
            raise CheckpointConflict(f"generation {generation} was dropped by another process")
        return True


async def _positions(connection: Any, generation: int, statement: str) -> dict[str, int]:
    await use_generation(connection, generation)
    return dict(await connection.fetch(statement))


async def use_generation(connection: Any, generation: int) -> None:
    """Point the session's unqualified names at a generation."""
    await connection.execute(f"SET search_path = {schema_of(generation)}, ledger")
