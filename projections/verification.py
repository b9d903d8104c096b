"""The last word on a verification status: by the provider's time, then rank, then position.

Not a projection: `customers` and `bank_accounts` are made of this. Verification is not monotonic:
a verified customer may be rejected and verified again (StraitsX docs, customer profile statuses).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from ledger.model import RecordedFact
from projections import unknown

RANKS: Final[Mapping[str, int]] = {"pending": 0, "verified": 1, "rejected": 1}
"""Ranks statuses of one provider's time: a decision beats waiting for it."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The state: the fact that holds now, and no other."""

    status: str | None = None
    updated_at: datetime | None = None
    position: int = 0
    customer_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, datetime] = field(default_factory=dict)


def fold(state: Verification | None, seen: RecordedFact) -> Verification:
    """Let a fact hold when it is the last word."""
    state = state or Verification()
    fact = seen.fact
    if fact.status not in RANKS:
        return replace(state, unknown=unknown.remember(state.unknown, seen))
    if _order(state) >= (seen.effective_at, RANKS[fact.status], seen.position):
        return state
    return Verification(
        status=fact.status,
        updated_at=seen.effective_at,
        position=seen.position,
        customer_id=fact.customer_id,
        details=dict(fact.details),
        unknown=state.unknown,
    )


def status_of(state: Verification) -> str:
    """Return the status that holds; an unknown one only when nothing else was reported."""
    return state.status or next(iter(state.unknown))


def _order(state: Verification) -> tuple[datetime, int, int] | tuple[()]:
    if state.status is None or state.updated_at is None:
        return ()
    return (state.updated_at, RANKS[state.status], state.position)


PROJECTIONS = ()
