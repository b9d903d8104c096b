"""Law: whatever a bank's CSV looks like, the lines are those that a plain reader finds in it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ledger.config.statement_profile import profile_of
from ledger.model import total
from ledger.statements.model import Reading, Statement, StatementLine, StatementRefused
from ledger.statements.reader import read_statement

Found = list[tuple[str, Decimal]]
"""Day and amount of each line, in any order."""
Cells = list[str]

DAYS = {"effective_at": "Date", "amount": "Amount", "description": "Text", "time_zone": "UTC"}


def read(body: bytes | str, settings: dict[str, Any] | None = None, **how: Any) -> Statement:
    raw = body.encode() if isinstance(body, str) else body
    return read_statement(raw, Reading(**how, profile=profile_of(settings or {})))


def table(text: str, delimiter: str = ",", skip: int = 1, leave: int = 0) -> list[Cells]:
    """Return the rows of a text without its first and last lines."""
    lines = text.splitlines()[skip:]
    rows = csv.reader(lines[: len(lines) - leave], delimiter=delimiter)
    return [cells for cells in rows if "".join(cells).strip()]


def plain(cell: str) -> Decimal:
    return Decimal(cell.replace(",", ""))


def out_in(out: str, in_: str) -> Decimal:
    return plain(in_ or "0") - plain(out or "0")


def german(cell: str) -> Decimal:
    return Decimal(cell.replace(".", "").replace(",", "."))


def day(text: str, pattern: str) -> str:
    return datetime.strptime(text, pattern).date().isoformat()


@dataclass(frozen=True)
class Shape:
    """A file in one shape, how it is declared, and a plain reader of it."""

    name: str
    text: str
    settings: dict[str, Any]
    reader: Callable[[str], Found]
    how: dict[str, str] = field(default_factory=lambda: {"currency": "EUR"})
    encoding: str = "utf-8"


SHAPES = (
    Shape(
        "lines above and below",
        "Konto;DE02 1203 0000 0000 2020 51\nZeitraum;Juni 2026\n\nDate;Text;Amount\n"
        "2026-06-01;Rent;-800.00\n2026-06-30;Interest;0.41\n\nSum;;-799.59\nPrinted on 1 July;;\n",
        DAYS,
        lambda text: [(r[0], plain(r[2])) for r in table(text, ";", 4, 2)],
    ),
    Shape(
        "header by its line, though another row has its names",
        "Date,Text,Amount\n2026-01-01,a year ago,9\nDate,Text,Amount\n2026-06-01,now,1\n",
        DAYS | {"header_row": "3"},
        lambda text: [(r[0], plain(r[2])) for r in table(text, skip=3)],
    ),
    Shape(
        "no header",
        "2026-06-01,Rent,-800.00,x\n2026-06-02,Sale,12.50,y,\n",
        {"header": "false", "effective_at": "#1", "amount": "#3", "time_zone": "UTC"},
        lambda text: [(r[0], plain(r[2])) for r in table(text, skip=0)],
    ),
    Shape(
        "debit and credit apart, blank or nought",
        "Date,Out,In,Text\n2026-06-01,10.00,,a\n2026-06-02,,20.00,b\n2026-06-03,0.00,5.00,c\n"
        "2026-06-04,-,6.00,d\n",
        {"effective_at": "Date", "debit": "Out", "credit": "In", "time_zone": "UTC"},
        lambda text: [(r[0], out_in(r[1].strip("-"), r[2])) for r in table(text)],
    ),
    Shape(
        "debits with a minus",
        "Date,Out,In\n2026-06-01,-10.00,\n2026-06-02,,20.00\n",
        {"effective_at": "Date", "debit": "Out", "credit": "In", "time_zone": "UTC",
         "debit_negative": "true"},
        lambda text: [(r[0], plain(r[1] or r[2])) for r in table(text)],
    ),
    Shape(
        "a comma at the end of every row",
        "Date,Text,Amount\n2026-06-01,a,1.10,\n2026-06-02,b,-2.20,,\n",
        DAYS,
        lambda text: [(r[0], plain(r[2])) for r in table(text)],
    ),
    Shape(
        "cells left out at the end of a row",
        "Date,Out,In,Note\n2026-06-01,3.00\n2026-06-02,,4.00\n",
        {"effective_at": "Date", "debit": "Out", "credit": "In", "time_zone": "UTC"},
        lambda text: [(r[0], out_in(r[1], (*r, "")[2])) for r in table(text)],
    ),
    Shape(
        "sep= and line ends of Windows",
        'sep=;\r\nDate;Text;Amount\r\n2026-06-01;"a;b";1\r\n2026-06-02;"say ""x""";-2\r\n',
        DAYS,
        lambda text: [(r[0], plain(r[2])) for r in table(text, ";", 2)],
    ),
    Shape(
        "doubled names",
        "Date,Amount,Currency,Amount,Currency\n2026-06-01,7,USD,5.5,EUR\n2026-06-02,8,USD,-6,EUR\n",
        {"effective_at": "Date", "amount": "Amount#2", "currency": "Currency#2",
         "time_zone": "UTC"},
        lambda text: [(r[0], plain(r[3])) for r in table(text)],
        {},
    ),
    Shape(
        "a second row for the rest of a text",
        "Date,Text,Amount\n2026-06-01,Payment,-1\n,to somebody,\n,ref 7,\n2026-06-02,Sale,2\n",
        DAYS,
        lambda text: [(r[0], plain(r[2])) for r in table(text) if r[0]],
    ),
    Shape(
        "pending rows",
        "Date,Text,Amount,State\n2026-06-01,a,1,Booked\n2026-06-02,b,2,PENDING\n,c,3,pending\n"
        "2026-06-03,d,4,Reverted\n2026-06-04,e,5,Booked\n",
        DAYS | {"skip_where.State": "Pending,Reverted"},
        lambda text: [(r[0], plain(r[2])) for r in table(text) if r[3] == "Booked"],
    ),
    Shape(
        "several currencies",
        "Date,Amount,Ccy\n2026-06-01,1,USD\n2026-06-02,2,eur\n2026-06-03,3,USD\n",
        {"effective_at": "Date", "amount": "Amount", "currency": "Ccy", "time_zone": "UTC"},
        lambda text: [(r[0], plain(r[1])) for r in table(text) if r[2].upper() == "EUR"],
    ),
    Shape(
        "several accounts",
        "Date,Amount,Account\n2026-06-01,1,SG12 34\n2026-06-02,2,SG99\n2026-06-03,3,sg1234\n",
        {"effective_at": "Date", "amount": "Amount", "account": "Account", "time_zone": "UTC"},
        lambda text: [(r[0], plain(r[1])) for r in table(text) if r[2] != "SG99"],
        {"currency": "SGD", "account": "SG1234"},
    ),
    Shape(
        "a fee beside the amount",
        "Date,Amount,Fee\n2026-06-01,100,1.50\n2026-06-02,-20,0.30\n2026-06-03,5,\n",
        {"effective_at": "Date", "amount": "Amount", "fee": "Fee", "time_zone": "UTC"},
        lambda text: [
            (r[0], amount)
            for r in table(text)
            for amount in (plain(r[1]), -plain(r[2] or "0"))
            if amount
        ],
    ),
    Shape(
        "a fee in the amount",
        "Date,Amount,Fee\n2026-06-01,98.50,1.50\n2026-06-02,-20.30,0.30\n2026-06-03,5,0\n",
        {"effective_at": "Date", "amount": "Amount", "fee": "Fee", "fee_included": "true",
         "time_zone": "UTC"},
        lambda text: [
            (r[0], amount)
            for r in table(text)
            for amount in (plain(r[1]) + plain(r[2]), -plain(r[2]))
            if amount
        ],
    ),
    Shape(
        "amounts of Germany, minus behind",
        'Datum;Betrag\n01.06.2026;"1.234,56-"\n02.06.2026;"12.345.678,90"\n03.06.2026;"7,5"\n',
        {"effective_at": "Datum", "amount": "Betrag", "decimal": ",", "time_zone": "Europe/Berlin",
         "time_format": "%d.%m.%Y"},
        lambda text: [
            (day(r[0], "%d.%m.%Y"), german(r[1].rstrip("-")) * (-1 if r[1][-1] == "-" else 1))
            for r in table(text, ";")
        ],
    ),
    Shape(
        "amounts of Switzerland and France",
        "Date;Amount\n2026-06-01;1'234.50\n2026-06-02;1\u2019000'000.05-\n"
        "2026-06-03;CHF 7.00\n2026-06-04;2\u202f500.00\n",
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"},
        lambda _: [
            ("2026-06-01", Decimal("1234.50")), ("2026-06-02", Decimal("-1000000.05")),
            ("2026-06-03", Decimal("7.00")), ("2026-06-04", Decimal("2500.00")),
        ],
        {"currency": "CHF"},
    ),
    Shape(
        "brackets, CR and DR, symbols, minus signs of typographers",
        'Date,Amount\n2026-06-01,(23.50)\n2026-06-02,500.00 CR\n2026-06-03,20.00 DR\n'
        '2026-06-04,"$1,234.56"\n2026-06-05,\u22125.00\n2026-06-06,+6\n2026-06-07,"-S$2,000.10"\n'
        '2026-06-08,"(1,000.00)"\n',
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"},
        lambda text: [
            (
                r[0],
                Decimal("".join(c for c in r[1] if c.isdigit() or c == "."))
                * (-1 if any(sign in r[1] for sign in ("(", "DR", "\u2212", "-")) else 1),
            )
            for r in table(text)
        ],
        {"currency": "SGD"},
    ),
    Shape(
        "whole amounts of Indonesia, one of which shows the sign",
        "Date;Amount\n2026-06-01;25.000\n2026-06-02;-500\n2026-06-03;-1.234.567\n"
        "2026-06-04;1.000\n",
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"},
        lambda text: [(r[0], Decimal(r[1].replace(".", ""))) for r in table(text, ";")],
        {"currency": "IDR"},
    ),
    Shape(
        "whole amounts of Japan, one of which shows the sign",
        'Date,Amount\n2026-06-01,"25,000"\n2026-06-02,-500\n2026-06-03,"-1,234,567"\n',
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"},
        lambda text: [(r[0], plain(r[1])) for r in table(text)],
        {"currency": "JPY"},
    ),
    Shape(
        "an amount without decimals among those of Germany",
        'Date;Amount\n2026-06-01;"1.234"\n2026-06-02;"12,50"\n2026-06-03;"1.234,56-"\n',
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"},
        lambda text: [
            (r[0], german(r[1].rstrip("-")) * (-1 if r[1][-1] == "-" else 1))
            for r in table(text, ";")
        ],
    ),
    Shape(
        "amounts in every spelling that can mean one thing",
        'Date;Amount\n2026-06-01;1.234,56-\n2026-06-02;(23.50)\n2026-06-03;500.00 CR\n'
        "2026-06-04;$1,234.56\n2026-06-05;\u22125.00\n2026-06-06;1E-6\n2026-06-07;1.234.567\n",
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"},
        lambda text: list(zip(
            [r[0] for r in table(text, ";")],
            map(Decimal, ("-1234.56", "-23.50", "500", "1234.56", "-5", "0.000001", "1234567")),
            strict=True,
        )),
        {"currency": "USD"},
    ),
    Shape(
        "three decimals among two",
        'Date,Amount\n2026-06-01,1.234\n2026-06-02,"1,500"\n2026-06-03,12.5\n',
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"},
        lambda text: [(r[0], plain(r[1])) for r in table(text)],
        {"currency": "KWD"},
    ),
    Shape(
        "three decimals, which the balance shows",
        "Date,Amount,Left\n2026-06-01,1.234,1.234\n2026-06-02,-1.000,0.234\n",
        {"effective_at": "Date", "amount": "Amount", "balance": "Left", "time_zone": "UTC"},
        lambda text: [(r[0], plain(r[1])) for r in table(text)],
        {"currency": "KWD"},
    ),
    Shape(
        "three decimals, declared",
        "Date,Amount\n2026-06-01,1.234\n2026-06-02,-2.500\n",
        {"effective_at": "Date", "amount": "Amount", "decimal": ".", "time_zone": "UTC"},
        lambda text: [(r[0], plain(r[1])) for r in table(text)],
        {"currency": "BHD"},
    ),
    Shape(
        "amounts of a stablecoin",
        "Date,Amount\n2026-06-01,0.123456\n2026-06-02,-1.500000\n2026-06-03,12.345\n",
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"},
        lambda text: [(r[0], plain(r[1])) for r in table(text)],
        {"currency": "XUSD"},
    ),
    Shape(
        "very small amounts",
        "Date,Amount\n2026-06-01,1E-6\n2026-06-02,-2.5e-05\n2026-06-03,0.000000000000000001\n",
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"},
        lambda text: [(r[0], Decimal(r[1])) for r in table(text)],
        {"currency": "XETH"},
    ),
    Shape(
        "amounts of India",
        'Date,Amount\n2026-06-01,"1,23,456.78"\n2026-06-02,"-12,34,567.00"\n',
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"},
        lambda text: [(r[0], plain(r[1])) for r in table(text)],
        {"currency": "INR"},
    ),
    Shape(
        "a card's statement, whose charges have no sign",
        "Date,Amount\n2026-06-01,120.00\n2026-06-02,500.00 CR\n2026-06-03,-7.50\n",
        {"effective_at": "Date", "amount": "Amount", "amount_sign": "out", "time_zone": "UTC"},
        lambda text: [
            (r[0], plain(r[1].rstrip(" CR")) * (1 if r[1].endswith("CR") else -1))
            for r in table(text)
        ],
        {"currency": "SGD"},
    ),
    Shape(
        "an indicator beside signed and unsigned amounts",
        "Date|Amount|DC\n2026-06-01|-5.00|Debit\n2026-06-02|6.00|CR\n2026-06-03|7.00|D\n",
        {"effective_at": "Date", "amount": "Amount", "indicator": "DC", "time_zone": "UTC"},
        lambda text: [
            (r[0], abs(Decimal(r[1])) * (-1 if r[2].startswith("D") else 1))
            for r in table(text, "|")
        ],
    ),
    Shape(
        "an indicator in other languages",
        "Datum;Betrag;S/H\n2026-06-01;5,00;S\n2026-06-02;1.005,00;H\n2026-06-03;7,5;Soll\n"
        "2026-06-04;8,25;Haben\n2026-06-05;9,00;Af\n2026-06-06;10,00;Bij\n",
        {"effective_at": "Datum", "amount": "Betrag", "indicator": "S/H", "time_zone": "UTC"},
        lambda text: [
            (r[0], german(r[1]) * (1 if r[2] in ("H", "Haben", "Bij") else -1))
            for r in table(text, ";")
        ],
    ),
    Shape(
        "a comma before two digits",
        'Date,Amount\n2026-06-01,"12,50"\n2026-06-02,"-7,5"\n2026-06-03,"1,234"\n',
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"},
        lambda text: [(r[0], german(r[1])) for r in table(text)],
    ),
    Shape(
        "the header again on every page",
        "Date,Text,Amount\n2026-06-01,a,1\n\nDate,Text,Amount\n2026-06-02,b,2\n"
        "Date,Text,Amount\n2026-06-03,c,3\n",
        DAYS,
        lambda text: [(r[0], plain(r[2])) for r in table(text) if r[0] != "Date"],
    ),
    Shape(
        "balances without a date before and after the lines",
        "Date,Text,Amount,Left\nBalance B/F,,,10\n2026-06-01,a,5,15\n2026-06-02,b,5,20\n"
        "Balance C/F,,,20\n",
        DAYS | {"balance": "Left"},
        lambda text: [(r[0], plain(r[2])) for r in table(text, leave=1) if r[2]],
    ),
    Shape(
        "words of its own for in and out",
        "Date,Amount,Richtung\n2026-06-01,5,Eingang\n2026-06-02,6,AUSGANG\n",
        {"effective_at": "Date", "amount": "Amount", "indicator": "Richtung", "time_zone": "UTC",
         "credit_word": "Eingang", "debit_word": "Ausgang"},
        lambda text: [
            (r[0], Decimal(r[1]) * (1 if r[2] == "Eingang" else -1)) for r in table(text)
        ],
    ),
    Shape(
        "tabs, of UTF-16",
        "Date\tText\tAmount\n2026-06-01\tGebühr\t-1\n2026-06-02\tErlös\t2\n",
        DAYS,
        lambda text: [(r[0], plain(r[2])) for r in table(text, "\t")],
        encoding="utf-16",
    ),
    Shape(
        "letters of Windows",
        "Date;Text;Amount\n2026-06-01;Gebühr €;-1\n",
        DAYS | {"encoding": "cp1252"},
        lambda text: [(r[0], plain(r[2])) for r in table(text, ";")],
        encoding="cp1252",
    ),
    Shape(
        "a byte order mark, and names in other letters",
        "\ufeffDATE,Text , AMOUNT\n2026-06-01,a,1\n",
        DAYS,
        lambda text: [(r[0], plain(r[2])) for r in table(text)],
    ),
    Shape(
        "texts that Excel keeps, line ends in texts",
        'Date,Text,Amount,Ref\n2026-06-01,"two\nlines",1.00,="000123"\n2026-06-02,b,="2.50",x\n',
        DAYS | {"names": "Ref"},
        lambda _: [("2026-06-01", Decimal("1.00")), ("2026-06-02", Decimal("2.50"))],
    ),
    Shape(
        "commas in the last text, without quotes",
        "Date,Amount,Text\n2026-06-01,1,Shop, Main Street, City\n2026-06-02,2,b\n",
        DAYS | {"spill": "true"},
        lambda text: [(r[0], plain(r[1])) for r in table(text)],
    ),
    Shape(
        "times of the day in a column, zone in another",
        "Date,Time,Zone,Amount\n01/06/2026,23:30:00,PDT,1\n02/06/2026,08:00:00,GMT+08:00,2\n"
        "02/06/2026,08:00:00,Europe/Berlin,3\n",
        {"effective_at": "Date", "time": "Time", "zone": "Zone", "amount": "Amount",
         "time_format": "%d/%m/%Y %H:%M:%S"},
        lambda _: [("2026-06-02", Decimal(1)), ("2026-06-02", Decimal(2)),
                   ("2026-06-02", Decimal(3))],
    ),
    Shape(
        "ISO 8601 in every spelling",
        "Date,Amount\n2026-06-01,1\n20260602,2\n2026-06-03T10:00Z,3\n2026-06-04 10:00:00 UTC,4\n"
        '2026-06-05T10:00:00.123456789+08:00,5\n2026-06-06 9:05,6\n2026-06-07 10:00:00 +0000,7\n'
        '"2026-06-08T10:00:00,5z",8\n',
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"},
        lambda text: [(f"2026-06-{int(r[1]):02}", Decimal(r[1])) for r in table(text)],
    ),
    Shape(
        "one of several formats of dates",
        "Date,Amount\n01/02/2026,1\n13/02/2026,2\n",
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC",
         "time_format": ["%m/%d/%Y", "%d/%m/%Y"]},
        lambda text: [(day(r[0], "%d/%m/%Y"), Decimal(r[1])) for r in table(text)],
    ),
    Shape(
        "newest first, with balances",
        "Date,Amount,Balance\n2026-06-02,-5,15\n2026-06-01,10,20\n2026-06-01,10,10\n",
        {"effective_at": "Date", "amount": "Amount", "balance": "Balance", "time_zone": "UTC"},
        lambda text: [(r[0], Decimal(r[1])) for r in table(text)],
    ),
)  # fmt: skip


def found_in(statement: Statement, zone: str = "UTC") -> Found:
    where = ZoneInfo(zone)
    return [
        (line.effective_at.astimezone(where).date().isoformat(), line.amount)
        for line in statement.lines
    ]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_table_has_the_lines_that_a_plain_reader_finds(shape: Shape) -> None:
    statement = read(shape.text.encode(shape.encoding), shape.settings, **shape.how)
    expected = shape.reader(shape.text)
    assert expected
    assert sorted(found_in(statement, shape.settings.get("time_zone", "UTC"))) == sorted(expected)
    assert total(*(line.amount for line in statement.lines)) == sum(
        (amount for _, amount in expected), Decimal(0)
    )


def test_there_are_enough_shapes() -> None:
    assert len({shape.name for shape in SHAPES}) == len(SHAPES) >= 25


def shape(name: str) -> Statement:
    found = next(each for each in SHAPES if each.name == name)
    return read(found.text.encode(found.encoding), found.settings, **found.how)


def test_what_is_above_and_below_is_reported() -> None:
    assert shape("lines above and below").notes == (
        "lines 1 to 2 above the header: no rows of the statement",
        "lines 8 to 9 at the end: no date, so not read ('Sum -799.59')",
    )


def test_what_is_skipped_is_reported() -> None:
    notes = shape("pending rows").notes
    assert len(notes) == 1
    assert notes[0].startswith("3 rows are skipped: ")
    assert "1 with State 'PENDING'" in notes[0]


def test_a_second_row_belongs_to_the_line_before_it() -> None:
    lines = shape("a second row for the rest of a text").lines
    assert [line.description for line in lines] == ["Payment to somebody ref 7", "Sale"]


def test_a_continuation_of_a_skipped_row_is_skipped_too() -> None:
    body = "Date,Text,Amount,S\n2026-06-01,a,1,ok\n2026-06-02,b,2,no\n,more,,\n2026-06-03,c,3,ok\n"
    lines = read(body, DAYS | {"skip_where.S": "no"}, currency="EUR").lines
    assert [line.description for line in lines] == ["a", "c"]


def test_a_fee_has_the_names_of_its_line_and_the_balance_is_after_both() -> None:
    body = (
        "Date,Id,Ref,Amount,Fee,Balance,Name\n"
        "2026-06-02,B,r2,-20.00,0.30,78.20,Bob\n"
        "2026-06-01,A,r1,100.00,1.50,98.50,Ann\n"
    )
    settings = {"effective_at": "Date", "id": "Id", "names": "Ref", "amount": "Amount",
                "fee": "Fee", "balance": "Balance", "counterparty": "Name",
                "time_zone": "UTC"}  # fmt: skip
    statement = read(body, settings, currency="EUR")
    assert [(x.id, x.kind, str(x.amount), x.names, x.counterparty) for x in statement.lines] == [
        ("A", "", "100.00", ("r1",), "Ann"),
        ("A", "Fee", "-1.50", ("r1",), "Ann"),
        ("B", "", "-20.00", ("r2",), "Bob"),
        ("B", "Fee", "-0.30", ("r2",), "Bob"),
    ]
    assert [line.balance for line in statement.lines] == [
        Decimal(text) for text in ("100.00", "98.50", "78.50", "78.20")
    ]
    assert (statement.opening, statement.closing) == (0, Decimal("78.20"))


def test_a_fee_without_an_amount_is_a_line_of_its_own_only() -> None:
    body = "Date,Amount,Fee\n2026-06-01,0.00,7.99\n"
    settings = {"effective_at": "Date", "amount": "Amount", "fee": "Fee", "time_zone": "UTC"}
    (line,) = read(body, settings, currency="EUR").lines
    assert (line.kind, line.amount) == ("Fee", Decimal("-7.99"))


def test_a_fee_that_a_row_of_its_own_states_counts_once() -> None:
    body = "Date,Id,Amount,Fee\n2026-06-01,T1,-100,1\n2026-06-01,FEE-T1,-1,0\n2026-06-02,T2,-51,1\n"
    settings = {"effective_at": "Date", "id": "Id", "amount": "Amount", "fee": "Fee",
                "fee_included": "true", "fee_id_prefix": "FEE-", "time_zone": "UTC"}  # fmt: skip
    lines = read(body, settings, currency="EUR").lines
    assert [(line.id, str(line.amount)) for line in lines] == [
        ("T1", "-100"), ("FEE-T1", "-1"), ("T2", "-50"), ("T2", "-1")
    ]  # fmt: skip


def test_days_count_whole_in_their_zone() -> None:
    body = "Date,Text,Amount\n2026-06-01,a,1\n2026-06-03,b,2\n"
    statement = read(body, DAYS | {"time_zone": "Asia/Singapore"}, currency="SGD")
    assert statement.opened_at == datetime(2026, 5, 31, 16, tzinfo=UTC)
    assert statement.closed_at == datetime(2026, 6, 3, 16, tzinfo=UTC)
    timed = read(body.replace("2026-06-03", "2026-06-03T10:00"), DAYS, currency="SGD")
    assert timed.closed_at == datetime(2026, 6, 3, 10, 0, 0, 1, tzinfo=UTC)


def test_a_file_without_balances_claims_none() -> None:
    statement = read("Date,Text,Amount\n2026-06-01,a,1\n", DAYS, currency="SGD")
    assert (statement.opening, statement.closing) == (None, None)


def test_the_hour_that_occurs_twice_follows_the_order_of_the_rows() -> None:
    rows = [("02:10", 1), ("02:50", 3), ("02:20", 6), ("03:00", 10)]
    lines = [f"2026-10-25T{clock},x,{n},{left}\n" for n, (clock, left) in enumerate(rows, 1)]
    settings = DAYS | {"time_zone": "Europe/Berlin", "balance": "Left"}
    times = {
        tuple(
            line.effective_at
            for line in read("Date,Text,Amount,Left\n" + "".join(order), settings, currency="EUR")
            .lines
        )
        for order in (lines, lines[::-1])
    }  # fmt: skip
    begin = datetime(2026, 10, 25, tzinfo=UTC)
    minutes = (10, 50, 80, 120)
    assert times == {tuple(begin + timedelta(minutes=n) for n in minutes)}


@pytest.mark.parametrize("rows", [
    [("02:50", 1, 1), ("02:10", 2, 3)],
    [("02:10", 2, 3), ("02:50", 1, 1)],
    [("02:50", 1, 1), ("02:10", 2, 3), ("02:10", -1, 2), ("02:40", 5, 7)],
])  # fmt: skip
def test_within_the_hour_that_occurs_twice_running_balances_show_the_order(
    rows: list[tuple[str, int, int]],
) -> None:
    body = "".join(f"2026-10-25T{clock},x,{amount},{left}\n" for clock, amount, left in rows)
    settings = DAYS | {"time_zone": "Europe/Berlin", "balance": "Left"}
    lines = read("Date,Text,Amount,Left\n" + body, settings, currency="EUR").lines
    minutes = [(line.effective_at.hour, line.effective_at.minute) for line in lines]
    assert minutes == [(0, 50), (1, 10), (1, 10), (1, 40)][: len(rows)]


def test_two_equal_rows_are_two_lines_and_reported() -> None:
    body = "Date,Id,Amount\n2026-06-01,000001,1\n2026-06-01,000001,1\n"
    settings = {"effective_at": "Date", "id": "Id", "amount": "Amount", "time_zone": "UTC"}
    statement = read(body, settings, currency="EUR")
    assert [line.id for line in statement.lines] == ["000001", "000001"]
    assert len({line.name for line in statement.lines}) == 2
    assert "lines 2, 3 are equal" in statement.notes[0]


def test_the_header_can_name_the_currency_and_the_lines_above_the_account() -> None:
    body = (
        "Account:,Savings 123-45678-9\nCurrency,SGD - dollars\n\nDate,Out (SGD),In (SGD)\n"
        "2026-06-01,1,\n"
    )
    settings = {"effective_at": "Date", "debit": "Out ({currency})", "credit": "In ({currency})",
                "account_after": "Account:", "time_zone": "UTC"}  # fmt: skip
    statement = read(body, settings)
    assert (statement.currency, statement.account) == ("SGD", "123-45678-9")
    plain_header = body.replace("Out (SGD)", "Out").replace("In (SGD)", "In")
    settings |= {"debit": "Out", "credit": "In", "currency_after": "Currency"}
    assert read(plain_header, settings).currency == "SGD"


def test_balances_that_count_skipped_rows_are_not_kept() -> None:
    body = (
        "Date,Amount,Balance,Type\n2026-06-01,100,100,Sale\n2026-06-02,-30,70,Hold\n"
        "2026-06-03,-10,60,Refund\n"
    )
    settings = {"effective_at": "Date", "amount": "Amount", "balance": "Balance",
                "skip_where.Type": "Hold", "time_zone": "UTC"}  # fmt: skip
    statement = read(body, settings, currency="EUR")
    assert [line.amount for line in statement.lines] == [100, -10]
    assert (statement.opening, statement.closing) == (None, None)
    assert statement.notes[-1].startswith("the running balance counts the skipped rows")


def test_a_header_may_be_far_below() -> None:
    body = "about this file\n" * 150 + "Date,Text,Amount\n2026-06-01,a,1\n"
    (line,) = read(body, DAYS | {"header_row": "151"}, currency="EUR").lines
    assert (line.number, line.amount) == (152, 1)


def test_rows_without_a_header_are_skipped_by_a_column_that_some_lack() -> None:
    body = "2026-06-01,1,x,no\n2026-06-02,2\n2026-06-03,3,x,yes\n"
    settings = {"header": "false", "effective_at": "#1", "amount": "#2", "time_zone": "UTC",
                "skip_where.#4": "no"}  # fmt: skip
    lines = read(body, settings, currency="EUR").lines
    assert [line.amount for line in lines] == [2, 3]


def test_a_balance_without_an_amount_is_compared_and_is_no_line() -> None:
    body = (
        "Date,Text,Out,In,Left\n2026-06-01,Balance B/F,,,100.00\n2026-06-02,a,10,,90.00\n"
        "2026-06-03,b,,5,95.00\n2026-06-30,Balance C/F,,,95.00\n"
    )
    settings = {"effective_at": "Date", "debit": "Out", "credit": "In", "balance": "Left",
                "description": "Text", "time_zone": "UTC"}  # fmt: skip
    for text in (body, "\n".join([body.splitlines()[0], *body.splitlines()[:0:-1]]) + "\n"):
        statement = read(text, settings, currency="SGD")
        assert [line.description for line in statement.lines] == ["a", "b"]
        assert (statement.opening, statement.closing) == (100, 95)
        assert "is no line" in statement.notes[-1]
    with pytest.raises(StatementRefused, match=r"^line \d: the running balance is"):
        read(body.replace("100.00", "101.00"), settings, currency="SGD")


def test_placeholders_are_no_names() -> None:
    body = "Date,Amount,A,B\n2026-06-01,1,NONREF, inv-7 \n2026-06-02,2,inv-8,inv-8\n"
    settings = {"effective_at": "Date", "amount": "Amount", "names": "A,B", "time_zone": "UTC"}
    lines: tuple[StatementLine, ...] = read(body, settings, currency="EUR").lines
    assert [line.names for line in lines] == [("inv-7",), ("inv-8",)]


def test_a_day_is_the_day_of_its_zone() -> None:
    found = found_in(shape("amounts of Germany, minus behind"), "Europe/Berlin")
    assert found[0][0] == date(2026, 6, 1).isoformat()


def test_a_doubt_of_rows_that_are_not_read_refuses_nothing() -> None:
    body = (
        "Date,Amount,Ccy,State\n2026-06-01,5,EUR,ok\n2026-06-02,1.234,USD,ok\n"
        "2026-06-03,2.345,EUR,no\n"
    )
    settings = {"effective_at": "Date", "amount": "Amount", "currency": "Ccy",
                "skip_where.State": "no", "time_zone": "UTC"}  # fmt: skip
    assert [line.amount for line in read(body, settings, currency="EUR").lines] == [5]


BALANCES = {"effective_at": "Date", "amount": "Amount", "balance": "Left", "time_zone": "UTC"}


def balances(*rows: str) -> str:
    return "\n".join(["Date,Amount,Left", *rows]) + "\n"


@pytest.mark.parametrize("rows", [
    ("2026-06-01,10,10", "2026-06-03,5,0"),
    ("2026-06-03,10,10", "2026-06-01,5,15"),
    ("2026-06-01,10,20", "2026-06-02,-10,10", "2026-06-03,10,20", "2026-06-04,5,10"),
    ("2026-06-01,-10,10", "2026-06-01,10,20", "2026-06-03,5,10"),
    ("2026-06-05,10,20", "2026-06-01,-10,10", "2026-06-03,10,20", "2026-06-04,5,10"),
], ids=["two rows", "newest first", "more rows", "equal days", "a late row first"])  # fmt: skip
@pytest.mark.parametrize("is_turned", [False, True])
def test_a_missing_row_is_seen_though_the_balances_fit_backwards(
    rows: tuple[str, ...], is_turned: bool
) -> None:
    """In each file a row is missing; the rows read against their dates would add up."""
    with pytest.raises(StatementRefused, match=r"^line \d: the running balance is"):
        read(balances(*(rows[::-1] if is_turned else rows)), BALANCES, currency="EUR")


@pytest.mark.parametrize("rows", [
    ("2026-06-01,10,10", "2026-06-01,5,15"),
    ("2026-06-01,10,10", "2026-06-03,5,15", "2026-06-02,1,16"),
    ("2026-06-01,10,10", "2026-06-02,5,15", "2026-06-01,1,16", "2026-06-03,1,17"),
    ("2026-06-05,10,10", "2026-06-01,5,15", "2026-06-02,1,16", "2026-06-02,1,17"),
], ids=["equal days", "a late row", "a row dated back", "a late row first"])  # fmt: skip
@pytest.mark.parametrize("is_turned", [False, True])
def test_rows_are_in_the_order_of_their_balances_oldest_or_newest_first(
    rows: tuple[str, ...], is_turned: bool
) -> None:
    statement = read(balances(*(rows[::-1] if is_turned else rows)), BALANCES, currency="EUR")
    assert [str(line.balance) for line in statement.lines] == [row.split(",")[2] for row in rows]


def test_a_balance_without_a_date_before_the_lines_is_compared() -> None:
    statement = shape("balances without a date before and after the lines")
    assert (statement.opening, statement.closing) == (10, 20)
    assert statement.notes == (
        "line 5 at the end: no date, so not read ('Balance C/F 20')",
        "a balance without an amount is compared and is no line (line 2)",
    )
    text = "Date,Text,Amount,Left\nClosing,,,20\n2026-06-02,b,5,20\n2026-06-01,a,5,15\n"
    newest_first = read(text, DAYS | {"balance": "Left"}, currency="EUR")
    assert (newest_first.opening, newest_first.closing) == (10, 20)


def test_a_header_that_is_repeated_is_reported() -> None:
    assert shape("the header again on every page").notes == ("the header is repeated (lines 4, 6)",)
