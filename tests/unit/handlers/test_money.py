"""What the money callbacks of StraitsX state: exact facts, and what cannot be true."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from handlers import (
    straitsx_chain_deposit,
    straitsx_chain_withdrawal,
    straitsx_fx_payout,
    straitsx_payment,
    straitsx_payout,
    straitsx_swap,
    straitsx_user_deposit,
    straitsx_user_withdrawal,
)
from ledger.errors import InvalidCallback
from ledger.model import Fact, Handler, Number, plain
from tests.samples import ABSENT, STRAITSX, all_handlers, payload, readable, utc

CUSTOMER = "customer_profile_5b1f0c7e-2d94-4a86-9e53-0f6a7c8d9e10"


def fact(handler: Handler, name: str, /, **changes: Any) -> Fact:
    return handler.translate(payload(name, None, **changes), STRAITSX)


def refusal(handler: Handler, name: str, /, **changes: Any) -> str:
    with pytest.raises(InvalidCallback) as caught:
        fact(handler, name, **changes)
    return caught.value.reason


PAYMENT = straitsx_payment.HANDLER
PAYOUT = straitsx_payout.HANDLER
FX = straitsx_fx_payout.HANDLER
DEPOSIT = straitsx_user_deposit.HANDLER
WITHDRAWAL = straitsx_user_withdrawal.HANDLER
SWAP = straitsx_swap.HANDLER
CHAIN_IN = straitsx_chain_deposit.HANDLER
CHAIN_OUT = straitsx_chain_withdrawal.HANDLER

SIMPLE = [
    (PAYMENT, "straitsx/01-payment-xusd", "amount", "fees", "currency"),
    (PAYOUT, "straitsx/06-payout-usd", "amount", "fees", "currency"),
    (DEPOSIT, "straitsx/04-user_deposit-usd", "amount", "fees", "currency"),
    (WITHDRAWAL, "straitsx/08-user_withdrawal-pending", "amount", "fees", "currency"),
    (CHAIN_IN, "straitsx/14-chain_deposit-completed", "amount", "network_fees", "token"),
    (CHAIN_OUT, "straitsx/15-chain_withdrawal-completed", "amount", "network_fees", "token"),
]
each_simple = pytest.mark.parametrize(("handler", "name", "amount", "fees", "currency"), SIMPLE)


def test_a_bank_transfer_payment_is_gross_of_its_fees_and_belongs_to_its_customer() -> None:
    assert fact(PAYMENT, "straitsx/01-payment-xusd") == Fact(
        kind="payment",
        resource_id="contract_820d55d3621342bbad68a5d795e8a88d",
        status="completed",
        effective_at=utc("2025-04-16T08:15:43.330"),
        idempotency_id="0ded43ab-3f06-498d-a776-8fa8fd8ddf35",
        customer_id="customer_profile_74a5cfe1-587e-4dcf-8885-3e92f5d3c96c",
        amount=Decimal(29955),
        currency="XUSD",
        fees=Decimal(0),
        details={
            "virtual_account_id": "virtual_account_a1b2c3d4-e5f6-7890-abcd-ef1234567890",
            "account_no": "885381014328374",
            "merchant_ref": "John Doe",
            "end_to_end_ref": "S0661340E3B601",
            "blocked_reasons": [],
        },
    )


def test_the_second_payment_sample_translates_without_the_optional_bank_fields() -> None:
    reported = fact(PAYMENT, "straitsx/02-payment-xsgd")
    assert (reported.amount, reported.currency, reported.fees) == (
        Decimal(1000),
        "XSGD",
        Decimal(0),
    )
    assert reported.customer_id == "customer_profile_af516116-f262-4582-9536-4ddc86fc7442"
    assert reported.effective_at == utc("2025-04-16T02:30:22.850")


def test_a_paynow_payment_is_a_payment() -> None:
    reported = fact(PAYMENT, "straitsx/05-payment-paynow")
    assert (reported.status, reported.amount, reported.currency) == (
        "completed",
        Decimal(50),
        "XSGD",
    )
    assert reported.idempotency_id == "2026051400001234"
    assert reported.details["virtual_account_id"] == "paynow_b2c3d4e5-f6a7-8901-bcde-f12345678901"
    assert reported.details["account_no"] is None


def test_a_payments_states_agree_in_everything_material() -> None:
    stages = ["payment-1-pending", "payment-2-completed", "payment-3-refunded"]
    reported = [fact(PAYMENT, f"more/straitsx/{name}") for name in stages]
    assert [each.status for each in reported] == ["pending", "completed", "refunded"]
    material = {(e.resource_id, e.amount, e.currency, e.fees, e.customer_id) for e in reported}
    contract = "contract_1a0f4e6b8c2d43e5a7b9c1d3e5f70001"
    assert material == {(contract, Decimal(250), "XSGD", Decimal("0.5"), CUSTOMER)}


def test_a_blocked_payment_stays_pending_with_its_reasons() -> None:
    reported = fact(PAYMENT, "more/straitsx/payment-blocked")
    assert (reported.status, reported.details["blocked_reasons"]) == ("pending", ["NM-001"])
    plain_codes = fact(PAYMENT, "more/straitsx/payment-blocked", blocked_reasons=["CR-001", 5])
    assert plain_codes.details["blocked_reasons"] == ["CR-001"]


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (PAYMENT, "more/straitsx/payment-blocked"),
        (DEPOSIT, "straitsx/04-user_deposit-usd"),
        (CHAIN_IN, "straitsx/14-chain_deposit-completed"),
    ],
)
def test_blocked_reasons_in_another_shape_are_read_or_flagged(handler: Handler, name: str) -> None:
    for value, codes, raised in (("odd", ["odd"], False), (7, [], True), ([], [], False)):
        reported = fact(handler, name, blocked_reasons=ABSENT, blockedReasons=value)
        assert reported.details["blocked_reasons"] == codes
        assert ("blocked_reasons_unread" in reported.flags) == raised


def test_failed_and_expired_payments_keep_their_status() -> None:
    assert fact(PAYMENT, "more/straitsx/payment-failed").status == "failed"
    reported = fact(PAYMENT, "more/straitsx/payment-paynow-expired")
    assert (reported.status, reported.amount) == ("expired", Decimal("18.9"))


def test_camel_case_and_number_money_state_the_same_payment() -> None:
    reported = fact(PAYMENT, "more/straitsx/payment-camel-numbers")
    assert reported == Fact(
        kind="payment",
        resource_id="contract_1a0f4e6b8c2d43e5a7b9c1d3e5f70006",
        status="completed",
        effective_at=utc("2026-03-02T07:30:01"),
        idempotency_id="5e0c1f52-7d3a-4b86-9c0e-1a2b3c4d0006",
        customer_id=CUSTOMER,
        amount=Decimal("1000.1"),
        currency="XSGD",
        fees=Decimal("0.1"),
        details={
            "virtual_account_id": "virtual_account_4c7d2f10-93ab-4e5f-8a61-7b2c3d4e5f60",
            "account_no": "3225445900042",
            "merchant_ref": "shop-va-0042",
            "end_to_end_ref": "DBS26030203100006",
            "blocked_reasons": [],
        },
    )


def test_a_returned_payout_names_the_payout_that_came_back() -> None:
    name = "more/straitsx/payout-3-returned-as-payment"
    reported = fact(PAYMENT, name)
    payout = fact(PAYOUT, "more/straitsx/payout-2-completed")
    assert reported.details["returned_ids"] == [payout.idempotency_id] == ["payout-2026-03-0001"]
    assert (reported.amount, reported.currency) == (payout.amount, payout.currency)
    assert reported.customer_id is None


@pytest.mark.parametrize("handler", [PAYMENT, DEPOSIT])
@pytest.mark.parametrize(
    ("flat", "nested", "expected"),
    [
        ("RTN abc-1", None, ["abc-1"]),
        (None, {"transaction_remarks": "RTN  abc-2 returned"}, ["abc-2 returned", "abc-2"]),
        (None, {"transactionRemarks": "RTN abc-3"}, ["abc-3"]),
        ("", {"transaction_remarks": "/ROC/RTN abc-4"}, ["abc-4"]),
        ("RTN abc-5", {"transaction_remarks": "RTN abc-5"}, ["abc-5"]),
        ("RTN abc-6", {"transaction_remarks": "RTN abc-6-longer"}, ["abc-6-longer", "abc-6"]),
        ("RTN", {"transaction_remarks": "RTN abc-7"}, ["abc-7"]),
        ("RTN", None, []),
        ("RETURN abc", {"transaction_remarks": "PARTNER abc"}, None),
        (17, {"transaction_remarks": ["RTN x"]}, None),
        (None, "RTN abc", None),
    ],
)
def test_remarks_name_the_payout_that_came_back_flat_or_with_the_sender(
    handler: Handler, flat: Any, nested: Any, expected: list[str] | None
) -> None:
    name = "01-payment-xusd" if handler is PAYMENT else "04-user_deposit-usd"
    for remarks in ("transaction_remarks", "transactionRemarks"):
        stated: dict[str, Any] = dict.fromkeys(
            ("sender_information", "senderInformation", "transaction_remarks"), ABSENT
        )
        stated |= {remarks: flat, "sender_information": nested}
        reported = fact(handler, f"straitsx/{name}", **stated)
        assert reported.details.get("returned_ids") == expected


@pytest.mark.parametrize("remarks", ["RTN abc-1", "INVOICE"])
def test_remarks_that_are_given_twice_with_two_values_cannot_be_true(remarks: str) -> None:
    disputed = {"transaction_remarks": "RTN abc-2", "transactionRemarks": "RTN abc-3"}
    stated = {"transaction_remarks": remarks, "sender_information": disputed}
    with pytest.raises(
        InvalidCallback, match="transaction_remarks and transactionRemarks disagree"
    ):
        fact(PAYMENT, "straitsx/01-payment-xusd", **stated)


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (PAYMENT, "straitsx/01-payment-xusd"),
        (DEPOSIT, "straitsx/04-user_deposit-usd"),
        (CHAIN_IN, "straitsx/14-chain_deposit-completed"),
    ],
)
def test_every_incoming_kind_keeps_why_it_is_blocked(handler: Handler, name: str) -> None:
    coded = [{"code": "NM-001"}, "CR-001", {"code": None}, {}, 5]
    for spelling in ("blocked_reasons", "blockedReasons"):
        absent = dict.fromkeys(("blocked_reasons", "blockedReasons"), ABSENT)
        for value, expected in ((coded, ["NM-001", "CR-001"]), (None, []), ("NM-001", ["NM-001"])):
            reported = fact(handler, name, **(absent | {spelling: value}))
            assert reported.details["blocked_reasons"] == expected


STATED_TIMES = [
    (handler, name, {"status": status}, created, updated)
    for handler, name, status, created, updated in [
        (PAYMENT, "straitsx/01-payment-xusd", "completed", "created_at", "updated_at"),
        (PAYOUT, "straitsx/06-payout-usd", "failed", "created_at", "updated_at"),
        (DEPOSIT, "straitsx/04-user_deposit-usd", "completed", "createdAt", "updatedAt"),
        (WITHDRAWAL, "straitsx/08-user_withdrawal-pending", "failed", "createdAt", "updatedAt"),
        (FX, "straitsx/09-fx_payout-completed", "completed", "createdAt", "updatedAt"),
        (SWAP, "straitsx/13-swap-completed", "completed", "createdAt", "updatedAt"),
        (CHAIN_IN, "straitsx/14-chain_deposit-completed", "failed", "created_at", "updated_at"),
        (CHAIN_OUT, "straitsx/15-chain_withdrawal-completed", "failed", "created_at", "updated_at"),
    ]
]


@pytest.mark.parametrize(("handler", "name", "stated", "created", "updated"), STATED_TIMES)
def test_a_final_state_with_the_creations_time_alone_is_flagged(
    handler: Handler, name: str, stated: dict[str, Any], created: str, updated: str
) -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    no_date = "0001-01-01T00:00:00Z"

    def flags_of(**changes: Any) -> tuple[str, ...]:
        return fact(handler, name, **(stated | changes)).flags

    assert flags_of(**{created: early, updated: ABSENT}) == ("dated_by_creation",)
    assert flags_of(**{created: early, updated: no_date}) == ("dated_by_creation",)
    assert flags_of(**{created: early, updated: late}) == ()
    assert flags_of(**{created: early, updated: early}) == ()
    assert flags_of(**{created: ABSENT, updated: ABSENT}) == ()
    assert flags_of(**{created: early, updated: ABSENT, "status": "pending"}) == ()


def test_a_payout_states_amount_fees_and_what_became_of_it() -> None:
    assert fact(PAYOUT, "straitsx/06-payout-usd") == Fact(
        kind="payout",
        resource_id="contract_c3d4e5f6-a7b8-9012-cdef-123456789012",
        status="completed",
        effective_at=utc("2026-05-14T01:11:27.946"),
        idempotency_id="payout-usd-unique-key-789",
        customer_id=None,
        amount=Decimal(10000),
        currency="USD",
        fees=Decimal(0),
        details={
            "failure_reason": None,
            "arrival": "14 May 2026 - 9:11 AM",
            "express": None,
            "charge_option": "OUR",
            "external_reference": "payout-ext-ref-789",
            "payout_invoice_id": "payout-usd-unique-key-789",
        },
    )
    domestic = fact(PAYOUT, "straitsx/07-payout-sgd")
    assert (domestic.amount, domestic.currency) == (Decimal(500), "SGD")
    assert domestic.details["express"] == "FAST"


def test_a_payout_is_read_from_a_form() -> None:
    assert fact(PAYOUT, "more/straitsx/payout-completed.form") == Fact(
        kind="payout",
        resource_id="contract_1a0f4e6b8c2d43e5a7b9c1d3e5f71001",
        status="completed",
        effective_at=utc("2026-03-12T01:30:48.420"),
        idempotency_id="payout-form-0001",
        amount=Decimal("40.5"),
        currency="XSGD",
        fees=Decimal("0.5"),
        details={
            "failure_reason": None,
            "arrival": "12 Mar 2026 -  9:30 AM",
            "express": "FAST",
            "charge_option": None,
            "external_reference": None,
            "payout_invoice_id": "payout-form-0001",
        },
        flags=("dated_by_creation",),
    )
    assert fact(PAYOUT, "more/straitsx/payout-usd-completed.form") == Fact(
        kind="payout",
        resource_id="contract_1a0f4e6b8c2d43e5a7b9c1d3e5f71002",
        status="completed",
        effective_at=utc("2026-03-11T09:57:42.487"),
        idempotency_id="payout-form-0002",
        amount=Decimal(50),
        currency="USDC",
        fees=Decimal("0.5"),
        details={
            "failure_reason": None,
            "arrival": "11 Mar 2026 -  5:57 PM",
            "express": "FAST",
            "charge_option": None,
            "external_reference": "order 77/A",
            "payout_invoice_id": "payout-form-0002",
        },
        flags=("dated_by_creation",),
    )


def test_a_failed_payout_states_why() -> None:
    reported = fact(PAYOUT, "more/straitsx/payout-failed-2")
    assert (reported.status, reported.amount, reported.fees) == (
        "failed",
        Decimal("41.5"),
        Decimal(1),
    )
    assert reported.details["failure_reason"] == "Invalid account number"


@pytest.mark.parametrize(
    ("name", "amount", "fees", "currency"),
    [
        ("payout-swift", "5000", "50", "XUSD"),
        ("payout-paynow", "15", "0.2", "XSGD"),
        ("payout-bank-transfer-transaction", "99.99", None, "XSGD"),
    ],
)
def test_payouts_of_other_types_are_payouts(
    name: str, amount: str, fees: str | None, currency: str
) -> None:
    reported = fact(PAYOUT, f"more/straitsx/{name}")
    assert reported.kind == "payout"
    assert reported.fees == (None if fees is None else Decimal(fees))
    assert (reported.amount, reported.currency) == (Decimal(amount), currency)


def test_an_fx_payout_debits_from_and_fee_and_names_what_the_recipient_gets() -> None:
    expected = Fact(
        kind="fx_payout",
        resource_id="d4d1da72-111e-4d52-bdbf-2e74a2d803d5",
        status="completed",
        effective_at=utc("2025-03-25T12:10:00"),
        amount=Decimal(1000),
        currency="XUSD",
        fees=Decimal("1.5"),
        terms={"to_amount": "15832500", "to_currency": "IDR"},
        details={"quote_id": "fx_quote_c4d1da72-111e-4d52-bdbf-2e74a2d803d5"},
    )
    assert fact(FX, "straitsx/09-fx_payout-completed") == expected


def test_an_fx_payouts_customer_is_its_initiators() -> None:
    reported = fact(FX, "straitsx/10-fx_payout-failed")
    assert (reported.status, reported.customer_id) == (
        "failed",
        "b2c3d4e5-f6a7-8901-bcde-f23456789012",
    )
    assert reported.effective_at == utc("2025-03-25T14:15:30")


def test_the_other_spelling_of_fx_payouts_is_understood() -> None:
    reported = fact(FX, "more/straitsx/fx_payout-transaction-cancelled")
    assert (reported.status, reported.amount, reported.fees) == (
        "failed",
        Decimal("91.53"),
        Decimal("0.75"),
    )
    assert reported.terms == {"to_amount": "1500000", "to_currency": "IDR"}


def test_an_fx_payout_without_a_fee_has_unknown_fees() -> None:
    assert fact(FX, "more/straitsx/fx_payout-without-fee").fees is None
    assert fact(FX, "straitsx/09-fx_payout-completed", fee={"currency": "XUSD"}).fees is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fee": {"currency": "USD", "amount": "1.50"}}, "fee_currency"),
        ({"fee": {"amount": "1.50"}}, "missing_currency"),
        ({"fee": {"currency": "XUSD", "amount": "-1"}}, "negative_fees"),
        ({"fee": "1.50"}, "bad_fee"),
        ({"from": ABSENT}, "missing_amount"),
        ({"from": {"currency": "XUSD"}}, "missing_amount"),
        ({"from": {"currency": "XUSD", "amount": "-5"}}, "negative_amount"),
        ({"from": {"amount": "5"}}, "missing_currency"),
        ({"to": None}, "missing_amount"),
        ({"to": {"amount": "5"}}, "missing_currency"),
        ({"to": {"currency": "IDR", "amount": "-5"}}, "negative_amount"),
        ({"to": {"currency": "IDR", "amount": "1e6"}}, "bad_amount"),
    ],
)
def test_an_fx_payout_that_cannot_be_true_is_refused(changes: Any, reason: str) -> None:
    assert refusal(FX, "straitsx/09-fx_payout-completed", **changes) == reason


def test_a_user_deposit_takes_its_created_time_when_it_has_no_other() -> None:
    assert fact(DEPOSIT, "straitsx/04-user_deposit-usd") == Fact(
        kind="user_deposit",
        resource_id="contract_dcf0c5e4065a41f78a0fb601b10ecacf",
        status="completed",
        effective_at=utc("2025-07-17T06:22:33.399"),
        idempotency_id="04e708d2-f53d-4f70-bf18-518e5b897019",
        amount=Decimal(100),
        currency="USD",
        fees=Decimal(0),
        details={"blocked_reasons": []},
        flags=("dated_by_creation",),
    )


def test_a_user_deposit_in_snake_case_states_the_same() -> None:
    reported = fact(DEPOSIT, "more/straitsx/user_deposit-snake")
    assert (reported.amount, reported.fees, reported.currency) == (
        Decimal("45.6"),
        Decimal(0),
        "USD",
    )
    assert reported.idempotency_id == "8f21c3d4-0003-4aaa-9bbb-ccccdddd0003"
    assert reported.effective_at == utc("2026-03-03T05:00:09")


def test_a_user_withdrawal_is_read_bare_and_wrapped_alike() -> None:
    bare = fact(WITHDRAWAL, "more/straitsx/user_withdrawal-1-pending")
    wrapped = fact(WITHDRAWAL, "more/straitsx/user_withdrawal-2-completed-in-data")
    assert (bare.status, wrapped.status) == ("pending", "completed")
    for reported in (bare, wrapped):
        assert (reported.amount, reported.fees, reported.currency) == (
            Decimal(500),
            Decimal("1.5"),
            "XSGD",
        )
        assert reported.idempotency_id == "settlement-2026-10-0001"
        assert reported.flags == ()


def test_the_withdrawal_sample_states_a_tenth_exactly() -> None:
    reported = fact(WITHDRAWAL, "straitsx/08-user_withdrawal-pending")
    assert (reported.amount, reported.fees, reported.flags) == (Decimal("0.1"), Decimal(0), ())


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        ("501.5", ()),
        ("500.0", ()),
        ("498.5", ()),
        (500, ()),
        (None, ()),
        (ABSENT, ()),
        ("499", ("net_amount_unexplained",)),
    ],
)
def test_net_amount_is_checked_and_never_used(net: Any, expected: tuple[str, ...]) -> None:
    reported = fact(WITHDRAWAL, "more/straitsx/user_withdrawal-1-pending", netAmount=net)
    assert (reported.amount, reported.flags) == (Decimal(500), expected)


def test_net_amount_is_checked_to_the_last_of_38_digits() -> None:
    amount, fees = "99999999999999999999", "0.000000000000000001"
    name = "more/straitsx/user_withdrawal-1-pending"
    for net in (
        "99999999999999999998.999999999999999999",
        "99999999999999999999.000000000000000001",
    ):
        assert fact(WITHDRAWAL, name, amount=amount, fees=fees, netAmount=net).flags == ()
    small = {"amount": "10000000000.000000000000000002", "fees": "10000000000.000000000000000001"}
    assert fact(WITHDRAWAL, name, **small, netAmount="0.000000000000000001").flags == ()


def test_a_swap_adds_its_fees_and_keeps_the_target_as_terms() -> None:
    assert fact(SWAP, "straitsx/13-swap-completed") == Fact(
        kind="swap",
        resource_id="contract_ff8c902f245f4124b1f28bed306f9b8b",
        status="completed",
        effective_at=utc("2024-04-03T10:25:51.936"),
        idempotency_id="sang_test3",
        customer_id=None,
        amount=Decimal("13304.95"),
        currency="XSGD",
        fees=Decimal("13.3"),
        terms={"target_amount": "10000", "target_currency": "USDC"},
        details={"quote_id": "8185705a-857d-4e0c-a0e0-8453b3cf4929", "fixed_side": "target"},
    )


def test_a_swap_states_the_same_in_text_and_numbers() -> None:
    texts = {
        "sourceCurrencyAmount": "13304.950",
        "targetCurrencyAmount": "10000.00",
        "totalSourceCurrencyAmount": "13318.2500",
        "fees": [
            {"amount": "13.0", "currency": "xsgd"},
            {"amount": Number("0.30"), "currency": "XSGD"},
        ],
        "targetCurrency": "usdc",
    }
    name = "straitsx/13-swap-completed"
    assert fact(SWAP, name, **texts) == fact(SWAP, name)


def test_a_swap_without_fees_costs_none_and_without_a_list_is_unknown() -> None:
    reported = fact(SWAP, "more/straitsx/swap-failed-without-fees")
    assert (reported.status, reported.fees) == ("failed", Decimal(0))
    assert reported.terms == {"target_amount": "13.7445", "target_currency": "XSGD"}
    assert fact(SWAP, "straitsx/13-swap-completed", fees=None).fees == Decimal("13.3")
    unstated = {"fees": None, "totalSourceCurrencyAmount": None}
    assert fact(SWAP, "straitsx/13-swap-completed", **unstated).fees is None
    unlisted = unstated | {"fees": ABSENT}
    assert fact(SWAP, "straitsx/13-swap-completed", **unlisted).fees is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"totalSourceCurrencyAmount": Number("13318.26")}, "total_mismatch"),
        ({"fees": []}, "total_mismatch"),
        ({"fees": [{"amount": Number("13.3"), "currency": "USDC"}]}, "fee_currency"),
        ({"fees": [{"amount": Number("13.3")}]}, "missing_currency"),
        ({"fees": [{"amount": Number("-13.3"), "currency": "XSGD"}]}, "negative_fees"),
        ({"fees": [{"currency": "XSGD"}]}, "missing_amount"),
        ({"fees": [5]}, "bad_fees"),
        ({"fees": "13.3"}, "bad_fees"),
        ({"sourceCurrencyAmount": None}, "missing_amount"),
        ({"sourceCurrencyAmount": -1}, "negative_amount"),
        ({"sourceCurrencyAmount": "$13"}, "bad_source_currency_amount"),
        ({"sourceCurrency": ABSENT}, "missing_currency"),
        ({"targetCurrencyAmount": ABSENT}, "missing_amount"),
        ({"targetCurrencyAmount": Number("-0.5")}, "negative_amount"),
        ({"targetCurrency": ""}, "missing_currency"),
        ({"source_currency_amount": "1"}, "two_values"),
    ],
)
def test_a_swap_that_cannot_be_true_is_refused(changes: Any, reason: str) -> None:
    assert refusal(SWAP, "straitsx/13-swap-completed", **changes) == reason


def test_a_blockchain_deposit_takes_its_currency_from_the_token() -> None:
    hash_ = "0x7f3e8b2a1c9d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e3f4a5b6c7d8e"
    assert fact(CHAIN_IN, "straitsx/14-chain_deposit-completed") == Fact(
        kind="chain_deposit",
        resource_id="contract_0d151e28146d42aabf9115ee3f6c6926",
        status="completed",
        effective_at=utc("2026-01-23T11:07:45.693"),
        idempotency_id="e8b7c6d5a4f3e2d1c0b9a8f7e6d5c4b3",
        amount=Decimal(1),
        currency="XSGD",
        fees=Decimal(0),
        details={
            "transaction_hash": hash_,
            "blockchain": "XSGD_ERC20",
            "network": "Ethereum",
            "blocked_reasons": [],
        },
        flags=("dated_by_creation",),
    )


def test_network_fees_on_a_deposit_are_flagged() -> None:
    reported = fact(CHAIN_IN, "more/straitsx/chain_deposit-with-network-fees")
    assert (reported.amount, reported.fees) == (Decimal(40), Decimal("0.5"))
    assert reported.flags == ("network_fees_on_deposit", "dated_by_creation")


def test_a_blockchain_deposit_in_camel_case_states_the_same() -> None:
    reported = fact(CHAIN_IN, "more/straitsx/chain_deposit-failed-camel")
    assert (reported.status, reported.amount, reported.fees) == ("failed", Decimal(7), Decimal(0))
    assert reported.idempotency_id == "chain-in-2026-03-0002"
    assert reported.details == {
        "transaction_hash": "0x11",
        "blockchain": "USDC_ERC20",
        "network": "Ethereum",
        "blocked_reasons": [],
    }


def test_a_blockchain_withdrawal_states_the_networks_fees() -> None:
    reported = fact(CHAIN_OUT, "straitsx/15-chain_withdrawal-completed")
    assert (reported.amount, reported.fees, reported.currency) == (
        Decimal(2),
        Decimal("0.02"),
        "XSGD",
    )
    assert (reported.idempotency_id, reported.flags) == ("testing", ("dated_by_creation",))
    pending = fact(CHAIN_OUT, "more/straitsx/chain_withdrawal-1-pending")
    assert (pending.amount, pending.fees) == (Decimal(30), Decimal("0.35"))


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (CHAIN_IN, "straitsx/14-chain_deposit-completed"),
        (CHAIN_OUT, "straitsx/15-chain_withdrawal-completed"),
    ],
)
def test_a_blockchain_total_is_amount_and_network_fees(handler: Handler, name: str) -> None:
    assert refusal(handler, name, total_amount="2.01") == "total_mismatch"
    stated = fact(handler, name, total_amount="2.01", network_fees=None)
    assert stated.fees == Decimal("2.01") - (stated.amount or 0)
    assert fact(handler, name, total_amount=ABSENT).amount == fact(handler, name).amount


@each_simple
def test_money_that_is_missing_negative_or_unreadable_cannot_be_true(
    handler: Handler, name: str, amount: str, fees: str, currency: str
) -> None:
    cases: list[tuple[str, Any, str]] = [
        (amount, ABSENT, "missing_amount"),
        (amount, None, "missing_amount"),
        (amount, "-1", "negative_amount"),
        (amount, Number("-0.01"), "negative_amount"),
        (amount, "", "bad_amount"),
        (amount, "$12.71", "bad_amount"),
        (amount, " 1", "bad_amount"),
        (amount, "1,000", "bad_amount"),
        (amount, "1e3", "bad_amount"),
        (amount, Number("1e20"), "bad_amount"),
        (amount, "١", "bad_amount"),
        (amount, True, "bad_amount"),
        (amount, {"value": "1"}, "bad_amount"),
        (amount, 10**20, "bad_amount"),
        (fees, "-0.5", "negative_fees"),
        (fees, "free", "bad_" + fees),
        (currency, ABSENT, "missing_currency"),
        (currency, "", "missing_currency"),
        (currency, "S$", "bad_currency"),
    ]
    for field, value, reason in cases:
        assert refusal(handler, name, **{field: value}) == reason, (field, value)


@each_simple
def test_text_and_number_money_agree(
    handler: Handler, name: str, amount: str, fees: str, currency: str
) -> None:
    rest: dict[str, Any] = {"total_amount": ABSENT} if currency == "token" else {}
    if handler is WITHDRAWAL:
        rest = {"netAmount": ABSENT}
    texts = fact(handler, name, **{amount: "13304.950", fees: "0.10"}, **rest)
    numbers = fact(handler, name, **{amount: Number("13304.95"), fees: Number("0.1")}, **rest)
    assert texts == numbers
    assert (texts.amount, texts.fees) == (Decimal("13304.95"), Decimal("0.1"))
    whole = fact(handler, name, **{amount: 5, fees: 0}, **rest)
    assert (whole.amount, whole.fees) == (Decimal(5), Decimal(0))


@each_simple
def test_absent_fees_are_unknown_and_not_zero(
    handler: Handler, name: str, amount: str, fees: str, currency: str
) -> None:
    for unknown in (None, ABSENT):
        unstated = {"total_amount": None, fees: unknown}
        assert fact(handler, name, **unstated).fees is None


@each_simple
def test_an_amount_of_zero_is_flagged(
    handler: Handler, name: str, amount: str, fees: str, currency: str
) -> None:
    zero: dict[str, Any] = {amount: "-0.00", fees: "0", "total_amount": "0"}
    reported = fact(handler, name, netAmount="0", **zero)
    assert (reported.amount, reported.flags[0]) == (Decimal(0), "zero_amount")
    assert "zero_amount" not in fact(handler, name).flags
    assert plain(reported.amount or Decimal(0)) == "0"


@each_simple
def test_an_empty_customer_is_none(
    handler: Handler, name: str, amount: str, fees: str, currency: str
) -> None:
    for spelling in ("customer_profile_id", "customerProfileId"):
        empty = {"customer_profile_id": ABSENT} if handler is PAYMENT else {}
        empty[spelling] = ""
        named = {"customer_profile_id": ABSENT} if handler is PAYMENT else {}
        named[spelling] = "c1"
        assert fact(handler, name, **empty).customer_id is None
        assert fact(handler, name, **named).customer_id == "c1"


def test_no_fact_holds_what_the_samples_know_of_people() -> None:
    known = ("MEI LIN", "Jane Smith", "JOHN DOE", "ACME FINTECH PTE. LTD.", "Ettie", "0721100042")
    for name in readable("straitsx"):
        reported = payload(name)
        for handler in all_handlers("straitsx"):
            if handler.matches(reported):
                text = repr(handler.translate(reported, STRAITSX))
                assert not [word for word in known if word in text], name
