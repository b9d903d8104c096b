"""Law: pages of any size, put together, are the whole list: nothing twice, nothing missing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.asking import Service, payment, serving
from tests.conftest import Database, eventually

LISTS = [
    "wallets",
    "balances",
    "entries",
    "transactions",
    "customers",
    "bank_accounts",
    "virtual_accounts",
    "limits",
    "limit_requests",
    "rfi",
    "events",
    "deliveries",
    "exceptions",
]


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        await running.post_samples("straitsx")
        await running.post_samples("gokart")
        await running.post_samples("straitsx")
        await running.fold()
        yield running


async def test_pages_put_together_are_the_whole_list(service: Service) -> None:
    for name in LISTS:
        whole = (await service.ask(f"/v1/{name}", limit=1000))[name]
        assert whole, name
        for limit in (1, 2, 3, 7):
            pages = await service.pages(f"/v1/{name}", name, limit=limit)
            assert [row for page in pages for row in page] == whole, (name, limit)
            assert all(len(page) == limit for page in pages[:-1])
            assert pages[-1], (name, limit)


async def test_lists_are_ordered_by_source_first(service: Service) -> None:
    for name in LISTS:
        sources = [row["source"] for row in (await service.ask(f"/v1/{name}"))[name]]
        assert sources == sorted(sources), name


async def test_the_last_page_has_no_next_even_when_it_is_full(service: Service) -> None:
    whole = (await service.ask("/v1/customers"))["customers"]
    answer = await service.ask("/v1/customers", limit=len(whole))
    assert (len(answer["customers"]), answer["next"]) == (len(whole), None)


async def test_what_arrives_meanwhile_does_not_shift_pages(service: Service) -> None:
    first = await service.ask("/v1/transactions", source="straitsx", limit=3)
    await service.post_json("straitsx", payment(1))
    await service.fold()
    second = await service.ask("/v1/transactions", source="straitsx", limit=3, cursor=first["next"])
    ids = [row["id"] for row in first["transactions"] + second["transactions"]]
    assert len(ids) == len(set(ids)) == 6
    assert "contract_0001" not in ids


async def test_filters_hold_on_every_page(service: Service) -> None:
    pages = await service.pages("/v1/events", "events", kind="customer", limit=1)
    assert [row["kind"] for page in pages for row in page] == ["customer"] * 4


async def test_a_cursor_of_another_list_is_refused(service: Service) -> None:
    cursor = (await service.ask("/v1/balances", limit=1))["next"]
    status, found = await service.refused("/v1/transactions", cursor=cursor)
    assert status == 400
    assert "cursor" in found["detail"]


async def test_deliveries_of_the_same_moment_are_paged_apart(service: Service) -> None:
    async def all_recorded() -> bool:
        return len((await service.ask("/v1/deliveries", limit=1000))["deliveries"]) == 55

    await eventually(all_recorded)
    pages = await service.pages("/v1/deliveries", "deliveries", outcome="duplicate", limit=4)
    assert sum(len(page) for page in pages) == 25
