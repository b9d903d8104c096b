"""Limits: what each customer may transact; the last value received of every field.

The callbacks carry no time and only some of the fields (annual or daily), so a field stays as it
was last received (straitsx-callback-samples, transaction limits). null is a value: no limit. A
callback that names a limit and what is left of it tells how much was used by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from ledger.model import (
    Issue,
    RecordedFact,
    Related,
    SourceTerms,
    StreamProjection,
    Table,
    View,
    plain,
    stamp,
    total,
)

FIELDS_MAX: Final = 64
"""Fields kept of one customer's limits; the documents name nine."""

CUSTOMERS_MAX: Final = 8
"""Customers remembered of one stream, the first ones; it should name one."""

LIMITS: Final = tuple(f"{p}_{k}" for p in ("annual", "daily") for k in ("payment", "payout"))


@dataclass(frozen=True, slots=True)
class UsedLimits:
    """How much of a limit was used, by which event that was reported, and when."""

    amount: str
    position: int
    at: datetime


@dataclass(frozen=True, slots=True)
class LimitState:
    """The state: the last value of every field, as decimal text, and what is used of each limit."""

    provider_id: str | None = None
    """The provider's id, which the limits of several customers may have."""
    customer_id: str | None = None
    limits: dict[str, str | None] = field(default_factory=dict)
    dropped: int = 0
    used: dict[str, UsedLimits] = field(default_factory=dict)
    customers: list[str] = field(default_factory=list)


def fold(state: LimitState | None, seen: RecordedFact) -> LimitState:
    """Take over the fields of a fact; the others stay."""
    state = state or LimitState()
    fact = seen.fact
    limits = fact.details.get("limits")
    reported = limits if isinstance(limits, dict) else {}
    merged = {**state.limits, **reported}
    kept = dict(sorted(merged.items())[:FIELDS_MAX])
    return replace(
        state,
        provider_id=fact.details.get("provider_id"),
        customer_id=fact.customer_id or state.customer_id,
        limits=kept,
        dropped=state.dropped + len(merged) - len(kept),
        used={**state.used, **_used(reported, seen)},
        customers=_named(state.customers, fact.customer_id),
    )


def _used(reported: Mapping[str, Any], seen: RecordedFact) -> dict[str, UsedLimits]:
    """Return what a callback reports as used, limit by limit."""
    found: dict[str, UsedLimits] = {}
    for name in LIMITS:
        whole, left = reported.get(f"total_{name}_limit"), reported.get(f"available_{name}_limit")
        if whole is not None and left is not None:
            amount = total(Decimal(whole), Decimal(left).copy_negate())
            found[name] = UsedLimits(plain(amount), seen.position, seen.received_at)
    return found


def _named(customers: list[str], customer_id: str | None) -> list[str]:
    if customer_id is None or customer_id in customers or len(customers) >= CUSTOMERS_MAX:
        return customers
    return [*customers, customer_id]


def view(state: LimitState, related: Related, terms: SourceTerms) -> View:
    """Return the row of a customer's limits; nothing is posted."""
    used = {
        name: {"amount": used.amount, "position": used.position, "at": stamp(used.at)}
        for name, used in sorted(state.used.items())
    }
    row = {
        "provider_id": state.provider_id,
        "customer_id": state.customer_id,
        "limits": state.limits,
        "used": used,
    }
    customers = tuple(state.customers)
    if not state.dropped:
        return View(row, customers=customers)
    detail = f"more than {FIELDS_MAX} limits were told; the last in the alphabet are not kept"
    return View(row, (), (Issue("too_many_limits", detail),), customers=customers)


PROJECTION = StreamProjection(
    name="limits",
    kinds=frozenset({"limits"}),
    table=Table(
        name="limits",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "provider_id": "text",
            "customer_id": "text",
            "limits": "jsonb",
            "used": "jsonb",
        },
        key=("source", "kind", "id"),
        mode="replace",
        hidden=("used",),
        indexes=("hashtextextended(customer_id, 0), source",),
    ),
    state=LimitState,
    fold=fold,
    view=view,
)
