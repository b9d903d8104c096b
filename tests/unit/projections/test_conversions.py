"""GoKart conversions: the last word on each event holds, also when statuses go in circles."""

from __future__ import annotations

from decimal import Decimal
from itertools import permutations
from typing import Any

from ledger.model import Fact, stamp
from projections import conversions
from tests.property.driver import GOKART, Books, at, one, stated, word

KEY = ("conversion", "thing_1")


def conversion(status: str, minutes: int, **given: Any) -> Fact:
    details = {
        "event": given.pop("event", ""),
        "callback_id": given.pop("callback_id", f"c{minutes}"),
        "reward_points": given.pop("points", "45"),
        "member": "m-1",
    }
    known: dict[str, Any] = {"amount": Decimal(60), "currency": "USD", "details": details}
    return word("conversion", status, minutes, **{**known, **given})


def books_of(*facts: Fact) -> Books:
    return one(*facts, terms=GOKART)


def test_a_rejected_success_gives_back_revenue_and_points() -> None:
    facts = [conversion("Pending", 1), conversion("Success", 2), conversion("Rejected", 3)]
    for order in permutations(facts):
        books = books_of(*order)
        assert books.rows[KEY]["status"] == "Rejected"
        assert books.balances() == {}


def test_a_reinstated_conversion_counts_once() -> None:
    facts = [conversion("Success", 1), conversion("Rejected", 2), conversion("Success", 3)]
    for order in permutations(facts):
        books = books_of(*order)
        assert books.balances()["income:conversions USD"] == "-60"
        assert {leg[0] for leg in books.legs()} == {at(3).isoformat()}


def test_callbacks_of_one_moment_are_ordered_by_their_id() -> None:
    facts = [
        conversion("Success", 1, callback_id="a"),
        conversion("Rejected", 1, callback_id="b"),
    ]
    for order in permutations(facts):
        assert books_of(*order).rows[KEY]["status"] == "Rejected"


def test_callbacks_of_one_moment_without_an_id_are_ordered_as_they_were_received() -> None:
    for n in range(8):
        facts = [
            conversion("Success", 1, callback_id=None, amount=Decimal(60 + n)),
            conversion("Rejected", 1, callback_id=None, amount=Decimal(60 + n)),
        ]
        for order in permutations(facts):
            assert books_of(*order).rows[KEY]["status"] == order[-1].status


def test_each_event_of_a_conversion_is_its_own() -> None:
    facts = [
        conversion("Success", 1, event="install"),
        conversion("Success", 5, event="purchase", amount=Decimal("12.50"), points="5"),
        conversion("Rejected", 3, event="install"),
    ]
    for order in permutations(facts):
        books = books_of(*order)
        row = books.rows[KEY]
        assert (row["status"], str(row["amount"]), row["effective_at"]) == (
            "Success",
            "72.5",
            at(5),
        )
        assert row["details"]["reward_points"] == "50"
        assert row["details"]["events"] == {
            "install": {
                "status": "Rejected",
                "revenue": "60",
                "reward_points": "45",
                "sent_at": stamp(at(3)),
            },
            "purchase": {
                "status": "Success",
                "revenue": "12.5",
                "reward_points": "5",
                "sent_at": stamp(at(5)),
            },
        }
        assert books.balances()["income:conversions USD"] == "-12.5"
        assert books.balances()["liabilities:members:m-1 PTS"] == "-5"


def test_a_corrected_revenue_is_no_conflict() -> None:
    books = books_of(conversion("Success", 1), conversion("Success", 2, amount=Decimal(70)))
    row = books.rows[KEY]
    assert (row["amount"], row["conflict"]) == (70, None)
    assert books.balances()["assets:receivable:gokart USD"] == "70"


def test_an_unknown_status_of_a_conversion_is_only_an_exception() -> None:
    books = books_of(conversion("Success", 1), conversion("unknown:Chargeback", 2))
    assert books.rows[KEY]["status"] == "Success"
    assert books.issues(KEY) == ["unknown_status"]
    only = books_of(conversion("unknown:Chargeback", 2))
    assert only.rows[KEY]["status"] == "unknown:Chargeback"
    assert only.legs() == []


def test_events_beyond_the_bound_move_nothing() -> None:
    facts = [conversion("Success", 1, event=f"e{n:03}") for n in range(conversions.EVENTS_MAX + 2)]
    books = stated(*facts, terms=GOKART)
    assert books.balances()["income:conversions USD"] == str(-60 * conversions.EVENTS_MAX)
    assert books.issues(KEY) == ["too_many_events"]


def test_a_conversion_with_neither_revenue_nor_points_is_parked() -> None:
    assert books_of(conversion("Success", 1, amount=None, points=None)).parked == {KEY}


def test_a_conversion_whose_revenue_is_unknown_credits_its_points() -> None:
    unknown = conversion("Success", 1, amount=None, flags=("revenue_unknown",))
    books = books_of(unknown)
    assert books.balances() == {"expenses:rewards PTS": "45", "liabilities:members:m-1 PTS": "-45"}
    row = books.rows[KEY]
    assert (row["amount"], row["currency"], row["flags"]) == (None, "USD", ["revenue_unknown"])
    assert row["details"]["events"][""]["revenue"] is None


def test_a_conversion_whose_points_are_unknown_posts_none_and_shows_none() -> None:
    books = books_of(conversion("Success", 1, points=None, flags=("points_unknown",)))
    assert books.balances() == {
        "assets:receivable:gokart USD": "60",
        "income:conversions USD": "-60",
    }
    row = books.rows[KEY]
    assert (row["flags"], row["details"]["reward_points"]) == (["points_unknown"], None)
    assert row["details"]["events"][""]["reward_points"] is None
    zero = books_of(conversion("Success", 1, points="0")).rows[KEY]["details"]
    assert (zero["reward_points"], zero["events"][""]["reward_points"]) == ("0", "0")


def test_the_known_points_of_a_conversions_events_are_its_points() -> None:
    facts = [
        conversion("Success", 1, event="a", points=None, flags=("points_unknown",)),
        conversion("Success", 2, event="b", points="5"),
        conversion("Pending", 3, event="c", points=None),
    ]
    for order in permutations(facts):
        row = books_of(*order).rows[KEY]
        assert (row["details"]["reward_points"], row["flags"]) == ("5", ["points_unknown"])


def test_the_known_revenue_of_a_conversions_other_events_is_its_amount() -> None:
    facts = [
        conversion("Success", 1, event="a", amount=None, flags=("revenue_unknown",)),
        conversion("Success", 2, event="b", amount=Decimal("1.5")),
    ]
    for order in permutations(facts):
        row = books_of(*order).rows[KEY]
        assert (row["amount"], row["flags"]) == (Decimal("1.5"), ["revenue_unknown"])


def test_revenue_that_is_stated_later_is_earned_then() -> None:
    facts = [conversion("Success", 1, amount=None), conversion("Success", 2)]
    for order in permutations(facts):
        assert books_of(*order).balances()["income:conversions USD"] == "-60"


def test_what_a_later_callback_leaves_open_an_earlier_one_fills() -> None:
    facts = [
        conversion("Pending", 1, points="3"),
        conversion("Success", 2),
        conversion("Success", 3, amount=None, flags=("revenue_unknown",)),
        conversion("Success", 4, amount=Decimal(60), points=None, flags=("points_unknown",)),
    ]
    for order in permutations(facts):
        books = books_of(*order)
        row = books.rows[KEY]
        assert (row["amount"], row["flags"]) == (60, [])
        assert row["details"]["reward_points"] == "45"
        assert books.balance("income:conversions", "USD") == -60
        assert books.balance("liabilities:members:m-1", "PTS") == -45
