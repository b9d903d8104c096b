"""Law: whoever follows the feeds gets every change, while the books move and page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.asking import Json, Service, payment, payout, serving
from tests.conftest import Database


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def ids(rows: list[Json]) -> list[str]:
    return [row["id"] for row in rows]


async def changed(service: Service, after: Any, **params: Any) -> list[Json]:
    """Return everything that changed after a position, page by page."""
    pages = await service.pages("/v1/transactions", "transactions", changed_after=after, **params)
    return [row for page in pages for row in page]


async def test_the_feed_lists_transactions_in_the_order_of_their_last_change(
    service: Service,
) -> None:
    for number in (1, 2, 3):
        await service.post_json("straitsx", payout(number))
    done = await service.post_json("straitsx", payout(1, status="completed"))
    await service.fold()
    rows = await changed(service, 0, source="straitsx")
    assert ids(rows) == ["contract_0002", "contract_0003", "contract_0001"]
    assert [row["changed_position"] for row in rows] == [2, 3, done]
    assert ids(await changed(service, 2, source="straitsx")) == ["contract_0003", "contract_0001"]
    assert await changed(service, done, source="straitsx") == []
    assert ids(await changed(service, 0, source="straitsx", status="pending")) == [
        "contract_0002", "contract_0003",
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_a_follower_misses_nothing_while_the_books_move(service: Service, limit: int) -> None:
    followed: dict[str, Json] = {}
    last = 0
    for number in range(1, 13):
        await service.post_json("straitsx", payout(number))
        if number % 3 == 0:
            await service.post_json("straitsx", payout(number - 2, status="completed"))
        await service.fold()
        rows = (
            await service.ask(
                "/v1/transactions", source="straitsx", changed_after=last, limit=limit
            )
        )["transactions"]
        followed |= {row["id"]: row for row in rows}
        last = max([last, *(row["changed_position"] for row in rows)])
    for row in await changed(service, last, source="straitsx", limit=limit):
        followed[row["id"]] = row
    whole = (await service.ask("/v1/transactions"))["transactions"]
    assert sorted(followed) == sorted(ids(whole))
    assert {row["id"]: row["status"] for row in whole} == {
        name: row["status"] for name, row in followed.items()
    }


async def test_what_changes_between_two_pages_comes_again(service: Service) -> None:
    for number in (1, 2, 3):
        await service.post_json("straitsx", payout(number))
    await service.fold()
    feed = {"source": "straitsx", "changed_after": 0, "limit": 2}
    first = await service.ask("/v1/transactions", **feed)
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.post_json("straitsx", payout(3, status="completed"))
    await service.fold()
    second = await service.ask("/v1/transactions", **feed, cursor=first["next"])
    assert ids(first["transactions"]) == ["contract_0001", "contract_0002"]
    assert ids(second["transactions"]) == ["contract_0001", "contract_0003"]
    assert second["next"] is None


async def test_a_feed_of_several_sources_names_a_position_of_each(service: Service) -> None:
    await service.post_samples("gokart")
    await service.post_samples("straitsx")
    await service.fold()
    everything = await changed(service, "straitsx:0,gokart:0")
    assert {row["source"] for row in everything} == {"straitsx", "gokart"}
    places = (await service.ask("/v1/status"))["position"]
    text = ",".join(f"{source}:{place}" for source, place in places.items())
    assert await changed(service, text) == []
    rest = await changed(service, f"straitsx:{places['straitsx']}")
    assert {row["source"] for row in rest} == {"gokart"}
    for path, name in (("/v1/transactions", "changed_after"), ("/v1/entries", "after")):
        status, refused = await service.refused(path, **{name: 5})
        assert (status, "add source=" in refused["detail"]) == (400, True)
        status, refused = await service.refused(path, **{name: 500}, source="straitsx")
        assert (status, "beyond the log of straitsx" in refused["detail"]) == (400, True)
        status, _ = await service.refused(path, **{name: "nobody:5"})
        assert status == 404
        assert (await service.refused(path, **{name: "-1"}, source="straitsx"))[0] == 400


async def test_journal_lines_after_a_position_are_a_feed(service: Service) -> None:
    for number in (1, 2, 3):
        await service.post_json("straitsx", payment(number))
    await service.fold()
    whole = (await service.ask("/v1/entries"))["entries"]
    for limit in (1, 3, 100):
        for more in ({}, {"account": "assets:wallet:available"}, {"position": 3}):
            pages = await service.pages(
                "/v1/entries", "entries", after=1, source="straitsx", limit=limit, **more
            )
            expected = [
                line
                for line in whole
                if line["position"] > 1 and more.get("account") in (None, line["account"])
            ]
            assert [line for page in pages for line in page] == expected
    assert (await service.ask("/v1/entries", after=3, source="straitsx"))["entries"] == []


async def test_a_page_of_the_feed_shows_what_one_event_changed_together(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.post_json("straitsx", payout(2, status="completed"))
    sender = {"transaction_remarks": "RTN idem-0001"}
    await service.post_json("straitsx", payment(3, amount="20.0", sender_information=sender))
    await service.fold()
    rows = await changed(service, 0, source="straitsx")
    places = [row["changed_position"] for row in rows]
    assert places == sorted(places)
    for limit in (1, 2, 3):
        pages = await service.pages(
            "/v1/transactions", "transactions", changed_after=0, source="straitsx", limit=limit
        )
        assert [row for page in pages for row in page] == rows


async def test_a_feed_has_one_order_and_is_about_the_present(service: Service) -> None:
    await service.post_json("straitsx", payout(1))
    await service.post_json("straitsx", payout(2))
    await service.fold()
    feed = {"source": "straitsx", "changed_after": 0}
    status, refused = await service.refused("/v1/transactions", **feed, sort="effective_at")
    assert (status, "leave sort out" in refused["detail"]) == (400, True)
    for name, value in (("sort", "effective_at"), ("totals", "true"), ("changed_after", "1")):
        status, refused = await service.refused(
            "/v1/transactions", source="straitsx", position=1, **{name: value}
        )
        assert (status, f"{name} answers for the present only" in refused["detail"]) == (400, True)
    cursor = (await service.ask("/v1/transactions", **feed, limit=1))["next"]
    for other in ({}, {"sort": "effective_at"}):
        status, refused = await service.refused("/v1/transactions", **other, cursor=cursor)
        assert (status, "cursor belongs to another" in refused["detail"]) == (400, True)
