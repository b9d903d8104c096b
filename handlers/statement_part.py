"""A part of a statement's file: what was imported is kept byte for byte, some at a time.

Written by our own import, never by a provider. The bytes stay in the log; the books name the place.
"""

from __future__ import annotations

from typing import Final

from ledger.model import Envelope, Fact, Handler, InvalidCallback, Payload, SourceTerms, shown

KIND: Final = "statement_part"
STATUSES: Final = frozenset({"kept"})


def matches(payload: Payload) -> bool:
    """Tell a part by its type."""
    return payload.type == KIND


def envelope(payload: Payload) -> Envelope:
    """Read the envelope: one event per part of a file. Raises InvalidCallback."""
    if payload.id is None:
        raise InvalidCallback("missing_id", "the part has no id")
    return Envelope(KIND, payload.id, "kept", None, None, payload.need("sha256"))


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Translate a part: of which file, the how manieth of how many. Raises InvalidCallback."""
    numbers = {name: payload.get(name) for name in ("part", "parts")}
    stated = " and ".join(map(shown, numbers.values()))
    if not all(isinstance(each, int) and each > 0 for each in numbers.values()):
        raise InvalidCallback("bad_part", f"part and parts are {stated}, not numbers from 1 on")
    return envelope(payload).fact(details={"sha256": payload.need("sha256"), **numbers})


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
