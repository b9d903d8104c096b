"""StraitsX requests for information about a customer.

Shape: straitsx-callback-samples, RFI (`activeRfRequest`, `rfQuestions`, customer at the top). The
API reference spells them `activeRfiRequest`, `rfiQuestions`, with integer ids and the customer
among the attributes. What is asked and answered stays in the log.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from ledger.model import (
    JSON,
    Envelope,
    Fact,
    Handler,
    InvalidCallback,
    Payload,
    SourceTerms,
    changed,
    identify,
    stamp,
)

STATUSES: Final = frozenset({"sent", "received", "completed", "expired"})

COUNT_MAX: Final = 1_000_000
"""A larger count is no count; it stays in the log."""

_COUNTS: Final = ("total", "pending", "rejected", "accepted", "submitted")


def matches(payload: Payload) -> bool:
    """Tell requests for information by their type."""
    return payload.type == "rfiRequest"


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: a status may recur, so the body distinguishes events."""
    active = _active(payload)
    read = identify(payload, "rfi", active.status("status", STATUSES))
    return changed(read, provider_at=read.provider_at or active.told_at(), tail=None)


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a request: its status, its times and counts, and the state of each question."""
    active = _active(payload)
    return envelope(payload).fact(
        customer_id=payload.text("customer_profile_id"),
        details={
            "expires_at": _iso(active.instant("expiry_date")),
            "created_at": _iso(active.instant("created_at")),
            "counts": _counts(active),
            "questions": _questions(active),
        },
    )


def _active(payload: Payload) -> Payload:
    active = payload.within("active_rf_request") or payload.within("active_rfi_request")
    if active is None:
        raise InvalidCallback("missing_status", "the callback has no active request with a status")
    return active


def _counts(active: Payload) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in _COUNTS:
        count = active.get(f"{word}_questions")
        if isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= COUNT_MAX:
            counts[word] = count
    return counts


def _questions(active: Payload) -> list[dict[str, JSON]]:
    listed = active.get("rf_questions") or active.get("rfi_questions")
    items = listed if isinstance(listed, list) else []
    return [_question(Payload.inner(item)) for item in items if isinstance(item, dict)]


def _question(params: Payload) -> dict[str, JSON]:
    return {
        "id": params.text("id"),
        "status": params.note("question_status"),
        "reply_type": params.note("reply_type"),
        "optional": params.get("optional") is True,
        "requires_action": params.get("requires_action") is True,
    }


def _iso(moment: datetime | None) -> str | None:
    return stamp(moment) if moment else None


HANDLER = Handler(
    provider="straitsx",
    kind="rfi",
    events=frozenset({"cpRfiStatusUpdated"}),
    matches=matches,
    types=frozenset({"rfiRequest"}),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
