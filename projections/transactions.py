"""Transactions: one row per money stream, its dated legs, conflicts and returns.

What the facts of a stream mean together is in `factset`, what is posted for it in `postings`.
A payout that the bank sends back stays completed; the money returns as a new payment whose
remarks are `RTN <idempotency id of the payout>` (StraitsX docs, payout FAQ).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from ledger.model import Record, SourceTerms, StreamProjection, View, plain, total
from projections import unknown
from projections.factset import RANKS, Case, FactSet, classify, decide, fold
from projections.postings import (
    TRANSACTIONS,
    ZERO,
    Movement,
    blank_row,
    exact,
    own,
    park,
    post,
    wallet,
)


class Return(Record, frozen=True):
    """What is known of a stream's part in a return: whose the money is, and what to note."""

    owner: str
    flags: list[str] = []
    details: dict[str, Any] = {}


_NOTHING: Final = Return("")


def view(state: FactSet, related: Sequence[FactSet], terms: SourceTerms) -> View:
    """Return the row, the legs and the issues of a stream; `related` share a link with it."""
    case = classify(state)
    if case is None:
        issues = unknown.issues(state.unknown, RANKS[state.kind])
        return View(blank_row(state.unknown), (), issues)
    names = _returns_of(state) if state.kind == "payment" else ()
    returned = _NOTHING
    owner = own(case.material.customer_id)
    if names or related:
        returned = _return(state, case, names, related, terms)
        owner = returned.owner
    movement = _movement(state, case, owner, terms)
    legs = park(movement, case.stated.effective_at) if case.differing else post(movement)
    row = _row(state, case, returned, movement.currency)
    row["return_of"] = names[0] if names else None
    return View(row, legs, tuple(case.issues) if case.issues else ())


def links(state: FactSet) -> tuple[str, ...]:
    """Return the links of a payout and of the payments that bring it back."""
    if state.kind == "payout":
        return tuple([f"payout:{name}" for name in state.idempotency_ids])
    if state.kind == "payment":
        names = _returns_of(state)
        return tuple([f"payout:{name}" for name in names]) if names else ()
    return ()


def customers(state: FactSet) -> tuple[str, ...]:
    """Return the customers that the facts named."""
    return tuple([m.customer_id for m in state.materials if m.customer_id])


def _row(state: FactSet, case: Case, returned: Return, currency: str) -> dict[str, Any]:
    stated, material = case.stated, case.material
    ids = state.idempotency_ids
    details = state.details[stated.details]
    if returned.details or currency != material.currency or len(ids) > 1:
        details = {**details, **returned.details}
        if currency != material.currency:
            details["wallet"] = currency
        if len(ids) > 1:
            details["idempotency_ids"] = ids
    flags = case.flags
    return {
        "status": case.status,
        "amount": material.amount,
        "currency": material.currency,
        "fees": case.fees,
        "idempotency_id": ids[0] if ids else None,
        "customer_id": material.customer_id,
        "effective_at": stated.effective_at if case.differing else case.times[case.status],
        "flags": sorted({*flags, *returned.flags}) if returned.flags else flags,
        "conflict": _conflict(state, case) if case.differing else None,
        "details": details,
    }


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
                "fees": None if material.fees is None else plain(material.fees),
                "customer_id": material.customer_id,
            }
            for stated, material in stated_with_materials
        ],
    }


def _movement(state: FactSet, case: Case, owner: str, terms: SourceTerms) -> Movement:
    material = case.material
    currency = wallet(state.kind, material.currency, terms)
    fees = case.fees or ZERO
    bought = material.terms
    if not bought:
        return Movement(state.kind, case.status, case.times, material.amount, fees, currency, owner)
    target = bought.get("target_currency") or bought.get("to_currency") or ""
    amount = Decimal(bought.get("target_amount") or bought.get("to_amount") or 0)
    return Movement(
        state.kind, case.status, case.times, material.amount, fees, currency, owner,
        target_amount=amount, target_currency=wallet(state.kind, target, terms),
    )  # fmt: skip


def _returns_of(state: FactSet) -> list[str]:
    """Return the payouts that a payment names as brought back: one, unless it changed its mind."""
    named = [stated["return_of"] for stated in state.details if stated.get("return_of")]
    return sorted({name for name in named if isinstance(name, str)}) if named else []


def _return(
    state: FactSet, case: Case, names: Sequence[str], related: Sequence[FactSet], terms: SourceTerms
) -> Return:
    """Find the other side of a returned payout."""
    own_account = own(case.material.customer_id)
    others = {other.id: other for other in related if other.facts}
    payouts = [p for p in others.values() if p.kind == "payout" and p.id != state.id]
    if names:
        return _of_payout(case, _named(payouts, names), own_account, terms)
    if state.kind == "payout":
        twins = _named(payouts, state.idempotency_ids)
        own_ids = {*state.idempotency_ids}
        payments = [
            p for p in others.values() if p.kind == "payment" and {*_returns_of(p)} & own_ids
        ]
        return _brought_back(case, payments, own_account, terms, is_ambiguous=bool(twins))
    return Return(own_account)


def _named(payouts: Sequence[FactSet], names: Sequence[str]) -> list[FactSet]:
    return [payout for payout in payouts if {*payout.idempotency_ids} & {*names}]


def _of_payout(
    case: Case, payouts: Sequence[FactSet], own_account: str, terms: SourceTerms
) -> Return:
    """Credit a returning payment to the owner of the one payout it brings back."""
    if len(payouts) > 1:
        return Return(own_account, ["return", "return_ambiguous"])
    payout = classify(payouts[0]) if payouts else None
    if payout is None:
        return Return(own_account, ["return", "return_unmatched"])
    flags = ["return"]
    sent = wallet("payout", payout.material.currency, terms)
    if wallet("payment", case.material.currency, terms) != sent:
        flags.append("return_currency_differs")
    elif case.material.amount < payout.material.amount:
        flags.append("partial_return")
    elif case.material.amount > payout.material.amount:
        flags.append("return_exceeds_payout")
    return Return(own(payout.material.customer_id), flags)


def _brought_back(
    case: Case,
    payments: Sequence[FactSet],
    own_account: str,
    terms: SourceTerms,
    *,
    is_ambiguous: bool,
) -> Return:
    """Note on a payout which completed payments brought how much of it back."""
    cases = [(payment.id, classify(payment)) for payment in payments]
    done = {
        name: stated
        for name, stated in cases
        if stated is not None and stated.status == "completed"
    }
    if not done:
        return Return(own_account)
    if is_ambiguous:
        return Return(own_account, ["return_ambiguous"])
    sent = wallet("payout", case.material.currency, terms)
    amount = total(
        *(
            payment.material.amount
            for payment in done.values()
            if wallet("payment", payment.material.currency, terms) == sent
        )
    )
    flags = ["returned", *(["return_exceeds_payout"] if amount > case.material.amount else [])]
    details = {"returns": sorted(done), "returned_amount": plain(exact(amount))}
    return Return(own_account, flags, details)


PROJECTION = StreamProjection(
    name="transactions",
    kinds=frozenset(RANKS),
    table=TRANSACTIONS,
    state=FactSet,
    fold=fold,
    view=view,
    decide=decide,
    links=links,
    customers=customers,
)
