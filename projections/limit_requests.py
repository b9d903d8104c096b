"""Limit requests: pending, then approved or rejected; both is a conflict for an operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from ledger.model import (
    Decision,
    Issue,
    RecordedFact,
    Related,
    SourceTerms,
    StreamProjection,
    Table,
    View,
)
from projections import unknown

STATUSES: Final = ("pending", "approved", "rejected")
ENDS: Final = frozenset({"approved", "rejected"})

POSITIONS_MAX: Final = 16
"""Log positions remembered of one status: the first fifteen and the last."""


@dataclass(frozen=True, slots=True)
class RequestState:
    """One status of a request, however often it was reported."""

    updated_at: datetime
    """The latest of its times."""
    positions: list[int]
    event_id: str
    """The event at its first position."""
    customer_id: str | None


@dataclass(frozen=True, slots=True)
class LimitRequest:
    """The state: every status that was reported, and the operator's decision between two ends."""

    statuses: dict[str, RequestState] = field(default_factory=dict)
    unknown: dict[str, datetime] = field(default_factory=dict)
    keep: int | None = None
    decided_at: int = 0
    provider_id: str | None = None
    """The provider's id, which the requests of several customers may have."""


def fold(state: LimitRequest | None, seen: RecordedFact) -> LimitRequest:
    """Merge a fact into what was reported in its status."""
    fact = seen.fact
    state = state or LimitRequest(provider_id=fact.details.get("provider_id"))
    if fact.status not in STATUSES:
        return replace(state, unknown=unknown.remember(state.unknown, seen))
    new = RequestState(seen.effective_at, [seen.position], seen.event_id, fact.customer_id)
    before = state.statuses.get(fact.status)
    reported = new if before is None else _merged(before, new)
    return replace(state, statuses={**state.statuses, fact.status: reported})


def decide(state: LimitRequest, decision: Decision) -> LimitRequest:
    """Keep the end reported at `keep`; without `keep` nothing changes."""
    if decision.keep is None or decision.position < state.decided_at:
        return state
    return replace(state, keep=decision.keep, decided_at=decision.position)


def view(state: LimitRequest, related: Related, terms: SourceTerms) -> View:
    """Return the row of a request; nothing is posted."""
    ends = sorted(ENDS & state.statuses.keys(), key=lambda end: state.statuses[end].positions[0])
    kept = next((end for end in ends if state.keep in state.statuses[end].positions), None)
    issues = unknown.issues(state.unknown, STATUSES)
    if len(ends) > 1 and kept is None:
        detail = "both approved and rejected were told; decide which one to keep"
        return View(_row(state, "conflict", ends), (), (*issues, Issue("conflict", detail)))
    status = kept or (ends[0] if ends else None) or next(iter((*state.statuses, *state.unknown)))
    late = [e for e in ends if e != status and state.statuses[e].positions[-1] > state.decided_at]
    if late:
        detail = f"{late[0]} was told again after it was decided to keep {status}"
        issues = (*issues, Issue("conflict_after_decision", detail))
    return View(_row(state, status, ()), (), issues)


def _row(state: LimitRequest, status: str, ends: Sequence[str]) -> dict[str, Any]:
    reported = state.statuses.get(ends[0] if ends else status)
    return {
        "provider_id": state.provider_id,
        "customer_id": reported.customer_id if reported else None,
        "status": status,
        "updated_at": reported.updated_at if reported else state.unknown[status],
        "conflict": _conflict(state, ends) if ends else None,
    }


def _conflict(state: LimitRequest, ends: Sequence[str]) -> dict[str, Any]:
    return {
        "reason": "terminals_disagree",
        "fields": ["status"],
        "facts": [
            {
                "position": state.statuses[end].positions[0],
                "event_id": state.statuses[end].event_id,
                "status": end,
                "customer_id": state.statuses[end].customer_id,
            }
            for end in ends
        ],
    }


def _merged(one: RequestState, other: RequestState) -> RequestState:
    newer = max(one, other, key=lambda state: (state.updated_at, state.positions[-1]))
    earlier = min(one, other, key=lambda state: state.positions[0])
    positions = sorted({*one.positions, *other.positions})
    if len(positions) > POSITIONS_MAX:
        positions = [*positions[: POSITIONS_MAX - 1], positions[-1]]
    return replace(newer, positions=positions, event_id=earlier.event_id)


PROJECTION = StreamProjection(
    name="limit_requests",
    kinds=frozenset({"limits_request"}),
    table=Table(
        name="limit_requests",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "provider_id": "text",
            "customer_id": "text",
            "status": "text",
            "updated_at": "timestamptz",
            "conflict": "jsonb",
        },
        key=("source", "kind", "id"),
        mode="replace",
        indexes=("source, customer_id WHERE customer_id IS NOT NULL",),
        filters=("status",),
    ),
    state=LimitRequest,
    fold=fold,
    view=view,
    decide=decide,
)
