"""Breaks are looked at: both sides, candidates, every note, in any order, with totals."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from tests.asking import Service, payment, payout, serving
from tests.conftest import Database
from tests.statements import decide, post_statement, reconcile, row, statement

NOON = "2026-01-10T12:00:00Z"
LATE = "2026-01-31T23:30:00Z"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def at(moment: str) -> dict[str, str]:
    return {"created_at": moment, "updated_at": moment}


async def planted(service: Service) -> dict[str, dict[str, Any]]:
    """Reconcile books and a statement with breaks of several types; return them by anchor."""
    await service.post_json("straitsx", payment(1, fees="0.0", **at(NOON)))
    await service.post_json("straitsx", payout(3, status="completed", **at(NOON)))
    await service.post_json("straitsx", payment(4, amount="7.5", fees="0.5", **at(NOON)))
    await service.post_json("straitsx", payout(5, status="pending", **at(NOON)))
    await service.post_json("straitsx", payment(6, amount="2.0", fees="0.0", **at(LATE)))
    rows = [
        row("r1", None, "10", NOON),
        row("r3", "contract_0003", "-20", NOON),
        row("r4", None, "7", "2026-01-14T12:00:00Z"),
        row("r5", "contract_0005", "-20", NOON),
        row("r9", "contract_9999", "-3", NOON),
    ]
    await post_statement(service, statement(rows))
    await reconcile(service)
    return {each["anchor"]: each for each in (await service.ask("/v1/breaks"))["breaks"]}


async def test_a_break_shows_both_sides_and_what_may_belong_to_it(service: Service) -> None:
    found = await planted(service)
    fee = found["contract:contract_0003"]
    assert (fee["type"], fee["time_zone"]) == ("FEE", "UTC")
    assert fee["lines"] == [
        {
            "line": "r3", "effective_at": NOON, "booked_at": NOON, "amount": "-20",
            "kind": "Bank Transfer Out", "counterparty": None, "description": None,
            "references": ["contract_0003", "r3"],
            "href": "/v1/statement_lines?source=straitsx&line=r3",
        }
    ]  # fmt: skip
    (transaction,) = fee["transactions"]
    assert transaction == {
        "kind": "payout", "id": "contract_0003", "effective_at": NOON, "amount": "-21",
        "fee": "1", "status": "completed", "customer_id": transaction["customer_id"],
        "counterparty": None, "references": ["idem-0003"],
        "href": "/v1/transactions/straitsx/contract_0003?kind=payout",
    }  # fmt: skip
    for each in (fee["lines"][0], transaction):
        async with service.client.get(each["href"]) as answer:
            assert answer.status == 200
    (candidate,) = found["line:r4"]["candidates"]
    assert candidate == {
        "item": "payment:contract_0004", "side": "books", "effective_at": NOON, "amount": "7",
        "counterparty": None, "description": None, "reason": "same amount, 4 days apart",
    }  # fmt: skip
    back = found["contract:contract_0004"]
    assert [each["item"] for each in back["candidates"]] == ["line:r4"]
    assert (back["lines"], back["transactions"][0]["amount"]) == ([], "7")


async def test_a_transaction_that_a_line_names_in_vain_is_shown_with_what_it_moved(
    service: Service,
) -> None:
    found = await planted(service)
    status = found["contract:contract_0005"]
    (transaction,) = status["transactions"]
    assert (status["type"], transaction["status"], transaction["amount"]) == (
        "STATUS", "pending", "0",
    )  # fmt: skip
    assert found["contract:contract_9999"]["transactions"] == []


async def test_a_break_of_a_fee_and_one_of_the_amount_show_each_its_part(
    service: Service,
) -> None:
    await service.post_json("straitsx", payout(3, status="completed", **at(NOON)))
    rows = [
        row("r1", "contract_0003", "-70", NOON), row("r2", "contract_0003", "-51", NOON, "Fee"),
    ]  # fmt: skip
    await post_statement(service, statement(rows))
    await reconcile(service)
    listed = (await service.ask("/v1/breaks"))["breaks"]
    parts = {
        each["type"]: ([line["amount"] for line in each["lines"]],
                       [(move["amount"], move["fee"]) for move in each["transactions"]])
        for each in listed
    }  # fmt: skip
    assert parts == {"AMOUNT": (["-70"], [("-20", None)]), "FEE": (["-51"], [("-1", "1")])}
    for each in listed:
        shown = sum(Decimal(move["amount"]) for move in each["transactions"])
        stated = sum(Decimal(line["amount"]) for line in each["lines"])
        assert shown - stated == Decimal(each["difference"])


async def test_one_break_is_answered_whole(service: Service) -> None:
    found = await planted(service)
    listed = found["contract:contract_0003"]
    whole = await service.ask(listed["href"])
    position = whole.pop("position")
    assert whole == listed
    assert position["straitsx"] == 5
    status, problem = await service.refused("/v1/breaks/0000000000000000")
    assert (status, "there is no break" in problem["detail"]) == (404, True)


async def test_every_note_and_decision_is_shown_with_or_without_a_decision(
    service: Service,
) -> None:
    found = await planted(service)
    fee, transit = found["contract:contract_0003"], found["contract:contract_0006"]
    assert transit["type"] == "TIMING"
    await decide(service, fee["id"], "note", note="asked the bank")
    await decide(service, fee["id"], "post_fee", note="they charge it")
    await decide(service, fee["id"], "note", by="bob", note="seen")
    await decide(service, transit["id"], "note", note="comes on Monday")
    await reconcile(service)
    fee, transit = [await service.ask(each["href"]) for each in (fee, transit)]
    assert [(step["action"], step["by"], step["note"]) for step in fee["history"]] == [
        ("note", "ann", "asked the bank"), ("post_fee", "ann", "they charge it"),
        ("note", "bob", "seen"),
    ]  # fmt: skip
    assert (fee["state"], fee["action"], fee["note"]) == ("RESOLVED", "post_fee", "they charge it")
    assert [step["position"] for step in fee["history"]] == [6, 7, 8]
    assert [(step["note"], step["at"][-1]) for step in transit["history"]] == [
        ("comes on Monday", "Z")
    ]
    assert transit["note"] == "comes on Monday"


async def test_breaks_are_sorted_over_pages_even_where_they_are_equal(service: Service) -> None:
    for number in range(1, 8):
        moment = f"2026-01-{number % 3 + 1:02}T12:00:00Z"
        amount = "5.0" if number < 5 else f"{number}.5"
        await service.post_json(
            "straitsx", payment(number, amount=amount, fees="0.0", **at(moment))
        )
    await post_statement(service, statement([row("x", "nobody", "6", NOON)]))
    await reconcile(service)
    by_id = {each["id"]: each for each in (await service.ask("/v1/breaks"))["breaks"]}
    for sort, value in (("amount", "gap"), ("age", "age_days")):
        for sign in ("", "-"):
            pages = await service.pages("/v1/breaks", "breaks", sort=f"{sign}{sort}", limit=3)
            assert [len(page) for page in pages] == [3, 3, 2]
            listed = [each for page in pages for each in page]
            assert listed == sorted(
                by_id.values(),
                key=lambda each: (abs(Decimal(each[value])), each["id"]),
                reverse=bool(sign),
            ), f"sort={sign}{sort}"
    cursor = (await service.ask("/v1/breaks", sort="amount", limit=1))["next"]
    status, _ = await service.refused("/v1/breaks", sort="-amount", cursor=cursor)
    assert status == 400


async def test_totals_are_of_everything_that_the_filters_select(service: Service) -> None:
    await planted(service)
    answer = await service.ask("/v1/breaks", limit=1)
    everything = [each for page in await service.pages("/v1/breaks", "breaks") for each in page]
    (total,) = answer["totals"]
    assert (total["currency"], total["count"]) == ("XSGD", len(everything))
    for name in ("difference", "gap"):
        assert Decimal(total[name]) == sum(Decimal(each[name]) for each in everything)
    types = {each["type"]: each["count"] for each in answer["totals_by_type"]}
    assert sum(types.values()) == total["count"]
    few = await service.ask("/v1/breaks", type="FEE,STATUS", amount_min="20", limit=1)
    assert [(each["type"], each["gap"]) for each in few["breaks"]] == [("STATUS", "20")]
    assert [(each["count"], each["gap"]) for each in few["totals"]] == [(1, "20")]
    none = await service.ask("/v1/breaks", from_="2026-02-01T00:00:00Z")
    assert (none["breaks"], none["totals"]) == ([], [])
    early = await service.ask("/v1/breaks", to="2026-01-11T00:00:00Z", amount_max="1")
    assert [each["gap"] for each in early["breaks"]] == ["-1"]


async def test_matches_are_listed_with_the_rule_that_made_them(service: Service) -> None:
    await planted(service)
    answer = await service.ask("/v1/matches", source="straitsx", currency="xsgd")
    gross, match = answer["matches"]
    assert (gross["rule"], gross["anchor"], gross["amount"]) == (
        "contract", "contract:contract_0003#gross", "-20",
    )  # fmt: skip
    assert (match["rule"], match["anchor"], match["amount"]) == ("amount", "line:r1", "10")
    assert [each["line"] for each in match["lines"]] == ["r1"]
    assert [each["id"] for each in match["transactions"]] == ["contract_0001"]
    assert answer["totals"] == [
        {"rule": rule, "count": 1, "lines": 1, "transactions": 1, "value": value,
         "source": "straitsx", "currency": "XSGD"}
        for rule, value in (("amount", "10"), ("contract", "20"))
    ]  # fmt: skip
    assert (await service.ask("/v1/matches", rule="contract"))["matches"] == [gross]
    lines = (await service.ask("/v1/statement_lines", matched_by="amount"))["statement_lines"]
    assert [each["line"] for each in lines] == ["r1"]
    assert (await service.ask("/v1/statement_lines", matched_by="hand"))["statement_lines"] == []
    (run,) = (await service.ask("/v1/reconciliation"))["reconciliations"]
    assert [(each["rule"], each["count"]) for each in run["figures"]["by_rule"]] == [
        ("amount", 1), ("contract", 1),
    ]  # fmt: skip


async def test_matches_are_paged_by_wallet_and_anchor(service: Service) -> None:
    for number in range(1, 6):
        await service.post_json("straitsx", payment(number, fees="0.0", **at(NOON)))
    rows = [row(f"r{number}", f"contract_{number:04}", "10", NOON) for number in range(1, 6)]
    await post_statement(service, statement(rows))
    await reconcile(service)
    pages = await service.pages("/v1/matches", "matches", limit=2)
    assert [[each["anchor"][-1] for each in page] for page in pages] == [
        ["1", "2"], ["3", "4"], ["5"],
    ]  # fmt: skip


async def text_of(service: Service, path: str, kind: str, **params: str) -> str:
    async with service.client.get(path, params=params) as answer:
        assert (answer.status, answer.content_type) == (200, kind), await answer.text()
        return await answer.text()


async def test_all_wallets_are_on_one_page_and_in_one_spreadsheet(service: Service) -> None:
    await planted(service)
    await service.post_json("straitsx", payment(20, currency="xusd", **at(NOON)))
    await service.fold()
    page = await text_of(service, "/reconciliation", "text/html")
    assert '<a href="/reconciliation/straitsx/XSGD">straitsx XSGD</a>' in page
    assert "no statement of it is imported" in page
    one = await text_of(service, "/reconciliation", "text/html", currency="xsgd")
    assert "no statement of it is imported" not in one
    text = await text_of(service, "/reconciliation", "text/csv", **{"as": "csv"})
    rows = list(csv.reader(io.StringIO(text)))
    assert [row[:3] for row in rows[1:3]] == [
        ["straitsx", "XSGD", "BREAKS"], ["straitsx", "XUSD", "INCOMPLETE"],
    ]  # fmt: skip


async def test_breaks_are_a_spreadsheet_with_empty_columns_for_decisions(
    service: Service,
) -> None:
    found = await planted(service)
    text = await text_of(service, "/reconciliation/breaks.csv", "text/csv", type="FEE,STATUS")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    assert [(row["type"], row["wallet"]) for row in rows] == [
        ("STATUS", "straitsx XSGD"), ("FEE", "straitsx XSGD"),
    ]  # fmt: skip
    fee = rows[1]
    assert (fee["id"], fee["gap"]) == (found["contract:contract_0003"]["id"], "-1")
    assert fee["statement"] == (
        "2026-01-10 12:00:00+00:00 -20 Bank Transfer Out [contract_0003, r3] line:r3"
    )
    assert "payout:contract_0003" in fee["books"]
    names = ("decision", "decision_account", "decision_note", "decision_items")
    assert [fee[name] for name in names] == [""] * 4
    status, _ = await service.refused("/reconciliation/breaks.csv", sort="size")
    assert status == 400


async def test_what_names_nothing_is_no_reference(service: Service) -> None:
    columns = {"effective_at": "Date", "amount": "Amount", "id": "Id", "reference": "Ref",
               "time_zone": "UTC"}  # fmt: skip
    file = b"Date,Amount,Id,Ref\n2026-01-10,10,NONREF,INV-7\n"
    await post_statement(service, file, format="csv", columns=json.dumps(columns))
    await service.post_json("straitsx", payment(1, merchant_ref="NOTPROVIDED", **at(LATE)))
    await reconcile(service)
    found = (await service.ask("/v1/breaks"))["breaks"]
    references = {
        item.get("line", item.get("id")): item["references"]
        for each in found
        for item in (*each["lines"], *each["transactions"])
    }
    assert sorted(references.values()) == [["INV-7"], ["idem-0001"]]


async def test_a_wallets_page_has_both_sides_of_every_break(service: Service) -> None:
    await planted(service)
    page = await text_of(service, "/reconciliation/straitsx/XSGD", "text/html")
    for words in ("line:r3", "payout:contract_0003", "same amount, 4 days apart", "All wallets"):
        assert words in page, words


async def test_a_balance_that_no_statement_states_is_null_and_never_zero(service: Service) -> None:
    await service.post_json("straitsx", payment(1, fees="0.0", **at(NOON)))
    columns = {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"}
    file = b"Date,Amount\n2026-01-10,10\n"
    await post_statement(service, file, format="csv", columns=json.dumps(columns))
    await reconcile(service)
    (wallet,) = (await service.ask("/v1/wallets"))["wallets"]
    claim = wallet["reconciliation"]
    assert (claim["statement_balance"], claim["difference"]) == (None, None)
    (run,) = (await service.ask("/v1/reconciliation"))["reconciliations"]
    figures = run["figures"]
    assert [figures[name] for name in ("opening", "closing", "difference", "residual")] == [
        None
    ] * 4
    assert figures["ledger"] == "10"
    assert "not stated" in await text_of(service, "/reconciliation", "text/html")
    page = await text_of(service, "/reconciliation/straitsx/XSGD", "text/html")
    assert page.count("<td class=n>not stated</td>") == 3
