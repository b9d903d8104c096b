"""StraitsX's account statement: JSON rows with amounts as numbers, read by their exact lexemes.

Rows are flat or JSON:API resources; pages come one after another, in an array, or as one. Fields of
a row: StraitsX docs, account statement.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from ledger.config.statement_profile import account_number
from ledger.errors import InvalidCallback, MalformedBody
from ledger.model import JSON, as_instant, as_note, changed
from ledger.payload import camel
from ledger.statements.model import (
    Reading,
    Statement,
    StatementFormat,
    StatementLine,
    StatementRefused,
    Window,
)
from ledger.statements.validation import (
    agreed_currency,
    check_line_count,
    checked_statement,
    declared_currency,
    money,
    period,
    refusal,
    text,
)
from ledger.strict_json import scan

NAME: Final = "straitsx-json"
_BLANK: Final = re.compile(r"[ \t\r\n]*")
_SIGNS: Final = {"credit": 1, "cr": 1, "c": 1, "debit": -1, "dr": -1, "d": -1}


class _Pages:
    """The pages of a file together: their rows, balances, currency and period."""

    def __init__(self) -> None:
        self.lines: list[StatementLine] = []
        self.known: dict[str, tuple[StatementLine, int]] = {}
        """Id → the first line that has it, and its page."""
        self.rows = 0
        self.number = 0
        """Of the page."""
        self.fields: dict[str, JSON] = {}
        self.currency: str | None = None

    def add(self, line: StatementLine) -> None:
        """Add a line, unless an overlapping page repeats it: the same id with the same content.

        Raises StatementRefused for the same id with another content.
        """
        twin, page = self.known.setdefault(line.id, (line, self.number)) if line.id else (line, -1)
        if _content(twin) != _content(line):
            raise refusal(line.number, f"has the id {line.id!r} of line {twin.number}, but is "
                          "different; export the statement again")  # fmt: skip
        if twin is line or page == self.number:
            self.lines.append(line)
        self.currency = self.currency or line.currency or None

    def set(self, name: str, value: JSON) -> None:
        """Keep a field of all pages. Raises StatementRefused when a page has another value."""
        if value is None:
            return
        known = self.fields.setdefault(name, value)
        if known != value and not _equal(known, value):
            raise StatementRefused(
                f"line {self.rows}: the pages disagree about {name} ({known} and {value}); import "
                "one period and one currency at a time"
            )


def read(body: bytes, how: Reading) -> Statement:
    """Read an account statement. Raises StatementRefused, naming the row."""
    pages = _Pages()
    try:
        for value in _values(body):
            _take(pages, value)
    except MalformedBody as error:
        raise StatementRefused(
            f"line {pages.rows + 1}: not strict JSON: {error}; export the statement again"
        ) from error
    stated = text(0, "currency", pages.fields.get("currency")) or pages.currency
    agreed_on = agreed_currency(how.currency, stated, declared_currency(how, ""))
    return checked_statement(
        [_in(line, agreed_on) for line in pages.lines],
        body=body,
        format=NAME,
        currency=agreed_on,
        window=period(how.window, _window(pages.fields)),
        opening=money(0, "openingBalance", pages.fields.get("opening_balance")),
        closing=money(pages.rows, "closingBalance", pages.fields.get("closing_balance")),
        account=account_number(how.account or ""),
        are_ids_unique=True,
    )


def _values(body: bytes) -> Iterator[JSON]:
    """Decode value after value, so that only one page at a time is held as objects."""
    try:
        words = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedBody(f"not UTF-8 at byte {error.start}") from error
    place = _after_blank(words, 0)
    if words.startswith("[", place):
        place = yield from _array(words, place)
    while place < len(words):
        value, place = scan(words, place)
        yield value
        place = _after_blank(words, place)


def _array(words: str, place: int) -> Generator[JSON, None, int]:
    """Decode an array's values one by one; return where the text after it begins."""
    place = _after_blank(words, place + 1)
    if words.startswith("]", place):
        return _after_blank(words, place + 1)
    while True:
        value, place = scan(words, place)
        yield value
        place = _after_blank(words, place)
        if not words.startswith((",", "]"), place):
            raise MalformedBody(f"an array of rows is cut off at character {place}")
        ended = words[place] == "]"
        place = _after_blank(words, place + 1)
        if ended:
            return place


def _after_blank(words: str, place: int) -> int:
    match = _BLANK.match(words, place)
    return match.end() if match else place


def _take(pages: _Pages, value: JSON) -> None:
    """Take a page, an array of rows or pages, or a row."""
    if isinstance(value, list):
        for each in value:
            _take(pages, each)
        return
    if not isinstance(value, dict):
        raise StatementRefused(f"line {pages.rows + 1}: neither a row nor a page of rows")
    rows = value.get("data")
    if not isinstance(rows, list):
        pages.rows += 1
        check_line_count(pages.rows)
        line = _line(pages.rows, rows if isinstance(rows, dict) else value)
        pages.add(line)
        return
    pages.number += 1
    meta = value.get("meta")
    for table in (value, meta if isinstance(meta, dict) else {}):
        for name in ("opening_balance", "closing_balance", "currency", "from", "to"):
            pages.set(name, _field(table, name))
    for row in rows:
        _take(pages, row)


def _content(line: StatementLine) -> tuple[object, ...]:
    return line.amount, line.currency, line.effective_at, line.kind, line.contract_id, line.balance


def _field(row: Mapping[str, JSON], name: str) -> JSON:
    value = row.get(camel(name))
    return row.get(name) if value is None else value


def _line(number: int, row: Mapping[str, JSON]) -> StatementLine:
    attributes = row.get("attributes")
    fields = attributes if isinstance(attributes, dict) else row
    amount = money(number, "amount", fields.get("amount"))
    if amount is None:
        raise refusal(number, "has no amount; is this an account statement?")
    return StatementLine(
        id=text(number, "id", row.get("id") or fields.get("id")) or "",
        number=number,
        kind=text(number, "type", fields.get("type")) or "",
        amount=_signed(number, amount, _field(fields, "credit_debit_indicator")),
        currency=(text(number, "currency", fields.get("currency")) or "").upper(),
        effective_at=_instant(number, _field(fields, "created_at")),
        contract_id=text(number, "contractId", _field(fields, "contract_id")),
        idempotency_id=text(number, "idempotencyId", _field(fields, "idempotency_id")),
        reference=_reference(number, fields),
        balance=money(number, "ledgerBalance", _field(fields, "ledger_balance")),
        description=as_note(fields.get("description")) or "",
    )


def _signed(number: int, amount: Decimal, indicator: JSON) -> Decimal:
    sign = _SIGNS.get(str(indicator).strip().lower())
    if sign is None:
        raise refusal(number, f"creditDebitIndicator is {str(indicator)[:32]!r}, neither Credit "
                      "nor Debit; export the statement again")  # fmt: skip
    if amount < 0 < sign:
        raise refusal(number, f"is a credit of {amount}; a credit cannot be negative")
    return amount.copy_abs() if sign > 0 else amount.copy_abs().copy_negate()


def _reference(number: int, fields: Mapping[str, JSON]) -> str | None:
    for name in ("transaction_reference", "end_to_end_ref", "transaction_hash"):
        reference = text(number, name, _field(fields, name))
        if reference is not None:
            return reference
    return None


def _instant(number: int, value: JSON) -> datetime:
    try:
        moment = as_instant("createdAt", value)
    except InvalidCallback as error:
        raise refusal(number, f"{error}; export the statement again") from error
    if moment is None:
        raise refusal(number, "has no createdAt; export the statement again")
    return moment


def _in(line: StatementLine, currency: str) -> StatementLine:
    if not line.currency:
        return changed(line, currency=currency)
    if line.currency != currency:
        raise refusal(line.number, f"is in {line.currency}, the statement in {currency}; import "
                      "one currency at a time")  # fmt: skip
    return line


def _window(fields: Mapping[str, JSON]) -> Window | None:
    if "from" not in fields or "to" not in fields:
        return None
    return _instant(0, fields["from"]), _instant(0, fields["to"])


def _equal(one: JSON, other: JSON) -> bool:
    """Whether two spellings mean the same: 1.0 and 1.00, xsgd and XSGD."""
    if isinstance(one, str) and isinstance(other, str) and one.upper() == other.upper():
        return True
    try:
        return money(0, "balance", one) == money(0, "balance", other)
    except StatementRefused:
        return False


FORMAT: Final = StatementFormat(NAME, lambda _head, _profile: False, read)
