"""Requests for information: the last status by the provider's time, until one ends the request.

`sent` and `received` alternate; where they carry only the time of creation, the last received
holds. `expired` and `completed` end a request; a completion beats an expiry, whichever came first.
Customer, deadline, questions and each of the counts are as the same order has them; a report that
does not state one erases nothing.
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
from projections.latest import Field, later, later_of_each

RANKS: Final[Mapping[str, int]] = {"sent": 0, "received": 0, "expired": 1, "completed": 2}


@dataclass(frozen=True, slots=True)
class Request:
    """The state: the status that holds now, and what is known of the request."""

    status: Field | None = None
    updated_at: datetime | None = None
    customer: Field | None = None
    details: dict[str, Field] = field(default_factory=dict)
    counts: dict[str, Field] = field(default_factory=dict)
    unknown: dict[str, datetime] = field(default_factory=dict)


def fold(state: Request | None, seen: RecordedFact) -> Request:
    """Take over what a fact states, unless one of a higher rank or a later one states it."""
    state = state or Request()
    fact = seen.fact
    if fact.status not in RANKS:
        return replace(state, unknown=unknown.remember(state.unknown, seen))

    def stated(value: Any) -> Field:
        return Field(value, RANKS[fact.status], fact.effective_at, seen.position)

    new = stated(fact.status)
    status = later(state.status, new)
    given = dict(fact.details)
    counts = {name: stated(count) for name, count in (given.pop("counts", None) or {}).items()}
    details = {name: stated(value) for name, value in given.items()}
    return Request(
        status=status,
        updated_at=seen.effective_at if status is new else state.updated_at,
        customer=later(state.customer, stated(fact.customer_id)),
        details=later_of_each(state.details, details),
        counts=later_of_each(state.counts, counts),
        unknown=state.unknown,
    )


def view(state: Request, related: Related, terms: SourceTerms) -> View:
    """Return the row of a request; nothing is posted."""
    details = {name: known.value for name, known in state.details.items()}
    details["counts"] = {name: known.value for name, known in sorted(state.counts.items())}
    row = {
        "customer_id": state.customer.value if state.customer else None,
        "status": state.status.value if state.status else next(iter(state.unknown)),
        "updated_at": state.updated_at,
        "expires_at": as_instant("expires_at", details.pop("expires_at", None)),
        "details": dict(sorted(details.items())),
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
