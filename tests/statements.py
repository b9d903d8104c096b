"""Statements as StraitsX's endpoint writes them, and what tests do with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from ledger.reconciliation.runner import Reconciler, Run
from ledger.statements.importer import (
    ImportResult,
    Permission,
    add_statement,
    exclusive_import,
)
from ledger.statements.model import Statement
from tests.asking import Service, problem
from tests.conftest import Database

Json = dict[str, Any]
JANUARY = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")


async def append_statement(dsn: str, source: str, statement: Statement) -> ImportResult:
    """Append a statement to a source's log of statements."""
    async with exclusive_import(dsn, source) as connection:
        return await add_statement(
            connection, source, statement, datetime.now(UTC), Permission(replace=True)
        )


def row(id_: str, contract: str | None, amount: str, at: str, kind: str = "") -> Json:
    """Return one row; an amount below zero is a debit."""
    value = Decimal(amount)
    return {
        "id": id_,
        "type": kind or ("Bank Transfer In" if value > 0 else "Bank Transfer Out"),
        "contractId": contract,
        "idempotencyId": None,
        "creditDebitIndicator": "credit" if value > 0 else "debit",
        "amount": f"{abs(value):f}",
        "createdAt": at,
    }


def statement(rows: list[Json], opening: str = "0", closing: str | None = None) -> bytes:
    """Return the file: running balances are added, amounts are bare JSON numbers."""
    balance = Decimal(opening)
    made = []
    for each in rows:
        sign = 1 if each["creditDebitIndicator"] == "credit" else -1
        balance += sign * Decimal(each["amount"])
        made.append(each | {"ledgerBalance": f"{balance:f}"})
    text = orjson.dumps(
        {"data": made, "meta": {"openingBalance": opening, "closingBalance": closing or "@"}}
    ).decode()
    text = text.replace('"@"', f"{balance:f}").replace(f'"openingBalance":"{opening}"',
                                                       f'"openingBalance":{opening}')  # fmt: skip
    for each in made:
        for name in ("amount", "ledgerBalance"):
            text = text.replace(f'"{name}":"{each[name]}"', f'"{name}":{each[name]}')
    return text.encode()


async def post_statement(
    service: Service, body: bytes, window: tuple[str, str] = JANUARY, **params: str
) -> Json:
    """Import a file; return the answer."""
    asked = {"source": "straitsx", "currency": "XSGD", "from": window[0], "to": window[1]}
    async with service.client.post("/v1/statements", params=asked | params, data=body) as answer:
        assert answer.status == 200, await answer.text()
        return dict(orjson.loads(await answer.read()))


async def refused_statement(
    service: Service, body: bytes, window: tuple[str, str] = JANUARY, **params: str
) -> tuple[int, Json]:
    """Import a file that is refused; return status and problem."""
    asked = {"source": "straitsx", "currency": "XSGD", "from": window[0], "to": window[1]}
    async with service.client.post("/v1/statements", params=asked | params, data=body) as answer:
        return await problem(answer)


async def decide(service: Service, break_id: str, action: str, **more: Any) -> Json:
    """Decide on a break; return the answer."""
    stated = {"action": action, "by": "ann", "note": "checked with the bank", **more}
    async with service.client.post(f"/v1/breaks/{break_id}/decide", json=stated) as answer:
        assert answer.status == 200, await answer.text()
        return dict(orjson.loads(await answer.read()))


async def refused_decision(service: Service, break_id: str, **stated: Any) -> tuple[int, str]:
    """Decide what is refused; return status and detail."""
    body = {"by": "ann", "note": "why", **stated}
    async with service.client.post(f"/v1/breaks/{break_id}/decide", json=body) as answer:
        status, document = await problem(answer)
        return status, document["detail"]


async def reconcile(service: Service, **changes: Any) -> Run:
    """Fold everything and reconcile once."""
    await service.fold()
    return await reconcile_now(service.database, **changes)


async def reconcile_now(database: Database, source: str = "straitsx", **changes: Any) -> Run:
    """Reconcile one source as its books are."""
    settings = replace(database.settings, **changes)
    async with database.service() as connection:
        found = await Reconciler(database.service_dsn, settings).reconcile(connection, source)
    assert found is not None
    return found
