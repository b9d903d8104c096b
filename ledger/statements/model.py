"""The vocabulary of statements: what moved in one wallet by the provider, line by line."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from ledger.config.statement_profile import StatementProfile
from ledger.errors import StatementRefused
from ledger.model import Record, changed, plain

__all__ = [
    "BYTES_MAX",
    "LINES_MAX",
    "Reading",
    "Statement",
    "StatementLine",
    "StatementRefused",
    "Window",
    "core_of",
    "named",
]

BYTES_MAX: Final = 512 * 1024 * 1024
"""Bytes that a statement's file may have."""

LINES_MAX: Final = 1_000_000
"""Lines that a statement may have."""


Window: TypeAlias = tuple[datetime, datetime]
"""A period: from (inclusive), to (exclusive)."""


class StatementLine(Record, frozen=True):
    """One line of a provider's statement: one movement of one wallet."""

    id: str
    """As the file has it; "" without one. Banks repeat it: it names nothing across files."""
    number: int
    """The 1-based place in the file, for messages."""
    kind: str
    """The provider's row type (`Bank Transfer In`, `Fee` …); "" without one."""
    amount: Decimal
    """> 0 = into our wallet (credit), < 0 = out of it (debit)."""
    currency: str
    """Upper case."""
    effective_at: datetime
    """Its time as the file states it: aware, in UTC; the beginning of a day without a time."""
    contract_id: str | None = None
    idempotency_id: str | None = None
    reference: str | None = None
    """The end-to-end reference or the transaction hash."""
    balance: Decimal | None = None
    """The running balance after the line, where the file states it."""
    description: str = ""
    counterparty: str = ""
    """Who paid, or was paid, as the file names them."""
    names: tuple[str, ...] = ()
    """Every other name of it or of its transactions by which the books may know it."""
    booked_at: datetime | None = None
    """When it counts in the balances: `effective_at`, or the end of its statement's period that
    is nearer where that lies outside; None until `checked_statement` has set it."""
    name: str = ""
    """Unique among the lines of the wallet; "" until `checked_statement` has set it."""


class Statement(Record, frozen=True):
    """One file's statement of one currency and period. The lines are oldest first."""

    format: str
    """The name of a StatementFormat."""
    sha256: str
    """Of the file's bytes, in hex."""
    currency: str
    """The one that the file states; the wallet's, once `importer` has found that."""
    opened_at: datetime
    """The period's beginning, inclusive."""
    closed_at: datetime
    """The period's end, exclusive."""
    opening: Decimal | None
    closing: Decimal | None
    lines: tuple[StatementLine, ...]
    body: bytes
    """The file itself, which is kept."""
    stated_currency: str = ""
    """The one that the file states, where the wallet has another name."""
    account: str = ""
    """IBAN or another number, without blanks, in upper case; "" when nothing names one."""
    claimed_from: datetime | None = None
    """From when on it has every line, of a period inferred from balances of two days: the day after
    that of the opening balance. None of any other period: `opened_at`."""
    is_inferred: bool = False
    """Whether the period is neither stated nor given, but that of the rows of a table."""
    stated_balances: tuple[Decimal | None, Decimal | None] | None = None
    """Opening and closing balance as the file states them, of one that is a part of its period:
    `opening` and `closing` are then those of the whole period."""
    notes: tuple[str, ...] = ()
    """What the reader found worth saying, one sentence each, as a repeated id."""
    where: ZoneInfo | None = None
    """The zone of its days; None = UTC."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is to be read."""

    format: str | None = None
    """The name of a StatementFormat; None = as the profile says, or recognised."""
    currency: str | None = None
    """Needed where the file names none or several."""
    account: str | None = None
    """The account to select, or the name of the one that the file does not name."""
    window: Window | None = None
    """The period, where the file states none."""
    profile: StatementProfile = field(default_factory=StatementProfile)
    """How the file is written: time zone, columns, spelling."""
    profiles: Mapping[str, StatementProfile] = field(default_factory=dict)
    """Those of the source, by name: a table without a profile is read by the one that fits."""
    time_zone: str | None = None
    """Of the source: of days and times that name none, where the profile declares none."""
    accounts: Mapping[str, str] = field(default_factory=dict)
    """Of the source: account → wallet, which is the currency of a file that names none."""


@dataclass(frozen=True, slots=True)
class StatementFormat:
    """A format of statement files."""

    name: str
    """As users name it (`--format`)."""
    recognises: Callable[[bytes, StatementProfile], bool]
    """Whether a file is of the format, by its first bytes and the profile given.

    False for formats of JSON: the provider declares which of them is its own.
    """
    read: Callable[[bytes, Reading], Statement]
    """Raises StatementRefused."""


def named(
    lines: Iterable[StatementLine], *, are_ids_unique: bool = False
) -> tuple[StatementLine, ...]:
    """Give every line its name: unique within the file, the same in a newer file that overlaps.

    It is the id where the provider gives one to one line only (`are_ids_unique`), else made of the
    line's core and its ordinal among those of an equal core, which their texts put in order.
    """
    result = [
        changed(line, name=line.id if are_ids_unique and line.id else stem_of(line))
        for line in lines
    ]
    count = Counter(line.name for line in result)
    places: dict[str, list[int]] = defaultdict(list)
    for place, line in enumerate(result):
        if count[line.name] > 1:
            places[line.name].append(place)
    taken = set(count)
    for stem, equal in places.items():
        free = (f"{stem}-{number}" for number in itertools.count(2))
        for place in sorted(equal, key=lambda p: _texts(result[p]))[1:]:
            name = next(name for name in free if name not in taken)
            taken.add(name)
            result[place] = changed(result[place], name=name)
    return tuple(result)


def stem_of(line: StatementLine) -> str:
    """Return the name of a line by its core, without its ordinal."""
    return f"h:{_digest(core_of(line))}"


def core_of(line: StatementLine) -> tuple[str | None, ...]:
    """Return what makes a line the one it is: its id, amount, names and booking, not its texts.

    Equal entries of two statements, one of them late, are two lines: they are booked apart.
    """
    return (
        line.id,
        plain(line.amount),
        line.currency,
        (line.booked_at or line.effective_at).isoformat(),
        line.contract_id,
        line.idempotency_id,
        line.reference,
    )


def _texts(line: StatementLine) -> tuple[str, ...]:
    return line.kind, line.description, line.counterparty, *line.names


def _digest(core: tuple[str | None, ...]) -> str:
    return hashlib.sha256(msgspec.json.encode(core)).hexdigest()[:24]
