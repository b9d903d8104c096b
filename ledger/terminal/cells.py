"""Cells of spreadsheets: text that none of them takes for a formula. Pure."""

from __future__ import annotations

from typing import Final, TypeGuard

FORMULA_SIGNS: Final = tuple("=+-@\t\r＝＋－＠")
"""What a spreadsheet takes for the beginning of a formula."""
QUOTE: Final = "'"


def write_cell(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula; amounts stay numbers.

    `read_cell` gives the text back.
    """
    if is_amount(text) or not text.startswith((*FORMULA_SIGNS, QUOTE)):
        return text
    return QUOTE + text


def read_cell(text: str) -> str:
    """Return the text of a cell that `write_cell` wrote, or that a person typed."""
    rest = text.removeprefix(QUOTE)
    return rest if rest != text and rest.startswith((*FORMULA_SIGNS, QUOTE)) else text


def is_amount(text: object) -> TypeGuard[str]:
    """Tell a decimal number as text from everything else."""
    if not isinstance(text, str):
        return False
    digits = text.removeprefix("-").replace(".", "", 1)
    return digits.isascii() and digits.isdigit()
