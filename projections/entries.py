"""Entries: the journal. What each event changed in the dated legs, debits positive.

The lines of a transaction stand at the positions of its own history, and at those that `echoes`
names. The lines of an account are found slice by slice, of 65,536 positions each, so that what is
written now is written close together, however many accounts there are.

`debits` is by how much the debits in force grew; credits are `debits - amount`. So an earlier
balance has the same debits and credits as it had when it was the latest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger.model import FoldResult, Projection, Table


def rows(outcome: FoldResult) -> Sequence[tuple[Any, ...]]:
    """Return the journal lines of an event, numbered from 1; they balance per currency."""
    if not outcome.entries:
        return ()
    source, position, recorded_at = outcome.source, outcome.position, outcome.recorded_at
    return [
        (
            source, position, entry.line, entry.kind, entry.transaction, entry.leg.account,
            entry.leg.currency, entry.leg.amount, entry.leg.effective_at, recorded_at,
            entry.debits,
        )
        for entry in outcome.entries
    ]  # fmt: skip


PROJECTION = Projection(
    name="entries",
    table=Table(
        name="entries",
        columns={
            "source": "text",
            "position": "bigint",
            "line": "int",
            "kind": "text",
            "transaction": "text",
            "account": "text",
            "currency": "text",
            "amount": "numeric",
            "effective_at": "timestamptz",
            "recorded_at": "timestamptz",
            "debits": "numeric",
        },
        key=("source", "position", "line"),
        hidden=("debits",),
        indexes=("((position >> 16 << 32) + hashtext(account)), effective_at",),
    ),
    rows=rows,
)
