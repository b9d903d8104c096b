"""Named customers: which customers the facts of each account and request for information named.

Such a stream shows the last customer only. An earlier state is found by those that it showed
before; limits and limit requests need no rows here, because their customer never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ledger.model import FoldResult, Projection, Table

KINDS: Final = frozenset({"bank_account", "virtual_account", "rfi"})


def rows(outcome: FoldResult) -> Sequence[tuple[Any, ...]]:
    """Return one row for a fact of these kinds that names a customer."""
    fact = outcome.fact
    if fact is None or fact.kind not in KINDS or fact.customer_id is None:
        return ()
    if not outcome.page.is_last:
        return ()
    return [(outcome.source, outcome.kind, outcome.resource_id, fact.customer_id, outcome.position)]


PROJECTION = Projection(
    name="named_customers",
    table=Table(
        name="named_customers",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "customer_id": "text",
            "position": "bigint",
        },
        key=("source", "kind", "id", "position"),
        indexes=("hashtextextended(customer_id, 0), kind",),
        hashed=True,
        is_listed=False,
    ),
    rows=rows,
)
