"""Law: lists of transactions are filtered, ordered and added up exactly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from ledger.errors import InvalidRequest
from ledger.queries.snapshot import open_snapshot
from ledger.queries.transactions import bounded_rows
from tests.asking import Json, Service, payment, payout, serving
from tests.conftest import Database

PATH = "/v1/transactions"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


async def listed(service: Service, **params: Any) -> list[str]:
    return [row["id"][-1] for row in (await service.ask(PATH, **params))["transactions"]]


def at(day: int) -> dict[str, str]:
    return {
        "created_at": f"2026-01-{day:02}T00:00:00Z",
        "updated_at": f"2026-01-{day:02}T00:00:00Z",
    }


async def post_some(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="pending", amount="10.01", **at(4)))
    await service.post_json("straitsx", payout(2, status="failed", amount="10.02", **at(3)))
    await service.post_json("straitsx", payout(3, status="completed", amount="1000000", **at(5)))
    await service.post_json("straitsx", payment(4, amount="0.1", currency="usd", **at(2)))
    await service.post_json("straitsx", payment(5, status="new, strange", **at(1)))
    await service.fold()


async def test_a_filter_takes_several_values(service: Service) -> None:
    await post_some(service)
    assert await listed(service, status="pending,failed") == ["2", "1"]
    assert await listed(service, status="failed") == ["2"]
    assert await listed(service, kind="payment,payout", status="completed") == ["4", "3"]
    assert await listed(service, currency="usd,Xsgd", status="completed,pending") == ["4", "3", "1"]
    assert await listed(service, flag="nothing,unknown_status") == await listed(
        service, flag="unknown_status"
    )
    for as_of in ({"position": "straitsx:5"}, {"effective_at": "2026-01-05T00:00:00Z"}):
        assert await listed(service, status="pending,failed", **as_of) == ["2", "1"]
        assert await listed(service, kind="payment,swap", **as_of) == await listed(
            service, kind="payment"
        )


async def test_a_status_that_no_document_names_may_contain_a_comma(service: Service) -> None:
    await post_some(service)
    assert await listed(service, status="unknown:new, strange") == ["5"]
    assert await listed(service, status="failed,unknown:new, strange") == ["5", "2"]


@pytest.mark.parametrize(
    "params",
    [
        {"status": "pending,gone"}, {"status": "pending,"}, {"kind": "payout,nothing"},
        {"kind": "swap", "status": "refunded,completed"}, {"currency": ","},
        {"status": ",".join(["pending"] * 65)}, {"amount_min": "1e3"}, {"amount_max": "ten"},
        {"amount_min": "1,000"}, {"amount_min": "0.1234567890123456789"}, {"sort": "amount"},
        {"totals": "yes"},
    ],
)  # fmt: skip
async def test_values_that_no_row_can_have_are_refused(
    service: Service, params: dict[str, str]
) -> None:
    status, refused = await service.refused(PATH, **params)
    assert status == 400
    assert next(iter({*params} - {"kind"}), "kind") in refused["detail"]


async def test_an_id_with_commas_is_one_value(service: Service) -> None:
    for number, customer in ((1, "a"), (2, "b"), (3, "a,b")):
        await service.post_json(
            "straitsx",
            payment(number, customer_profile_id=customer, idempotency_id=f"i,{customer}"),
        )
    await service.fold()
    assert await listed(service, customer_id="a,b") == ["3"]
    assert await listed(service, idempotency_id="i,a") == ["1"]


async def test_amounts_are_compared_exactly(service: Service) -> None:
    await post_some(service)
    assert await listed(service, amount_min="10.02") == ["3", "2"]
    assert await listed(service, amount_min="10.01", amount_max="10.02") == ["2", "1"]
    assert await listed(service, amount_min="10.010000000000000001", amount_max="999999.99") == [
        "2"
    ]
    assert await listed(service, amount_max="-1") == []
    assert await listed(service, amount_max="10.01", position="straitsx:5") == ["4", "1"]


async def test_the_list_is_sorted_by_date_over_all_sources(service: Service) -> None:
    await service.post_samples("gokart")
    await service.post_samples("straitsx")
    await post_some(service)
    for sort, is_reversed in (("effective_at", False), ("-effective_at", True)):
        whole = (await service.ask(PATH, sort=sort, limit=1000))["transactions"]
        times = [row["effective_at"] for row in whole]
        assert times == sorted(times, reverse=is_reversed)
        assert len(whole) == len((await service.ask(PATH, limit=1000))["transactions"])
        for limit in (1, 2, 7):
            pages = await service.pages(PATH, "transactions", sort=sort, limit=limit)
            assert [row for page in pages for row in page] == whole
    assert (await listed(service, sort="effective_at", kind="payout,payment", status="failed"))[
        -1
    ] == "2"


async def test_one_customers_list_is_sorted_by_date(service: Service) -> None:
    for number, day in ((1, 3), (2, 1), (3, 2), (4, 2)):
        made = payout if number == 3 else payment
        await service.post_json("straitsx", made(number, customer_profile_id="c", **at(day)))
    await service.post_json("straitsx", payment(5, customer_profile_id="d", **at(2)))
    await service.fold()
    for sort, expected in (("effective_at", "2341"), ("-effective_at", "1432")):
        for limit in (1, 3, 100):
            pages = await service.pages(
                PATH, "transactions", sort=sort, customer_id="c", limit=limit
            )
            assert "".join(row["id"][-1] for page in pages for row in page) == expected
    assert await listed(service, sort="effective_at", customer_id="c", kind="payment") == [
        "2", "4", "1",
    ]  # fmt: skip


async def test_totals_count_and_add_up_the_whole_list(service: Service) -> None:
    await post_some(service)

    async def totals(**params: Any) -> list[Json]:
        return (await service.ask(PATH, totals="true", limit=1, **params))["totals"]

    assert await totals() == [
        {"currency": "USD", "count": 1, "sum": "0.1"},
        {"currency": "XSGD", "count": 3, "sum": "1000020.03"},
        {"currency": None, "count": 1, "sum": None},
    ]
    pending = [{"currency": "XSGD", "count": 1, "sum": "10.01"}]
    assert await totals(status="pending") == await totals(status="pending", sort="effective_at")
    assert await totals(status="pending") == pending
    assert await totals(changed_after=3, source="straitsx", kind="payment", status="completed") == [
        {"currency": "USD", "count": 1, "sum": "0.1"}
    ]
    assert await totals(source="gokart") == []
    assert "totals" not in await service.ask(PATH)
    assert "totals" not in await service.ask(PATH, totals="false")


async def test_totals_are_exact_however_many_digits_they_have(service: Service) -> None:
    amounts = ["12345678901234567890.123456789012345678"] * 9 + ["0.000000000000000001"]
    for number, amount in enumerate(amounts, 1):
        await service.post_json("straitsx", payment(number, amount=amount, fees="0"))
    await service.fold()
    (total,) = (await service.ask(PATH, totals="true"))["totals"]
    assert total["sum"] == "111111110111111111011.111111101111111103"
    assert Decimal(total["sum"]) == Decimal("111111110111111111011.111111101111111103")


async def test_totals_that_take_too_long_are_refused(service: Service) -> None:
    async with service.database.service() as connection, open_snapshot(connection) as snapshot:
        with pytest.raises(InvalidRequest, match=r"longer than 0.01 s; narrow it"):
            await bounded_rows(snapshot, 0.01, "SELECT pg_sleep(10)")
    async with service.database.service() as connection, open_snapshot(connection) as snapshot:
        assert len(await bounded_rows(snapshot, 5, "SELECT 1")) == 1
        assert (await snapshot.row("SHOW statement_timeout")) == ("0",)
