"""Amounts as banks write them: exactly what the text says, or a refusal when it may say two things.

`1.234,56-`, `(23.50)`, `500.00 CR`, `$1,234.56`, `1'234.50` and `1E-6` are read. What a point or a
comma between digits means is declared, else the text itself shows it (`1.234,56`, `1.234.567`,
`12,50`, `0.123`), else another amount of the file does. Where none shows it, or two show different
things, `1.234` and `1,234` are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple, NoReturn

from ledger.config.statement_profile import StatementProfile
from ledger.model import shown
from ledger.statements.formats.tables.cells import NumberCell
from ledger.statements.model import StatementRefused
from ledger.statements.validation import money, refusal

_PLAIN: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_DOUBTFUL: Final = re.compile(r"-?[1-9]\d{0,2}[.,]\d{3}", re.ASCII)
"""A point or a comma that may be the decimal sign, or between thousands."""
_SHOWN_MAX: Final = 40
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
    rf"(?P<open>\()? ?(?P<sign1>[+-])? ?(?P<symbol1>{_SYMBOL})? ?(?P<sign2>[+-])? ?"
    r"(?P<number>\d[\d.,' ]*|[.,]\d+)(?P<exponent>[eE]-\d{1,2})? ?"
    rf"(?P<sign3>[+-])? ?(?P<symbol2>{_SYMBOL})? ?(?P<sign4>[+-])? ?"
    r"(?P<word>(?i:CR|DR))?\.? ?(?P<close>\))?",
    re.ASCII,
)
"""An amount in which no two blanks follow each other."""
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
        self._shown: dict[str, tuple[int, str]] = {}
        """Where none is declared: decimal sign → line and text of the first amount that shows it;
        the first of them is that of the file."""
        self._doubt: tuple[int, str] | None = None
        """Line and text of the first amount that is read by the sign that others show."""

    def learn(self, cells: Iterable[tuple[int, str]]) -> None:
        """Find out the decimal sign, unless it is declared, from cells of amounts: (line, text).

        The first that can mean one thing decides; no cell behind it is taken.
        """
        if self._decimal is not None:
            return
        for number, cell in cells:
            if ("." in cell or "," in cell) and not isinstance(cell, NumberCell):
                match = _WRITTEN.fullmatch(_clean(cell)[:_CHARACTERS_MAX])
                sign = _decimal_sign(match["number"].strip()) if match else ""
                if sign:
                    self._shown[sign] = number, cell.strip()[:_SHOWN_MAX]
                    return

    def read(self, number: int, name: str, cell: str) -> Amount | None:
        """Return the amount of a cell of the column `name`; None when blank or a dash.

        Raises StatementRefused, naming line, column and text.
        """
        text = cell.strip()
        if not text:
            return None
        if isinstance(cell, NumberCell) or (_PLAIN.fullmatch(text) and self._is_sure(text)):
            return Amount(self._money(number, name, text, text), text[0] == "-", "")
        text = _clean(text)
        if len(text) > _CHARACTERS_MAX:
            self._refuse(number, name, cell, _FORMS)
        if text in ("", "-", "--"):
            return None if text != "--" else self._refuse(number, name, cell, _FORMS)
        return self._written(number, name, cell, text)

    def _is_sure(self, text: str) -> bool:
        """Return whether the point of a plain decimal is the decimal sign, and no news."""
        if self._decimal is not None or "." not in text:
            return self._decimal != ","
        return len(self._shown) == 1 and "." in self._shown and not _DOUBTFUL.fullmatch(text)

    def _written(self, number: int, name: str, cell: str, text: str) -> Amount:
        match = _WRITTEN.fullmatch(text)
        if match is None:
            self._refuse(number, name, cell, _FORMS)
        sign = self._sign(number, name, cell, match)
        symbols = [s for s in (match["symbol1"], match["symbol2"]) if s]
        if len(symbols) > 1:
            self._refuse(number, name, cell, "has two currencies; remove one")
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
                self._refuse(number, name, cell, f"is not grouped in thousands by {group!r}"
                             f"{self._sign_known()}; correct the profile or the row")  # fmt: skip
            whole = whole.replace(group, "")
        plain = f"{whole or '0'}.{fraction}" if point else whole
        if not _PLAIN.fullmatch(plain):
            self._refuse(number, name, cell, _FORMS)
        return plain

    def _signs_of(self, number: int, name: str, cell: str, text: str) -> tuple[str, str]:
        """Return the sign between thousands and the decimal sign of one text; "" = it has none."""
        group, marks = _marks_of(text)
        decimal = ""
        if len(marks) == 2 and not group:
            group, decimal = marks
        elif len(marks) == 1:
            sign = self._decimal or _decimal_sign(text) or self._sign_of_others(number, name, cell)
            if sign == marks[0]:
                decimal = sign
            else:
                group = group or marks[0]
        if marks and self._decimal is None:
            self._see_sign(number, name, cell, text)
        self._check_declared(number, name, cell, group, decimal)
        return group, decimal

    def _sign_of_others(self, number: int, name: str, cell: str) -> str:
        """Return the decimal sign that other amounts show. Raises StatementRefused when none do."""
        sign = next(iter(self._shown), "")
        if not sign:
            mark = "." if "." in cell else ","
            self._refuse(number, name, cell, f"may have thousands or decimals after {mark!r}, and "
                         f'no amount of the file shows which; declare thousands = "{mark}" or '
                         f'decimal = "{mark}"')  # fmt: skip
        self._doubt = self._doubt or (number, cell.strip()[:_SHOWN_MAX])
        return sign

    def _see_sign(self, number: int, name: str, cell: str, text: str) -> None:
        """Keep the decimal sign that a text shows.

        Raises StatementRefused when amounts show both, and one is read by what others show.
        """
        sign = _decimal_sign(text)
        if sign:
            self._shown.setdefault(sign, (number, cell.strip()[:_SHOWN_MAX]))
        if self._doubt is not None and len(self._shown) == 2:
            line, doubt = self._doubt
            shown = " and ".join(f"{words!r} in line {at}" for at, words in self._shown.values())
            self._refuse(number, name, cell, f"leaves a doubt about {doubt!r} in line {line}: "
                         f"{shown} differ in their decimal signs; declare decimal")  # fmt: skip

    def _check_declared(self, number: int, name: str, cell: str, group: str, decimal: str) -> None:
        if decimal and self._decimal and decimal != self._decimal:
            self._refuse(number, name, cell, f"has {decimal!r} before its decimals"
                         f"{self._sign_known()}; correct decimal")  # fmt: skip
        if group and self._thousands and group != self._thousands:
            self._refuse(number, name, cell, f"has {group!r} between its digits, but thousands is "
                         f"{self._thousands!r}; correct thousands")  # fmt: skip

    def _sign_known(self) -> str:
        """Say for a refusal what the decimal sign is, and which amount shows it."""
        sign = self._decimal or next(iter(self._shown), "")
        if not sign:
            return ""
        reason = ""
        if self._decimal is None:
            line, words = self._shown[sign]
            reason = f", as {words!r} in line {line} shows"
        return f", but the decimal sign is a {'comma' if sign == ',' else 'point'}{reason}"

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
        what = f"{name} {cell.strip()[:_SHOWN_MAX]!r} {what}"
        raise refusal(number, what) if number else StatementRefused(what)


_FORMS: Final = (
    "is no plain amount, as 1234.56, 1.234,56- or (12.50); correct the row or the profile's column"
)


def _clean(text: str) -> str:
    """Return a text with the signs and blanks of ASCII."""
    return " ".join(text.translate(_ALIKE).split())


def _decimal_sign(text: str) -> str:
    """Return the decimal sign that the digits of an amount show by themselves; "" = none."""
    group, marks = _marks_of(text)
    if len(marks) == 2 and not group:
        return marks[1]
    if len(marks) != 1:
        return ""
    (mark,) = marks
    if text.count(mark) > 1:
        return "" if group else "," if mark == "." else "."
    return mark if group or not _DOUBTFUL.fullmatch(text) else ""


def _marks_of(text: str) -> tuple[str, list[str]]:
    """Return the blank or apostrophe between digits ("" = none), and point and comma in order."""
    found = list(dict.fromkeys(_SEPARATORS.findall(text)))
    others = [sign for sign in found if sign not in ".,"]
    return (others[0] if others else ""), [sign for sign in found if sign in ".,"]


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
