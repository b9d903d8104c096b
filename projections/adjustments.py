"""Adjustments: the latest decision on each break, and what it posts.

The stream is the break. Each decision replaces the posting of the one before it; `reopen` takes
it back, `note` leaves it as it is.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from ledger.model import (
    Leg,
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
from projections.postings import settle

WORDS_MAX: Final = 64
"""Decisions and notes remembered of one break, the latest ones."""


class Word(Record, frozen=True):
    """One decision or note."""

    action: str
    by: str | None
    note: str | None
    at: datetime
    position: int


class Adjustment(Record, frozen=True):
    """The state: what was decided on a break, and the decision in force."""

    currency: str = ""
    position: int = 0
    """Of the decision in force; 0 before the first."""
    effective_at: datetime | None = None
    details: dict[str, Any] = {}
    words: list[Word] = []


def fold(state: Adjustment | None, seen: RecordedFact) -> Adjustment:
    """Add a decision; the latest one that is no note is in force."""
    state, fact = state or Adjustment(), seen.fact
    word = Word(
        fact.status,
        _text(fact.details.get("by")),
        _text(fact.details.get("note")),
        seen.recorded_at,
        seen.position,
    )
    words = sorted([*state.words, word], key=lambda each: each.position)[-WORDS_MAX:]
    state = changed(state, words=words, currency=fact.currency or "")
    if fact.status == "note" or seen.position < state.position:
        return state
    return changed(
        state,
        position=seen.position,
        effective_at=seen.effective_at,
        details=dict(fact.details) | {"action": fact.status},
    )


def view(state: Adjustment, related: Related, terms: SourceTerms) -> View:
    """Return the row and the legs of the decision in force."""
    details = state.details
    last = state.words[-1]
    decided = next((w for w in reversed(state.words) if w.position == state.position), last)
    row = {
        "action": details.get("action") or "note",
        "currency": state.currency,
        "anchor": details.get("anchor") or "",
        "break_type": details.get("break_type"),
        "items": list(details.get("items") or ()),
        "by": decided.by,
        "note": decided.note,
        "decided_at": decided.at,
        "decided_position": decided.position,
        "effective_at": state.effective_at,
        "words": [
            {"action": w.action, "by": w.by, "note": w.note, "position": w.position,
             "at": stamp(w.at)}
            for w in state.words
        ],
    }  # fmt: skip
    return View(row, _legs(state))


def _legs(state: Adjustment) -> tuple[Leg, ...]:
    at = state.effective_at
    if at is None:
        return ()
    lines = state.details.get("legs") or ()
    return settle([(at, account, state.currency, Decimal(amount)) for account, amount in lines])


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


PROJECTION = StreamProjection(
    name="adjustments",
    kinds=frozenset({"adjustment"}),
    table=Table(
        name="adjustments",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "action": "text",
            "currency": "text",
            "anchor": "text",
            "break_type": "text",
            "items": "text[]",
            "by": "text",
            "note": "text",
            "decided_at": "timestamptz",
            "decided_position": "bigint",
            "effective_at": "timestamptz",
            "words": "jsonb",
        },
        key=("source", "kind", "id"),
        mode="replace",
        indexes=("source, currency",),
    ),
    state=Adjustment,
    fold=fold,
    view=view,
)
