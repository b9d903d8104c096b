"""An operator's decision on an exception or a transaction, written by our own API."""

from __future__ import annotations

from typing import Final

from ledger.model import (
    ATTRIBUTE,
    JSON,
    RETRY,
    Envelope,
    Fact,
    Handler,
    InvalidCallback,
    Payload,
    SourceTerms,
    shown,
)  # fmt: skip

ACTIONS: Final = frozenset({"keep", "acknowledge", RETRY, ATTRIBUTE})
NAMES: Final = ", ".join(sorted(ACTIONS))

_TEXTS: Final = ("exception", "action", "kind", "reason", "note", "by")


def matches(payload: Payload) -> bool:
    """Refuse every callback: decisions are reached by their origin alone."""
    return False


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: the stream decided on ("" for an event that has none) and the action.

    Raises InvalidCallback `bad_action`.
    """
    action = payload.need("action")
    if action not in ACTIONS:
        raise InvalidCallback("bad_action", f"action is {shown(action)}, none of {NAMES}")
    return Envelope("decision", payload.named("resource") or "", action)


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a decision: its body becomes the details, `keep` being a position of the log.

    Raises InvalidCallback `missing_keep` when the action is to keep and no position is named; when
    it is to attribute and no transaction is, or `customer_id` is neither a text nor null.
    """
    read = envelope(payload)
    if read.status == ATTRIBUTE:
        return read.fact(details=_attribution(payload))
    keep = payload.get("keep")
    if keep is not None and (not isinstance(keep, int) or isinstance(keep, bool) or keep < 1):
        raise InvalidCallback(
            "bad_keep", f"keep is {shown(keep)}, no position of the log (from 1 on)"
        )
    if read.status == "keep" and keep is None:
        raise InvalidCallback("missing_keep", "name in keep the position of the event that stands")
    details: dict[str, JSON] = payload.texts(_TEXTS)
    return read.fact(details=details | {"resource": payload.named("resource"), "keep": keep})


def _attribution(payload: Payload) -> dict[str, JSON]:
    """Read whose a transaction is: `customer_id` is null where earlier decisions are undone."""
    for name in ("kind", "resource"):
        if payload.named(name) is None:
            raise InvalidCallback(f"missing_{name}", f"name in {name} the transaction's {name}")
    if "customer_id" not in payload.root:
        raise InvalidCallback(
            "missing_customer_id", "name the customer, or null to undo what was decided"
        )
    customer = payload.get("customer_id")
    if customer == "" or not isinstance(customer, str | None):
        raise InvalidCallback("bad_customer_id", "customer_id is neither a customer's id nor null")
    return payload.texts(("action", "kind", "reason", "customer_id", "note", "by")) | {
        "resource": payload.named("resource")
    }


HANDLER = Handler(
    provider="*",
    kind="decision",
    events=frozenset(),
    matches=matches,
    envelope=envelope,
    translate=translate,
    statuses=ACTIONS,
)
