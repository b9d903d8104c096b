"""StraitsX payments: bank transfers into virtual accounts and PayNow collections.

Statuses: StraitsX docs, transaction status. Shape: straitsx-callback-samples, payments.
"""

from __future__ import annotations

from typing import Final

from ledger.model import (
    INCOMING,
    JSON,
    Envelope,
    Fact,
    Handler,
    MoneyKind,
    Payload,
    SourceTerms,
    as_codes,
    as_note,
    flags,
    identify,
    inside,
    returned_ids,
)

STATUSES: Final = frozenset({"pending", "completed", "refunded", "failed", "expired"})

_SHARED_TYPES: Final = frozenset({"paynowTransaction", "bankTransferTransaction"})
_NOTES: Final = ("merchant_ref", "end_to_end_ref")


def matches(payload: Payload) -> bool:
    """Tell payments by type; the types that payouts share, by their sender."""
    if payload.type == "Direct bank transfer":
        return True
    if payload.type not in _SHARED_TYPES:
        return False
    return "sender_information" in payload.fields or "senderInformation" in payload.fields


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per contract and status."""
    return identify(payload, "payment", payload.status("status", STATUSES))


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a payment: `amount` is gross of `fees`, in the wallet of `currency`.

    Raises InvalidCallback for a missing, negative or unreadable amount, fees or currency.
    """
    amount = payload.amount("amount")
    reasons, is_read = as_codes(payload.get("blocked_reasons"))
    return envelope(payload).fact(
        customer_id=payload.text("customer_profile_id"),
        amount=amount,
        currency=payload.currency("currency"),
        fees=payload.fees("fees"),
        details={**_details(payload), "blocked_reasons": reasons},
        flags=flags(zero_amount=not amount, blocked_reasons_unread=not is_read),
    )


def _details(payload: Payload) -> dict[str, JSON]:
    method = payload.get("payment_method")
    account = payload.note("bank_account_no") or as_note(inside(method, "account_no"))
    sender = payload.get("sender_information")
    named = returned_ids(payload.get("transaction_remarks"), inside(sender, "transaction_remarks"))
    return {
        "virtual_account_id": as_note(inside(method, "id")),
        "account_no": account,
        **payload.notes(_NOTES),
        **({} if named is None else {"returned_ids": named}),
    }


MONEY_KIND = MoneyKind(
    name="payment",
    ranks=INCOMING,
    postings="incoming",
    is_announced=True,
    brings_back=True,
)

HANDLER = Handler(
    provider="straitsx",
    kind="payment",
    events=frozenset({"paymentStatusUpdated"}),
    matches=matches,
    types=frozenset({"Direct bank transfer"}),
    shared_types=frozenset(_SHARED_TYPES),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
