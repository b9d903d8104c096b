"""The vocabulary of statements: what moved in one wallet by the provider, line by line."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

from ledger.errors import StatementRefused
from ledger.model import Record, changed, plain

__all__ = [
    "BYTES_MAX",
    "LINES_MAX",
    "Statement",
    "StatementLine",
    "StatementRefused",
    "Window",
    "identified",
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
    """The provider's line id; where a format has none, see `identified`."""
    number: int
    """The 1-based place in the file, for messages."""
    kind: str
    """The provider's row type (`Bank Transfer In`, `Fee` …); "" without one."""
    amount: Decimal
    """> 0 = into our wallet (credit), < 0 = out of it (debit)."""
    currency: str
    """Upper case."""
    effective_at: datetime
    """Aware, in UTC."""
    contract_id: str | None = None
    idempotency_id: str | None = None
    reference: str | None = None
    """The end-to-end reference or the transaction hash."""
    balance: Decimal | None = None
    """The running balance after the line, where the file states it."""
    description: str = ""


class Statement(Record, frozen=True):
    """One file's statement of one currency and period. The lines are oldest first."""

    format: str
    """The name of a StatementFormat."""
    sha256: str
    """Of the file's bytes, in hex."""
    currency: str
    opened_at: datetime
    """The period's beginning, inclusive."""
    closed_at: datetime
    """The period's end, exclusive."""
    opening: Decimal | None
    closing: Decimal | None
    lines: tuple[StatementLine, ...]
    body: bytes
    """The file itself, which is kept."""


@dataclass(frozen=True, slots=True)
class StatementFormat:
    """A format of statement files."""

    name: str
    """As users name it (`--format`)."""
    recognises: Callable[[bytes, Mapping[str, str] | None], bool]
    """Whether a file is of the format, by its first bytes and the column map given.

    False for formats of JSON: the provider declares which of them is its own.
    """
    read: Callable[[bytes, str | None, Mapping[str, str] | None, Window | None], Statement]
    """Body, currency, column map and period → statement. Raises StatementRefused."""


def identified(lines: Iterable[StatementLine]) -> tuple[StatementLine, ...]:
    """Give every line without an id one made of its content and its ordinal among equal lines.

    The content is every field except the number and the running balance, so that a newer file which
    overlaps gives the same line the same id.
    """
    count: Counter[str] = Counter()
    result = []
    for line in lines:
        if line.id:
            result.append(line)
            continue
        digest = hashlib.sha256(msgspec.json.encode(_content(line))).hexdigest()[:24]
        count[digest] += 1
        result.append(changed(line, id=f"h:{digest}-{count[digest]}"))
    return tuple(result)


def _content(line: StatementLine) -> tuple[str | None, ...]:
    return (
        line.kind,
        plain(line.amount),
        line.currency,
        line.effective_at.isoformat(),
        line.contract_id,
        line.idempotency_id,
        line.reference,
        line.description,
    )
