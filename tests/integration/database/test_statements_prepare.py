"""Every SQL text of the code is one that PostgreSQL accepts on a migrated database with books."""

from __future__ import annotations

import importlib
import pkgutil
import re

import asyncpg
import pytest

import ledger
from ledger import registry
from ledger.books import table_sql
from ledger.books.generations import create_generation, use_generation
from ledger.rebuild.plan import SCRATCH
from tests.conftest import Database

NOT_PREPARED = {
    "ledger.__main__": "runs a command when it is imported",
    "ledger.bench.baseline": "creates the table that its statement fills",
    "ledger.database.migrations": "creates the table that its statements read",
    "ledger.export.offline_fold": "its statements are SQLite's",
}


def constants() -> dict[str, str]:
    """Return the statements that are constants of modules, by dotted name."""
    names = [info.name for info in pkgutil.walk_packages(ledger.__path__, "ledger.")]
    modules = [importlib.import_module(name) for name in names if name not in NOT_PREPARED]
    return {
        f"{module.__name__}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if name.isupper()
        and isinstance(value, str)
        and re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", value)
    }


def made_for_tables() -> list[str]:
    """Return the statements that are made from the columns of tables."""
    known = table_sql.tables(registry.load())
    streams = [name for name, table in known.items() if "state" in table.columns]
    put = [name for name in streams if not known[name].table.hashed]
    put += [name for name, table in known.items() if table.table.mode == "sum"]
    assert len(streams) > 5
    assert len(put) > 5
    statements = [known[name].update for name in streams]
    for names in (streams, *([name] for name in streams)):
        statements.append(table_sql.look_up(registry.load(), tuple(names)))
    for names in (put, *([name] for name in put)):
        statements.append(table_sql.put_together(registry.load(), tuple(names)))
    return statements


async def test_every_sql_statement_prepares(database: Database) -> None:
    async with database.service() as connection:
        generation = await create_generation(connection, registry.load(), "tidy", "live")
        await use_generation(connection, generation)
        for statement in SCRATCH:
            await connection.execute(statement)
        found = constants()
        assert len(found) > 20
        for name, statement in found.items():
            try:
                await connection.prepare(statement)
            except asyncpg.PostgresError as error:
                pytest.fail(f"{name}: {error}")
        for statement in made_for_tables():
            await connection.prepare(statement)
