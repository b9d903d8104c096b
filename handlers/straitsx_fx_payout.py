"""StraitsX FX payouts: a wallet pays in its currency, the recipient gets another (IDR).

Shape: straitsx-callback-samples, FX payouts. The API reference spells the type `fxTransaction`
and the failure `cancelled`; both spellings mean the same here.
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
    as_text,
    flags,
    identify,
    inside,
    plain,
    shown,
)

STATUSES: Final = frozenset({"pending", "completed", "failed"})

_TYPES: Final = frozenset({"fxPayout", "fxTransaction"})
_SPELLINGS: Final = STATUSES | {"cancelled"}


def matches(payload: Payload) -> bool:
    """Tell FX payouts by either spelling of their type."""
    return payload.type in _TYPES


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per payout and status; `cancelled` is `failed`."""
    status = payload.status("status", _SPELLINGS)
    return identify(payload, "fx_payout", "failed" if status == "cancelled" else status)


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate an FX payout: `from` plus `fee` leave the wallet, `to` reaches the recipient.

    Raises InvalidCallback for missing, negative or unreadable money, and `fee_currency` when the
    fee is not in the source currency. The rate reproduces no amount and is not read.
    """
    source = _side(payload, "from")
    amount = source.amount("amount")
    currency = source.currency("currency")
    return envelope(payload).fact(
        customer_id=_customer(payload),
        amount=amount,
        currency=currency,
        fees=_fees(payload, currency),
        terms=_target(payload),
        details={"quote_id": payload.note("quote_id")},
        flags=flags(zero_amount=not amount),
    )


def _target(payload: Payload) -> dict[str, str]:
    """Return what the recipient gets; the amount may be open until the payout is completed."""
    target = _side(payload, "to")
    terms = {"to_currency": target.currency("currency")}
    if target.money("amount") is not None or envelope(payload).status == "completed":
        terms["to_amount"] = plain(target.amount("amount"))
    return terms


def _side(payload: Payload, name: str) -> Payload:
    side = payload.within(name)
    if side is None:
        raise InvalidCallback("missing_amount", f"the callback has no {name} with an amount")
    return side


def _fees(payload: Payload, currency: str) -> Decimal | None:
    if payload.get("fee") is None:
        return None
    fee = payload.within("fee")
    if fee is None:
        message = f"fee is {shown(payload.get('fee'))}, not an amount and a currency"
        raise InvalidCallback("bad_fee", message)
    amount = fee.fees("amount")
    if amount is None:
        return None
    stated = fee.currency("currency")
    if stated != currency:
        raise InvalidCallback("fee_currency", f"the fee is in {stated}, the source in {currency}")
    return amount


def _customer(payload: Payload) -> str | None:
    named = inside(payload.get("initiator"), "customer_profile_id")
    return as_text("customer_profile_id", named) or payload.text("customer_profile_id")


MONEY_KIND = MoneyKind(
    name="fx_payout",
    ranks=ONE_END,
    postings="fx_payout",
    can_come_back=True,
    has_owner_rule=True,
)

HANDLER = Handler(
    provider="straitsx",
    kind="fx_payout",
    events=frozenset(
        {"userFxPayoutStatusUpdated", "cpFxPayoutStatusUpdated", "payoutStatusUpdated"}
    ),
    matches=matches,
    types=frozenset(_TYPES),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
