"""A statement's file: what period and currency it covers and which balances it states, or that it
was withdrawn, by whom and why.

Written by our own import, never by a provider; the lines are events of their own.
"""

from __future__ import annotations

from typing import Final

from ledger.model import Envelope, Fact, Handler, InvalidCallback, Payload, SourceTerms, plain

KIND: Final = "statement"
STATUSES: Final = frozenset({"imported", "withdrawn"})
_TEXTS: Final = (
    "format",
    "sha256",
    "opened_at",
    "closed_at",
    "by",
    "note",
    "account",
    "claimed_from",
)


def matches(payload: Payload) -> bool:
    """Tell a file by its type."""
    return payload.type == KIND


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per import or withdrawal of a file. Raises InvalidCallback."""
    if payload.id is None:
        raise InvalidCallback("missing_id", "the statement has no id")
    status = payload.status("status", STATUSES)
    return Envelope(KIND, payload.id, status, None, payload.instant("closed_at"), payload.id)


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a file's header; balances that it does not state are None."""
    balances = {name: payload.money(name) for name in ("opening", "closing")}
    details = payload.texts(_TEXTS)
    return envelope(payload).fact(
        currency=payload.currency("currency"),
        details={
            **details,
            **{name: None if v is None else plain(v) for name, v in balances.items()},
            "lines": payload.get("lines"),
        },
    )


HANDLER = Handler(
    provider="statement",
    kind=KIND,
    events=frozenset(),
    matches=matches,
    types=frozenset({KIND}),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
