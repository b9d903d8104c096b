"""An operator's closing or reopening of a month of a wallet: written by our own API.

A close keeps what the reconciliation was at the end of the month when it was closed: balances, what
was open and accepted, and at which positions of the logs. Later changes are measured against that.
"""

from __future__ import annotations

import re
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
)

KIND: Final = "close"
ACTIONS: Final = frozenset({"closed", "reopened"})
NAMES: Final = ", ".join(sorted(ACTIONS))
PERIOD: Final = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])", re.ASCII)
_TEXTS: Final = ("state", "sha256", "rules_sha256", "by", "note")
_AMOUNTS: Final = ("statement_balance", "ledger_balance", "in_transit", "breaks")
_COUNTS: Final = ("lines", "position", "statements_position", "previous")


def matches(payload: Payload) -> bool:
    """Tell a close by its type; it is reached by its origin alone."""
    return payload.type == KIND


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: the wallet's month, and whether it is closed. Raises InvalidCallback."""
    if payload.id is None:
        raise InvalidCallback("missing_id", "the close names no month of a wallet")
    action = payload.need("action")
    if action not in ACTIONS:
        raise InvalidCallback("bad_action", f"action is {shown(action)}, none of {NAMES}")
    return Envelope(KIND, payload.id, action)


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a close: everything that it states becomes its details.

    Raises InvalidCallback `bad_period`, `bad_count` or `bad_open`.
    """
    period = payload.need("period")
    if not PERIOD.fullmatch(period):
        raise InvalidCallback("bad_period", f"period is {shown(period)}, not a month like 2026-06")
    details: dict[str, JSON] = {**payload.texts(_TEXTS), "period": period}
    for name in ("begin", "end"):
        moment = payload.instant(name)
        details[name] = None if moment is None else moment.isoformat()
    for name in _AMOUNTS:
        amount = payload.money(name)
        details[name] = None if amount is None else plain(amount)
    for name in _COUNTS:
        details[name] = _count(payload, name)
    details["open"] = _open(payload)
    details["accepted"] = _names(payload, "accepted")
    return envelope(payload).fact(currency=payload.currency("currency"), details=details)


def _count(payload: Payload, name: str) -> int | None:
    value = payload.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise InvalidCallback("bad_count", f"{name} is {shown(value)}, not a count")
    return value


def _open(payload: Payload) -> list[JSON]:
    """Read what was open: lists of id, type, time and gap."""
    value: Any = payload.get("open") or []
    is_list = isinstance(value, list) and all(
        isinstance(item, list) and len(item) == 4 and all(isinstance(text, str) for text in item)
        for item in value
    )
    if not is_list:
        raise InvalidCallback("bad_open", "open is no list of ids, types, times and gaps")
    return [[*item] for item in value]


def _names(payload: Payload, name: str) -> list[JSON]:
    value: Any = payload.get(name) or []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InvalidCallback("bad_open", f"{name} is {shown(value)}, not a list of texts")
    return sorted(value)


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
