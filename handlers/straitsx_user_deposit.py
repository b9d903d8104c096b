"""StraitsX user deposits: the merchant's own bank transfers into its wallet.

Statuses: StraitsX docs, transaction status. Shape: straitsx-callback-samples, user deposits.
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
    flags,
    identify,
    inside,
    returned_ids,
)

STATUSES: Final = frozenset({"pending", "completed", "refunded", "failed"})


def matches(payload: Payload) -> bool:
    """Tell user deposits by their type."""
    return payload.type == "bankTransfer"


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per contract and status."""
    return identify(payload, "user_deposit", payload.status("status", STATUSES))


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a deposit: `amount` is gross of `fees`, in the wallet of `currency`.

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
    sender = payload.get("sender_information")
    named = returned_ids(payload.get("transaction_remarks"), inside(sender, "transaction_remarks"))
    return {} if named is None else {"returned_ids": named}


MONEY_KIND = MoneyKind(
    name="user_deposit",
    ranks=INCOMING,
    postings="incoming",
    is_announced=True,
    brings_back=True,
)

HANDLER = Handler(
    provider="straitsx",
    kind="user_deposit",
    events=frozenset({"userDepositStatusUpdated"}),
    matches=matches,
    types=frozenset({"bankTransfer"}),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
