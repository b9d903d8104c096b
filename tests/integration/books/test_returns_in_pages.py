"""Law: a payout of which very much came back is folded in pages, and its books are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from ledger import registry
from ledger.books.compare import Difference
from ledger.books.fold_connections import fold_connections
from ledger.books.generations import schema_of
from ledger.books.projection_worker import ProjectionWorker
from ledger.eventlog.sources import load_terms
from ledger.rebuild.swap import Rebuild, exclusive_rebuild
from ledger.simulator.simulate import SimulatedCallback
from tests.asking import Json, Service, payment, payout, serving
from tests.conftest import Database
from tests.dumps import Dump, differences, dump, make_books
from tests.integration.books.test_projection_worker import append

RETURNS = 2_000
PAGE = 150
PAYOUT = "/v1/transactions/straitsx/contract_0001"

FAULT = """
CREATE FUNCTION ledger.fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a fault made on purpose' USING ERRCODE = '22003';
END $$;
CREATE TRIGGER fault BEFORE UPDATE ON {schema}.transactions
    FOR EACH ROW WHEN (NEW.id = 'return_1_0370') EXECUTE FUNCTION ledger.fail()
"""


def returns(count: int = RETURNS, number: int = 1) -> list[Json]:
    """Return completed payments that bring back parts of a payout."""
    remarks = {"transaction_remarks": f"RTN idem-{number:04}"}
    return [
        payment(
            n, id=f"return_{number}_{n:04}", amount="0.25", fees="0.05", sender_information=remarks
        )
        for n in range(count)
    ]  # fmt: skip


def paid(status: str = "completed", number: int = 1) -> Json:
    """Return a payout of a customer."""
    return payout(
        1, id=f"contract_{number:04}", idempotency_id=f"idem-{number:04}", status=status,
        amount="900.0", customer_profile_id=f"cust_{number}",
    )  # fmt: skip


async def log(database: Database, bodies: Sequence[Json]) -> None:
    """Append StraitsX callbacks to the log."""
    await append(database, [SimulatedCallback("straitsx", None, orjson.dumps(b)) for b in bodies])


async def fold(
    database: Database, generation: int, *, page: int = PAGE, until: int | None = None
) -> None:
    """Fold StraitsX's log in pages of so many related streams, up to its end or `until`."""
    async with database.service() as connection:
        (terms,) = [t for t in await load_terms(connection) if t.source == "straitsx"]
    async with fold_connections(database.service_dsn, generation) as shared:
        await ProjectionWorker(
            shared, database.settings, registry.load(), terms, until=until, mentioning_max=page,
        ).catch_up()  # fmt: skip


async def read(database: Database, generation: int) -> Dump:
    async with database.service() as connection:
        return await dump(connection, generation, index=False)


async def in_pages(database: Database, page: int) -> Dump:
    """Fold the log into books of its own."""
    generation = await make_books(database.service_dsn, f"pages of {page}")
    await fold(database, generation, page=page)
    return await read(database, generation)


async def test_every_page_size_writes_the_same_rows(database: Database) -> None:
    await log(database, [*returns(400), paid("pending"), paid()])
    whole = await in_pages(database, 10_000)
    assert len([row for row in whole["entries"] if row.startswith("(straitsx,401,")]) > 400
    for page in (1, 7, 399, 400):
        assert differences(whole, await in_pages(database, page)) == {}


async def test_earlier_answers_and_a_rebuild_equal_books_folded_in_pages(
    database: Database,
) -> None:
    """The payout comes between its returns, is then completed, and at last attributed."""
    bodies = returns()
    async with serving(database) as service:
        await log(
            database,
            [*bodies[: RETURNS // 2], paid("pending"), *bodies[RETURNS // 2 :], paid()],
        )
        completed = RETURNS + 2
        answers = {}
        for position in sorted([*range(500, completed, 500), RETURNS // 2 + 1, completed]):
            await fold(database, service.generation, until=position)
            answers[position] = await shown(service)
        decision = {"customer_id": "cust_9", "note": "asked them"}
        async with service.client.post(f"{PAYOUT}/attribute", json=decision) as response:
            assert response.status == 200, await response.text()
        await fold(database, service.generation)
        answers[completed + 1] = await shown(service)
        for position, answer in answers.items():
            assert await shown(service, position=position) == answer
        details = (await service.ask(PAYOUT))["details"]
        assert (details["returned_amount"], details["return_count"]) == ("500", RETURNS)
        owned = await service.ask("/v1/balances", account="liabilities:customers:cust_9")
        assert [row["balance"] for row in owned["balances"]] == ["-400"]
    assert await rebuilt(database) == [[], []]


async def rebuilt(database: Database) -> list[Sequence[Difference]]:
    """Rebuild the books; return the differences of each source."""
    async with exclusive_rebuild(database.service_dsn) as connection:
        rebuild = Rebuild(database.service_dsn, database.settings, connection, registry.load())
        await rebuild.build()
        return [compared.differences for compared in await rebuild.compare()]


async def shown(service: Service, **as_of: Any) -> list[Any]:
    """Return what is shown of the payout, of returns of it, and of the balances."""
    found: list[Any] = []
    for id_ in ("contract_0001", "return_1_0000", "return_1_0999", "return_1_1999"):
        path = f"/v1/transactions/straitsx/{id_}"
        async with service.client.get(path, params=as_of) as response:
            document = orjson.loads(await response.read())
            document.pop("as_of", None)
            found.append(document if response.status == 200 else response.status)
    found.append((await service.ask("/v1/balances", limit=100, **as_of))["balances"])
    return found


async def test_a_payout_before_its_returns_has_the_same_books(database: Database) -> None:
    async with serving(database) as service:
        await log(database, [*returns(), paid(), paid(number=2), *returns(number=2)])
        await fold(database, service.generation)
        behind, before = [
            await service.ask(f"/v1/transactions/straitsx/contract_{number:04}")
            for number in (1, 2)
        ]
        for name in ("status", "amount", "fees", "flags", "details", "effective_at"):
            assert behind[name] == before[name]
        assert before["details"]["return_count"] == RETURNS
        books = await read(database, service.generation)
        for table in ("balances", "exceptions", "transactions"):
            assert len([row for row in books[table] if "cust_1" in row]) == len(
                [row for row in books[table] if "cust_2" in row]
            )
        for customer in (1, 2):
            owned = await service.ask(
                "/v1/balances", account=f"liabilities:customers:cust_{customer}"
            )
            rows = [(row["debits"], row["credits"], row["balance"]) for row in owned["balances"]]
            assert rows == [("900", "500", "-400")]


async def test_what_a_page_refuses_parks_the_payout_and_nothing_else(database: Database) -> None:
    """All pages of an event are in the books, or none: the one before the last is refused."""
    async with serving(database) as service:
        await log(database, returns(400))
        await fold(database, service.generation)
        async with database.owner() as owner:
            await owner.execute(FAULT.format(schema=schema_of(service.generation)))
        await log(database, [paid(), payment(3)])
        await fold(database, service.generation)
        async with database.service() as connection:
            schema = schema_of(service.generation)
            parked = await connection.fetch(f"SELECT position, resource_id FROM {schema}.parked")
            lines = await connection.fetchval(
                f"SELECT count(*) FROM {schema}.entries WHERE position = 401"
            )
        assert [tuple(row) for row in parked] == [(401, "contract_0001")]
        assert lines == 0
        found = await service.ask("/v1/transactions/straitsx/return_1_0000")
        assert found["flags"] == ["return", "return_unmatched"]
        assert (await service.ask("/v1/transactions/straitsx/contract_0003"))["amount"] == "10"
