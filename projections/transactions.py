"""Transactions: one row per money stream, its dated legs, its conflicts and returns.

What the facts of a stream mean together is in `factset`, whose money it is and what it brings back
in `ownership`, what is posted for it in `postings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from ledger.model import (
    MoneyKind,
    MoneyProjection,
    Related,
    SourceTerms,
    StreamProjection,
    View,
    plain,
)
from projections import ownership, unknown
from projections.cases import Case, classify
from projections.factset import FactSet, decide, fold
from projections.ownership import (
    NO_RETURN,
    NOTHING_RECEIVED,
    Owner,
    came_back,
    owner_of,
    resolve,
    returned_ids,
    shares,
)
from projections.postings import (
    STATUSES,
    TRANSACTIONS,
    ZERO,
    Movement,
    blank_row,
    own,
    park,
    post,
    wallet,
)


def view(kind: MoneyKind, state: FactSet, related: Related, terms: SourceTerms) -> View:
    """Return the row, the legs, the issues of a stream, and what it brings back of another."""
    case = classify(kind, state)
    if case is None:
        issues = unknown.issues(state.unknown, kind.ranks)
        return View(_blank_row(state), (), issues)
    currency = wallet(kind.name, case.currency, terms)
    owner = owner_of(kind, state, case.customer_id, terms)
    ids = returned_ids(kind, state, case) if kind.brings_back else None
    returned = NO_RETURN if ids is None else resolve(ids, case, owner, currency, related)
    received = came_back(case, currency, related) if related.received else NOTHING_RECEIVED
    row = _row(state, case, owner, currency)
    row["return_of"] = returned.name
    if owner.customer_id is None and returned.customer_id is not None:
        row["details"] = {**row["details"], "credited_to": returned.customer_id}
    if returned.flags or received.flags:
        row["flags"] = sorted({*row["flags"], *returned.flags, *received.flags})
        row["details"] = {**row["details"], **received.details}
    issues = (*case.issues, *returned.issues, *received.issues)
    movement = _movement(kind, case, own(owner.customer_id or returned.customer_id), terms)
    at = case.stated.effective_at
    legs = park(kind, movement, at) if case.differing else post(kind, movement)
    brought = shares(case, currency, returned)
    return View(row, legs, issues, brought, _customers(state, owner))


def _customers(state: FactSet, owner: Owner) -> tuple[str, ...]:
    """Return the customers that facts, decisions and the source's rule named."""
    named = tuple([m.customer_id for m in state.materials if m.customer_id])
    return (*named, *state.attributed_to, *owner.by_rule)


def _row(state: FactSet, case: Case, owner: Owner, currency: str) -> dict[str, Any]:
    ids = state.idempotency_ids
    details = case.details
    if currency != case.currency or len(ids) > 1 or "returned_ids" in details:
        details = {name: each for name, each in details.items() if name != "returned_ids"}
        if currency != case.currency:
            details["wallet"] = currency
        if len(ids) > 1:
            details["idempotency_ids"] = ids
    return {
        "status": case.status,
        "amount": case.amount,
        "currency": case.currency,
        "fees": case.fees,
        "idempotency_id": ids[0] if ids else None,
        "customer_id": owner.customer_id,
        "effective_at": case.stated.effective_at if case.differing else case.times[case.status],
        "flags": sorted({*case.flags, *owner.flags}) if owner.flags else case.flags,
        "conflict": _conflict(state, case) if case.differing else None,
        "details": details,
    }


def _blank_row(state: FactSet) -> dict[str, Any]:
    """Return the row of a stream of which only unknown statuses were reported."""
    row = blank_row(state.unknown)
    if not state.is_attributed:
        return row
    return row | {"customer_id": state.attributed_to[-1], "flags": ["attributed_by_decision"]}


def _conflict(state: FactSet, case: Case) -> dict[str, Any]:
    disagree = "status" in case.differing
    stated_with_materials = [(stated, state.materials[stated.material]) for stated in case.facts]
    return {
        "reason": "terminals_disagree" if disagree else "material_differs",
        "fields": list(case.differing),
        "facts": [
            {
                "position": stated.positions[0],
                "event_id": stated.event_id,
                "status": stated.status,
                "amount": plain(material.amount),
                "currency": material.currency,
                "fees": None if stated.fees is None else plain(stated.fees),
                "customer_id": material.customer_id,
                **material.terms,
            }
            for stated, material in stated_with_materials
        ],
    }


def _movement(kind: MoneyKind, case: Case, owner: str, terms: SourceTerms) -> Movement:
    currency = wallet(kind.name, case.currency, terms)
    fees = case.fees or ZERO
    bought: Mapping[str, str] = case.terms
    if not bought:
        return Movement(case.status, case.times, case.amount, fees, currency, owner)
    target = bought.get("target_currency") or bought.get("to_currency") or ""
    amount = Decimal(bought.get("target_amount") or bought.get("to_amount") or 0)
    return Movement(
        case.status, case.times, case.amount, fees, currency, owner,
        target_amount=amount, target_currency=wallet(kind.name, target, terms),
    )  # fmt: skip


def make(kind: MoneyKind) -> StreamProjection:
    """Return the projection of a declared kind of money."""
    return StreamProjection(
        name="transactions",
        kinds=frozenset({kind.name}),
        table=TRANSACTIONS,
        state=FactSet,
        fold=partial(fold, kind),
        view=partial(view, kind),
        decide=decide,
        names=ownership.names if kind.can_come_back else None,
        mentions=ownership.mentions if kind.brings_back else None,
        outline=partial(ownership.outline, kind) if kind.can_come_back else None,
    )


PROJECTION = MoneyProjection(name="transactions", table=TRANSACTIONS, rules=STATUSES, make=make)
