"""Whatever the order and the dates of a bank's files, every line of each counts once.

The files are those of one account, day by day, as banks date them. After each import the sum of
the wallet's lines is the sum of the amounts in the files, read here without the readers of the
service, and nothing is withdrawn or changed that was not agreed to.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, get_args

import orjson
import pytest

from tests.asking import payment, payout
from tests.bank_days import BankDay, Entry, Layout, amounts_in, camt_of
from tests.e2e.conftest import Serve
from tests.service import Caller, Reply, Service, calling

Json = dict[str, Any]

MON, TUE, WED, THU, FRI = (
    date(2026, 3, 30 + n) if n < 2 else date(2026, 4, n - 1) for n in range(5)
)
SAT, NEXT_MON, NEXT_TUE = date(2026, 4, 4), date(2026, 4, 6), date(2026, 4, 7)
FIRST, SECOND = "SG0011112222", "SG0033334444"


def day(opening_day: date, closing_day: date, opening: str, *entries: Entry) -> BankDay:
    return BankDay(opening_day, closing_day, opening, entries)


PATTERNS: Final[Mapping[str, Sequence[BankDay]]] = {
    # Interest of the quarter, booked on the last day of it, on the statement of the next day.
    "quarter-end": (
        day(MON, TUE, "100", Entry("10", TUE, "idem-0001"), Entry("-4", TUE, "idem-0002")),
        day(TUE, WED, "106", Entry("0.75", TUE, "idem-0003"), Entry("20", WED, "idem-0004")),
        day(WED, THU, "126.75", Entry("5", THU, "idem-0005")),
    ),
    # Value dates of earlier days, and nothing but value dates.
    "value-dates": (
        day(MON, TUE, "100", Entry("10", MON, "idem-0001", has_entry_date=False),
            Entry("-4", TUE, "idem-0002", has_entry_date=False)),
        day(TUE, WED, "106", Entry("1.5", MON, "idem-0003", has_entry_date=False),
            Entry("20", TUE, "idem-0004", has_entry_date=False)),
        day(WED, THU, "127.5", Entry("5", TUE, "idem-0005", has_entry_date=False),
            Entry("-2.5", THU, "idem-0006", has_entry_date=False)),
    ),
    # What was booked on Friday and at the weekend, on the statement of Monday.
    "friday-on-monday": (
        day(THU, FRI, "100", Entry("10", FRI, "idem-0001")),
        day(FRI, NEXT_MON, "110", Entry("7", FRI, "idem-0002"), Entry("8", SAT, "idem-0003"),
            Entry("9", NEXT_MON, "idem-0004")),
        day(NEXT_MON, NEXT_TUE, "134", Entry("-5", NEXT_TUE, "idem-0005")),
    ),
    # Money that counts from a day after the statement's.
    "value-after-closing": (
        day(TUE, WED, "100", Entry("10", WED, "idem-0001"),
            Entry("30", THU, "idem-0002", has_entry_date=False)),
        day(WED, THU, "140", Entry("-3", THU, "idem-0003"),
            Entry("6", NEXT_MON, "idem-0004", has_entry_date=False)),
        day(THU, FRI, "143", Entry("2", FRI, "idem-0005")),
        day(FRI, NEXT_MON, "145", Entry("1", NEXT_MON, "idem-0006")),
    ),
}  # fmt: skip
ORDERS: Final = ("in-order", "reversed")
PLAIN: Final = (
    "two-ibans", "undeclared", "both", "reused-mt940", "reused-camt", "reused-csv", "equal-mt940",
    "equal-camt", "equal-csv", "twins-mt940", "twins-camt", "replace", "add", "dry",
)  # fmt: skip
PROFILE: Final = """
[sources.{source}.statements.bank]
format = "csv"
effective_at = "Date"
amount = "Amount"
id = "Id"
reference = "Reference"
time_zone = "UTC"
"""


def settings() -> str:
    tables = []
    sources = [f"{p}-{layout}-{o}" for p in PATTERNS for layout in get_args(Layout) for o in ORDERS]
    for source in (*sources, *PLAIN):
        tables.append(f'[sources.{source}]\nprovider = "straitsx"\n')
        if source not in ("undeclared", "both"):
            second = f'"{SECOND}" = "XSGD"' if source == "two-ibans" else ""
            tables.append(f'[sources.{source}.accounts]\n"{FIRST}" = "SGD"\n{second}\n')
        tables.append(PROFILE.format(source=source))
    return "\n".join(tables)


@pytest.fixture(scope="module")
def service(serve: Serve) -> Iterator[Service]:
    with serve(settings()) as running:
        yield running


def ledger(service: Service, *arguments: str) -> tuple[int, Any, str]:
    """Run a command against the service with --json; return exit status, document, errors."""
    done = subprocess.run(
        [sys.executable, "-m", "ledger", *arguments, "--url", service.url, "--json"],
        env={k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    document = orjson.loads(done.stdout) if done.stdout else None
    return done.returncode, document, done.stderr.decode()


async def post_file(caller: Caller, source: str, body: bytes, **params: str) -> Reply:
    asked = {"source": source, **{name.rstrip("_"): value for name, value in params.items()}}
    return await caller.request("POST", "/v1/statements", params=asked, data=body)


async def lines_of(caller: Caller, source: str, currency: str = "SGD") -> list[Json]:
    """Return the lines that count, once the books have all that was imported."""
    log = f"{source}.statements"
    heads = {s["source"]: s["head"] for s in (await caller.ask("/v1/status"))["sources"]}
    if log not in heads:
        return []
    rows = await caller.rows(
        "/v1/statement_lines", "statement_lines", source=source, currency=currency, limit=1000,
        at_least=f"{log}:{heads[log]}",
    )  # fmt: skip
    return [row for row in rows if row["status"] == "stated"]


def amounts_of(lines: Sequence[Json]) -> list[Decimal]:
    return sorted(Decimal(line["amount"]) for line in lines)


async def run_of(service: Service, source: str, currency: str = "SGD") -> Json:
    """Wait for the reconciliation of a wallet, as the command does."""
    _, document, errors = await asyncio.to_thread(
        ledger, service, "reconcile", "--source", source, "--currency", currency
    )
    assert errors == ""
    (run,) = document["reconciliations"]
    return dict(run)


async def open_breaks(caller: Caller, source: str) -> list[str]:
    """Describe the open breaks of a source, but for what is in transit."""
    breaks = await caller.rows("/v1/breaks", "breaks", source=source, state="OPEN")
    return [
        f"{each['type']} {each['difference']} {each['items']} {each['detail']}"
        for each in breaks
        if each["type"] != "TIMING"
    ]


async def report_transactions(caller: Caller, source: str, days: Sequence[BankDay]) -> None:
    """Post the callbacks of all entries: what came in as payments, what went out as payouts."""
    opening = Decimal(days[0].opening)
    at = {"created_at": "2026-03-01T00:00:00Z", "updated_at": "2026-03-01T00:00:00Z"}
    first = payment(9000, amount=str(opening), fees="0", currency="sgd", **at)
    await caller.report(source, orjson.dumps(first))
    for entry in (entry for each in days for entry in each.entries):
        moment = f"{entry.day}T11:00:00Z"
        number = int(entry.name.removeprefix("idem-"))
        make = payment if Decimal(entry.amount) > 0 else payout
        body = make(
            number, amount=entry.amount.removeprefix("-"), fees="0", currency="sgd",
            status="completed", created_at=moment, updated_at=moment,
        )  # fmt: skip
        await caller.report(source, orjson.dumps(body))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("pattern", PATTERNS)
async def test_lines_dated_outside_their_day_count_once_in_every_order_of_import(
    service: Service, pattern: str, layout: Layout, order: str
) -> None:
    source, days = f"{pattern}-{layout}-{order}", PATTERNS[pattern]
    step = 1 if order == "in-order" else -1
    imported: list[Decimal] = []
    async with calling(service.url) as caller:
        await report_transactions(caller, source, days)
        for each in days[::step]:
            body = each.body(layout)
            reply = await post_file(caller, source, body)
            assert reply.status == 200, reply.body
            done = reply.json
            counts = done["new"], done["changed"], done["withdrawn"]
            assert counts == (len(each.entries), 0, 0)
            imported += amounts_in(body)
            assert amounts_of(await lines_of(caller, source)) == sorted(imported)
            run = await run_of(service, source)
            assert run["state"] != "INCOMPLETE", run["reasons"]
            assert run["figures"]["residual"] == "0"
        lines = await lines_of(caller, source)
        run = await run_of(service, source)
        assert await open_breaks(caller, source) == []
    assert len(lines) == sum(len(each.entries) for each in days)
    dates = sorted(line["effective_at"][:10] for line in lines)
    assert dates == sorted(str(entry.day) for each in days for entry in each.entries)
    assert (run["state"], run["figures"]["closing"]) == (
        "RECONCILED", f"{days[-1].closing.normalize():f}"
    )  # fmt: skip


@pytest.mark.parametrize("layout", ["mt940", "camt"])
async def test_equal_lines_of_two_days_count_twice(service: Service, layout: Layout) -> None:
    """The fee of Tuesday, and an equal one that is booked on Tuesday but stated on Wednesday."""
    fee = Entry("-1.5", TUE)
    days = day(MON, TUE, "100", fee), day(TUE, WED, "98.5", fee, Entry("5", WED))
    source, imported = f"twins-{layout}", list[Decimal]()
    async with calling(service.url) as caller:
        for each in days:
            body = each.body(layout)
            reply = await post_file(caller, source, body)
            assert reply.status == 200, reply.body
            imported += amounts_in(body)
            assert amounts_of(await lines_of(caller, source)) == sorted(imported)
        again = await post_file(caller, source, days[1].body(layout))
        assert again.json["status"] == "duplicate"
        run = await run_of(service, source)
    assert run["figures"]["closing"] == "102"
    assert run["figures"]["residual"] == "0"


async def test_two_accounts_of_one_currency_are_two_wallets(service: Service) -> None:
    async with calling(service.url) as caller:
        for account, amount in ((FIRST, "10"), (SECOND, "25")):
            each = BankDay(MON, TUE, "100", (Entry(amount, TUE),), account)
            reply = await post_file(caller, "two-ibans", each.body("camt"))
            assert reply.status == 200, reply.body
            assert (reply.json["new"], reply.json["withdrawn"]) == (1, 0)
        assert amounts_of(await lines_of(caller, "two-ibans", "SGD")) == [Decimal(10)]
        assert amounts_of(await lines_of(caller, "two-ibans", "XSGD")) == [Decimal(25)]
        second = BankDay(TUE, WED, "125", (Entry("-5", WED),), SECOND)
        reply = await post_file(caller, "two-ibans", second.body("mt940"))
        assert reply.status == 200, reply.body
        assert amounts_of(await lines_of(caller, "two-ibans", "SGD")) == [Decimal(10)]
        assert amounts_of(await lines_of(caller, "two-ibans", "XSGD")) == [Decimal(-5), Decimal(25)]
    first, other = [await run_of(service, "two-ibans", c) for c in ("SGD", "XSGD")]
    assert (first["figures"]["closing"], other["figures"]["closing"]) == ("110", "120")


@pytest.mark.parametrize("layout", ["mt940", "camt"])
async def test_an_undeclared_second_account_is_refused_with_what_to_declare(
    service: Service, tmp_path: Path, layout: Layout
) -> None:
    async with calling(service.url) as caller:
        first = BankDay(MON, TUE, "100", (Entry("10", TUE),), FIRST)
        reply = await post_file(caller, "undeclared", first.body("camt"))
        assert reply.status == 200, reply.body
        file = tmp_path / "second.txt"
        file.write_bytes(BankDay(MON, TUE, "7", (Entry("25", TUE),), SECOND).body(layout))
        reply = await post_file(caller, "undeclared", file.read_bytes())
        assert 400 <= reply.status < 500, reply.body
        status, _, errors = await asyncio.to_thread(
            ledger, service, "statement", "import", str(file), "--source", "undeclared"
        )
        assert status == 2
        for message in (reply.json["detail"], errors):
            assert "[sources.undeclared.accounts]" in message
            assert FIRST in message
            assert SECOND in message
        assert amounts_of(await lines_of(caller, "undeclared")) == [Decimal(10)]


async def test_a_file_of_two_accounts_is_refused_until_one_is_selected(
    service: Service, tmp_path: Path
) -> None:
    days = [
        BankDay(MON, TUE, "100", (Entry("10", TUE),), FIRST),
        BankDay(MON, TUE, "7", (Entry("25", TUE), Entry("1", TUE)), SECOND),
    ]
    bodies = camt_of(days), b"".join(each.body("mt940") for each in days)
    for body in bodies:
        file = tmp_path / "both"
        file.write_bytes(body)
        command = ("statement", "import", str(file), "--source", "both")
        status, _, errors = await asyncio.to_thread(ledger, service, *command)
        assert (status, FIRST in errors, SECOND in errors) == (2, True, True)
        assert "--account" in errors
    async with calling(service.url) as caller:
        assert await lines_of(caller, "both") == []
        status, done, errors = await asyncio.to_thread(
            ledger, service, *command, "--account", f"{FIRST[:4]} {FIRST[4:].lower()}"
        )
        assert (status, done["new"], done["account"]) == (0, 1, FIRST), errors
        assert amounts_of(await lines_of(caller, "both")) == [Decimal(10)]


@pytest.mark.parametrize("layout", ["mt940", "camt"])
async def test_a_reference_that_is_used_every_day_names_a_line_of_each(
    service: Service, layout: Layout
) -> None:
    source, imported, opening = f"reused-{layout}", list[Decimal](), Decimal(100)
    async with calling(service.url) as caller:
        for before, now in ((MON, TUE), (TUE, WED), (WED, THU)):
            entries = (
                Entry("10", now, reference="000001"), Entry("-2", now, reference="000002"),
                Entry("3", now), Entry("4", now),
            )  # fmt: skip
            each = BankDay(before, now, str(opening), entries)
            reply = await post_file(caller, source, each.body(layout))
            assert reply.status == 200, reply.body
            assert (reply.json["new"], reply.json["changed"]) == (4, 0)
            imported += amounts_in(each.body(layout))
            opening = each.closing
            lines = await lines_of(caller, source)
            assert amounts_of(lines) == sorted(imported)
        assert len({line["line"] for line in lines}) == 12


@pytest.mark.parametrize("layout", ["mt940", "camt"])
async def test_equal_rows_with_equal_ids_on_one_page_are_both_kept_and_said(
    service: Service, layout: Layout
) -> None:
    twin = Entry("10", TUE, "idem-0001", reference="000001")
    each = day(MON, TUE, "100", twin, twin, Entry("1", TUE))
    async with calling(service.url) as caller:
        reply = await post_file(caller, f"equal-{layout}", each.body(layout))
        assert reply.status == 200, reply.body
        assert reply.json["new"] == 3
        assert any("equal" in note for note in reply.json["notes"])
        amounts = amounts_of(await lines_of(caller, f"equal-{layout}"))
        assert amounts == [Decimal(1), Decimal(10), Decimal(10)]


def csv_of(*rows: str) -> bytes:
    return ("Date,Id,Reference,Amount\n" + "".join(f"{row}\n" for row in rows)).encode()


def sum_of_csv(body: bytes) -> list[Decimal]:
    return [Decimal(row.rsplit(",", 1)[1]) for row in body.decode().splitlines()[1:]]


async def test_ids_of_a_csv_repeat_from_file_to_file_and_on_one_page(service: Service) -> None:
    files = (
        csv_of("2026-03-30,1,a,10", "2026-03-30,2,b,-2"),
        csv_of("2026-03-31,1,c,10", "2026-03-31,2,d,-3"),
        csv_of("2026-04-01,1,e,5", "2026-04-01,1,e,5"),
    )
    imported: list[Decimal] = []
    terms = {"profile": "bank", "currency": "SGD"}
    async with calling(service.url) as caller:
        for body in files:
            reply = await post_file(caller, "reused-csv", body, **terms)
            assert reply.status == 200, reply.body
            assert (reply.json["new"], reply.json["withdrawn"]) == (2, 0)
            imported += sum_of_csv(body)
            lines = await lines_of(caller, "reused-csv")
            assert amounts_of(lines) == sorted(imported)
        assert any("equal" in note for note in reply.json["notes"])


DEPOSITS = csv_of("2026-03-30,,d1,10", "2026-03-31,,d2,20", "2026-04-01,,d3,30")
WITHDRAWALS = csv_of("2026-03-30,,w1,-1", "2026-04-01,,w2,-2")


def write_both(folder: Path) -> tuple[Path, Path]:
    deposits, withdrawals = folder / "deposits.csv", folder / "withdrawals.csv"
    deposits.write_bytes(DEPOSITS)
    withdrawals.write_bytes(WITHDRAWALS)
    return deposits, withdrawals


def importing(source: str, file: Path, *more: str) -> tuple[str, ...]:
    return ("statement", "import", str(file), "--source", source, "--currency", "SGD",
            "--profile", "bank", *more)  # fmt: skip


async def test_a_file_that_lacks_lines_of_an_earlier_one_withdraws_them_only_if_agreed_to(
    service: Service, tmp_path: Path
) -> None:
    deposits, withdrawals = write_both(tmp_path)
    async with calling(service.url) as caller:
        assert ledger(service, *importing("replace", deposits))[0] == 0
        refused = await post_file(caller, "replace", WITHDRAWALS, profile="bank", currency="SGD")
        assert refused.status == 409
        status, shown, errors = await asyncio.to_thread(
            ledger, service, *importing("replace", withdrawals)
        )
        assert status == 1, errors
        for answer in (refused.json, shown):
            assert "replace" in answer["detail"]
            listed = [(each["change"], each["amount"]) for each in answer["changes"]]
            assert sorted(listed) == [("withdrawn", "10"), ("withdrawn", "20"), ("withdrawn", "30")]
        assert amounts_of(await lines_of(caller, "replace")) == [10, 20, 30]
        status, done, errors = await asyncio.to_thread(
            ledger, service, *importing("replace", withdrawals, "--replace")
        )
        assert (status, done["withdrawn"], done["new"]) == (0, 3, 2), errors
        assert amounts_of(await lines_of(caller, "replace")) == sorted(sum_of_csv(WITHDRAWALS))


async def test_a_file_with_only_some_of_the_lines_can_be_added(
    service: Service, tmp_path: Path
) -> None:
    deposits, withdrawals = write_both(tmp_path)
    both = sorted(sum_of_csv(DEPOSITS) + sum_of_csv(WITHDRAWALS))
    async with calling(service.url) as caller:
        assert ledger(service, *importing("add", deposits))[0] == 0
        status, done, errors = await asyncio.to_thread(
            ledger, service, *importing("add", withdrawals, "--add")
        )
        assert (status, done["withdrawn"], done["new"]) == (0, 0, 2), errors
        assert amounts_of(await lines_of(caller, "add")) == both
        more = csv_of("2026-03-30,,x1,100")
        reply = await post_file(caller, "add", more, profile="bank", currency="SGD", add="true")
        assert reply.status == 200, reply.body
        assert reply.json["withdrawn"] == 0
        assert amounts_of(await lines_of(caller, "add")) == [*both, Decimal(100)]


async def test_a_dry_run_says_what_an_import_would_do_and_stores_nothing(
    service: Service, tmp_path: Path
) -> None:
    before = day(MON, TUE, "100", Entry("10", TUE, "a"), Entry("20", TUE, "b"))
    after = day(MON, TUE, "90", Entry("10", TUE, "a"), Entry("-3", TUE, "c"), Entry("4", TUE, "d"))
    file = tmp_path / "after.sta"
    file.write_bytes(after.body("mt940"))
    async with calling(service.url) as caller:

        async def heads() -> list[tuple[str, int]]:
            rows = (await caller.ask("/v1/status"))["sources"]
            return sorted((row["source"], row["head"]) for row in rows)

        empty = await heads()
        asked = await post_file(caller, "dry", before.body("mt940"), dry_run="true")
        assert asked.status == 200, asked.body
        assert await heads() == empty
        reply = await post_file(caller, "dry", before.body("mt940"))
        assert reply.status == 200
        known = await heads()
        asked = await post_file(caller, "dry", file.read_bytes(), dry_run="true")
        assert asked.status == 200, asked.body
        status, shown, errors = await asyncio.to_thread(
            ledger, service, "statement", "import", str(file), "--source", "dry", "--dry-run"
        )
        for answer in (asked.json, shown):
            counts = [answer[n] for n in ("new", "unchanged", "changed", "withdrawn")]
            assert counts == [2, 1, 0, 1], errors
            assert answer["account"] == FIRST
            assert (answer["opening"], answer["closing"]) == ("90", "101")
            assert answer["opened_at"] == "2026-03-31T00:00:00Z"
            assert answer["closed_at"] == "2026-04-01T00:00:00Z"
        assert status in (0, 1)
        assert await heads() == known
        assert amounts_of(await lines_of(caller, "dry")) == [10, 20]
