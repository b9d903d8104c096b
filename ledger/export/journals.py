"""Write the journal for plain-text accounting: hledger and beancount. Pure.

Account names are valid in both tools and can be mapped back to ours: `network_fees` becomes
`NetworkFees`, any other part `Id-` and itself, with each byte but letters and digits as `-` and two
hex digits. The source comes last. Dates are the provider's; one event's lines of one transaction
and date are one balanced entry, whose links or code name its position in the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Any, Final, Protocol
from urllib.parse import quote

from ledger.errors import InvalidRequest

FIRST_DAY: Final = date(1970, 1, 1)
LAST_DAY: Final = date(2099, 12, 31)
"""The last date that beancount reads; later entries get it, `effective_at` has their own time."""

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


class Beancount:
    """Beancount 2 and 3."""

    def __init__(self) -> None:
        self._opened: set[str] = set()

    def begin(self, title: str) -> Iterator[str]:
        """Write the title."""
        yield f'option "title" "{_quoted(title)}"'
        yield ""

    def entry(self, day: date, lines: Sequence[Row]) -> Iterator[str]:
        """Write a transaction, after opening the accounts that it uses first."""
        row = lines[0]
        for line in lines:
            yield from self._open(account(line["source"], line["account"]))
        links = f"^{_link(row, row['position'])} ^{_link(row, row['kind'], row['transaction'])}"
        yield f'{day} * "{_quoted(row["kind"])}" "{_quoted(row["transaction"])}" {links}'
        yield f'  position: "{row["source"]}:{row["position"]}"'
        yield f'  transaction: "{_quoted(row["transaction"])}"'
        yield f'  effective_at: "{row["effective_at"]}"'
        yield f'  recorded_at: "{row["recorded_at"]}"'
        for line in lines:
            name = account(line["source"], line["account"])
            yield f"  {name}  {line['amount']} {commodity(line['currency'])}"
        yield ""

    def balance(self, day: date, row: Row, amount: str) -> Iterator[str]:
        """Assert a balance as of the beginning of a day."""
        name = account(row["source"], row["account"])
        yield from self._open(name)
        yield f"{day} balance {name}  {amount} {commodity(row['currency'])}"

    def _open(self, name: str) -> Iterator[str]:
        if name not in self._opened:
            self._opened.add(name)
            yield f"{FIRST_DAY} open {name}"


class Hledger:
    """Hledger 1.25 and newer."""

    def begin(self, title: str) -> Iterator[str]:
        """Write the title and the number format."""
        yield f"; {_quoted(title)}"
        yield "decimal-mark ."
        yield ""

    def entry(self, day: date, lines: Sequence[Row]) -> Iterator[str]:
        """Write a transaction; its code is source and position."""
        row = lines[0]
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
        symbol = _symbol(row["currency"])
        yield f"{day} * balance"
        yield self._posting(row, f"0 {symbol} = {amount} {symbol}")
        yield ""

    def _posting(self, row: Row, amount: str) -> str:
        return f"    {account(row['source'], row['account'])}    {amount}"


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
