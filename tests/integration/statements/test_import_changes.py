"""An import withdraws and changes nothing in silence: it shows what it would do, and asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
import pytest

from tests.asking import Service, problem, serving
from tests.conftest import Database
from tests.statements import reconcile

Json = dict[str, Any]
IBANS = "DE02100100100006820101", "DE02300209000106531065"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def camt(*entries: str, opening: str, closing: str, days: tuple[str, str], iban: str = "") -> str:
    account = f"<Id><IBAN>{iban}</IBAN></Id>" if iban else "<Id><Othr><Id>7</Id></Othr></Id>"
    balances = "".join(
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy='EUR'>{amount}</Amt>"
        f"<CdtDbtInd>CRDT</CdtDbtInd><Dt><Dt>{day}</Dt></Dt></Bal>"
        for code, amount, day in (("PRCD", opening, days[0]), ("CLBD", closing, days[1]))
    )
    return (
        "<Document xmlns='urn:iso:std:iso:20022:tech:xsd:camt.053.001.08'><BkToCstmrStmt><Stmt>"
        f"<Id>1</Id><Acct>{account}<Ccy>EUR</Ccy></Acct>{balances}{''.join(entries)}"
        "</Stmt></BkToCstmrStmt></Document>"
    )


def entry(amount: str, day: str, reference: str = "NONREF", name: str = "") -> str:
    value = Decimal(amount)
    return (
        f"<Ntry><Amt Ccy='EUR'>{abs(value)}</Amt>"
        f"<CdtDbtInd>{'CRDT' if value > 0 else 'DBIT'}</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>"
        f"<BookgDt><Dt>{day}</Dt></BookgDt><AcctSvcrRef>{reference}</AcctSvcrRef>"
        f"<NtryDtls><TxDtls><Refs><EndToEndId>{name or 'NOTPROVIDED'}</EndToEndId></Refs></TxDtls>"
        "</NtryDtls></Ntry>"
    )


async def post(service: Service, body: str, **params: str) -> tuple[int, Json]:
    stated = {"source": "straitsx"} | params
    async with service.client.post("/v1/statements", params=stated, data=body.encode()) as answer:
        if answer.status != 200:
            return await problem(answer)
        return answer.status, orjson.loads(await answer.read())


async def lines(service: Service, **params: str) -> dict[str, Decimal]:
    """Return name → amount of every line that is stated, read without the reconciliation."""
    await service.fold()
    answer = await service.ask("/v1/statement_lines", limit="1000", **params)
    return {
        each["line"]: Decimal(each["amount"])
        for each in answer["statement_lines"]
        if each["status"] == "stated"
    }


FRIDAY = camt(entry("10", "2026-06-05"), entry("-1.50", "2026-06-05"), opening="100",
              closing="108.50", days=("2026-06-04", "2026-06-05"))  # fmt: skip
MONDAY = camt(entry("-1.50", "2026-06-05"), entry("20", "2026-06-08"), opening="108.50",
              closing="127", days=("2026-06-05", "2026-06-08"))  # fmt: skip
BOTH = camt(entry("10", "2026-06-05"), entry("-1.50", "2026-06-05"), entry("-1.50", "2026-06-05"),
            entry("20", "2026-06-08"), opening="100", closing="127",
            days=("2026-06-04", "2026-06-08"))  # fmt: skip


@pytest.mark.parametrize("order", [(FRIDAY, MONDAY), (MONDAY, FRIDAY)])
async def test_equal_entries_of_two_days_are_two_lines_whichever_comes_first(
    service: Service, order: tuple[str, str]
) -> None:
    for body in order:
        status, done = await post(service, body)
        assert (status, done["new"], done["withdrawn"]) == (200, 2, 0)
    stated = await lines(service)
    assert (len(stated), sum(stated.values())) == (4, Decimal(27))
    (result,) = (await reconcile(service)).results
    assert (result.figures["closing"], result.figures["chain"], result.reasons) == ("127", "0", ())


@pytest.mark.parametrize("order", [(FRIDAY, MONDAY, BOTH), (BOTH, MONDAY, FRIDAY),
                                   (MONDAY, BOTH, FRIDAY)])  # fmt: skip
async def test_a_longer_statement_has_the_same_lines_as_those_of_its_days(
    service: Service, order: tuple[str, ...]
) -> None:
    for body in order:
        status, done = await post(service, body)
        if status == 409:  # the day of booking moves, which is shown before
            assert [each["change"] for each in done["changes"]] == ["moved"]
            assert (done["changes"][0]["booked_at"], done["changes"][0]["now_booked_at"]) == (
                "2026-06-05T00:00:00Z", "2026-06-06T00:00:00Z",
            )  # fmt: skip
            status, done = await post(service, body, replace="true")
        assert (status, done["withdrawn"]) == (200, 0)
    stated = await lines(service)
    assert (len(stated), sum(stated.values())) == (4, Decimal(27))
    (result,) = (await reconcile(service)).results
    assert (result.figures["closing"], result.reasons) == ("127", ())


async def test_a_dry_run_says_everything_and_stores_nothing(service: Service) -> None:
    await post(service, FRIDAY)
    await service.fold()
    before = (await service.ask("/v1/status"))["sources"]
    changed = FRIDAY.replace("10</Amt>", "11</Amt>").replace("108.50", "109.50")
    status, done = await post(service, changed, dry_run="true")
    assert status == 200
    shown = ("status", "position", "new", "changed", "unchanged", "withdrawn", "currency",
             "account", "opened_at", "closed_at", "opening", "closing", "format")  # fmt: skip
    assert {name: done[name] for name in shown} == {
        "status": "preview", "position": 0, "new": 1, "changed": 0, "unchanged": 1, "withdrawn": 1,
        "currency": "EUR", "account": "7", "opened_at": "2026-06-05T00:00:00Z",
        "closed_at": "2026-06-06T00:00:00Z", "opening": "100", "closing": "109.5",
        "format": "camt.053",
    }  # fmt: skip
    (change,) = done["changes"]
    assert (change["change"], change["amount"]) == ("withdrawn", "10")
    after = (await service.ask("/v1/status"))["sources"]
    assert [each["head"] for each in after] == [each["head"] for each in before]
    status, refusal = await post(service, changed)
    assert (status, refusal["withdrawn"], refusal["changes"]) == (409, 1, [change])
    assert "replace=true" in refusal["detail"]
    assert sum((await lines(service)).values()) == Decimal("8.50")
    status, done = await post(service, changed, replace="true")
    assert (status, done["status"], done["withdrawn"]) == (200, "accepted", 1)
    assert sum((await lines(service)).values()) == Decimal("9.50")


async def test_a_corrected_amount_of_one_reference_is_a_changed_line(service: Service) -> None:
    first = camt(entry("10", "2026-06-05", "A1"), opening="0", closing="10",
                 days=("2026-06-04", "2026-06-05"))  # fmt: skip
    await post(service, first)
    second = first.replace("10</Amt>", "12</Amt>")
    status, refusal = await post(service, second)
    assert (status, refusal["new"], refusal["changed"], refusal["withdrawn"]) == (409, 0, 1, 0)
    (change,) = refusal["changes"]
    assert (change["amount"], change["now_amount"], change["reference"]) == ("10", "12", "A1")
    await post(service, second, replace="true")
    assert list((await lines(service)).values()) == [Decimal(12)]


CSV = '{"effective_at":"Date","amount":"Amount","description":"Text","time_zone":"UTC"}'
DEPOSITS = "Date,Text,Amount\n2026-06-01,in,100\n2026-06-20,in,30\n"
WITHDRAWALS = "Date,Text,Amount\n2026-06-02,out,-40\n2026-06-19,out,-5\n"


async def test_deposits_and_withdrawals_are_one_statement_only_if_one_says_so(
    service: Service,
) -> None:
    how = {"columns": CSV, "currency": "EUR", "from": "2026-06-01T00:00:00Z",
           "to": "2026-07-01T00:00:00Z"}  # fmt: skip
    assert (await post(service, DEPOSITS, **how))[0] == 200
    status, refusal = await post(service, WITHDRAWALS, **how)
    assert (status, refusal["new"], refusal["withdrawn"]) == (409, 2, 2)
    assert sum((await lines(service)).values()) == Decimal(130)
    status, done = await post(service, WITHDRAWALS, **how, add="true")
    assert (status, done["new"], done["withdrawn"]) == (200, 2, 0)
    assert sum((await lines(service)).values()) == Decimal(85)
    (result,) = (await reconcile(service)).results
    assert result.state == "INCOMPLETE"
    assert [each.type for each in result.breaks if each.type == "OPENING"] == []
    unknown = ("opening", "closing", "difference", "residual", "chain")
    assert [result.figures[name] for name in unknown] == [None] * 5
    run = (await service.ask("/v1/reconciliation"))["reconciliations"][0]
    assert [run["figures"][name] for name in unknown] == [None] * 5


def declared(database: Database, accounts: dict[str, str]) -> dict[str, Any]:
    source = replace(database.settings.sources["straitsx"], accounts=accounts)
    return {"sources": {**database.settings.sources, "straitsx": source}}


async def test_two_accounts_of_one_currency_are_two_wallets_evidence(database: Database) -> None:
    days = "2026-06-04", "2026-06-05"
    one = camt(entry("10", "2026-06-05"), opening="5", closing="15", days=days, iban=IBANS[0])
    two = camt(entry("70", "2026-06-05"), opening="0", closing="70", days=days, iban=IBANS[1])
    async with serving(database) as service:
        assert (await post(service, one))[0] == 200
        status, refusal = await post(service, two)
        assert (status, IBANS[0] in refusal["detail"], IBANS[1] in refusal["detail"]) == (
            422, True, True,
        )  # fmt: skip
        assert f'[sources.straitsx.accounts] "{IBANS[1]}" = "…"' in refusal["detail"]
        assert list((await lines(service)).values()) == [Decimal(10)]
    wallets = declared(database, {IBANS[0]: "EUR", IBANS[1]: "XEUR"})
    async with serving(database, make_books=False, **wallets) as service:
        service.generation = 1
        status, done = await post(service, two)
        assert (status, done["currency"], done["account"]) == (200, "XEUR", IBANS[1])
        assert list((await lines(service, currency="EUR")).values()) == [Decimal(10)]
        assert list((await lines(service, currency="XEUR")).values()) == [Decimal(70)]
        assert list((await lines(service, account=IBANS[1])).values()) == [Decimal(70)]
        third = camt(entry("1", "2026-06-09"), opening="15", closing="16",
                     days=("2026-06-08", "2026-06-09"), iban="NL91ABNA0417164300")  # fmt: skip
        status, refusal = await post(service, third)
        assert (status, "is not declared" in refusal["detail"]) == (422, True)


async def test_two_declared_names_of_one_wallet_are_one_account(database: Database) -> None:
    wallets = declared(database, {IBANS[0]: "EUR", IBANS[1]: "EUR"})
    async with serving(database, **wallets) as service:
        first = camt(entry("10", "2026-06-05"), opening="5", closing="15",
                     days=("2026-06-04", "2026-06-05"), iban=IBANS[0])  # fmt: skip
        second = camt(entry("7", "2026-06-08"), opening="15", closing="22",
                      days=("2026-06-05", "2026-06-08"), iban=IBANS[1])  # fmt: skip
        for body in (first, second):
            assert (await post(service, body))[0] == 200
        (result,) = (await reconcile(service)).results
        assert (result.figures["closing"], result.reasons) == ("22", ())


NO_IDS = {"columns": '{"effective_at":"Date","amount":"Amount","description":"Text",'
                     '"reference":"Ref","time_zone":"UTC"}', "currency": "EUR"}  # fmt: skip


async def test_lines_that_a_file_adds_are_no_others_lines(service: Service) -> None:
    coffee = "Date,Text,Ref,Amount\n2026-06-02,Coffee,,-10\n2026-06-02,Fee,,-1\n"
    taxi = (
        "Date,Text,Ref,Amount\n2026-06-02,Taxi,T-77,-10\n2026-06-02,Tip,,-10\n2026-06-02,Fee,,-1\n"
    )
    await post(service, coffee, **NO_IDS)
    status, done = await post(service, taxi, **NO_IDS, add="true")
    assert (status, done["new"], done["unchanged"], done["withdrawn"]) == (200, 2, 1, 0)
    assert "1 lines are in earlier files already; they count once" in done["notes"]
    assert sorted((await lines(service)).values()) == [-10, -10, -10, -1]


RUNNING = {"columns": '{"effective_at":"Date","amount":"Amount","balance":"Left",'
                      '"time_zone":"UTC"}', "currency": "EUR"}  # fmt: skip
EARLY = "Date,Amount,Left\n2026-06-10,100,100\n2026-06-26,30,130\n"
LATE = "Date,Amount,Left\n2026-06-26,50,180\n2026-07-02,7.25,187.25\n"


@pytest.mark.parametrize("order", [(EARLY, LATE), (LATE, EARLY)])
async def test_a_table_that_begins_on_the_last_day_of_the_one_before_joins_it(
    service: Service, order: tuple[str, str]
) -> None:
    for body in order:
        status, done = await post(service, body, **RUNNING)
        assert (status, done["new"], done["changed"], done["withdrawn"]) == (200, 2, 0, 0)
    assert "by its balances the statement" in " ".join(done["notes"])
    (result,) = (await reconcile(service)).results
    assert (result.figures["closing"], result.figures["chain"], result.reasons) == (
        "187.25", "0", (),
    )  # fmt: skip
    for body in order:
        assert (await post(service, body, **RUNNING))[1]["status"] == "duplicate"
    once_more = "Date,Amount,Left\n2026-06-26,30,130\n2026-06-26,50,180\n"
    status, done = await post(service, once_more, **RUNNING)
    assert (status, done["new"], done["unchanged"]) == (200, 0, 2)


def day_of(opening: str, closing: str, number: int, *amounts: str) -> str:
    """Return one of several MT940 statements of 10 June."""
    lines = "".join(f":61:2606100610D{a},NCHGNONREF//000001\n:86:fee\n" for a in amounts)
    return (
        f":20:S\n:25:1234\n:28C:{number}/1\n:60F:C260610EUR{opening},\n{lines}"
        f":62F:C260610EUR{closing},\n"
    )


@pytest.mark.parametrize("places", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
async def test_equal_lines_of_statements_of_one_day_all_count(
    service: Service, places: tuple[int, ...]
) -> None:
    files = day_of("100", "95", 1, "5"), day_of("95", "90", 2, "5"), day_of("90", "83", 3, "5", "2")
    for place in places:
        status, done = await post(service, files[place])
        assert (status, done["unchanged"], done["withdrawn"]) == (200, 0, 0)
    assert sorted((await lines(service)).values()) == [-5, -5, -5, -2]
    (result,) = (await reconcile(service)).results
    shown = ("opening", "closing", "chain")
    assert [result.figures[name] for name in shown] == ["100", "83", "0"]
    assert result.reasons == ()


async def test_partial_files_that_state_balances_join(service: Service) -> None:
    how = {"currency": "EUR", "from": "2026-06-01", "to": "2026-07-01"}

    def balances(opening: str, closing: str) -> str:
        return CSV[:-1] + f',"opening":"{opening}","closing":"{closing}"}}'

    await post(service, DEPOSITS, columns=balances("0", "130"), **how)
    status, done = await post(service, WITHDRAWALS, columns=balances("130", "85"), **how)
    assert (status, done["new"], done["withdrawn"]) == (200, 2, 0)
    (result,) = (await reconcile(service)).results
    assert (result.figures["opening"], result.figures["closing"], result.reasons) == ("0", "85", ())


async def test_ids_that_look_like_ordinals_are_three_lines(service: Service) -> None:
    rows = ",".join(
        f'{{"id":"{name}","type":"Fee","creditDebitIndicator":"credit","amount":{amount},'
        '"createdAt":"2026-06-01T09:00:00Z"}'
        for name, amount in (("A", 1), ("A", 1), ("A-2", 10))
    )
    status, done = await post(service, f'{{"data":[{rows}]}}', currency="XSGD")
    assert (status, done["new"]) == (200, 3)
    assert sum((await lines(service)).values()) == Decimal(12)


async def test_a_withdrawal_names_the_files_that_may_have_its_lines(service: Service) -> None:
    await post(service, FRIDAY)
    sha256 = (await post(service, BOTH))[1]["sha256"]
    await service.fold()
    listed = (await service.ask("/v1/statements"))["statements"]
    (first,) = [each["sha256"] for each in listed if each["sha256"] != sha256]
    reason = {"by": "ann", "note": "mistaken"}
    path = f"/v1/statements/straitsx/{first}/withdraw"
    async with service.client.post(path, json=reason) as answer:
        done = orjson.loads(await answer.read())
    assert (done["lines"], done["again"]) == (2, [sha256])
    await post(service, BOTH, again="true")
    assert sum((await lines(service)).values()) == Decimal(27)


async def test_a_period_is_given_in_days_of_the_sources_zone(service: Service) -> None:
    how = {"columns": CSV, "currency": "EUR"}
    status, done = await post(
        service, DEPOSITS, **how, **{"from": "2026-06-01", "to": "2026-07-01"}
    )
    assert (status, done["opened_at"], done["closed_at"]) == (
        200, "2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z",
    )  # fmt: skip
    status, refusal = await post(service, DEPOSITS, **how, **{"from": "2026-06-31", "to": "x"})
    assert (status, "no day as 2026-06-01" in refusal["detail"]) == (400, True)


async def test_a_row_dated_in_the_future_is_named(service: Service) -> None:
    how = {"columns": CSV, "currency": "EUR"}
    status, refusal = await post(service, DEPOSITS.replace("2026-06-20", "2126-06-20"), **how)
    assert (status, refusal["detail"]) == (
        422, "line 3: is dated 2126-06-20T00:00:00+00:00, which is in the future; correct its date",
    )  # fmt: skip
