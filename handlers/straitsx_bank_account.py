"""StraitsX bank accounts: the verification status of customers' and of the user's own accounts.

Shape: straitsx-callback-samples, bank accounts. They carry no type and no customer, and the two
families number their accounts separately: only the event name in the URL distinguishes them.
"""

from __future__ import annotations

from typing import Final

from ledger.model import Envelope, Fact, Handler, Payload, SourceTerms, changed, identify

STATUSES: Final = frozenset({"pending", "verified", "rejected"})

_VISIBLE_DIGITS: Final = 4


def matches(payload: Payload) -> bool:
    """Tell bank accounts by their shape: no type, an account number, a verification status."""
    return (
        payload.type is None
        and payload.get("account_no") is not None
        and payload.get("verification_status") is not None
    )


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per status and updated time.

    The user's own accounts (event names `uba…`) get the resource id `user:<id>`.
    """
    status = payload.status("verification_status", STATUSES)
    read = identify(payload, "bank_account", status, dated=True)
    if (payload.path_event or "").startswith("uba"):
        return changed(read, resource_id=f"user:{read.resource_id}")
    return read


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a bank account: its verification status and whether it is disabled."""
    disabled = payload.get("disabled")
    number = payload.text("account_no")
    return envelope(payload).fact(
        customer_id=payload.text("customer_profile_id"),
        details={
            "disabled": disabled if isinstance(disabled, bool) else None,
            "bank_abbrev": payload.note("bank_abbrev"),
            "account_no_last4": number and number[-_VISIBLE_DIGITS:],
        },
    )


HANDLER = Handler(
    provider="straitsx",
    kind="bank_account",
    events=frozenset(
        {
            "cpbaCreated",
            "cpbaVerificationStatusUpdated",
            "ubaCreated",
            "ubaVerificationStatusUpdated",
        }
    ),
    matches=matches,
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
