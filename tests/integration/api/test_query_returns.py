"""Law: what came back of a payout is listed with it, now and as it was, and shows in the feed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ledger.queries.transactions import RETURNS_MAX
from tests.asking import Json, Service, payment, payout, serving
from tests.conftest import Database

PAYOUT = "/v1/transactions/straitsx/contract_0001"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def bringing_back(number: int, amount: str, **changes: Any) -> Json:
    remarks = {"transaction_remarks": "RTN idem-0001"}
    return payment(number, amount=amount, fees="0", sender_information=remarks, **changes)


async def test_a_payout_lists_what_brought_its_money_back(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    for number, amount in ((12, "1.5"), (11, "2.25")):
        await service.post_json("straitsx", bringing_back(number, amount))
    await service.fold()
    answer = await service.ask(PAYOUT)
    expected = [
        {
            "kind": "payment",
            "id": f"contract_{number:04}",
            "status": "completed",
            "amount": amount,
            "currency": "XSGD",
            "effective_at": f"2026-01-01T00:00:{number}Z",
        }
        for number, amount in ((11, "2.25"), (12, "1.5"))
    ]
    assert answer["returns"] == expected
    assert (answer["details"]["returned_amount"], answer["details"]["return_count"]) == ("3.75", 2)
    assert (await service.ask(PAYOUT, position=3))["returns"] == expected
    assert (await service.ask(PAYOUT, position=2))["returns"] == expected[1:]
    assert (await service.ask(PAYOUT, position=1))["returns"] == []
    earlier = await service.ask(PAYOUT, effective_at="2026-01-01T00:00:11Z")
    assert earlier["returns"] == expected[:1]
    other = await service.ask("/v1/transactions/straitsx/contract_0011")
    assert (other["returns"], other["return_of"]) == ([], "idem-0001")


async def test_a_refunded_return_brings_nothing_back(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.post_json("straitsx", bringing_back(11, "2.25"))
    await service.post_json("straitsx", bringing_back(11, "2.25", status="refunded"))
    await service.fold()
    assert (await service.ask(PAYOUT))["returns"] == []
    assert [row["status"] for row in (await service.ask(PAYOUT, position=2))["returns"]] == [
        "completed"
    ]


async def test_returns_beyond_the_first_are_counted_and_added_up(service: Service) -> None:
    for number in range(100, 100 + RETURNS_MAX + 1):
        await service.post_json("straitsx", bringing_back(number, "0.01"))
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.fold()
    for params in ({}, {"position": RETURNS_MAX + 2}):
        answer = await service.ask(PAYOUT, **params)
        assert [row["id"] for row in answer["returns"]] == [
            f"contract_{number:04}" for number in range(100, 100 + RETURNS_MAX)
        ]
        assert answer["details"]["returned_amount"] == "1.01"
        assert answer["details"]["return_count"] == RETURNS_MAX + 1


async def changed(service: Service, after: int, **params: Any) -> list[list[tuple[str, int]]]:
    pages = await service.pages(
        "/v1/transactions", "transactions", source="straitsx", changed_after=after, **params
    )
    return [[(row["id"], row["changed_position"]) for row in page] for page in pages]


async def test_a_return_moves_its_payout_forward_in_the_feed(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.post_json("straitsx", payout(2, status="completed"))
    back = await service.post_json("straitsx", bringing_back(3, "1"))
    await service.fold()
    together = [("contract_0001", back), ("contract_0003", back)]
    assert await changed(service, 2) == [together]
    assert await changed(service, 0, limit=2) == [[("contract_0002", 2)], together]
    assert await changed(service, 0, limit=1) == [
        [("contract_0002", 2)], [together[0]], [together[1]],
    ]  # fmt: skip


async def test_a_payout_that_comes_late_moves_all_its_returns_forward(service: Service) -> None:
    for number in (11, 12, 13):
        await service.post_json("straitsx", bringing_back(number, "1"))
    await service.post_json("straitsx", payment(14))
    late = await service.post_json("straitsx", payout(1, status="completed"))
    await service.fold()
    (page,) = await changed(service, 4)
    assert page == [
        ("contract_0011", late), ("contract_0012", late), ("contract_0013", late),
        ("contract_0001", late),
    ]  # fmt: skip
