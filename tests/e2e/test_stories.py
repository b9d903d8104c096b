"""Promise: what callbacks say together does not depend on order, repetition or batching."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from decimal import Decimal
from typing import Any

import orjson
import pytest

from ledger.simulator.simulate import GOKART, SimulatedCallback, disturb, story
from tests import samples
from tests.asking import payment, payout
from tests.e2e.conftest import Serve
from tests.service import Caller, Json, Reply, Service, calling

NAMES = ("plain", "shaken", "money", "people", "decided", "keep-completed", "keep-failed")
REWARDS = ("rewards", "shaken-rewards")
TOML = "".join(f'[sources.{name}]\nprovider = "straitsx"\n' for name in NAMES) + "".join(
    f'[sources.{name}]\nprovider = "gokart"\ncurrency = "USD"\n' for name in REWARDS
)
ARRIVAL = frozenset(
    {"source", "position", "event_id", "received_at", "recorded_at", "first_position"}
)
"""What tells of where and when a callback arrived, not of what it says."""


@pytest.fixture(scope="module")
def service(serve: Serve) -> Iterator[Service]:
    with serve(TOML) as running:
        yield running


@pytest.fixture
async def caller(service: Service) -> AsyncIterator[Caller]:
    async with calling(service.url) as opened:
        yield opened


async def stated(caller: Caller, source: str, *bodies: Json, event: str | None = None) -> str:
    """Tell a story in order; return the position at which it is told."""
    at = ""
    for body in bodies:
        reported = await caller.report(source, orjson.dumps(body), event)
        at = f"{source}:{reported['position']}"
    return at


def timeless(value: Any) -> Any:
    """Leave out everything that tells of arrival; lists that follow it are sorted."""
    if isinstance(value, dict):
        return {name: timeless(each) for name, each in value.items() if name not in ARRIVAL}
    if isinstance(value, list):
        return sorted((timeless(each) for each in value), key=repr)
    return value


async def send_all(caller: Caller, source: str, callbacks: Sequence[SimulatedCallback]) -> int:
    """Send callbacks one after the other; return how many events they made."""
    made = 0
    for callback in callbacks:
        reported = await caller.report(source, callback.body, callback.event)
        made += reported["status"] != "duplicate"
    return made


async def settled(caller: Caller, source: str, head: int) -> Json:
    """Return everything the API says of a source, without what tells of arrival."""
    await caller.ask("/v1/wallets", at_least=f"{source}:{head}")
    found = {}
    for name in ("transactions", "balances", "wallets", "customers", "bank_accounts",
                 "virtual_accounts", "limits", "limit_requests", "rfi"):  # fmt: skip
        found[name] = timeless(await caller.rows(f"/v1/{name}", name, source=source, limit=100))
    entries = await caller.rows("/v1/entries", "entries", source=source, limit=1000)
    found["legs"] = timeless(_legs(entries))
    return found


def _legs(entries: list[Json]) -> list[tuple[Any, ...]]:
    """Return the dated legs that all entries leave: what later ones took back is gone."""
    sums: dict[tuple[Any, ...], Decimal] = {}
    for row in entries:
        key = tuple(row[name] for name in ("kind", "transaction", "account", "currency",
                                           "effective_at"))  # fmt: skip
        sums[key] = sums.get(key, Decimal(0)) + Decimal(row["amount"])
    return [(*key, str(amount.normalize())) for key, amount in sums.items() if amount]


async def test_order_and_repetition_change_nothing_but_positions(caller: Caller) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    every = story("everything", rng, 4)
    shaken = disturb(every, rng, duplicate=0.4, shuffle=True)
    for is_gokart, plain, other in ((False, "plain", "shaken"), (True, *REWARDS)):
        in_order = [c for c in every if (c.provider == GOKART) == is_gokart]
        disturbed = [c for c in shaken if (c.provider == GOKART) == is_gokart]
        assert in_order
        assert len(disturbed) > len(in_order)
        made = await send_all(caller, plain, in_order)
        assert await send_all(caller, other, disturbed) == made == len(in_order)
        expected = await settled(caller, plain, made)
        actual = await settled(caller, other, made)
        for name, rows in expected.items():
            assert actual[name] == rows, name
        assert expected["transactions"]
        assert expected["legs"]


async def test_a_callback_stays_a_duplicate_whatever_came_between(caller: Caller) -> None:
    body = payment(100)
    first = await caller.report("money", orjson.dumps(body))
    await stated(caller, "money", *(payment(n) for n in range(101, 111)))
    again = await caller.report("money", orjson.dumps(body))
    assert (again["status"], again["position"]) == ("duplicate", first["position"])


def steps(number: int, *statuses: str, **changes: Any) -> list[Json]:
    """Return a payment's callbacks, one per status, a minute apart."""
    return [
        payment(number, status=status, updated_at=f"2026-01-02T00:0{n}:00Z", **changes)
        for n, status in enumerate(statuses)
    ]


async def available(caller: Caller, currency: str, at: str) -> tuple[str, str, str]:
    answer = await caller.ask("/v1/wallets", source="money", currency=currency, at_least=at)
    (wallet,) = answer["wallets"] or [{"available": "0", "held": "0", "pending_in": "0"}]
    return wallet["available"], wallet["held"], wallet["pending_in"]


async def status_of(caller: Caller, number: int) -> str:
    found = await caller.ask(f"/v1/transactions/money/contract_{number:04}")
    assert isinstance(found["status"], str)
    return found["status"]


@pytest.mark.parametrize(
    ("currency", "statuses", "status", "wallet"),
    [
        ("aaa", ["completed"], "completed", ("9.5", "0", "0")),
        ("aab", ["pending", "completed"], "completed", ("9.5", "0", "0")),
        ("aac", ["completed", "pending"], "completed", ("9.5", "0", "0")),
        ("aad", ["pending"], "pending", ("0", "0", "10")),
        ("aae", ["pending", "failed"], "failed", ("0", "0", "10")),
        ("aaf", ["pending", "expired"], "expired", ("0", "0", "0")),
        ("aag", ["pending", "completed", "refunded"], "refunded", ("-0.5", "0", "0")),
        ("aah", ["completed", "refunded", "pending"], "refunded", ("-0.5", "0", "0")),
        ("aai", ["refunded", "completed"], "refunded", ("-0.5", "0", "0")),
        ("aaj", ["pending", "failed", "refunded"], "refunded", ("0", "0", "0")),
        ("aak", ["refunded"], "refunded", ("0", "0", "0")),
        ("aal", ["refunded", "pending"], "refunded", ("0", "0", "0")),
    ],
)
async def test_a_payment_is_what_its_states_say_together(
    caller: Caller, currency: str, statuses: list[str], status: str, wallet: tuple[str, str, str]
) -> None:
    number = 200 + ord(currency[2])
    at = await stated(caller, "money", *steps(number, *statuses, currency=currency))
    assert await available(caller, currency.upper(), at) == wallet
    assert await status_of(caller, number) == status


@pytest.mark.parametrize(
    ("currency", "statuses", "status", "wallet"),
    [
        ("aba", ["pending"], "pending", ("-21", "21", "0")),
        ("abb", ["completed"], "completed", ("-21", "0", "0")),
        ("abc", ["pending", "completed"], "completed", ("-21", "0", "0")),
        ("abd", ["completed", "pending"], "completed", ("-21", "0", "0")),
        ("abe", ["pending", "failed"], "failed", ("0", "0", "0")),
        ("abf", ["failed", "pending"], "failed", ("0", "0", "0")),
        ("abg", ["pending", "completed", "failed"], "conflict", ("-21", "21", "0")),
        ("abh", ["failed", "completed"], "conflict", ("-21", "21", "0")),
    ],
)
async def test_a_payout_is_what_its_states_say_together(
    caller: Caller, currency: str, statuses: list[str], status: str, wallet: tuple[str, str, str]
) -> None:
    number = 300 + ord(currency[2])
    bodies = [payout(number, status=each, currency=currency) for each in statuses]
    at = await stated(caller, "money", *bodies)
    assert await available(caller, currency.upper(), at) == wallet
    assert await status_of(caller, number) == status


async def test_completed_alone_states_the_same_as_pending_then_completed(caller: Caller) -> None:
    at = await stated(
        caller, "money", *steps(400, "completed"), *steps(401, "pending", "completed")[1:],
        *steps(402, "pending", "completed"),
    )  # fmt: skip
    found = []
    for number in (401, 402):
        answer = await caller.ask(
            "/v1/entries", transaction=f"contract_0{number}", source="money", at_least=at
        )
        rows = [{**row, "transaction": ""} for row in answer["entries"]]
        found.append(sorted(timeless(_legs(rows))))
    assert found[0] == found[1]
    assert len(found[0]) == 3


def customer(status: str, minute: int, **more: Any) -> Json:
    attributes = {
        "customerName": "Mei Tan",
        "registrationType": "personal",
        "verificationStatus": status,
        "createdAt": "2026-01-01T00:00:00Z",
        "updatedAt": f"2026-01-01T00:{minute:02}:00Z",
        **more,
    }
    return {"data": {"id": "customer_1", "type": "customer_profile", "attributes": attributes}}


async def verification(caller: Caller, at: str) -> tuple[str, str]:
    found = await caller.ask("/v1/customers/people/customer_1", at_least=at)
    return found["verification_status"], found["updated_at"]


async def test_verification_follows_the_providers_clock_not_arrival(caller: Caller) -> None:
    at = await stated(caller, "people", customer("pending", 1), customer("verified", 10))
    assert await verification(caller, at) == ("verified", "2026-01-01T00:10:00Z")
    at = await stated(caller, "people", customer("rejected", 5, isRetryable=True))
    assert await verification(caller, at) == ("verified", "2026-01-01T00:10:00Z")
    at = await stated(caller, "people", customer("rejected", 20, isRetryable=False))
    assert await verification(caller, at) == ("rejected", "2026-01-01T00:20:00Z")
    at = await stated(caller, "people", customer("verified", 15))
    assert await verification(caller, at) == ("rejected", "2026-01-01T00:20:00Z")
    at = await stated(caller, "people", customer("verified", 30))
    found = await caller.ask("/v1/customers/people/customer_1", at_least=at)
    assert (found["verification_status"], found["rejection"]) == ("verified", None)
    assert len(found["history"]) == 6


async def resolve(caller: Caller, exception: str, **decision: object) -> Reply:
    return await caller.request("POST", f"/v1/exceptions/{exception}/resolve", json=decision)


@pytest.mark.parametrize(
    ("source", "keep", "status", "wallet"),
    [
        ("keep-completed", 1, "completed", ("-1001.5", "0")),
        ("keep-failed", 2, "failed", ("0", "0")),
    ],
)
async def test_an_operator_decides_a_conflict_and_wallets_follow(
    caller: Caller, source: str, keep: int, status: str, wallet: tuple[str, str]
) -> None:
    for name in samples.names("straitsx")[8:10]:
        await caller.report(source, samples.body(name))
    found = await caller.ask("/v1/exceptions", source=source, at_least=f"{source}:2")
    (exception,) = found["exceptions"]
    assert await holdings(caller, source, 2) == ("-1001.5", "1001.5")
    decided = await resolve(
        caller, exception["id"], action="keep", keep=keep, note="asked the provider", by="ops"
    )
    assert (decided.status, decided.json["position"]) == (200, 3), decided
    event = await caller.ask(f"/v1/events/{source}/3")
    assert (event["origin"], event["kind"], event["status"]) == ("operator", "decision", "keep")
    assert await holdings(caller, source, 3) == wallet
    transaction = await caller.ask(f"/v1/transactions/{source}/{exception['resource_id']}")
    assert transaction["status"] == status
    after = await caller.ask("/v1/exceptions", source=source)
    assert [(row["state"], row["note"]) for row in after["exceptions"]] == [
        ("resolved", "ops: asked the provider")
    ]
    assert (await resolve(caller, exception["id"], action="keep", keep=2)).status == 409
    assert (await caller.ask("/v1/events", source=source))["events"][0]["position"] == 3


async def holdings(caller: Caller, source: str, position: int) -> tuple[str, str]:
    answer = await caller.ask("/v1/wallets", source=source, at_least=f"{source}:{position}")
    rows = [row for row in answer["wallets"] if row["currency"] == "XUSD"]
    return (rows[0]["available"], rows[0]["held"]) if rows else ("0", "0")


async def test_decisions_sent_at_once_are_decided_one_after_the_other(caller: Caller) -> None:
    at = await stated(caller, "decided", payout(1, status="completed"), payout(1, status="failed"))
    found = await caller.ask("/v1/exceptions", source="decided", at_least=at)
    (exception,) = found["exceptions"]
    replies = await asyncio.gather(
        *(resolve(caller, exception["id"], action="keep", keep=1 + n % 2) for n in range(6))
    )
    assert {reply.status for reply in replies} <= {200, 409}
    taken = [reply.json["position"] for reply in replies if reply.status == 200]
    assert len(taken) >= 1
    answer = await caller.ask("/v1/wallets", source="decided", at_least=f"decided:{max(taken)}")
    (wallet,) = answer["wallets"] or [{"held": "0", "available": "0"}]
    assert wallet["held"] == "0"
    assert wallet["available"] in ("0", "-21")
