"""Schemas are what migrations and projections make; whatever else is planted is named."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

import migrations
from ledger import registry
from ledger.books import schema_check, schema_inventory
from ledger.books.generations import schema_of
from ledger.books.schema_check import Schemas
from ledger.doctor import schemas as doctor_schema
from tests.asking import first_generation
from tests.conftest import Database

FILE = Path(migrations.__path__[0]) / schema_inventory.FILE


async def examine(database: Database) -> Schemas:
    return await schema_check.examine(database.service_dsn, database.settings)


async def test_the_inventory_kept_beside_the_migrations_is_that_of_the_migrations(
    database: Database,
) -> None:
    """On every PostgreSQL that tests run on. UPDATE_INVENTORY=1 writes it, after a migration."""
    async with database.service() as connection:
        found = await schema_inventory.taken(connection, "ledger")
    if os.environ.get("UPDATE_INVENTORY"):
        option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
        FILE.write_bytes(orjson.dumps(found, option=option))
    assert schema_inventory.compared(found, schema_inventory.of_migrations()) == [], (
        "run with UPDATE_INVENTORY=1"
    )
    assert found == schema_inventory.of_migrations()
    assert len(found) > 100


async def test_books_are_compared_with_those_that_this_program_makes(database: Database) -> None:
    assert (await examine(database)).not_compared == "there are no books yet"
    await first_generation(database)
    assert await examine(database) == Schemas()
    async with database.service() as connection:
        schemas = await connection.fetch("SELECT nspname FROM pg_namespace WHERE nspname ~ 'books'")
    assert len(schemas) == 1, "what was made to compare with is gone again"


LOG = {
    "a refusal that does nothing": (
        "CREATE OR REPLACE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RETURN NULL; END'",
        "function refuse_change() is",
    ),
    "a trigger that calls another function": (
        "CREATE FUNCTION ledger.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "DROP TRIGGER seals_immutable ON ledger.seals;"
        "CREATE TRIGGER seals_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.seals "
        "FOR EACH STATEMENT EXECUTE FUNCTION ledger.f();"
        "ALTER TABLE ledger.seals ENABLE ALWAYS TRIGGER seals_immutable",
        "trigger ledger.seals.seals_immutable is",
    ),
    "a trigger that is switched off": (
        "ALTER TABLE ledger.events DISABLE TRIGGER events_immutable",
        "trigger ledger.events.events_immutable is 'enabled D",
    ),
    "a trigger that loses events": (
        "CREATE FUNCTION ledger.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER quiet BEFORE INSERT ON ledger.events FOR EACH ROW "
        "EXECUTE FUNCTION ledger.f()",
        "trigger ledger.events.quiet: this program does not make it",
    ),
    "a time that lies": (
        "CREATE OR REPLACE FUNCTION ledger.position_at(p_source text, p_moment timestamptz) "
        "RETURNS bigint LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS 'SELECT 1::"
        "bigint'",
        "function position_at(p_source text, p_moment timestamp with time zone) is",
    ),
    "a policy on the log": (
        "ALTER TABLE ledger.events ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY p ON ledger.events USING (position <> 1)",
        "policy events.p: this program does not make it",
    ),
    "a rule": (
        "CREATE RULE r AS ON UPDATE TO ledger.heads DO INSTEAD NOTHING",
        "rule heads.r: this program does not make it",
    ),
    "a constraint that is gone": (
        "ALTER TABLE ledger.events DROP CONSTRAINT events_identity",
        "constraint ledger.events.events_identity is missing",
    ),
    "a default": (
        "ALTER TABLE ledger.events ALTER COLUMN peer SET DEFAULT 'x'",
        "column events.peer is",
    ),
    "a table in place of which there is a view": (
        "ALTER TABLE ledger.deliveries RENAME TO kept;"
        "CREATE VIEW ledger.deliveries AS SELECT * FROM ledger.kept",
        "relation deliveries is 'view",
    ),
    "a child that adds rows": (
        "CREATE TABLE public.more () INHERITS (ledger.events)",
        "relation events is 'table inherited by public.more'",
    ),
    "a grant": (
        "GRANT UPDATE ON ledger.events TO ledger_service",
        "grant events UPDATE ledger_service: this program does not make it",
    ),
    "a grant to everybody": (
        "GRANT INSERT (body) ON ledger.events TO PUBLIC",
        "grant events.body INSERT PUBLIC: this program does not make it",
    ),
}


@pytest.mark.parametrize("planted", LOG)
async def test_what_an_owner_plants_in_the_schema_of_the_log_is_named(
    database: Database, planted: str
) -> None:
    await first_generation(database)
    statements, named = LOG[planted]
    async with database.owner() as connection:
        await connection.execute(statements)
    found = await examine(database)
    assert any(each.how.startswith(named) for each in found.log), found.log
    assert found.books == ()
    stated = await doctor_schema.examine(database.service_dsn, database.settings)
    assert named in {each.found[: len(named)] for each in stated if each.verdict == "fail"}


BOOKS = {
    "a policy that hides a balance": (
        "ALTER TABLE {0}.balances ENABLE ROW LEVEL SECURITY;"
        "ALTER TABLE {0}.balances FORCE ROW LEVEL SECURITY;"
        "CREATE POLICY hide ON {0}.balances USING (account <> 'assets:wallet:available')",
        "policy balances.hide: this program does not make it",
    ),
    "a rule that answers for a table": (
        "CREATE RULE quiet AS ON INSERT TO {0}.entries DO INSTEAD NOTHING",
        "rule entries.quiet: this program does not make it",
    ),
    "a trigger": (
        "CREATE FUNCTION {0}.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER t BEFORE INSERT ON {0}.entries FOR EACH ROW EXECUTE FUNCTION {0}.f()",
        "trigger books.entries.t: this program does not make it",
    ),
    "a view in place of a table": (
        "ALTER TABLE {0}.balances RENAME TO kept;"
        "CREATE VIEW {0}.balances AS SELECT * FROM {0}.kept",
        "relation balances is 'view",
    ),
    "a function that answers for another": (
        "CREATE FUNCTION {0}.abs(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        "function abs(bigint): this program does not make it",
    ),
    "an operator": (
        "CREATE OPERATOR {0}.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.textne)",
        "operator books.=(text,text): this program does not make it",
    ),
    "a function that finds nothing": (
        "CREATE OR REPLACE FUNCTION {0}.journal_positions(p_source text, p_kind text, p_id text) "
        "RETURNS bigint[] LANGUAGE sql STABLE AS $$SELECT '{{}}'::bigint[]$$",
        "function journal_positions(p_source text, p_kind text, p_id text) is",
    ),
    "a constraint that is gone": (
        "ALTER TABLE {0}.balances DROP CONSTRAINT balances_debits_check",
        "constraint books.balances.balances_debits_check is missing",
    ),
    "a default": (
        "ALTER TABLE {0}.entries ALTER COLUMN amount SET DEFAULT 7",
        "column entries.amount is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("planted", BOOKS)
async def test_what_the_service_role_plants_in_the_books_is_named(
    database: Database, planted: str
) -> None:
    generation = await first_generation(database)
    statements, named = BOOKS[planted]
    async with database.service() as connection:
        await connection.execute(statements.format(schema_of(generation)))
    found = await examine(database)
    assert any(each.how.startswith(named) for each in found.books), found.books
    assert found.log == ()
    stated = await doctor_schema.examine(database.service_dsn, database.settings)
    assert named in {each.found[: len(named)] for each in stated if each.verdict == "fail"}


async def test_books_of_another_version_have_no_policies_either(database: Database) -> None:
    generation = await first_generation(database)
    statements, named = BOOKS["a policy that hides a balance"]
    async with database.service() as connection:
        await connection.execute(statements.format(schema_of(generation)))
        await connection.execute("UPDATE ledger.generations SET version = 'older'")
    found = await examine(database)
    assert named in [each.how for each in found.books]
    assert "another version" in found.not_compared


async def test_books_that_were_loaded_in_bulk_have_the_same_inventory(database: Database) -> None:
    from ledger.rebuild.coordinator import build_generation
    from tests.evidence import append

    await append(database, 50)
    made, _ = await build_generation(
        database.service_dsn, database.settings, registry.load(), "x", {"straitsx": 50}
    )
    async with database.service() as connection:
        found = await schema_inventory.taken(connection, schema_of(made))
        assert found == await schema_inventory.of_books(connection, registry.load())


async def test_terms_in_the_database_are_compared_with_the_settings(database: Database) -> None:
    await first_generation(database)
    changed: Any = replace(database.settings.sources["gokart"], currency="EUR")
    sources = dict(database.settings.sources) | {"gokart": changed}
    settings = replace(database.settings, sources=sources)
    stated = await doctor_schema.examine(database.service_dsn, settings)
    (found,) = [each for each in stated if each.name == "terms"]
    assert found.found == "gokart: currency is 'USD' in ledger.sources, 'EUR' by the settings"
