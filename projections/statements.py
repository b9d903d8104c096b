"""Statements: which files are in force, what each covers, which balances it states."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from ledger.model import Record, RecordedFact, Related, SourceTerms, StreamProjection, Table, View


class File(Record, frozen=True):
    """The state: the header of one file, as last reported."""

    status: str
    currency: str
    details: dict[str, Any]
    at: int


def fold(state: File | None, seen: RecordedFact) -> File:
    """Take the latest header; the file is the same."""
    if state is not None and state.at >= seen.position:
        return state
    return File(seen.fact.status, seen.fact.currency or "", dict(seen.fact.details), seen.position)


def view(state: File, related: Related, terms: SourceTerms) -> View:
    """Return the row of a file; nothing is posted."""
    details = state.details
    return View(
        {
            "status": state.status,
            "currency": state.currency,
            "account": details.get("account"),
            "format": details.get("format"),
            "sha256": details.get("sha256"),
            "opened_at": _time(details.get("opened_at")),
            "closed_at": _time(details.get("closed_at")),
            "claimed_from": _time(details.get("claimed_from")),
            "opening": _amount(details.get("opening")),
            "closing": _amount(details.get("closing")),
            "lines": details.get("lines"),
            "by": details.get("by"),
            "note": details.get("note"),
        }
    )


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def _amount(text: Any) -> Decimal | None:
    return Decimal(text) if isinstance(text, str) else None


PROJECTION = StreamProjection(
    name="statements",
    kinds=frozenset({"statement"}),
    table=Table(
        name="statements",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "status": "text",
            "currency": "text",
            "account": "text",
            "format": "text",
            "sha256": "text",
            "opened_at": "timestamptz",
            "closed_at": "timestamptz",
            "claimed_from": "timestamptz",
            "opening": "numeric",
            "closing": "numeric",
            "lines": "bigint",
            "by": "text",
            "note": "text",
        },
        key=("source", "kind", "id"),
        mode="replace",
        indexes=("source, currency, opened_at",),
    ),
    state=File,
    fold=fold,
    view=view,
)
