"""What callbacks without money state: verification, accounts, limits, requests, decisions."""

from __future__ import annotations

from typing import Any

import pytest

from handlers import (
    operator_decision,
    straitsx_bank_account,
    straitsx_customer,
    straitsx_limits,
    straitsx_limits_request,
    straitsx_rfi,
    straitsx_virtual_account,
)
from ledger.errors import InvalidCallback
from ledger.model import Envelope, Fact, Handler, Number, Payload
from tests.samples import ABSENT, STRAITSX, payload, utc

CUSTOMER = "customer_profile_5b1f0c7e-2d94-4a86-9e53-0f6a7c8d9e10"


def fact(handler: Handler, name: str, path_event: str | None = None, /, **changes: Any) -> Fact:
    return handler.translate(payload(name, path_event, **changes), STRAITSX)


PROFILE = straitsx_customer.HANDLER
BANK = straitsx_bank_account.HANDLER
VIRTUAL = straitsx_virtual_account.HANDLER
LIMITS = straitsx_limits.HANDLER
REQUEST = straitsx_limits_request.HANDLER
RFI = straitsx_rfi.HANDLER
DECISION = operator_decision.HANDLER


def test_a_customer_profile_states_its_verification_and_little_else() -> None:
    id_ = "customer_profile_8bcef957-74a5-4c07-bcaa-0b377c02ca13"
    assert fact(PROFILE, "straitsx/16-customer-business") == Fact(
        kind="customer",
        resource_id=id_,
        status="verified",
        effective_at=utc("2025-06-13T04:30:12"),
        customer_id=id_,
        details={"registration_type": "business", "country": "SG"},
    )
    assert fact(PROFILE, "straitsx/17-customer-personal").details == {
        "registration_type": "personal",
        "country": "SG",
    }
    plus = fact(PROFILE, "straitsx/18-customer-business-plus")
    assert (plus.status, plus.effective_at) == ("verified", utc("2024-12-26T17:01:59"))


def test_a_rejected_customer_comes_with_summary_reasons_and_whether_to_try_again() -> None:
    reported = fact(PROFILE, "straitsx/22-customer-rejected")
    assert (reported.status, reported.effective_at) == ("rejected", utc("2025-09-15T07:10:22"))
    assert reported.details["rejection"] == {
        "summary": "Rejected due to StraitsX policy",
        "retryable": True,
        "reasons": ["Rejected due to StraitsX policy"],
    }


def test_a_refused_document_is_a_reason() -> None:
    reported = fact(PROFILE, "more/straitsx/customer-3-rejected-document")
    assert reported.details["rejection"] == {
        "summary": None,
        "retryable": False,
        "reasons": ["passport: Document expired"],
    }


def test_odd_descriptions_do_not_stop_a_verification_status() -> None:
    reported = fact(
        PROFILE,
        "straitsx/22-customer-rejected",
        isRetryable="yes",
        verificationRejectionSummary={"text": 1},
        riskRating={"rejectionReason": "too risky", "type": {}},
        identityDocuments={"selfie": {"rejection_reason": "blurred", "type": []}, "passport": None},
        sourceOfWealth=[],
    )
    assert reported.details["rejection"] == {
        "summary": None,
        "retryable": None,
        "reasons": ["too risky", "selfie: blurred"],
    }


def test_a_customers_events_differ_by_updated_time_and_not_by_created_time() -> None:
    name = "more/straitsx/customer-2-verified"
    first = PROFILE.envelope(payload(name))
    assert first.tail == "verified@2026-03-01T01:05:00+00:00"
    same = PROFILE.envelope(payload(name, None, updatedAt="2026-03-01T09:05:00+08:00"))
    assert same == first
    undated = PROFILE.envelope(payload(name, None, updatedAt=ABSENT))
    assert (undated.tail, undated.provider_at) == ("verified@", utc("2026-03-01T01:00:00"))


def test_a_bank_account_shows_four_digits_of_its_number() -> None:
    assert fact(BANK, "straitsx/24-bank_account-verified") == Fact(
        kind="bank_account",
        resource_id="1",
        status="verified",
        effective_at=utc("2026-02-03T10:13:25.237"),
        customer_id=None,
        details={"disabled": False, "bank_abbrev": "BCA", "account_no_last4": "2670"},
    )


def test_a_users_bank_account_has_a_stream_of_its_own() -> None:
    reported = fact(BANK, "straitsx/24-bank_account-verified", "ubaVerificationStatusUpdated")
    assert reported.resource_id == "user:1"


def test_a_disabled_bank_account_in_camel_case_is_understood() -> None:
    reported = fact(BANK, "more/straitsx/bank_account-disabled-camel")
    assert (reported.resource_id, reported.status) == ("43", "verified")
    assert reported.effective_at == utc("2026-03-01T02:45:00")
    assert reported.details == {"disabled": True, "bank_abbrev": "UOB", "account_no_last4": "4343"}
    absent = fact(BANK, "more/straitsx/bank_account-disabled-camel", disabled=ABSENT)
    assert absent.details["disabled"] is None


def test_a_virtual_account_states_its_number_once_it_is_enabled() -> None:
    assert fact(VIRTUAL, "straitsx/12-virtual_account-enabled") == Fact(
        kind="virtual_account",
        resource_id="virtual_account_df1689fc-9fd5-452b-bbad-2eccfbc7459b",
        status="enabled",
        effective_at=utc("2025-12-04T06:51:39.669"),
        details={
            "currency": "USD",
            "reference_id": "414186459",
            "account_no": "885375018112345",
            "bank": "DBS Bank",
        },
        flags=("dated_by_creation",),
    )


def test_a_virtual_account_without_times_and_instructions_is_understood() -> None:
    reported = fact(VIRTUAL, "straitsx/11-virtual_account-disabled")
    assert (reported.status, reported.effective_at) == ("disabled", None)
    assert reported.details == {
        "currency": "USD",
        "reference_id": "finaltesting123_usd_biz",
        "account_no": None,
        "bank": None,
    }


def test_limits_are_only_those_that_the_callback_names() -> None:
    assert fact(LIMITS, "straitsx/19-limits-annual") == Fact(
        kind="limits",
        resource_id="customer_profile_12313123/abc_1234",
        status="",
        customer_id="customer_profile_12313123",
        details={
            "provider_id": "abc_1234",
            "limits": {
                "total_annual_payment_limit": "200000",
                "available_annual_payment_limit": "200000",
                "total_annual_payout_limit": "200000",
                "available_annual_payout_limit": "200000",
                "transaction_size_limit": None,
            },
        },
    )
    daily = fact(LIMITS, "straitsx/20-limits-daily").details["limits"]
    assert [name for name in daily if "annual" in name] == []
    assert daily["total_daily_payout_limit"] == "200000"


def test_limits_as_texts_without_a_type_are_understood() -> None:
    name = "more/straitsx/limits-strings-without-type"
    assert payload(name).type is None
    reported = fact(LIMITS, name)
    assert (reported.details["provider_id"], reported.customer_id) == (
        "customer_profile_transaction_limit_9d2c41",
        CUSTOMER,
    )
    assert reported.details["limits"] == {
        "total_annual_payment_limit": "200000",
        "available_annual_payment_limit": "199750",
        "total_annual_payout_limit": "200000",
        "available_annual_payout_limit": "200000",
        "transaction_size_limit": None,
    }


def test_limits_in_snake_case_are_understood() -> None:
    reported = fact(LIMITS, "more/straitsx/limits-snake")
    assert reported.details["limits"] == {
        "total_daily_payment_limit": "5000",
        "available_daily_payment_limit": "4750.5",
        "transaction_size_limit": "2500",
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"total_daily_payment_limit": "1"}, "two_values"),
        ({"totalDailyPaymentLimit": "lots"}, "bad_total_daily_payment_limit"),
        ({"totalDailyPaymentLimit": Number("1e20")}, "bad_total_daily_payment_limit"),
    ],
)
def test_limits_that_cannot_be_true_are_refused(changes: Any, reason: str) -> None:
    with pytest.raises(InvalidCallback) as caught:
        fact(LIMITS, "straitsx/20-limits-daily", **changes)
    assert caught.value.reason == reason


def test_a_limit_twice_with_one_value_is_one_limit() -> None:
    twice = {"total_daily_payment_limit": "200000.00"}
    reported = fact(LIMITS, "straitsx/20-limits-daily", **twice)
    assert reported.details["limits"]["total_daily_payment_limit"] == "200000"


def test_a_limits_request_states_its_status_and_customer() -> None:
    assert fact(REQUEST, "straitsx/21-limits_request-approved") == Fact(
        kind="limits_request",
        resource_id="customer_profile_12313123/abc_1234",
        status="approved",
        effective_at=utc("2025-01-16T09:52:52"),
        customer_id="customer_profile_12313123",
        details={"provider_id": "abc_1234"},
    )
    stages = ("limits_request-1-pending", "limits_request-2-rejected")
    reported = [fact(REQUEST, f"more/straitsx/{name}").status for name in stages]
    assert reported == ["pending", "rejected"]


@pytest.mark.parametrize(
    ("handler", "name"),
    [(LIMITS, "straitsx/20-limits-daily"), (REQUEST, "straitsx/21-limits_request-approved")],
)
def test_limits_and_requests_are_of_a_customer_and_an_id(handler: Handler, name: str) -> None:
    assert handler.envelope(payload(name)).resource_id == "abc_1234"
    stated = [("a", "b"), ("a/b", "c"), ("a", "b/c"), ("a%2Fb", "c"), ("", "a/b"), (None, "b")]
    resources = []
    for customer, id_ in stated:
        root = payload(name, None, customerProfileId=customer).root
        root["data"]["id"] = id_  # type: ignore[index]
        reported = handler.translate(Payload(root), STRAITSX)
        assert (reported.details["provider_id"], reported.customer_id) == (id_, customer or None)
        resources.append(reported.resource_id)
    assert resources == ["a/b", "a%2Fb/c", "a/b%2Fc", "a%252Fb/c", "/a%2Fb", "/b"]


def test_an_rfi_states_its_deadline_and_the_state_of_each_question() -> None:
    params = {"status": "pending", "optional": False, "requires_action": True}
    assert fact(RFI, "straitsx/25-rfi-sent") == Fact(
        kind="rfi",
        resource_id="rfi_request_usy4lc8xoadpl8",
        status="sent",
        effective_at=utc("2025-09-11T08:59:32"),
        customer_id="customer_profile_123_abc",
        details={
            "expires_at": "2025-09-30T16:59:52Z",
            "created_at": "2025-09-11T08:59:32Z",
            "counts": {"total": 3, "pending": 3, "rejected": 0, "accepted": 0},
            "questions": [
                {"id": "1823", "reply_type": "TEXT", **params},
                {"id": "1024", "reply_type": "DOC", **params},
                {"id": "1025", "reply_type": "CHECKBOX", **params},
            ],
        },
    )


def test_the_other_spelling_of_an_rfi_is_understood() -> None:
    reported = fact(RFI, "more/straitsx/rfi-2-received")
    assert (reported.status, reported.customer_id) == ("received", CUSTOMER)
    assert reported.details["expires_at"] == "2026-03-16T15:59:59Z"
    assert reported.details["counts"] == {"total": 2, "pending": 0, "rejected": 0, "accepted": 0}
    assert [(q["id"], q["status"], q["optional"]) for q in reported.details["questions"]] == [
        ("3001", "submitted", False),
        ("3002", "submitted", True),
    ]
    assert fact(RFI, "more/straitsx/rfi-3-completed").status == "completed"


def test_an_rfi_is_read_with_its_summary_beside_the_request() -> None:
    asked: dict[str, Any] = {"optional": False, "requires_action": True}
    assert fact(RFI, "more/straitsx/rfi-summary-beside") == Fact(
        kind="rfi",
        resource_id="rfi_request_7pp2m0d9x1",
        status="sent",
        effective_at=utc("2026-05-14T03:11:13"),
        customer_id=CUSTOMER,
        details={
            "expires_at": "2026-05-28T16:59:59Z",
            "created_at": "2026-05-14T03:11:13Z",
            "counts": {"total": 3, "pending": 1, "rejected": 1, "accepted": 1},
            "questions": [
                {"id": "4001", "status": "pending", "reply_type": "CHECKBOX", **asked},
                {
                    "id": "4002",
                    "status": "accepted",
                    "reply_type": "DOC",
                    "optional": False,
                    "requires_action": False,
                },
                {
                    "id": "4003",
                    "status": "rejected",
                    "reply_type": "TEXT",
                    "optional": True,
                    "requires_action": True,
                },
            ],
        },
    )


def test_an_rfi_is_read_with_its_summary_inside_the_request_in_snake_case() -> None:
    answered: dict[str, Any] = {"status": "submitted", "requires_action": False}
    assert fact(RFI, "more/straitsx/rfi-summary-inside-snake") == Fact(
        kind="rfi",
        resource_id="rfi_request_7pp2m0d9x2",
        status="received",
        effective_at=utc("2026-05-14T03:11:13"),
        customer_id=CUSTOMER,
        details={
            "expires_at": "2026-05-28T16:59:59Z",
            "created_at": "2026-05-14T03:11:13Z",
            "counts": {"total": 3, "pending": 0, "rejected": 0, "accepted": 1, "submitted": 2},
            "questions": [
                {"id": "4001", "reply_type": "CHECKBOX", "optional": False, **answered},
                {"id": "4002", "reply_type": "DOC", "optional": False, **answered},
                {"id": "4003", "reply_type": "TEXT", "optional": True, **answered},
            ],
        },
        flags=("dated_by_creation",),
    )


SUMMARY_PLACES = [
    (place, spelling)
    for place in ("inside", "beside", "at the top")
    for spelling in (
        "rfProgressSummary",
        "rfiProgressSummary",
        "rf_progress_summary",
        "rfi_progress_summary",
    )
]


@pytest.mark.parametrize(("place", "spelling"), SUMMARY_PLACES)
@pytest.mark.parametrize("request_name", ["activeRfRequest", "active_rfi_request"])
def test_an_rfis_deadline_and_counts_are_read_wherever_they_are(
    place: str, spelling: str, request_name: str
) -> None:
    summary = {"expiryDate": "2026-01-02T00:00:00Z"}
    summary |= {f"{word}Questions": n for n, word in enumerate(("total", "pending", "rejected"))}
    request: dict[str, Any] = {"status": "received", "accepted_questions": 7}
    attributes: dict[str, Any] = {request_name: request}
    root: dict[str, Any] = {"id": "r", "type": "rfiRequest", "attributes": attributes}
    {"inside": request, "beside": attributes, "at the top": root}[place][spelling] = summary
    details = RFI.translate(Payload(root), STRAITSX).details
    assert details["expires_at"] == "2026-01-02T00:00:00Z"
    assert details["counts"] == {"total": 0, "pending": 1, "rejected": 2, "accepted": 7}


@pytest.mark.parametrize(
    ("stated", "summary"),
    [
        ({"totalQuestions": 3}, {"totalQuestions": 4}),
        ({"total_questions": 3}, {"totalQuestions": 4}),
        ({"expiryDate": "2026-01-02T00:00:00Z"}, {"expiry_date": "2026-01-03T00:00:00Z"}),
        ({"rf_progress_summary": {"pendingQuestions": 1}}, {"pendingQuestions": 2}),
        ({"rfQuestions": [{"id": 1}], "rfiQuestions": [{"id": 2}]}, {}),
    ],
)
def test_an_rfi_whose_places_differ_cannot_be_true(stated: Any, summary: Any) -> None:
    root = {
        "id": "r",
        "type": "rfiRequest",
        "attributes": {"activeRfRequest": {"status": "sent", **stated}},
        "rfiProgressSummary": summary,
    }
    with pytest.raises(InvalidCallback) as caught:
        RFI.translate(Payload(root), STRAITSX)
    assert caught.value.reason == "two_values"


def test_an_rfi_whose_places_agree_is_read_once() -> None:
    same = {"expiryDate": "2026-01-02T08:00:00+08:00", "totalQuestions": 2}
    request = {"status": "sent", "expiry_date": "2026-01-02T00:00:00Z", "total_questions": 2}
    root = {"id": "r", "attributes": {"activeRfRequest": request}, "rfProgressSummary": same}
    details = RFI.translate(Payload(root), STRAITSX).details
    assert (details["expires_at"], details["counts"]) == ("2026-01-02T00:00:00Z", {"total": 2})


def test_the_counts_of_an_rfi_may_be_texts() -> None:
    summary = {"totalQuestions": "9", "acceptedQuestions": "04", "pendingQuestions": 3}
    request = {"status": "sent", "total_questions": 9, "rejected_questions": "2"}
    root = {"id": "r", "attributes": {"activeRfRequest": request}, "rfiProgressSummary": summary}
    counts = RFI.translate(Payload(root), STRAITSX).details["counts"]
    assert counts == {"total": 9, "accepted": 4, "pending": 3, "rejected": 2}


@pytest.mark.parametrize(
    "value",
    ["", "x", "-1", "+1", " 1", "1.0", "1_000", "\u0663", "\u00b2", "9" * 5000, True, 1.0, []],
)
def test_what_is_no_count_is_none(value: Any) -> None:
    request = {"status": "sent", "totalQuestions": value}
    root = {"id": "r", "attributes": {"activeRfRequest": request}}
    assert RFI.translate(Payload(root), STRAITSX).details["counts"] == {}


def test_an_rfi_with_two_active_requests_cannot_be_true() -> None:
    two = {"active_rf_request": {"status": "sent"}, "active_rfi_request": {"status": "received"}}
    with pytest.raises(InvalidCallback) as caught:
        RFI.envelope(Payload({"id": "r", "attributes": two}))
    assert caught.value.reason == "two_values"


def test_an_rfi_holds_neither_questions_nor_replies() -> None:
    assert "payslip" not in repr(fact(RFI, "straitsx/25-rfi-sent"))


def test_an_rfi_without_an_active_request_cannot_be_true() -> None:
    with pytest.raises(InvalidCallback) as caught:
        RFI.envelope(payload("straitsx/25-rfi-sent", None, activeRfRequest=None))
    assert caught.value.reason == "missing_status"


DECIDED = {
    "exception": "0f1e2d3c4b5a6978",
    "action": "keep",
    "keep": 9,
    "kind": "fx_payout",
    "resource": "d4d1da72",
    "reason": "conflict",
    "note": "confirmed by the bank",
    "by": "ops",
}


def test_a_decision_is_a_fact_about_the_stream_it_decides() -> None:
    reported = Payload(DECIDED)
    assert DECISION.envelope(reported) == Envelope("decision", "d4d1da72", "keep")
    assert DECISION.translate(reported, STRAITSX) == Fact(
        kind="decision", resource_id="d4d1da72", status="keep", details=DECIDED
    )


def test_a_decision_on_an_event_without_a_stream_has_no_resource() -> None:
    reported = Payload({"exception": "00ff", "action": "acknowledge", "keep": None, "by": "ops"})
    decided = DECISION.translate(reported, STRAITSX)
    assert (decided.resource_id, decided.status, decided.details["keep"]) == (
        "",
        "acknowledge",
        None,
    )
    assert decided.details["note"] is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"action": "delete"}, "bad_action"),
        ({"action": None}, "missing_action"),
        ({"keep": None}, "missing_keep"),
        ({"keep": "9"}, "bad_keep"),
        ({"keep": True}, "bad_keep"),
        ({"keep": 0}, "bad_keep"),
    ],
)
def test_a_decision_that_decides_nothing_is_refused(changes: Any, reason: str) -> None:
    with pytest.raises(InvalidCallback) as caught:
        DECISION.translate(Payload(DECIDED | changes), STRAITSX)
    assert caught.value.reason == reason


ATTRIBUTED: Any = {
    "action": "attribute",
    "kind": "payout",
    "resource": "contract_1",
    "customer_id": "cust_1",
    "note": "they asked us to pay",
    "by": "ops",
}


def test_an_attribution_names_the_customer_of_a_transaction() -> None:
    reported = Payload(ATTRIBUTED)
    assert DECISION.envelope(reported) == Envelope("decision", "contract_1", "attribute")
    decided = DECISION.translate(reported, STRAITSX)
    assert (decided.kind, decided.resource_id, decided.status) == (
        "decision",
        "contract_1",
        "attribute",
    )
    assert decided.details == ATTRIBUTED | {"reason": None}
    assert decided.customer_id is None, "the customer is the transaction's, not the decision's"


def test_an_attribution_to_null_undoes_the_ones_before() -> None:
    decided = DECISION.translate(Payload(ATTRIBUTED | {"customer_id": None}), STRAITSX)
    assert (decided.status, decided.details["customer_id"]) == ("attribute", None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": None}, "missing_kind"),
        ({"resource": ""}, "missing_resource"),
        ({"customer_id": ABSENT}, "missing_customer_id"),
        ({"customer_id": ""}, "bad_customer_id"),
        ({"customer_id": 5}, "bad_customer_id"),
        ({"customer_id": ["cust_1"]}, "bad_customer_id"),
        ({"customer_id": "x" * 513}, "bad_customer_id"),
        ({"note": 5.5}, "bad_note"),
    ],
)
def test_an_attribution_that_names_no_one_is_refused(changes: Any, reason: str) -> None:
    body = {k: v for k, v in (ATTRIBUTED | changes).items() if v is not ABSENT}
    with pytest.raises(InvalidCallback) as caught:
        DECISION.translate(Payload(body), STRAITSX)
    assert caught.value.reason == reason
