"""One statement (`Stmt`) of a camt.053: its account, period, balances and entries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from ledger.config.statement_profile import account_number
from ledger.model import plain, shown, total
from ledger.statements.formats.camt053.entry import amount_of
from ledger.statements.formats.camt053.fields import Fields
from ledger.statements.formats.camt053.moments import Moment, moment, period_of, written
from ledger.statements.formats.camt053.summary import Totals
from ledger.statements.formats.chain import Balances
from ledger.statements.model import StatementLine, StatementRefused, Window, core_of
from ledger.statements.validation import DAY, midnight

OPENING: Final = ("OPBD", "PRCD")
"""Codes of the balance before the first entry; PRCD is the one that closed the statement before."""
CLOSING: Final = "CLBD"
INTERIM: Final = "ITBD"
"""The balance between two pages: it closes the one and opens the next."""
BOOKED_BALANCES: Final = frozenset({*OPENING, CLOSING, INTERIM})
TRUE: Final = ("true", "1")
FALSE: Final = ("false", "0")
LISTED_MAX: Final = 10
"""Entries left out that a message names."""
ACCOUNT_PATHS: Final = ("Id/IBAN", "Id/Othr/Id", "Id/BBAN", "Id/PrtryAcct/Id", "Id/UPIC")


@dataclass(frozen=True, slots=True)
class Balance:
    """A booked balance (`Bal`) of a statement."""

    code: str
    amount: Decimal
    currency: str
    day: date | None
    has_credit_line: bool = False
    """Whether the credit line is counted in, beside the same balance without it."""


@dataclass(slots=True)
class CamtStatement:
    """One `Stmt` of the file."""

    number: int
    """Its 1-based place in the file."""
    where: ZoneInfo | None
    """The zone of its days."""
    id: str = ""
    account: str = ""
    account_currency: str = ""
    sequence: int = 0
    page: int = 0
    """Of a statement in several pages; 0 = not numbered."""
    is_last_page: bool = True
    stated: tuple[Moment, Moment] | None = None
    """`FrToDt`."""
    balances: list[Balance] = field(default_factory=list)
    summary: Fields | None = None
    lines: list[StatementLine] = field(default_factory=list)
    """Its booked entries."""
    last_at: datetime | None = None
    """The latest time of its lines."""
    booked: Totals = field(default_factory=Totals)
    unbooked: Totals = field(default_factory=Totals)
    left_out: list[str] = field(default_factory=list)
    """The first entries that are not booked, with their status, as messages name them."""

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"statement {self.number}" + (f" (Id {shown(self.id)})" if self.id else "")

    def take(self, name: str, fields: Fields) -> None:
        """Take a field of the statement besides its entries. Raises StatementRefused."""
        match name:
            case "Id":
                self.id = fields.first("")
            case "ElctrncSeqNb" | "LglSeqNb":
                self.sequence = self.sequence or _number(fields.first(""))
            case "StmtPgntn":
                self.page = _number(fields.first("PgNb"))
                self.is_last_page = fields.first("LastPgInd").lower() not in FALSE
            case "FrToDt":
                self._take_period(fields)
            case "Acct":
                self.account = account_number(fields.first(*ACCOUNT_PATHS))
                self.account_currency = fields.first("Ccy").upper()
            case "Bal":
                self._take_balance(fields)
            case "TxsSummry":
                self.summary = fields

    def add(self, line: StatementLine) -> None:
        """Add a booked entry."""
        self.lines.append(line)
        if self.last_at is None or line.effective_at > self.last_at:
            self.last_at = line.effective_at

    def leave_out(self, number: int, status: str, amount: Decimal, mark: str) -> None:
        """Count an entry that is not booked."""
        self.unbooked.add(amount, mark)
        if len(self.left_out) < LISTED_MAX:
            self.left_out.append(f"{number} (Sts {shown(status)})")

    def currencies(self) -> set[str]:
        """Return the currencies of its balances and entries, of the account without any."""
        currencies = {line.currency for line in self.lines}
        currencies |= {balance.currency for balance in self.balances}
        return currencies - {""} or {self.account_currency}

    def of_currency(self, currency: str) -> CamtStatement:
        """Return the statement with the balances and entries of one of its currencies."""
        if self.currencies() == {currency}:
            return self
        return replace(
            self,
            balances=[each for each in self.balances if each.currency == currency],
            lines=[line for line in self.lines if line.currency == currency],
        )

    def opening(self) -> Balance | None:
        """Return the booked balance before the first entry, of this page where it is one."""
        interim = self._of(INTERIM)
        if self.page > 1 and interim:
            return interim[0]
        for code in OPENING:
            if self._of(code):
                return self._of(code)[0]
        # Two interim balances, or one that a closing one follows, are of a page within.
        return interim[0] if len(interim) > 1 or (interim and self._of(CLOSING)) else None

    def closing(self) -> Balance | None:
        """Return the booked balance after the last entry, of this page where it is one."""
        interim, final = self._of(INTERIM), self._of(CLOSING)
        if final and (self.is_last_page or not interim):
            return final[-1]
        opening = self.opening()
        return interim[-1] if interim and interim[-1] is not opening else None

    def amounts(self) -> Balances:
        """Return the amounts of the opening and the closing balance."""
        opening, closing = self.opening(), self.closing()
        return opening.amount if opening else None, closing.amount if closing else None

    def opening_day(self) -> date | None:
        """Return the day of the opening balance; of a PRCD balance, if there is one.

        That is of the end of the period before, while banks date OPBD either way.
        """
        opening = self.opening()
        before = [*self._of("PRCD"), *([opening] if opening else [])]
        return next((each.day for each in before if each.day), None)

    def closing_day(self) -> date | None:
        """Return the day of the closing balance."""
        closing = self.closing()
        return closing.day if closing else None

    def window(self) -> Window | None:
        """Return the period that the file states; None where it states none."""
        if self.stated is None:
            return None
        begin, end = self.stated
        last_day = self.closing_day()
        if last_day is None and self.last_at is not None:
            last_day = self.last_at.astimezone(self.where or UTC).date()
        window = period_of(begin, end, last_day)
        return window if window[0] < window[1] else None

    def begins_at(self) -> datetime | None:
        """Return when the period begins: as stated, else with the day after the opening balance's.

        It is that day itself where the closing balance is of the same day.
        """
        window, day = self.window(), self.opening_day()
        if window is not None or day is None:
            return window[0] if window else None
        return midnight(day if day == self.closing_day() else day + DAY, self.where)

    def may_begin_earlier(self) -> bool:
        """Return whether the period, which is inferred, may have the opening balance's day too."""
        return self.window() is None and self.opening_day() != self.closing_day()

    def ends_at(self) -> datetime | None:
        """Return when the period ends: as stated, else with the closing balance's day."""
        window, day = self.window(), self.closing_day()
        if window is not None or day is None:
            return window[1] if window else None
        return midnight(day + DAY, self.where)

    def check_sum(self) -> None:
        """Refuse a statement whose balances do not follow from its entries, naming it."""
        opening, closing = self.amounts()
        if opening is None or closing is None:
            return
        computed = total(opening, *(line.amount for line in self.lines))
        if computed != closing:
            last = self.lines[-1].number if self.lines else 0
            raise StatementRefused(
                f"line {last}: the closing balance is {plain(closing)}, but the opening balance "
                f"{plain(opening)} and the entries of {self.label} add up to {plain(computed)}; "
                f"{self._what_to_do()}"
            )

    def _what_to_do(self) -> str:
        """Return the advice on balances that do not add up."""
        if not self.left_out:
            return "export the statement again"
        rest = self.unbooked.count - len(self.left_out)
        more = f" and {rest} more" if rest > 0 else ""
        return (
            f"left out as not booked: entries {', '.join(self.left_out)}{more}; if their status "
            "means booked, write it as BOOK, else export the statement again"
        )

    def outline(self) -> object:
        """Return what a copy has in common besides the content: its Id, page and balances."""
        return self.id, self.sequence, self.page, self.stated, tuple(self.balances)

    def content(self) -> bytes:
        """Return a digest of the entries, which are the same in a copy."""
        digest = hashlib.sha256(repr((self.booked, self.unbooked)).encode())
        for line in self.lines:
            digest.update(repr((core_of(line), line.description)).encode())
        return digest.digest()

    def merged_with(self, page: CamtStatement) -> CamtStatement:
        """Return the statement of which both are pages that repeat the balances of the whole."""
        return replace(
            self,
            lines=[*self.lines, *page.lines],
            booked=self.booked + page.booked,
            unbooked=self.unbooked + page.unbooked,
            left_out=[*self.left_out, *page.left_out][:LISTED_MAX],
        )

    def _of(self, code: str) -> list[Balance]:
        equal = [each for each in self.balances if each.code == code]
        return [each for each in equal if not each.has_credit_line] or equal

    def _take_period(self, fields: Fields) -> None:
        texts = [fields.first(f"{end}DtTm", f"{end}Dt") for end in ("Fr", "To")]
        if "" in texts:
            return
        try:
            begin, end = (moment(each, self.where) for each in texts)
        except (ValueError, OverflowError) as error:
            raise StatementRefused(
                f"{self.label}: FrToDt {shown(texts[0])} to {shown(texts[1])} are no times as "
                "2026-06-30T23:59:59; export the statement again"
            ) from error
        if end.at < begin.at:
            raise StatementRefused(
                f"{self.label}: FrToDt ends at {shown(texts[1])}, before it begins at "
                f"{shown(texts[0])}; export the statement again"
            )
        self.stated = begin, end

    def _take_balance(self, fields: Fields) -> None:
        code = fields.first("Tp/CdOrPrtry/Cd", "Tp/CdOrPrtry/Prtry", "Tp/Cd").upper()
        if code not in BOOKED_BALANCES:
            return
        amount = amount_of(0, fields, f"{self.label}, Bal {code} ")
        words = written(fields, "Dt")
        try:
            day = moment(words, self.where).day if words else None
        except (ValueError, OverflowError) as error:
            raise StatementRefused(
                f"{self.label}: Bal {code} Dt {shown(words)} is no date as 2026-06-30; export the "
                "statement again"
            ) from error
        currency = (fields.first("Amt@Ccy") or self.account_currency).upper()
        has_credit_line = fields.first("CdtLine/Incl").lower() in TRUE
        self.balances.append(Balance(code, amount, currency, day, has_credit_line))


def _number(words: str) -> int:
    return int(words) if words.isdecimal() and len(words) <= 18 else 0
