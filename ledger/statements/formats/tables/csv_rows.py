"""The rows of a CSV file: its encoding, its delimiter, its header, and what is below that."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Final

from ledger.config.statement_profile import StatementProfile
from ledger.model import shown
from ledger.statements.formats.tables.cells import Row, Table, is_blank
from ledger.statements.formats.tables.columns import (
    Columns,
    check_width,
    find_header,
    head_rows_max,
    numbered_columns,
    refuse_header,
)
from ledger.statements.model import StatementRefused
from ledger.statements.validation import refusal

DELIMITERS: Final = (",", ";", "\t", "|")
ENCODINGS: Final = frozenset({"utf-8", "utf-16", "latin-1", "cp1252"})
_SEP: Final = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_LINES_OF_ONE_ROW_MAX: Final = 8
"""Lines that a header's row may have, where its names have line ends."""


class CsvFile:
    """A CSV file as text, whose first lines are read row by row."""

    def __init__(self, body: bytes, profile: StatementProfile, *, is_head: bool = False) -> None:
        """Decode a file; `is_head`: `body` is only its beginning, perhaps cut in a character."""
        self._text = _decoded(body, profile.encoding, "replace" if is_head else "strict")
        self._ends_with_line = self._text.endswith(("\n", "\r"))
        stream = io.StringIO(self._text, newline="")
        lines = head_rows_max(profile)
        self._head = [line for _, line in zip(range(lines), stream, strict=False)]
        marked = _SEP.fullmatch(self._head[0].strip()) if self._head else None
        self._first = 1 if marked else 0
        """Lines before the first that may be a row."""
        declared = _delimiter(profile.delimiter) or (marked[1] if marked else "")
        self._delimiters = (declared,) if declared else DELIMITERS

    def open(self, profile: StatementProfile) -> tuple[int, Columns, Table]:
        """Return the line of the header (0 = none), the columns, and the rows below.

        Raises StatementRefused when no row is a header with every column.
        """
        if profile.header is False:
            columns = numbered_columns(profile)
            return 0, columns, self._table(self._widest(columns.width), self._first)
        found = self.find(profile)
        if found is None:
            rows = max((self._rows_by(each) for each in self._delimiters), key=_widest_row)
            raise refuse_header(rows, profile)
        delimiter, number, columns = found
        end = number - 1 + self._lines_of_row(number, delimiter)
        return number, columns, self._table(delimiter, end)

    def find(self, profile: StatementProfile) -> tuple[str, int, Columns] | None:
        """Return delimiter, line and columns of the header that the profile fits; None = none."""
        for delimiter in self._delimiters:
            found = find_header(self._rows_by(delimiter), profile)
            if found:
                return delimiter, *found
        return None

    def head_rows(self, profile: StatementProfile) -> list[Row]:
        """Return the first rows, among which the header is."""
        return self._rows_by(self._widest(2))[: head_rows_max(profile)]

    def _rows_by(self, delimiter: str) -> list[Row]:
        """Return the first rows, each read on its own, so that a stray quote hides no other."""
        rows = []
        for place in range(self._first, len(self._head)):
            lines = self._head[place : place + _LINES_OF_ONE_ROW_MAX]
            cells = _row(lines, delimiter)
            check_width(place + 1, cells)
            rows.append((place + 1, cells))
        return rows

    def _widest(self, width: int) -> str:
        """Return the first delimiter with which a first row has so many cells, else the widest."""
        widths = {each: _widest_row(self._rows_by(each)) for each in self._delimiters}
        for delimiter, found in widths.items():
            if found >= width:
                return delimiter
        return max(self._delimiters, key=lambda each: widths[each])

    def _lines_of_row(self, number: int, delimiter: str) -> int:
        reader = csv.reader(self._head[number - 1 :], delimiter=delimiter)
        next(reader, None)
        return reader.line_num

    def _table(self, delimiter: str, above: int) -> Table:
        def rows() -> Iterator[Row]:
            stream = io.StringIO(self._text, newline="")
            for _ in range(above):
                stream.readline()
            yield from _rows(stream, delimiter, above)

        return Table(rows, self._ends_with_line)


def _rows(stream: io.StringIO, delimiter: str, above: int) -> Iterator[Row]:
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    before = 0
    try:
        for cells in reader:
            yield above + before + 1, cells
            before = reader.line_num
    except csv.Error as error:
        raise refusal(above + reader.line_num, f"{error}; export the statement again") from error


def _row(lines: Sequence[str], delimiter: str) -> list[str]:
    try:
        return next(csv.reader(lines, delimiter=delimiter), [])
    except csv.Error:
        return []


def _widest_row(rows: Sequence[Row]) -> int:
    return max((len(cells) for _, cells in rows if not is_blank(cells)), default=0)


def _delimiter(declared: str | None) -> str:
    if not declared:
        return ""
    delimiter = "\t" if declared in ("tab", "\\t") else declared
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise StatementRefused(f"delimiter is {shown(declared)}; it is one character, or tab")
    return delimiter


def _decoded(body: bytes, declared: str | None, errors: str) -> str:
    encoding = (declared or "utf-8").lower()
    if encoding not in ENCODINGS:
        raise StatementRefused(
            f"encoding is {shown(declared)}; it is one of {', '.join(sorted(ENCODINGS))}"
        )
    if declared is None and body.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    try:
        text = body.decode("utf-8-sig" if encoding == "utf-8" else encoding, errors)
    except UnicodeError as error:
        raise StatementRefused(
            f"the file is not {encoding}: {error}; declare its encoding (--column encoding=cp1252)"
        ) from error
    if "\x00" in text:
        number = text.count("\n", 0, text.index("\x00")) + 1
        raise refusal(number, "holds a NUL character; export the statement again")
    return text.removeprefix("\ufeff")
