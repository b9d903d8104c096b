"""While books of an earlier version answer, what they lack is refused with a reason."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ledger.books.generations import use_generation
from ledger.database import connection as connections
from ledger.reconciliation.runner import Reconciler
from tests.asking import Service, payment, problem, serving
from tests.conftest import Database
from tests.statements import post_statement, reconcile, row, statement

MID = "2026-01-15T12:00:00Z"
OLDER = (
    "DROP TABLE closes",
    "ALTER TABLE statements DROP COLUMN claimed_from, DROP COLUMN account",
    "ALTER TABLE statement_lines DROP COLUMN booked_at, DROP COLUMN names",
    "ALTER TABLE adjustments DROP COLUMN break_items, DROP COLUMN rule",
)
"""What books lack that the version before month ends made."""


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        await running.post_json("straitsx", payment(1, created_at=MID, updated_at=MID))
        await post_statement(running, statement([row("x", None, "3", MID)]))
        await reconcile(running)
        async with database.owner() as connection:
            await use_generation(connection, running.generation)
            for change in OLDER:
                await connection.execute(change)
        yield running


async def test_what_older_books_lack_is_refused_with_the_reason(service: Service) -> None:
    async with service.database.service() as connection:
        name = await connection.fetchval("SELECT id FROM ledger.recon_breaks LIMIT 1")
    decision = {"action": "note", "by": "ann", "note": "x"}
    close = {"period": "2026-01", "by": "ann", "note": "x"}
    asked = [
        ("GET", "/v1/breaks", None),
        ("GET", "/v1/statements", None),
        ("GET", "/v1/statement_lines", None),
        ("GET", "/v1/views/closes", None),
        ("GET", "/v1/views/adjustments", None),
        ("GET", "/v1/reconciliation/closes", None),
        ("GET", "/v1/reconciliation/roll-forward", None),
        ("GET", "/v1/reconciliation/rules", None),
        ("POST", f"/v1/breaks/{name}/decide", decision),
        ("POST", "/v1/breaks/decide", [{"id": name, **decision}]),
        ("POST", "/v1/reconciliation/closes", close),
        ("POST", "/v1/reconciliation/closes?dry_run=true", close),
        ("POST", "/v1/reconciliation/closes/2026-01/reopen", {"by": "ann", "note": "x"}),
    ]
    for method, path, body in asked:
        async with service.client.request(method, path, json=body) as answer:
            status, shown = await problem(answer)
        assert (status, shown["type"]) == (503, "urn:callback-ledger:problem:not-yet"), path
        assert "the books are being rebuilt for this version" in shown["detail"], path


async def test_what_older_books_have_is_answered(service: Service) -> None:
    for path in ("exceptions", "reconciliation", "reconciliation/findings", "wallets", "status",
                 "transactions"):  # fmt: skip
        await service.ask(f"/v1/{path}")
    assert await service.post_json("straitsx", payment(2)) == 2


async def test_older_books_are_not_reconciled_and_nothing_is_reported(
    service: Service,
) -> None:
    reconciler = Reconciler(service.database.service_dsn, service.database.settings)
    async with connections.connected(service.database.service_dsn) as connection:
        for _ in range(2):
            await reconciler.round(connection)
        assert await connection.fetch("SELECT * FROM ledger.conditions") == []
    (run,) = (await service.ask("/v1/reconciliation"))["reconciliations"]
    assert run["state"] == "BREAKS"
