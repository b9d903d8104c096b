"""Closes: the months of each wallet that operators closed, with what they closed on.

The stream is one month of one wallet. It may be reopened and closed again; the latest event counts.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from ledger.model import (
    Record,
    RecordedFact,
    Related,
    SourceTerms,
    StreamProjection,
    Table,
    View,
    changed,
    stamp,
)

WORDS_MAX: Final = 64
"""How many closings and reopenings of one month are remembered, the latest ones."""


class CloseWord(Record, frozen=True):
    """One closing or reopening."""

    action: str
    by: str | None
    note: str | None
    at: datetime
    position: int


class Close(Record, frozen=True):
    """The state: the latest closing of a month, and whether it is reopened."""

    status: str = ""
    currency: str = ""
    position: int = 0
    """Of the latest event."""
    details: dict[str, Any] = {}
    """Of the latest closing."""
    words: list[CloseWord] = []


def fold(state: Close | None, seen: RecordedFact) -> Close:
    """Take an event; the latest counts."""
    state, fact = state or Close(), seen.fact
    word = CloseWord(
        fact.status,
        _text(fact.details.get("by")),
        _text(fact.details.get("note")),
        seen.recorded_at,
        seen.position,
    )
    words = sorted([*state.words, word], key=lambda each: each.position)[-WORDS_MAX:]
    state = changed(state, words=words)
    if seen.position < state.position:
        return state
    is_kept = fact.status == "reopened" and state.details
    return changed(
        state,
        status=fact.status,
        currency=fact.currency or state.currency,
        position=seen.position,
        details=state.details if is_kept else dict(fact.details),
    )


def view(state: Close, related: Related, terms: SourceTerms) -> View:
    """Return the row of a month; a close posts nothing."""
    details, last = state.details, state.words[-1]
    return View(
        {
            "status": state.status,
            "currency": state.currency,
            "period": details.get("period"),
            "begin_at": _time(details.get("begin")),
            "end_at": _time(details.get("end")),
            "reconciled": details.get("state"),
            "statement_balance": _amount(details.get("statement_balance")),
            "ledger_balance": _amount(details.get("ledger_balance")),
            "in_transit": _amount(details.get("in_transit")),
            "breaks": _amount(details.get("breaks")),
            "accepted": list(details.get("accepted") or ()),
            "open": list(details.get("open") or ()),
            "lines": details.get("lines"),
            "books_position": details.get("position"),
            "statements_position": details.get("statements_position"),
            "sha256": details.get("sha256"),
            "rules_sha256": details.get("rules_sha256"),
            "previous": details.get("previous"),
            "by": last.by,
            "note": last.note,
            "decided_at": last.at,
            "decided_position": last.position,
            "words": [
                {"action": w.action, "by": w.by, "note": w.note, "position": w.position,
                 "at": stamp(w.at)}
                for w in state.words
            ],
        }
    )  # fmt: skip


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def _amount(text: Any) -> Decimal | None:
    return Decimal(text) if isinstance(text, str) else None


PROJECTION = StreamProjection(
    name="closes",
    kinds=frozenset({"close"}),
    table=Table(
        name="closes",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "status": "text",
            "currency": "text",
            "period": "text",
            "begin_at": "timestamptz",
            "end_at": "timestamptz",
            "reconciled": "text",
            "statement_balance": "numeric",
            "ledger_balance": "numeric",
            "in_transit": "numeric",
            "breaks": "numeric",
            "accepted": "text[]",
            "open": "jsonb",
            "lines": "bigint",
            "books_position": "bigint",
            "statements_position": "bigint",
            "sha256": "text",
            "rules_sha256": "text",
            "previous": "bigint",
            "by": "text",
            "note": "text",
            "decided_at": "timestamptz",
            "decided_position": "bigint",
            "words": "jsonb",
        },
        key=("source", "kind", "id"),
        mode="replace",
        indexes=("source, currency, period",),
    ),
    state=Close,
    fold=fold,
    view=view,
)
