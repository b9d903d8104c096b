"""Law: a passing error never costs an event; only an event's own values set it apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
import pytest

from ledger.books import fold_version
from ledger.books.generations import schema_of, use_generation
from ledger.database import conditions
from ledger.service.projector import Projector
from ledger.simulator.simulate import SimulatedCallback
from tests.asking import payment, serving
from tests.capturing import captured_logs
from tests.conftest import Database, eventually
from tests.dumps import differences
from tests.integration.books.test_projection_worker import (
    append,
    end,
    live_at_head,
    one_fold,
    tables,
)

FAULT = """
CREATE TABLE ledger.fault (sqlstate text, resource text);
CREATE FUNCTION ledger.fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE f record;
BEGIN
    FOR f IN SELECT * FROM ledger.fault WHERE resource IS NULL OR resource = NEW.id LOOP
        RAISE EXCEPTION 'a fault made on purpose' USING ERRCODE = f.sqlstate;
    END LOOP;
    RETURN NEW;
END $$;
"""
TRIGGER = """
CREATE TRIGGER fault BEFORE INSERT OR UPDATE ON {schema}.transactions
    FOR EACH ROW EXECUTE FUNCTION ledger.fail()
"""
PASSING = (
    "55P03", "25006", "58030", "58P01", "XX000", "XX001", "42501", "42P01", "55006", "0A000",
    "26000", "72000", "40001", "40P01", "57014", "57P01", "53100", "53200", "P0001", "F0000",
)  # fmt: skip
WRITER = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock' AND usename = 'ledger'
"""


@asynccontextmanager
async def projecting(database: Database) -> AsyncIterator[None]:
    """Run a projector for the length of a block."""
    running = [asyncio.create_task(Projector(database.service_dsn, database.settings).run())]
    try:
        yield
    finally:
        await end(running)


def callbacks(first: int, count: int) -> list[SimulatedCallback]:
    """Make completed payments of 10.0 less a fee of 0.5."""
    return [
        SimulatedCallback("straitsx", None, orjson.dumps(payment(n)))
        for n in range(first, first + count)
    ]


async def set_fault(database: Database, sqlstate: str | None, resource: str | None = None) -> None:
    async with database.owner() as owner:
        await owner.execute("DELETE FROM ledger.fault")
        if sqlstate is not None:
            await owner.execute("INSERT INTO ledger.fault VALUES ($1, $2)", sqlstate, resource)


async def prepare_faults(database: Database) -> int:
    """Make live books whose transactions can be made to fail; return their generation."""
    async with projecting(database):
        generation = await eventually(lambda: live_at_head(database))
    async with database.owner() as owner:
        await owner.execute(FAULT)
        await owner.execute(TRIGGER.format(schema=schema_of(generation)))
    return int(generation)


async def wallet(database: Database, generation: int) -> Decimal:
    async with database.service() as connection:
        await use_generation(connection, generation)
        found: Decimal = await connection.fetchval(
            "SELECT sum(debits - credits) FROM balances WHERE account = 'assets:wallet:available'"
        )
    return found


async def parked(database: Database, generation: int) -> Sequence[Any]:
    async with database.service() as connection:
        await use_generation(connection, generation)
        return list(await connection.fetch("SELECT position, reason FROM parked ORDER BY 1"))


@pytest.mark.parametrize("sqlstate", PASSING)
async def test_an_error_that_may_pass_costs_no_event(database: Database, sqlstate: str) -> None:
    generation = await prepare_faults(database)
    await set_fault(database, sqlstate)
    with captured_logs() as logged:
        async with projecting(database):
            await append(database, callbacks(1, 11))
            await eventually(
                lambda: _async(sum(e["event"] == "fold_interrupted" for e in logged) >= 4)
            )

            async def reported() -> Any:
                async with database.service() as connection:
                    return await conditions.current(connection)

            (condition,) = await eventually(reported)
            assert (condition.source, condition.name) == ("straitsx", "fold_retrying")
            assert sqlstate in condition.detail
            await set_fault(database, None)
            await eventually(lambda: live_at_head(database), 5)

            async def is_over() -> bool:
                return await reported() == []

            await eventually(is_over, 5)
    assert await parked(database, generation) == []
    assert await wallet(database, generation) == Decimal("104.5")
    assert differences(await tables(database, generation), await one_fold(database)) == {}


async def _async(value: Any) -> Any:
    return value


@pytest.mark.parametrize("sqlstate", ["22003", "23514", "54000"])
async def test_only_the_event_whose_values_fail_twice_is_parked_and_tried_at_the_next_start(
    database: Database, sqlstate: str
) -> None:
    generation = await prepare_faults(database)
    await set_fault(database, sqlstate, "contract_0007")
    async with projecting(database):
        await append(database, callbacks(1, 11))
        await eventually(lambda: live_at_head(database))
        (apart,) = await parked(database, generation)
        assert (apart["position"], sqlstate in apart["reason"]) == (7, True)
        assert await wallet(database, generation) == Decimal(95)
    async with projecting(database):  # a start while the fault lasts changes nothing
        assert await eventually(lambda: live_at_head(database)) == generation
        await append(database, callbacks(12, 1))
        await eventually(lambda: live_at_head(database))
        assert len(await parked(database, generation)) == 1
    await set_fault(database, None)
    async with projecting(database):
        new = await eventually(lambda: _other_generation(database, generation))
    assert await parked(database, new) == []
    assert await wallet(database, new) == Decimal(114)


async def _other_generation(database: Database, generation: int) -> int | None:
    found = await live_at_head(database)
    return None if found == generation else found


async def test_a_decision_to_retry_folds_what_was_parked(database: Database) -> None:
    generation = await prepare_faults(database)
    await set_fault(database, "22003", "contract_0002")
    async with serving(database, make_books=False) as service, projecting(database):
        for number in (1, 2, 3):
            await service.post_json("straitsx", payment(number))
        await eventually(lambda: live_at_head(database))
        (found,) = (await service.ask("/v1/exceptions", state="open"))["exceptions"]
        assert (found["reason"], "rows_refused" in found["detail"]) == ("parked", True)
        await set_fault(database, None)
        path = f"/v1/exceptions/{found['id']}/resolve"
        async with service.client.post(path, json={"action": "retry", "by": "ann"}) as response:
            assert response.status == 200, await response.text()
        new = await eventually(lambda: _other_generation(database, generation))
        assert await wallet(database, new) == Decimal("28.5")
        assert (await service.ask("/v1/exceptions", state="open"))["exceptions"] == []


async def test_an_event_that_cannot_even_be_parked_skips_no_other(database: Database) -> None:
    generation = await prepare_faults(database)
    async with database.owner() as owner:
        await owner.execute(
            "CREATE FUNCTION ledger.no_exception() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RAISE EXCEPTION USING ERRCODE = ''22003''; END'"
        )
        await owner.execute(
            f"CREATE TRIGGER fault BEFORE INSERT ON {schema_of(generation)}.exceptions"
            " FOR EACH ROW EXECUTE FUNCTION ledger.no_exception()"
        )
    await set_fault(database, "22003", "contract_0003")
    small = replace(database, settings=replace(database.settings, fold_events_max=5))
    with captured_logs() as logged:
        async with projecting(small):
            await append(database, callbacks(1, 20))
            await eventually(
                lambda: _async(sum(e["event"] == "fold_interrupted" for e in logged) >= 3)
            )
            async with database.owner() as owner:
                await owner.execute(f"DROP TRIGGER fault ON {schema_of(generation)}.exceptions")
            await set_fault(database, None)
            await eventually(lambda: live_at_head(database), 10)
    assert await parked(database, generation) == []
    assert differences(await tables(database, generation), await one_fold(database)) == {}


@pytest.mark.parametrize("end_with", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_last_write_that_is_ended_is_logged_and_done_again_without_another_callback(
    database: Database, end_with: str
) -> None:
    generation = await prepare_faults(database)
    with captured_logs() as logged:
        async with projecting(database), database.owner() as owner:
            async with owner.transaction():
                await owner.execute(
                    f"LOCK TABLE {schema_of(generation)}.transactions IN SHARE MODE"
                )
                await append(database, callbacks(1, 3))
                pid = await eventually(lambda: owner.fetchval(WRITER))
                await owner.execute(f"SELECT {end_with}({pid})")
                await eventually(lambda: _async("fold_interrupted" in {e["event"] for e in logged}))
            await eventually(lambda: live_at_head(database), 5)
    assert await parked(database, generation) == []


async def test_books_that_do_not_move_are_a_condition_and_a_metric(database: Database) -> None:
    old = """
INSERT INTO ledger.events
SELECT source, position + 1, '\\x00112233445566778899aabbccddeeff', 'k', kind, 'r', status,
       idempotency_id, provider_at, path_event, origin, verdict, reason, detail, peer, headers,
       body, received_at, now() - interval '1 minute'
  FROM ledger.events WHERE position = 1
"""
    async with serving(database) as service, database.owner() as owner:
        await service.post_json("straitsx", payment(1))
        await service.fold()
        await owner.execute(
            f"UPDATE {schema_of(service.generation)}.checkpoints"
            " SET moved_at = moved_at - interval '1 minute'"
        )
        calm = (await service.ask("/v1/status"))["warnings"]
        await owner.execute(old)
        await owner.execute("UPDATE ledger.heads SET position = 2 WHERE source = 'straitsx'")
        (warning,) = (await service.ask("/v1/status"))["warnings"][len(calm) :]
        assert warning.startswith("straitsx: books_stalled for ")
        async with service.client.get("/metrics") as response:
            text = await response.text()
        assert 'ledger_condition{condition="books_stalled",source="straitsx"} 1.0' in text
        assert 'ledger_books_lag_events{source="straitsx"} 1.0' in text
        assert "ledger_database_up 1.0" in text


async def test_changed_code_whose_books_differ_waits_for_a_decision(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(database, callbacks(1, 3))
    async with projecting(database):
        generation = await eventually(lambda: live_at_head(database))
    async with database.owner() as owner:
        await owner.execute(
            f"UPDATE {schema_of(generation)}.transactions SET status = 'failed'"
            " WHERE id = 'contract_0002'"
        )
    monkeypatch.setattr(fold_version, "current_version", lambda _terms: "changed")

    async def is_reported() -> Any:
        async with database.service() as connection:
            return [c for c in await conditions.current(connection) if c.source == ""]

    async with projecting(database):
        (found,) = await eventually(is_reported)
        assert found.name == "rebuilt_books_differ"
        assert "--accept-differences" in found.detail
        assert await live_at_head(database) == generation
