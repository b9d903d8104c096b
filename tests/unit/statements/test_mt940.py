"""MT940 is read as banks write it: every line, its exact amount, its day; or refused by name.

The files of `mt940/` have one shape of real exports each. `few_lines` reads them too, with a
regular expression of its own.
"""

from __future__ import annotations

import io
import re
import zipfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ledger.config.statement_profile import StatementProfile
from ledger.statements.model import Reading, Statement, StatementLine, StatementRefused
from ledger.statements.reader import read_statement

FILES = Path(__file__).parent / "mt940"
WITH_SEVERAL_ACCOUNTS = "two_accounts"

SHAPES = {
    # file: account, currency, opening, closing, first and last day
    "account_with_bank": ("DE75512108001245126199", "EUR", "1", "-2", "06-02", "06-02"),
    "account_with_currency": ("NL91ABNA0417164300", "EUR", "1", "0", "06-02", "06-02"),
    "blank_before_the_type": ("PL61109010140000071219812874", "PLN", "1000", "1007.5", "06-01",
                              "06-02"),
    "break_before_the_amount": ("DE00BANK0987654322", "EUR", "1", "6", "06-02", "06-02"),
    "crlf_and_bom": ("SG00BANK0123456789", "SGD", "2.5", "102.5", "06-02", "06-02"),
    "days": ("GB33BUKB20201555555555", "GBP", "10", "17", "06-01", "06-03"),
    "days_newest_first": ("GB33BUKB20201555555555", "GBP", "10", "17", "06-01", "06-03"),
    "dutch_code_words": ("123456789", "EUR", "4000", "4097.84", "06-05", "06-05"),
    "foreign_code_words": ("HK000123", "HKD", "0", "601", "06-02", "06-02"),
    "funds_code": ("00112233445566", "INR", "0", "948473.92", "06-02", "06-02"),
    "german_subfields": ("37050299/0004711001", "EUR", "5310.4", "6241.45", "06-05", "06-05"),
    "indented": ("XX0011223344", "USD", "10", "10.5", "06-02", "06-02"),
    "ing_code_words": ("NL20INGB0001234567", "EUR", "662.23", "663.8", "06-02", "06-02"),
    "latin_1": ("DE00BANK0123456789", "EUR", "2.5", "102.5", "06-02", "06-02"),
    "marks_with_a_blank": ("003-123456-7", "SGD", "100", "99", "06-01", "06-01"),
    "mt950": ("0400-778899", "USD", "1000", "948", "06-02", "06-02"),
    "no_comma": ("HU42117730161111101800000000", "HUF", "-1500", "1233000", "06-01", "06-02"),
    "no_decimals": ("0098-7654321", "JPY", "1250000", "1346800", "06-01", "06-02"),
    "no_entry_date": ("AT611904300234573201", "EUR", "0", "8", "06-01", "06-03"),
    "packed_reference": ("NL00RABO0000000001", "EUR", "0", "3", "06-02", "06-02"),
    "pages": ("DE44500105175407324931", "EUR", "10", "9", "06-02", "06-02"),
    "pages_newest_first": ("DE44500105175407324932", "EUR", "10", "9", "06-02", "06-02"),
    "balances_of_the_same_day": ("DE00BANK0555000111", "EUR", "10", "7", "06-01", "06-03"),
    "rabobank": ("NL44RABO0123456789", "EUR", "400.25", "875", "06-05", "06-05"),
    "references_of_18_characters": ("NL81ASNB9999999999", "EUR", "404.81", "538.26", "06-05",
                                    "06-05"),
    "reversals": ("DE89370400440532013000", "EUR", "100", "90", "06-02", "06-02"),
    "statement_information": ("NL13TEST0123456789", "EUR", "10", "13", "06-02", "06-02"),
    "supplementary_details": ("BE68539007547034", "EUR", "1", "1.82", "06-02", "06-02"),
    "swift_blocks": ("SG-0001-22", "SGD", "5", "8", "06-02", "06-03"),
    "tilde_subfields": ("PL25114010100000350000000001", "PLN", "500", "536.8", "06-02", "06-02"),
    "thirtieth_of_february": ("DE00BANK0987654321", "EUR", "1", "1.05", "02-28", "03-02"),
    "turn_of_the_year": ("CH9300762011623852957", "CHF", "10", "14", "2025-12-31", "01-02"),
    "without_20": ("NL62ABNA0000000001", "EUR", "10", "12.5", "06-02", "06-03"),
    "zero_padded": ("0001234567", "SGD", "100", "350.25", "06-01", "06-01"),
    "booked_outside": ("SG22BANK0009", "SGD", "1000", "1030", "07-01", "07-02"),
}  # fmt: skip

PLAIN = """:20:ST
:25:SG00BANK0123456789
:28C:1/1
:60F:C260601SGD10,00
:61:2606020602C5,00NTRFA
:86:First
:61:2606020602D1,00NTRFB
:62F:C260602SGD14,00
-
"""

ONE_LINE = re.compile(
    r"^[ \t]*:61:(\d\d)(\d\d)(\d\d)(?:(\d\d)(\d\d))?\s*(R?)([CD])[A-Z]?\s*(\d*),?(\d*)",
    re.MULTILINE,
)


def few_lines(body: bytes) -> list[tuple[tuple[int, int], Decimal]]:
    """Read month, day and amount of each line."""
    lines = []
    for found in ONE_LINE.finditer(body.decode("latin-1").replace("\r", "")):
        _, month, day, entry_month, entry_day, reverses, mark, whole, part = found.groups()
        if entry_day and int(entry_day):
            month, day = entry_month, entry_day
        amount = Decimal(f"{int(whole or 0)}.{part or 0}")
        positive = (mark == "C") != bool(reverses)
        lines.append(((int(month), min(int(day), 28) if month == "02" else int(day)),
                      amount if positive else -amount))  # fmt: skip
    return lines


def body_of(name: str) -> bytes:
    return (FILES / f"{name}.sta").read_bytes()


def read(body: bytes | str, **terms: Any) -> Statement:
    raw = body.encode() if isinstance(body, str) else body
    return read_statement(raw, Reading(**terms))


def refused(body: bytes | str, **terms: Any) -> str:
    with pytest.raises(StatementRefused) as caught:
        read(body, **terms)
    return str(caught.value)


def lines_of(name: str) -> list[StatementLine]:
    """Return the lines in the order of the file."""
    return sorted(read(body_of(name)).lines, key=lambda line: line.number)


def midnight(text: str) -> datetime:
    day = date.fromisoformat(text if len(text) > 5 else f"2026-{text}")
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def test_every_file_is_of_a_shape() -> None:
    assert {path.stem for path in FILES.iterdir()} == {*SHAPES, WITH_SEVERAL_ACCOUNTS}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_read_as_a_few_lines_read_it(name: str) -> None:
    account, currency, opening, closing, first_day, last_day = SHAPES[name]
    body = body_of(name)
    statement = read(body)
    by_number = sorted(statement.lines, key=lambda line: line.number)
    days_and_amounts = [((line.effective_at.month, line.effective_at.day), line.amount)
                        for line in by_number]  # fmt: skip
    assert days_and_amounts == few_lines(body)
    assert [line.number for line in by_number] == list(range(1, len(by_number) + 1))
    assert {line.currency for line in statement.lines} <= {currency}
    assert (statement.account, statement.currency) == (account, currency)
    assert (statement.opening, statement.closing) == (Decimal(opening), Decimal(closing))
    assert sum(line.amount for line in statement.lines) == Decimal(closing) - Decimal(opening)
    claimed_from = statement.claimed_from or statement.opened_at
    assert claimed_from == midnight(first_day)
    assert statement.closed_at == midnight(last_day) + timedelta(days=1)


@pytest.mark.parametrize("name", SHAPES)
def test_no_line_is_lost_in_silence(name: str) -> None:
    rows = body_of(name).split(b"\n")
    for place, row in enumerate(rows):
        for changed in ((), (row, row), (row[:-1],), (b" " + row,)):
            body = b"\n".join([*rows[:place], *changed, *rows[place + 1 :]])
            try:
                statement = read(body)
            except StatementRefused:
                continue
            by_number = sorted(statement.lines, key=lambda line: line.number)
            assert [line.amount for line in by_number] == [amount for _, amount in few_lines(body)]


# Which day a line has, and where it counts


def test_a_line_dated_outside_its_statement_keeps_its_date_and_is_booked_within() -> None:
    stated = [(f"{line.effective_at:%m-%d}", f"{line.booked_at:%m-%d}")
              for line in lines_of("booked_outside")]  # fmt: skip
    assert stated == [("06-30", "07-01"), ("07-01", "07-01"), ("07-03", "07-01"),
                      ("07-01", "07-02")]  # fmt: skip


def test_an_entry_date_is_in_the_year_nearest_to_the_value_date() -> None:
    assert [f"{line.effective_at:%Y-%m-%d}" for line in lines_of("turn_of_the_year")] == [
        "2025-12-31", "2026-01-02",
    ]  # fmt: skip


def test_days_are_those_of_the_declared_zone() -> None:
    statement = read(body_of("days"), profile=StatementProfile(time_zone="Asia/Singapore"))
    assert statement.opened_at == datetime(2026, 5, 31, 16, tzinfo=UTC)
    assert statement.closed_at == datetime(2026, 6, 3, 16, tzinfo=UTC)
    assert statement.lines[0].effective_at == datetime(2026, 5, 31, 16, tzinfo=UTC)


def test_the_period_given_counts() -> None:
    window = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 4, tzinfo=UTC)
    statement = read(body_of("pages"), window=window)
    assert (statement.opened_at, statement.closed_at) == window


@pytest.mark.parametrize(
    "name", ["balances_of_the_same_day", "booked_outside", "days", "days_newest_first"]
)
def test_statements_of_one_file_are_read_as_those_of_files_of_their_own(name: str) -> None:
    statements = [f":20:{part}" for part in body_of(name).decode().split(":20:")[1:]]
    alone = [line for part in statements for line in read(part).lines]
    together = read(body_of(name)).lines
    assert len(together) == len(alone)
    assert {(line.name, line.booked_at, line.effective_at) for line in together} == {
        (line.name, line.booked_at, line.effective_at) for line in alone
    }


def test_a_zip_of_statements_is_read_as_one_file_of_them() -> None:
    parts = [f":20:{part}" for part in body_of("days").decode().split(":20:")[1:]]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, part in enumerate((*parts, body_of("zero_padded").decode())):
            archive.writestr(f"{number}.sta", part)
    zipped = read(file.getvalue(), account="GB33BUKB20201555555555")
    whole = read(body_of("days"))
    assert (zipped.opening, zipped.closing) == (whole.opening, whole.closing)
    assert [line.name for line in zipped.lines] == [line.name for line in whole.lines]


# Accounts


def test_accounts_of_one_file_are_selected() -> None:
    body = body_of("two_accounts")
    statement = read(body, account="sg11 bank 0001", currency="SGD")
    assert (statement.account, statement.currency) == ("SG11BANK0001", "SGD")
    assert statement.notes == ("2 statements are of other accounts or currencies and left out",)
    assert [line.reference for line in statement.lines] == ["S1", "S4"]
    assert (statement.opening, statement.closing) == (Decimal(10), Decimal(15))
    assert read(body, account="SG11BANK0001", currency="usd").closing == Decimal(33)
    assert read(body, account="SG11BANK0002").closing == Decimal(22)
    assert read(body, currency="USD").account == "SG11BANK0001"


def test_without_a_selection_the_accounts_are_listed() -> None:
    body = body_of("two_accounts")
    assert refused(body) == ("the file is about SG11BANK0001, SG11BANK0002; choose one (--account)")
    assert refused(body, account="SG11BANK0001") == (
        "the file is about SGD, USD; choose one (--currency)"
    )
    assert refused(body, account="SG99") == (
        "the file is about SG11BANK0001, SG11BANK0002, not SG99; choose one of them (--account)"
    )


def test_an_account_and_a_currency_that_do_not_belong_together_are_refused() -> None:
    assert refused(body_of("two_accounts"), account="SG11BANK0002", currency="USD") == (
        "the file is about SGD, not USD; choose one of them (--currency)"
    )
    nameless = body_of("days").replace(b"GBP", b"")
    assert "the file names no currency" in refused(nameless)
    assert {line.currency for line in read(nameless, currency="gbp").lines} == {"GBP"}


def test_an_account_may_be_given_without_its_bank() -> None:
    statement = read(body_of("german_subfields"), account="0004711001")
    assert statement.account == "37050299/0004711001"
    statement = read(body_of("account_with_currency"), account="NL91 ABNA 0417 1643 00 EUR")
    assert statement.account == "NL91ABNA0417164300"


def test_an_account_given_names_that_of_a_file_without_one() -> None:
    body = body_of("zero_padded").replace(b":25:0001234567\n", b"")
    assert read(body).account == ""
    assert read(body, account="0001 234567").account == "0001234567"


# What `:86:` and `:61:` state


def test_subfields_state_purpose_party_and_references() -> None:
    payment, fee, debit = lines_of("german_subfields")
    assert payment.reference == "PAYOUT-2026-06-05-00017"
    assert payment.names == ("PAYOUT-2026-06-05-00017", "BATCH-77", "8812-0000917")
    assert payment.counterparty == "Muster Maschinenbau und Anlagen GmbH"
    assert payment.description == "GUTSCHRIFT Rechnung 4711 vom 01. 06.2026 Danke"
    assert (fee.kind, fee.reference, fee.names) == ("NCHG", None, ("8812-0000918",))
    assert fee.description == "ENTGELTABSCHLUSS Account fee May"
    assert debit.names == ("MANDATE-9-2026-06-05-TOO-LONG-FOR-ONE", "LOT-5")
    assert debit.description == "BASISLASTSCHRIFT Strom Juni Abschlag Zaehler 5 47"


def test_subfields_may_have_another_separator() -> None:
    transfer, first_fee, second_fee = lines_of("tilde_subfields")
    assert transfer.counterparty == "Firma Testowa Spolka z ograniczona"
    assert transfer.description == "PRZELEW Faktura FV/7/2026 za maj czerwiec"
    assert first_fee.description == "OPLATA charge za przelew"
    assert (second_fee.reference, second_fee.description) == ("X-1", "OPLATA fee")


def test_code_words_between_slashes_are_read() -> None:
    paid, debit, returned = lines_of("dutch_code_words")
    assert (paid.reference, paid.counterparty) == ("E2E-2026-0091", "VAN DEN PROEF HANDEL BV")
    assert paid.description == "SEPA OVERBOEKING FACTUUR 2026-0091 EN 2026-0092"
    assert (debit.reference, debit.names, debit.counterparty) == (None, (), "ENERGIE PROEF")
    assert (returned.reference, returned.counterparty) == ("OUT-5", "A. TESTER")
    assert "MS03" in returned.description


def test_code_words_of_ing_and_rabobank_are_read() -> None:
    first, batch, structured = lines_of("ing_code_words")
    assert (first.reference, first.counterparty) == ("EV12341REP1231456T1234", "ING TESTNAAM")
    assert batch.names == ("M000000003333333", "26060200002")
    assert structured.names == ("2026DEF", "9001123412341234", "26060200003")
    paid, paid_out, fee = lines_of("rabobank")
    assert (paid.reference, paid.counterparty) == ("CONTRACT-00017", "Klant Voorbeeld BV")
    assert (paid_out.reference, paid_out.names) == (None, ("BATCH-2026-23",))
    assert (fee.names, fee.description) == ((), "Kosten Rabo Business Account: charge")


def test_code_words_of_swift_are_read() -> None:
    first, second, third = lines_of("foreign_code_words")
    assert first.names == ("INV-2026-77", "CONTRACT 5")
    assert (first.counterparty, second.counterparty) == ("ACME TRADING LTD", "Beta Ltd")
    assert (third.reference, third.names) == ("E2E-5", ("E2E-5", "SHORT", "K-5"))
    assert third.description == "Transfer EREF: E2E-5 KREF: K-5"


def test_references_are_kept_whole() -> None:
    first, _, third = lines_of("references_of_18_characters")
    assert first.reference == "NL47INGB9999999999"
    assert (third.reference, third.id) == ("12345678901234567890123", "LONG-BANK-REFERENCE-0001")
    assert lines_of("packed_reference")[0].names == ()
    assert lines_of("packed_reference")[0].description == "PROEF BV TESTSTAD"
    assert lines_of("packed_reference")[1].reference == "INV 2026 77"


def test_supplementary_details_are_read() -> None:
    cashback, bill = lines_of("supplementary_details")
    assert cashback.names == ("BALANCE_CASHBACK-510151a4-4ead-46c5-05ab-99b88521063d",)
    assert cashback.reference is None
    assert bill.reference == "341241773/1XXXXX"
    assert bill.description == "Paiement 12 /OCMT/EUR0,10/CHGS/EUR0,00/ Bill 12"
    assert lines_of("mt950")[1].description == "COMMISSION AND CHARGES"


def test_the_details_of_a_statement_are_not_those_of_its_last_line() -> None:
    assert [line.description for line in lines_of("statement_information")] == ["", "Of B"]


def test_texts_are_read_in_their_encoding() -> None:
    assert lines_of("crlf_and_bom")[0].description == "Zahlung für Müller und Söhne"
    assert lines_of("latin_1")[0].counterparty == "Jürgen Übung"
    assert read(PLAIN.replace("First", "5 €").encode("cp1252")).lines[0].description == "5 €"
    assert read(PLAIN.encode().replace(b"First", b"\x81\xfc")).lines[0].description == "\x81ü"


def test_a_bank_reference_of_several_lines_is_that_of_each() -> None:
    assert [line.id for line in lines_of("mt950")] == ["THEIR-1", "THEIR-1", "THEIR-2"]


@pytest.mark.parametrize(
    ("details", "description", "counterparty", "names"),
    [
        ("166?00IN?20SVWZ+Invoice 7\nof June\n?32Ann", "IN Invoice 7 of June", "Ann", ()),
        ("166?20EREF+A-1?21Invoice 7", "", "", ("A-1",)),
        ("166?20EREF+A-?211?22SVWZ+x", "x", "", ("A-1",)),
        ("EREF+A-1 KREF+B-2 SVWZ+Text 3", "Text 3", "", ("A-1", "B-2")),
        ("?20Only a purpose?32Bob", "Only a purpose", "Bob", ()),
        ("/ROC/R-1", "R-1", "", ("R-1",)),
        ("Paid and/or returned 1/2", "Paid and/or returned 1/2", "", ()),
        ("/ORDP//NAME/Ann/ID/77/REMI/Lot/EREF/", "Lot", "Ann", ()),
        ("/EREF/NOT PROVIDED/REMI/x", "x", "", ()),
        ("166 text ?? 20", "166 text ?? 20", "", ()),
        ("EREF+KREF+SVWZ+", "", "", ()),
        ("x" * 65 + "\nyz\nend", "x" * 65 + "yz end", "", ()),
        ("/REMI/" + "x" * 55 + "\nyz/NA\nME/end", "x" * 55 + "yz/NA ME/end", "", ()),
    ],
)
def test_details_are_read(
    details: str, description: str, counterparty: str, names: tuple[str, ...]
) -> None:
    line = read(PLAIN.replace("First", details).replace("NTRFA\n", "NTRFNONREF\n")).lines[0]
    assert (line.description, line.counterparty, line.names) == (description, counterparty, names)


def test_old_exports_have_details_in_another_field() -> None:
    line = read(PLAIN.replace(":86:First", ":NS:01Invoice 7\n02of June")).lines[0]
    assert line.description == "Invoice 7 of June"


# Refusals


@pytest.mark.parametrize(
    ("old", "new", "reported"),
    [
        ("D1,00N", "D1.00N", "line 2: :61:'2606020602D1.00NTRFB' in row 7 of the file is not as"),
        ("D1,00NTRFB", "D1,00", "line 2: :61:'2606020602D1,00' in row 7 of the file is not as"),
        ("D1,00N", "X1,00N", "line 2: :61:'2606020602X1,00NTRFB'"),
        ("D1,00N", "D1,00,0N", "line 2: :61:'2606020602D1,00,0NTRFB'"),
        ("0602D1", "0602ED1", "line 2: :61:'2606020602ED1,00NTRFB' in row 7 of the file is an exp"),
        ("2606020602D", "2613020602D", "has '261302', which is no day (YYMMDD)"),
        ("2606020602D", "2606021399D", "has the entry date '1399', which is no day (MMDD)"),
        ("C260601SGD10,00", "C260601SGD10.00", "line 4: :60F:'C260601SGD10.00' is not as SWIFT"),
        ("C260602SGD", "C260631SGD", "line 8: :62F:'C260631SGD14,00' has '260631'"),
        ("SGD14,00", "SGD14,01", "line 2: the closing balance is 14.01, but the lines add up"),
        ("SGD14,00", "USD14,00", "line 8: :62F:'C260602USD14,00' is about USD, not SGD"),
        ("C260602SGD", "C260530SGD", "is of 2026-05-30, before the opening balance of 2026-06-01"),
        (":62F:C260602SGD14,00\n", "", "number 1 of the file, lacks a closing balance (:62F:)"),
        (":60F:C260601SGD10,00\n", "", "number 1 of the file, lacks an opening balance (:60F:)"),
        ("-\n", ":61:2606020602D1,00NTRFC\n", "line 3: :61:'2606020602D1,00NTRFC' in row 9"),
        ("-\n", ":62F:C260602SGD14,00\n", "line 9: :62F:'C260602SGD14,00' is a second closing"),
        ("-\n", PLAIN, "line 3: the statement opens with 10, the one before it closed with 14"),
        (":20:ST", "{1:F01X}{2:O941X}{4:\n:20:ST", "an MT941, which is no statement"),
        ("First", "\x00", "line 1: holds a NUL character"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused(old: str, new: str, reported: str) -> None:
    assert PLAIN.count(old) == 1
    assert reported in refused(PLAIN.replace(old, new))


INTERIM = """:20:ST
:25:SG00BANK0123456789
:28C:1/1
:34F:SGD0,
:13D:2606021200+0800
:61:2606020602C5,00NTRFA
:86:First
:90D:0SGD0,
:90C:1SGD5,
-
"""


@pytest.mark.parametrize(
    "body",
    [
        INTERIM,
        INTERIM.replace(":34F:SGD0,\n", ""),
        "{1:F01BANKSGSGAXXX0000000000}{2:O942BANKSGSGXXXXN}{4:\n" + INTERIM,
        PLAIN + INTERIM,
    ],
)
def test_an_interim_report_is_refused_by_name(body: str) -> None:
    assert "an MT942, an interim report of entries within a day" in refused(body)
    assert refused(body).endswith("import the statement of the day, an MT940, instead")


def test_a_file_cut_off_anywhere_is_refused_or_has_whole_statements() -> None:
    body = body_of("days").decode()
    for end in range(body.index(":61:"), len(body)):
        try:
            statement = read(body[:end])
        except StatementRefused:
            continue
        amounts = [line.amount for line in statement.lines]
        assert (amounts, statement.closing) in [
            ([Decimal(5)], Decimal(15)),
            ([Decimal(5), Decimal(-1), Decimal(3)], Decimal(17)),
        ]
