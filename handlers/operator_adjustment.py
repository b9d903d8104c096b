"""An operator's decision on a break between statement and books: written by our own API.

It says who, why, which items it is about, and exactly what is to be posted (`legs`, debits
positive), so that a rebuild posts the same whatever the rules are by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from ledger.model import (
    JSON,
    Envelope,
    Fact,
    Handler,
    InvalidCallback,
    Payload,
    SourceTerms,
    plain,
    shown,
    total,
)

KIND: Final = "adjustment"
ACTIONS: Final = frozenset(
    {"match", "write_off", "post_fee", "void", "tolerance", "rule", "reopen", "note"}
)
NAMES: Final = ", ".join(sorted(ACTIONS))
_TEXTS: Final = ("break_type", "note", "by", "account", "rule", "request")


def matches(payload: Payload) -> bool:
    """Tell an adjustment by its type; it is reached by its origin alone."""
    return payload.type == KIND


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: the break decided on and the action. Raises InvalidCallback."""
    if payload.id is None:
        raise InvalidCallback("missing_id", "the decision names no break")
    action = payload.need("action")
    if action not in ACTIONS:
        raise InvalidCallback("bad_action", f"action is {shown(action)}, none of {NAMES}")
    return Envelope(KIND, payload.id, action, None, payload.instant("effective_at"))


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a decision; its legs are exact and balance.

    Raises InvalidCallback `bad_legs` or `unbalanced`.
    """
    legs = [_leg(each) for each in payload.get("legs") or ()]
    left = total(*(amount for _, amount in legs))
    if left:
        raise InvalidCallback("unbalanced", f"the legs add up to {plain(left)}, not to zero")
    difference = payload.money("difference")
    return envelope(payload).fact(
        currency=payload.currency("currency"),
        details={
            **payload.texts(_TEXTS),
            "anchor": payload.named("anchor"),
            "difference": None if difference is None else plain(difference),
            "items": _names(payload, "items"),
            "break_items": _names(payload, "break_items"),
            "legs": [[account, plain(amount)] for account, amount in legs],
        },
    )


def _names(payload: Payload, name: str) -> list[JSON]:
    items = payload.get(name) or []
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise InvalidCallback("bad_items", f"{name} is {shown(items)}, not a list of texts")
    return sorted(items)


def _leg(value: Any) -> tuple[str, Decimal]:
    if not isinstance(value, Mapping):
        raise InvalidCallback("bad_legs", f"a leg is {shown(value)}, not an account and an amount")
    leg = Payload.inner(value)
    amount = leg.money("amount")
    if amount is None:
        raise InvalidCallback("bad_legs", "a leg has no amount")
    account = leg.named("account")
    if account is None:
        raise InvalidCallback("missing_account", "a leg has no account")
    return account, amount


HANDLER = Handler(
    provider="*",
    kind=KIND,
    events=frozenset(),
    matches=matches,
    types=frozenset({KIND}),
    envelope=envelope,
    translate=translate,
    statuses=ACTIONS,
)
