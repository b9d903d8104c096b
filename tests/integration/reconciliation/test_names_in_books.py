"""Lines find the transactions that they name, whenever those were, by every name of the books."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from ledger.config.reconciliation import rules_of
from ledger.model import changed
from ledger.reconciliation.loader import SELECT_NAMED
from ledger.statements.model import Reading
from ledger.statements.reader import read_statement
from tests.asking import Service, payment, payout, serving
from tests.conftest import Database
from tests.statements import JANUARY, append_statement, post_statement, reconcile, row, statement

NOON = "2026-01-13T12:00:00Z"
LONG_AGO = "2025-09-01T12:00:00Z"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def at(moment: str) -> dict[str, str]:
    return {"created_at": moment, "updated_at": moment}


async def import_named(
    service: Service, rows: list[dict[str, Any]], names: dict[str, tuple[str, ...]]
) -> None:
    """Import rows of January whose lines have further names, by the id of the row."""
    begin, end = map(rules_window, JANUARY)
    read = read_statement(statement(rows), Reading("straitsx-json", "XSGD", window=(begin, end)))
    lines = tuple(changed(line, names=names.get(line.id, ())) for line in read.lines)
    await append_statement(service.database.service_dsn, "straitsx", changed(read, lines=lines))


def rules_window(moment: str) -> Any:
    return rules_of({"since": moment}).since


@pytest.mark.parametrize(
    ("callback", "name", "anchor"),
    [
        (payment(1, fees="0.0", **at(LONG_AGO)), "contract_0001", "contract:contract_0001"),
        (payment(1, fees="0.0", **at(LONG_AGO)), "idem-0001", "idempotency:idem-0001"),
        (payment(1, fees="0.0", end_to_end_ref="E2E-77", **at(LONG_AGO)), "E2E-77",
         "reference:E2E-77"),
        (payment(1, fees="0.0", merchant_ref="ORDER-77", **at(LONG_AGO)), "ORDER-77",
         "reference:ORDER-77"),
        (payout(1, status="completed", amount="-0", **at(LONG_AGO)) | {"amount": "10.0",
         "fees": "0.0", "payout_invoice_id": "INV-77"}, "INV-77", "reference:INV-77"),
        (payout(1, status="completed", **at(LONG_AGO)) | {"amount": "10.0", "fees": "0.0",
         "external_reference": "EXT-77"}, "EXT-77", "reference:EXT-77"),
    ],
)  # fmt: skip
async def test_a_line_finds_a_transaction_of_long_ago_by_any_of_its_names(
    service: Service, callback: dict[str, Any], name: str, anchor: str
) -> None:
    await service.post_json("straitsx", callback)
    amount = "-10" if callback["type"] == "Withdrawal on behalf" else "10"
    await import_named(service, [row("r1", None, amount, NOON)], {"r1": ("bank-1", name)})
    (result,) = (await reconcile(service)).results
    assert [(m.anchor, m.amount) for m in result.matches] == [(anchor, int(amount))]
    assert result.breaks == ()


async def test_lines_that_name_what_moved_nothing_are_about_it(service: Service) -> None:
    await service.post_json("straitsx", payout(1, **at(NOON)))
    await service.post_json("straitsx", payout(2, status="completed", **at(NOON)))
    rows = [row("r1", None, "-20", NOON), row("r2", None, "-1", NOON, "Fee")]
    await import_named(service, rows, {"r1": ("idem-0001",), "r2": ("idem-0001",)})
    (result,) = (await reconcile(service)).results
    assert {(b.type, b.items) for b in result.breaks} == {
        ("STATUS", ("line:r1", "line:r2")),
        ("MISSING_AT_PROVIDER", ("payout:contract_0002",)),
    }


async def test_a_line_in_another_currencys_statement_is_found_by_its_names(
    service: Service,
) -> None:
    await service.post_json("straitsx", payment(1, currency="xusd", fees="0.0", **at(NOON)))
    await post_statement(service, statement([]), currency="XUSD")
    await import_named(service, [row("r1", None, "10", NOON)], {"r1": ("idem-0001",)})
    run = await reconcile(service)
    assert [(r.currency, [b.type for b in r.breaks]) for r in run.results] == [
        ("XSGD", ["CURRENCY"]), ("XUSD", ["CURRENCY"]),
    ]  # fmt: skip


async def test_an_amount_that_the_fee_consumes_is_on_both_sides(service: Service) -> None:
    await service.post_json("straitsx", payment(1, amount="0.5", **at(NOON)))
    rows = [row("r1", "contract_0001", "0.5", NOON),
            row("r2", "contract_0001", "-0.5", NOON, "Fee")]  # fmt: skip
    await post_statement(service, statement(rows))
    (result,) = (await reconcile(service)).results
    assert (result.state, result.figures["transactions"]) == ("RECONCILED", 1)


async def test_the_payout_of_friday_is_the_line_of_monday(service: Service) -> None:
    friday, monday = "2026-01-09T10:00:00Z", "2026-01-11T16:00:00Z"  # 18:00 and 00:00 there
    await service.post_json("straitsx", payout(1, status="completed", fees="0.0", **at(friday)))
    await post_statement(service, statement([row("r1", None, "-20", monday)]))
    sources = service.database.settings.sources
    for weekend, expected in ((["saturday", "sunday"], 1), ([], 0)):
        rules = rules_of({"time_zone": "Asia/Singapore", "calendar": {"weekend": weekend}})
        declared = {**sources, "straitsx": replace(sources["straitsx"], reconcile=rules)}
        (result,) = (await reconcile(service, sources=declared)).results
        assert len(result.matches) == expected


async def test_names_are_looked_up_however_many_transactions_there_are(service: Service) -> None:
    for number in range(1, 300):
        await service.post_json(
            "straitsx", payment(number, end_to_end_ref=f"E2E-{number}", merchant_ref=f"M{number}")
        )
    await service.fold()
    names = [name for n in range(40, 50) for name in (f"E2E-{n}", f"M{n}", f"idem-{n:04}", "no")]
    async with service.database.service() as connection:
        await connection.execute(f"SET search_path = books_{service.generation}, ledger")
        await connection.execute("ANALYZE")
        rows = await connection.fetch(SELECT_NAMED, "straitsx", ["payment"], names)
        (plan,) = await connection.fetchrow(
            f"EXPLAIN (FORMAT JSON) {SELECT_NAMED}", "straitsx", ["payment"], names
        )
    assert len(rows) == 10
    assert {len(found["known_as"]) for found in rows} == {3}
    # Each branch has an index whose condition is the digest of the name.
    conditions = re.findall(r'"Index Cond": "([^"]*)"', json.dumps(json.loads(plan)))
    looked_up = [each for each in conditions if "r.digest" in each]
    assert len(looked_up) == 4, conditions
