"""StraitsX requests to change a customer's transaction limits.

Shape: straitsx-callback-samples, transaction limits update request. The samples use one id for
requests of several customers and for limits, so a stream is of a customer and an id.
"""

from __future__ import annotations

from typing import Final

from ledger.model import (
    Envelope,
    Fact,
    Handler,
    Payload,
    SourceTerms,
    changed,
    identify,
    joined_id,
)

STATUSES: Final = frozenset({"pending", "approved", "rejected"})


def matches(payload: Payload) -> bool:
    """Tell limit requests by their type; limits may carry the same id."""
    return payload.type == "transactionLimitsUpdateRequest"


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per request, status and updated time."""
    status = payload.status("status", STATUSES)
    return identify(payload, "limits_request", status, dated=True)


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a limit request: its status and whose it is.

    The fact's resource is customer and id together; `provider_id` is the id alone.
    """
    read, customer = envelope(payload), payload.text("customer_profile_id")
    return changed(read, resource_id=joined_id(customer, read.resource_id)).fact(
        customer_id=customer, details={"provider_id": read.resource_id}
    )


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
