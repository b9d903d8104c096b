"""Balances: debits and credits of every account and currency, summed over the journal."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from ledger.model import Outcome, Projection, Table, total


def rows(outcome: Outcome) -> Sequence[tuple[Any, ...]]:
    """Return by how much an event changed the debits and credits of each account it touched."""
    if not outcome.entries:
        return ()
    sums: dict[tuple[str, str], tuple[Decimal, Decimal]] = {}
    for entry in outcome.entries:
        leg = entry.leg
        key = (leg.account, leg.currency)
        known = sums.get(key)
        if known is None:
            sums[key] = (entry.debits, entry.credits)
        else:
            sums[key] = (total(known[0], entry.debits), total(known[1], entry.credits))
    source = outcome.source
    return [
        (source, account, currency, debits, credited)
        for (account, currency), (debits, credited) in sums.items()
        if debits or credited
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
