"""Balances: debits and credits of every account and currency, summed over the journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger.model import FoldResult, Projection, Table


def rows(outcome: FoldResult) -> Sequence[tuple[Any, ...]]:
    """Return by how much each journal line changed the debits and credits of its account."""
    source = outcome.source
    return [
        (source, entry.leg.account, entry.leg.currency, entry.debits, entry.credits)
        for entry in outcome.entries
    ]


PROJECTION = Projection(
    name="balances",
    table=Table(
        name="balances",
        columns={
            "source": "text",
            "account": "text",
            "currency": "text",
            "debits": "numeric",
            "credits": "numeric",
        },
        key=("source", "account", "currency"),
        mode="sum",
    ),
    rows=rows,
)
