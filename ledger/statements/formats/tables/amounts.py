"""Amounts as banks write them: exactly what the text says, or a refusal when it may say two things.

`1.234,56-`, `(23.50)`, `500.00 CR`, `$1,234.56`, `1'234.50` and `1E-6` are read. A sign between
digits that no setting declares counts only where the text leaves no doubt: both a point and a comma
are there, or a sign separates several groups of three. `1,234` alone is refused.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final, NamedTuple, NoReturn

from ledger.config.statement_profile import StatementProfile
from ledger.model import shown
from ledger.statements.formats.tables.cells import NumberCell
from ledger.statements.model import StatementRefused
from ledger.statements.validation import money, refusal

_PLAIN: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_DOUBTFUL: Final = re.compile(r"-?[1-9]\d{0,2}\.\d{3}", re.ASCII)
_CHARACTERS_MAX: Final = 80
"""Of an amount with its signs: 38 digits, what is between them, and a currency."""
_ALIKE: Final = str.maketrans(
    {"\u2212": "-", "\u2013": "-", "\u2010": "-", "\u2011": "-", "\ufe63": "-", "\uff0d": "-",
     "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2007": " ", "\u2019": "'", "\u02bc": "'"}
)  # fmt: skip
"""Minus signs, blanks and apostrophes → the ones of ASCII."""
_SYMBOL: Final = (
    r"(?!(?:CR|DR)\b)[A-Z]{3,5}|[A-Za-z]{0,3}\.?[$€£¥₹₩₱₫฿₽₺₪]|RM|Rp\.?|kr\.?|zł|Kč|Fr\.?"
)
_WRITTEN: Final = re.compile(
    rf"(?P<open>\()? *(?P<sign1>[+-])? *(?P<symbol1>{_SYMBOL})? *(?P<sign2>[+-])? *"
    r"(?P<number>\d[\d.,' ]*|[.,]\d+)(?P<exponent>[eE]-\d{1,2})? *"
    rf"(?P<sign3>[+-])? *(?P<symbol2>{_SYMBOL})? *(?P<sign4>[+-])? *"
    r"(?P<word>(?i:CR|DR))?\.? *(?P<close>\))?",
    re.ASCII,
)
_CODE: Final = re.compile(r"[A-Z]{3,5}", re.ASCII)
_SEPARATORS: Final = re.compile(r"[^\d]", re.ASCII)


class Amount(NamedTuple):
    """An amount as a cell states it."""

    value: Decimal
    is_signed: bool
    """Whether the text states the direction itself: by a sign, brackets, or CR or DR."""
    code: str
    """The currency's code that is written beside it; "" without one."""
    word: str = ""
    """CR or DR, where it is written beside it."""


class AmountReader:
    """Reads the amounts of one file, in which a sign between digits has one meaning."""

    def __init__(self, profile: StatementProfile) -> None:
        decimal, thousands = profile.decimal, profile.thousands or ""
        if decimal not in (None, ".", ",") or len(thousands) > 1:
            raise StatementRefused(
                f"decimal is {shown(decimal)}, thousands {shown(thousands)}; decimal is . or , and "
                "thousands one other character, or nothing"
            )
        if decimal is None and thousands and thousands in ".,":
            decimal = "," if thousands == "." else "."
        if thousands and (thousands in "-+" or thousands == decimal or thousands.isalnum()):
            raise StatementRefused(
                f"thousands is {shown(thousands)}; it is neither a sign, a letter or a digit, nor "
                "the decimal sign"
            )
        self._decimal = decimal
        self._thousands = thousands.translate(_ALIKE)
        self._doubt: tuple[int, str] | None = None
        """Line and text of the first amount as 1.234, whose point is read as the decimal sign."""
        self._grouped: tuple[int, str] | None = None
        """Line and text of the first amount whose point can only be between thousands."""

    def read(self, number: int, name: str, cell: str) -> Amount | None:
        """Return the amount of a cell of the column `name`; None when blank or a dash.

        Raises StatementRefused, naming line, column and text.
        """
        text = cell.strip()
        if not text:
            return None
        if (_PLAIN.fullmatch(text) and self._decimal != ",") or isinstance(cell, NumberCell):
            if self._doubt is None and self._is_doubtful(cell, text):
                self._doubt = number, text
                self._check_point(number, name, cell)
            return Amount(self._money(number, name, text, text), text[0] == "-", "")
        text = " ".join(text.translate(_ALIKE).split())
        if len(text) > _CHARACTERS_MAX:
            self._refuse(number, name, cell, _FORMS)
        if text in ("", "-", "--"):
            return None if text != "--" else self._refuse(number, name, cell, _FORMS)
        return self._written(number, name, cell, text)

    def _written(self, number: int, name: str, cell: str, text: str) -> Amount:
        match = _WRITTEN.fullmatch(text)
        if match is None:
            self._refuse(number, name, cell, _FORMS)
        sign = self._sign(number, name, cell, match)
        symbols = [s for s in (match["symbol1"], match["symbol2"]) if s]
        if len(symbols) > 1:
            self._refuse(number, name, cell, "has two currencies; remove one")
        if self._doubt is None and self._is_doubtful(cell, match["number"].strip()):
            self._doubt = number, text
            self._check_point(number, name, cell)
        digits = self._digits(number, name, cell, match["number"].strip())
        if match["exponent"]:
            digits = format(Decimal(digits + match["exponent"]), "f")
        value = self._money(number, name, cell, digits)
        code = symbols[0] if symbols and _CODE.fullmatch(symbols[0]) else ""
        word = (match["word"] or "").upper()
        return Amount(value.copy_negate() if sign < 0 and value else value, sign != 0, code, word)

    def _sign(self, number: int, name: str, cell: str, match: re.Match[str]) -> int:
        """Return 1 or -1 as the text states, 0 when it states nothing."""
        signs = [s for s in (match[f"sign{n}"] for n in range(1, 5)) if s]
        stated = {1 if s == "+" else -1 for s in signs}
        if match["open"] or match["close"]:
            if not (match["open"] and match["close"]) or signs:
                self._refuse(number, name, cell, _FORMS)
            stated.add(-1)
        if match["word"]:
            stated.add(1 if match["word"].upper() == "CR" else -1)
        if len(signs) > 1:
            self._refuse(number, name, cell, _FORMS)
        if len(stated) > 1:
            self._refuse(number, name, cell, "states two directions; correct the row")
        return stated.pop() if stated else 0

    def _digits(self, number: int, name: str, cell: str, text: str) -> str:
        """Return the digits as a plain decimal."""
        group, decimal = self._signs_of(number, name, cell, text)
        whole, point, fraction = text.partition(decimal) if decimal else (text, "", "")
        if group and group in whole:
            if not _is_grouped(whole, group, bool(point)):
                self._refuse(number, name, cell, f"is not grouped in thousands by {group!r}; "
                             "correct the profile or the row")  # fmt: skip
            whole = whole.replace(group, "")
        plain = f"{whole or '0'}.{fraction}" if point else whole
        if not _PLAIN.fullmatch(plain):
            self._refuse(number, name, cell, _FORMS)
        return plain

    def _signs_of(self, number: int, name: str, cell: str, text: str) -> tuple[str, str]:
        """Return the sign between thousands and the decimal sign of one text; "" = it has none."""
        found = list(dict.fromkeys(_SEPARATORS.findall(text)))
        others = [sign for sign in found if sign not in ".,"]
        group = others[0] if others else ""
        marks = [sign for sign in found if sign in ".,"]
        decimal = ""
        if len(marks) == 2 and not group:
            group, decimal = marks
        elif len(marks) == 1:
            mark, is_single = marks[0], text.count(marks[0]) == 1
            known = self._meaning(mark)
            if known == "decimal" or (not known and is_single and (mark == "." or group)):
                decimal = mark
            elif known == "thousands" or (not known and not is_single):
                group = group or mark
            else:
                self._refuse(number, name, cell, f"may have thousands or decimals after {mark!r}"
                             f'; declare thousands = "{mark}" or decimal = "{mark}"')  # fmt: skip
        self._check_declared(number, name, cell, group, decimal)
        if group == "." and self._grouped is None and not self._thousands:
            self._grouped = number, cell.strip()
            self._check_point(number, name, cell)
        return group, decimal

    def _meaning(self, mark: str) -> str:
        """Return what the settings say of a point or a comma; "" = nothing."""
        if self._decimal == mark:
            return "decimal"
        return "thousands" if self._thousands == mark else ""

    def _check_declared(self, number: int, name: str, cell: str, group: str, decimal: str) -> None:
        if decimal and self._decimal and decimal != self._decimal:
            sign = "comma" if self._decimal == "," else "point"
            self._refuse(number, name, cell, f"has {decimal!r} before its decimals, but the "
                         f"decimal sign is a {sign}; correct decimal")  # fmt: skip
        if group and self._thousands and group != self._thousands:
            self._refuse(number, name, cell, f"has {group!r} between its digits, but thousands is "
                         f"{self._thousands!r}; correct thousands")  # fmt: skip

    def _is_doubtful(self, cell: str, text: str) -> bool:
        """Return whether a point may be between thousands, but is read as the decimal sign."""
        is_declared = self._decimal is not None or isinstance(cell, NumberCell)
        return not is_declared and _DOUBTFUL.fullmatch(text) is not None

    def _check_point(self, number: int, name: str, cell: str) -> None:
        """Refuse a file in which 1.234 may be a thousand, as another amount of it shows."""
        if self._doubt is not None and self._grouped is not None:
            doubt, grouped = self._doubt, self._grouped
            self._refuse(number, name, cell, f"leaves a doubt: is {doubt[1][:40]!r} in line "
                         f"{doubt[0]} a thousand, as the point of {grouped[1][:40]!r} in line "
                         f"{grouped[0]} shows? Declare decimal and thousands")  # fmt: skip

    def _money(self, number: int, name: str, cell: str, digits: str) -> Decimal:
        try:
            value = money(number, name, digits)
        except StatementRefused:
            value = None
        if value is None:
            self._refuse(number, name, cell, "has more than 20 digits before the decimal sign or "
                         "18 after it; export the statement again")  # fmt: skip
        return value

    def _refuse(self, number: int, name: str, cell: str, what: str) -> NoReturn:
        raise refusal(number, f"{name} {cell.strip()[:40]!r} {what}")


_FORMS: Final = (
    "is no plain amount, as 1234.56, 1.234,56- or (12.50); correct the row or the profile's column"
)


def _is_grouped(whole: str, group: str, has_decimals: bool) -> bool:
    """Return whether digits are grouped by threes, or as in India where decimals follow."""
    first, *rest = whole.split(group)
    if not rest or not first or len(first) > 3:
        return False
    if all(len(each) == 3 for each in rest):
        return True
    return (
        has_decimals
        and len(first) < 3
        and len(rest[-1]) == 3
        and all(len(each) == 2 for each in rest[:-1])
    )
