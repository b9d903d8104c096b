"""Law: files as banks and providers let download are read without a setting, by what ships."""

from __future__ import annotations

import csv
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ledger.config.source import Source
from ledger.config.statement_profile import StatementProfile, profile_of
from ledger.errors import InvalidRequest
from ledger.model import total
from ledger.statements.formats.tables.profiles import (
    profile_named,
    profile_toml,
    shipped_profiles,
)
from ledger.statements.model import Reading, Statement, StatementRefused
from ledger.statements.reader import read_statement

Found = list[tuple[str, str]]
"""Day, as the file writes it, and amount of each line, its fee apart."""

EXPORTS_FOLDER = Path(__file__).with_name("exports")


def file(name: str) -> str:
    return (EXPORTS_FOLDER / f"{name}.csv").read_bytes().decode()


DBS = file("dbs")
DBS_2025 = file("dbs-with-status")
DBS_IDEAL = file("dbs-ideal")
OCBC = file("ocbc")
UOB = file("uob")
WISE = file("wise")
PAYPAL = file("paypal")
REVOLUT = file("revolut")
REVOLUT_BUSINESS = file("revolut-business")
STRIPE = file("stripe-payout-reconciliation")
STRIPE_BALANCE = file("stripe-balance")
STRIPE_PAYOUTS = file("stripe-payouts")
STRIPE_PAYOUTS_REPORT = file("stripe-payouts-report")


def rows(text: str, header: str) -> list[dict[str, str]]:
    """Return the rows below the line that begins with `header`."""
    lines = text.removeprefix("\ufeff").splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if line.startswith(header))
    return list(csv.DictReader(lines[at:]))


def number(cell: str | None) -> Decimal:
    return Decimal((cell or "").strip().replace(",", "") or "0")


def split(text: str, header: str, day: str, out: str, in_: str, **only: str) -> Found:
    """Read a file with a column for what went out and one for what came in."""
    return [
        (row[day], str(number(row[in_]) - number(row[out])))
        for row in rows(text, header)
        if (row[day] or "").strip() and all(row[key] == value for key, value in only.items())
    ]


def with_fees(
    text: str, header: str, day: str, amount: str, fee: str, sign: int, *, included: bool = False,
    keep: Callable[[dict[str, str]], bool] = bool,
) -> Found:  # fmt: skip
    """Read a file with a fee beside the amount, or in it."""
    found = []
    for row in filter(keep, rows(text, header)):
        paid = sign * number(row[fee])
        found += [(row[day], str(number(row[amount]) - (paid if included else 0)))]
        found += [(row[day], str(paid))]
    return [(when, what) for when, what in found if Decimal(what)]


@dataclass(frozen=True)
class Export:
    """A file of a bank or a provider, the profile that reads it, and a plain reader of it."""

    profile: str
    text: str
    found: Found
    days: str
    """How the file writes its days."""
    currency: str
    account: str = ""
    balances: tuple[str | None, str | None] = (None, None)
    how: dict[str, str] = field(default_factory=dict)


EXPORTS = (
    Export("dbs", DBS, split(DBS, "Transaction Date", "Transaction Date", "Debit Amount",
                             "Credit Amount"),
           "%d %b %Y", "SGD", "018-20467-3", how={"currency": "SGD"}),
    Export("dbs", DBS_2025, split(DBS_2025, "Transaction Date", "Transaction Date", "Debit Amount",
                                  "Credit Amount", Status="Settled"),
           "%d %b %Y", "SGD", "120-44821-7"),
    Export("dbs-ideal", DBS_IDEAL, split(DBS_IDEAL, "Date,", "Date", "Debit", "Credit"),
           "%d-%b-%Y", "SGD", "0720011223", ("10000.00", "11000.00")),
    Export("ocbc", OCBC, split(OCBC, "Transaction date", "Transaction date", "Withdrawals (SGD)",
                               "Deposits (SGD)"),
           "%d/%m/%Y", "SGD", "501-882734-001"),
    Export("uob", UOB, split(UOB, "Transaction Date", "Transaction Date", "Withdrawal", "Deposit"),
           "%d %b %Y", "SGD", "3013308841", ("4000.00", "5002.10")),
    Export("wise", WISE, with_fees(WISE, "TransferWise", "Date", "Amount", "Total fees", -1,
                                   included=True),
           "%d-%m-%Y", "EUR", "", ("0.00", "898.80")),
    Export("paypal", PAYPAL,
           with_fees(PAYPAL, '"Date"', "Date", "Gross", "Fee", 1,
                     keep=lambda row: row["Currency"] == "USD" and "Hold" not in row["Type"]
                     and row["Status"] == "Completed"),
           "%d/%m/%Y", "USD", "", ("0.00", "9.70"), {"currency": "USD"}),
    Export("revolut", REVOLUT,
           with_fees(REVOLUT, "Type", "Completed Date", "Amount", "Fee", -1,
                     keep=lambda row: (row["State"], row["Product"]) == ("COMPLETED", "Current")),
           "%Y-%m-%d %H:%M:%S", "EUR", "", ("0.00", "82.01")),
    Export("revolut-business", REVOLUT_BUSINESS,
           with_fees(REVOLUT_BUSINESS, "Date", "Date completed (UTC)", "Amount", "Fee", -1,
                     keep=lambda row: row["State"] == "COMPLETED"),
           "%Y-%m-%d", "EUR", "EURMAIN", ("0.00", "399.80")),
    Export("stripe-balance", STRIPE,
           with_fees(STRIPE, "automatic", "created_utc", "gross", "fee", -1),
           "%Y-%m-%d %H:%M:%S", "USD"),
    Export("stripe-balance", STRIPE_BALANCE,
           with_fees(STRIPE_BALANCE, "id", "Created (UTC)", "Amount", "Fee", -1),
           "%Y-%m-%d %H:%M", "SGD"),
    Export("stripe-payouts", STRIPE_PAYOUTS,
           [(row["Arrival Date (UTC)"], str(-number(row["Amount"])))
            for row in rows(STRIPE_PAYOUTS, "id") if row["Status"] in ("paid", "in_transit")],
           "%Y-%m-%d %H:%M", "USD"),
    Export("stripe-payouts-report", STRIPE_PAYOUTS_REPORT,
           [(row["effective_at_utc"], what)
            for row in rows(STRIPE_PAYOUTS_REPORT, '"payout_id"')
            for what in (str(-number(row["gross"])), row["fee"]) if Decimal(what)],
           "%Y-%m-%d %H:%M:%S", "SGD"),
)  # fmt: skip


def read(export: Export, profile: StatementProfile | None = None) -> Statement:
    how = Reading(**export.how, profile=profile or StatementProfile())
    return read_statement(export.text.encode(), how)


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.profile)
def test_an_export_is_read_by_the_profile_that_ships(export: Export) -> None:
    statement = read(export)
    zone = ZoneInfo(shipped_profiles()[export.profile].time_zone or "America/Los_Angeles")
    found = [(line.effective_at.astimezone(zone).date(), line.amount) for line in statement.lines]
    expected = [
        (datetime.strptime(day, export.days).date(), Decimal(amount))
        for day, amount in export.found
    ]
    assert sorted(found) == sorted(expected)
    assert total(*(amount for _, amount in found)) == sum(
        (amount for _, amount in expected), Decimal(0)
    )
    assert (statement.currency, statement.account) == (export.currency, export.account)
    stated = statement.opening, statement.closing
    assert stated == tuple(each and Decimal(each) for each in export.balances)
    assert statement.notes[0].startswith(f"read by the profile {export.profile} that ships")


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.profile)
def test_a_profile_that_is_named_reads_the_same(export: Export) -> None:
    profile = profile_named(Source("bank", "straitsx"), export.profile)
    assert read(export, profile).lines == read(export).lines


@pytest.mark.parametrize("name", shipped_profiles())
def test_a_profile_can_be_pasted_into_the_settings(name: str) -> None:
    text = profile_toml(name, shipped_profiles()[name], "bank")
    pasted = tomllib.loads(text)["sources"]["bank"]["statements"][name]
    assert profile_of(pasted) == shipped_profiles()[name]
    assert name in {export.profile for export in EXPORTS}


GUARDED = [export for export in EXPORTS if export.text not in (DBS_2025, OCBC)]
"""Exports in which a balance, or a cell behind the amounts, shows that a row is cut."""


@pytest.mark.parametrize("export", GUARDED, ids=lambda export: export.profile)
def test_an_export_that_is_cut_states_whole_rows_or_is_refused(export: Export) -> None:
    whole = Counter((line.number, line.kind, line.amount) for line in read(export).lines)
    profile = shipped_profiles()[export.profile]
    count = 0
    for end in range(0, len(export.text), 3):
        try:
            lines = read(replace(export, text=export.text[:end]), profile).lines
        except StatementRefused:
            continue
        count += 1
        assert not Counter((line.number, line.kind, line.amount) for line in lines) - whole
    assert count


@pytest.mark.parametrize(
    "export", [each for each in EXPORTS if each.balances[1]], ids=lambda export: export.profile
)
def test_an_export_with_balances_that_lacks_a_row_is_refused(export: Export) -> None:
    whole = read(export)
    numbers = sorted({line.number for line in whole.lines})
    rows = export.text.split("\n")
    for number in numbers[1:-1]:
        text = "\n".join(rows[: number - 1] + rows[number:])
        if '"' in rows[number - 1] and rows[number - 1].count('"') % 2:
            continue  # the row goes on in the next line
        with pytest.raises(StatementRefused, match="the running balance is"):
            read(replace(export, text=text))


def test_names_and_counterparties_of_exports() -> None:
    dbs, wise = read(EXPORTS[0]), read(EXPORTS[5])
    assert dbs.lines[1].names == ("Salary", "ORCHID TRADING", "PTE LTD,JUNE")
    assert [line.kind for line in dbs.lines] == ["POS", "SAL", "ICT"]
    assert [(line.id, line.counterparty, line.reference) for line in wise.lines] == [
        ("TRANSFER-900", "Ode Ltd", "SAL-6"),
        ("CARD-77", "Cafe Uno", None),
        ("TRANSFER-901", "Nils Berg", "INV-31"),
        ("TRANSFER-901", "Nils Berg", "INV-31"),
    ]
    ocbc = read(EXPORTS[3])
    assert [line.description for line in ocbc.lines] == [
        "FAST PAYMENT OTHR - from KOH TRADING",
        "BILL PAYMENT POWER COMPANY",
    ]


def test_dates_of_paypal_that_fit_both_orders_are_refused() -> None:
    text = PAYPAL
    for n in (13, 14, 15, 16, 17):
        text = text.replace(f'"{n}/06/2026"', f'"{n - 10:02}/06/2026"')
    how = Reading(currency="USD")
    with pytest.raises(StatementRefused, match=r"'03/06/2026 10:00:00' can be read as") as caught:
        read_statement(text.encode(), how)
    assert "line 2" in str(caught.value)


def test_the_profiles_of_a_source_come_before_those_that_ship() -> None:
    own = {"mine": profile_of({"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"})}
    statement = read_statement(WISE.encode(), Reading(currency="EUR", profiles=own | {
        "mine": profile_of({"effective_at": "Date", "amount": "Amount", "time_zone": "UTC",
                            "time_format": "%d-%m-%Y"})}))  # fmt: skip
    assert statement.notes[0].startswith("read by the profile mine of the source")
    assert len(statement.lines) == 3
    both = own | {"other": profile_of({"effective_at": "Date Time", "amount": "Amount"})}
    with pytest.raises(StatementRefused, match="fits the profiles mine, other; choose one"):
        read_statement(WISE.encode(), Reading(currency="EUR", profiles=both))


def test_settings_for_one_file_win_over_the_profile() -> None:
    how = Reading(currency="SGD", profile=profile_of({"time_zone": "UTC"}))
    statement = read_statement(DBS.encode(), how)
    assert statement.lines[0].effective_at.isoformat() == "2026-06-25T00:00:00+00:00"
    base = profile_named(Source("bank", "straitsx"), "dbs")
    changed = profile_of({"amount": "Net", "skip_where.Status": "Held"}, base)
    assert (changed.amount, changed.debit, changed.credit) == ("Net", None, None)
    assert changed.skip_where == {"Status": ("Held",)}
    assert changed.time_zone == "Asia/Singapore"
    payouts = profile_named(Source("bank", "straitsx"), "stripe-payouts")
    assert profile_of({"debit": "Out", "credit": "In"}, payouts).amount_sign is None


def test_an_unknown_profile_names_those_there_are() -> None:
    source = Source("bank", "straitsx", statements={"mine": StatementProfile()})
    assert profile_named(source, "mine") == StatementProfile()
    with pytest.raises(InvalidRequest, match=r"'x' is no profile of bank; it is one of mine, dbs"):
        profile_named(source, "x")


def test_a_payout_goes_out_by_whichever_file_of_stripe_names_it() -> None:
    payouts, report, batch = (
        read_statement(text.encode(), Reading())
        for text in (STRIPE_PAYOUTS, STRIPE_PAYOUTS_REPORT, STRIPE)
    )
    assert [(line.id, str(line.amount)) for line in payouts.lines] == [
        ("po_11", "-40.00"), ("po_12", "-310.55"), ("po_14", "-1980.40")
    ]  # fmt: skip
    assert payouts.lines[1].names == ("txn_12", "091000019512")
    assert "1 row is skipped: 1 with Status 'failed'" in payouts.notes
    assert [(line.id, line.kind, str(line.amount)) for line in report.lines] == [
        ("po_11", "payout", "-40.00"), ("po_11", "Fee", "-0.40"), ("po_12", "payout", "-310.55"),
        ("po_13", "payout", "-75.00"), ("po_13", "payout_reversal", "75.00"),
    ]  # fmt: skip
    assert [str(line.amount) for line in batch.lines if line.kind == "payout"] == ["-76.80"]


def test_a_list_of_payouts_whose_amounts_are_negative_is_refused() -> None:
    text = STRIPE_PAYOUTS.replace('"1,980.40"', "-1980.40").replace(",310.55,", ",-310.55,")
    with pytest.raises(StatementRefused, match=r"line 2: Amount '-1980.40' and all others are n"):
        read_statement(text.replace(",40.00,", ",-40.00,").encode(), Reading())


def test_paypal_is_read_in_the_spelling_of_any_language() -> None:
    header = "Date,Time,TimeZone,Type,Status,Currency,Gross,Fee,Net,Transaction ID\n"
    rows = (
        '17.06.2026,10:00:00,CEST,Zahlung,Abgeschlossen,EUR,"1.100,00","-32,20","1.067,80",1AB\n'
        '18.06.2026,10:00:00,CEST,Zahlung,Abgeschlossen,EUR,"-12,50","0,00","-12,50",2AB\n'
    )
    lines = read_statement((header + rows).encode(), Reading()).lines
    assert [str(line.amount) for line in lines] == ["1100.00", "-32.20", "-12.50"]


def test_a_file_that_another_profile_fits_names_it() -> None:
    profile = profile_named(Source("bank", "straitsx"), "stripe-payouts")
    with pytest.raises(StatementRefused, match=r"the header has the columns of stripe-balance"):
        read_statement(STRIPE.encode(), Reading(profile=profile))
