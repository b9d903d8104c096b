"""A reconciled balance is a claim with evidence, from statement and callbacks to the report."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import takewhile
from typing import Any

import pytest

from ledger.config.reconciliation import rules_of
from ledger.model import plain
from ledger.reconciliation.runner import Reconciler
from ledger.statements.comparison import SELECT_LINES
from ledger.statements.events import PART_BYTES
from tests.asking import Service, payment, payout, serving
from tests.conftest import Database
from tests.dumps import differences, dump, fold_from_zero
from tests.statements import (
    JANUARY,
    decide,
    post_statement,
    reconcile,
    refused_decision,
    refused_statement,
    row,
    statement,
)

NOON = "2026-01-10T12:00:00Z"
LATE = "2026-01-31T23:30:00Z"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def at(moment: str) -> dict[str, str]:
    return {"created_at": moment, "updated_at": moment}


async def books_of_three(service: Service) -> list[dict[str, Any]]:
    """Post two payments (10, fee 0.5) and a payout (20, fee 1); return their rows."""
    await service.post_json("straitsx", payment(1, **at(NOON)))
    await service.post_json("straitsx", payment(2, amount="100.0", fees="0.0", **at(NOON)))
    await service.post_json("straitsx", payout(3, status="completed", **at(NOON)))
    return [
        row("r1", "contract_0001", "10.0", NOON),
        row("r2", "contract_0001", "-0.50", NOON, "Fee"),
        row("r3", "contract_0002", "100", NOON),
        row("r4", "contract_0003", "-20", NOON),
        row("r5", "contract_0003", "-1", NOON, "Fee"),
    ]


async def wallet(service: Service, currency: str = "XSGD") -> dict[str, Any]:
    (found,) = (await service.ask("/v1/wallets", currency=currency))["wallets"]
    return dict(found)


async def open_breaks(service: Service) -> list[dict[str, Any]]:
    found = await service.ask("/v1/breaks", state="OPEN")
    return [each for each in found["breaks"] if each["type"] != "TIMING"]


async def test_a_wallet_without_a_statement_is_incomplete(service: Service) -> None:
    await books_of_three(service)
    await service.fold()
    assert (await wallet(service))["reconciliation"] == {
        "state": "INCOMPLETE", "through": None, "statement_balance": None, "difference": None,
        "breaks": None,
    }  # fmt: skip


async def test_a_wallet_that_agrees_line_by_line_is_reconciled(service: Service) -> None:
    rows = await books_of_three(service)
    done = await post_statement(service, statement(rows))
    assert (done["status"], done["source"], done["position"], done["new"]) == (
        "accepted", "straitsx.statements", 7, 5,
    )  # fmt: skip
    run = await reconcile(service)
    assert run.positions == {"straitsx": 3, "straitsx.statements": 7}
    assert (await wallet(service))["reconciliation"] == {
        "state": "RECONCILED", "through": JANUARY[1], "statement_balance": "88.5",
        "difference": "0", "breaks": 0, "position": run.positions, "current": True,
    }  # fmt: skip
    (shown,) = (await service.ask("/v1/reconciliation"))["reconciliations"]
    assert shown["current"] is True
    figures = shown["figures"]
    assert (figures["matched_in"], figures["matched_out"], figures["fees"]) == (
        "110",
        "-20",
        "-1.5",
    )
    assert (figures["coverage_count"], figures["coverage_value"]) == ("100", "100")
    lines = (await service.ask("/v1/statement_lines", matched="yes"))["statement_lines"]
    assert [(each["line"], each["match"]) for each in lines][:2] == [
        ("r1", "contract:contract_0001"), ("r2", "contract:contract_0001"),
    ]  # fmt: skip


async def test_the_same_file_again_changes_nothing(service: Service) -> None:
    rows = await books_of_three(service)
    first = await post_statement(service, statement(rows))
    again = await post_statement(service, statement(rows))
    assert (again["status"], again["new"]) == ("duplicate", 0)
    assert first["position"] == 7
    assert (await service.ask("/v1/status"))["sources"][-1]["head"] == 7


async def test_a_newer_file_replaces_line_by_line_without_doubling(service: Service) -> None:
    rows = await books_of_three(service)
    wrong = [*rows[:2], row("r3", "contract_0002", "101", NOON), row("gone", None, "7", NOON)]
    await post_statement(service, statement(wrong))
    run = await reconcile(service)
    assert {b.type for b in run.results[0].breaks} == {
        "AMOUNT", "MISSING_AT_PROVIDER", "MISSING_IN_LEDGER",
    }  # fmt: skip
    status, problem = await refused_statement(service, statement(rows))
    assert (status, problem["new"], problem["changed"], problem["withdrawn"]) == (409, 2, 1, 1)
    assert [(each["change"], each["line"], each["amount"]) for each in problem["changes"]] == [
        ("changed", "r3", "101"), ("withdrawn", "gone", "7"),
    ]  # fmt: skip
    done = await post_statement(service, statement(rows), replace="true")
    assert (done["new"], done["changed"], done["withdrawn"]) == (2, 1, 1)
    assert (await reconcile(service)).results[0].state == "RECONCILED"
    first = await post_statement(service, statement(wrong))
    assert first["status"] == "duplicate"


async def test_an_import_looks_its_lines_up_however_long_the_log_is(service: Service) -> None:
    rows = [row(f"r{n}", f"contract_{n}", "1", NOON) for n in range(300)]
    await post_statement(service, statement(rows))
    names = [f"XSGD:r{n}" for n in range(250, 260)]
    begin = datetime(2026, 2, 1, tzinfo=UTC)
    asked = ("straitsx.statements", "XSGD:", names, begin, begin + timedelta(days=1))
    async with service.database.service() as connection:
        (plan,) = await connection.fetchrow(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {SELECT_LINES}", *asked
        )
        assert len(await connection.fetch(SELECT_LINES, *asked)) == 10
    shown = json.dumps(json.loads(plan))
    assert set(re.findall(r'"Index Name": "(\w+)"', shown)) == {
        "events_stated",
        "events_stated_at",
    }
    assert "Seq Scan" not in shown
    assert {*re.findall(r'"Rows Removed by Filter": (\d+)', shown)} <= {"0"}


async def test_a_row_entered_late_takes_its_place_by_the_next_file_that_overlaps(
    service: Service,
) -> None:
    early, late, last = "2026-01-05T00:00:00Z", "2026-01-15T23:00:00Z", "2026-01-15T23:30:00Z"
    for number, moment in ((1, early), (2, late), (3, last)):
        await service.post_json("straitsx", payment(number, fees="0.0", **at(moment)))
    rows = [row(f"r{n}", f"contract_000{n}", "10", m) for n, m in ((1, early), (3, last))]
    noon, end = "2026-01-15T12:00:00Z", "2026-01-16T00:00:00Z"
    await post_statement(service, statement(rows), (JANUARY[0], end))
    (result,) = (await reconcile(service)).results
    assert [each.type for each in result.breaks] == ["TIMING"]
    whole = [row("r2", "contract_0002", "10", late), rows[1]]
    done = await post_statement(service, statement(whole, opening="10"), (noon, JANUARY[1]))
    assert (done["new"], done["changed"], done["unchanged"], done["withdrawn"]) == (1, 0, 1, 0)
    (result,) = (await reconcile(service)).results
    listed_lines = (await service.ask("/v1/statement_lines"))["statement_lines"]
    assert {each["line"]: each["balance"] for each in listed_lines} == {
        "r1": "10", "r2": "20", "r3": "30",
    }  # fmt: skip
    assert (result.state, result.figures["closing"], result.figures["lines"]) == (
        "RECONCILED", "30", 3,
    )  # fmt: skip


async def test_a_file_whose_balance_does_not_add_up_is_refused_by_its_line(
    service: Service,
) -> None:
    body = statement([row("a", "c", "10", NOON), row("b", "d", "5", NOON)])
    broken = body.replace(b'"ledgerBalance":15', b'"ledgerBalance":16')
    status, problem = await refused_statement(service, broken)
    assert status == 422
    assert "line 2" in problem["detail"]
    assert (await service.ask("/v1/statements"))["statements"] == []
    status, _ = await refused_statement(service, body, source="nobody")
    assert status == 404


async def test_a_gap_between_statements_is_incomplete(service: Service) -> None:
    rows = await books_of_three(service)
    await post_statement(service, statement(rows))
    march = ("2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z")
    await post_statement(service, statement([], opening="88.5"), march)
    (result,) = (await reconcile(service)).results
    assert result.state == "INCOMPLETE"
    assert "no statement covers 2026-02-01" in result.reasons[0]
    february = ("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z")
    await post_statement(service, statement([], opening="88.50"), february)
    assert (await reconcile(service)).results[0].state == "RECONCILED"
    assert (await wallet(service))["reconciliation"]["through"] == march[1]


async def test_what_is_in_transit_is_no_break_until_it_ages(service: Service) -> None:
    rows = await books_of_three(service)
    await service.post_json("straitsx", payment(4, amount="5.0", fees="0.0", **at(LATE)))
    await post_statement(service, statement(rows))
    (result,) = (await reconcile(service)).results
    assert (result.state, result.figures["in_transit"]) == ("RECONCILED_WITH_TIMING", "5")
    assert (await wallet(service))["reconciliation"]["difference"] == "5"
    february = ("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z")
    await post_statement(service, statement([], opening="88.5"), february)
    (result,) = (await reconcile(service)).results
    assert [each.type for each in result.breaks] == ["MISSING_AT_PROVIDER"]


async def test_a_line_over_midnight_matches_across_the_cut_off(service: Service) -> None:
    await service.post_json("straitsx", payment(1, **at("2026-02-01T00:00:20Z")))
    rows = [row("r1", "contract_0001", "10", LATE), row("r2", "contract_0001", "-0.5", LATE, "Fee")]
    await post_statement(service, statement(rows))
    (result,) = (await reconcile(service)).results
    assert (result.state, result.figures["in_transit"], result.figures["residual"]) == (
        "RECONCILED_WITH_TIMING", "-9.5", "0",
    )  # fmt: skip


async def test_equal_amounts_on_both_sides_of_the_cut_off_are_a_break_once_they_aged(
    service: Service,
) -> None:
    await service.post_json("straitsx", payment(1, fees="0.0", **at("2026-02-20T00:00:20Z")))
    await post_statement(service, statement([row("r1", "contract_0001", "10", NOON)]))
    (result,) = (await reconcile(service)).results
    (found,) = result.breaks
    assert (result.state, found.type, found.state) == ("BREAKS", "STATUS", "OPEN")
    assert (found.gap, result.figures["residual"]) == (-10, "0")
    assert "date it at 2026-02-20T00:00:20" in found.detail
    assert result.matches == ()


async def test_a_period_longer_than_the_file_states_is_refused(service: Service) -> None:
    stated = {"openingBalance": 0, "closingBalance": 0, "from": JANUARY[0],
              "to": "2026-01-05T00:00:00Z"}  # fmt: skip
    body = json.dumps({"data": [], "meta": stated}).encode()
    status, shown = await refused_statement(service, body)
    assert (status, "states that it covers 2026-01-01" in shown["detail"]) == (422, True)
    assert (await service.ask("/v1/statements"))["statements"] == []


async def planted(service: Service) -> dict[str, dict[str, Any]]:
    """Books and a statement with one break of many types; return them by contract or line."""
    rows = await books_of_three(service)
    await service.post_json("straitsx", payment(5, fees="0.0", **at(NOON)))
    await service.post_json("straitsx", payment(6, fees="0.0", amount="7.0", **at(NOON)))
    await service.post_json("straitsx", payment(7, fees="0.0", amount="8.0", **at(NOON)))
    await service.post_json("straitsx", payment(8, fees="0.0", amount="9.0", **at(NOON)))
    rows += [
        row("f1", "contract_0005", "10", NOON), row("f2", "contract_0005", "-0.25", NOON, "Fee"),
        row("o1", "contract_0006", "7.000001", NOON),
        row("d1", "contract_0007", "8", NOON), row("d2", "contract_0007", "8", LATE),
        row("x1", "nobody", "3", NOON),
    ]  # fmt: skip
    await post_statement(service, statement(rows))
    await reconcile(service)
    return {each["anchor"]: each for each in await open_breaks(service)}


async def test_decisions_are_events_that_move_the_books_as_declared(service: Service) -> None:
    found = await planted(service)
    assert {anchor: each["type"] for anchor, each in found.items()} == {
        "contract:contract_0005": "FEE",
        "contract:contract_0006": "AMOUNT",
        "line:d2": "DUPLICATE_PROVIDER",
        "contract:contract_0008": "MISSING_AT_PROVIDER",
        "contract:nobody": "MISSING_IN_LEDGER",
    }
    await decide(service, found["contract:contract_0005"]["id"], "post_fee")
    await decide(service, found["contract:contract_0006"]["id"], "write_off")
    await decide(service, found["line:d2"]["id"], "void")
    await decide(service, found["contract:contract_0008"]["id"], "void")
    await decide(service, found["contract:nobody"]["id"], "write_off", account="equity:merchant")
    (result,) = (await reconcile(service)).results
    assert (result.state, result.figures["residual"], result.figures["difference"]) == (
        "RECONCILED", "0", "0",
    )  # fmt: skip
    assert {each.state for each in result.breaks} == {"RESOLVED"}
    entries = (await service.ask("/v1/entries", limit=1000))["entries"]
    posted = {
        (each["transaction"], each["account"]): each["amount"]
        for each in entries if each["kind"] == "adjustment"
    }  # fmt: skip
    by_anchor = {anchor: each["id"] for anchor, each in found.items()}
    assert posted == {
        (by_anchor["contract:contract_0005"], "assets:wallet:available"): "-0.25",
        (by_anchor["contract:contract_0005"], "expenses:fees"): "0.25",
        (by_anchor["contract:contract_0006"], "assets:wallet:available"): "0.000001",
        (by_anchor["contract:contract_0006"], "expenses:differences"): "-0.000001",
        (by_anchor["line:d2"], "assets:wallet:available"): "8",
        (by_anchor["line:d2"], "suspense"): "-8",
        (by_anchor["contract:contract_0008"], "assets:wallet:available"): "-9",
        (by_anchor["contract:contract_0008"], "equity:merchant"): "9",
        (by_anchor["contract:nobody"], "assets:wallet:available"): "3",
        (by_anchor["contract:nobody"], "equity:merchant"): "-3",
    }


async def test_every_difference_is_books_minus_statement_everywhere(service: Service) -> None:
    found = await planted(service)
    assert {anchor: (each["difference"], each["gap"]) for anchor, each in found.items()} == {
        "contract:contract_0005": ("0.25", "0.25"),
        "contract:contract_0006": ("-0.000001", "-0.000001"),
        "line:d2": ("-8", "-8"),
        "contract:contract_0008": ("9", "9"),
        "contract:nobody": ("-3", "-3"),
    }
    (run,) = (await service.ask("/v1/reconciliation"))["reconciliations"]
    figures = run["figures"]
    sums = {each["type"]: each["gap"] for each in figures["by_type"]}
    assert sums == {each["type"]: each["gap"] for each in found.values()}
    ledger, closing = Decimal(figures["ledger"]), Decimal(figures["closing"])
    assert figures["difference"] == figures["breaks"] == plain(ledger - closing) == "-1.750001"
    assert (await wallet(service))["reconciliation"]["difference"] == "-1.750001"
    async with service.client.get("/reconciliation/straitsx/XSGD", params={"as": "csv"}) as answer:
        rows = list(csv.reader(io.StringIO(await answer.text())))
    assert ["differences and gaps", "books - statement"] in rows
    head = next(place for place, row in enumerate(rows) if row[:1] == ["id"])
    breaks = takewhile(bool, rows[head + 1 :])  # the roll-forward follows after an empty row
    shown = [dict(zip(rows[head], row, strict=True)) for row in breaks]
    assert {each["id"]: (Decimal(each["difference"]), Decimal(each["gap"])) for each in shown} == {
        each["id"]: (Decimal(each["difference"]), Decimal(each["gap"])) for each in found.values()
    }
    await decide(service, found["contract:nobody"]["id"], "write_off")
    await reconcile(service)
    (again,) = (await service.ask("/v1/breaks", state="RESOLVED"))["breaks"]
    assert (again["difference"], again["gap"]) == ("-3", "0")


async def test_decisions_survive_a_rebuild_and_so_does_the_result(service: Service) -> None:
    found = await planted(service)
    for each in found.values():
        if each["type"] != "DUPLICATE_PROVIDER":
            await decide(service, each["id"], "write_off")
    before = await reconcile(service)
    again = await fold_from_zero(service.database.service_dsn, service.database.settings)
    async with service.database.service() as connection:
        one = await dump(connection, service.generation)
        assert differences(one, await dump(connection, again)) == {}
        from ledger.books.generations import try_swap

        assert await try_swap(connection, again)
    after = await reconcile(service)
    assert after.generation == again
    assert (await service.ask("/v1/reconciliation"))["reconciliations"][0]["current"] is True
    await service.post_json("straitsx", payment(9, **at(NOON)))
    async with service.database.service() as connection:
        await connection.execute("UPDATE ledger.generations SET state = 'previous' "
                                 "WHERE state = 'live'")  # fmt: skip
        await connection.execute("UPDATE ledger.generations SET state = 'live' "
                                 "WHERE generation = $1", service.generation)  # fmt: skip
    back = await reconcile(service)
    assert back.generation == service.generation
    assert (await service.ask("/v1/reconciliation"))["reconciliations"][0]["current"] is True
    assert [r.sha256 for r in after.results] == [r.sha256 for r in before.results]


async def test_reopening_takes_the_posting_back(service: Service) -> None:
    found = await planted(service)
    id_ = found["contract:nobody"]["id"]
    await decide(service, id_, "write_off")
    await reconcile(service)
    status, shown = await refused_decision(service, id_, action="write_off")
    assert (status, "not open" in shown) == (409, True)
    await decide(service, id_, "note")
    await decide(service, id_, "reopen")
    await reconcile(service)
    (again,) = (await service.ask("/v1/breaks", id=id_))["breaks"]
    assert (again["state"], again["gap"], again["action"]) == ("OPEN", "-3", "reopen")
    entries = (await service.ask("/v1/entries", transaction=id_))["entries"]
    assert sum(float(each["amount"]) for each in entries if "wallet" in each["account"]) == 0


async def test_items_may_be_matched_by_hand_and_only_once(service: Service) -> None:
    await service.post_json("straitsx", payment(1, fees="0.0", **at(NOON)))
    await service.post_json("straitsx", payment(2, fees="0.0", **at(NOON)))
    rows = [row("x1", "other_a", "10", NOON), row("x2", "other_b", "10", NOON)]
    await post_statement(service, statement(rows))
    await reconcile(service)
    found = {each["anchor"]: each["id"] for each in await open_breaks(service)}
    pair = ["line:x1", "payment:contract_0001"]
    await decide(service, found["contract:other_a"], "match", items=pair)
    (result,) = (await reconcile(service)).results
    assert (result.figures["breaks_count"], result.figures["lines_matched"]) == (2, 1)
    status, shown = await refused_decision(
        service, found["contract:other_b"], action="match",
        items=["line:x2", "payment:contract_0001"],
    )  # fmt: skip
    assert (status, "is already matched" in shown) == (409, True)
    status, shown = await refused_decision(
        service, found["contract:other_b"], action="match", items=["line:x2"]
    )
    assert (status, "differ by -10 XSGD (books - statement)" in shown) == (409, True)
    status, shown = await refused_decision(
        service, found["contract:other_b"], action="match", items=["line:x2", "payment:nobody"]
    )
    assert (status, "payment:nobody: the XSGD wallet has no" in shown) == (400, True)
    rest = ["line:x2", "payment:contract_0002"]
    await decide(service, found["contract:other_b"], "match", items=rest)
    (result,) = (await reconcile(service)).results
    assert (result.state, len(result.matches)) == ("RECONCILED", 2)
    await decide(service, found["contract:other_a"], "reopen")
    (result,) = (await reconcile(service)).results
    assert (result.state, result.figures["breaks_count"]) == ("BREAKS", 2)


async def test_what_is_matched_by_hand_may_be_far_apart(service: Service) -> None:
    await service.post_json("straitsx", payment(1, fees="0.0", **at("2025-12-20T12:00:00Z")))
    await post_statement(service, statement([row("x1", None, "10", NOON)]))
    await reconcile(service)
    found = {each["anchor"]: each["id"] for each in await open_breaks(service)}
    pair = ["line:x1", "payment:contract_0001"]
    await decide(service, found["line:x1"], "match", items=pair)
    (result,) = (await reconcile(service)).results
    assert (result.state, [match.keys for match in result.matches]) == ("RECONCILED", [tuple(pair)])


async def test_a_decision_whose_break_is_gone_can_only_be_taken_back(service: Service) -> None:
    await service.post_json("straitsx", payment(1, fees="0.0", **at(NOON)))
    rows = [row("r1", "contract_0001", "10", NOON), row("x1", None, "3", NOON)]
    await post_statement(service, statement(rows))
    await reconcile(service)
    (found,) = await open_breaks(service)
    await decide(service, found["id"], "write_off")
    await reconcile(service)
    await post_statement(service, statement(rows[:1]), replace="true")
    (result,) = (await reconcile(service)).results
    assert [(b.state, b.gap, b.items) for b in result.breaks] == [
        ("OPEN", 3, (f"adjustment:{found['id']}",))
    ]
    for action in ("write_off", "void", "match", "post_fee"):
        status, shown = await refused_decision(service, found["id"], action=action)
        assert (status, "reopen it" in shown) == (409, True), action
    await decide(service, found["id"], "reopen")
    (result,) = (await reconcile(service)).results
    assert (result.state, result.breaks) == ("RECONCILED", ())


async def test_a_break_with_nothing_but_notes_can_vanish_and_be_noted_again(
    service: Service,
) -> None:
    await post_statement(service, statement([row("x1", None, "3", NOON)]))
    await reconcile(service)
    (found,) = await open_breaks(service)
    await decide(service, found["id"], "note")
    await reconcile(service)
    status, shown = await refused_decision(service, found["id"], action="reopen")
    assert (status, "has no decision yet" in shown) == (409, True)
    await post_statement(service, statement([]), replace="true")
    await reconcile(service)
    await decide(service, found["id"], "note")
    status, shown = await refused_decision(service, found["id"], action="reopen")
    assert (status, "has no decision yet" in shown) == (409, True)


async def test_an_opening_balance_is_written_off_not_voided(service: Service) -> None:
    await post_statement(service, statement([], opening="20"))
    await reconcile(service)
    (found,) = await open_breaks(service)
    status, shown = await refused_decision(service, found["id"], action="void")
    assert (status, "write_off posts to equity:opening" in shown) == (400, True)


async def test_an_import_is_reconciled_at_once_however_long_the_last_run_took(
    service: Service,
) -> None:
    reconciler = Reconciler(service.database.service_dsn, service.database.settings)
    async with service.database.service() as connection:
        for number, opening in enumerate(("1", "2")):
            window = (f"2026-0{number + 1}-01T00:00:00Z", f"2026-0{number + 2}-01T00:00:00Z")
            await post_statement(service, statement([], opening=opening), window)
            await service.fold()
            await reconciler.round(connection)
            reconciler._rest_until["straitsx"] = float("inf")
    (shown,) = (await service.ask("/v1/reconciliation"))["reconciliations"]
    assert shown["through"] == "2026-03-01T00:00:00Z"


async def test_a_line_is_in_one_live_match_by_constraint(service: Service) -> None:
    rows = await books_of_three(service)
    await post_statement(service, statement(rows))
    await reconcile(service)
    async with service.database.service() as connection:
        with pytest.raises(Exception, match="recon_matches_pkey"):
            await connection.execute(
                "INSERT INTO ledger.recon_matches VALUES ('straitsx', 'XSGD', 'line:r1', 'x', 'y')"
            )


async def test_decisions_that_do_not_suit_are_refused(service: Service) -> None:
    found = await planted(service)
    missing, amount = found["contract:contract_0008"]["id"], found["contract:contract_0006"]["id"]
    assert (await refused_decision(service, "nothing", action="note"))[0] == 404
    assert (await refused_decision(service, missing, action="post_fee"))[0] == 400
    assert (await refused_decision(service, amount, action="void"))[0] == 400
    assert (await refused_decision(service, amount, action="reopen"))[0] == 409
    assert (await refused_decision(service, amount, action="vanish"))[0] == 400
    assert (await refused_decision(service, amount, action="note", by=" "))[0] == 400
    account = "assets:wallet:available"
    assert (await refused_decision(service, amount, action="write_off", account=account))[0] == 400


async def test_a_declared_tolerance_is_posted_to_the_difference_account(
    database: Database,
) -> None:
    from ledger.config.reconciliation import Rules

    async with serving(database) as service:
        await planted(service)
        straitsx = replace(
            database.settings.sources["straitsx"],
            reconcile=Rules(tolerance={"XSGD": Decimal("0.00001")}),
        )
        sources = {**database.settings.sources, "straitsx": straitsx}
        await reconcile(service, sources=sources)
        run = await reconcile(service, sources=sources)
        again = await reconcile(service, sources=sources)
        assert again.positions == run.positions
        (found,) = [b for b in again.results[0].breaks if b.type == "AMOUNT"]
        assert (found.state, found.action, found.decided_by) == ("RESOLVED", "tolerance", "rule")
        (account,) = (await service.ask("/v1/balances", account="expenses:differences"))["balances"]
        assert account["balance"] == "-0.000001"


async def test_usd_and_xusd_are_two_currencies(service: Service) -> None:
    await service.post_json("straitsx", payment(1, currency="xusd", fees="0.0", **at(NOON)))
    await post_statement(
        service, statement([row("u1", "contract_0001", "10", NOON)]), currency="USD"
    )
    await post_statement(service, statement([]), currency="XUSD")
    run = await reconcile(service)
    assert [(r.currency, [(b.type, b.gap) for b in r.breaks]) for r in run.results] == [
        ("USD", [("CURRENCY", -10)]),
        ("XUSD", [("CURRENCY", 10)]),
    ]


async def test_the_report_is_the_same_bytes_for_the_same_inputs(service: Service) -> None:
    await planted(service)
    pages = []
    for _ in range(2):
        async with service.client.get("/reconciliation/straitsx/xsgd") as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/html"
            pages.append(await answer.read())
        await reconcile(service)
    assert pages[0] == pages[1]
    text = pages[0].decode()
    for word in (
        "BREAKS",
        "DUPLICATE_PROVIDER",
        "line:d2",
        "Residual",
        "rules (SHA-256)",
        "the ledger's amount minus the statement's",
    ):
        assert word in text
    async with service.client.get("/reconciliation/straitsx/xsgd", params={"as": "csv"}) as answer:
        assert answer.content_type == "text/csv"
        rows = (await answer.text()).split("\r\n")
    assert rows[0] == "field,value"
    assert "residual,0.000000" in rows
    status, _ = await service.refused("/reconciliation/straitsx/USDT")
    assert status == 404


SECOND = [row("s1", "contract_0099", "7", NOON)]


async def listed(service: Service, **asked: str) -> list[dict[str, Any]]:
    await service.fold()
    return [dict(each) for each in (await service.ask("/v1/statements", **asked))["statements"]]


async def withdraw(service: Service, sha256: str, **shown: str) -> tuple[int, dict[str, Any]]:
    body = {"by": "ann", "note": "the sandbox's", **shown}
    path = f"/v1/statements/straitsx/{sha256}/withdraw"
    async with service.client.post(path, json=body) as answer:
        return answer.status, dict(await answer.json(content_type=None))


async def test_a_mistaken_statement_is_withdrawn_and_the_right_one_stated_again(
    service: Service,
) -> None:
    rows = await books_of_three(service)
    right, wrong = statement(rows), statement([*rows[:2], *SECOND])
    await post_statement(service, right)
    status, problem = await refused_statement(service, wrong, (JANUARY[0], "2062-02-01T00:00:00Z"))
    assert (status, "in the future" in problem["detail"]) == (422, True)
    await post_statement(service, wrong, (JANUARY[0], "2026-03-01T00:00:00Z"), replace="true")
    assert (await reconcile(service)).results[0].state == "BREAKS"
    sha256 = (await listed(service))[0]["sha256"]
    status, done = await withdraw(service, sha256)
    assert (status, done["files"], done["lines"]) == (200, 1, 1)
    (result,) = (await reconcile(service)).results
    assert (result.state, result.coverage.period.cutoff.month) == ("INCOMPLETE", 2)
    assert (await post_statement(service, right))["status"] == "duplicate"
    done = await post_statement(service, right, again="yes")
    assert (done["status"], done["new"], done["changed"]) == ("accepted", 3, 0)
    assert (await reconcile(service)).results[0].state == "RECONCILED"
    shown = {each["sha256"]: (each["status"], each["by"]) for each in await listed(service)}
    assert shown[sha256] == ("withdrawn", "ann")
    assert (await withdraw(service, sha256))[0] == 404
    assert (await withdraw(service, sha256, note=" "))[0] == 400


async def test_a_withdrawn_file_does_not_come_back_by_itself(service: Service) -> None:
    rows = await books_of_three(service)
    await post_statement(service, statement(rows))
    assert (await reconcile(service)).results[0].state == "RECONCILED"
    (only,) = await listed(service)
    assert (await withdraw(service, only["sha256"]))[0] == 200
    assert (await reconcile(service)).results == []
    assert (await wallet(service))["reconciliation"]["state"] == "INCOMPLETE"
    assert (await service.ask("/v1/reconciliation"))["reconciliations"] == []
    assert (await service.ask("/v1/breaks"))["breaks"] == []
    status, problem = await refused_statement(service, statement(rows))
    assert (status, "--again" in problem["detail"]) == (409, True)
    done = await post_statement(service, statement(rows), again="yes")
    assert (done["new"], done["changed"]) == (5, 0)
    assert (await reconcile(service)).results[0].state == "RECONCILED"


async def test_lines_stated_before_are_stated_again_by_the_same_file_of_another_period(
    service: Service,
) -> None:
    rows = await books_of_three(service)
    await post_statement(service, statement(rows))
    other = [*rows[:2], row("r3", "contract_0002", "99", NOON), *rows[3:]]
    await post_statement(service, statement(other), replace="true")
    longer = JANUARY[0], "2026-02-02T00:00:00Z"
    done = await post_statement(service, statement(rows), longer, replace="true")
    assert (done["changed"], done["unchanged"]) == (1, 4)  # the balances after it are others, too
    assert (await reconcile(service)).results[0].state == "RECONCILED"


async def test_a_file_is_kept_byte_for_byte(service: Service) -> None:
    file = statement(await books_of_three(service)) + b" " * (2 * PART_BYTES)
    await post_statement(service, file)
    (shown,) = await listed(service)
    path = f"/v1/statements/straitsx/{shown['sha256']}/file"
    async with service.client.get(path) as answer:
        assert (answer.status, await answer.read()) == (200, file)
    async with service.client.get(path.replace(shown["sha256"], "0" * 64)) as answer:
        assert answer.status == 404
    again = await fold_from_zero(service.database.service_dsn, service.database.settings)
    async with service.database.service() as connection:
        one = await dump(connection, service.generation)
        assert differences(one, await dump(connection, again)) == {}


async def test_a_reconciliation_state_names_newer_books(service: Service) -> None:
    await post_statement(service, statement(await books_of_three(service)))
    run = await reconcile(service)
    await service.post_json("straitsx", payment(9, amount="5.0", fees="0.0", **at(NOON)))
    await service.fold()
    claim = (await wallet(service))["reconciliation"]
    assert (claim["state"], claim["current"], claim["position"]) == (
        "RECONCILED", False, run.positions,
    )  # fmt: skip
    await reconcile(service)
    claim = (await wallet(service))["reconciliation"]
    assert (claim["state"], claim["current"], claim["breaks"]) == ("BREAKS", True, 1)


async def test_a_wallet_without_a_statement_is_listed_beside_the_runs(service: Service) -> None:
    await post_statement(service, statement(await books_of_three(service)))
    await service.post_json("straitsx", payment(8, currency="xusd", **at(NOON)))
    await reconcile(service)
    shown = await service.ask("/v1/reconciliation")
    assert [each["currency"] for each in shown["reconciliations"]] == ["XSGD"]
    assert shown["without_statement"] == [
        {"source": "straitsx", "currency": "XUSD", "total": "9.5"}
    ]
    assert (await service.ask("/v1/reconciliation", currency="xsgd"))["without_statement"] == []


async def test_a_wallet_with_a_statement_and_nothing_in_the_ledger_is_listed(
    service: Service,
) -> None:
    rows = [row("r1", "contract_0001", "10", NOON)]
    await post_statement(service, statement(rows, opening="100"))
    await reconcile(service)
    shown = await wallet(service)
    assert [shown[name] for name in ("available", "held", "pending_in", "total")] == ["0"] * 4
    claim = shown["reconciliation"]
    assert (claim["state"], claim["statement_balance"], claim["difference"]) == (
        "BREAKS", "110", "-110",
    )  # fmt: skip
    (run,) = (await service.ask("/v1/reconciliation"))["reconciliations"]
    assert (run["currency"], run["figures"]["ledger"]) == ("XSGD", "0")
    async with service.client.get("/reconciliation") as answer:
        assert "straitsx XSGD" in await answer.text()
    for currency in ("xusd", "XUSD,SGD"):
        assert (await service.ask("/v1/wallets", currency=currency))["wallets"] == []


async def test_pages_of_wallets_hold_those_with_a_statement_only(service: Service) -> None:
    await service.post_json("straitsx", payment(8, currency="xusd", **at(NOON)))
    await post_statement(service, statement([row("r1", "contract_0001", "10", NOON)]))
    await reconcile(service)
    first = await service.ask("/v1/wallets", limit=1)
    second = await service.ask("/v1/wallets", limit=1, cursor=first["next"])
    listed = [each["currency"] for page in (first, second) for each in page["wallets"]]
    assert (listed, second["next"]) == (["XSGD", "XUSD"], None)


async def test_a_withdrawn_statement_lists_no_wallet(service: Service) -> None:
    done = await post_statement(service, statement([row("r1", "contract_0001", "10", NOON)]))
    path = f"/v1/statements/straitsx/{done['sha256']}/withdraw"
    async with service.client.post(path, json={"by": "ann", "note": "of a test"}) as answer:
        assert answer.status == 200, await answer.text()
    await reconcile(service)
    assert (await service.ask("/v1/wallets"))["wallets"] == []
    assert (await service.ask("/v1/reconciliation"))["reconciliations"] == []


async def test_years_may_be_cut_off_where_a_statement_begins(service: Service) -> None:
    found = await planted(service)
    for each in found.values():
        await decide(service, each["id"], "write_off")
    (whole,) = (await reconcile(service)).results
    assert whole.state == "RECONCILED"
    closing = whole.figures["closing"]
    february = ("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z")
    await service.post_json(
        "straitsx", payment(9, amount="5.0", fees="0.0", **at("2026-02-03T00:00:00Z"))
    )
    rows = [row("n1", "contract_0009", "5", "2026-02-03T00:00:00Z")]
    await post_statement(service, statement(rows, opening=closing), february)
    sources = service.database.settings.sources
    rules = rules_of({"since": february[0]})
    sources = {**sources, "straitsx": replace(sources["straitsx"], reconcile=rules)}
    (result,) = (await reconcile(service, sources=sources)).results
    assert (result.state, result.figures["lines"], result.breaks) == ("RECONCILED", 1, ())
    assert (result.figures["opening"], result.figures["transactions"]) == (closing, 1)
    await service.post_json("straitsx", payment(10, amount="3.0", fees="0.0", **at(NOON)))
    (result,) = (await reconcile(service, sources=sources)).results
    assert [(each.type, each.gap) for each in result.breaks] == [("OPENING", 3)]
