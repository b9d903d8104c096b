"""StraitsX blockchain deposits: tokens that arrived at the merchant's address.

Shape: straitsx-callback-samples, blockchain callbacks. The currency is in `token`.
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
    as_codes,
    flags,
    identify,
)

STATUSES: Final = frozenset({"pending", "completed", "failed"})

_NOTES: Final = ("transaction_hash", "blockchain", "network")


def matches(payload: Payload) -> bool:
    """Tell blockchain deposits by their type."""
    return payload.type == "stablecoin_deposit_contract"


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per contract and status."""
    return identify(payload, "chain_deposit", payload.status("status", STATUSES))


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a blockchain deposit; the fact's fees are the network's.

    `network_fees` of a deposit are not expected (the documents disagree) and are flagged.
    Raises InvalidCallback for missing, negative or unreadable money, and `total_mismatch` when
    `total_amount` is not amount plus network fees.
    """
    amount = payload.amount("amount")
    fees = payload.fees("network_fees")
    fees = payload.fees_within("total_amount", amount, fees)
    reasons, is_read = as_codes(payload.get("blocked_reasons"))
    return envelope(payload).fact(
        customer_id=payload.text("customer_profile_id"),
        amount=amount,
        currency=payload.currency("token"),
        fees=fees,
        details={**payload.notes(_NOTES), "blocked_reasons": reasons},
        flags=flags(
            zero_amount=not amount,
            network_fees_on_deposit=bool(fees),
            blocked_reasons_unread=not is_read,
        ),
    )


MONEY_KIND = MoneyKind(
    name="chain_deposit",
    ranks=ONE_END,
    postings="chain_deposit",
    is_announced=True,
)

HANDLER = Handler(
    provider="straitsx",
    kind="chain_deposit",
    events=frozenset({"stablecoinDepositStatusUpdated"}),
    matches=matches,
    types=frozenset({"stablecoin_deposit_contract"}),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
