"""The rows of a sheet of an XLSX file, read by python-calamine; no formula is calculated."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook

from ledger.config.statement_profile import StatementProfile
from ledger.model import shown
from ledger.statements.formats.tables.cells import DateCell, NumberCell, Row, Table
from ledger.statements.formats.tables.columns import (
    HEAD_ROWS_MAX,
    Columns,
    check_width,
    find_header,
    head_rows_max,
    numbered_columns,
    refuse_header,
)
from ledger.statements.model import LINES_MAX, StatementRefused

UNPACKED_BYTES_MAX: Final = 512 * 1024 * 1024
"""Bytes that the parts of an XLSX may have together, unpacked."""
PARTS_MAX: Final = 10_000
DIGITS_MAX: Final = 15
"""Digits of a number that a spreadsheet keeps exactly."""

CELLS_MAX: Final = 30_000_000
"""Cells between the first and the last one of a sheet, blank ones too: the library keeps them all
in memory, 24 bytes each."""

_BOOK: Final = "xl/workbook.xml"
_CELL: Final = re.compile(
    rb"""<(?:\w{1,20}:)?c\s[^<>]{0,200}?\br=["']([A-Z]{1,3})(\d{1,7})["'][^<>]{0,200}>\s*<(?!/)"""
)
"""A cell that holds something, as a sheet's XML has it: column and row."""
_PIECE_BYTES: Final = 1024 * 1024
_CELL_BYTES: Final = 1024
"""Bytes in which a cell begins."""
_DAMAGED: Final = (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, RuntimeError)
_ZIP: Final = b"PK\x03\x04"
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""How an XLS begins, the format before XLSX."""


class XlsxFile:
    """A sheet of an XLSX file."""

    def __init__(self, body: bytes, name: str | None) -> None:
        """Open the sheet of a name, else the first. Raises StatementRefused."""
        _check_size(body)
        try:
            book = CalamineWorkbook.from_object(io.BytesIO(body))
            self._sheet = _sheet(book, name)
        except (CalamineError, OSError, ValueError) as error:
            raise StatementRefused(
                f"the file is no XLSX that can be read ({str(error)[:100]}); save it again, "
                "without a password"
            ) from error
        check_width(1, [""] * self._sheet.total_width)
        if self._sheet.total_height > LINES_MAX + HEAD_ROWS_MAX:
            raise StatementRefused(f"more than {LINES_MAX} rows; split the file by time")

    def open(self, profile: StatementProfile) -> tuple[int, Columns, Table]:
        """Return the row of the header (0 = none), the columns, and the rows below.

        Raises StatementRefused when no row is a header with every column.
        """
        if profile.header is False:
            return 0, numbered_columns(profile), Table(self._rows)
        rows = self.head_rows(profile)
        found = find_header(rows, profile)
        if found is None:
            raise refuse_header(rows, profile)
        above, columns = found

        def below() -> Iterator[Row]:
            return (row for row in self._rows() if row[0] > above)

        return above, columns, Table(below)

    def find(self, profile: StatementProfile) -> tuple[int, Columns] | None:
        """Return row and columns of the header that the profile fits; None = none."""
        return find_header(self.head_rows(profile), profile)

    def head_rows(self, profile: StatementProfile) -> list[Row]:
        """Return the first rows, among which the header is."""
        return [row for _, row in zip(range(head_rows_max(profile)), self._rows(), strict=False)]

    def _rows(self) -> Iterator[Row]:
        start = self._sheet.start
        before = [""] * (start[1] if start else 0)
        for number, cells in enumerate(self._sheet.iter_rows(), 1):
            yield number, before + [_text(cell) for cell in cells]


def is_spreadsheet(body: bytes) -> bool:
    """Return whether a file is an XLSX, which is a zip that has a workbook, or an XLS."""
    if body.startswith(_OLE):
        return True
    if not body.startswith(_ZIP):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as parts:
            return _BOOK in parts.namelist()
    except _DAMAGED:
        return False


def _check_size(body: bytes) -> None:
    """Refuse a zip that unpacks to more than what is read."""
    if body.startswith(_OLE):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as parts:
            infos = parts.infolist()
            is_small = len(infos) <= PARTS_MAX and (
                sum(info.file_size for info in infos) <= UNPACKED_BYTES_MAX
            )
            if is_small:
                for info in infos:
                    _check_cells(parts, info)
    except (*_DAMAGED, EOFError, zlib.error) as error:
        raise StatementRefused(
            f"the file is no XLSX ({str(error)[:100]}); export the statement again"
        ) from error
    if not is_small:
        raise StatementRefused(
            f"the file unpacks to more than {UNPACKED_BYTES_MAX >> 20} MiB or {PARTS_MAX} parts; "
            "split it by time, or export CSV"
        )


def _check_cells(parts: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Refuse a sheet with a cell so far out that the blank ones before it do not fit in memory."""
    if not info.filename.endswith(".xml"):
        return
    width = height = 0
    with parts.open(info) as part:
        before = b""
        while piece := part.read(_PIECE_BYTES):
            found = _CELL.findall(before + piece)
            if found:
                width = max(width, *map(_column_number, {column for column, _ in found}))
                height = max(height, *map(int, {row for _, row in found}))
            if width * height > CELLS_MAX:
                raise StatementRefused(
                    f"{shown(info.filename)} has {width} columns and {height} rows up to its last "
                    f"cells, more than {CELLS_MAX} cells together; remove what is far outside of "
                    "the table, or export CSV"
                )
            before = piece[-_CELL_BYTES:]


def _column_number(letters: bytes) -> int:
    """Return the 1-based number of a column: A = 1, Z = 26, AA = 27."""
    number = 0
    for letter in letters:
        number = 26 * number + letter - ord("A") + 1
    return number


def _sheet(book: CalamineWorkbook, name: str | None) -> CalamineSheet:
    names = book.sheet_names
    if name is not None and name not in names:
        raise StatementRefused(
            f"there is no sheet {shown(name)}; it is one of {', '.join(names)[:300]}"
        )
    if not names:
        raise StatementRefused("the file has no sheet; export the statement again")
    return book.get_sheet_by_name(names[0] if name is None else name)


def _text(cell: Any) -> str:
    """Return a cell as a text; a number with the shortest decimals that it has."""
    match cell:
        case str():
            return cell
        case bool():
            return "TRUE" if cell else "FALSE"
        case float() | int():
            return NumberCell(format(Decimal(repr(cell)).normalize(), "f") if cell else "0")
        case datetime():
            return DateCell(cell.isoformat())
        case date() | time():
            return DateCell(cell.isoformat())
        case timedelta():
            return DateCell(str(cell).zfill(8))
    return str(cell)


def check_digits(number: int, name: str, cell: str) -> None:
    """Refuse a number of a sheet with more digits than a spreadsheet keeps."""
    if isinstance(cell, NumberCell):
        digits = cell.lstrip("-0.").replace(".", "").rstrip("0" if "." not in cell else "")
        if len(digits) > DIGITS_MAX:
            raise StatementRefused(
                f"line {number}: {name} {cell[:40]!r} has more than {DIGITS_MAX} digits, which a "
                "spreadsheet does not keep exactly; round it, or write it as a text"
            )
