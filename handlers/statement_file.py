"""A statement's file: what period and currency it covers and which balances it states.

Written by our own import, never by a provider; the lines are events of their own.
"""

from __future__ import annotations

from ledger.model import CannotBeTrue, Envelope, Fact, Handler, Payload, SourceTerms, plain

KIND = "statement"


def matches(payload: Payload) -> bool:
    """Tell a file by its type."""
    return payload.type == KIND


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per file, period and currency. Raises CannotBeTrue."""
    if payload.id is None:
        raise CannotBeTrue("missing_id", "the statement has no id")
    return Envelope(KIND, payload.id, "imported", None, payload.instant("closed_at"), payload.id)


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a file's header; balances that it does not state are None."""
    balances = {name: payload.money(name) for name in ("opening", "closing")}
    details = {name: payload.text(name) for name in ("format", "sha256", "opened_at", "closed_at")}
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
)
