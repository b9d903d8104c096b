"""The movement that a row states: its amount and direction, its fee, the balance after it."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from ledger.config.statement_profile import StatementProfile
from ledger.model import plain, total
from ledger.statements.formats.tables.amounts import Amount, AmountReader
from ledger.statements.formats.tables.cells import Row, unwrapped
from ledger.statements.formats.tables.columns import Columns
from ledger.statements.formats.tables.xlsx_rows import check_digits
from ledger.statements.model import StatementRefused
from ledger.statements.validation import refusal

MONEY: Final = ("amount", "debit", "credit", "fee", "net", "balance")
"""The settings whose columns hold amounts; the balance is the last."""

_SIGNS: Final = {
    "credit": 1, "c": 1, "cr": 1, "crdt": 1, "in": 1, "+": 1,
    "h": 1, "haben": 1, "bij": 1, "deposit": 1, "money in": 1, "paid in": 1,
    "debit": -1, "d": -1, "dr": -1, "dbit": -1, "out": -1, "-": -1,
    "s": -1, "soll": -1, "af": -1, "withdrawal": -1, "money out": -1, "paid out": -1,
}  # fmt: skip


class MovementReader:
    """Reads the amounts of the rows of one table."""

    def __init__(self, columns: Columns, profile: StatementProfile) -> None:
        self._columns = columns
        self._profile = profile
        self._amounts = AmountReader(profile)
        self._places = {setting: columns.place(setting) for setting in columns.places}
        self._names = {setting: columns.name(setting) for setting in columns.places}
        self._marked = 0
        """The first line whose amount has CR beside it."""
        self._unmarked: tuple[int, str] | None = None
        self._is_debit_shown = False
        """Whether an amount has a minus, brackets or DR."""
        self._is_out = profile.amount_sign == "out"
        self._negative: tuple[int, str] | None = None
        """Line and text of the first negative amount, while none is positive."""
        self._is_positive_seen = False

    def learn(self, rows: Iterable[Row]) -> None:
        """Find out from all rows which sign is before the decimals of their amounts."""
        places = [self._places[setting] for setting in MONEY if setting in self._places]
        self._amounts.learn(
            (number, _unwrapped(cells[place]))
            for number, cells in rows
            for place in places
            if place < len(cells)
        )

    def stated(self, setting: str, text: str | None) -> Decimal | None:
        """Return the amount of a setting, written as those of the file; None when blank."""
        amount = self._amounts.read(0, setting, text or "")
        return None if amount is None else amount.value

    def read(self, number: int, cells: list[str]) -> tuple[Decimal, str, Decimal]:
        """Return the amount of a row without its fee, the currency's code beside it, and the fee.

        Amount and fee are > 0 into our wallet. Raises StatementRefused, naming line, column and
        text.
        """
        amount, code = self._signed(number, cells)
        fee = self._fee(number, cells)
        if fee and self._profile.fee_included:
            amount = total(amount, fee.copy_negate())
        self._check_net(number, cells, amount, fee)
        return amount, code, fee

    def balance(self, number: int, cells: list[str]) -> Decimal | None:
        """Return the running balance after a row; None without one."""
        return self._value(number, cells, "balance")

    def _read_amount(self, number: int, cells: list[str], setting: str) -> Amount | None:
        place = self._places.get(setting, -1)
        if place < 0:
            return None
        name = self._names[setting]
        check_digits(number, name, cells[place])
        return self._amounts.read(number, name, _unwrapped(cells[place]))

    def _value(self, number: int, cells: list[str], setting: str) -> Decimal | None:
        amount = self._read_amount(number, cells, setting)
        return None if amount is None else amount.value

    def _signed(self, number: int, cells: list[str]) -> tuple[Decimal, str]:
        """Return the amount, > 0 into our wallet, and the currency's code beside it."""
        if "amount" not in self._places:
            return self._debit_or_credit(number, cells)
        amount = self._read_amount(number, cells, "amount")
        if amount is None:
            raise self._no_amount(number, cells, self._names["amount"])
        if "indicator" not in self._places:
            self._see_mark(number, cells, amount)
            return self._directed(amount), amount.code
        return self._indicated(number, cells, amount), amount.code

    def _directed(self, amount: Amount) -> Decimal:
        """Return an amount > 0 into our wallet: CR and DR say so, else `amount_sign` does."""
        is_turned = self._is_out and not amount.word and amount.value
        return amount.value.copy_negate() if is_turned else amount.value

    def _indicated(self, number: int, cells: list[str], amount: Amount) -> Decimal:
        sign = self._indicator(number, cells)
        if amount.is_signed and amount.value and (amount.value > 0) != (sign > 0):
            what = f"{self._shown(cells, 'amount')} and {self._shown(cells, 'indicator')}"
            raise refusal(number, f"{what} state two directions; correct the row, or leave "
                          "indicator out of the profile")  # fmt: skip
        value = abs(amount.value)
        return value if sign > 0 or not value else value.copy_negate()

    def _indicator(self, number: int, cells: list[str]) -> int:
        word = self._columns.cell(cells, "indicator")
        profile = self._profile
        for declared, sign in ((profile.credit_word, 1), (profile.debit_word, -1)):
            if declared is not None and declared.casefold() == word.casefold():
                return sign
        known = _SIGNS.get(word.lower(), 0)
        if not known or profile.credit_word is not None or profile.debit_word is not None:
            raise refusal(number, f"{self._names['indicator']} {word[:40]!r} is neither "
                          "credit nor debit; declare credit_word and debit_word")  # fmt: skip
        return known

    def _debit_or_credit(self, number: int, cells: list[str]) -> tuple[Decimal, str]:
        debit = self._read_amount(number, cells, "debit")
        credit = self._read_amount(number, cells, "credit")
        if debit is None and credit is None:
            names = f"{self._names['debit']} and no {self._names['credit']}"
            raise self._no_amount(number, cells, names)
        if debit is not None and debit.value and credit is not None and credit.value:
            both = f"{self._shown(cells, 'debit')} and {self._shown(cells, 'credit')}"
            raise refusal(number, f"has both {both}; correct the row")
        debit = self._turned(debit)
        for amount, setting in ((debit, "debit"), (credit, "credit")):
            if amount is not None and amount.value < 0:
                raise refusal(
                    number, f"{self._shown(cells, setting)} has the wrong sign; correct it, or "
                    "declare debit_negative where debits have a minus"
                )  # fmt: skip
        if credit is not None and (credit.value or debit is None):
            return credit.value, credit.code
        value = debit.value if debit is not None else Decimal(0)
        return (value.copy_negate() if value else value), debit.code if debit else ""

    def _turned(self, debit: Amount | None) -> Amount | None:
        """Return a debit as a positive amount, where DR or a declared minus says it is one."""
        if debit is None or not debit.value:
            return debit
        if debit.word or self._profile.debit_negative:
            return debit._replace(value=debit.value.copy_negate())
        return debit

    def _no_amount(self, number: int, cells: list[str], what: str) -> StatementRefused:
        described = self._columns.texts(cells, "description")[:40]
        return refusal(number, f"has no {what} ({described!r}); fill it in, or skip such rows "
                       "(skip_where)")  # fmt: skip

    def _shown(self, cells: list[str], setting: str) -> str:
        """Return the name and the text of a cell, for messages."""
        return f"{self._names[setting]} {self._columns.cell(cells, setting)[:40]!r}"

    def _fee(self, number: int, cells: list[str]) -> Decimal:
        """Return the fee of a row, < 0 when we pay it."""
        fee = self._value(number, cells, "fee")
        if not fee:
            return Decimal(0)
        return fee if self._profile.fee_sign == "signed" else fee.copy_negate()

    def _check_net(self, number: int, cells: list[str], amount: Decimal, fee: Decimal) -> None:
        net = self._value(number, cells, "net")
        if net and self._is_out:
            net = net.copy_negate()
        if net is not None and net != total(amount, fee):
            raise refusal(number, f"{self._shown(cells, 'net')} "
                          f"is not {plain(amount)} and the fee {plain(fee)} together, which are "
                          f"{plain(total(amount, fee))}; correct fee_sign or the row")  # fmt: skip

    def _see_mark(self, number: int, cells: list[str], amount: Amount) -> None:
        if amount.value > 0:
            self._is_positive_seen = True
        elif amount.value and self._negative is None:
            self._negative = number, self._columns.cell(cells, "amount")
        if amount.word == "CR":
            self._marked = self._marked or number
        elif amount.value < 0:
            self._is_debit_shown = True
        elif self._unmarked is None and amount.value and not amount.is_signed:
            self._unmarked = number, self._columns.cell(cells, "amount")

    def check_marks(self) -> None:
        """Refuse amounts whose direction the file as a whole leaves open.

        These are amounts without CR beside others with it, where no debit has a sign of its own,
        and nothing but negative amounts where a positive one goes out.
        """
        if self._is_out:
            if self._negative is not None and not self._is_positive_seen:
                number, words = self._negative
                raise refusal(number, f"{self._columns.name('amount')} {words[:40]!r} and all "
                              'others are negative, but a positive amount goes out (amount_sign = '
                              '"out"); where a minus means out, declare amount_sign = "in"'
                              )  # fmt: skip
        elif self._marked and self._unmarked is not None and not self._is_debit_shown:
            number, words = self._unmarked
            raise refusal(number, f"{self._columns.name('amount')} {words[:40]!r} states no "
                          f"direction, but the amount of line {self._marked} has CR; write DR or a "
                          'minus where money goes out, or declare amount_sign = "out"'
                          )  # fmt: skip


def _unwrapped(cell: str) -> str:
    """Return an amount's cell without `="…"`; a number of a sheet stays one."""
    return unwrapped(cell) if cell.startswith("=") else cell
