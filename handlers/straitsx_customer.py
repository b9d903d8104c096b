"""StraitsX customer profiles: the verification status of the merchant's end customers.

Shape: straitsx-callback-samples, customer profiles. Names, addresses, dates of birth, document
numbers and contacts stay in the log and never become facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ledger.model import (
    JSON,
    Envelope,
    Fact,
    Handler,
    Payload,
    SourceTerms,
    as_note,
    identify,
    inside,
)

STATUSES: Final = frozenset({"pending", "verified", "rejected"})

_REVIEWED: Final = ("identity_documents", "source_of_wealth")


def matches(payload: Payload) -> bool:
    """Tell customer profiles by their type."""
    return payload.type == "customer_profile"


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: statuses come and go, so each is one event per updated time."""
    status = payload.status("verification_status", STATUSES)
    return identify(payload, "customer", status, dated=True)


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a profile: its verification status, and why it was rejected, if it was."""
    read = envelope(payload)
    details: dict[str, JSON] = {
        "registration_type": payload.note("registration_type"),
        "country": payload.note("registration_id_country"),
    }
    rejection = _rejection(payload)
    if rejection:
        details["rejection"] = rejection
    return read.fact(customer_id=read.resource_id, details=details)


def _rejection(payload: Payload) -> dict[str, JSON] | None:
    summary = payload.note("verification_rejection_summary")
    retryable = payload.get("is_retryable")
    reasons = [*_risk_reasons(payload), *_document_reasons(payload)]
    if summary is None and retryable is None and not reasons:
        return None
    known = retryable if isinstance(retryable, bool) else None
    return {"summary": summary, "retryable": known, "reasons": reasons}


def _risk_reasons(payload: Payload) -> Iterator[str]:
    listed = inside(payload.get("risk_rating"), "rejection_reason")
    for reason in listed if isinstance(listed, list) else (listed,):
        text = as_note(reason)
        if text:
            yield text


def _document_reasons(payload: Payload) -> Iterator[str]:
    """Yield `passport: <reason>` for each document or source of wealth that was refused."""
    for group in _REVIEWED:
        reviewed = payload.get(group)
        for name, review in reviewed.items() if isinstance(reviewed, dict) else ():
            reason = as_note(inside(review, "rejection_reason"))
            if reason:
                yield f"{name}: {reason}"


HANDLER = Handler(
    provider="straitsx",
    kind="customer",
    events=frozenset({"cpVerificationStatusUpdated"}),
    matches=matches,
    types=frozenset({"customer_profile"}),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
