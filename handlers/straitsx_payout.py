"""StraitsX payouts: bank transfers out, on behalf of the merchant's customers or its own.

Statuses: StraitsX docs, transaction status. Shape: straitsx-callback-samples, payouts; the same
fields URL-encoded: StraitsX docs, regular payout.
"""

from __future__ import annotations

from typing import Final

from ledger.model import (
    ONE_END,
    Envelope,
    Fact,
    Handler,
    MoneyKind,
    Payload,
    SourceTerms,
    flags,
    identify,
)

STATUSES: Final = frozenset({"pending", "completed", "failed"})

_OWN_TYPES: Final = frozenset({"Withdrawal on behalf", "swiftTransaction"})
_SHARED_TYPES: Final = frozenset({"paynowTransaction", "bankTransferTransaction"})
_NOTES: Final = (
    "failure_reason", "arrival", "express", "charge_option", "external_reference",
    "payout_invoice_id",
)  # fmt: skip


def matches(payload: Payload) -> bool:
    """Tell payouts by type; the types that payments share, by the account paid or the invoice."""
    if payload.type in _OWN_TYPES:
        return True
    if payload.type not in _SHARED_TYPES:
        return False
    return payload.get("account_no") is not None or payload.get("payout_invoice_id") is not None


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per contract and status."""
    return identify(payload, "payout", payload.status("status", STATUSES))


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a payout: `amount` leaves for the recipient, `fees` come on top.

    `currency` is the callback's; the posting rules decide which wallet it moves.
    Raises InvalidCallback for a missing, negative or unreadable amount, fees or currency.
    """
    amount = payload.amount("amount")
    return envelope(payload).fact(
        customer_id=payload.text("customer_profile_id"),
        amount=amount,
        currency=payload.currency("currency"),
        fees=payload.fees("fees"),
        details=payload.notes(_NOTES),
        flags=flags(zero_amount=not amount),
    )


MONEY_KIND = MoneyKind(
    name="payout",
    ranks=ONE_END,
    postings="outgoing",
    can_come_back=True,
    has_owner_rule=True,
)

HANDLER = Handler(
    provider="straitsx",
    kind="payout",
    events=frozenset({"payoutStatusUpdated"}),
    matches=matches,
    types=frozenset(_OWN_TYPES),
    shared_types=frozenset(_SHARED_TYPES),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
