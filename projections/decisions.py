"""Decisions: what operators decided about a stream, whatever became of it.

A decision counts for its stream from its position on. It changes nothing where the stream is
unknown, or parked until it is folded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger.model import FoldResult, Projection, Table


def rows(outcome: FoldResult) -> Sequence[tuple[Any, ...]]:
    """Return one row for a decision that names a stream, none for other events."""
    if outcome.decided is None or outcome.fact is None:
        return ()
    stated = outcome.fact.details
    kind, name = stated.get("kind"), stated.get("resource")
    if not kind or not name:
        return ()
    return (
        (
            outcome.source,
            kind,
            name,
            outcome.position,
            outcome.fact.status,
            stated.get("reason"),
            stated.get("customer_id"),
            stated.get("note"),
            stated.get("by"),
            outcome.recorded_at,
        ),
    )


PROJECTION = Projection(
    name="decisions",
    table=Table(
        name="decisions",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "position": "bigint",
            "action": "text",
            "reason": "text",
            "customer_id": "text",
            "note": "text",
            "by": "text",
            "recorded_at": "timestamptz",
        },
        key=("source", "kind", "id", "position"),
        hashed=True,
        indexes=(
            "hashtextextended(customer_id, 0), source WHERE customer_id IS NOT NULL",
            "source, customer_id WHERE customer_id IS NOT NULL",
        ),
        is_listed=False,
    ),
    rows=rows,
)
