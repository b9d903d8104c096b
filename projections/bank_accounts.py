"""Bank accounts: the verification status of each, and whether it is disabled."""

from __future__ import annotations

from ledger.model import Related, SourceTerms, StreamProjection, Table, View
from projections import unknown
from projections.verification import RANKS, Verification, fold, status_of


def view(state: Verification, related: Related, terms: SourceTerms) -> View:
    """Return the row of a bank account; nothing is posted."""
    row = {
        "customer_id": state.customer_id,
        "verification_status": status_of(state),
        "disabled": state.details.get("disabled"),
        "updated_at": state.updated_at,
        "details": {name: v for name, v in state.details.items() if name != "disabled"},
    }
    return View(row, (), unknown.issues(state.unknown, RANKS))


PROJECTION = StreamProjection(
    name="bank_accounts",
    kinds=frozenset({"bank_account"}),
    table=Table(
        name="bank_accounts",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "customer_id": "text",
            "verification_status": "text",
            "disabled": "boolean",
            "updated_at": "timestamptz",
            "details": "jsonb",
        },
        key=("source", "kind", "id"),
        mode="replace",
        indexes=("source, customer_id WHERE customer_id IS NOT NULL",),
        filters=("verification_status",),
    ),
    state=Verification,
    fold=fold,
    view=view,
)
