"""Customers, bank accounts, virtual accounts, limits, limit requests, requests for information."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from ledger.model import Fact, changed
from projections import limit_requests, limits
from tests.property.driver import Books, at, keep, one, stated, word


def row_of(books: Books) -> Any:
    (row,) = books.rows.values()
    return row


def customer(status: str, minutes: int, **details: Any) -> Fact:
    return word("customer", status, minutes, details=details)


# customers


def test_a_verified_customer_is_rejected_by_a_later_update_and_not_by_an_earlier_one() -> None:
    for order in permutations([customer("verified", 5), customer("rejected", 9)]):
        assert row_of(one(*order))["verification_status"] == "rejected"
    for order in permutations([customer("verified", 5), customer("rejected", 2)]):
        row = row_of(one(*order))
        assert (row["verification_status"], row["updated_at"]) == ("verified", at(5))


def test_a_resubmitting_customer_is_pending_again() -> None:
    facts = [customer("rejected", 1), customer("pending", 2), customer("verified", 3)]
    for order in permutations(facts):
        assert row_of(one(*order))["verification_status"] == "verified"
    assert row_of(one(*facts[:2]))["verification_status"] == "pending"


def test_at_one_time_a_decision_on_a_customer_beats_waiting_for_it() -> None:
    for status in ("verified", "rejected"):
        for order in permutations([customer("pending", 1), customer(status, 1)]):
            assert row_of(one(*order))["verification_status"] == status


def test_at_one_time_the_later_received_of_two_decisions_holds() -> None:
    for order in permutations([customer("verified", 1), customer("rejected", 1)]):
        assert row_of(one(*order))["verification_status"] == order[-1].status


def test_a_rejection_is_shown_while_it_holds() -> None:
    why = {"summary": "policy", "retryable": True, "reasons": []}
    books = one(customer("rejected", 1, rejection=why, country="SG"))
    row = row_of(books)
    assert (row["rejection"], row["details"]) == (why, {"country": "SG"})
    books.report(customer("verified", 2, country="SG"))
    assert row_of(books)["rejection"] is None


def test_an_unknown_status_of_a_customer_changes_nothing_and_is_an_exception() -> None:
    books = one(customer("verified", 1), customer("unknown:frozen", 9))
    assert row_of(books)["verification_status"] == "verified"
    assert books.issues(("customer", "thing_1")) == ["unknown_status"]
    assert row_of(one(customer("unknown:frozen", 9)))["verification_status"] == "unknown:frozen"


def test_a_customers_state_stays_small_however_often_it_changes() -> None:
    facts = [customer(("pending", "rejected")[n % 2], n) for n in range(500)]
    assert len(stated(*facts).saved["customer", "thing_1"][2]) < 400


# bank accounts


def test_at_one_time_a_verified_bank_account_beats_a_pending_one() -> None:
    facts = [
        word("bank_account", "pending", 1, details={"disabled": False, "bank_abbrev": "BCA"}),
        word("bank_account", "verified", 1, details={"disabled": False, "bank_abbrev": "BCA"}),
    ]
    for order in permutations(facts):
        row = row_of(one(*order))
        assert row["verification_status"] == "verified"
        assert (row["disabled"], row["details"]) == (False, {"bank_abbrev": "BCA"})


def test_an_edited_bank_account_is_pending_again_and_may_be_disabled() -> None:
    facts = [
        word("bank_account", "verified", 1, details={"disabled": False}),
        word("bank_account", "pending", 2, details={"disabled": True}, customer_id="customer_7"),
    ]
    for order in permutations(facts):
        row = row_of(one(*order))
        assert (row["verification_status"], row["disabled"]) == ("pending", True)
        assert row["customer_id"] == "customer_7"


# virtual accounts


def account(status: str, minutes: int | None = None, **given: Any) -> Fact:
    return word("virtual_account", status, minutes, **given)


def test_a_disabled_virtual_account_stays_disabled() -> None:
    facts = [account("pending"), account("enabled"), account("disabled")]
    for order in permutations(facts):
        assert row_of(one(*order))["status"] == "disabled"


def test_a_virtual_account_enabled_after_it_was_disabled_is_flagged() -> None:
    flagged = {"flags": ["enabled_after_disabled"], "status": "disabled"}
    for order in permutations([account("disabled", 5), account("enabled", 9)]):
        assert row_of(one(*order)).items() >= flagged.items()
    for order in permutations([account("disabled", 9), account("enabled", 5)]):
        assert row_of(one(*order))["flags"] == []


def test_a_virtual_account_whose_callbacks_state_one_time_of_creation_is_not_flagged() -> None:
    for order in permutations([account("disabled", 5), account("enabled", 5)]):
        assert row_of(one(*order))["flags"] == []


def test_without_a_time_the_order_received_states_whether_it_was_enabled_again() -> None:
    assert row_of(one(account("disabled"), account("enabled", 5)))["flags"] != []
    assert row_of(one(account("enabled"), account("disabled")))["flags"] == []


def test_details_of_a_virtual_account_are_merged_and_absent_ones_erase_nothing() -> None:
    told_first = {"currency": "USD", "reference_id": "r1", "account_no": "885", "bank": None}
    told_later = {"currency": "USD", "reference_id": "r2", "account_no": None, "bank": None}
    facts = [account("enabled", 1, details=told_first), account("disabled", 2, details=told_later)]
    for order in permutations(facts):
        row = row_of(one(*order))
        assert (row["currency"], row["reference_id"]) == ("USD", "r2")
        assert row["details"] == {"account_no": "885"}
        assert row["updated_at"] == at(2)


def test_of_two_reports_of_one_time_the_later_one_states_the_details() -> None:
    books = one(
        account("enabled", 1, details={"bank": "A", "account_no": "1"}),
        account("enabled", 1, details={"bank": "B", "account_no": None}),
    )
    assert row_of(books)["details"] == {"bank": "B", "account_no": "1"}


def test_each_field_of_a_virtual_account_is_as_the_last_report_that_has_it_states_it() -> None:
    facts = [
        account("enabled", 1, customer_id="c1", details={"account_no": "1", "bank": "A"}),
        account("enabled", 2, customer_id="c2", details={"account_no": "2", "bank": None}),
        account("enabled", 3, details={"account_no": None, "bank": None}),
    ]
    for order in permutations(facts):
        row = row_of(one(*order))
        assert (row["customer_id"], row["updated_at"]) == ("c2", at(3))
        assert row["details"] == {"account_no": "2", "bank": "A"}


def test_a_virtual_account_that_only_its_creation_dates_is_flagged() -> None:
    dated = account("enabled", 1, flags=("dated_by_creation",))
    assert row_of(one(account("pending", 1), dated))["flags"] == ["dated_by_creation"]
    assert row_of(one(dated, account("disabled", 2)))["flags"] == []


def test_a_virtual_account_without_a_time_states_none() -> None:
    assert row_of(one(account("disabled")))["updated_at"] is None


# limits


def limit(**given: str | None) -> Fact:
    return word(
        "limits",
        "",
        None,
        customer_id="customer_7",
        details={"provider_id": "limits_7", "limits": given},
    )


def test_what_is_used_of_a_limit_is_what_the_last_callback_that_states_so_states() -> None:
    first = limit(total_daily_payout_limit="50", available_daily_payout_limit="20.5")
    last = limit(total_daily_payout_limit="50", available_daily_payout_limit="10")
    vague = limit(total_daily_payout_limit="50", available_daily_payout_limit=None)
    used = row_of(one(first, last, vague))["used"]
    assert [(name, stated["amount"], stated["position"]) for name, stated in used.items()] == [
        ("daily_payout", "40", 2)
    ]


def test_annual_and_daily_limits_do_not_overwrite_each_other() -> None:
    annual = limit(total_annual_payment_limit="200000", transaction_size_limit=None)
    daily = limit(total_daily_payment_limit="5000", transaction_size_limit=None)
    for order in permutations([annual, daily]):
        row = row_of(one(*order))
        assert row == {
            "provider_id": "limits_7",
            "customer_id": "customer_7",
            "limits": {
                "total_annual_payment_limit": "200000",
                "total_daily_payment_limit": "5000",
                "transaction_size_limit": None,
            },
            "used": {},
        }


def test_the_last_value_received_of_a_limit_holds_also_when_it_is_null() -> None:
    books = one(limit(a_limit="1"), limit(a_limit="2"))
    assert row_of(books)["limits"] == {"a_limit": "2"}
    books.report(limit(a_limit=None))
    assert row_of(books)["limits"] == {"a_limit": None}


def test_limits_are_bounded() -> None:
    many = {f"n{n:03}_limit": "1" for n in range(limits.FIELDS_MAX + 1)}
    books = one(limit(**many))
    assert len(row_of(books)["limits"]) == limits.FIELDS_MAX
    assert books.issues(("limits", "thing_1")) == ["too_many_limits"]


# limit requests


def request(status: str, minutes: int) -> Fact:
    details = {"provider_id": "request_7"}
    return word("limits_request", status, minutes, customer_id="customer_7", details=details)


def test_a_limit_request_takes_its_end_whatever_the_order() -> None:
    for end in ("approved", "rejected"):
        for order in permutations([request("pending", 1), request(end, 2)]):
            assert row_of(one(*order)) == {
                "provider_id": "request_7",
                "customer_id": "customer_7",
                "status": end,
                "updated_at": at(2),
                "conflict": None,
            }


def test_at_one_time_the_later_received_report_of_a_limit_request_states_the_customer() -> None:
    approved = request("approved", 1)
    facts = [changed(approved, customer_id=f"customer_{n}") for n in range(4)]
    for order in permutations(facts):
        assert row_of(one(*order))["customer_id"] == order[-1].customer_id


def test_a_limit_request_both_approved_and_rejected_is_a_conflict() -> None:
    books = one(request("rejected", 3), request("approved", 2))
    row = row_of(books)
    assert (row["status"], row["updated_at"]) == ("conflict", at(3))
    assert row["conflict"]["reason"] == "terminals_disagree"
    facts = [(f["position"], f["status"]) for f in row["conflict"]["facts"]]
    assert facts == [(1, "rejected"), (2, "approved")]
    assert books.issues(("limits_request", "thing_1")) == ["conflict"]


def test_a_decision_ends_the_conflict_of_a_limit_request() -> None:
    books = one(request("rejected", 3), request("approved", 2))
    books.report(keep(request("approved", 2), 2))
    assert (row_of(books)["status"], row_of(books)["conflict"]) == ("approved", None)
    assert books.issues(("limits_request", "thing_1")) == []
    books.report(request("rejected", 9))
    assert row_of(books)["status"] == "approved"
    assert books.issues(("limits_request", "thing_1")) == ["conflict_after_decision"]


def test_a_limit_request_stated_often_stays_small() -> None:
    books = stated(*[request("approved", n) for n in range(100)])
    reported = books.stored(("limits_request", "thing_1")).state["statuses"]["approved"]
    assert len(reported["positions"]) == limit_requests.POSITIONS_MAX


def test_an_unknown_status_of_a_limit_request_is_an_exception() -> None:
    books = one(request("unknown:escalated", 1))
    assert row_of(books)["status"] == "unknown:escalated"
    books.report(request("approved", 2))
    assert row_of(books)["status"] == "approved"


# requests for information


def rfi(status: str, minutes: int | None = 0, **details: Any) -> Fact:
    return word("rfi", status, minutes, customer_id="customer_7", details=details)


def test_the_last_received_status_of_a_request_for_information_holds() -> None:
    books = one(rfi("sent"), rfi("received"))
    assert row_of(books)["status"] == "received"
    books.report(rfi("sent", counts={"pending": 1}))
    assert (row_of(books)["status"], row_of(books)["details"]) == (
        "sent",
        {"counts": {"pending": 1}},
    )


@pytest.mark.parametrize("end", ["completed", "expired"])
def test_an_ended_request_for_information_stays_ended(end: str) -> None:
    for order in permutations([rfi("sent", 1), rfi(end, 1), rfi("received", 1)]):
        assert row_of(one(*order))["status"] == end


def test_a_completed_request_for_information_does_not_expire() -> None:
    for order in permutations([rfi("completed"), rfi("expired")]):
        assert row_of(one(*order))["status"] == "completed"


def test_the_expiry_of_a_request_for_information_is_a_time() -> None:
    row = row_of(one(rfi("sent", expires_at=at(90).isoformat(), questions=[])))
    assert row["expires_at"] == at(90)
    assert row["details"] == {"counts": {}, "questions": []}


def test_the_deadline_of_a_request_for_information_is_kept_until_another_is_stated() -> None:
    first, second = at(90).isoformat(), at(120).isoformat()
    dated, silent = rfi("sent", expires_at=first), rfi("received", expires_at=None)
    for order in permutations([dated, silent, rfi("completed")]):
        assert row_of(one(*order))["expires_at"] == at(90)
    assert row_of(one(dated, silent, rfi("sent", expires_at=second)))["expires_at"] == at(120)


def test_the_provider_s_times_order_the_reports_of_a_request_for_information() -> None:
    facts = [
        rfi("sent", 1, expires_at=at(90).isoformat(), counts={"total": 2, "pending": 2}),
        changed(rfi("received", 2, expires_at=at(120).isoformat()), customer_id="customer_8"),
        changed(rfi("sent", 3, counts={"total": 2, "pending": 1}), customer_id=None),
    ]
    for order in permutations(facts):
        row = row_of(one(*order))
        assert (row["status"], row["updated_at"]) == ("sent", at(3))
        assert (row["customer_id"], row["expires_at"]) == ("customer_8", at(120))
        assert row["details"] == {"counts": {"total": 2, "pending": 1}}


@pytest.mark.parametrize("end", ["completed", "expired"])
def test_what_ends_a_request_for_information_erases_nothing_that_it_does_not_state(
    end: str,
) -> None:
    counts = {"total": 2, "accepted": 2}
    ended = changed(rfi(end, 3, counts={}, questions=[], expires_at=None), customer_id=None)
    facts = [
        rfi("sent", 1, expires_at=at(90).isoformat(), counts={"total": 2}),
        rfi("received", 2, expires_at=at(120).isoformat(), counts=counts, questions=[{"id": "1"}]),
        ended,
    ]
    for order in permutations(facts):
        row = row_of(one(*order))
        assert (row["status"], row["customer_id"]) == (end, "customer_7")
        assert (row["expires_at"], row["updated_at"]) == (at(120), at(3))
        assert row["details"] == {"counts": counts, "questions": [{"id": "1"}]}


def test_each_count_of_a_request_is_as_the_last_report_that_has_it_states_it() -> None:
    facts = [
        rfi("sent", 1, counts={"total": 9, "pending": 9, "accepted": 0, "rejected": 0}),
        rfi("received", 2, counts={"accepted": 4, "rejected": 2}),
        rfi("completed", 3, counts={"pending": 0}),
    ]
    for order in permutations(facts):
        counts = row_of(one(*order))["details"]["counts"]
        assert counts == {"total": 9, "pending": 0, "accepted": 4, "rejected": 2}


def test_without_different_times_the_last_received_report_of_a_request_holds() -> None:
    first, second = at(90).isoformat(), at(120).isoformat()
    for minutes in (None, 1):
        sent = rfi("sent", minutes, expires_at=first, counts={"pending": 1})
        received = rfi("received", minutes, expires_at=second, counts={})
        ended = rfi("expired", minutes, expires_at=None)
        for order in permutations([sent, received, ended]):
            row = row_of(one(*order))
            assert row["status"] == "expired"
            last = max(order.index(sent), order.index(received))
            assert row["expires_at"] == (at(90) if order[last] is sent else at(120))
            assert row["details"] == {"counts": {"pending": 1}}
