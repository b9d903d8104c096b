"""StraitsX virtual bank accounts: whether one can be paid into.

Shape: straitsx-callback-samples, virtual bank accounts. Statuses: StraitsX docs, customer
profile statuses.
"""

from __future__ import annotations

from typing import Final

from ledger.model import Envelope, Fact, Handler, Payload, SourceTerms, identify

STATUSES: Final = frozenset({"pending", "enabled", "disabled"})


def matches(payload: Payload) -> bool:
    """Tell virtual accounts by their type."""
    return payload.type == "virtual_bank_account"


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per account and status."""
    return identify(payload, "virtual_account", payload.status("status", STATUSES))


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a virtual account: its status, and the number that payers use, when given."""
    instructions = payload.within("instructions")
    currency = payload.note("currency")
    return envelope(payload).fact(
        customer_id=payload.text("customer_profile_id"),
        details={
            "currency": currency and currency.upper(),
            "reference_id": payload.text("reference_id"),
            "account_no": instructions and instructions.note("account_no"),
            "bank": instructions and instructions.note("bank_name"),
        },
    )


HANDLER = Handler(
    provider="straitsx",
    kind="virtual_account",
    events=frozenset({"virtualAccountStatusUpdated"}),
    matches=matches,
    types=frozenset({"virtual_bank_account"}),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
