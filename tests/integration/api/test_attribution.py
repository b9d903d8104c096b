"""Law: whose a transaction is, is decided by an event: checked first, listed, and undoable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from ledger.api.endpoints import DECIDE
from ledger.books.generations import use_generation
from tests import samples
from tests.asking import Json, Service, payment, payout, problem, serving
from tests.conftest import Database

PAYOUT = "contract_0001"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


async def attribute(
    service: Service, id_: str, source: str = "straitsx", kind: str | None = None, **body: Any
) -> tuple[int, Json]:
    """Decide whose a transaction is; return status and answer."""
    path = f"/v1/transactions/{source}/{quote(id_, safe='')}/attribute"
    params = {} if kind is None else {"kind": kind}
    async with service.client.post(path, json={"note": "why", **body}, params=params) as response:
        if response.status == 200:
            return 200, await response.json()
        return await problem(response)


async def events(service: Service) -> int:
    return len((await service.ask("/v1/events"))["events"])


async def test_an_attribution_is_an_event_and_is_shown(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.fold()
    status, answer = await attribute(service, PAYOUT, customer_id="cust_1", by="ana")
    assert (status, answer["position"], answer["status"]) == (200, 2, "accepted")
    event = await service.ask("/v1/events/straitsx/2")
    assert (event["origin"], event["kind"], event["status"], event["resource_id"]) == (
        "operator", "decision", "attribute", PAYOUT,
    )  # fmt: skip
    assert event["event_id"] == answer["event_id"]
    await service.fold()
    (shown,) = (await service.ask(f"/v1/transactions/straitsx/{PAYOUT}"))["decisions"]
    assert shown == {
        "position": 2, "action": "attribute", "reason": None, "customer_id": "cust_1",
        "note": "why", "by": "ana", "recorded_at": event["recorded_at"],
    }  # fmt: skip
    found = (await service.ask("/v1/exceptions"))["exceptions"]
    assert [each["reason"] for each in found] == ["unverified_money"]


async def test_an_answer_as_of_then_has_the_decisions_of_then(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.fold()
    for position, customer in ((2, "cust_1"), (3, "cust_2"), (4, None)):
        status, answer = await attribute(service, PAYOUT, customer_id=customer)
        assert (status, answer["position"]) == (200, position)
        await service.fold()
    for position in (1, 2, 3, 4):
        path = f"/v1/transactions/straitsx/{PAYOUT}"
        then = await service.ask(path, position=f"straitsx:{position}")
        assert [each["position"] for each in then["decisions"]] == [2, 3, 4][: position - 1]


async def test_an_attribution_counts_for_facts_that_are_dated_before_those_it_followed(
    service: Service,
) -> None:
    """The first fact is dated in February, one that comes after the decision in January."""
    await service.post_json("straitsx", payout(1, updated_at="2026-02-01T00:00:00Z"))
    await service.fold()
    assert (await attribute(service, PAYOUT, customer_id="cust_1"))[0] == 200
    late = payout(1, status="completed", updated_at="2026-01-10T00:00:00Z")
    await service.post_json("straitsx", late)
    await service.fold()
    january = {"effective_at": "2026-01-31T23:59:59Z"}
    (row,) = (await service.ask("/v1/transactions", **january))["transactions"]
    assert (row["status"], row["customer_id"]) == ("completed", "cust_1")
    (balance,) = (await service.ask("/v1/balances", account="liabilities:*", **january))["balances"]
    assert (balance["account"], balance["balance"]) == ("liabilities:customers:cust_1", "-20")
    (row,) = (await service.ask("/v1/transactions", position="straitsx:1"))["transactions"]
    assert (row["status"], row["customer_id"]) == ("pending", None)


async def test_a_decision_on_what_is_not_known_yet_changes_nothing(service: Service) -> None:
    decide = service.client.app[DECIDE]  # type: ignore[union-attr]
    body = {"action": "attribute", "kind": "payout", "resource": PAYOUT, "customer_id": "cust_1"}
    assert (await decide("straitsx", body | {"note": "too early"}))["position"] == 1
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.fold()
    for params in ({}, {"position": "straitsx:2"}):
        found = await service.ask(f"/v1/transactions/straitsx/{PAYOUT}", **params)
        assert (found["customer_id"], found["flags"]) == (None, [])
        assert [each["position"] for each in found["decisions"]] == [1]


async def test_decisions_on_exceptions_are_shown_with_their_transaction(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.post_json("straitsx", payout(1, status="failed"))
    await service.fold()
    (found,) = (await service.ask("/v1/exceptions"))["exceptions"]
    decision = {"action": "keep", "keep": 1, "note": "bank confirmed", "by": "ana"}
    path = f"/v1/exceptions/{found['id']}/resolve"
    async with service.client.post(path, json=decision) as response:
        assert response.status == 200
    await service.fold()
    (shown,) = (await service.ask(f"/v1/transactions/straitsx/{PAYOUT}"))["decisions"]
    assert (shown["action"], shown["reason"], shown["note"], shown["by"]) == (
        "keep", "conflict", "bank confirmed", "ana",
    )  # fmt: skip
    then = await service.ask("/v1/transactions", position="straitsx:3")
    assert (then["transactions"][0]["status"], then["transactions"][0]["conflict"]) == (
        "completed", None,
    )  # fmt: skip


async def test_what_is_decided_so_already_is_not_decided_again(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.fold()
    status, answer = await attribute(service, PAYOUT, customer_id=None)
    assert (status, "none to undo" in answer["detail"]) == (409, True)
    assert (await attribute(service, PAYOUT, customer_id="cust_1"))[0] == 200
    await service.fold()
    status, answer = await attribute(service, PAYOUT, customer_id="cust_1")
    assert (status, "to customer cust_1 already" in answer["detail"]) == (409, True)
    assert (await attribute(service, PAYOUT, customer_id=None))[0] == 200
    await service.fold()
    assert (await attribute(service, PAYOUT, customer_id=None))[0] == 409
    assert await events(service) == 3


async def test_a_decision_on_a_parked_transaction_is_said_to_wait(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.fold()
    async with service.database.service() as connection:
        await use_generation(connection, service.generation)
        await connection.execute(
            "INSERT INTO parked VALUES ('straitsx', 1, 'payout', 'contract_0001', 'a bug')"
        )
    assert (await attribute(service, PAYOUT, customer_id="cust_1"))[0] == 200
    await service.fold()
    (found,) = (await service.ask("/v1/transactions"))["transactions"]
    assert found["customer_id"] is None
    status, answer = await attribute(service, PAYOUT, customer_id="cust_1")
    assert (status, "it waits, because an event" in answer["detail"]) == (409, True)
    assert "position 2 attributes payout contract_0001 to customer cust_1" in answer["detail"]
    assert await events(service) == 2


async def test_a_decision_waits_for_the_books_to_have_what_the_log_has(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    status, answer = await attribute(service, PAYOUT, customer_id="cust_1")
    assert (status, "straitsx:1" in answer["detail"]) == (503, True)
    assert await events(service) == 1


async def test_what_is_unknown_or_belongs_to_no_customer_takes_no_decision(
    service: Service,
) -> None:
    await service.post("gokart", samples.body("gokart/02-success"))
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.fold()
    for id_, source in (("contract_0002", "straitsx"), (PAYOUT, "acme"), (PAYOUT, "gokart")):
        assert (await attribute(service, id_, source, customer_id="c"))[0] == 404
    assert (await attribute(service, PAYOUT, kind="payment", customer_id="c"))[0] == 404
    (row,) = (await service.ask("/v1/transactions", source="gokart"))["transactions"]
    status, answer = await attribute(service, row["id"], "gokart", customer_id="c")
    assert (status, answer["detail"]) == (
        400, "a conversion belongs to no customer, so none can be named"
    )  # fmt: skip
    assert await events(service) == 2


async def test_where_kinds_share_an_id_the_kind_is_named(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.post_json("straitsx", payment(1))
    await service.fold()
    status, answer = await attribute(service, PAYOUT, customer_id="c")
    assert (status, "payment, payout" in answer["detail"]) == (409, True)
    assert (await attribute(service, PAYOUT, kind="payout", customer_id="c"))[0] == 200
    path = f"/v1/transactions/straitsx/{PAYOUT}/attribute"
    body = {"customer_id": "c", "note": "why", "kind": "payment"}
    await service.fold()
    async with service.client.post(path, json=body) as response:
        assert response.status == 200
    await service.fold()
    for kind in ("payout", "payment"):
        found = await service.ask(f"/v1/transactions/straitsx/{PAYOUT}", kind=kind)
        assert [each["customer_id"] for each in found["decisions"]] == ["c"]


@pytest.mark.parametrize(
    ("body", "states"),
    [
        ({}, "customer_id"),
        ({"customer_id": ""}, "customer_id"),
        ({"customer_id": "  "}, "customer_id"),
        ({"customer_id": 5}, "customer_id"),
        ({"customer_id": "x" * 513}, "customer_id"),
        ({"customer_id": "a\x00b"}, "customer_id"),
        ({"customer_id": "c", "note": " "}, "note"),
        ({"customer_id": "c", "note": None}, "note"),
        ({"customer_id": "c", "note": "x" * 401}, "note"),
        ({"customer_id": "c", "by": 5}, "by"),
        ({"customer_id": "c", "kind": "customer"}, "customer' is no kind; there is: chain_deposit"),
        ({"customer_id": "c", "colour": "red"}, "colour"),
    ],
)
async def test_a_decision_that_cannot_be_meant_appends_nothing(
    service: Service, body: Json, states: str
) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.fold()
    status, answer = await attribute(service, PAYOUT, **body)
    assert (status, states in answer["detail"]) == (400, True), answer
    assert await events(service) == 1


async def test_the_address_and_the_decision_do_not_name_different_kinds(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.fold()
    path = f"/v1/transactions/straitsx/{PAYOUT}/attribute?kind=payout"
    body = {"customer_id": "c", "note": "why", "kind": "payment"}
    async with service.client.post(path, json=body) as response:
        status, answer = await problem(response)
    assert (status, "different kinds" in answer["detail"]) == (400, True)
    async with service.client.post(path, data=b"{") as response:
        assert response.status == 400


async def test_without_a_valid_token_nothing_is_decided(database: Database) -> None:
    async with serving(database, api_tokens=("t" * 40,)) as service:
        path = f"/v1/transactions/straitsx/{PAYOUT}/attribute"
        body = {"customer_id": "c", "note": "why"}
        for headers, status in (({}, 401), ({"Authorization": f"Bearer {'t' * 40}"}, 404)):
            async with service.client.post(path, json=body, headers=headers) as response:
                assert response.status == status
        async with service.client.get(path, headers=headers) as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")
