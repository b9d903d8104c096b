"""Law: a table that may be misread is refused with line, column, text and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from ledger.config.statement_profile import profile_of
from ledger.statements.model import Reading, StatementRefused
from ledger.statements.reader import read_statement

BASE = {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"}
SPLIT = {"effective_at": "Date", "debit": "Out", "credit": "In", "time_zone": "UTC"}


def refusal_of(body: str | bytes, settings: dict[str, Any], **how: str) -> str:
    raw = body.encode() if isinstance(body, str) else body
    try:
        profile = profile_of(settings)
    except ValueError as error:  # a profile is refused before the file is read
        return str(error)
    with pytest.raises(StatementRefused) as caught:
        read_statement(raw, Reading(**({"currency": "EUR"} | how), profile=profile))
    return str(caught.value)


@dataclass(frozen=True)
class Refused:
    """A file, and what its refusal names."""

    name: str
    body: str
    reported: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=lambda: dict(BASE))


def days(*amounts: str, column: str = "Amount") -> str:
    rows = [f'2026-06-{n:02},"{amount}"' for n, amount in enumerate(amounts, 1)]
    return "\n".join([f"Date,{column}", *rows]) + "\n"


REFUSED = (
    Refused("one sign between digits", days("5", "1,234"),
            ("line 3", "Amount '1,234'", 'thousands = ","', 'decimal = ","')),
    Refused("a point before three digits", days("1.234", "2.500"),
            ("line 2", "Amount '1.234'", "no amount of the file shows", 'decimal = "."')),
    Refused("the same with a sign and a currency", days("5", "-EUR 1.234", "10"),
            ("line 3", "Amount '-EUR 1.234'", 'declare thousands = "."')),
    Refused("the same in the balance only", "Date,Amount,Left\n2026-06-01,1,1.001\n",
            ("line 2", "Left '1.001'", 'decimal = "."'), BASE | {"balance": "Left"}),
    Refused("a balance that is given", days("5"), ("opening '1.234'", 'decimal = "."'),
            BASE | {"opening": "1.234"}),
    Refused("a point that others show in both ways", days("1.234", "1.234.567", "12.50"),
            ("line 4", "'12.50'", "'1.234' in line 2", "'1.234.567' in line 3", "declare decimal")),
    Refused("the same in another order", days("12.50", "1.234,56", "-1.234"),
            ("line 4", "'-1.234'", "'1.234,56' in line 3", "'12.50' in line 2")),
    Refused("a comma that others show in both ways", days("1,234", "1,234,567", "1.234,56"),
            ("line 4", "'1.234,56'", "'1,234' in line 2", "'1,234,567' in line 3")),
    Refused("a comma that others show to be no decimal sign", days("12.50", "-1,234", "12,50"),
            ("line 4", "'12,50'", "'-1,234' in line 3", "'12.50' in line 2", "declare decimal")),
    Refused("a balance before the lines that does not follow",
            "Date,Amount,Left\nBalance B/F,,11\n2026-06-01,5,15\n",
            ("line 3", "running balance is 15"), BASE | {"balance": "Left"}),
    Refused("an amount before the lines without a date",
            "Date,Amount,Left\nBalance B/F,10,10\n2026-06-01,5,15\n",
            ("line 2", "Date 'Balance B/F'"), BASE | {"balance": "Left"}),
    Refused("a point before decimals that are declared with a comma", days("12.50"),
            ("line 2", "Amount '12.50'", "decimal sign is a comma"), BASE | {"decimal": ","}),
    Refused("an amount as long as a page", days("(" + " " * 5000 + "x" * 5000),
            ("line 2", "no plain amount")),
    Refused("wrong groups", days("1,23,45.6"), ("line 2", "Amount '1,23,45.6'", "not grouped")),
    Refused("two directions", days("-5.00 CR"), ("line 2", "'-5.00 CR'", "two directions")),
    Refused("CR beside nothing", days("120.00", "500.00 CR"),
            ("line 2", "Amount '120.00'", "line 3 has CR", "write DR or a minus")),
    Refused("rounded by a spreadsheet", days("1.2E+15"), ("line 2", "'1.2E+15'", "no plain")),
    Refused("two currencies in a cell", days("USD 5 EUR"), ("line 2", "two currencies")),
    Refused("another currency beside the amount", days("USD 5"), ("about USD, not EUR",)),
    Refused("a direction against the indicator", "Date,Amount,DC\n2026-06-01,-5,Credit\n",
            ("line 2", "Amount '-5'", "DC 'Credit'", "leave indicator out"),
            BASE | {"indicator": "DC"}),
    Refused("an unknown indicator", "Date,Amount,DC\n2026-06-01,5,Storno\n",
            ("line 2", "DC 'Storno'", "credit_word"), BASE | {"indicator": "DC"}),
    Refused("both debit and credit", "Date,Out,In\n2026-06-01,1,2\n",
            ("line 2", "Out '1'", "In '2'", "correct"), SPLIT),
    Refused("neither debit nor credit", "Date,Out,In\n2026-06-01,,\n",
            ("line 2", "no Out and no In", "skip_where"), SPLIT),
    Refused("a negative debit", "Date,Out,In\n2026-06-01,-1,\n",
            ("line 2", "Out '-1'", "debit_negative"), SPLIT),
    Refused("CR in the column of debits", "Date,Out,In\n2026-06-01,5 CR,\n",
            ("line 2", "Out '5 CR'"), SPLIT),
    Refused("a row without a date among others", "Date,Amount\n2026-06-01,1\n,2\n2026-06-03,3\n",
            ("line 3", "no Date", "'2'", "skip_where")),
    Refused("words for a date among others", "Date,Amount\n2026-06-01,1\nSum,1\n2026-06-03,3\n",
            ("line 3", "Date 'Sum'", "time_format")),
    Refused("a date of another format at the end", "Date,Amount\n2026-06-01,1\n02/06/2026,2\n",
            ("line 3", "Date '02/06/2026'", "time_format")),
    Refused("dates that can be read in two ways", "Date,Amount\n01/02/2026,1\n",
            ("line 2", "'01/02/2026'", "'%d/%m/%Y' or '%m/%d/%Y'"),
            BASE | {"time_format": ["%d/%m/%Y", "%m/%d/%Y"]}),
    Refused("dates of two formats", "Date,Amount\n13/02/2026,1\n02/13/2026,2\n",
            ("line 3", "'02/13/2026'", "not written as"),
            BASE | {"time_format": ["%d/%m/%Y", "%m/%d/%Y"]}),
    Refused("an abbreviation of several zones", "Date,Zone,Amount\n2026-06-01 10:00,IST,1\n",
            ("line 2", "'IST'", "time_zone"),
            {"effective_at": "Date", "amount": "Amount", "zone": "Zone"}),
    Refused("no such column", "Date,Betrag\n2026-06-01,1\n",
            ("line 1", "no column 'Amount' for amount", "Date, Betrag")),
    Refused("a doubled column", "Date,Amount,Amount\n2026-06-01,1,2\n",
            ("line 1", "2 columns 'Amount'", "Amount#1")),
    Refused("a column of skip_where that is not there", days("1"),
            ("line 1", "no column 'State'", "skip_where.State"), BASE | {"skip_where.State": "x"}),
    Refused("no column of the header where it is said to be", "Date,Amount\n2026-06-01,1\n",
            ("line 2", "no column 'Date'"), BASE | {"header_row": "2"}),
    Refused("a row with more cells", "Date,Amount\n2026-06-01,1,2\n",
            ("line 2", "3 cells, the header 2", "'2'", "spill")),
    Refused("a file that is cut", "Date,Text,Amount\n2026-06-01,a,1\n2026-06-02,b",
            ("line 3", "2 cells, the header 3", "cut")),
    Refused("a net amount that is not amount and fee", "Date,Amount,Fee,Net\n2026-06-01,10,1,11\n",
            ("line 2", "Net '11'", "fee_sign"), BASE | {"fee": "Fee", "net": "Net"}),
    Refused("a currency that is none", "Date,Amount,Ccy\n2026-06-01,1,E!\n",
            ("line 2", "Ccy 'E!'", "no currency code"), BASE | {"currency": "Ccy"}),
    Refused("a balance that does not follow", "Date,Amount,Left\n2026-06-01,1,1\n2026-06-02,1,3\n",
            ("line 3", "running balance is 3"), BASE | {"balance": "Left"}),
    Refused("two ways to state an amount", days("1"), ("amount", "debit and credit"),
            BASE | {"debit": "A", "credit": "B"}),
    Refused("a sign of an amount beside an indicator", days("1"), ("amount_sign", "indicator"),
            BASE | {"amount_sign": "out", "indicator": "DC"}),
    Refused("no time", days("1"), ("fits none", "Date, Amount"), {"amount": "Amount"}),
    Refused("numbers with a header", days("1"), ("'Date'", "#3"), BASE | {"header": "false"}),
    Refused("signs that contradict each other", days("1"), ("decimal sign",),
            BASE | {"decimal": ".", "thousands": "."}),
)  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_table_that_may_be_misread_is_refused(case: Refused) -> None:
    message = refusal_of(case.body, case.settings)
    assert [part for part in case.reported if part not in message] == [], message
    assert len(message) < 1000


def test_several_currencies_or_accounts_are_listed() -> None:
    body = "Date,Amount,Ccy,Acc\n2026-06-01,1,USD,A1\n2026-06-02,2,EUR,A2\n2026-06-03,3,SGD,A1\n"
    settings = BASE | {"currency": "Ccy", "account": "Acc"}
    assert "about EUR, SGD, USD; choose one (--currency)" in refusal_of(
        body, settings, currency="", account="A1"
    )
    assert "about A1, A2; choose one (--account)" in refusal_of(
        body.replace("USD", "EUR").replace("SGD", "EUR"), settings
    )
    assert "about A1, A2, not A9; choose one (--account)" in refusal_of(
        body, settings, account="a 9"
    )
    assert "about EUR, SGD, USD, not GBP" in refusal_of(body, settings, currency="GBP")


def test_a_row_without_a_currency_among_several_is_refused() -> None:
    body = "Date,Amount,Ccy\n2026-06-01,1,USD\n2026-06-02,2,\n2026-06-03,3,EUR\n"
    assert "line 3: names no currency" in refusal_of(body, BASE | {"currency": "Ccy"})


def test_a_header_that_fits_no_profile_is_named() -> None:
    message = refusal_of("Datum;Betrag\n2026-06-01;1\n", {})
    assert message.startswith("line 1: the header has Datum, Betrag, which fits none of the profil")
    assert "--column" in message
    assert "is no row of a table" in refusal_of("hello\nworld\n", {}, format="csv")


def test_a_file_of_another_encoding_names_what_to_do() -> None:
    body = "Date;Text;Amount\n2026-06-01;Gebühr;1\n".encode("cp1252")
    assert "encoding=cp1252" in refusal_of(body, BASE)


def test_too_many_columns_are_refused() -> None:
    assert "more than 256 columns" in refusal_of("Date,Amount" + ",x" * 300 + "\n", BASE)


def test_a_profile_with_an_unknown_setting_lists_those_there_are() -> None:
    assert "names colour; it takes format, time_zone" in refusal_of(
        days("1"), BASE | {"colour": "x"}
    )
    assert "fee_sign" in refusal_of(days("1"), BASE | {"fee_sign": "sideways"})
