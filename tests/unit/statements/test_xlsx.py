"""Law: a sheet of an XLSX has the lines that another library finds in it, to the last digit."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from ledger.config.statement_profile import profile_of
from ledger.statements.formats.tables.xlsx_rows import is_spreadsheet
from ledger.statements.model import Reading, Statement, StatementRefused
from ledger.statements.reader import read_statement
from tests.unit.statements.test_shipped_profiles import EXPORTS, Export
from tests.unit.statements.test_table_shapes import SHAPES, Shape, found_in

SETTINGS = {"effective_at": "Date", "amount": "Amount", "description": "Text", "time_zone": "UTC"}
Rows = Sequence[Sequence[Any]]


def workbook(rows: Rows, *, title: str = "Sheet1", more: dict[str, Rows] | None = None) -> bytes:
    book = openpyxl.Workbook()
    for name, cells in ({title: rows} | (more or {})).items():
        sheet = book.create_sheet(name)
        for row in cells:
            sheet.append(list(row))
    del book["Sheet"]
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def read(body: bytes, settings: dict[str, Any] | None = None, **how: Any) -> Statement:
    profile = profile_of(SETTINGS | (settings or {}))
    return read_statement(body, Reading(**({"currency": "SGD"} | how), profile=profile))


def refused(body: bytes, settings: dict[str, Any] | None = None, **how: Any) -> str:
    with pytest.raises(StatementRefused) as caught:
        read(body, settings, **how)
    return str(caught.value)


def plain_reader(body: bytes, header: int = 1) -> list[tuple[date, Decimal]]:
    """Read date and amount by openpyxl."""
    sheet = openpyxl.load_workbook(io.BytesIO(body), data_only=True).worksheets[0]
    rows = sheet.iter_rows(min_row=header, values_only=True)
    names = list(next(rows))
    day, amount = names.index("Date"), names.index("Amount")
    return [
        (row[day].date(), Decimal(str(row[amount])))  # type: ignore[union-attr]
        for row in rows
        if isinstance(row[day], datetime)
    ]


ROWS: Rows = (
    ("Date", "Text", "Amount"),
    (date(2026, 6, 1), "rent", -800),
    (date(2026, 6, 2), "sale", 1234.56),
    (date(2026, 6, 3), "dust", 0.000001),
    (date(2026, 6, 4), "much", 123456789012.25),
)
ABOVE: Rows = (("Some Bank",), (), (None, "Account", "SG 1"))
BELOW: Rows = (("Total", None, 123456789459.810001), ("printed today",))


@pytest.mark.parametrize(
    ("rows", "header"),
    [
        (ROWS, 1),
        ((*ABOVE, *ROWS), 4),
        ((*ROWS, *BELOW), 1),
        ((ROWS[0], (), *ROWS[:0:-1]), 1),
        (tuple(("", "", *row) for row in ROWS), 1),
    ],
    ids=["plain", "lines above", "lines below", "newest first", "columns before"],
)
def test_a_sheet_has_the_lines_that_another_library_finds(rows: Rows, header: int) -> None:
    body = workbook(rows)
    statement = read(body)
    assert statement.format == "xlsx"
    found = [(line.effective_at.date(), line.amount) for line in statement.lines]
    assert found == sorted(plain_reader(body, header))
    assert len(found) == 4
    assert min(line.number for line in statement.lines) > header


def test_days_of_a_sheet_count_whole_and_times_do_not() -> None:
    assert read(workbook(ROWS)).closed_at == datetime(2026, 6, 5, tzinfo=UTC)
    timed = (*ROWS[:2], (datetime(2026, 6, 2, 10, 30), "x", 1))
    statement = read(workbook(timed))
    assert statement.closed_at == datetime(2026, 6, 2, 10, 30, 0, 1, tzinfo=UTC)


def test_a_date_and_a_time_of_two_cells_are_joined() -> None:
    rows = (("Date", "Time", "Amount", "Text"), (date(2026, 6, 1), time(10, 30), 1, "a"))
    (line,) = read(workbook(rows), {"time": "Time"}).lines
    assert line.effective_at == datetime(2026, 6, 1, 10, 30, tzinfo=UTC)


def test_texts_in_a_sheet_are_read_as_in_a_csv_and_numbers_are_not() -> None:
    rows = (
        ("Date", "Text", "Amount", "Ref"),
        ("01.06.2026", "a", "1.234,56-", 4711),
        (date(2026, 6, 2), "b", 1234.56, "0042"),
    )
    settings = {"time_format": "%d.%m.%Y", "decimal": ",", "names": "Ref"}
    lines = read(workbook(rows), settings).lines
    assert [(str(x.amount), x.names) for x in lines] == [
        ("-1234.56", ("4711",)), ("1234.56", ("0042",))
    ]  # fmt: skip


def test_the_sheet_is_the_first_or_the_one_that_is_named() -> None:
    other: Rows = (("Date", "Text", "Amount"), (date(2026, 6, 9), "other", 9))
    body = workbook(ROWS, more={"July": other})
    assert len(read(body).lines) == 4
    assert [line.amount for line in read(body, {"sheet": "July"}).lines] == [9]
    assert "no sheet 'May'; it is one of Sheet1, July" in refused(body, {"sheet": "May"})


def test_a_profile_that_ships_reads_a_sheet_as_well() -> None:
    rows = (
        ("United Overseas Bank Limited",),
        ("Account Number:", "3013308841", "SGD"),
        (),
        ("Transaction Date", "Transaction Description", "Withdrawal", "Deposit",
         "Available Balance"),
        ("02 Jun 2026", "b", 0, 5.5, 105.5),
        ("01 Jun 2026", "a", 10, 0, 100),
    )  # fmt: skip
    statement = read_statement(workbook(rows), Reading())
    assert [line.amount for line in statement.lines] == [-10, Decimal("5.5")]
    assert (statement.account, statement.currency) == ("3013308841", "SGD")
    assert statement.notes[0].startswith("read by the profile uob")


def test_a_formula_counts_with_the_value_that_the_file_keeps_for_it() -> None:
    body = workbook((*ROWS[:2], (date(2026, 6, 2), "sum", "=1+1")))
    assert "line 3: has no Amount" in refused(body)
    kept = with_part(
        body, "xl/worksheets/sheet1.xml", lambda text: text.replace("<v />", "<v>2</v>")
        .replace("<v></v>", "<v>2</v>")
    )  # fmt: skip
    assert [line.amount for line in read(kept).lines] == [-800, 2]


def with_part(body: bytes, name: str, change: Any) -> bytes:
    """Return a zip with one member changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(body)) as before, zipfile.ZipFile(file, "w") as after:
        for each in before.namelist():
            data = before.read(each)
            after.writestr(each, change(data.decode()).encode() if each == name else data)
    return file.getvalue()


def number(text: str) -> bytes:
    """Return a workbook whose amount is a number as the XML writes it."""
    body = workbook(ROWS[:2])
    return with_part(
        body, "xl/worksheets/sheet1.xml", lambda xml: xml.replace("<v>-800</v>", f"<v>{text}</v>")
    )


def test_a_number_is_read_exactly_or_refused() -> None:
    assert [str(line.amount) for line in read(number("0.1")).lines] == ["0.1"]
    assert [str(line.amount) for line in read(number("1.5E-5")).lines] == ["0.000015"]
    as_excel_writes_it = read(number("1.1000000000000001"))
    assert [str(line.amount) for line in as_excel_writes_it.lines] == ["1.1"]
    message = refused(number("0.30000000000000004"))
    assert "line 2: Amount '0.30000000000000004' has more than 15 digits" in message
    assert "more than 15 digits" in refused(number("1234567890123456"))


def test_the_format_before_xlsx_is_read_too() -> None:
    body = Path(__file__).with_name("sheets").joinpath("excel-97.xls").read_bytes()
    (line,) = read(body).lines
    assert (line.number, line.amount) == (3, Decimal("-12.35"))
    assert line.effective_at == datetime(2026, 6, 1, tzinfo=UTC)


def test_what_is_no_spreadsheet_is_refused() -> None:
    assert "zip is damaged" in refused(b"PK\x03\x04" + b"\0" * 50, format="xlsx")
    damaged = with_part(workbook(ROWS), "xl/workbook.xml", lambda text: text[:100])
    assert "save it again" in refused(damaged)
    wide = workbook((("Date", "Text", "Amount", *range(300)), (date(2026, 6, 1), "a", 1)))
    assert "more than 256 columns" in refused(wide)


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("[Content_Types].xml", "")
        parts.writestr("xl/workbook.xml", "")
        with parts.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as part:
            for _ in range(600):
                part.write(b" " * 1024 * 1024)
    assert len(file.getvalue()) < 1_000_000
    assert "unpacks to more than 512 MiB" in refused(file.getvalue())


def test_a_spreadsheet_is_told_from_other_zips() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as parts:
        parts.writestr("a.xml", "<Document/>")
    assert is_spreadsheet(workbook(ROWS))
    assert not is_spreadsheet(file.getvalue())
    assert not is_spreadsheet(b"PK\x03\x04junk")
    assert not is_spreadsheet(b"Date,Amount\n")


def with_cell(place: str, cell: str = '<c r="{}"><v>1</v></c>') -> bytes:
    """Return a workbook of one line, and of one more cell at a place."""
    whole = zipfile.ZipFile(io.BytesIO(workbook(ROWS[:2])))
    file = io.BytesIO()
    row = "".join(filter(str.isdigit, place))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as changed:
        for name in whole.namelist():
            content = whole.read(name).decode()
            more = f'<row r="{row}">{cell.format(place)}</row></sheetData>'
            changed.writestr(name, content.replace("</sheetData>", more))
    return file.getvalue()


@pytest.mark.parametrize(
    ("place", "cell"),
    [
        ("XFD1048576", '<c r="{}"><v>1</v></c>'),
        ("IV1000000", '<c r="{}"><v>1</v></c>'),
        ("XFD1048576", "<c t='n' r='{}' ><f>1</f><v>1</v></c>"),
        ("XFD1048576", '<c r="{}" t="inlineStr">\n<is><t>x</t></is></c>'),
        ("XFD1048576", " " * (1024 * 1024 - 300) + '<c r="{}"><v>1</v></c>'),
    ],
)
def test_a_cell_far_outside_is_refused_before_the_ones_between_take_memory(
    place: str, cell: str
) -> None:
    message = refused(with_cell(place, cell))
    assert "'xl/worksheets/sheet1.xml' has" in message
    assert f"{place.lstrip('XFDIV')} rows" in message
    assert "remove what is far outside" in message


def test_a_cell_far_outside_that_holds_nothing_does_not_count() -> None:
    assert len(read(with_cell("XFD1048576", '<c r="{}" s="1"/>')).lines) == 1
    assert len(read(with_cell("XFD1048576", '<c r="{}" s="1"></c>')).lines) == 1


PLAIN_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,2})?")
THREE_DIGITS = re.compile(r"(?<!\d)\d{1,3}[.,]\d{3}(?!\d)")
IN_SHEETS = [shape for shape in SHAPES if "spill" not in shape.settings and '="' not in shape.text]
"""Commas outside of quotes and texts written as formulas are ways of CSV alone."""
WITH_NUMBERS = [shape for shape in IN_SHEETS if not THREE_DIGITS.search(shape.text)]
"""A number of a sheet shows nothing about the signs in the texts beside it."""


def sheet_of(text: str, *, numbers: bool = False) -> bytes:
    """Return a workbook with the cells of a CSV, plain decimals as numbers if so wished."""
    lines = text.removeprefix("\ufeff").removeprefix("sep=;\r\n").splitlines(keepends=True)
    delimiter = max(",;\t|", key=lambda each: sum(line.count(each) for line in lines))
    cells = [
        [float(cell) if numbers and PLAIN_NUMBER.fullmatch(cell) else cell for cell in row]
        for row in csv.reader(lines, delimiter=delimiter)
    ]
    return workbook(cells)


@pytest.mark.parametrize("shape", IN_SHEETS, ids=lambda shape: shape.name)
def test_a_sheet_of_texts_in_any_shape_has_the_lines_of_the_csv(shape: Shape) -> None:
    check_sheet(sheet_of(shape.text), shape)


@pytest.mark.parametrize("shape", WITH_NUMBERS, ids=lambda shape: shape.name)
def test_a_sheet_of_numbers_in_any_shape_has_the_lines_of_the_csv(shape: Shape) -> None:
    check_sheet(sheet_of(shape.text, numbers=True), shape)


def check_sheet(body: bytes, shape: Shape) -> None:
    statement = read_statement(body, Reading(**shape.how, profile=profile_of(shape.settings)))
    assert statement.format == "xlsx"
    found = found_in(statement, shape.settings.get("time_zone", "UTC"))
    assert sorted(found) == sorted(shape.reader(shape.text))


UNSPILT = [export for export in EXPORTS if "PTE LTD,JUNE" not in export.text]


@pytest.mark.parametrize("export", UNSPILT, ids=lambda export: export.profile)
def test_an_export_as_a_sheet_has_the_lines_of_the_csv(export: Export) -> None:
    expected = read_statement(export.text.encode(), Reading(**export.how))
    statement = read_statement(sheet_of(export.text), Reading(**export.how))
    assert [
        (x.id, x.kind, x.amount, x.effective_at, x.names, x.description) for x in statement.lines
    ] == [(x.id, x.kind, x.amount, x.effective_at, x.names, x.description) for x in expected.lines]
    assert (statement.account, statement.currency) == (expected.account, expected.currency)
    assert (statement.opening, statement.closing) == (expected.opening, expected.closing)
