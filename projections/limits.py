"""Limits: what each customer may transact; the last value received of every field.

The callbacks carry no time and only some of the fields (annual or daily), so a field stays as it
was last received (straitsx-callback-samples, transaction limits). null is a value: no limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ledger.model import Seen, SourceTerms, StreamProjection, Table, Trouble, View

FIELDS_MAX: Final = 64
"""Fields kept of one customer's limits; the documents name nine."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The state: the last value of every field, as decimal text."""

    customer_id: str | None = None
    limits: dict[str, str | None] = field(default_factory=dict)
    dropped: int = 0


def fold(state: Limits | None, seen: Seen) -> Limits:
    """Take over the fields of a fact; the others stay."""
    state = state or Limits()
    fact = seen.fact
    told = fact.details.get("limits")
    merged = {**state.limits, **(told if isinstance(told, dict) else {})}
    kept = dict(sorted(merged.items())[:FIELDS_MAX])
    return replace(
        state,
        customer_id=fact.customer_id or state.customer_id,
        limits=kept,
        dropped=state.dropped + len(merged) - len(kept),
    )


def view(state: Limits, related: Sequence[Limits], terms: SourceTerms) -> View:
    """Return the row of a customer's limits; nothing is posted."""
    row = {"customer_id": state.customer_id, "limits": state.limits}
    if not state.dropped:
        return View(row)
    detail = f"more than {FIELDS_MAX} limits were told; the last in the alphabet are not kept"
    return View(row, (), (Trouble("too_many_limits", detail),))


PROJECTION = StreamProjection(
    name="limits",
    kinds=frozenset({"limits"}),
    table=Table(
        name="limits",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "customer_id": "text",
            "limits": "jsonb",
        },
        key=("source", "kind", "id"),
        mode="replace",
        indexes=("source, customer_id WHERE customer_id IS NOT NULL",),
    ),
    state=Limits,
    fold=fold,
    view=view,
)
