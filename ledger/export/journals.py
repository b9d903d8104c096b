"""Write the journal for plain-text accounting: hledger and beancount. Pure.

Account names are valid in both tools and can be mapped back to ours: `network_fees` becomes
`NetworkFees`, any other part `Id-` and itself, with each byte but letters and digits as `-` and two
hex digits. The source comes last. Dates are the provider's; one event's lines of one transaction
and date are one balanced entry, whose links or code name its position in the log.

hledger computes with any number of digits. Beancount computes with 28 (Python's default decimal
context) and rounds a negative number of more already as it reads it. So a journal for beancount
writes the amounts of an entry that needs more in two postings each, whole units and decimals; every
number and every sum within an entry is then exact. A balance that beancount cannot add up exactly
is not asserted: a comment takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, Final, Protocol
from urllib.parse import quote

from ledger.errors import InvalidRequest
from ledger.payload import total

FIRST_DAY: Final = date(1970, 1, 1)
LAST_DAY: Final = date(2099, 12, 31)
"""The last date that beancount reads; later entries get it, `effective_at` has their own time."""

BEANCOUNT_DIGITS: Final = 28
"""Significant digits with which beancount computes."""

ROOTS: Final[Mapping[str, str]] = {
    "assets": "Assets",
    "liabilities": "Liabilities",
    "equity": "Equity",
    "income": "Income",
    "expenses": "Expenses",
    "memo": "Equity:Memo",
    "suspense": "Assets:Suspense",
}
"""First part of our accounts → its place in the tools, which have five roots only."""

_WORDS: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z][a-z0-9]*)*", re.ASCII)
_CURRENCY: Final = re.compile(r"[A-Z][A-Z0-9'._-]{0,22}[A-Z0-9]", re.ASCII)
_LINK: Final = re.compile(r"[^A-Za-z0-9_.]", re.ASCII)

Row = Mapping[str, Any]


class Dialect(Protocol):
    """How one tool writes a journal."""

    def begin(self, title: str) -> Iterator[str]:
        """Return the lines before the first entry."""

    def entry(self, day: date, lines: Sequence[Row]) -> Iterator[str]:
        """Return one balanced entry."""

    def balance(self, day: date, row: Row, amount: str) -> Iterator[str]:
        """Return the lines by which the tool checks an account's balance."""


def account(source: str, name: str) -> str:
    """Return the name of a source's account in the tools."""
    first, *rest = name.split(":")
    root = ROOTS.get(first)
    parts = [root] if root else ["Equity:Other", _part(first)]
    return ":".join([*parts, *map(_part, rest), _part(source)])


def _part(text: str) -> str:
    if _WORDS.fullmatch(text):
        return "".join(word.capitalize() for word in text.split("_"))
    return "Id-" + "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"-{byte:02X}"
        for byte in text.encode()
    )


def commodity(currency: str) -> str:
    """Return a currency as both tools take it. Raises InvalidRequest for any other."""
    if not _CURRENCY.fullmatch(currency):
        raise InvalidRequest(
            f"the currency {currency!r} cannot be written in a journal; export jsonl or csv"
        )
    return currency


def groups(lines: Sequence[Row]) -> Iterator[tuple[date, list[Row]]]:
    """Group the lines of complete events into entries that balance: one transaction, one time."""

    def key(row: Row) -> tuple[Any, ...]:
        return row["source"], row["position"], row["kind"], row["transaction"], row["effective_at"]

    for _, group in groupby(sorted(lines, key=key), key):
        entry = list(group)
        day = datetime.fromisoformat(entry[0]["effective_at"]).date()
        yield min(max(day, FIRST_DAY), LAST_DAY), entry


@dataclass(slots=True)
class SumSize:
    """How many digits a sum of amounts can need, whatever the order in which they are added."""

    size: Decimal = Decimal(0)
    """The sum of the amounts without their signs: no sum of some of them is larger."""
    decimals: int = 0

    def add(self, amount: str) -> None:
        """Count one more amount."""
        number = Decimal(amount)
        self.size = total(self.size, number.copy_abs())
        self.decimals = max(self.decimals, len(amount.partition(".")[2]))

    @property
    def digits(self) -> int:
        """The most digits that a sum of some of the amounts can have."""
        return max(self.size.adjusted() + 1, 0) + self.decimals


class Beancount:
    """Beancount 2 and 3."""

    def __init__(self) -> None:
        self._sizes: dict[str, dict[str, SumSize]] = {}
        """Account, once it is open → currency → its amounts so far."""

    def begin(self, title: str) -> Iterator[str]:
        """Write the title."""
        yield f'option "title" "{_quoted(title)}"'
        yield ""

    def entry(self, day: date, lines: Sequence[Row]) -> Iterator[str]:
        """Write a transaction, after opening the accounts that it uses first."""
        row = lines[0]
        for line in lines:
            name = account(line["source"], line["account"])
            yield from self._open(name)
            self._sizes[name].setdefault(line["currency"], SumSize()).add(line["amount"])
        links = f"^{_link(row, row['position'])} ^{_link(row, row['kind'], row['transaction'])}"
        yield f'{day} * "{_quoted(row["kind"])}" "{_quoted(row["transaction"])}" {links}'
        yield f'  position: "{row["source"]}:{row["position"]}"'
        yield f'  transaction: "{_quoted(row["transaction"])}"'
        yield f'  effective_at: "{row["effective_at"]}"'
        yield f'  recorded_at: "{row["recorded_at"]}"'
        for line, amount in _postings(lines):
            name = account(line["source"], line["account"])
            yield f"  {name}  {amount} {commodity(line['currency'])}"
        yield ""

    def balance(self, day: date, row: Row, amount: str) -> Iterator[str]:
        """Assert a balance as of the beginning of a day, where beancount adds it up exactly."""
        name = account(row["source"], row["account"])
        yield from self._open(name)
        asserted = f"{name}  {amount} {commodity(row['currency'])}"
        size = self._sizes[name].get(row["currency"], SumSize())
        if size.digits > BEANCOUNT_DIGITS:
            yield (
                f"; not asserted: beancount computes with {BEANCOUNT_DIGITS} digits, and this sum "
                f"can need {size.digits}"
            )
            yield f"; {day} balance {asserted}"
        else:
            yield f"{day} balance {asserted}"

    def _open(self, name: str) -> Iterator[str]:
        if name not in self._sizes:
            self._sizes[name] = {}
            yield f"{FIRST_DAY} open {name}"


def _postings(lines: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    """Return the lines of an entry with their amounts, in two parts where beancount would round.

    All whole units come before all decimals, so that their sums stay short as well.
    """
    sizes: dict[str, SumSize] = {}
    for line in lines:
        sizes.setdefault(line["currency"], SumSize()).add(line["amount"])
    long = {name for name, size in sizes.items() if size.digits > BEANCOUNT_DIGITS}
    decimals: list[tuple[Row, str]] = []
    for line in lines:
        amount: str = line["amount"]
        if line["currency"] in long:
            units, _, fraction = amount.partition(".")
            if fraction:
                sign = "-" if amount.startswith("-") else ""
                decimals.append((line, f"{sign}0.{fraction}"))
            if not units.strip("-0"):
                continue
            amount = units
        yield line, amount
    yield from decimals


class Hledger:
    """Hledger 1.25 and newer, also with `--strict`: every account and commodity is declared."""

    def __init__(self) -> None:
        self._declared: set[str] = set()

    def begin(self, title: str) -> Iterator[str]:
        """Write the title and the number format."""
        yield f"; {_quoted(title)}"
        yield "decimal-mark ."
        yield ""

    def entry(self, day: date, lines: Sequence[Row]) -> Iterator[str]:
        """Write a transaction; its code is source and position."""
        row = lines[0]
        yield from self._declare(lines)
        named = quote(row["transaction"], safe="-_.~/@+")
        tags = f"transaction:{named}, effective_at:{row['effective_at']}"
        tags += f", recorded_at:{row['recorded_at']}"
        place = f"({row['source']}:{row['position']})"
        yield f"{day} * {place} {quote(row['kind'])} | {named}  ; {tags}"
        for line in lines:
            yield self._posting(line, f"{line['amount']} {_symbol(line['currency'])}")
        yield ""

    def balance(self, day: date, row: Row, amount: str) -> Iterator[str]:
        """Assert a balance, in an entry that moves nothing."""
        yield from self._declare([row])
        symbol = _symbol(row["currency"])
        yield f"{day} * balance"
        yield self._posting(row, f"0 {symbol} = {amount} {symbol}")
        yield ""

    def _posting(self, row: Row, amount: str) -> str:
        return f"    {account(row['source'], row['account'])}    {amount}"

    def _declare(self, lines: Sequence[Row]) -> Iterator[str]:
        """Declare what these lines use first; hledger reads declarations before all entries."""
        directives = [
            directive
            for line in lines
            for directive in (
                f"account {account(line['source'], line['account'])}",
                f"commodity {_symbol(line['currency'])}",
            )
        ]
        fresh = [line for line in dict.fromkeys(directives) if line not in self._declared]
        self._declared.update(fresh)
        yield from fresh
        if fresh:
            yield ""


DIALECTS: Final[Mapping[str, type[Beancount] | type[Hledger]]] = {
    "beancount": Beancount,
    "hledger": Hledger,
}


def day_after(last: date | None) -> date | None:
    """Return the day at whose beginning every entry has happened; None when there is none."""
    if last is None or last >= LAST_DAY:
        return None
    return last + timedelta(days=1)


def _symbol(currency: str) -> str:
    name = commodity(currency)
    return name if name.isalpha() else f'"{name}"'


def _link(row: Row, *parts: object) -> str:
    texts = (_LINK.sub(_escaped, str(part)) for part in (row["source"], *parts))
    return "/".join(texts)


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"-{byte:02X}" for byte in match[0].encode())


def _quoted(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(sign if sign.isprintable() else quote(sign) for sign in plain)
