"""The vocabulary of statements: what a provider says moved in one wallet, line by line."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from ledger.errors import StatementRefused
from ledger.model import Record, changed, plain

__all__ = [
    "BYTES_MAX",
    "FORMATS",
    "LINES_MAX",
    "Statement",
    "StatementLine",
    "StatementRefused",
    "identified",
]

BYTES_MAX: Final = 512 * 1024 * 1024
"""Bytes that a statement's file may have."""

LINES_MAX: Final = 1_000_000
"""Lines that a statement may have."""

FORMATS: Final = ("straitsx-json", "csv", "camt.053", "mt940")


class StatementLine(Record, frozen=True):
    """One movement of one wallet, as the provider's statement tells it."""

    id: str
    """The provider's line id; where a format has none, see `identified`."""
    number: int
    """The 1-based place in the file, for messages."""
    kind: str
    """The provider's row type (`Bank Transfer In`, `Fee` …); "" when none is told."""
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
    """The running balance after the line, where it is told."""
    description: str = ""


class Statement(Record, frozen=True):
    """What one file says about one currency and period. The lines are oldest first."""

    format: str
    """One of FORMATS."""
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


def identified(lines: Iterable[StatementLine]) -> tuple[StatementLine, ...]:
    """Give every line without an id one made of its content and its ordinal among equal lines.

    The content is all that the line says but its place and the running balance, so that a newer
    file which overlaps gives the same line the same id.
    """
    seen: Counter[str] = Counter()
    found = []
    for line in lines:
        if line.id:
            found.append(line)
            continue
        digest = hashlib.sha256(msgspec.json.encode(_content(line))).hexdigest()[:24]
        seen[digest] += 1
        found.append(changed(line, id=f"h:{digest}-{seen[digest]}"))
    return tuple(found)


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
