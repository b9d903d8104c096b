"""StraitsX swaps: one wallet's currency exchanged into another's.

Shape: straitsx-callback-samples, swaps. Money is numbers here and strings in the API.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from ledger.model import (
    ONE_END,
    Envelope,
    Fact,
    Handler,
    InvalidCallback,
    MoneyKind,
    Payload,
    SourceTerms,
    flags,
    identify,
    plain,
    shown,
    total,
)

STATUSES: Final = frozenset({"pending", "completed", "failed"})


def matches(payload: Payload) -> bool:
    """Tell swaps by their type."""
    return payload.type == "swapTransaction"


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per contract and status."""
    return identify(payload, "swap", payload.status("status", STATUSES))


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a swap: `sourceCurrencyAmount` plus the fees are deducted, the target is credited.

    Raises InvalidCallback for missing, negative or unreadable money, `fee_currency` when a fee is
    not in the source currency, `total_mismatch` when the stated total is not source plus fees.
    The rate reproduces no amount and is not read.
    """
    amount = payload.amount("source_currency_amount")
    currency = payload.currency("source_currency")
    fees = _fees(payload, currency)
    fees = payload.fees_within("total_source_currency_amount", amount, fees)
    return envelope(payload).fact(
        customer_id=payload.text("customer_profile_id"),
        amount=amount,
        currency=currency,
        fees=fees,
        terms={
            **_target_amount(payload),
            "target_currency": payload.currency("target_currency"),
        },
        details={"quote_id": payload.note("quote_id"), "fixed_side": payload.note("fixed_side")},
        flags=flags(zero_amount=not amount),
    )


def _target_amount(payload: Payload) -> dict[str, str]:
    """Return the amount bought; it may be open until the swap is completed."""
    amount = payload.money("target_currency_amount")
    if amount is None and payload.status("status", STATUSES) != "completed":
        return {}
    return {"target_amount": plain(payload.amount("target_currency_amount"))}


def _fees(payload: Payload, currency: str) -> Decimal | None:
    """Add up the fees: none listed is zero, no list is unknown."""
    listed = payload.get("fees")
    if listed is None:
        return None
    if not isinstance(listed, list):
        raise InvalidCallback("bad_fees", f"fees is {shown(listed)}, not a list")
    return total(*(_fee(item, currency) for item in listed))


def _fee(item: object, currency: str) -> Decimal:
    if not isinstance(item, dict):
        raise InvalidCallback("bad_fees", f"a fee is {shown(item)}, not an amount and a currency")
    fee = Payload.inner(item)
    amount = fee.fees("amount")
    if amount is None:
        raise InvalidCallback("missing_amount", "a fee has no amount")
    stated = fee.currency("currency")
    if stated != currency:
        raise InvalidCallback("fee_currency", f"a fee is in {stated}, the source in {currency}")
    return amount


MONEY_KIND = MoneyKind(
    name="swap",
    ranks=ONE_END,
    postings="swap",
)

HANDLER = Handler(
    provider="straitsx",
    kind="swap",
    events=frozenset({"swapUpdated"}),
    matches=matches,
    types=frozenset({"swapTransaction"}),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
