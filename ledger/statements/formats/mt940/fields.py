"""The fields of a SWIFT statement message: `:61:`, a line; `:60a:`, `:62a:`, a balance; `:25:`.

Read as the standard has them (SWIFT, Category 9: MT940, MT950), and as banks write them: amounts
without a comma or with leading zeros, references of more than 16 characters, blanks around the
amount, a line break before it, an entry date left blank, 30 February as an interest date.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Final, NamedTuple

from ledger.config.statement_profile import account_number

_FIELDS: Final = re.compile(
    r"^[ \t]*:(13D|20|21|25P?|28C?|34F|60[FM]?|61|62[FM]?|64|65|86|90[CD]|NS):"
    r"|-\}[^\n]*"  # the end of a message, and what follows it in the line
    r"|^[ \t]*-[ \t]*$"
    r"|^[ \t]*\{[1-5]:[^\n]*",
    re.MULTILINE,
)
_AMOUNT: Final = r"(0*\d{1,18}(?:,\d{0,6})?|,\d{1,6})(?![\d,.])"
_LINE: Final = re.compile(
    r"(\d{6})(\d{4}|[ ]{4})?[ ]?(R?[CD])([A-Z])?\s*" + _AMOUNT + r"[ ]?([A-Z][A-Z0-9 ]{3})(.*)",
    re.ASCII | re.DOTALL,
)
_BALANCE: Final = re.compile(
    r"([CD])[ ]?(\d{6})[ ]?([A-Z]{3})?[ ]?" + _AMOUNT + r"[ \t]*(?:-[ \t]*)?(?:\n.*)?",
    re.ASCII | re.DOTALL,
)
_EXPECTED: Final = re.compile(r"\d{6}(?:\d{4}|[ ]{4})?E[CD]", re.ASCII)
_COLUMNS: Final = re.compile(r"[ ]{2,}")
_IBAN: Final = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", re.ASCII)
_BIC: Final = re.compile(r"[A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?", re.ASCII)
_CENTURY: Final = 2000


class Field(NamedTuple):
    """One field of the file."""

    tag: str
    """As `61` or `60F`; "" for the head and the end of a message."""
    text: str
    """Without the tag; of a head and an end, their own line."""
    begin: int
    """Where in the file's text it begins."""


class Line(NamedTuple):
    """The field `:61:`."""

    value_day: date
    entry_day: date | None
    amount: Decimal
    """> 0 = credit."""
    kind: str
    """The type of transaction, as `NTRF`."""
    customer_reference: str
    bank_reference: str
    supplement: str
    """The supplementary details, and what a bank appends to the reference after two blanks."""


class Balance(NamedTuple):
    """A field `:60a:` or `:62a:`."""

    day: date
    currency: str
    """"" where the bank leaves it out."""
    amount: Decimal


class WrongField(Exception):
    """The field is wrong; the message says in what."""


def fields_of(text: str) -> Iterator[Field]:
    """Yield the fields of a file in order; what is outside of fields is left out."""
    pending: tuple[str, int, int] | None = None
    for match in _FIELDS.finditer(text):
        if pending is not None:
            tag, begin, end = pending
            yield Field(tag, text[end : match.start()].rstrip(), begin)
        tag = match[1]
        if tag is None:
            yield Field("", match[0], match.start())
            pending = None
        else:
            pending = tag, match.start(), match.end()
    if pending is not None:
        tag, begin, end = pending
        yield Field(tag, text[end:].rstrip(), begin)


def line_of(text: str) -> Line:
    """Read a field `:61:`. Raises WrongField."""
    match = _LINE.match(text)
    if match is None:
        raise WrongField(_fault(text))
    valued, entered, mark, _, amount, kind, rest = match.groups()
    first, _, supplement = rest.partition("\n")
    customer, _, bank = first.partition("//")
    columns = _COLUMNS.split(customer.strip(), maxsplit=1)
    value_day = _day(valued)
    value = _decimal(amount)
    return Line(
        value_day=value_day,
        entry_day=_entry_day(entered, value_day),
        amount=value if mark in ("C", "RD") else value.copy_negate() if value else value,
        kind=kind.strip(),
        customer_reference=columns[0],
        bank_reference=bank.strip(),
        supplement="\n".join(filter(None, (*columns[1:], supplement.strip()))),
    )


def _fault(text: str) -> str:
    if _EXPECTED.match(text):
        return "is an expected entry (EC, ED), which is not booked; export booked entries only"
    return (
        "is not as SWIFT writes it (date, entry date, C or D, amount with a comma or none, type of "
        "four characters as NTRF, reference); export the statement again"
    )


def balance_of(text: str) -> Balance:
    """Read a field `:60a:` or `:62a:`. Raises WrongField."""
    match = _BALANCE.fullmatch(text)
    if match is None:
        raise WrongField(
            "is not as SWIFT writes it (C or D, date, currency, amount with a comma or none); "
            "export the statement again"
        )
    mark, day, currency, amount = match.groups()
    value = _decimal(amount)
    return Balance(
        _day(day), currency or "", value.copy_negate() if mark == "D" and value else value
    )


def account_of(text: str, currency: str) -> str:
    """Return the account that `:25:` names, without a BIC and without the balance's currency.

    A national bank code stays with the number that it makes unique (`37050299/4711001`).
    """
    account = account_number(text.partition("\n")[0]).strip("/")
    if currency and account.endswith(currency) and account != currency:
        account = account.removesuffix(currency).rstrip("/-")
    bank, _, number = account.rpartition("/")
    return number if _BIC.fullmatch(bank) or is_iban(number) else account


def is_iban(text: str) -> bool:
    """Return whether a text has the form of an IBAN, without blanks."""
    return _IBAN.fullmatch(text) is not None


def _decimal(written: str) -> Decimal:
    return Decimal(written.replace(",", ".") if "," in written else written)


def _day(written: str) -> date:
    """Read a day written as YYMMDD. Months of 30 days, by which interest is counted, end as ours.

    Raises WrongField.
    """
    year, month, day = _CENTURY + int(written[:2]), int(written[2:4]), int(written[4:])
    if month == 2 and day in (29, 30):
        day = min(day, monthrange(year, month)[1])
    try:
        return date(year, month, day)
    except ValueError as error:
        raise WrongField(
            f"has {written!r}, which is no day (YYMMDD); export the statement again"
        ) from error


def _entry_day(written: str | None, value_day: date) -> date | None:
    """Return the day of entry (MMDD) in the year in which it is nearest to the value date.

    Raises WrongField.
    """
    if written is None or not written.strip("0 "):
        return None
    days = []
    for year in (value_day.year, value_day.year - 1, value_day.year + 1):
        try:
            days.append(date(year, int(written[:2]), int(written[2:])))
        except ValueError:
            continue
    if not days:
        raise WrongField(
            f"has the entry date {written!r}, which is no day (MMDD); export the statement again"
        )
    return min(days, key=lambda day: abs(day - value_day))
