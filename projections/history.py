"""History: every fact of every stream, in the order of the log, whatever became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger.model import FoldResult, Projection, Table


def rows(outcome: FoldResult) -> Sequence[tuple[Any, ...]]:
    """Return one row for an event with a fact, none for decisions and what was not read."""
    fact = outcome.fact
    if fact is None or outcome.decided is not None or not outcome.page.is_last:
        return ()
    return (
        (
            outcome.source,
            outcome.kind,
            outcome.resource_id,
            outcome.position,
            outcome.event_id,
            outcome.status,
            fact.idempotency_id,
            fact.effective_at or outcome.received_at,
            outcome.received_at,
            outcome.recorded_at,
        ),
    )


PROJECTION = Projection(
    name="history",
    table=Table(
        name="history",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "position": "bigint",
            "event_id": "text",
            "status": "text",
            "idempotency_id": "text",
            "effective_at": "timestamptz",
            "received_at": "timestamptz",
            "recorded_at": "timestamptz",
        },
        key=("source", "kind", "id", "position"),
        hashed=True,
        is_listed=False,
    ),
    rows=rows,
)
