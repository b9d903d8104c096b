"""A month is closed on evidence, and what changes it afterwards is reported against it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from ledger.config.reconciliation import rules_of
from tests.asking import Service, payment, problem, serving
from tests.conftest import Database
from tests.dumps import differences, dump, fold_from_zero
from tests.integration.statements.test_import_changes import camt, entry, post
from tests.statements import decide, post_statement, reconcile, row, statement

JANUARY = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")
FEBRUARY = ("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z")
MID = "2026-01-15T12:00:00Z"
LATE = "2026-01-31T22:00:00Z"
NEXT = "2026-02-02T12:00:00Z"

Json = dict[str, Any]


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def at(moment: str) -> dict[str, str]:
    return {"created_at": moment, "updated_at": moment}


async def paid(service: Service, number: int, moment: str, **changes: Any) -> None:
    await service.post_json("straitsx", payment(number, fees="0.0", **at(moment), **changes))


async def two_months(service: Service, *more: Json) -> None:
    """Two payments of 10, of which February's statement shows the second one only."""
    await paid(service, 1, MID)
    await paid(service, 2, LATE)
    await post_statement(service, statement([row("r1", "contract_0001", "10", MID), *more]))
    opening = str(10 + sum(int(each["amount"]) * (-1 if each["creditDebitIndicator"] == "debit"
                                                  else 1) for each in more))  # fmt: skip
    rows = [row("r2", "contract_0002", "10", NEXT)]
    await post_statement(service, statement(rows, opening=opening), FEBRUARY)
    await reconcile(service)


async def close(
    service: Service, period: str = "2026-01", *, dry: bool = False, **more: Any
) -> Json:
    """Close a month; return the answer."""
    params = {"dry_run": "true"} if dry else {}
    body = {"period": period, "by": "ann", **more}
    path = "/v1/reconciliation/closes"
    async with service.client.post(path, json=body, params=params) as answer:
        assert answer.status == 200, await answer.text()
        return dict(orjson.loads(await answer.read()))


async def close_accepting(service: Service, period: str = "2026-01") -> None:
    """Close a month whose only obstacles are open breaks, which are accepted."""
    preview = await close(service, period, dry=True)
    await close(service, period, accept=[each["break_id"] for each in preview["obstacles"]])


async def refused(service: Service, path: str = "", **body: Any) -> tuple[int, Json]:
    """Close or reopen what is refused; return status and problem."""
    address = "/v1/reconciliation/closes" + path
    async with service.client.post(address, json={"by": "ann", **body}) as answer:
        return await problem(answer)


async def closes(service: Service, **filters: str) -> list[Json]:
    await service.fold()
    return list((await service.ask("/v1/reconciliation/closes", **filters))["closes"])


async def test_a_month_closes_with_what_is_in_transit_at_its_end(service: Service) -> None:
    await two_months(service)
    preview = await close(service, dry=True)
    assert (preview["obstacles"], preview["closes"][0]["position"]) == ([], None)
    assert await closes(service) == []
    done = await close(service, note="first close")
    (made,) = done["closes"]
    await service.fold()
    (kept,) = await closes(service)
    for name in set(made) - {"changes", "roll_forward", "at"}:
        assert kept[name] == made[name], name
    assert (kept["state"], kept["statement_balance"], kept["ledger_balance"]) == (
        "RECONCILED_WITH_TIMING", "10", "20",
    )  # fmt: skip
    assert (kept["in_transit"], kept["breaks"], kept["lines"], kept["note"]) == (
        "10", "0", 1, "first close",
    )  # fmt: skip
    assert [(item["type"], item["gap"], item["accepted"]) for item in kept["items"]] == [
        ("TIMING", "10", False)
    ]
    assert kept["positions"] == {"straitsx": 2, "straitsx.statements": 6}
    assert kept["changes"] == {
        "changed": False, "ledger": "0", "statement": "0", "entries_count": 0, "lines_count": 0,
        "entries": [], "lines": [],
    }  # fmt: skip
    assert (await close(service, "2026-02"))["closes"][0]["previous"] == kept["position"]
    assert [(each["period"], each["state"]) for each in await closes(service)] == [
        ("2026-01", "RECONCILED_WITH_TIMING"), ("2026-02", "RECONCILED"),
    ]  # fmt: skip


async def test_what_stands_in_the_way_is_listed_and_breaks_may_be_accepted(
    service: Service,
) -> None:
    await two_months(service, row("x1", None, "3", MID), row("x2", None, "-1", MID, "Fee"))
    status, shown = await refused(service, period="2026-01")
    obstacles = shown["obstacles"]
    assert (status, [each["reason"] for each in obstacles]) == (409, ["open_break"] * 2)
    one, two = sorted(each["break_id"] for each in obstacles)
    assert f"--accept {obstacles[0]['break_id']}" in obstacles[0]["detail"]
    status, shown = await refused(service, period="2026-01", accept=[one])
    assert (status, [each["break_id"] for each in shown["obstacles"]]) == (409, [two])
    status, shown = await refused(service, period="2026-01", accept=[one, two, "nobody"])
    assert (status, shown["obstacles"][0]["reason"]) == (409, "unknown_break")
    (done,) = (await close(service, accept=[one, two]))["closes"]
    assert (done["state"], done["accepted"], done["breaks"]) == ("BREAKS", [one, two], "-2")
    for period, reason in (
        ("2026-01", "closed_already"), ("2026-03", "not_in_order"), ("2025-12", "not_in_order"),
    ):  # fmt: skip
        status, shown = await refused(service, period=period)
        assert (status, shown["obstacles"][0]["reason"]) == (409, reason), shown
    status, shown = await refused(service, period="2026-13")
    assert (status, "write a month like 2026-06" in shown["detail"]) == (400, True)
    status, shown = await refused(service, period="2026-02", currency="USD")
    assert status == 404
    status, shown = await refused(service, period="2026-02", by=" ")
    assert status == 400


async def test_a_month_that_the_statements_do_not_reach_is_not_closed(service: Service) -> None:
    await paid(service, 1, MID)
    half = (JANUARY[0], "2026-01-20T00:00:00Z")
    await post_statement(service, statement([row("r1", "contract_0001", "10", MID)]), half)
    await reconcile(service)
    status, shown = await refused(service, period="2026-01")
    (obstacle,) = shown["obstacles"]
    assert (status, obstacle["reason"]) == (409, "not_covered")
    assert "do not reach the end of the month, 2026-02-01 00:00 UTC" in obstacle["detail"]
    # An import that the reconciliation has not read yet does not count, and is not overlooked.
    rest = (half[1], JANUARY[1])
    await post_statement(service, statement([], opening="10"), rest)
    status, shown = await refused(service, period="2026-01")
    assert status == 503
    await reconcile(service)
    assert (await close(service))["closes"][0]["state"] == "RECONCILED"


async def test_a_month_of_which_no_statement_covers_the_beginning_is_not_closed(
    service: Service,
) -> None:
    await paid(service, 1, "2026-01-03T12:00:00Z")
    await paid(service, 2, MID)
    half = ("2026-01-10T00:00:00Z", JANUARY[1])
    body = statement([row("r1", "contract_0002", "10", MID)], opening="10")
    await post_statement(service, body, half)
    await post_statement(service, statement([], opening="20"), FEBRUARY)
    await reconcile(service)
    status, shown = await refused(service, period="2026-01")
    (obstacle,) = shown["obstacles"]
    assert (status, obstacle["reason"]) == (409, "not_covered")
    assert "begin at 2026-01-10 00:00 UTC, after the beginning of the month" in obstacle["detail"]
    assert (await close(service, "2026-02"))["closes"][0]["state"] == "RECONCILED"


async def test_the_month_in_which_a_wallet_begins_is_closed(service: Service) -> None:
    await paid(service, 1, MID)
    half = ("2026-01-10T00:00:00Z", JANUARY[1])
    await post_statement(service, statement([row("r1", "contract_0001", "10", MID)]), half)
    await reconcile(service)
    assert (await close(service))["closes"][0]["state"] == "RECONCILED"


async def test_later_changes_are_reported_against_the_close(service: Service) -> None:
    await two_months(service)
    await close(service)
    await paid(service, 3, MID, amount="7.0")
    await paid(service, 4, NEXT)
    await service.fold()
    await post_statement(
        service, statement([row("r1", "contract_0001", "12", MID)]), replace="true"
    )
    await reconcile(service)
    (kept,) = await closes(service)
    changes = kept["changes"]
    assert (changes["changed"], changes["ledger"], changes["statement"]) == (True, "7", "2")
    (entry,) = changes["entries"]
    assert (entry["transaction"], entry["amount"], entry["position"], entry["href"]) == (
        "contract_0003", "7", 4, "/v1/transactions/straitsx/contract_0003",
    )  # fmt: skip
    (line,) = changes["lines"]
    assert (line["line"], line["change"], line["amount"]) == ("r1", "changed", "12")
    assert (await service.ask(entry["href"]))["id"] == "contract_0003"
    listed = (await service.ask("/v1/exceptions", reason="closed_month_changed"))["exceptions"]
    (found,) = listed
    assert (found["kind"], found["resource_id"], found["state"]) == (
        "close", "XSGD:2026-01", "open",
    )  # fmt: skip
    assert (
        "changed by 7 (1 entries), its statement balance by 2, and 1 statement lines"
        in found["detail"]
    )
    assert found["event"]["position"] == 4
    findings = await service.ask("/v1/reconciliation/findings", reason="closed_month_changed")
    assert [(f["amount"], f["id"]) for f in findings["findings"]] == [("7", "XSGD:2026-01")]
    (run,) = (await service.ask("/v1/reconciliation"))["reconciliations"]
    assert [(m["period"], m["amount"]) for m in run["changed_months"]] == [("2026-01", "7")]
    async with service.client.get("/reconciliation/straitsx/XSGD") as answer:
        page = await answer.text()
    assert "its ledger balance changed by 7" in page
    assert "closed by decision" in page
    async with service.client.get("/reconciliation/straitsx/XSGD", params={"as": "csv"}) as answer:
        assert "2026-01,INCOMPLETE" in await answer.text()
    body = {"action": "acknowledge", "note": "known", "by": "ann"}
    path = f"/v1/exceptions/{found['id']}/resolve"
    async with service.client.post(path, json=body) as answer:
        assert answer.status == 200, await answer.text()
    await service.fold()
    (seen,) = (await service.ask("/v1/exceptions", reason="closed_month_changed"))["exceptions"]
    assert seen["state"] == "resolved"
    await paid(service, 5, MID)
    await service.fold()
    states = {
        each["state"]
        for each in (await service.ask("/v1/exceptions", reason="closed_month_changed"))[
            "exceptions"
        ]
    }
    assert states == {"open"}


async def test_a_line_that_leaves_a_closed_month_is_reported(service: Service) -> None:
    late, more = entry("-1.50", "2026-01-31", "L"), entry("10", "2026-01-20", "R")
    later = entry("20", "2026-02-08", "S")
    whole = camt(more, late, later, opening="0", closing="28.50", days=("2026-01-01", "2026-02-15"))
    assert (await post(service, whole))[0] == 200
    await reconcile(service)
    await close_accepting(service)
    day = camt(late, opening="10", closing="8.50", days=("2026-02-01", "2026-02-02"))
    assert (await post(service, day, replace="true"))[0] == 200
    await reconcile(service)
    (kept,) = await closes(service)
    changes = kept["changes"]
    assert (changes["changed"], changes["statement"], changes["lines_count"]) == (True, "1.5", 1)
    (line,) = changes["lines"]
    assert (line["change"], line["amount"], line["booked_before"], line["booked_at"]) == (
        "moved", "-1.5", "2026-01-31T00:00:00Z", "2026-02-02T00:00:00Z",
    )  # fmt: skip
    (found,) = (await service.ask("/v1/exceptions", reason="closed_month_changed"))["exceptions"]
    assert "its statement balance by 1.5, and 1 statement lines" in found["detail"]


async def test_a_line_that_enters_a_closed_month_is_reported(service: Service) -> None:
    await post_statement(service, statement([]), JANUARY)
    await post_statement(service, statement([row("x", None, "3", NEXT)]), FEBRUARY)
    await reconcile(service)
    await close(service)
    await post_statement(service, statement([row("x", None, "3", MID)]), JANUARY, replace="true")
    await reconcile(service)
    (kept,) = await closes(service)
    (line,) = kept["changes"]["lines"]
    assert (line["change"], line["booked_before"], line["booked_at"]) == ("moved", NEXT, MID)
    assert kept["changes"]["statement"] == "3"


async def test_another_opening_balance_changes_a_closed_month(service: Service) -> None:
    await two_months(service)
    await close(service)
    body = statement([row("r1", "contract_0001", "10", MID)], opening="5")
    await post_statement(service, body, replace="true")
    await reconcile(service)
    (kept,) = await closes(service)
    changes = kept["changes"]
    assert (changes["changed"], changes["statement"]) == (True, "5")
    (found,) = (await service.ask("/v1/exceptions", reason="closed_month_changed"))["exceptions"]
    assert "its statement balance by 5, and " in found["detail"]


async def test_a_closed_month_whose_statement_is_withdrawn_has_changed(service: Service) -> None:
    file = await post_statement(service, statement([]), JANUARY)
    await reconcile(service)
    await close(service)
    path = f"/v1/statements/straitsx/{file['sha256']}/withdraw"
    body = {"by": "ann", "note": "wrong"}
    async with service.client.post(path, json=body) as answer:
        assert answer.status == 200, await answer.text()
    await reconcile(service)
    (kept,) = await closes(service)
    assert (kept["changes"]["changed"], kept["changes"]["lines"]) == (True, [])
    (found,) = (await service.ask("/v1/exceptions", reason="closed_month_changed"))["exceptions"]
    assert "no statement states its balance any more" in found["detail"]


async def test_a_close_is_reopened_latest_first_and_closed_again(service: Service) -> None:
    await two_months(service)
    await close(service)
    await close(service, "2026-02")
    status, shown = await refused(service, "/2026-01/reopen", note="late file")
    assert (status, "reopen the later months first" in shown["detail"]) == (409, True)
    status, shown = await refused(service, "/2026-03/reopen", note="late file")
    assert status == 404
    for period in ("2026-02", "2026-01"):
        body = {"by": "bob", "note": "late file"}
        path = f"/v1/reconciliation/closes/{period}/reopen"
        async with service.client.post(path, json=body) as answer:
            assert answer.status == 200, await answer.text()
    assert [(c["status"], c["by"], c["changes"]) for c in await closes(service)] == [
        ("reopened", "bob", None)
    ] * 2  # fmt: skip
    await paid(service, 3, MID, amount="7.0")
    await reconcile(service)
    status, shown = await refused(service, period="2026-01")
    assert (status, shown["obstacles"][0]["reason"]) == (409, "open_break")
    name = shown["obstacles"][0]["break_id"]
    (done,) = (await close(service, accept=[name]))["closes"]
    assert (done["ledger_balance"], done["statement_balance"]) == ("27", "10")
    kept = await closes(service, period="2026-01")
    assert [each["status"] for each in kept] == ["closed"]


async def test_a_decision_on_a_break_of_a_closed_month_is_posted_after_it(
    service: Service,
) -> None:
    await two_months(service, row("x1", None, "3", MID))
    (name,) = [each["id"] for each in (await service.ask("/v1/breaks"))["breaks"]]
    await close(service, accept=[name])
    done = await decide(service, name, "write_off")
    await service.fold()
    status, shown = await refused(service, period="2026-02")
    assert status == 503
    assert f"straitsx:{done['position']} in the reconciliation of XSGD" in shown["detail"]
    (result,) = (await reconcile(service)).results
    assert [(b.state, b.gap) for b in result.breaks] == [("RESOLVED", 0)]
    (kept,) = await closes(service)
    assert kept["changes"]["changed"] is False
    entries = (await service.ask("/v1/entries", transaction=name))["entries"]
    assert {each["effective_at"] for each in entries} == {"2026-02-01T00:00:00Z"}
    (january, february) = (await service.ask("/v1/reconciliation/roll-forward"))["roll_forward"]
    assert {n: january[n]["count"] for n in ("carried_in", "opened", "carried_out")} == {
        "carried_in": 0, "opened": 2, "carried_out": 2,
    }  # fmt: skip
    assert (january["closed"], january["carried_out"]["amount"]) == (True, "7")
    assert february["carried_in"] == {"count": 2, "amount": "7"}
    assert february["closed_by_decision"] == {"count": 1, "amount": "-3"}
    assert february["closed_by_match"] == {"count": 1, "amount": "10"}
    assert (february["carried_out"], february["closed"]) == ({"count": 0, "amount": "0"}, False)
    (one,) = (await service.ask("/v1/reconciliation/roll-forward", period="2026-02"))[
        "roll_forward"
    ]
    assert sorted((item["movement"], item["amount"]) for item in one["items"]) == [
        ("carried_in", "-3"), ("carried_in", "10"), ("closed_by_decision", "-3"),
        ("closed_by_match", "10"),
    ]  # fmt: skip


async def test_a_closed_month_stays_as_it_is_until_statements_reach_the_next(
    service: Service,
) -> None:
    await post_statement(service, statement([row("x1", None, "3", MID)]))
    await reconcile(service)
    (name,) = [each["id"] for each in (await service.ask("/v1/breaks"))["breaks"]]
    await close(service, accept=[name])
    done = await decide(service, name, "write_off")
    await service.fold()
    status, shown = await refused(service, period="2026-02")
    assert status == 503
    assert f"straitsx:{done['position']} in the reconciliation of XSGD" in shown["detail"]
    (result,) = (await reconcile(service)).results
    ((state, gap, detail),) = [(b.state, b.gap, b.detail) for b in result.breaks]
    assert (state, gap) == ("OPEN", -3)
    assert "posted when statements reach the open month" in detail
    (kept,) = await closes(service)
    assert kept["changes"]["changed"] is False
    february = "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"
    await post_statement(service, statement([], opening="3"), february)
    (result,) = (await reconcile(service)).results
    assert [(b.state, b.gap) for b in result.breaks] == [("RESOLVED", 0)]
    assert (result.state, (await closes(service))[0]["changes"]["changed"]) == ("RECONCILED", False)


async def test_a_month_with_a_balance_closes_after_one_without(service: Service) -> None:
    columns = orjson.dumps({"effective_at": "d", "amount": "a", "time_zone": "UTC"}).decode()
    body = b"d,a\n2025-12-10,4\n2025-12-31,3\n"
    december = "2025-12-01T00:00:00Z", "2026-01-01T00:00:00Z"
    await post_statement(service, body, december, columns=columns)
    await paid(service, 1, MID)
    await post_statement(service, statement([row("r1", "contract_0001", "10", MID)], opening="9"))
    (result,) = (await reconcile(service)).results
    assert result.figures["opening"] is None
    november = "2025-11-10T00:00:00Z", "2025-12-01T00:00:00Z"
    await post_statement(service, b"d,a\n2025-11-12,2\n", november, columns=columns)
    (result,) = (await reconcile(service)).results
    accept = [each.id for each in result.breaks if each.state == "OPEN"]
    status, refusal = await refused(service, period="2025-11", accept=accept)
    assert (status, "no statement states a balance" in str(refusal["obstacles"])) == (409, True)
    done = await close(service, "2026-01", accept=accept)
    assert done["closes"][0]["statement_balance"] == "19"


async def test_months_are_those_of_the_declared_time_zone(service: Service) -> None:
    rules = rules_of({"time_zone": "Asia/Singapore"})
    sources = dict(service.database.settings.sources)
    sources["straitsx"] = replace(sources["straitsx"], reconcile=rules)
    await two_months(service)
    (result,) = (await reconcile(service, sources=sources)).results
    assert [(m.period, m.end.isoformat()) for m in result.months] == [
        ("2026-01", "2026-01-31T16:00:00+00:00"), ("2026-02", "2026-02-28T16:00:00+00:00"),
    ]  # fmt: skip
    # The second payment is of 1 February there.
    assert [(m.state, m.figures["ledger"]) for m in result.months] == [
        ("RECONCILED", "10"), ("RECONCILED", "20"),
    ]  # fmt: skip


async def test_closed_months_are_listed_page_by_page(service: Service) -> None:
    await two_months(service)
    await close(service)
    await close(service, "2026-02")
    await service.fold()
    path = "/v1/reconciliation/closes"
    first = await service.ask(path, limit="1")
    assert [each["period"] for each in first["closes"]] == ["2026-01"]
    second = await service.ask(path, limit="1", cursor=first["next"])
    assert ([each["period"] for each in second["closes"]], second["next"]) == (["2026-02"], None)
    assert second["closes"] == (await service.ask(path, period="2026-02"))["closes"]


async def test_closes_survive_a_rebuild(service: Service) -> None:
    await two_months(service)
    await close(service)
    await close(service, "2026-02")
    await service.fold()
    again = await fold_from_zero(service.database.service_dsn, service.database.settings)
    async with service.database.service() as connection:
        live = await dump(connection, service.generation)
        assert differences(live, await dump(connection, again)) == {}
    assert len(live["closes"]) == len(await closes(service)) == 2
