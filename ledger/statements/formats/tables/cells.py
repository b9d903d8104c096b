"""The cells of a table as texts; those of a sheet keep whether they were a number or a date."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

COLUMNS_MAX: Final = 256
"""Columns that a table may have."""

Row: TypeAlias = tuple[int, list[str]]
"""The 1-based line of a file, or row of a sheet, and its cells."""


class NumberCell(str):
    """A number of a sheet, as a plain decimal; no sign for thousands is in it."""

    __slots__ = ()


class DateCell(str):
    """A date or a time of a sheet, as ISO 8601, whatever `time_format` is."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a file below its header, which can be read several times."""

    rows: Callable[[], Iterator[Row]]
    """The rows, blank ones too. Raises StatementRefused, naming the line."""
    ends_with_line: bool = True
    """Whether a line end follows the last row."""


def is_blank(cells: Sequence[str]) -> bool:
    """Return whether every cell is blank."""
    return not any(map(str.strip, cells))


def unwrapped(cell: str) -> str:
    """Return a cell's text, without blanks around it and the `="…"` that keeps zeros for Excel."""
    text = cell.strip()
    if text.startswith('="') and text.endswith('"') and len(text) > 2:
        return text[2:-1].strip()
    return text
