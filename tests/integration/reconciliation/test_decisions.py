"""Decisions count from their commit on, whatever the books and the reconciliation know yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from ledger.config.reconciliation import rules_of
from ledger.reconciliation.runner import Reconciler
from tests.asking import Service, payment, serving
from tests.conftest import Database
from tests.statements import decide, post_statement, reconcile, refused_decision, row, statement

NOON = "2026-01-10T12:00:00Z"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


async def breaks(service: Service) -> dict[str, dict[str, Any]]:
    """Return every break, by its anchor."""
    return {each["anchor"]: each for each in (await service.ask("/v1/breaks"))["breaks"]}


async def with_fees(service: Service, *amounts: str) -> dict[str, dict[str, Any]]:
    """Reconcile a statement with fees that the books lack; return the breaks."""
    rows = [row(f"f{n}", None, f"-{amount}", NOON, "Fee") for n, amount in enumerate(amounts)]
    await service.post_json("straitsx", payment(1, fees="0.0", updated_at=NOON))
    await post_statement(service, statement([row("r1", "contract_0001", "10", NOON), *rows]))
    await reconcile(service)
    return await breaks(service)


async def entries_of(service: Service, break_id: str) -> dict[str, str]:
    await service.fold()
    rows = (await service.ask("/v1/entries", transaction=break_id))["entries"]
    sums: dict[str, float] = {}
    for each in rows:
        sums[each["account"]] = sums.get(each["account"], 0) + float(each["amount"])
    return {account: f"{amount:g}" for account, amount in sums.items() if amount}


async def test_a_sequence_of_decisions_needs_no_reconciliation_in_between(
    service: Service,
) -> None:
    found = (await with_fees(service, "1.5"))["line:f0"]
    for action in ("write_off", "reopen", "post_fee", "note", "reopen", "post_fee"):
        done = await decide(service, found["id"], action)
        assert (done["status"], done["reconciled"]) == ("accepted", False)
        assert "has not read it yet" in done["message"]
    assert await entries_of(service, found["id"]) == {
        "assets:wallet:available": "-1.5", "expenses:fees": "1.5",
    }  # fmt: skip
    (result,) = (await reconcile(service)).results
    assert [(b.state, b.action, b.gap) for b in result.breaks] == [("RESOLVED", "post_fee", 0)]


async def test_the_second_of_two_operators_reads_what_the_first_one_decided(
    service: Service,
) -> None:
    found = (await with_fees(service, "1.5"))["line:f0"]
    by = {"action": "write_off", "note": "it is theirs"}
    asked = [
        service.client.post(f"/v1/breaks/{found['id']}/decide", json=by | {"by": name})
        for name in ("ann", "bob")
    ]
    answers = [orjson.loads(await each.read()) for each in await asyncio.gather(*asked)]
    done, refused = sorted(answers, key=lambda answer: "detail" in answer)
    assert refused["status"] == 409
    assert f"at position {done['position']} (it is theirs)" in refused["detail"]
    assert refused["detail"].startswith(f"break {found['id']} is not open: write_off by ")
    status, shown = await refused_decision(service, found["id"], action="match")
    assert (status, "reopen it first" in shown) == (409, True)
    assert await entries_of(service, found["id"]) == {
        "assets:wallet:available": "-1.5", "expenses:differences": "1.5",
    }  # fmt: skip


async def test_what_was_matched_by_hand_can_be_reopened_and_decided_otherwise(
    service: Service,
) -> None:
    await service.post_json("straitsx", payment(1, fees="0.0", updated_at=NOON))
    await service.post_json("straitsx", payment(2, fees="0.0", updated_at=NOON))
    rows = [row("x1", "other_a", "10", NOON), row("x2", "other_b", "10", NOON)]
    await post_statement(service, statement(rows))
    await reconcile(service)
    found = await breaks(service)
    one, two = found["contract:other_a"]["id"], found["contract:other_b"]["id"]
    pair = ["line:x1", "payment:contract_0001"]
    await decide(service, one, "match", items=pair)
    other = {"action": "match", "items": ["line:x2", "payment:contract_0001"]}
    for _ in range(2):
        status, shown = await refused_decision(service, two, **other)
        assert (status, "payment:contract_0001 is already matched" in shown) == (409, True)
        await reconcile(service)
    await decide(service, one, "reopen")
    status, shown = await refused_decision(service, one, action="reopen")
    assert (status, "is reopened already: reopen by ann" in shown) == (409, True)
    await decide(service, two, "match", items=other["items"])
    await decide(service, one, "write_off", account="income:others")
    assert await entries_of(service, one) == {
        "assets:wallet:available": "10", "income:others": "-10",
    }  # fmt: skip
    (result,) = (await reconcile(service)).results
    states = {b.id: (b.state, b.action) for b in result.breaks}
    assert (states[one], states[two]) == (("RESOLVED", "write_off"), ("RESOLVED", "match"))


async def test_a_decision_is_reconciled_at_once_however_long_the_last_run_took(
    service: Service,
) -> None:
    found = (await with_fees(service, "1.5"))["line:f0"]
    reconciler = Reconciler(service.database.service_dsn, service.database.settings)
    async with service.database.service() as connection:
        await reconciler.round(connection)
        reconciler._rest_until["straitsx"] = float("inf")
        await service.post_json("straitsx", payment(7, fees="0.0", updated_at=NOON))
        await service.fold()
        await reconciler.round(connection)
        assert "contract:contract_0007" not in {*(await breaks(service))}
        for action in ("note", "post_fee", "reopen"):
            await decide(service, found["id"], action)
            await service.fold()
            await reconciler.round(connection)
            assert (await breaks(service))["line:f0"]["action"] == action


async def test_the_answer_waits_for_the_result_that_has_the_decision(database: Database) -> None:
    async with serving(database, result_seconds=20.0) as service:
        found = (await with_fees(service, "1.5"))["line:f0"]
        deciding = asyncio.create_task(decide(service, found["id"], "post_fee"))
        reconciler = Reconciler(service.database.service_dsn, service.database.settings)
        async with service.database.service() as connection:
            while not deciding.done():
                await service.fold()
                await reconciler.round(connection)
        done = await deciding
        assert (done["reconciled"], done["state"], done["message"]) == (True, "RESOLVED", None)


async def with_a_wrong_fee(service: Service, *more: dict[str, Any]) -> dict[str, Any]:
    """Reconcile a payment whose fee is 1 in the books and 2 in the statement; return the break."""
    await service.post_json("straitsx", payment(1, fees="1.0", updated_at=NOON))
    rows = [row("r1", "contract_0001", "10", NOON), row("f1", "contract_0001", "-2", NOON, "Fee")]
    await post_statement(service, statement([*rows, *more]))
    await reconcile(service)
    return (await breaks(service))["contract:contract_0001"]


async def test_a_fee_of_which_the_rest_is_matched_is_matched_by_hand(service: Service) -> None:
    found = await with_a_wrong_fee(service, row("f2", None, "1", NOON, "Fee refund"))
    assert (found["type"], found["items"]) == (
        "FEE", ["line:f1", "line:r1", "payment:contract_0001"],
    )  # fmt: skip
    status, detail = await refused_decision(service, found["id"], action="match")
    assert status == 409
    assert "the amounts of the items differ by 1 XSGD" in detail
    items = ["line:f1", "line:f2", "payment:contract_0001"]
    await decide(service, found["id"], "match", items=items)
    await reconcile(service)
    (now,) = (await breaks(service)).values()
    assert (now["state"], now["items"], now["difference"]) == (
        "RESOLVED", ["line:f1", "line:f2", "line:r1", "payment:contract_0001"], "0",
    )  # fmt: skip
    await decide(service, found["id"], "reopen")
    await reconcile(service)
    assert (await breaks(service))["contract:contract_0001"]["items"] == found["items"]


async def test_a_rule_about_lines_posts_a_fee_of_which_the_rest_is_matched(
    database: Database,
) -> None:
    rule = {"name": "fees", "type": "FEE", "below": "5", "line": "fee*", "account": "expenses:fees"}
    async with serving(database) as service:
        sources = dict(database.settings.sources)
        sources["straitsx"] = replace(sources["straitsx"], reconcile=rules_of({"rules": [rule]}))
        await with_a_wrong_fee(service)
        run = await reconcile(service, sources=sources)
        assert run.posted == 1
        await reconcile(service, sources=sources)
        assert [(b["type"], b["state"]) for b in (await breaks(service)).values()] == [
            ("FEE", "RESOLVED")
        ]


async def test_a_note_changes_no_state_and_stays(service: Service) -> None:
    found = (await with_fees(service, "1.5"))["line:f0"]
    await decide(service, found["id"], "note", note="asked the bank")
    await reconcile(service)
    shown = (await breaks(service))["line:f0"]
    assert (shown["state"], shown["action"], shown["note"]) == ("OPEN", "note", "asked the bank")
    await decide(service, found["id"], "post_fee", note="their fee")
    for number in range(70):
        await decide(service, found["id"], "note", note=f"seen {number}", by="bob")
    await reconcile(service)
    shown = (await breaks(service))["line:f0"]
    assert (shown["state"], shown["action"], shown["decided_by"], shown["note"]) == (
        "RESOLVED", "post_fee", "ann", "their fee",
    )  # fmt: skip
    (kept,) = (await service.ask("/v1/views/adjustments"))["rows"]
    assert [word["note"] for word in kept["words"]][:2] == ["their fee", "seen 6"]
    await post_statement(
        service, statement([row("r1", "contract_0001", "10", NOON)]), replace="true"
    )
    await reconcile(service)
    await decide(service, found["id"], "reopen")
    await reconcile(service)
    assert await breaks(service) == {}
    await decide(service, found["id"], "note", note="it was a mistake of the bank")
    await service.fold()
    (kept,) = (await service.ask("/v1/views/adjustments"))["rows"]
    assert kept["words"][-1]["note"] == "it was a mistake of the bank"
    assert kept["anchor"] == "line:f0"


async def head_of(service: Service) -> int:
    sources = (await service.ask("/v1/status"))["sources"]
    return int(next(each["head"] for each in sources if each["source"] == "straitsx"))


async def several(service: Service, rows: list[dict[str, Any]], **params: str) -> dict[str, Any]:
    """Decide on several breaks; return the answer."""
    async with service.client.post("/v1/breaks/decide", json=rows, params=params) as answer:
        assert answer.status == 200, await answer.text()
        return dict(orjson.loads(await answer.read()))


async def test_several_decisions_are_previewed_then_taken_row_by_row_and_never_twice(
    service: Service,
) -> None:
    found = await with_fees(service, "1", "2", "3", "4")
    who = {"by": "ann", "note": "June's fees"}
    rows = [
        {"id": found["line:f0"]["id"], "action": "post_fee", **who},
        {"id": found["line:f1"]["id"], "action": "write_off", "account": "expenses:bank", **who},
        {"id": "nobody", "action": "post_fee", **who},
        {"id": found["line:f2"]["id"], "action": "forget", **who},
        {"id": found["line:f2"]["id"], "action": "void", "by": "ann", "note": " "},
        {"id": found["line:f0"]["id"], "action": "write_off", **who},
        {"id": found["line:f3"]["id"], "action": "note", **who},
        {"id": found["line:f1"]["id"], "action": "write_off", "account": "expenses:bank", **who},
    ]
    head = await head_of(service)
    preview = await several(service, rows, dry_run="true")
    assert [each["outcome"] for each in preview["decisions"]] == [
        "planned", "planned", "refused", "refused", "refused", "refused", "planned", "unchanged",
    ]  # fmt: skip
    sums = [
        ("assets:wallet:available", "-3", 2), ("expenses:bank", "2", 1), ("expenses:fees", "1", 1)
    ]  # fmt: skip
    assert [(s["account"], s["amount"], s["count"]) for s in preview["sums"]] == sums
    assert await head_of(service) == head

    done = await several(service, rows)
    assert [(s["account"], s["amount"], s["count"]) for s in done["sums"]] == sums
    assert [each["position"] for each in done["decisions"] if each["outcome"] == "done"] == [
        head + 1, head + 2, head + 3,
    ]  # fmt: skip
    reasons = [each["reason"] for each in done["decisions"]]
    assert "there is no break 'nobody'" in reasons[2]
    assert "forget" in reasons[3] or "action" in reasons[3]
    assert "by" in reasons[4]
    assert "is not open: post_fee by ann, earlier in this request" in reasons[5]
    again = await several(service, rows)
    assert "done" not in {each["outcome"] for each in again["decisions"]}
    assert again["decisions"][0]["reason"] == f"taken before, at position {head + 1}"
    await decide(service, found["line:f0"]["id"], "reopen")
    later = await several(service, rows[:1])
    assert later["decisions"][0]["outcome"] == "unchanged"
    assert "decided otherwise since" in later["decisions"][0]["reason"]
    (result,) = (await reconcile(service)).results
    assert {b.anchor: (b.state, b.action) for b in result.breaks} == {
        "line:f0": ("OPEN", "reopen"), "line:f1": ("RESOLVED", "write_off"),
        "line:f2": ("OPEN", None), "line:f3": ("OPEN", "note"),
    }  # fmt: skip


@pytest.mark.parametrize("body", [b"{}", b"[]", b"[1,", b"7"])
async def test_what_is_no_list_of_decisions_is_refused(service: Service, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    async with service.client.post("/v1/breaks/decide", data=body, headers=headers) as answer:
        assert answer.status == 400


async def test_a_rule_posts_differences_shows_what_it_did_and_respects_a_reopening(
    service: Service,
) -> None:
    rules = rules_of(
        {
            "rules": [
                {"name": "bank fees", "type": "MISSING_IN_LEDGER", "line": "fee", "below": "2",
                 "account": "expenses:bank"},
                {"name": "nothing", "type": "FEE", "below": "1", "account": "expenses:fees"},
            ]
        }
    )  # fmt: skip
    sources = dict(service.database.settings.sources)
    sources["straitsx"] = replace(sources["straitsx"], reconcile=rules)
    found = await with_fees(service, "1", "1.5", "3")
    first = await reconcile(service, sources=sources)
    assert first.posted == 2
    (result,) = (await reconcile(service, sources=sources)).results
    assert {b.anchor: (b.state, b.action, b.decided_by) for b in result.breaks} == {
        "line:f0": ("RESOLVED", "rule", "rule"), "line:f1": ("RESOLVED", "rule", "rule"),
        "line:f2": ("OPEN", None, None),
    }  # fmt: skip
    await decide(service, found["line:f0"]["id"], "reopen")
    for _ in range(2):
        assert (await reconcile(service, sources=sources)).posted == 0
    (shown,) = (await service.ask("/v1/reconciliation/rules"))["rules"]
    assert (shown["name"], shown["declared"]) == ("bank fees", False)
    (sums,) = shown["posted"]
    assert (sums["currency"], sums["count"], sums["amount"], sums["reopened"]) == (
        "XSGD", 1, "1.5", 1,
    )  # fmt: skip
    assert sums["breaks"] == [found["line:f1"]["id"]]
    listed = (await service.ask(sums["href"].partition("?")[0], rule="bank fees"))["rows"]
    assert {row["id"] for row in listed} == {found[f"line:f{n}"]["id"] for n in (0, 1)}
