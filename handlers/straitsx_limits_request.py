"""StraitsX requests to change a customer's transaction limits.

Shape: straitsx-callback-samples, transaction limits update request.
"""

from __future__ import annotations

from typing import Final

from ledger.model import Envelope, Fact, Handler, Payload, SourceTerms, identify

STATUSES: Final = frozenset({"pending", "approved", "rejected"})


def matches(payload: Payload) -> bool:
    """Tell limit requests by their type; limits may carry the same id."""
    return payload.type == "transactionLimitsUpdateRequest"


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per request, status and updated time."""
    status = payload.status("status", STATUSES)
    return identify(payload, "limits_request", status, dated=True)


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a limit request: its status and whose it is."""
    return envelope(payload).fact(customer_id=payload.text("customer_profile_id"))


HANDLER = Handler(
    provider="straitsx",
    kind="limits_request",
    events=frozenset({"cpTxnLimitsUpdateRequestStatusUpdated"}),
    matches=matches,
    types=frozenset({"transactionLimitsUpdateRequest"}),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
