"""Law: whoever has money is listed as a customer, with what we owe, now and as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from ledger.api.endpoints import DECIDE
from ledger.model import OwnerRule
from ledger.queries.customers import LISTED_MAX, UNATTRIBUTED
from tests.asking import Json, Service, payment, payout, serving
from tests.conftest import Database


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def profile(customer: str) -> Json:
    attributes = {"verificationStatus": "verified", "updatedAt": "2026-01-03T00:00:00Z"}
    return {"data": {"id": customer, "type": "customer_profile", "attributes": attributes}}


async def listed(service: Service, **params: Any) -> list[tuple[str, str | None]]:
    pages = await service.pages("/v1/customers", "customers", **params)
    return [(row["id"], row["verification_status"]) for page in pages for row in page]


async def post_some(service: Service) -> None:
    await service.post_json("straitsx", payment(1, customer_profile_id="c_money"))
    await service.post_json("straitsx", payment(2, customer_profile_id="c_both"))
    await service.post_json("straitsx", profile("c_both"))
    await service.post_json("straitsx", profile("c_only"))
    await service.post_json("straitsx", payment(3, status="pending", customer_profile_id="a"))
    await service.post_json("straitsx", payment(4, customer_profile_id="c_money"))
    await service.fold()


async def test_customers_known_only_by_money_are_listed_among_the_others(service: Service) -> None:
    await post_some(service)
    whole = [("a", None), ("c_both", "verified"), ("c_money", None), ("c_only", "verified")]
    for limit in (1, 2, 3, 100):
        assert await listed(service, limit=limit) == whole
    assert await listed(service, verification_status="verified") == [whole[1], whole[3]]
    for row in (await service.ask("/v1/customers"))["customers"]:
        detail = await service.ask(f"/v1/customers/straitsx/{row['id']}")
        assert {name: detail[name] for name in row} == row


async def test_an_earlier_list_has_those_whom_money_named_then(service: Service) -> None:
    await post_some(service)
    expected = {
        1: [("c_money", None)],
        2: [("c_both", None), ("c_money", None)],
        3: [("c_both", "verified"), ("c_money", None)],
        6: await listed(service),
    }
    for position, rows in expected.items():
        for limit in (1, 100):
            assert await listed(service, limit=limit, position=f"straitsx:{position}") == rows
    assert await listed(service, position="straitsx:3", verification_status="verified") == [
        ("c_both", "verified")
    ]
    assert await listed(service, effective_at="2025-01-01T00:00:00Z") == []


async def attribute(service: Service, customer: str | None) -> None:
    path = "/v1/transactions/straitsx/contract_0001/attribute"
    body = orjson.dumps({"customer_id": customer, "note": "by hand"})
    headers = {"Content-Type": "application/json"}
    async with service.client.post(path, data=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
    await service.fold()


async def test_an_attribution_makes_a_customer_known_until_it_is_undone(service: Service) -> None:
    await service.post_json("straitsx", payout(1))
    await service.fold()
    assert await listed(service) == []
    await attribute(service, "c_1")
    assert await listed(service) == [("c_1", None)]
    await attribute(service, None)
    assert await listed(service) == []
    assert await listed(service, position="straitsx:2") == [("c_1", None)]
    assert await listed(service, position="straitsx:1") == []


async def test_whom_a_decision_took_everything_from_was_a_customer_before(
    service: Service,
) -> None:
    await service.post_json("straitsx", payment(1, customer_profile_id="c_named"))
    await service.fold()
    await attribute(service, "c_1")
    assert await listed(service) == [("c_1", None)]
    for limit in (1, 100):
        assert await listed(service, limit=limit, position="straitsx:1") == [("c_named", None)]
        assert await listed(service, limit=limit, position="straitsx:2") == [("c_1", None)]


async def test_a_customers_answer_has_its_balances(service: Service) -> None:
    await post_some(service)
    answer = await service.ask("/v1/customers/straitsx/c_money")
    assert (
        answer["balances"] == (await service.ask("/v1/balances", customer_id="c_money"))["balances"]
    )
    assert [(row["currency"], row["credits"], row["balance"]) for row in answer["balances"]] == [
        ("XSGD", "20", "20")
    ]
    earlier = await service.ask("/v1/customers/straitsx/c_money", position=5)
    assert [row["balance"] for row in earlier["balances"]] == ["10"]
    assert (await service.ask("/v1/customers/straitsx/c_only"))["balances"] == []
    assert (await service.ask("/v1/customers/straitsx/a", position=6))["balances"] == []


async def test_balances_of_very_many_currencies_are_cut_and_say_so(service: Service) -> None:
    for number in range(LISTED_MAX + 1):
        letters = f"X{number // 26:c}{number % 26:c}".translate({n: chr(65 + n) for n in range(26)})
        await service.post_json(
            "straitsx", payment(number, customer_profile_id="c", currency=letters)
        )
    await service.fold()
    for params in ({}, {"position": LISTED_MAX + 1}):
        answer = await service.ask("/v1/customers/straitsx/c", **params)
        assert (len(answer["balances"]), answer["cut"]) == (LISTED_MAX, ["balances"])


async def test_an_answer_notes_that_payouts_are_not_attributed(database: Database) -> None:
    async with serving(database) as service:
        await post_some(service)
        for params in ({}, {"position": 6}):
            answer = await service.ask("/v1/customers/straitsx/c_money", **params)
            assert answer["notes"] == [UNATTRIBUTED.format(source="straitsx")]


async def test_an_answer_notes_nothing_while_a_payout_is_attributed_to_the_customer(
    service: Service,
) -> None:
    await service.post_json("straitsx", payout(1))
    await service.post_json("straitsx", payment(2, customer_profile_id="c_1"))
    await service.post_json("straitsx", payment(3, customer_profile_id="c_2"))
    await service.fold()
    noted = [UNATTRIBUTED.format(source="straitsx")]
    for position, customer in ((4, "c_1"), (5, "c_2"), (6, "c_1"), (7, None)):
        await attribute(service, customer)
        for id_ in ("c_1", "c_2"):
            expected = [] if id_ == customer else noted
            for params in ({}, {"position": f"straitsx:{position}"}):
                found = await service.ask(f"/v1/customers/straitsx/{id_}", **params)
                assert found["notes"] == expected
    for position, owner in ((3, None), (4, "c_1"), (5, "c_2"), (6, "c_1"), (7, None)):
        for id_ in ("c_1", "c_2"):
            then = await service.ask(f"/v1/customers/straitsx/{id_}", position=position)
            assert then["notes"] == ([] if id_ == owner else noted)


async def test_a_payment_that_is_attributed_takes_no_note_away(service: Service) -> None:
    await service.post_json("straitsx", payment(1))
    await service.fold()
    await attribute(service, "c_1")
    found = await service.ask("/v1/customers/straitsx/c_1")
    assert found["notes"] == [UNATTRIBUTED.format(source="straitsx")]


async def test_an_attribution_that_came_too_early_takes_no_note_away(service: Service) -> None:
    body = {"action": "attribute", "kind": "payout", "resource": "contract_0001",
            "customer_id": "c_1", "note": "too early"}  # fmt: skip
    decide = service.client.app[DECIDE]  # type: ignore[union-attr]
    assert (await decide("straitsx", body))["position"] == 1
    await service.post_json("straitsx", payout(1))
    await service.post_json("straitsx", payment(2, customer_profile_id="c_1"))
    await service.fold()
    for params in ({}, {"position": "straitsx:3"}):
        found = await service.ask("/v1/customers/straitsx/c_1", **params)
        assert found["notes"] == [UNATTRIBUTED.format(source="straitsx")]


async def test_an_answer_notes_nothing_where_a_rule_attributes_payouts(service: Service) -> None:
    await post_some(service)
    rule = OwnerRule("idempotency_id", "^(.+)$")
    async with service.database.owner() as connection:
        await connection.execute(
            "UPDATE ledger.sources SET owner_field = $1, owner_match = $2", rule.field, rule.match
        )
    assert (await service.ask("/v1/customers/straitsx/c_money"))["notes"] == []
