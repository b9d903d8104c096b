"""Read decisions on breaks from a CSV file that went through a spreadsheet. Pure.

Spreadsheets change what they save: the encoding, the separator, a byte order mark, blank columns.
The columns that count are found by their names, wherever they are.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ledger.errors import InvalidRequest
from ledger.payload import shown
from ledger.terminal.cells import read_cell

COLUMNS: Final = ("id", "decision", "decision_account", "decision_note", "decision_items")
NEEDED: Final = ("id", "decision")
ACTIONS: Final = ("match", "write_off", "post_fee", "void", "reopen", "note")
SEPARATORS: Final = (",", ";", "\t", "|")
BYTES_MAX: Final = 64 * 1024**2
HEADER_ROWS_MAX: Final = 50
"""Among how many first rows the one with the names of the columns is looked for."""

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ITEMS: Final = re.compile(r"[;|\n]+|,?\s+(?=[a-z_]+:)|,(?=[a-z_]+:)")
_BREAK_ID: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that is no decision, and why."""

    line: int
    id: str
    reason: str


@dataclass(slots=True)
class DecisionFile:
    """The decisions of a file."""

    rows: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Line of the file → the decision, as the service takes it."""
    refused: list[RefusedRow] = field(default_factory=list)
    without_decision: int = 0
    """Rows about a break that decide nothing."""


def read_decisions(body: bytes, by: str, note: str | None) -> DecisionFile:
    """Read the decisions of a file; `note` is that of rows without one.

    Raises InvalidRequest for a file that has no such columns.
    """
    if len(body) > BYTES_MAX:
        raise InvalidRequest(f"the file is larger than {BYTES_MAX} bytes; split it")
    records = _records(_text(body))
    places, first = _header(records)
    read = DecisionFile()
    for line, cells in records[first:]:
        values = {
            name: read_cell(cells[place].strip()) if place < len(cells) else ""
            for name, place in places.items()
        }
        if not values["decision"]:
            read.without_decision += bool(values["id"])
            continue
        try:
            read.rows.append((line, _decision(values, by, note)))
        except InvalidRequest as error:
            read.refused.append(RefusedRow(line, values["id"], str(error)))
    return read


def _text(body: bytes) -> str:
    encoding = next((name for mark, name in _MARKS if body.startswith(mark)), None)
    for name in (encoding,) if encoding else ("utf-8", "cp1252"):
        try:
            return body.decode(name)
        except UnicodeDecodeError:
            continue
    raise InvalidRequest("the file is no text in UTF-8, UTF-16 or Windows-1252; save it as CSV")


def _records(text: str) -> list[tuple[int, list[str]]]:
    """Return the rows with the lines on which they begin, by the separator that fits."""
    separator = re.match(r'\s*"?sep=(.)"?\r?\n', text)
    candidates = (separator.group(1),) if separator else SEPARATORS
    parsed = [_split(text, each) for each in candidates]
    fitting = next((records for records in parsed if _header_row(records) is not None), None)
    return parsed[0] if fitting is None else fitting


def _split(text: str, separator: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    records, line = [], 1
    try:
        for cells in reader:
            records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InvalidRequest(f"line {line} is not CSV: {error}; save the file as CSV") from error
    return records


def _names(cells: Sequence[str]) -> list[str]:
    return [re.sub(r"[\s-]+", "_", cell.strip().casefold()) for cell in cells]


def _header_row(records: Sequence[tuple[int, list[str]]]) -> int | None:
    for index, (_, cells) in enumerate(records[:HEADER_ROWS_MAX]):
        if {*NEEDED} <= {*_names(cells)}:
            return index
    return None


def _header(records: Sequence[tuple[int, list[str]]]) -> tuple[Mapping[str, int], int]:
    """Return where each column is, and the index of the first row after their names."""
    index = _header_row(records)
    if index is None:
        first = ", ".join(records[0][1])[:200] if records else "nothing"
        raise InvalidRequest(
            "no row has the names id and decision of the columns; the file begins with "
            f"{shown(first)}. `ledger reconcile breaks --csv` writes one to fill in"
        )
    names = _names(records[index][1])
    repeated = next((name for name in COLUMNS if names.count(name) > 1), None)
    if repeated is not None:
        raise InvalidRequest(f"two columns are called {repeated}; keep one of them")
    return {name: names.index(name) for name in COLUMNS if name in names}, index + 1


def _decision(values: Mapping[str, str], by: str, note: str | None) -> dict[str, Any]:
    """Return a row's decision. Raises InvalidRequest."""
    action = re.sub(r"[\s-]+", "_", values["decision"].casefold())
    if action not in ACTIONS:
        raise InvalidRequest(
            f"decision is {shown(values['decision'])}, none of {', '.join(ACTIONS)}"
        )
    if not _BREAK_ID.fullmatch(values["id"]):
        raise InvalidRequest(
            f"id is {shown(values['id'])}, not the id of a break: 16 digits and letters a to f; "
            "where a spreadsheet took it for a number, import that column as text"
        )
    reason = values.get("decision_note") or note
    if not reason:
        raise InvalidRequest("say why in decision_note, or for every row with --note")
    decision: dict[str, Any] = {"id": values["id"], "action": action, "by": by, "note": reason}
    if values.get("decision_account"):
        decision["account"] = values["decision_account"]
    items = [item.strip() for item in _ITEMS.split(values.get("decision_items", ""))]
    if any(items):
        decision["items"] = [item for item in items if item]
    return decision
