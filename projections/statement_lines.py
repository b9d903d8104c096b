"""Statement lines as they are now: a line of a newer file replaces that of an older one."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from ledger.model import Record, RecordedFact, Related, SourceTerms, StreamProjection, Table, View
from projections.postings import exact


class Stated(Record, frozen=True):
    """The state: a line as the latest file that changed it states it."""

    status: str
    amount: Decimal
    currency: str
    effective_at: datetime
    idempotency_id: str | None
    details: dict[str, Any]
    at: int
    """The position of that statement."""
    versions: int
    """How often the line was stated differently."""


def fold(state: Stated | None, seen: RecordedFact) -> Stated:
    """Let the later position win."""
    fact = seen.fact
    versions = 1 if state is None else state.versions + 1
    if state is not None and state.at >= seen.position:
        return Stated(
            state.status, state.amount, state.currency, state.effective_at,
            state.idempotency_id, state.details, state.at, versions,
        )  # fmt: skip
    return Stated(
        fact.status,
        exact(fact.amount or Decimal(0)),
        fact.currency or "",
        seen.effective_at,
        fact.idempotency_id,
        dict(fact.details),
        seen.position,
        versions,
    )


def view(state: Stated, related: Related, terms: SourceTerms) -> View:
    """Return the row of a line; a statement posts nothing by itself."""
    details = state.details
    balance = details.get("balance")
    return View(
        {
            "status": state.status,
            "line": details.get("line"),
            "row_kind": details.get("row_kind") or "",
            "amount": state.amount,
            "currency": state.currency,
            "effective_at": _time(details.get("dated_at")) or state.effective_at,
            "booked_at": state.effective_at,
            "account": details.get("account"),
            "provider_id": details.get("provider_id") or _old_id(details.get("line")),
            "contract_id": details.get("contract_id"),
            "idempotency_id": state.idempotency_id,
            "reference": details.get("reference"),
            "balance": None if balance is None else Decimal(balance),
            "description": details.get("description") or "",
            "counterparty": details.get("counterparty"),
            "names": list(details.get("names") or ()),
            "file": details.get("sha256"),
            "number": details.get("number"),
            "versions": state.versions,
        }
    )


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def _old_id(line: Any) -> str | None:
    """Return the id that the file gave a line whose name it is."""
    return line if isinstance(line, str) and not line.startswith("h:") else None


PROJECTION = StreamProjection(
    name="statement_lines",
    kinds=frozenset({"statement_line"}),
    table=Table(
        name="statement_lines",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "status": "text",
            "line": "text",
            "row_kind": "text",
            "amount": "numeric",
            "currency": "text",
            "effective_at": "timestamptz",
            "booked_at": "timestamptz",
            "account": "text",
            "provider_id": "text",
            "contract_id": "text",
            "idempotency_id": "text",
            "reference": "text",
            "balance": "numeric",
            "description": "text",
            "counterparty": "text",
            "names": "text[]",
            "file": "text",
            "number": "bigint",
            "versions": "bigint",
        },
        key=("source", "kind", "id"),
        mode="replace",
        indexes=(
            "source, currency, booked_at",
            "source, currency, (position >> 16), booked_at",
            "source, currency, position WHERE versions > 1",
            "source, contract_id WHERE contract_id IS NOT NULL",
            "hashtextextended(line, 0), source",
        ),
    ),
    state=Stated,
    fold=fold,
    view=view,
)
