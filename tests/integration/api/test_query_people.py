"""Law: a customer is told with everything that names it, and verification with its history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.asking import Json, Service, payment, serving
from tests.conftest import Database

CUSTOMER = "customer_profile_12313123"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def profile(status: str, at: str, **changes: Any) -> Json:
    """Return a customer's verification callback."""
    attributes = {
        "registrationType": "personal",
        "verificationStatus": status,
        "country": "SG",
        "createdAt": "2026-01-01T00:00:00Z",
        "updatedAt": at,
    }
    return {
        "data": {"id": "cust_1", "type": "customer_profile", "attributes": attributes | changes}
    }


async def test_the_samples_customers_are_listed_with_their_verification(service: Service) -> None:
    await service.post_samples("straitsx")
    await service.fold()
    listed = (await service.ask("/v1/customers"))["customers"]
    rows = [row for row in listed if row["verification_status"] is not None]
    assert sorted(row["verification_status"] for row in rows) == ["rejected"] + ["verified"] * 3
    assert {row["registration_type"] for row in rows} == {"personal", "business"}
    (rejected,) = (await service.ask("/v1/customers", verification_status="rejected"))["customers"]
    assert rejected["rejection"] is not None
    assert rejected["updated_at"] == "2025-09-15T07:10:22Z"
    assert (await service.ask("/v1/customers", source="gokart"))["customers"] == []
    for row in rows:
        whole = await service.ask(f"/v1/customers/straitsx/{row['id']}")
        assert {**row, **{name: whole[name] for name in ("balances", "notes", "position")}} == whole
        assert [step["status"] for step in row["history"]][-1:] == [row["verification_status"]]


async def test_verification_follows_the_providers_time_and_keeps_its_history(
    service: Service,
) -> None:
    await service.post_json("straitsx", profile("verified", "2026-01-03T00:00:00Z"))
    await service.post_json("straitsx", profile("rejected", "2026-01-02T00:00:00Z"))
    await service.fold()
    answer = await service.ask("/v1/customers/straitsx/cust_1")
    assert answer["verification_status"] == "verified"
    assert [(s["position"], s["status"]) for s in answer["history"]] == [
        (1, "verified"),
        (2, "rejected"),
    ]
    await service.post_json("straitsx", profile("rejected", "2026-01-04T00:00:00Z"))
    await service.fold()
    answer = await service.ask("/v1/customers/straitsx/cust_1")
    assert answer["verification_status"] == "rejected"
    assert answer["position"]["straitsx"] == 3


async def test_a_customer_known_from_limits_only_has_no_verification_status(
    service: Service,
) -> None:
    await service.post_samples("straitsx")
    await service.fold()
    answer = await service.ask(f"/v1/customers/straitsx/{CUSTOMER}")
    assert answer["verification_status"] is None
    assert answer["history"] == []
    (limits,) = answer["limits"]
    assert limits["id"] == "abc_1234"
    assert limits["limits"]["total_annual_payment_limit"] == "200000"
    assert limits["limits"]["total_daily_payment_limit"] == "200000"
    (request,) = answer["limit_requests"]
    assert request["status"] == "approved"


async def test_two_customers_with_one_id_have_limits_and_requests_of_their_own(
    service: Service,
) -> None:
    for customer, limit, status in (("cust_1", 1, "approved"), ("cust_2", 2, "rejected")):
        limits = {"customerProfileId": customer, "totalDailyPayoutLimit": limit}
        request = {"customerProfileId": customer, "status": status}
        for type_, attributes in (
            ("transactionLimits", limits),
            ("transactionLimitsUpdateRequest", request),
        ):
            data = {"id": "abc_1", "type": type_, "attributes": attributes}
            await service.post_json("straitsx", {"data": data})
    await service.fold()
    for customer, limit, status in (("cust_1", "1", "approved"), ("cust_2", "2", "rejected")):
        for as_of in ({}, {"position": "straitsx:4"}):
            answer = await service.ask(f"/v1/customers/straitsx/{customer}", **as_of)
            (limits,), (request,) = answer["limits"], answer["limit_requests"]
            assert limits == {"id": "abc_1", "limits": {"total_daily_payout_limit": limit}}
            assert (request["id"], request["status"]) == ("abc_1", status)
    listed = (await service.ask("/v1/limits"))["limits"]
    assert [(each["id"], each["customer_id"]) for each in listed] == [
        ("abc_1", "cust_1"),
        ("abc_1", "cust_2"),
    ]
    assert len((await service.ask("/v1/limit_requests"))["limit_requests"]) == 2
    events = (await service.ask("/v1/events", resource_id="abc_1"))["events"]
    assert [event["position"] for event in events] == [4, 3, 2, 1]
    of_row = {"kind": "limits_request", "resource_id": "cust_1/abc_1"}
    events = (await service.ask("/v1/events", **of_row))["events"]
    assert [event["position"] for event in events] == [4, 2]
    (row, _) = (await service.ask("/v1/views/limits"))["rows"]
    assert (row["id"], row["provider_id"]) == ("cust_1/abc_1", "abc_1")


async def test_a_customer_known_from_a_payment_only_is_stated(service: Service) -> None:
    await service.post_json("straitsx", payment(1, customer_profile_id="cust_9"))
    await service.fold()
    answer = await service.ask("/v1/customers/straitsx/cust_9")
    assert (answer["id"], answer["verification_status"]) == ("cust_9", None)


async def test_a_customer_no_one_named_is_not_found(service: Service) -> None:
    status, found = await service.refused("/v1/customers/straitsx/nobody")
    assert (status, found["detail"]) == (404, "source straitsx knows no customer 'nobody'")


async def test_a_virtual_account_belongs_to_whom_its_payments_name(service: Service) -> None:
    account = {"referenceId": "r", "currency": "XSGD", "status": "enabled"}
    for name, number in (("va_1", "111"), ("va_2", "222"), ("va_3", "333")):
        attributes = {**account, "instructions": {"accountNo": number}}
        data = {"id": name, "type": "virtual_bank_account", "attributes": attributes}
        await service.post_json("straitsx", {"data": data})
    by_id = {"id": "va_1", "account_no": "000"}
    await service.post_json(
        "straitsx", payment(1, customer_profile_id="cust_1", payment_method=by_id)
    )
    await service.post_json(
        "straitsx", payment(2, customer_profile_id="cust_1", bank_account_no="222")
    )
    await service.fold()
    answer = await service.ask("/v1/customers/straitsx/cust_1")
    assert [account["id"] for account in answer["virtual_accounts"]] == ["va_1", "va_2"]


async def test_rfi_and_accounts_have_lists_of_their_own(service: Service) -> None:
    await service.post_samples("straitsx")
    await service.fold()
    (rfi,) = (await service.ask("/v1/rfi", customer_id="customer_profile_123_abc"))["rfi"]
    assert (rfi["status"], rfi["expires_at"]) == ("sent", "2025-09-30T16:59:52Z")
    (account,) = (await service.ask("/v1/bank_accounts"))["bank_accounts"]
    assert (account["id"], account["verification_status"]) == ("1", "verified")
    statuses = [
        account["status"]
        for account in (await service.ask("/v1/virtual_accounts"))["virtual_accounts"]
    ]
    assert statuses == ["disabled", "enabled"]
    (limits,) = (await service.ask("/v1/limits", customer_id=CUSTOMER))["limits"]
    assert limits["customer_id"] == CUSTOMER
    (request,) = (await service.ask("/v1/limit_requests", status="approved"))["limit_requests"]
    assert request["id"] == "abc_1234"
    assert (await service.ask("/v1/limit_requests", status="rejected"))["limit_requests"] == []
