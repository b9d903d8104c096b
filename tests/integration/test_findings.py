"""What looks incomplete is found without any statement, as of the moment that is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.asking import Service, payment, payout, serving
from tests.conftest import Database

AS_OF = "2026-01-20T00:00:00Z"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def at(moment: str) -> dict[str, str]:
    return {"created_at": moment, "updated_at": moment}


async def found(service: Service, **params: Any) -> list[tuple[str, str, str, str | None]]:
    await service.fold()
    asked = {"as_of": AS_OF} | params
    rows = (await service.ask("/v1/reconciliation/findings", **asked))["findings"]
    return [(each["reason"], each["kind"], each["id"], each["amount"]) for each in rows]


async def test_a_transaction_pending_beyond_the_declared_age_is_stuck(service: Service) -> None:
    await service.post_json("straitsx", payout(1, **at("2026-01-16T12:00:00Z")))
    await service.post_json("straitsx", payout(2, **at("2026-01-19T12:00:00Z")))
    await service.post_json("straitsx", payout(3, status="completed", **at("2026-01-02T00:00:00Z")))
    assert await found(service) == [("stuck_pending", "payout", "contract_0001", "20")]
    later = "2026-01-25T00:00:00Z"
    assert len(await found(service, as_of=later)) == 2
    assert await found(service, as_of="2026-01-17T00:00:00Z") == []


async def test_payouts_that_came_back_are_found_wholly_or_in_part(service: Service) -> None:
    for number in (1, 2):
        await service.post_json(
            "straitsx", payout(number, status="completed", customer_profile_id=None)
        )
    back = [(11, "20.0", "idem-0001"), (12, "15.0", "idem-0002"), (13, "1.0", "nobody")]
    for number, amount, idem in back:
        sender = {"transaction_remarks": f"RTN {idem}"}
        body = payment(number, amount=amount, fees="0.0", sender_information=sender)
        await service.post_json("straitsx", body)
    assert await found(service) == [
        ("payout_partly_returned", "payout", "contract_0002", "15"),
        ("payout_returned", "payout", "contract_0001", "20"),
        ("return_unmatched", "payment", "contract_0013", "1"),
    ]


async def test_a_customer_with_money_and_no_verified_status_is_found(service: Service) -> None:
    for number, customer in ((1, "cp_known"), (2, "cp_pending"), (3, "cp_unheard")):
        await service.post_json("straitsx", payment(number, customer_profile_id=customer))
    for customer, status in (("cp_known", "verified"), ("cp_pending", "pending")):
        body = {
            "id": customer,
            "type": "customer_profile",
            "attributes": {"verificationStatus": status, "updatedAt": "2026-01-01T00:00:00Z"},
        }
        await service.post_json("straitsx", {"data": body})
    assert await found(service, reason="unverified_money") == [
        ("unverified_money", "customer", "cp_pending", "10"),
        ("unverified_money", "customer", "cp_unheard", "10"),
    ]


async def test_limits_that_drift_from_what_the_transactions_used_are_found(
    service: Service,
) -> None:
    from datetime import UTC, datetime

    today = datetime.now(UTC).isoformat()
    paid = {"customer_profile_id": "cp_1", "fees": "0.0", "amount": "30.0", **at(today)}
    await service.post_json("straitsx", payment(1, **paid))
    limits = {
        "customerProfileId": "cp_1", "totalAnnualPaymentLimit": 200, "totalAnnualPayoutLimit": 200,
        "availableAnnualPaymentLimit": 170, "availableAnnualPayoutLimit": 200,
    }  # fmt: skip
    told = {"id": "limits_1", "type": "transactionLimits", "attributes": limits}
    await service.post_json("straitsx", {"data": told})
    assert await found(service, reason="limit_drift") == []
    limits["availableAnnualPaymentLimit"] = 150
    await service.post_json("straitsx", {"data": told})
    assert await found(service, reason="limit_drift") == [
        ("limit_drift", "limits", "cp_1:annual_payment", "20")
    ]


async def test_findings_come_in_pages(service: Service) -> None:
    for number in range(1, 6):
        await service.post_json("straitsx", payout(number))
    await service.fold()
    pages = await service.pages("/v1/reconciliation/findings", "findings", limit=2, as_of=AS_OF)
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [each["id"] for page in pages for each in page] == [
        f"contract_{number:04}" for number in range(1, 6)
    ]
    status, _ = await service.refused("/v1/reconciliation/findings", as_of="soon")
    assert status == 400


async def test_limits_of_every_customer_are_compared_page_by_page(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.reads_findings.LIMITS_PAGE", 2)
    for number in range(1, 6):
        limits = {
            "customerProfileId": f"cp_{number}", "totalDailyPaymentLimit": 100,
            "availableDailyPaymentLimit": 100 - number,
        }  # fmt: skip
        told = {"id": f"limits_{number}", "type": "transactionLimits", "attributes": limits}
        await service.post_json("straitsx", {"data": told})
    assert await found(service, reason="limit_drift") == [
        ("limit_drift", "limits", f"cp_{number}:daily_payment", str(number))
        for number in range(1, 6)
    ]


async def test_exceptions_say_where_findings_are(service: Service) -> None:
    told = await service.ask("/v1/exceptions")
    assert (await service.ask(told["findings"], as_of=AS_OF))["findings"] == []
