"""StraitsX requests for information about a customer.

Shape: straitsx-callback-samples, RFI (`activeRfRequest`, `rfQuestions`, customer at the top), and
StraitsX docs, RFI callback (`activeRfiRequest`, `rfiQuestions`, integer ids, the customer among the
attributes). The deadline and the counts are in the request itself, in a summary inside it or in
one beside it. What is asked and answered stays in the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, TypeVar

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

_T = TypeVar("_T")

_DIGITS: Final = re.compile(r"\d{1,7}", re.ASCII)
_COUNTS: Final = ("total", "pending", "rejected", "accepted", "submitted")


def matches(payload: Payload) -> bool:
    """Tell requests for information by their type."""
    return payload.type == "rfiRequest"


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: a status may recur, so the body distinguishes events."""
    active = _active(payload)
    read = identify(payload, "rfi", active.status("status", STATUSES))
    if read.provider_at is not None:
        return changed(read, tail=None)
    moment, is_creation = active.stated_time()
    is_late = is_creation and read.status != "sent"
    return changed(read, provider_at=moment, is_dated_by_creation=is_late, tail=None)


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a request: its status, its times and counts, and the state of each question.

    Raises InvalidCallback `two_values` when two places state different deadlines or counts.
    """
    active = _active(payload)
    places = [active, *_summaries(active), *_summaries(payload)]
    return envelope(payload).fact(
        customer_id=payload.text("customer_profile_id"),
        details={
            "expires_at": _iso(_agreed("expiry_date", (p.instant("expiry_date") for p in places))),
            "created_at": _iso(active.instant("created_at")),
            "counts": _counts(places),
            "questions": _questions(active),
        },
    )


def _active(payload: Payload) -> Payload:
    spellings = (payload.get("active_rf_request"), payload.get("active_rfi_request"))
    active = _agreed("the active request", (v for v in spellings if isinstance(v, dict)))
    if active is None:
        raise InvalidCallback("missing_status", "the callback has no active request with a status")
    return Payload.inner(active)


def _summaries(place: Payload) -> list[Payload]:
    """Return the summaries of the progress that an object holds, in either spelling."""
    spellings = (place.within("rf_progress_summary"), place.within("rfi_progress_summary"))
    return [summary for summary in spellings if summary is not None]


def _counts(places: Sequence[Payload]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in _COUNTS:
        name = f"{word}_questions"
        count = _agreed(name, (_count(place.get(name)) for place in places))
        if count is not None:
            counts[word] = count
    return counts


def _count(value: JSON) -> int | None:
    """Read a count, which may be a text of digits; what is none is None."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= COUNT_MAX
    return value if is_count else None


def _agreed(name: str, values: Iterable[_T | None]) -> _T | None:
    """Return the one value that is stated; None for none. Raises InvalidCallback `two_values`."""
    stated = [value for value in values if value is not None]
    if any(value != stated[0] for value in stated):
        raise InvalidCallback("two_values", f"two places of the callback differ in {name}")
    return stated[0] if stated else None


def _questions(active: Payload) -> list[dict[str, JSON]]:
    spellings = (active.get("rf_questions"), active.get("rfi_questions"))
    items = _agreed("the questions", (v for v in spellings if isinstance(v, list))) or []
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
