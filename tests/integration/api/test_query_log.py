"""Law: the log is told as it was written, and every delivery that did or did not reach it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import pytest

from tests.asking import Json, Service, payment, serving
from tests.conftest import Database, eventually

HOSTILE = b'{"id": "<script>", "broken\x00\xff'


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


async def test_an_events_body_comes_back_byte_for_byte(service: Service) -> None:
    stated = await service.post("straitsx", HOSTILE)
    async with service.client.get("/v1/events/straitsx/1/body") as response:
        assert response.status == 200
        assert await response.read() == HOSTILE
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["Content-Disposition"] == 'attachment; filename="straitsx-1.bin"'
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Ledger-Event-Id"] == stated["event_id"]


async def test_an_event_is_stated_with_envelope_and_headers(service: Service) -> None:
    stated = await service.post("straitsx", HOSTILE)
    answer = await service.ask("/v1/events/straitsx/1")
    assert (answer["position"], answer["event_id"]) == (1, stated["event_id"])
    assert (answer["kind"], answer["verdict"], answer["reason"]) == (
        "unreadable",
        "quarantined",
        "unreadable",
    )
    assert answer["origin"] == "callback"
    assert answer["body_bytes"] == len(HOSTILE)
    assert "User-Agent" in answer["headers"]
    assert "body" not in answer


async def test_events_are_listed_newest_first_before_they_are_folded(service: Service) -> None:
    for number in (1, 2, 3):
        await service.post_json("straitsx", payment(number))
    answer = await service.ask("/v1/events")
    assert [event["position"] for event in answer["events"]] == [3, 2, 1]
    assert answer["position"] == {"gokart": 0, "straitsx": 3}


async def test_events_are_filtered(service: Service) -> None:
    await service.post_json("straitsx", payment(1, status="pending"))
    await service.post_json("straitsx", payment(2))
    await service.post("straitsx", HOSTILE)

    async def positions(**filters: str) -> list[int]:
        rows = (await service.ask("/v1/events", **filters))["events"]
        return [row["position"] for row in rows]

    assert await positions(kind="payment") == [2, 1]
    assert await positions(resource_id="contract_0002") == [2]
    assert await positions(status="pending") == [1]
    assert await positions(verdict="quarantined") == [3]
    assert await positions(source="gokart") == []
    events = (await service.ask("/v1/events"))["events"]
    second = next(event["recorded_at"] for event in events if event["position"] == 2)
    assert await positions(from_=second) == [3, 2]
    assert await positions(to=second) == [1]
    assert await positions(from_="2999-01-01T00:00:00Z") == []


async def test_an_event_that_is_not_there_is_not_found(service: Service) -> None:
    for path in ("/v1/events/straitsx/1", "/v1/events/straitsx/1/body"):
        status, found = await service.refused(path)
        assert status == 404
        assert found["detail"] == "source straitsx has no event 1; its log ends at 0"


async def deliveries(service: Service, **filters: object) -> list[Json]:
    return list((await service.ask("/v1/deliveries", **filters))["deliveries"])


async def test_every_delivery_is_stated_whether_or_not_it_made_an_event(service: Service) -> None:
    await service.post_json("straitsx", payment(1))
    await service.post_json("straitsx", payment(1))
    await service.post("straitsx", HOSTILE)
    async with service.client.put("/callbacks/straitsx", data=b"{}") as response:
        assert response.status == 405

    async def refused() -> list[Json]:
        return await deliveries(service, outcome="refused")

    await eventually(refused)
    found = await deliveries(service)
    assert sorted((row["outcome"], row["answer"], row["position"]) for row in found) == [
        ("accepted", 200, 1),
        ("duplicate", 200, 1),
        ("quarantined", 200, 2),
        ("refused", 405, None),
    ]
    assert {row["outcome"] for row in await deliveries(service, event=1)} == {
        "accepted",
        "duplicate",
    }
    (accepted,) = await deliveries(service, outcome="accepted")
    assert accepted["peer"] == "127.0.0.1"
    assert len(await deliveries(service, from_=accepted["at"])) >= 1
    assert await deliveries(service, to="2020-01-01T00:00:00Z") == []
    assert await deliveries(service, source="gokart") == []


async def test_deliveries_are_found_by_any_name_of_their_event(service: Service) -> None:
    reported = await service.post("straitsx", orjson.dumps(payment(1)))
    await service.post_json("straitsx", payment(1))
    await service.post("straitsx", orjson.dumps(payment(2)), "paymentStatusUpdated")
    for name in ("1", "straitsx:1", reported["event_id"]):
        assert [row["position"] for row in await deliveries(service, event=name)] == [1, 1], name
    for name in ("3", "gokart:1", "0" * 32, "payoutStatusUpdated"):
        assert await deliveries(service, event=name) == [], name
    (named,) = await deliveries(service, event="paymentStatusUpdated")
    assert (named["position"], named["path_event"]) == (2, "paymentStatusUpdated")


async def test_a_delivery_to_a_source_that_is_none_stands_under_unknown(service: Service) -> None:
    async with service.client.post("/callbacks/nowhere", data=b"{}") as response:
        assert response.status == 404

    async def unknown() -> list[Json]:
        return [row for row in await deliveries(service) if row["source"] == "unknown"]

    (row,) = await eventually(unknown)
    assert (row["outcome"], row["answer"]) == ("refused", 404)
    assert len(await deliveries(service, source="unknown")) == 1


async def test_a_decision_is_an_event_but_no_delivery(service: Service) -> None:
    await service.post("straitsx", HOSTILE)
    await service.fold()
    (found,) = (await service.ask("/v1/exceptions"))["exceptions"]
    path = f"/v1/exceptions/{found['id']}/resolve"
    async with service.client.post(path, json={"action": "acknowledge"}) as response:
        assert response.status == 200
    assert [e["origin"] for e in (await service.ask("/v1/events"))["events"]] == [
        "operator",
        "callback",
    ]
    assert [row["position"] for row in await deliveries(service)] == [1]
