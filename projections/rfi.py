"""Requests for information: the last status received, until one ends the request.

`sent` and `received` alternate and carry only the time of creation, so the last received holds.
`expired` and `completed` end a request; a completion beats an expiry, whichever came first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from ledger.model import (
    RecordedFact,
    Related,
    SourceTerms,
    StreamProjection,
    Table,
    View,
    as_instant,
)
from projections import unknown

RANKS: Final[Mapping[str, int]] = {"sent": 0, "received": 0, "expired": 1, "completed": 2}


@dataclass(frozen=True, slots=True)
class Request:
    """The state: the fact that holds now."""

    status: str | None = None
    position: int = 0
    updated_at: datetime | None = None
    customer_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, datetime] = field(default_factory=dict)


def fold(state: Request | None, seen: RecordedFact) -> Request:
    """Let a fact hold unless one of a higher rank, or received later, already does."""
    state = state or Request()
    fact = seen.fact
    if fact.status not in RANKS:
        return replace(state, unknown=unknown.remember(state.unknown, seen))
    if state.status is not None:
        held = (RANKS[state.status], state.position)
        if held >= (RANKS[fact.status], seen.position):
            return replace(state, details=_with_deadline(state.details, fact.details))
    return Request(
        status=fact.status,
        position=seen.position,
        updated_at=seen.effective_at,
        customer_id=fact.customer_id or state.customer_id,
        details=_with_deadline(fact.details, state.details),
        unknown=state.unknown,
    )


def _with_deadline(details: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the details that hold, with the deadline of others where they state none."""
    deadline = details.get("expires_at") or other.get("expires_at")
    return {**details, "expires_at": deadline} if deadline else dict(details)


def view(state: Request, related: Related, terms: SourceTerms) -> View:
    """Return the row of a request; nothing is posted."""
    row = {
        "customer_id": state.customer_id,
        "status": state.status or next(iter(state.unknown)),
        "updated_at": state.updated_at,
        "expires_at": as_instant("expires_at", state.details.get("expires_at")),
        "details": {name: v for name, v in state.details.items() if name != "expires_at"},
    }
    return View(row, (), unknown.issues(state.unknown, RANKS))


PROJECTION = StreamProjection(
    name="rfi",
    kinds=frozenset({"rfi"}),
    table=Table(
        name="rfi",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "customer_id": "text",
            "status": "text",
            "updated_at": "timestamptz",
            "expires_at": "timestamptz",
            "details": "jsonb",
        },
        key=("source", "kind", "id"),
        mode="replace",
        indexes=("source, customer_id WHERE customer_id IS NOT NULL",),
        filters=("status",),
    ),
    state=Request,
    fold=fold,
    view=view,
)
