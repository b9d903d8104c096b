"""MT940, the SWIFT bank statement, split into fields by the library mt-940.

Days have no time: they begin at midnight of the declared `time_zone` (UTC without one). A line
counts on its entry date where it has one, else on its value date. The library skips a line without
a type and truncates some amounts, so a check before it refuses those.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import mt940

from ledger.config.statement_profile import StatementProfile
from ledger.model import as_note, changed, plain
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
    midnight,
    refusal,
    text,
    zone,
)

NAME: Final = "mt940"
BLOCKS_MAX: Final = 10_000
"""Statements in one file."""
DETAILS_MAX: Final = 100
"""`:86:` fields of one line."""
_DAY: Final = timedelta(days=1)
_OPENING: Final = ("final_opening_balance", "intermediate_opening_balance")
_CLOSING: Final = ("final_closing_balance", "intermediate_closing_balance")
_OPTIONS: Final = mt940.Options.all()
_BLOCK: Final = re.compile(r"^(?=:20:)", re.MULTILINE)
_FIELD: Final = re.compile(r"^:(61|86|6[02][A-Z]?):(.*)$", re.MULTILINE)
_ENTRY: Final = re.compile(r"\d{6}(?:\d{4})?R?[CD][A-Z]?(?=[\d,]{1,15}[A-Z])\d+,\d*[A-Z]", re.ASCII)
_BALANCE: Final = re.compile(r"[CD]\d{6}[A-Z]{3}(?=[\d,]{1,16}$)\d+,\d*", re.ASCII)

# The library logs what it cannot read, which may be personal data.
logging.getLogger("mt940").addHandler(logging.NullHandler())
logging.getLogger("mt940").propagate = False


class _Account:
    """The statements of a file together."""

    def __init__(self, where: ZoneInfo | None) -> None:
        self.where = where
        self.lines: list[StatementLine] = []
        self.days: list[date] = []
        self.currency: str | None = None
        self.opening: Decimal | None = None
        self.closing: Decimal | None = None

    def take(self, block: str) -> None:
        """Take the next statement. Raises StatementRefused when it does not follow."""
        parsed = _parsed(block, len(self.lines))
        first, last = _balance(parsed, _OPENING), _balance(parsed, _CLOSING)
        for _, _, stated in filter(None, (first, last)):
            self.currency = agreed_currency(self.currency, stated)
        if first is not None:
            if self.days and first[0] != self.closing:
                raise refusal(
                    len(self.lines) + 1,
                    f"the statement opens with {plain(first[0])}, the one before it closed "
                    "otherwise; import the statements of one account, in order",
                )
            self.opening = first[0] if not self.days else self.opening
            self.days.append(first[1])
        for entry in parsed:
            check_line_count(len(self.lines) + 1)
            self.lines.append(_line(entry.data, len(self.lines) + 1, self.where))
        if last is not None:
            self.closing = last[0]
            self.days.append(last[1])

    def period(self) -> Window | None:
        """Return the stated days: the opening balance is often of the evening before the first."""
        if not self.days:
            return None
        closed_at = midnight(self.days[-1] + _DAY, self.where)
        opened_at = midnight(self.days[0], self.where)
        booked = [line.effective_at for line in self.lines]
        if self.days[0] < self.days[-1] and opened_at not in booked:
            opened_at = midnight(self.days[0] + _DAY, self.where)
        return min([opened_at, *booked]), max([closed_at, *(at + _DAY for at in booked[-1:])])


def read(body: bytes, how: Reading) -> Statement:
    """Read the statements of one account, which must follow each other.

    Raises StatementRefused, naming the line (the n-th `:61:`).
    """
    account = _Account(zone(how.profile))
    blocks = _BLOCK.split(_decoded(body), maxsplit=BLOCKS_MAX + 1)[1:]
    if len(blocks) > BLOCKS_MAX:
        raise StatementRefused(f"more than {BLOCKS_MAX} statements; split the file by time")
    for block in blocks:
        account.take(block)
    if not account.days and not account.lines:
        raise StatementRefused("the file holds no statement (:20:, :60F:); is it an MT940?")
    agreed_on = agreed_currency(how.currency, account.currency)
    return checked_statement(
        [changed(line, currency=agreed_on) for line in account.lines],
        body=body,
        format=NAME,
        currency=agreed_on,
        window=how.window or account.period(),
        opening=account.opening,
        closing=account.closing,
    )


def _decoded(body: bytes) -> str:
    try:
        words = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        words = body.decode("latin-1")
    if "\x00" in words:
        raise refusal(words.count("\n:61:", 0, words.index("\x00")), "holds a NUL character; "
                      "export the statement again")  # fmt: skip
    return words.replace("\r\n", "\n").replace("\r", "\n")


def _parsed(block: str, before: int) -> Any:
    """Parse a block; the library must find as many lines as there are."""
    number = before
    details = 0
    for tag, words in _FIELD.findall(block):
        number += tag == "61"
        details = details + 1 if tag == "86" else 0
        if details > DETAILS_MAX:
            raise refusal(number, f"has more than {DETAILS_MAX} details (:86:); remove some")
        if tag != "86" and not (
            _ENTRY.match(words) if tag == "61" else _BALANCE.match(words.rstrip())
        ):
            raise refusal(number, f":{tag}:{words[:60]!r} is not as SWIFT writes it (date, mark, "
                          "amount with a comma, type); export the statement again")  # fmt: skip
    parsed = mt940.models.Transactions(options=_OPTIONS)
    try:
        parsed.parse(block)
    except (RuntimeError, ValueError, ArithmeticError, KeyError, TypeError) as error:
        raise refusal(
            before + len(parsed) + 1, "cannot be read; export the statement again"
        ) from error
    if len(parsed) != number - before:
        raise refusal(before + len(parsed), "is followed by a line that has no place; export the "
                      "statement again")  # fmt: skip
    return parsed


def _balance(parsed: Any, names: Sequence[str]) -> tuple[Decimal, date, str] | None:
    for name in names:
        balance = parsed.data.get(name)
        if balance is not None:
            return balance.amount.amount or Decimal(0), balance.date, balance.amount.currency
    return None


def _line(fields: Mapping[str, Any], number: int, where: ZoneInfo | None) -> StatementLine:
    day = fields.get("entry_date") or fields["date"]
    reference = text(number, "reference", (fields.get("customer_reference") or "").strip())
    noted = (
        fields.get("bank_reference"),
        fields.get("extra_details"),
        fields.get("transaction_details"),
    )
    described = " ".join(part.replace("\n", " ").strip() for part in noted if part)
    return StatementLine(
        id="",
        number=number,
        kind=(fields.get("id") or "").strip(),
        amount=fields["amount"].amount or Decimal(0),
        currency="",
        effective_at=midnight(day, where),
        reference=None if reference == "NONREF" else reference,
        description=as_note(described) or "",
    )


def _recognises(head: bytes, profile: StatementProfile) -> bool:
    return head.startswith((b":20:", b"{1:")) or b"\n:20:" in head


FORMAT: Final = StatementFormat(NAME, _recognises, read)
