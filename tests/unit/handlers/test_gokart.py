"""What GoKart's conversions state, in every spelling, and what cannot be true of them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from handlers.gokart_conversion import HANDLER
from ledger.errors import InvalidCallback
from ledger.model import Envelope, Fact, Number, Payload, SourceTerms
from tests.samples import ABSENT, GOKART, apply, payload, utc

MEMBER = "421f91c7-0000-4ca5-bf9d-af3e6fbe7c61"


def callback(name: str, /, **changes: Any) -> Payload:
    """Return a sample with fields of its conversion changed."""
    reported = payload(name)
    apply(reported.root["conversion"], changes)
    return reported


def fact(name: str, /, **changes: Any) -> Fact:
    return HANDLER.translate(callback(name, **changes), GOKART)


def refusal(name: str, /, **changes: Any) -> str:
    with pytest.raises(InvalidCallback) as caught:
        fact(name, **changes)
    return caught.value.reason


def test_a_conversion_states_revenue_and_keeps_the_members_points_beside_it() -> None:
    assert fact("gokart/02-success") == Fact(
        kind="conversion",
        resource_id="c2f8a4d0-1b3e-4c57-8a90-d1e2f3a4b501",
        status="Success",
        effective_at=utc("2026-03-07T10:00:02.120034"),
        amount=Decimal(60),
        currency="USD",
        details={
            "reward_points": "45",
            "member": MEMBER,
            "event": "",
            "callback_id": "b10c6e52-0002-4d0f-9c1a-3f2e1d0c9b02",
            "sent_at": "2026-03-07T10:00:02.1200345+00:00",
            "offer_id": "9a4be0d7-33c1-4e5a-bb1c-20f1e2d3c4b5",
            "rejection_reason": None,
            "is_reward_sent": True,
        },
    )


def test_a_conversion_without_status_and_revenue_is_a_success_that_credits_points() -> None:
    assert fact("more/gokart/conversion-no-batch") == Fact(
        kind="conversion",
        resource_id="c2f8a4d0-1b3e-4c57-8a90-d1e2f3a4b510",
        status="Success",
        effective_at=utc("2024-09-18T18:29:26.846947"),
        amount=None,
        currency="USD",
        details={
            "reward_points": "89",
            "member": "member-7",
            "event": "849b0000-c25a-49f2-9201-c7897f1c1b1c",
            "callback_id": "b10c6e52-0010-4d0f-9c1a-3f2e1d0c9b10",
            "sent_at": "2024-09-18T18:29:26.8469471+00:00",
            "offer_id": "9a4be0d7-33c1-4e5a-bb1c-20f1e2d3c4b5",
            "rejection_reason": None,
            "is_reward_sent": False,
        },
        flags=("revenue_unknown",),
    )


def test_a_conversion_may_name_its_event_by_the_offers() -> None:
    assert fact("more/gokart/conversion-offer-event") == Fact(
        kind="conversion",
        resource_id="c2f8a4d0-1b3e-4c57-8a90-d1e2f3a4b511",
        status="Success",
        effective_at=utc("2026-03-10T08:00:00"),
        amount=Decimal("2.5"),
        currency="USD",
        details={
            "reward_points": "12",
            "member": MEMBER,
            "event": "849b0001-c25a-49f2-9201-c7897f1c1b1c",
            "callback_id": "b10c6e52-0011-4d0f-9c1a-3f2e1d0c9b11",
            "sent_at": "2026-03-10T08:00:00.0000000+00:00",
            "offer_id": "9a4be0d7-33c1-4e5a-bb1c-20f1e2d3c4b5",
            "rejection_reason": None,
            "is_reward_sent": True,
        },
    )


@pytest.mark.parametrize(
    ("stated", "event"),
    [
        ({"conversionEventId": "c", "eventId": "e", "offerEventId": "o"}, "c"),
        ({"conversionEventId": "", "eventId": "e", "offerEventId": "o"}, "e"),
        ({"conversionEventId": None, "eventId": None, "OfferEventId": "o"}, "o"),
        ({"ConversionEventId": "c", "EventId": "e"}, "c"),
        ({"OfferEventId": 7}, "7"),
        ({}, ""),
    ],
)
def test_the_first_event_that_is_given_is_the_conversions(stated: Any, event: str) -> None:
    names = dict.fromkeys(("conversionEventId", "eventId", "offerEventId", "OfferEventId"), ABSENT)
    assert fact("gokart/02-success", **(names | stated)).details["event"] == event


def test_unknown_revenue_and_unknown_points_are_flagged_and_are_not_zero() -> None:
    for unknown in (None, ABSENT):
        reported = fact("gokart/02-success", revenue=unknown)
        assert (reported.amount, reported.flags) == (None, ("revenue_unknown",))
    for unknown in (None, ABSENT):
        reported = fact("gokart/02-success", rewardPoints=unknown, pubMemberId=None)
        assert (reported.details["reward_points"], reported.flags) == (None, ("points_unknown",))
        for name in ("01-pending", "03-rejected"):
            assert fact(f"gokart/{name}", rewardPoints=unknown).flags == ()
    assert fact("gokart/02-success", rewardPoints=0, revenue=None).flags == ("revenue_unknown",)
    zero = fact("gokart/02-success", revenue=0)
    assert (zero.amount, zero.flags) == (Decimal(0), ("zero_amount",))


def test_a_status_that_is_null_is_not_a_missing_one() -> None:
    assert fact("gokart/02-success", status=ABSENT).status == "Success"
    for null in ({"status": None}, {"status": ABSENT, "Status": None}, {"status": ""}):
        assert refusal("gokart/02-success", **null) == "missing_status"


def test_the_three_statuses_keep_their_capitals() -> None:
    reported = [fact(f"gokart/{name}") for name in ("01-pending", "02-success", "03-rejected")]
    assert [each.status for each in reported] == ["Pending", "Success", "Rejected"]
    assert reported[2].details["rejection_reason"] == "Order returned"
    assert reported[2].amount == Decimal("12.5")
    assert fact("gokart/02-success", status="SUCCESS").status == "Success"


def test_pascal_case_states_the_same_as_camel_case() -> None:
    reported = callback("gokart/02-success")
    conversion = reported.root["conversion"]
    pascal = {name[0].upper() + name[1:]: value for name, value in conversion.items()}
    other = Payload({**reported.root, "conversion": pascal})
    assert HANDLER.matches(other)
    assert HANDLER.envelope(other) == HANDLER.envelope(reported)
    assert HANDLER.translate(other, GOKART) == HANDLER.translate(reported, GOKART)


def test_the_pascal_case_sample_is_understood() -> None:
    reported = fact("gokart/04-success-pascal")
    assert (reported.status, reported.amount, reported.details["reward_points"]) == (
        "Success",
        Decimal("7.25"),
        "30",
    )
    assert reported.details["member"] == MEMBER


def test_both_casings_may_stand_together_while_they_agree() -> None:
    reported = fact("gokart/02-success", Revenue=60, PubMemberId=MEMBER, Status=None)
    assert reported == fact("gokart/02-success")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Revenue": 61}, "two_values"),
        ({"ConversionId": "another"}, "two_values"),
        ({"Status": "Rejected"}, "two_values"),
        ({"revenue": ABSENT, "rewardPoints": ABSENT}, "missing_amount"),
        ({"revenue": None, "rewardPoints": None}, "missing_amount"),
        ({"revenue": -1}, "negative_amount"),
        ({"revenue": Number("1e20")}, "bad_revenue"),
        ({"rewardPoints": -45}, "negative_amount"),
        ({"rewardPoints": "many"}, "bad_rewardPoints"),
        ({"pubMemberId": None}, "missing_member"),
        ({"pubMemberId": ""}, "missing_member"),
        ({"status": None}, "missing_status"),
        ({"conversionId": ""}, "missing_id"),
    ],
)
def test_a_conversion_that_cannot_be_true_is_refused(changes: Any, reason: str) -> None:
    assert refusal("gokart/02-success", **changes) == reason


def test_a_member_is_needed_only_where_points_are_due() -> None:
    assert fact("gokart/02-success", pubMemberId=None, rewardPoints=0).details["member"] is None
    assert fact("gokart/01-pending", pubMemberId=None).details["reward_points"] == "45"
    absent = fact("gokart/02-success", pubMemberId=None, rewardPoints=None)
    assert absent.details["reward_points"] is None


def test_without_a_configured_currency_no_revenue_can_be_stated() -> None:
    with pytest.raises(InvalidCallback, match="give the source points a currency") as caught:
        HANDLER.translate(callback("gokart/02-success"), SourceTerms("points", "gokart"))
    assert caught.value.reason == "currency_not_configured"


def test_the_configured_currency_is_written_in_upper_case() -> None:
    terms = SourceTerms("gokart", "gokart", currency="eur")
    assert HANDLER.translate(callback("gokart/02-success"), terms).currency == "EUR"


def test_revenue_of_zero_is_flagged_and_text_money_agrees() -> None:
    assert fact("gokart/02-success", revenue=0).flags == ("zero_amount",)
    assert fact("gokart/02-success", revenue="60.00", rewardPoints="45.0") == fact(
        "gokart/02-success"
    )


def test_the_callback_records_id_states_events_apart() -> None:
    assert HANDLER.envelope(callback("gokart/01-pending")) == Envelope(
        kind="conversion",
        resource_id="c2f8a4d0-1b3e-4c57-8a90-d1e2f3a4b501",
        status="Pending",
        provider_at=utc("2026-03-06T09:15:26.846947"),
        tail="b10c6e52-0001-4d0f-9c1a-3f2e1d0c9b01",
    )


def test_without_an_id_event_status_and_time_state_events_apart() -> None:
    name = "more/gokart/conversion-mixed-without-id"
    tail = HANDLER.envelope(callback(name)).tail
    assert tail == "/Success/2026-03-11T09:30:00+00:00"
    stated = HANDLER.envelope(callback(name, eventId="e1")).tail
    assert stated == "e1/Success/2026-03-11T09:30:00+00:00"


def test_an_undocumented_status_is_keyed_by_the_body() -> None:
    reported = HANDLER.envelope(callback("gokart/02-success", status="Reviewing"))
    assert (reported.status, reported.tail) == ("unknown:Reviewing", None)


def test_the_events_of_a_multi_event_offer_share_their_conversion() -> None:
    reported = [fact(f"more/gokart/conversion-event-{n}") for n in (1, 2)]
    assert reported[0].resource_id == reported[1].resource_id
    assert [each.details["event"] for each in reported] == ["event-install", "event-level-10"]
    nested = fact("more/gokart/conversion-event-1", conversionEventId="ce-1")
    assert nested.details["event"] == "ce-1"


def test_a_later_rejection_is_about_the_same_conversion() -> None:
    later = fact("more/gokart/conversion-rejected-after-success")
    first = fact("gokart/02-success")
    assert (later.resource_id, later.amount) == (first.resource_id, first.amount)
    assert (later.status, later.details["is_reward_sent"]) == ("Rejected", False)


@pytest.mark.parametrize(
    "root",
    [
        {"id": "x", "conversion": None},
        {"id": "x", "conversion": []},
        {"id": "x", "conversion": {"status": "Success"}},
        {"id": "x", "conversionId": "y", "status": "Success"},
    ],
)
def test_what_names_no_conversion_is_none(root: dict[str, Any]) -> None:
    assert not HANDLER.matches(Payload(root))


def test_a_callback_posted_without_a_conversion_cannot_be_true() -> None:
    with pytest.raises(InvalidCallback) as caught:
        HANDLER.envelope(Payload({"id": "x"}))
    assert caught.value.reason == "missing_conversion"


def test_no_fact_holds_what_the_tracking_system_knows_of_people() -> None:
    reported = fact(
        "gokart/02-success", trackSysConversionEmail="a@example.com", pubPostalCode="94110"
    )
    assert "example.com" not in repr(reported)
    assert "94110" not in repr(reported)
