"""StraitsX transaction limits of a customer: some of them per callback, without any time.

Shape: straitsx-callback-samples, transaction limits; other pages show texts without a type. The
samples use one id for the limits of several customers, so a stream is of a customer and an id.
"""

from __future__ import annotations

import re
from typing import Final

from ledger.model import (
    Envelope,
    Fact,
    Handler,
    InvalidCallback,
    Payload,
    SourceTerms,
    as_money,
    changed,
    joined_id,
    plain,
)

_ID_PREFIX: Final = "customer_profile_transaction_limit_"
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def matches(payload: Payload) -> bool:
    """Tell limits by their type, or, when they have none, by their id."""
    if payload.type is None:
        return payload.id is not None and payload.id.startswith(_ID_PREFIX)
    return payload.type == "transactionLimits"


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: no status and no time, so the body distinguishes events."""
    if payload.id is None:
        raise InvalidCallback("missing_id", "the callback has no id")
    moment, is_creation = payload.stated_time()
    return Envelope("limits", payload.id, "", provider_at=moment, is_dated_by_creation=is_creation)


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate the limits that are present, as plain decimal texts; null is no limit.

    The fact's resource is customer and id together; `provider_id` is the id alone.

    Raises InvalidCallback for a limit that is no amount, or is given twice with two values.
    """
    read, customer = envelope(payload), payload.text("customer_profile_id")
    return changed(read, resource_id=joined_id(customer, read.resource_id)).fact(
        customer_id=customer,
        details={"provider_id": read.resource_id, "limits": _limits(payload)},
    )


def _limits(payload: Payload) -> dict[str, str | None]:
    limits: dict[str, str | None] = {}
    for key, value in payload.fields.items():
        name = _HUMP.sub("_", key).lower()
        if not name.endswith("_limit"):
            continue
        amount = as_money(name, value)
        limit = None if amount is None else plain(amount)
        if limits.setdefault(name, limit) != limit:
            raise InvalidCallback(
                "two_values", f"{name} has two values, {limits[name]} and {limit}"
            )
    return limits


HANDLER = Handler(
    provider="straitsx",
    kind="limits",
    events=frozenset({"cpTxnLimitsUpdated"}),
    matches=matches,
    types=frozenset({"transactionLimits"}),
    envelope=envelope,
    translate=translate,
)
