"""Customers: the verification status of each customer profile, and why it was rejected."""

from __future__ import annotations

from ledger.model import Related, SourceTerms, StreamProjection, Table, View
from projections import unknown
from projections.verification import RANKS, Verification, fold, status_of


def view(state: Verification, related: Related, terms: SourceTerms) -> View:
    """Return the row of a customer; nothing is posted.

    What was refused of a customer that is not rejected as a whole stays among the details.
    """
    details = dict(state.details)
    row = {
        "verification_status": status_of(state),
        "updated_at": state.updated_at,
        "rejection": details.pop("rejection", None) if state.status == "rejected" else None,
        "details": details,
    }
    return View(row, (), unknown.issues(state.unknown, RANKS))


PROJECTION = StreamProjection(
    name="customers",
    kinds=frozenset({"customer"}),
    table=Table(
        name="customers",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "verification_status": "text",
            "updated_at": "timestamptz",
            "rejection": "jsonb",
            "details": "jsonb",
        },
        key=("source", "kind", "id"),
        mode="replace",
        indexes=("hashtextextended(id, 0)",),
        filters=("verification_status",),
    ),
    state=Verification,
    fold=fold,
    view=view,
)
