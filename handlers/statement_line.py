"""One line of a statement: what moved in a wallet by the provider, or that the line is withdrawn.

Written by our own import, never by a provider.
"""

from __future__ import annotations

from typing import Final

from ledger.model import (
    Envelope,
    Fact,
    Handler,
    InvalidCallback,
    Payload,
    SourceTerms,
    plain,
    shown,
)

KIND: Final = "statement_line"
STATUSES: Final = frozenset({"stated", "withdrawn"})
_TEXTS: Final = (
    "line", "sha256", "row_kind", "contract_id", "reference", "description", "balance",
    "account", "provider_id", "counterparty",
)  # fmt: skip


def matches(payload: Payload) -> bool:
    """Tell a line by its type."""
    return payload.type == KIND


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per line and file that stated it so. Raises InvalidCallback."""
    if payload.id is None:
        raise InvalidCallback("missing_id", "the line has no id")
    return Envelope(
        KIND,
        payload.id,
        payload.status("status", STATUSES),
        payload.text("idempotency_id"),
        payload.instant("booked_at") or payload.instant("effective_at"),
        payload.need("sha256"),
    )


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a line: the amount is > 0 into our wallet, < 0 out of it.

    Raises InvalidCallback for a missing or unreadable amount, currency or time.
    """
    amount = payload.money("amount")
    if amount is None:
        raise InvalidCallback("missing_amount", "the line has no amount")
    if payload.instant("effective_at") is None:
        raise InvalidCallback("missing_effective_at", "the line has no time")
    balance = payload.money("balance")
    return envelope(payload).fact(
        amount=amount,
        currency=payload.currency("currency"),
        details={
            **payload.texts(_TEXTS),
            "balance": None if balance is None else plain(balance),
            "number": payload.get("number"),
            "dated_at": payload.get("effective_at") if payload.get("booked_at") else None,
            "names": _names(payload),
        },
    )


def _names(payload: Payload) -> list[str]:
    """Return the further names of a line. Raises InvalidCallback unless they are texts."""
    names = payload.get("names") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidCallback("bad_names", f"names is {shown(names)}, not a list of texts")
    return [str(name) for name in names]


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
