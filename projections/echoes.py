"""Echoes: where a transaction has journal lines at an event that its history does not show.

An operator's decision, and an event of a related transaction (a payout that came back), change
the legs of others too. All other lines of a transaction stand at the positions of its history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger.model import FoldResult, Projection, Table


def rows(outcome: FoldResult) -> Sequence[tuple[Any, ...]]:
    """Return one row for every transaction with lines at an event that is not its own."""
    kind, name = outcome.kind, outcome.resource_id
    others = [e for e in outcome.entries if e.transaction != name or e.kind != kind]
    if not others:
        return ()
    named = sorted({(entry.kind, entry.transaction) for entry in others})
    return [(outcome.source, *other, outcome.position) for other in named]


PROJECTION = Projection(
    name="echoes",
    table=Table(
        name="echoes",
        columns={"source": "text", "kind": "text", "id": "text", "position": "bigint"},
        key=("source", "kind", "id", "position"),
        hashed=True,
        is_listed=False,
    ),
    rows=rows,
)
