"""A status without a time of its own is dated as its source declares."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from ledger.callback_errors import InvalidCallback
from ledger.fold.change import TranslatedEvent
from ledger.fold.dispatch import Dispatch
from ledger.fold.translate import translate
from ledger.model import Envelope, Fact, Handler, Payload, SourceTerms

CREATED = datetime(2026, 4, 30, 23, 59, 59, tzinfo=UTC)
RECEIVED = datetime(2026, 5, 1, 0, 0, 1, tzinfo=UTC)
BY_CREATION = SourceTerms("s", "p")
BY_RECEIPT = SourceTerms("s", "p", date_by="receipt")


def dispatch(fact: Fact) -> Dispatch:
    """Return a dispatch whose one handler states a fact, of callbacks and of operators."""

    def envelope(payload: Payload) -> Envelope:
        raise InvalidCallback("unused", "the fold reads no envelopes")

    handler = Handler(
        "p", fact.kind, frozenset(), lambda _: True, envelope, lambda _, __: fact,
        frozenset({"t"}),
    )  # fmt: skip
    return Dispatch({"p": (handler,), "*": (handler,)})


def dated(
    terms: SourceTerms,
    effective_at: datetime | None,
    *,
    flags: tuple[str, ...] = ("dated_by_creation",),
    origin: str = "callback",
) -> tuple[datetime | None, tuple[str, ...]]:
    """Return the date and the flags of an event's fact."""

    fact = translated(terms, effective_at, flags=flags, origin=origin).fact
    assert fact is not None
    return fact.effective_at, fact.flags


def translated(
    terms: SourceTerms,
    effective_at: datetime | None,
    *,
    flags: tuple[str, ...] = (),
    origin: str = "callback",
) -> TranslatedEvent:
    """Return the translation of an event whose fact is dated so."""

    def fail(source: str, position: int, error: Exception) -> None:
        raise error

    row: dict[str, Any] = {
        "position": 1, "event_id": b"1", "kind": "k", "resource_id": "r", "status": "completed",
        "path_event": None, "origin": origin, "reason": None, "detail": None,
        "body": b'{"type": "t"}', "received_at": RECEIVED, "recorded_at": RECEIVED,
    }  # fmt: skip
    stated = Fact("k", "r", "completed", effective_at, flags=flags)
    return translate(dispatch(stated), terms, row, fail)


def test_what_is_dated_too_late_is_an_issue_and_no_fact() -> None:
    late = translated(BY_CREATION, RECEIVED + timedelta(days=2))
    assert late.fact is None
    assert late.issue is not None
    assert late.issue.reason == "time_out_of_range"


def test_by_creation_a_completion_counts_for_the_month_of_its_creation() -> None:
    assert dated(BY_CREATION, CREATED) == (CREATED, ("dated_by_creation",))


def test_by_receipt_it_counts_for_the_month_in_which_it_was_received() -> None:
    assert dated(BY_RECEIPT, CREATED) == (RECEIVED, ("dated_by_receipt",))
    flags = ("first", "dated_by_creation", "last")
    assert dated(BY_RECEIPT, CREATED, flags=flags)[1] == ("first", "dated_by_receipt", "last")


def test_nothing_is_dated_before_its_creation() -> None:
    ahead = RECEIVED + timedelta(hours=2)
    assert dated(BY_RECEIPT, ahead) == (ahead, ("dated_by_receipt",))
    assert dated(BY_RECEIPT, None) == (RECEIVED, ("dated_by_receipt",))


def test_times_of_other_zones_are_compared_as_instants() -> None:
    singapore = timezone(timedelta(hours=8))
    before = datetime(2026, 5, 1, 7, 59, 59, tzinfo=singapore)
    assert dated(BY_RECEIPT, before) == (RECEIVED, ("dated_by_receipt",))


def test_a_status_with_a_time_of_its_own_keeps_it() -> None:
    assert dated(BY_RECEIPT, CREATED, flags=()) == (CREATED, ())


@pytest.mark.parametrize("terms", [BY_CREATION, BY_RECEIPT])
def test_an_operators_event_is_dated_by_itself(terms: SourceTerms) -> None:
    assert dated(terms, CREATED, origin="operator") == (CREATED, ("dated_by_creation",))
