"""StraitsX blockchain withdrawals: tokens sent from a wallet to an address.

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
    flags,
    identify,
)

STATUSES: Final = frozenset({"pending", "completed", "failed"})

_NOTES: Final = ("transaction_hash", "blockchain", "network")


def matches(payload: Payload) -> bool:
    """Tell blockchain withdrawals by their type."""
    return payload.type == "stablecoin_withdraw_contract"


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per contract and status."""
    return identify(payload, "chain_withdrawal", payload.status("status", STATUSES))


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a blockchain withdrawal; the fact's fees are the network's.

    `network_fees` are deducted on top of `amount`, in the token itself.
    Raises InvalidCallback for missing, negative or unreadable money, and `total_mismatch` when
    `total_amount` is not amount plus network fees.
    """
    amount = payload.amount("amount")
    fees = payload.fees("network_fees")
    fees = payload.fees_within("total_amount", amount, fees)
    return envelope(payload).fact(
        customer_id=payload.text("customer_profile_id"),
        amount=amount,
        currency=payload.currency("token"),
        fees=fees,
        details=payload.notes(_NOTES),
        flags=flags(zero_amount=not amount),
    )


MONEY_KIND = MoneyKind(
    name="chain_withdrawal",
    ranks=ONE_END,
    postings="chain_withdrawal",
)

HANDLER = Handler(
    provider="straitsx",
    kind="chain_withdrawal",
    events=frozenset({"stablecoinWithdrawalStatusUpdated"}),
    matches=matches,
    types=frozenset({"stablecoin_withdraw_contract"}),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
