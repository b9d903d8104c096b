"""StraitsX payments: bank transfers into virtual accounts and PayNow collections.

Statuses: StraitsX docs, transaction status. Shape: straitsx-callback-samples, payments.
"""

from __future__ import annotations

import re
from typing import Final

from ledger.model import (
    JSON,
    Envelope,
    Fact,
    Handler,
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
_RETURN: Final = re.compile(r"RTN\s+(\S+)")


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
    return envelope(payload).fact(
        customer_id=payload.text("customer_profile_id"),
        amount=amount,
        currency=payload.currency("currency"),
        fees=payload.fees("fees"),
        details=_details(payload),
        flags=flags(zero_amount=not amount),
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
        "blocked_reasons": as_codes(payload.get("blocked_reasons")),
        "return_of": _return_of(payload),
        **({} if named is None else {"returned_ids": named}),
    }


def _return_of(payload: Payload) -> str | None:
    """Return the idempotency id of the payout that the bank sent back, when this is one.

    Such a return is a new payment whose remarks are `RTN <idempotency id>` (StraitsX docs,
    payout FAQ).
    """
    sender = payload.get("sender_information")
    own = _returned(payload.note("transaction_remarks"))
    return own or _returned(as_note(inside(sender, "transaction_remarks")))


def _returned(remarks: str | None) -> str | None:
    match = _RETURN.match(remarks) if remarks and remarks.startswith("RTN") else None
    return match and match[1]


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
