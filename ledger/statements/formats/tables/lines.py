"""The rows of a table as lines of a statement: which rows count, and what each one states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from decimal import Decimal
from itertools import pairwise
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from ledger.config.statement_profile import StatementProfile, account_number
from ledger.errors import OtherAccount
from ledger.model import as_note, changed, total
from ledger.statements.formats.tables.cells import DateCell, Row, Table, is_blank, unwrapped
from ledger.statements.formats.tables.columns import Columns
from ledger.statements.formats.tables.movements import MONEY, MovementReader
from ledger.statements.formats.tables.times import TimeReader
from ledger.statements.formats.tables.xlsx_rows import check_digits
from ledger.statements.local_time import instants_of
from ledger.statements.model import Reading, StatementLine, StatementRefused
from ledger.statements.validation import (
    NO_CURRENCY,
    check_line_count,
    currency_code,
    declared_currency,
    in_order,
    names_of,
    refusal,
    text,
    zone,
)

FEE: Final = "Fee"
"""The kind of a line that is made of a fee's column."""
LISTED_MAX: Final = 20

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov",
                  "dec")  # fmt: skip


@dataclass(slots=True)
class Content:
    """What the rows of a table state."""

    lines: list[StatementLine] = field(default_factory=list)
    """With the fee in the amount; `fees` has it apart."""
    fees: dict[int, Decimal] = field(default_factory=dict)
    """Number of a line → its fee, < 0 when we pay."""
    currency: str = ""
    account: str = ""
    opening: Decimal | None = None
    closing: Decimal | None = None
    are_days: bool = True
    notes: list[str] = field(default_factory=list)


class Stated(NamedTuple):
    """What a file states outside of its rows; "" = nothing."""

    account: str = ""
    currency: str = ""


class LineReader:
    """Makes lines of the rows of one table."""

    def __init__(
        self, columns: Columns, profile: StatementProfile, how: Reading, stated: Stated
    ) -> None:
        self._columns = columns
        self._profile = profile
        self._stated = stated
        self._how = how
        self._where: ZoneInfo | None = zone(how, profile)
        self._currency = currency_code(how.currency) if how.currency else ""
        self._account = account_number(how.account or "")
        self._movements = MovementReader(columns, profile)
        self._times = TimeReader(profile, self._where)
        self._place = {setting: columns.place(setting) for setting in columns.places}
        self._names = {setting: columns.name(setting) for setting in columns.places}
        self._content = Content()
        self._skipped: Counter[tuple[str, str]] = Counter()
        self._hidden: list[StatementLine] = []
        """Skipped rows that state a balance."""
        self._repeated: list[int] = []
        """Rows that repeat the header."""
        self._undated: list[tuple[int, list[str]]] = []
        """Rows before the first line that state a balance and no date."""
        self._balances: list[StatementLine] = []
        """Rows that state a balance and no amount."""
        self._currencies: dict[str, int] = {}
        """Currency → the line of the first row of it; "" = of the first that names none."""
        self._accounts: dict[str, int] = {}
        self._doubled = False
        self._own_offsets = False

    def read(self, table: Table) -> Content:
        """Return what the rows state. Raises StatementRefused, naming line, column and text."""
        if self._times.needs_choice:
            self._times.choose(self._all_times(table))
        self._movements.learn(table.rows())
        self._read_rows(table)
        self._movements.check_marks()
        content = self._content
        content.opening = self._movements.stated("opening", self._profile.opening)
        content.closing = self._movements.stated("closing", self._profile.closing)
        content.currency = self._one_currency()
        content.account = self._one_account()
        if self._doubled and not self._own_offsets and self._where is not None:
            self._resolve_doubled(self._where)
        self._note_skipped()
        self._note_balances()
        if self._hidden or self._balances:
            self._check_all_balances()
        if self._profile.fee_id_prefix:
            self._join_fees(self._profile.fee_id_prefix)
        return content

    # Which rows count

    def _read_rows(self, table: Table) -> None:
        """Read every row; those without a time at the end are a footer, elsewhere wrong."""
        footer: list[tuple[int, list[str]]] = []
        is_begun = follows_line = False
        for number, cells, is_last in _with_last(table.rows()):
            if is_blank(cells):
                continue
            cells = self._fitted(number, cells, is_last and not table.ends_with_line)
            if self._is_skipped(number, cells):
                is_begun, follows_line = True, False
                continue
            words = self._when(cells)
            if words and self._is_time(cells, words):
                if footer:
                    raise self._no_time(*footer[0])
                is_begun, follows_line = True, self._take(number, cells, words)
            elif self._repeats_header(cells):
                self._repeated.append(number)
                follows_line = False
            elif not (is_begun or footer) and self._has_balance_only(cells):
                self._undated.append((number, cells))
            elif self._has_amount(cells) or (
                is_begun and (words or footer or not self._continues(cells))
            ):
                footer.append((number, cells))
            elif follows_line:
                self._continue_line(cells)
        if not is_begun and (self._undated or footer):
            raise self._no_time(*(self._undated or footer)[0])
        self._note_footer(footer)

    def _fitted(self, number: int, cells: list[str], may_be_cut: bool) -> list[str]:
        """Return a row with as many cells as the table has columns."""
        width = self._columns.width
        if len(cells) == width:
            return cells
        if len(cells) > width:
            if is_blank(cells[width:]) or not self._columns.header:
                return cells
            if self._profile.spill:
                spilt = ",".join(cells[width - 1 :]).rstrip(", ")
                return [*cells[: width - 1], spilt]
            raise refusal(number, f"has {len(cells)} cells, the header {width}: "
                          f"{cells[width].strip()[:40]!r} belongs to no column; put texts with the "
                          "delimiter in quotes, or declare spill")  # fmt: skip
        if may_be_cut:
            raise refusal(number, f"has {len(cells)} cells, the header {width}, and no line end: "
                          "the file may be cut; export it again, or end its last line")  # fmt: skip
        return cells + [""] * (width - len(cells))

    def _is_skipped(self, number: int, cells: list[str]) -> bool:
        for name, place, texts in self._columns.skipped:
            text = cells[place].strip()
            if text.casefold() in texts:
                self._skipped[name, text] += 1
                self._hide(number, cells)
                return True
        return False

    def _hide(self, number: int, cells: list[str]) -> None:
        """Keep a skipped row that states a balance: the next balances may count it."""
        currency = self._currency_of(cells)
        if not self._columns.cell(cells, "balance") or not self._is_selected(cells, currency):
            return
        try:
            line, fee = self._line(number, cells, self._when(cells), currency)
        except StatementRefused:
            return
        self._hidden.append(changed(line, amount=total(line.amount, fee)))

    def _repeats_header(self, cells: list[str]) -> bool:
        header = self._columns.header
        return bool(header) and tuple(" ".join(cell.split()) for cell in cells) == header

    def _has_amount(self, cells: list[str]) -> bool:
        return any(self._columns.cell(cells, setting) for setting in MONEY)

    def _continues(self, cells: list[str]) -> bool:
        """Return whether a row without date and amount has text of the description."""
        places = self._columns.places.get("description")
        return places is None or any(cells[place].strip() for place in places)

    def _continue_line(self, cells: list[str]) -> None:
        """Append the texts of a row to the description of the last line."""
        line = self._content.lines[-1]
        texts = [line.description, *(" ".join(cell.split()) for cell in cells if cell.strip())]
        description = as_note(" ".join(filter(None, texts))) or ""
        self._content.lines[-1] = changed(line, description=description)

    def _is_time(self, cells: list[str], words: str) -> bool:
        """Return whether a text is a time, or meant as one in a row with an amount."""
        if self._times.reads(words):
            return True
        start = words.casefold().lstrip(" \t'\"(*-=_")
        return (start[:1].isdigit() or start.startswith(_MONTHS)) and self._has_amount(cells)

    def _no_time(self, number: int, cells: list[str]) -> StatementRefused:
        """Return the refusal of a row that has an amount or a text, but no time."""
        name, words = self._names["effective_at"], self._when(cells)
        if words:
            try:
                self._times.read(number, name, words, self._columns.cell(cells, "zone"))
            except StatementRefused as error:
                return error
        texts = " ".join(" ".join(cells).split())
        return refusal(number, f"has no {name} ({texts[:40]!r}), but rows follow; correct it, or "
                       "skip such rows (skip_where)")  # fmt: skip

    def _note_footer(self, footer: list[tuple[int, list[str]]]) -> None:
        if not footer:
            return
        first, last = footer[0][0], footer[-1][0]
        place = f"line {first}" if first == last else f"lines {first} to {last}"
        words = " ".join(" ".join(footer[0][1]).split())
        self._content.notes.append(f"{place} at the end: no date, so not read ({words[:40]!r})")

    # What a row states

    def _take(self, number: int, cells: list[str], words: str) -> bool:
        """Take a row that has a time; return whether it is a line."""
        for before in self._undated:
            self._add_balance(*before, words)
        self._undated.clear()
        if self._has_balance_only(cells):
            self._add_balance(number, cells, words)
            return False
        check_line_count(len(self._content.lines) + len(self._content.fees) + 1)
        return self._add(number, cells, words)

    def _has_balance_only(self, cells: list[str]) -> bool:
        return bool(self._columns.cell(cells, "balance")) and not any(
            self._columns.cell(cells, setting) for setting in MONEY[:-1]
        )

    def _add_balance(self, number: int, cells: list[str], words: str) -> None:
        """Keep the balance of a row without an amount, as `Balance brought forward`."""
        currency = self._currency_of(cells)
        if not self._is_selected(cells, currency):
            return
        name = self._names["effective_at"]
        time = self._times.read(number, name, words, self._columns.cell(cells, "zone"))
        self._balances.append(
            StatementLine(
                id="",
                number=number,
                kind="",
                amount=Decimal(0),
                currency=currency,
                effective_at=self._times.instant(number, name, time),
                balance=self._movements.balance(number, cells),
            )
        )

    def _all_times(self, table: Table) -> Iterator[tuple[int, str]]:
        for number, cells in table.rows():
            width = self._columns.width
            if not is_blank(cells):
                yield number, self._when(cells + [""] * max(0, width - len(cells)))

    def _when(self, cells: list[str]) -> str:
        """Return the text of a row's time."""
        day = cells[self._place["effective_at"]]
        clock = self._columns.cell(cells, "time")
        if isinstance(day, DateCell):
            return DateCell(f"{day[:10]}T{clock}") if clock else day
        return f"{day.strip()} {clock}" if clock else day.strip()

    def _add(self, number: int, cells: list[str], words: str) -> bool:
        """Add the line of a row; return whether it is of the account and currency chosen."""
        currency = self._currency_of(cells)
        if "account" in self._place:
            self._accounts.setdefault(self._account_of(cells), number)
        if not self._is_selected(cells, currency):
            self._see_currency(number, currency)
            return False
        line, fee = self._line(number, cells, words, currency)
        self._see_currency(number, line.currency)
        if self._currency and line.currency not in ("", self._currency):
            return False
        if fee:
            self._content.fees[number] = fee
            line = changed(line, amount=total(line.amount, fee))
        self._content.lines.append(line)
        return True

    def _currency_of(self, cells: list[str]) -> str:
        return self._columns.cell(cells, "currency").upper() or self._stated.currency

    def _account_of(self, cells: list[str]) -> str:
        return account_number(unwrapped(self._columns.cell(cells, "account")))

    def _see_currency(self, number: int, currency: str) -> None:
        """Keep the first line of a currency. Raises StatementRefused when it is no code."""
        if currency in self._currencies:
            return
        self._currencies[currency] = number
        try:
            _ = currency and currency_code(currency)
        except StatementRefused as error:
            name = self._names.get("currency", "the header")
            reason = f"{name} {currency[:40]!r} is no currency code; correct it"
            raise refusal(number, reason) from error

    def _is_selected(self, cells: list[str], currency: str) -> bool:
        """Return whether a row is of the account and the currency that are chosen."""
        if self._account and "account" in self._place and self._account_of(cells) != self._account:
            return False
        return not (self._currency and currency and currency != self._currency)

    def _line(
        self, number: int, cells: list[str], words: str, currency: str
    ) -> tuple[StatementLine, Decimal]:
        """Return the line of a row without its fee, and the fee."""
        name = self._names["effective_at"]
        time = self._times.read(number, name, words, self._columns.cell(cells, "zone"))
        amount, code, fee = self._movements.read(number, cells)
        if code and currency and code != currency:
            raise refusal(number, f"has an amount in {code} and the currency {currency}; correct "
                          "the row")  # fmt: skip
        content = self._content
        content.are_days = content.are_days and time.is_day
        self._doubled = self._doubled or self._times.is_doubled(time)
        self._own_offsets = self._own_offsets or time.local.tzinfo is not None
        line = StatementLine(
            id=self._word(number, cells, "id") or "",
            number=number,
            kind=self._word(number, cells, "kind") or "",
            amount=amount,
            currency=currency or code,
            effective_at=self._times.instant(number, name, time),
            contract_id=self._word(number, cells, "contract_id"),
            idempotency_id=self._word(number, cells, "idempotency_id"),
            reference=self._word(number, cells, "reference"),
            balance=self._movements.balance(number, cells),
            description=as_note(self._columns.texts(cells, "description")) or "",
            counterparty=as_note(self._columns.texts(cells, "counterparty")) or "",
            names=self._other_names(number, cells),
        )
        return line, fee

    def _word(self, number: int, cells: list[str], setting: str) -> str | None:
        """Return an id or a word of a row; None when blank."""
        place = self._place.get(setting, -1)
        if place < 0:
            return None
        check_digits(number, self._names[setting], cells[place])
        return text(number, self._names[setting], unwrapped(cells[place]))

    def _other_names(self, number: int, cells: list[str]) -> tuple[str, ...]:
        places = self._columns.places.get("names", ())
        name = self._names.get("names", "")
        for place in places:
            check_digits(number, name, cells[place])
        return names_of(*(text(number, name, unwrapped(cells[place])) for place in places))

    # What the file states as a whole

    def _one_currency(self) -> str:
        """Return the currency of the lines. Raises StatementRefused when it is in doubt."""
        if not self._currencies and self._stated.currency:
            self._currencies[self._stated.currency] = 0
        named = {code: number for code, number in self._currencies.items() if code}
        if self._currency and named and self._currency not in named:
            raise OtherAccount(
                f"the file is about {_list(named)}, not {self._currency}; choose one (--currency)"
            )
        if not self._currency and len(named) > 1:
            raise StatementRefused(f"the file is about {_list(named)}; choose one (--currency)")
        if len(named) > 1 and "" in self._currencies:
            raise refusal(self._currencies[""], f"names no currency, and the file is about "
                          f"{_list(named)}; correct the row")  # fmt: skip
        currency = self._currency or next(iter(named), "")
        if not currency:
            currency = declared_currency(self._how, self._one_account())
        if not currency:
            raise StatementRefused(NO_CURRENCY)
        return currency_code(currency)

    def _one_account(self) -> str:
        if self._stated.account:
            self._accounts.setdefault(self._stated.account, 0)
        named = {account: number for account, number in self._accounts.items() if account}
        if self._account and named and self._account not in named:
            raise OtherAccount(
                f"the file is about {_list(named)}, not {self._account}; choose one (--account)"
            )
        if not self._account and len(self._accounts) > 1:
            raise StatementRefused(
                f"the file is about {_list(self._accounts)}; choose one (--account)"
            )
        return self._account or next(iter(named), "")

    def _resolve_doubled(self, where: ZoneInfo) -> None:
        """Date the lines of the hour that the clock shows twice, by the order of their balances,
        else of the rows."""
        lines = self._content.lines
        local = [line.effective_at.astimezone(where).replace(tzinfo=None) for line in lines]
        is_newest_first = _are_newest_first(lines)
        instants = instants_of(reversed(local) if is_newest_first else local, where)
        for place, instant in enumerate(reversed(instants) if is_newest_first else instants):
            if instant != lines[place].effective_at:
                lines[place] = changed(lines[place], effective_at=instant.astimezone(UTC))

    def _note_skipped(self) -> None:
        if not self._skipped:
            return
        count = sum(self._skipped.values())
        what = ", ".join(
            f"{n} with {name} {word!r}" for (name, word), n in self._skipped.most_common(LISTED_MAX)
        )
        rows = "1 row is" if count == 1 else f"{count} rows are"
        self._content.notes.append(f"{rows} skipped: {what}")

    def _note_balances(self) -> None:
        if self._repeated:
            numbers = ", ".join(map(str, self._repeated[:LISTED_MAX]))
            one = len(self._repeated) == 1
            self._content.notes.append(
                f"the header is repeated (line{'' if one else 's'} {numbers})"
            )
        if self._balances:
            numbers = ", ".join(str(line.number) for line in self._balances[:LISTED_MAX])
            self._content.notes.append(
                f"a balance without an amount is compared and is no line (line {numbers})"
            )

    def _check_all_balances(self) -> None:
        """Compare the balances of rows that are no lines, which may count the skipped rows."""
        lines = self._content.lines
        stated = [*lines, *self._balances]
        try:
            in_order(sorted(stated, key=_number), None, None)
        except StatementRefused as error:
            try:
                in_order(sorted([*stated, *self._hidden], key=_number), None, None)
            except StatementRefused:
                raise error from None
            self._content.lines = [changed(line, balance=None) for line in lines]
            self._content.notes.append(
                "the running balance counts the skipped rows; it adds up with them and is not kept"
            )

    def _join_fees(self, prefix: str) -> None:
        """Leave fees in their amounts where rows of their own state them as well."""
        ids = {line.id for line in self._content.lines if line.id.startswith(prefix)}
        for line in self._content.lines:
            if prefix + line.id in ids and self._profile.fee_included:
                self._content.fees.pop(line.number, None)


def with_fees(content: Content) -> list[StatementLine]:
    """Return the lines oldest first, each fee behind its line as a line of its own.

    The running balance of the file is the one after both. Raises StatementRefused when the balances
    do not follow.
    """
    if not content.fees:
        return content.lines
    lines: list[StatementLine] = []
    for line in in_order(content.lines, None, None):
        fee = content.fees.get(line.number)
        if fee is None:
            lines.append(line)
            continue
        amount = total(line.amount, fee.copy_negate())
        if amount:
            before = None if line.balance is None else total(line.balance, fee.copy_negate())
            lines.append(changed(line, amount=amount, balance=before))
        lines.append(changed(line, amount=fee, kind=FEE))
    return lines


def _are_newest_first(lines: Sequence[StatementLine]) -> bool:
    """Return whether the newest row is the first one, by the running balances, else by the times.

    Within the hour that a clock shows twice, times say nothing about the order.
    """
    oldest_first = newest_first = 0
    for line, following in pairwise(lines):
        if line.balance is not None and following.balance is not None:
            oldest_first += following.balance == total(line.balance, following.amount)
            newest_first += line.balance == total(following.balance, line.amount)
    if oldest_first != newest_first:
        return newest_first > oldest_first
    return bool(lines) and lines[0].effective_at > lines[-1].effective_at


def _with_last(rows: Iterator[Row]) -> Iterator[tuple[int, list[str], bool]]:
    """Return the rows, each with whether it is the last."""
    before = next(rows, None)
    for row in rows:
        if before is not None:
            yield *before, False
        before = row
    if before is not None:
        yield *before, True


def _number(line: StatementLine) -> int:
    return line.number


def _list(names: dict[str, int]) -> str:
    listed = [name or "none" for name in names]
    more = " …" if len(listed) > LISTED_MAX else ""
    return ", ".join(sorted(listed)[:LISTED_MAX]) + more
