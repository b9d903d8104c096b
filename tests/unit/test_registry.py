"""Promise: a bug in a handler costs no callback: it is kept, and understood by a later version."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from ledger import registry
from ledger.model import Handler, Payload
from tests import samples

BODY = samples.body("straitsx/05-payment-paynow")


def broken(part: str) -> registry.Registry:
    """Return a registry in which one part of the payment's handler raises."""

    def fail(_payload: Payload) -> NoReturn:
        raise ZeroDivisionError("Mei Tan")

    def change(handler: Handler) -> Handler:
        return replace(handler, **{part: fail}) if handler.kind == "payment" else handler

    known = registry.load()
    changed = tuple(change(handler) for handler in known.handlers["straitsx"])
    return replace(known, handlers={**known.handlers, "straitsx": changed})


def test_an_envelope_that_raises_is_quarantined_and_not_an_error() -> None:
    for part in ("envelope", "matches"):
        found = broken(part).read("straitsx", None, BODY)
        assert found.reason == "handler_failed"
        assert found.detail == "reading the envelope raised ZeroDivisionError"
        assert (found.envelope.kind, found.envelope.resource_id) == ("unknown", "")


def test_other_callbacks_are_read_as_ever() -> None:
    body = samples.body("straitsx/06-payout-usd")
    assert broken("envelope").read("straitsx", None, body) == registry.load().read(
        "straitsx", None, body
    )
