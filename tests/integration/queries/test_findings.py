"""What looks incomplete is found without any statement, as of the moment that is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.asking import Service, payment, payout, problem, serving
from tests.conftest import Database
from tests.dumps import differences, dump, fold_from_zero

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
    ]
    listed = (await service.ask("/v1/exceptions", kind="payment"))["exceptions"]
    assert [(row["reason"], row["resource_id"]) for row in listed] == [
        ("return_unmatched", "contract_0013")
    ]


async def test_what_came_back_is_counted_as_of_the_moment(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    remarks = {"sender_information": {"transaction_remarks": "RTN contract_0001"}}
    for number, day in ((11, 3), (12, 5)):
        body = payment(number, amount="5.0", fees="0", **at(f"2026-01-{day:02}T00:00:00Z"))
        await service.post_json("straitsx", body | remarks)
    refunded = payment(12, amount="5.0", fees="0", status="refunded", **at("2026-01-07T00:00:00Z"))
    await service.post_json("straitsx", refunded | remarks)
    for day, amounts in ((2, []), (4, ["5"]), (6, ["10"]), (8, ["5"])):
        rows = await found(service, as_of=f"2026-01-{day:02}T00:00:00Z")
        assert [row[3] for row in rows] == amounts


async def test_a_withdrawal_that_came_back_is_found(service: Service) -> None:
    attributes = {
        "status": "completed", "amount": "7.0", "fees": "0.0", "netAmount": "7.0",
        "currency": "sgd", "idempotencyId": "w-1", "createdAt": "2026-01-01T00:00:00Z",
        "updatedAt": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    withdrawal = {"id": "withdrawal_1", "type": "withdrawal", "attributes": attributes}
    await service.post_json("straitsx", {"data": withdrawal})
    remarks = {"transaction_remarks": "/ROC/RTN w-1"}
    body = payment(11, amount="7.0", fees="0", currency="sgd", sender_information=remarks)
    await service.post_json("straitsx", body)
    assert [row[:3] for row in await found(service)] == [
        ("payout_returned", "user_withdrawal", "withdrawal_1")
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
    today = datetime.now(UTC).isoformat()
    paid = {"customer_profile_id": "cp_1", "fees": "0.0", "amount": "30.0", **at(today)}
    await service.post_json("straitsx", payment(1, **paid))
    limits = {
        "customerProfileId": "cp_1", "totalAnnualPaymentLimit": 200, "totalAnnualPayoutLimit": 200,
        "availableAnnualPaymentLimit": 170, "availableAnnualPayoutLimit": 200,
    }  # fmt: skip
    stated = {"id": "limits_1", "type": "transactionLimits", "attributes": limits}
    await service.post_json("straitsx", {"data": stated})
    assert await found(service, reason="limit_drift") == []
    limits["availableAnnualPaymentLimit"] = 150
    await service.post_json("straitsx", {"data": stated})
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
        f"contract_{number:04}" for number in range(5, 0, -1)
    ]
    status, _ = await service.refused("/v1/reconciliation/findings", as_of="soon")
    assert status == 400


def told_limits(number: int, customer: str, used: int, **more: Any) -> dict[str, Any]:
    limits = {
        "customerProfileId": customer, "totalDailyPaymentLimit": 100,
        "availableDailyPaymentLimit": 100 - used,
    }  # fmt: skip
    return {
        "data": {"id": f"limits_{number}", "type": "transactionLimits", "attributes": limits | more}
    }


async def test_limits_of_every_customer_are_listed_page_by_page(service: Service) -> None:
    for number in range(1, 6):
        await service.post_json("straitsx", told_limits(number, f"cp_{number}", number))
    assert await found(service, reason="limit_drift") == [
        ("limit_drift", "limits", f"cp_{number}:daily_payment", str(number))
        for number in range(5, 0, -1)
    ]
    pages = await service.pages(
        "/v1/reconciliation/findings", "findings", limit=2, reason="limit_drift"
    )
    assert [len(page) for page in pages] == [2, 2, 1]


async def test_what_is_used_of_a_limit_is_counted_again_whenever_anything_about_it_changes(
    service: Service,
) -> None:
    """The books keep what they find; what they keep is what a fold from nothing finds."""
    now = datetime.now(UTC)
    paid = {"customer_profile_id": "cp_1", "fees": "0.0", **at(now.isoformat())}
    drift = {"reason": "limit_drift"}
    await service.post_json("straitsx", payment(1, amount="30.0", status="pending", **paid))
    await service.post_json("straitsx", told_limits(1, "cp_1", 30))
    assert await found(service, **drift) == [("limit_drift", "limits", "cp_1:daily_payment", "30")]
    # Told before the limits, completed after them: they count it.
    await service.post_json("straitsx", payment(1, amount="30.0", **paid))
    assert await found(service, **drift) == []
    # First told after them: they cannot know of it.
    await service.post_json("straitsx", payment(2, amount="5.0", **paid))
    assert await found(service, **drift) == []
    # Refunded: it uses nothing any more.
    await service.post_json("straitsx", payment(1, amount="30.0", status="refunded", **paid))
    assert await found(service, **drift) == [("limit_drift", "limits", "cp_1:daily_payment", "30")]
    # Another stream of limits has the last word, in another currency nobody can tell.
    await service.post_json("straitsx", told_limits(2, "cp_1", 5))
    assert await found(service, **drift) == []
    other = payment(3, amount="7.0", currency="xusd", **paid)
    await service.post_json("straitsx", other)
    await service.post_json("straitsx", told_limits(2, "cp_1", 90))
    assert await found(service, **drift) == []
    await service.post_json("straitsx", told_limits(3, "cp_2", 8))
    # Another customer's limits with the same id are others.
    await service.post_json("straitsx", told_limits(3, "cp_3", 9))
    assert await found(service, **drift) == [
        ("limit_drift", "limits", "cp_3:daily_payment", "9"),
        ("limit_drift", "limits", "cp_2:daily_payment", "8"),
    ]
    await service.post_json("straitsx", payment(4, customer_profile_id="cp_4"))
    assert len(await found(service, reason="unverified_money")) == 3
    again = await fold_from_zero(service.database.service_dsn, service.database.settings)
    async with service.database.service() as connection:
        one = await dump(connection, service.generation)
        assert len(one["findings"]) == 5
        assert differences(one, await dump(connection, again)) == {}


async def test_money_of_a_customer_is_a_finding_until_it_is_verified_or_gone(
    service: Service,
) -> None:
    money = {"reason": "unverified_money"}
    await service.post_json("straitsx", payment(1, customer_profile_id="cp_1"))
    assert [each[2:] for each in await found(service, **money)] == [("cp_1", "10")]
    for number, status in enumerate(("pending", "verified", "rejected"), 1):
        stated = {"id": "cp_1", "type": "customer_profile",
                "attributes": {"verificationStatus": status,
                               "updatedAt": f"2026-01-0{number}T00:00:00Z"}}  # fmt: skip
        await service.post_json("straitsx", {"data": stated})
        rows = [] if status == "verified" else [("cp_1", "10")]
        assert [each[2:] for each in await found(service, **money)] == rows
    await service.post_json(
        "straitsx",
        payout(2, customer_profile_id="cp_1", status="completed", amount="10.0", fees="0.0"),
    )
    assert await found(service, **money) == []


async def exceptions(service: Service, **params: Any) -> list[dict[str, Any]]:
    await service.fold()
    return list((await service.ask("/v1/exceptions", **params))["exceptions"])


async def resolve(service: Service, name: str, **decision: Any) -> tuple[int, dict[str, Any]]:
    path = f"/v1/exceptions/{name}/resolve"
    async with service.client.post(path, json={"action": "acknowledge"} | decision) as response:
        if response.status == 200:
            return 200, await response.json()
        return await problem(response)


async def test_a_finding_is_an_exception_after_those_of_the_log(service: Service) -> None:
    position = await service.post_json("straitsx", payout(1))
    await service.post("straitsx", b"not json")
    await service.post("gokart", b"not json either")
    rows = await exceptions(service)
    assert [(row["source"], row["reason"]) for row in rows] == [
        ("gokart", "unreadable"), ("straitsx", "unreadable"), ("straitsx", "stuck_pending"),
    ]  # fmt: skip
    event = await service.ask(f"/v1/events/straitsx/{position}")
    (stated,) = (await service.ask("/v1/reconciliation/findings"))["findings"]
    assert rows[2] == {
        "id": stated["exception"], "source": "straitsx", "reason": "stuck_pending",
        "detail": stated["detail"], "kind": "payout", "resource_id": "contract_0001",
        "event": {"position": position, "event_id": event["event_id"]}, "state": "open",
        "opened_at": "2026-01-01T00:00:01Z", "closed_at": None, "note": None,
    }  # fmt: skip
    assert stated["event_position"] == position


async def test_a_finding_goes_once_it_holds_no_more(service: Service) -> None:
    await service.post_json("straitsx", payout(1))
    assert [row["reason"] for row in await exceptions(service)] == ["stuck_pending"]
    await service.post_json("straitsx", payout(1, status="completed"))
    assert await exceptions(service) == []


async def test_an_acknowledged_finding_is_resolved_by_an_event_that_a_rebuild_keeps(
    service: Service,
) -> None:
    await service.post_json("straitsx", payout(1, customer_profile_id="cp_1"))
    await service.post_json("straitsx", payment(2, customer_profile_id="cp_1"))
    rows = await exceptions(service)
    assert [row["reason"] for row in rows] == ["stuck_pending", "unverified_money"]
    for row in rows:
        status, answer = await resolve(service, row["id"], note="asked them", by="ana")
        assert (status, answer["status"]) == (200, "accepted")
    after = await exceptions(service)
    event = await service.ask(f"/v1/events/straitsx/{answer['position']}")
    assert (event["kind"], event["origin"]) == ("decision", "operator")
    assert [(row["id"], row["state"], row["note"]) for row in after] == [
        (row["id"], "resolved", "ana: asked them") for row in rows
    ]
    assert after[1]["closed_at"] == event["recorded_at"]
    assert await exceptions(service, state="open") == []
    assert await exceptions(service, state="resolved") == after
    status, reported = await resolve(service, rows[0]["id"])
    assert (status, reported["detail"]) == (409, f"exception {rows[0]['id']} is resolved already")
    again = await fold_from_zero(service.database.service_dsn, service.database.settings)
    async with service.database.service() as connection:
        one = await dump(connection, service.generation)
        assert differences(one, await dump(connection, again)) == {}


async def test_nothing_can_be_kept_of_a_finding(service: Service) -> None:
    await service.post_json("straitsx", payout(1))
    (row,) = await exceptions(service)
    status, reported = await resolve(service, row["id"], action="keep", keep=1)
    assert (status, reported["status"]) == (400, 400)
    assert reported["detail"].endswith("acknowledge it")
    assert (await resolve(service, "0123456789abcdef"))[0] == 404


async def test_findings_among_exceptions_are_filtered(service: Service) -> None:
    await service.post_json("straitsx", payout(1, customer_profile_id="cp_1"))
    await service.post_json("straitsx", payment(2, customer_profile_id="cp_1"))
    await service.post("straitsx", b"not json")

    async def reasons(**filters: Any) -> list[str]:
        return [row["reason"] for row in await exceptions(service, **filters)]

    assert await reasons() == ["unreadable", "stuck_pending", "unverified_money"]
    assert await reasons(source="gokart") == []
    assert await reasons(reason="stuck_pending") == ["stuck_pending"]
    assert await reasons(reason="unreadable") == ["unreadable"]
    assert await reasons(kind="customer") == ["unverified_money"]
    assert await reasons(kind="payout", state="open") == ["stuck_pending"]
    assert await reasons(state="resolved") == await reasons(state="cleared") == []

    assert await reasons(state="cleared") == []
    await service.post("straitsx", b"not json again")
    assert await reasons(source="straitsx", limit=1) == ["unreadable"]


async def test_another_drift_is_another_exception(service: Service) -> None:
    names = []
    for left in (60, 60, 50):
        limits = {
            "customerProfileId": "cp_1", "totalDailyPaymentLimit": 100,
            "availableDailyPaymentLimit": left,
        }  # fmt: skip
        stated = {"id": "limits_1", "type": "transactionLimits", "attributes": limits}
        position = await service.post_json("straitsx", {"data": stated})
        (row,) = await exceptions(service, state="open")
        assert (row["reason"], row["resource_id"]) == ("limit_drift", "cp_1:daily_payment")
        assert row["event"]["position"] == position
        names.append(row["id"])
    assert names[0] == names[1] != names[2]
    await resolve(service, names[2])
    assert await exceptions(service, state="open") == []


async def test_exceptions_and_findings_share_their_pages(service: Service) -> None:
    for number in range(1, 6):
        await service.post_json("straitsx", payout(number, **at("2026-01-02T00:00:00Z")))
        await service.post_json("straitsx", payment(10 + number, customer_profile_id=f"cp{number}"))
        await service.post("straitsx", b"not json" * number)
    for number in (2, 4):
        await service.post_json("straitsx", payout(number + 20))
    whole = await exceptions(service)
    assert len(whole) == len({row["id"] for row in whole}) == 17
    assert [row["reason"] for row in whole[:5]] == ["unreadable"] * 5
    opened = [row["opened_at"] or "" for row in whole[5:]]
    assert opened == sorted(opened, reverse=True)
    for limit in (1, 2, 5, 7, 17):
        pages = await service.pages("/v1/exceptions", "exceptions", limit=limit)
        assert [row for page in pages for row in page] == whole
        assert all(len(page) == limit for page in pages[:-1])


async def test_a_payout_that_came_back_in_parts_is_one_finding(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    names = []
    for number, amount in ((11, "5.0"), (12, "7.0"), (13, "8.0")):
        sender = {"transaction_remarks": "RTN idem-0001"}
        body = payment(number, amount=amount, fees="0.0", sender_information=sender)
        await service.post_json("straitsx", body)
        (row,) = await exceptions(service)
        names.append((row["id"], row["reason"], row["resource_id"]))
    assert len({name for name, _, _ in names}) == 3
    assert [reason for _, reason, _ in names] == [
        "payout_partly_returned", "payout_partly_returned", "payout_returned",
    ]  # fmt: skip
    assert {resource for _, _, resource in names} == {"contract_0001"}
    assert row["detail"] == (
        "20 of 20 came back with payment contract_0011, payment contract_0012, "
        "payment contract_0013"
    )
