"""Returns: what came back of each outgoing transaction, and by which other one.

A line is a change, as in the journal; summed up they are what holds. `amount` and `count` are
negative where a return was refunded or turned out to bring back something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger.model import FoldResult, Projection, Table


def rows(result: FoldResult) -> Sequence[tuple[Any, ...]]:
    """Return one row for every change of what a return counts towards a transaction."""
    source, position = result.source, result.position
    return [
        (
            source, share.kind, share.id, position, line, kind, resource,
            share.effective_at, share.currency, share.amount, share.count,
        )
        for line, (kind, resource, share) in enumerate(result.shares, 1 + result.page.shares_before)
    ]  # fmt: skip


PROJECTION = Projection(
    name="returns",
    table=Table(
        name="returns",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "position": "bigint",
            "line": "int",
            "return_kind": "text",
            "return_id": "text",
            "effective_at": "timestamptz",
            "currency": "text",
            "amount": "numeric",
            "count": "int",
        },
        key=("source", "position", "line"),
        indexes=(
            "hashtextextended(id, 0), kind, effective_at, position, line",
            "source, effective_at",
        ),
    ),
    rows=rows,
)
