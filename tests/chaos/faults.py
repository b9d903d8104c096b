"""Faults of a real PostgreSQL, made by its superuser: errors raised where rows are written.

Triggers raise the SQLSTATE that a row of `fault.control` names for their stage, for as long as the
row is there. `append`, `seal` and `reconcile` are tables of the ledger; `fold` is the live books,
`rebuild` those being built: tables get their triggers when they are created.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from tests.conftest import eventually

STAGES: Final = ("append", "fold", "seal", "reconcile", "rebuild")
INSTALL: Final = """
CREATE SCHEMA fault;
CREATE TABLE fault.control (stage text PRIMARY KEY, code text NOT NULL, id text);
CREATE SEQUENCE fault.hits;
CREATE FUNCTION fault.strike() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE
    v_stage text := TG_ARGV[0];
    v_fault fault.control;
BEGIN
    IF v_stage = 'books' THEN
        v_stage := CASE WHEN EXISTS (SELECT FROM ledger.generations AS g WHERE g.state = 'live'
                                        AND TG_TABLE_SCHEMA = 'books_' || g.generation)
                        THEN 'fold' ELSE 'rebuild' END;
    END IF;
    SELECT * INTO v_fault FROM fault.control WHERE stage = v_stage;
    IF FOUND AND (v_fault.id IS NULL OR (TG_LEVEL = 'ROW' AND to_jsonb(NEW)->>'id' = v_fault.id))
    THEN
        PERFORM nextval('fault.hits');  -- survives the rollback
        RAISE EXCEPTION 'injected' USING ERRCODE = v_fault.code;
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION fault.plant(p_table text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER zz_fault BEFORE INSERT OR UPDATE ON %s FOR EACH STATEMENT'
                   ' EXECUTE FUNCTION fault.strike(''books'')', p_table);
    IF p_table LIKE '%%.transactions' THEN
        EXECUTE format('CREATE TRIGGER zz_fault_row BEFORE INSERT OR UPDATE ON %s FOR EACH ROW'
                       ' EXECUTE FUNCTION fault.strike(''books'')', p_table);
    END IF;
END $$;
CREATE FUNCTION fault.made() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE
    v_made record;
BEGIN
    FOR v_made IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
        IF v_made.object_identity
           ~ '^books_[0-9]+[.](checkpoints|entries|transactions|history)$'
        THEN
            PERFORM fault.plant(v_made.object_identity);
        END IF;
    END LOOP;
END $$;
CREATE EVENT TRIGGER fault_made ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
    EXECUTE FUNCTION fault.made();
CREATE TRIGGER zz_fault BEFORE INSERT ON ledger.events FOR EACH STATEMENT
    EXECUTE FUNCTION fault.strike('append');
CREATE TRIGGER zz_fault BEFORE INSERT ON ledger.seals FOR EACH STATEMENT
    EXECUTE FUNCTION fault.strike('seal');
CREATE TRIGGER zz_fault BEFORE INSERT OR UPDATE ON ledger.recon_runs FOR EACH STATEMENT
    EXECUTE FUNCTION fault.strike('reconcile');
"""
PLANT: Final = """
SELECT fault.plant(format('%I.%I', schemaname, tablename)) FROM pg_tables
 WHERE schemaname ~ '^books_[0-9]+$'
   AND tablename IN ('checkpoints', 'entries', 'transactions', 'history')
"""
REMOVE: Final = "DROP EVENT TRIGGER fault_made; DROP SCHEMA fault CASCADE"
BEGIN: Final = "INSERT INTO fault.control VALUES ($1, $2, $3)"
END: Final = "DELETE FROM fault.control"
SELECT_HITS: Final = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM fault.hits"

HIT_SECONDS_MAX: Final = 30.0


async def install(owner: Any) -> None:
    """Install the triggers; nothing is raised yet."""
    await owner.execute(INSTALL)
    await owner.fetch(PLANT)


async def remove(owner: Any) -> None:
    """Remove everything that `install` made."""
    await owner.execute(REMOVE)


@asynccontextmanager
async def raised(
    owner: Any, stage: str, code: str, *, id_: str | None = None, hits: int = 2
) -> AsyncIterator[None]:
    """Raise a SQLSTATE at a stage from now on; at the end wait until it was raised, and end it.

    With `id_` only for rows of that transaction.
    """
    before = await owner.fetchval(SELECT_HITS)
    await owner.execute(BEGIN, stage, code, id_)
    try:
        yield

        async def was_hit() -> bool:
            return bool(await owner.fetchval(SELECT_HITS) >= before + hits)

        await eventually(was_hit, HIT_SECONDS_MAX)
    finally:
        await owner.execute(END)
