"""Which handler a body is for, and what tells its events apart."""

from __future__ import annotations

import hashlib

import pytest

from handlers import straitsx_bank_account, straitsx_payment, straitsx_payout
from ledger import registry
from ledger.errors import InvalidCallback, MalformedBody
from ledger.model import Envelope, Payload
from ledger.strict_json import parse
from tests import samples
from tests.samples import ABSENT, all_handlers, body, names, payload, readable

EVENTS = {
    "paymentStatusUpdated": {"payment"},
    "payoutStatusUpdated": {"payout", "fx_payout"},
    "userFxPayoutStatusUpdated": {"fx_payout"},
    "cpFxPayoutStatusUpdated": {"fx_payout"},
    "userDepositStatusUpdated": {"user_deposit"},
    "userWithdrawalStatusUpdated": {"user_withdrawal"},
    "stablecoinDepositStatusUpdated": {"chain_deposit"},
    "stablecoinWithdrawalStatusUpdated": {"chain_withdrawal"},
    "swapUpdated": {"swap"},
    "virtualAccountStatusUpdated": {"virtual_account"},
    "cpVerificationStatusUpdated": {"customer"},
    "cpTxnLimitsUpdated": {"limits"},
    "cpTxnLimitsUpdateRequestStatusUpdated": {"limits_request"},
    "cpRfiStatusUpdated": {"rfi"},
    "cpbaCreated": {"bank_account"},
    "cpbaVerificationStatusUpdated": {"bank_account"},
    "ubaCreated": {"bank_account"},
    "ubaVerificationStatusUpdated": {"bank_account"},
}

TAILS = {
    "straitsx/01-payment-xusd": "completed",
    "straitsx/04-user_deposit-usd": "completed",
    "straitsx/06-payout-usd": "completed",
    "straitsx/08-user_withdrawal-pending": "pending",
    "straitsx/10-fx_payout-failed": "failed",
    "straitsx/11-virtual_account-disabled": "disabled",
    "straitsx/13-swap-completed": "completed",
    "straitsx/14-chain_deposit-completed": "completed",
    "straitsx/15-chain_withdrawal-completed": "completed",
    "straitsx/16-customer-business": "verified@2025-06-13T04:30:12+00:00",
    "straitsx/19-limits-annual": None,
    "straitsx/21-limits_request-approved": "approved@2025-01-16T09:52:52+00:00",
    "straitsx/23-bank_account-pending": "pending@2026-02-03T10:13:25.237000+00:00",
    "straitsx/25-rfi-sent": None,
    "more/straitsx/fx_payout-transaction-cancelled": "failed",
}


def envelope_of(name: str, path_event: str | None = None, **changes: object) -> Envelope:
    reported = payload(name, path_event, **changes)
    (handler,) = [each for each in all_handlers("straitsx") if each.matches(reported)]
    return handler.envelope(reported)


@pytest.mark.parametrize("provider", ["straitsx", "gokart"])
def test_each_sample_is_matched_by_the_one_handler_its_name_states(provider: str) -> None:
    for name in readable(provider):
        stem = name.rsplit("/", 1)[1].removesuffix(".json")
        word = stem.split("-")[1] if stem[:2].isdigit() else stem.split("-")[0]
        kind = "conversion" if provider == "gokart" else word
        if stem == "payout-3-returned-as-payment":
            kind = "payment"
        matching = [each.kind for each in all_handlers(provider) if each.matches(payload(name))]
        assert matching == [kind], name


def test_every_handler_has_a_sample() -> None:
    for provider in ("straitsx", "gokart"):
        reported = [payload(name) for name in readable(provider)]
        for handler in all_handlers(provider):
            assert any(handler.matches(each) for each in reported), handler.kind


def test_the_25_samples_are_there_in_order_and_only_the_third_is_unreadable() -> None:
    found = names("straitsx")
    assert [name.split("/")[1][:2] for name in found] == [f"{n:02}" for n in range(1, 26)]
    unreadable = []
    for name in found:
        assert body(name).startswith(b"{"), name
        assert body(name).endswith(b"}"), name
        try:
            parse(body(name))
        except MalformedBody:
            unreadable.append(name)
    assert unreadable == ["straitsx/03-user_deposit-malformed.json"]


def test_the_25_samples_keep_their_bytes() -> None:
    joined = b"\n".join(body(name) for name in names("straitsx"))
    assert hashlib.sha256(joined).hexdigest() == (
        "0fa6b9c5eb35ff55b1dd16a9972dcd781c00711b25dd7f77890955fe9281db09"
    )


def test_the_published_conversion_without_a_comma_is_unreadable() -> None:
    with pytest.raises(MalformedBody, match="Expecting ',' delimiter"):
        parse(body("gokart/05-missing-comma"))


def test_the_event_names_of_the_documents_are_all_claimed() -> None:
    claimed: dict[str, set[str]] = {}
    for handler in all_handlers("straitsx"):
        for event in handler.events:
            claimed.setdefault(event, set()).add(handler.kind)
    assert claimed == EVENTS


@pytest.mark.parametrize(("name", "tail"), TAILS.items())
def test_the_tail_states_the_events_of_a_stream_apart(name: str, tail: str | None) -> None:
    assert envelope_of(name).tail == tail


def test_an_undocumented_status_is_kept_as_stated_and_keyed_by_the_body() -> None:
    for name in TAILS:
        field = {
            "customer": "verificationStatus",
            "bank_account": "verification_status",
        }.get(name.split("-", 1)[1].split("-")[0], "status")
        if "limits-" in name or "rfi-" in name:
            continue
        envelope = envelope_of(name, **{field: "Frozen"})
        assert (envelope.status, envelope.tail) == ("unknown:Frozen", None), name


def test_a_missing_status_cannot_be_true() -> None:
    with pytest.raises(InvalidCallback) as caught:
        envelope_of("straitsx/01-payment-xusd", status=ABSENT)
    assert caught.value.reason == "missing_status"


def test_a_missing_id_cannot_be_true() -> None:
    with pytest.raises(InvalidCallback) as caught:
        envelope_of("straitsx/01-payment-xusd", id=ABSENT)
    assert caught.value.reason == "missing_id"


def test_status_is_read_whatever_its_case() -> None:
    assert envelope_of("straitsx/01-payment-xusd", status="COMPLETED").status == "completed"


def test_the_envelope_does_not_read_money() -> None:
    for name in readable("straitsx"):
        root = {"amount": "much", "fees": ["?"], "token": 1.5, "currency": {}}
        reported = payload(name)
        changed = payload(name, **{key: root[key] for key in root if key in reported.fields})
        (handler,) = [each for each in all_handlers("straitsx") if each.matches(reported)]
        assert handler.envelope(changed) == handler.envelope(reported), name


def test_an_envelope_carries_identity_and_the_providers_time_in_utc() -> None:
    assert envelope_of("straitsx/08-user_withdrawal-pending") == Envelope(
        kind="user_withdrawal",
        resource_id="contract_bc14ed598f274bd09ccbf27401920154",
        status="pending",
        idempotency_id="trxn_idempotency_id_0000001_test_callback_again",
        provider_at=samples.utc("2025-06-13T04:39:53.127"),
        tail="pending",
    )


def test_an_unknown_type_is_answered_with_every_type_that_is_read() -> None:
    reported = Payload({"id": "x", "type": "odd"})
    with pytest.raises(InvalidCallback) as caught:
        registry.load().dispatch.handler("straitsx", reported)
    begin, _, listed = caught.value.detail.partition(", only ")
    assert begin == "no handler understands the type 'odd'"
    types = {name for each in all_handlers("straitsx") for name in each.types | each.shared_types}
    assert listed.split(", ") == sorted(types)
    assert {"paynowTransaction", "bankTransferTransaction"} < types


def test_users_and_customers_bank_accounts_are_numbered_apart() -> None:
    name = "straitsx/23-bank_account-pending"
    assert envelope_of(name).resource_id == "1"
    for event in ("cpbaCreated", "cpbaVerificationStatusUpdated"):
        assert envelope_of(name, event).resource_id == "1"
    for event in ("ubaCreated", "ubaVerificationStatusUpdated"):
        assert envelope_of(name, event).resource_id == "user:1"


@pytest.mark.parametrize("type_", ["paynowTransaction", "bankTransferTransaction"])
def test_a_shared_type_is_stated_by_its_shape_or_not_at_all(type_: str) -> None:
    incoming: tuple[dict[str, object], ...] = (
        {"sender_information": {}},
        {"senderInformation": None},
    )
    outgoing = ({"account_no": "1"}, {"accountNo": "1"}, {"payout_invoice_id": "x"})
    for shape in incoming:
        reported = Payload({"type": type_, **shape})
        assert straitsx_payment.matches(reported)
        assert not straitsx_payout.matches(reported)
    for other in outgoing:
        reported = Payload({"type": type_, **other})
        assert straitsx_payout.matches(reported)
        assert not straitsx_payment.matches(reported)
    neither = Payload({"type": type_, "amount": "1"})
    assert not straitsx_payment.matches(neither)
    assert not straitsx_payout.matches(neither)


def test_types_are_matched_exactly() -> None:
    for type_ in ("direct bank transfer", "Withdrawal", "banktransfer", "fxpayout", "rfirequest"):
        reported = Payload({"id": "x", "type": type_})
        assert not [each for each in all_handlers("straitsx") if each.matches(reported)], type_


def test_a_bank_account_has_no_type_an_account_number_and_a_verification_status() -> None:
    shape = {"id": 1, "accountNo": "1", "verificationStatus": "pending"}
    assert straitsx_bank_account.matches(Payload(shape))
    assert not straitsx_bank_account.matches(Payload(shape | {"type": "bank_account"}))
    for key in ("accountNo", "verificationStatus"):
        rest = {name: value for name, value in shape.items() if name != key}
        assert not straitsx_bank_account.matches(Payload(rest)), key


def test_no_provider_can_pose_as_the_operator() -> None:
    for handler in (*all_handlers("*"), *all_handlers("statement")):
        for provider in ("straitsx", "gokart"):
            for name in readable(provider):
                assert not handler.matches(payload(name))
        assert not handler.matches(Payload({"action": "keep", "resource": "x", "keep": 1}))
    posing = Payload({"id": "x", "type": "adjustment", "action": "write_off"})
    assert not [h for p in ("straitsx", "gokart") for h in all_handlers(p) if h.matches(posing)]


def test_a_type_that_a_handler_claims_alone_is_matched_by_no_other() -> None:
    known = registry.load()
    for provider, siblings in known.handlers.items():
        for handler in siblings:
            for name in handler.types:
                everything = {"type": name, "id": "x", "account_no": "1", "sender_information": {}}
                matching = [h for h in siblings if h.matches(Payload(everything))]
                assert (provider, name, matching) == (provider, name, [handler])
