"""`ledger verify` reconciles again and names edited rows, which the next run repairs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from ledger.config.reconciliation import Rules
from ledger.config.settings import Settings
from ledger.terminal.progress import Progress
from ledger.verify.database import Verification, VerifyOptions
from ledger.verify.outcome import CheckResult, overall
from tests.asking import Service, payment, serving
from tests.conftest import Database
from tests.evidence import as_superuser
from tests.statements import post_statement, reconcile, row, statement

NOON = "2026-01-10T12:00:00Z"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    """A source with two reconciled wallets: one agrees, the other has two breaks."""
    async with serving(database) as running:
        stated = {"created_at": NOON, "updated_at": NOON, "fees": "0.0"}
        for number in (1, 2):
            await running.post_json("straitsx", payment(number, **stated))
        await running.post_json("straitsx", payment(3, currency="xusd", **stated))
        rows = [row("r1", "contract_0001", "10", NOON), row("x1", "nobody", "3", NOON)]
        await post_statement(running, statement(rows))
        await post_statement(
            running, statement([row("u1", "contract_0003", "10", NOON)]), currency="XUSD"
        )
        await reconcile(running)
        yield running


async def checked(service: Service, settings: Settings | None = None) -> list[CheckResult]:
    """Verify; return the results about reconciliation."""
    used = settings or service.database.settings
    options = VerifyOptions(seal_seconds_max=0, reconcile_seconds_max=0)
    found = await Verification(used, options, Progress(quiet=True)).examine()
    return [each for each in found if each.name == "reconciliation"]


async def results(service: Service) -> dict[str, list[Any]]:
    async with service.database.service() as connection:
        return {
            name: [
                tuple(r) for r in await connection.fetch(f"TABLE ledger.{name} ORDER BY 1, 2, 3")
            ]
            for name in ("recon_runs", "recon_matches", "recon_breaks")
        }


async def test_what_was_reconciled_is_found_again(service: Service) -> None:
    (found,) = await checked(service)
    assert (found.outcome, found.source) == ("ok", "straitsx")
    assert found.message == "2 wallets and 2 breaks are the same again"


@pytest.mark.parametrize(
    ("change", "table", "states"),
    [
        ("UPDATE ledger.recon_breaks SET state = 'RESOLVED' WHERE type = 'MISSING_IN_LEDGER'",
         "recon_breaks", "state is RESOLVED, the log says OPEN"),
        ("UPDATE ledger.recon_breaks SET gap = 0 WHERE type = 'MISSING_IN_LEDGER'",
         "recon_breaks", "gap is 0, the log says -3"),
        ("UPDATE ledger.recon_breaks SET currency = 'XUSD' WHERE type = 'MISSING_IN_LEDGER'",
         "recon_breaks", "only a fold of the log has it"),
        ("UPDATE ledger.recon_breaks SET candidates = '[7]' WHERE type = 'MISSING_IN_LEDGER'",
         "recon_breaks", "candidates is [7], the log says []"),
        ("DELETE FROM ledger.recon_breaks", "recon_breaks", "only a fold of the log has it"),
        ("INSERT INTO ledger.recon_matches VALUES ('straitsx', 'XSGD', 'line:x1', 'x', 'hand')",
         "recon_matches", "the log has no cause"),
        ("UPDATE ledger.recon_matches SET rule = 'hand' WHERE item = 'line:r1'",
         "recon_matches", "rule is hand, the log says contract"),
        ("INSERT INTO ledger.recon_matches VALUES ('straitsx', 'ABC', 'line:x1', 'x', 'hand')",
         "recon_matches", "the log has no cause"),
        ("UPDATE ledger.recon_runs SET state = 'RECONCILED' WHERE currency = 'XSGD'",
         "recon_runs", "state is RECONCILED, the log says BREAKS"),
        ("UPDATE ledger.recon_runs SET figures = figures || '{\"breaks_count\": 0}' "
         "WHERE currency = 'XSGD'", "recon_runs", "figures.breaks_count is 0, the log says 2"),
        ("UPDATE ledger.recon_runs SET positions = '{\"straitsx\": 900}'",
         "recon_runs", "positions.straitsx is 900, the log says 3"),
    ],
)  # fmt: skip
async def test_an_edited_result_is_named_and_the_next_run_mends_it(
    service: Service, change: str, table: str, states: str
) -> None:
    before = await results(service)
    await as_superuser(service.database, change)
    assert await results(service) != before
    found = await checked(service)
    assert overall(found) == "fail"
    assert {each["table"] for check in found for each in check.differences} <= {
        "recon_runs", "recon_matches", "recon_breaks",
    }  # fmt: skip
    named = [check.message for check in found if check.message.startswith(table)]
    assert any(states in each for each in named), found
    await reconcile(service)
    assert await results(service) == before
    assert overall(await checked(service)) == "ok"


async def test_results_of_a_source_without_statements_have_no_cause(service: Service) -> None:
    await as_superuser(
        service.database,
        "INSERT INTO ledger.recon_matches VALUES ('gokart', 'USD', 'line:x', 'x', 'hand')",
    )
    found = {each.source: each for each in await checked(service)}
    assert (found["gokart"].outcome, found["straitsx"].outcome) == ("fail", "ok")


async def test_a_run_that_is_behind_or_by_other_rules_is_incomplete_and_never_a_pass(
    service: Service,
) -> None:
    straitsx = replace(
        service.database.settings.sources["straitsx"], reconcile=Rules(tolerance={"X": Decimal(1)})
    )
    sources = {**service.database.settings.sources, "straitsx": straitsx}
    found = await checked(service, replace(service.database.settings, sources=sources))
    assert [each.outcome for each in found] == ["INCOMPLETE"] * 2
    assert "other rules" in found[0].message
    await service.post_json("straitsx", payment(9))
    await service.fold()
    found = await checked(service)
    assert [each.outcome for each in found] == ["INCOMPLETE"] * 2
    assert "not yet at {'straitsx': 4" in found[0].message
    await reconcile(service)
    assert overall(await checked(service)) == "ok"
    await as_superuser(service.database, "DELETE FROM ledger.recon_runs")
    assert [each.message for each in await checked(service)] == [
        "XSGD: not reconciled yet", "XUSD: not reconciled yet",
    ]  # fmt: skip
