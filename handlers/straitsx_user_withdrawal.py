"""StraitsX user withdrawals: the merchant's own wallet paid out to its bank account.

Shape: straitsx-callback-samples, user withdrawals; other pages wrap the same in `data`.
"""

from __future__ import annotations

from decimal import Decimal
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
    total,
)

STATUSES: Final = frozenset({"pending", "completed", "failed"})


def matches(payload: Payload) -> bool:
    """Tell user withdrawals by their type."""
    return payload.type == "withdrawal"


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per contract and status."""
    return identify(payload, "user_withdrawal", payload.status("status", STATUSES))


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a withdrawal: `amount` leaves the wallet, `fees` come on top.

    Raises InvalidCallback for a missing, negative or unreadable amount, fees or currency.
    """
    amount = payload.amount("amount")
    fees = payload.fees("fees")
    net = payload.money("net_amount")
    return envelope(payload).fact(
        customer_id=payload.text("customer_profile_id"),
        amount=amount,
        currency=payload.currency("currency"),
        fees=fees,
        flags=flags(
            zero_amount=not amount,
            net_amount_unexplained=not _explains(net, amount, fees or Decimal(0)),
        ),
    )


def _explains(net: Decimal | None, amount: Decimal, fees: Decimal) -> bool:
    """Check `netAmount` only: the documents disagree on whether it includes the fees."""
    return net is None or net in (amount, total(amount, fees), total(amount, fees.copy_negate()))


MONEY_KIND = MoneyKind(
    name="user_withdrawal",
    ranks=ONE_END,
    postings="outgoing",
    can_come_back=True,
)

HANDLER = Handler(
    provider="straitsx",
    kind="user_withdrawal",
    events=frozenset({"userWithdrawalStatusUpdated"}),
    matches=matches,
    types=frozenset({"withdrawal"}),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
