"""GoKart conversions: a member completed an offer; revenue for us, points for the member.

Shape: gokart callback-schema-v1 (camelCase), the older documentation (PascalCase inside
`conversion`) and schema-no-batch-v1 (no `status`, revenue null); spellings occur mixed. No currency
is named: the operator configures it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from ledger.model import (
    JSON,
    Envelope,
    Fact,
    Handler,
    InvalidCallback,
    Payload,
    SourceTerms,
    as_money,
    as_note,
    as_text,
    flags,
    plain,
    shown,
)

STATUSES: Final = frozenset({"Pending", "Success", "Rejected"})


def matches(payload: Payload) -> bool:
    """Tell conversions by their shape: an object `conversion` with a conversion id."""
    conversion = payload.get("conversion")
    return isinstance(conversion, dict) and (
        "conversionId" in conversion or "ConversionId" in conversion
    )


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: the callback record's id distinguishes events.

    Without one, the event, the status and the time of sending do: statuses may go in circles.
    """
    conversion = _conversion(payload)
    resource = _text(conversion, "conversionId")
    if resource is None:
        raise InvalidCallback("missing_id", "the conversion has no conversionId")
    status = _status(conversion)
    sent_at = payload.instant("sent_at")
    tail = payload.id or f"{_event(conversion)}/{status}/{_iso(sent_at)}"
    known = not status.startswith("unknown:")
    return Envelope("conversion", resource, status, None, sent_at, tail if known else None)


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a conversion: revenue is the amount, reward points are kept beside it.

    Unknown revenue is None and flagged where points are given: the member gets them all the same.
    So are the unknown points of a success whose revenue is given.
    Raises InvalidCallback for neither revenue nor points, negative ones, points without a member
    on Success, fields that are given twice with two values, and `currency_not_configured` when
    the source's settings name no currency.
    """
    conversion = _conversion(payload)
    read = envelope(payload)
    if not terms.currency:
        message = f"give the source {terms.source} a currency: its callbacks name none"
        raise InvalidCallback("currency_not_configured", message)
    revenue, points = _money(conversion, "revenue"), _money(conversion, "rewardPoints")
    if revenue is None and points is None:
        raise InvalidCallback("missing_amount", "the conversion has no revenue and no points")
    member = _text(conversion, "pubMemberId")
    if points and member is None and read.status == "Success":
        raise InvalidCallback(
            "missing_member", "reward points are due, but no pubMemberId is named"
        )
    return read.fact(
        amount=revenue,
        currency=terms.currency.upper(),
        details={
            "reward_points": None if points is None else plain(points),
            "member": member,
            **_details(payload, conversion),
        },
        flags=flags(
            zero_amount=revenue is not None and not revenue,
            revenue_unknown=revenue is None,
            points_unknown=points is None and read.status == "Success",
        ),
    )


def _details(payload: Payload, conversion: Mapping[str, JSON]) -> dict[str, JSON]:
    return {
        "event": _event(conversion),
        "callback_id": payload.id,
        "sent_at": payload.text("sent_at"),
        "offer_id": _text(conversion, "offerId"),
        "rejection_reason": as_note(_field(conversion, "rejectionReason")),
        "is_reward_sent": _field(conversion, "isRewardSent") is True,
    }


def _conversion(payload: Payload) -> Mapping[str, JSON]:
    conversion = payload.get("conversion")
    if not isinstance(conversion, dict):
        message = f"conversion is {shown(conversion)}, not an object"
        raise InvalidCallback("missing_conversion", message)
    return conversion


def _field(conversion: Mapping[str, JSON], name: str) -> JSON:
    """Return a field in either casing; two values for one field cannot be true."""
    value = conversion.get(name)
    twin = conversion.get(name[0].upper() + name[1:])
    if value is not None and twin is not None and value != twin:
        message = f"{name} is {shown(value)} in one casing, {shown(twin)} in the other"
        raise InvalidCallback("two_values", message)
    return twin if value is None else value


def _text(conversion: Mapping[str, JSON], name: str) -> str | None:
    return as_text(name, _field(conversion, name))


def _money(conversion: Mapping[str, JSON], name: str) -> Decimal | None:
    amount = as_money(name, _field(conversion, name))
    if amount is not None and amount < 0:
        raise InvalidCallback("negative_amount", f"{name} is {amount}")
    return amount


def _event(conversion: Mapping[str, JSON]) -> str:
    """Return which event of a multi-event offer this is; "" for offers with one event."""
    names = ("conversionEventId", "eventId", "offerEventId")
    return next((event for name in names if (event := _text(conversion, name))), "")


def _status(conversion: Mapping[str, JSON]) -> str:
    """Return the status; where the schema has no such field, only what succeeded is sent."""
    if "status" not in conversion and "Status" not in conversion:
        return "Success"
    text = _text(conversion, "status")
    if text is None:
        raise InvalidCallback("missing_status", "the conversion has no status")
    word = text.capitalize()
    return word if word in STATUSES else "unknown:" + text


def _iso(moment: datetime | None) -> str:
    return moment.isoformat() if moment else ""


HANDLER = Handler(
    provider="gokart",
    kind="conversion",
    events=frozenset(),
    matches=matches,
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
