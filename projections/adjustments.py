"""Adjustments: the latest decision on each break, and what it posts.

The stream is the break. Each decision replaces the posting of the one before it; `reopen` takes
it back, `note` leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
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
"""Decisions and notes remembered of one break: the latest ones, and the decision in force."""

TOLERANCE: Final = "tolerance"
AUTOMATIC: Final = frozenset({TOLERANCE, "rule"})
"""Actions that a declared rule takes, and no operator."""


class Word(Record, frozen=True):
    """One decision or note."""

    action: str
    by: str | None
    note: str | None
    at: datetime
    position: int
    request: str | None = None
    """The digest of what was requested: equal for equal rows of a file of decisions."""


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
        _text(fact.details.get("request")),
    )
    state = changed(state, currency=fact.currency or "")
    details = dict(fact.details) | {"action": fact.status}
    if fact.status == "note":
        # Before any decision a note says at least what it is about.
        state = state if state.position else changed(state, details=details)
    elif seen.position >= state.position:
        state = changed(
            state, position=seen.position, effective_at=seen.effective_at, details=details
        )
    return changed(state, words=_latest([*state.words, word], state.position))


def _latest(words: Sequence[Word], in_force: int) -> list[Word]:
    """Return the latest words, in order, with the one in force whatever follows it."""
    ordered = sorted(words, key=lambda word: word.position)
    earlier, latest = ordered[:-WORDS_MAX], ordered[-WORDS_MAX:]
    return [*(word for word in earlier if word.position == in_force), *latest]


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
        "operator_position": max(
            (w.position for w in state.words if w.action not in AUTOMATIC), default=None
        ),
        "difference": _amount(details.get("difference")),
        "account": details.get("account"),
        "rule": details.get("rule") or (TOLERANCE if details.get("action") == TOLERANCE else None),
        "break_items": list(details.get("break_items") or details.get("items") or ()),
        "effective_at": state.effective_at,
        "words": [
            {"action": w.action, "by": w.by, "note": w.note, "position": w.position,
             "at": stamp(w.at), "request": w.request}
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


def _amount(text: Any) -> Decimal | None:
    return Decimal(text) if isinstance(text, str) else None


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
            "operator_position": "bigint",
            "difference": "numeric",
            "account": "text",
            "rule": "text",
            "break_items": "text[]",
            "effective_at": "timestamptz",
            "words": "jsonb",
        },
        key=("source", "kind", "id"),
        mode="replace",
        indexes=("source, currency", "source, operator_position"),
        filters=("rule",),
    ),
    state=Adjustment,
    fold=fold,
    view=view,
)
