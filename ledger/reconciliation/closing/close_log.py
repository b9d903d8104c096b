"""Read which months of a source are closed: from the books, and from the log behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson

from ledger.model import Record, changed
from ledger.queries.snapshot import DatabaseRow, Snapshot

SELECT_CLOSES: Final = """
SELECT id, status, currency, period, begin_at, end_at, reconciled, statement_balance,
       ledger_balance, in_transit, breaks, accepted, open::text AS open, lines, books_position,
       statements_position, sha256, rules_sha256, previous, by, note, decided_at, decided_position
  FROM closes WHERE source = $1 AND kind = 'close' ORDER BY currency, period
"""
SELECT_NEWER: Final = """
SELECT e.position, e.body, e.recorded_at FROM ledger.events AS e
 WHERE e.source = $1 AND e.position > coalesce(
       (SELECT c.position FROM checkpoints AS c WHERE c.source = $1), 0)
   AND e.origin = 'operator' AND e.kind = 'close'
 ORDER BY e.position
"""

CLOSED: Final = "closed"
REOPENED: Final = "reopened"


class ClosedItem(Record, frozen=True):
    """Something that was open or in transit when a month was closed."""

    id: str
    type: str
    at: datetime
    gap: Decimal


class Close(Record, frozen=True):
    """The latest closing of one month of a wallet."""

    id: str
    status: str
    """`closed` or `reopened`."""
    currency: str
    period: str
    begin: datetime
    end: datetime
    state: str
    statement_balance: Decimal
    ledger_balance: Decimal
    in_transit: Decimal
    breaks: Decimal
    accepted: tuple[str, ...]
    open: tuple[ClosedItem, ...]
    lines: int
    books_position: int
    """Of the source, at which the figures are true."""
    statements_position: int
    sha256: str
    rules_sha256: str
    previous: int | None
    """The position of the close of the month before."""
    by: str
    note: str
    at: datetime
    """When it was closed, or reopened."""
    position: int


def close_id(currency: str, period: str) -> str:
    """Return the name of a month of a wallet within its source."""
    return f"{currency}:{period}"


async def read_closes(snapshot: Snapshot, source: str) -> list[Close]:
    """Read the months of a source that are or were closed, by currency and month."""
    closes = {row["id"]: _folded(row) for row in await snapshot.rows(SELECT_CLOSES, source)}
    for row in await snapshot.rows(SELECT_NEWER, source):
        body = orjson.loads(row["body"])
        made = _stated(body, row["position"], row["recorded_at"])
        known = closes.get(made.id)
        if made.status == REOPENED and known is not None:
            made = changed(
                known, status=REOPENED, by=made.by, note=made.note, at=made.at,
                position=made.position,
            )  # fmt: skip
        closes[made.id] = made
    return sorted(closes.values(), key=lambda close: (close.currency, close.period))


def open_from(closes: Sequence[Close], currency: str) -> datetime | None:
    """Return the end of the latest closed month of a wallet; None when no month is closed.

    Postings about closed months are dated there, so that these stay as they were closed.
    """
    ends = [c.end for c in closes if c.currency == currency and c.status == CLOSED]
    return max(ends, default=None)


def _items(rows: Any) -> tuple[ClosedItem, ...]:
    return tuple(
        ClosedItem(name, kind, datetime.fromisoformat(at), Decimal(gap))
        for name, kind, at, gap in rows or ()
    )


def _folded(row: DatabaseRow) -> Close:
    return Close(
        row["id"], row["status"], row["currency"], row["period"], row["begin_at"], row["end_at"],
        row["reconciled"] or "", row["statement_balance"], row["ledger_balance"], row["in_transit"],
        row["breaks"], tuple(row["accepted"]), _items(orjson.loads(row["open"])),
        row["lines"] or 0, row["books_position"] or 0, row["statements_position"] or 0,
        row["sha256"] or "", row["rules_sha256"] or "", row["previous"], row["by"] or "",
        row["note"] or "", row["decided_at"], row["decided_position"],
    )  # fmt: skip


def _stated(body: Mapping[str, Any], position: int, at: datetime) -> Close:
    """Return a close by the body of its event."""
    return Close(
        body["id"], body["action"], body["currency"], body["period"],
        datetime.fromisoformat(body["begin"]), datetime.fromisoformat(body["end"]), body["state"],
        Decimal(body["statement_balance"]), Decimal(body["ledger_balance"]),
        Decimal(body["in_transit"]), Decimal(body["breaks"]), tuple(body["accepted"]),
        _items(body["open"]), body["lines"], body["position"], body["statements_position"],
        body["sha256"], body["rules_sha256"], body["previous"], body["by"], body["note"], at,
        position,
    )  # fmt: skip
