"""Law: every answer is true at one position, waits when asked to, and says when it cannot."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from decimal import Decimal
from types import ModuleType

import asyncpg
import pytest

from ledger import registry
from ledger.books.generations import create_generation, try_swap, use_generation
from ledger.eventlog.sources import load_terms
from ledger.queries import customers as reads_people
from ledger.queries import events as reads_log
from ledger.queries import exceptions as reads_exceptions
from ledger.queries import money as reads_money
from ledger.queries import snapshot as reads
from ledger.queries import status as reads_status
from ledger.rebuild.plan import drop_generation
from ledger.rebuild.swap import SELECT_SUPERSEDED
from tests.asking import fold_source, payment, serving
from tests.conftest import Database, eventually

MODULES = [reads, reads_exceptions, reads_log, reads_money, reads_people, reads_status]


def statements(module: ModuleType) -> dict[str, str]:
    """Return the SQL constants of a module."""
    return {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and "SELECT" in value
    }


async def test_every_statement_fits_the_tables(database: Database) -> None:
    async with serving(database) as service, database.service() as connection:
        await use_generation(connection, service.generation)
        found = [sql for module in MODULES for sql in statements(module).values()]
        assert len(found) >= 25
        for sql in found:
            await connection.prepare(sql)


async def test_status_states_how_far_the_books_are(database: Database) -> None:
    async with serving(database) as service:
        for number in (1, 2, 3):
            await service.post_json("straitsx", payment(number))
        answer = await service.ask("/v1/status")
        straitsx = next(row for row in answer["sources"] if row["source"] == "straitsx")
        assert (straitsx["head"], straitsx["books_position"], straitsx["lag_events"]) == (3, 0, 3)
        assert straitsx["lag_seconds"] > 0
        assert answer["generation"] == service.generation
        assert answer["database"]["safe"] is True
        assert any("straitsx has no secret" in warning for warning in answer["warnings"])
        await service.fold()
        straitsx = next(
            row for row in (await service.ask("/v1/status"))["sources"]
            if row["source"] == "straitsx"
        )  # fmt: skip
        assert (straitsx["lag_events"], straitsx["lag_seconds"]) == (0, 0)


async def test_a_read_barrier_waits_for_the_books(database: Database) -> None:
    async with serving(database) as service:
        position = await service.post_json("straitsx", payment(1))
        asking = asyncio.create_task(
            service.ask("/v1/transactions", at_least=f"straitsx:{position}")
        )
        await service.ask("/v1/status")
        assert not asking.done()
        await service.fold()
        answer = await asking
        assert [row["id"] for row in answer["transactions"]] == ["contract_0001"]
        assert answer["position"]["straitsx"] == 1


async def test_a_barrier_that_is_not_reached_is_503_after_5_seconds(database: Database) -> None:
    async with serving(database) as service:
        started = time.monotonic()
        async with service.client.get("/v1/wallets?at_least=straitsx:1") as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "1"
            assert "straitsx:1" in (await response.json(content_type=None))["detail"]
        assert 4 < time.monotonic() - started < 7


async def test_a_barrier_on_an_unknown_source_is_not_found(database: Database) -> None:
    async with serving(database) as service:
        status, _ = await service.refused("/v1/wallets", at_least="nowhere:1")
        assert status == 404


async def test_answers_agree_with_their_position_while_the_books_move(database: Database) -> None:
    async with serving(database) as service:
        for number in range(1, 61):
            await service.post_json("straitsx", payment(number))
        async with database.service() as connection:
            terms = next(t for t in await load_terms(connection) if t.source == "straitsx")
        slow = replace(database, settings=replace(database.settings, fold_events_max=1))
        task = asyncio.create_task(fold_source(slow, terms, service.generation))
        seen = set()
        while not task.done():
            answer = await service.ask("/v1/balances", account="assets:wallet:available")
            position = answer["position"]["straitsx"]
            known = [Decimal(row["balance"]) for row in answer["balances"]]
            assert known == ([Decimal("9.5") * position] if position else [])
            seen.add(position)
        await task
        assert len(seen) > 1


async def test_before_the_first_books_there_is_no_answer(database: Database) -> None:
    async with serving(database, make_books=False) as service:
        status, found = await service.refused("/v1/wallets")
        assert (status, found["type"]) == (503, "urn:callback-ledger:problem:not-yet")


async def test_a_swap_of_the_books_is_not_noticed(database: Database) -> None:
    async with serving(database) as service:
        await service.post_json("straitsx", payment(1))
        await service.fold()
        before = await service.ask("/v1/transactions")
        async with database.service() as connection:
            for number in (1, 2, 3):
                loaded = registry.load()
                version = f"v{number}"
                service.generation = await create_generation(
                    connection, loaded, version, "building"
                )
                await service.fold()
                assert await try_swap(connection, service.generation)
                for row in await connection.fetch(SELECT_SUPERSEDED, service.generation - 1):
                    await drop_generation(connection, row["generation"])
                assert await service.ask("/v1/transactions") == before
                async with service.client.get("/v1/status") as response:
                    status = await response.json()
                    stated = response.headers["Ledger-Books"]
                assert status["generation"] == service.generation
                assert {row["generation"] for row in status["sources"]} == {service.generation}
                assert status["books_version"] == version
                assert stated == f"{service.generation}/{version}"


async def test_a_database_that_is_away_is_503_and_comes_back(database: Database) -> None:
    async with serving(database) as service:
        assert (await service.ask("/v1/wallets"))["wallets"] == []
        name = database.service_dsn.split("?")[0].rsplit("/", 1)[1]
        async with database.owner() as owner:
            await owner.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            async with service.client.get("/v1/wallets") as response:
                assert response.status == 503
                assert response.headers["Retry-After"] == "1"
            await owner.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")

        async def answers() -> bool:
            async with service.client.get("/v1/wallets") as response:
                return response.status == 200

        await eventually(answers)


async def test_reading_changes_nothing(database: Database) -> None:
    async with serving(database) as service:
        pool = await asyncpg.create_pool(service.database.service_dsn, min_size=1, max_size=1)
        async with pool:

            async def write(snapshot: reads.Snapshot) -> None:
                await snapshot.rows("DELETE FROM checkpoints")

            with pytest.raises(reads.DatabaseUnavailable) as caught:
                await reads.read_consistent(pool, {}, write)
            assert isinstance(caught.value.__cause__, asyncpg.ReadOnlySQLTransactionError)
