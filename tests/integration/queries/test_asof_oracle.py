"""Law: as of a position, every answer is the one that was given when the books stood there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest

from ledger.books import balance_index
from ledger.queries.as_of import snapshot as reads_asof
from ledger.simulator.deal import Deal, deal
from ledger.simulator.simulate import SCRIPTS, SimulatedCallback
from tests.asking import Json, Service, problem, serving
from tests.conftest import Database

LISTS = ("wallets", "balances", "entries", "transactions", "customers")


def report(kind: str, about: Deal, *steps: tuple[str, int]) -> list[SimulatedCallback]:
    """Make the callbacks of one story."""
    script = SCRIPTS[kind]
    return [
        SimulatedCallback(script.provider, script.event, script.body(about, status, minutes))
        for status, minutes in steps
    ]


def stories(rng: Random) -> list[SimulatedCallback]:
    """Make up about 40 callbacks: contradictions, returns, refunds, verification, nonsense."""
    one, two = deal(rng), deal(rng)
    sent = replace(deal(rng), customer_id=one.customer_id)
    back = replace(deal(rng), amount=sent.amount, remarks=f"RTN {sent.idempotency_id}")
    odd = deal(rng)
    twin = replace(deal(rng), idempotency_id=odd.idempotency_id)
    again = replace(odd, idempotency_id="0-" + odd.idempotency_id)
    found = [
        *report("payment", one, ("pending", 0), ("completed", 9), ("refunded", 90)),
        *report("payment", replace(deal(rng), customer_id=one.customer_id), ("completed", 3)),
        *report("payout", sent, ("pending", 0), ("completed", 5)),
        *report("payment", back, ("completed", 60)),
        *report("payout", two, ("completed", 5), ("failed", 6)),
        *report("payment", odd, ("completed", 5)),
        *report("payment", again, ("refunded", 70)),
        *report("payment", replace(odd, amount=odd.amount + 1), ("pending", 1)),
        *report("payment", twin, ("completed", 8)),
        *report("swap", deal(rng), ("pending", 0), ("completed", 2)),
        *report("fx_payout", deal(rng, "xusd"), ("pending", 0), ("completed", 2)),
        *report("payment", deal(rng), ("teleported", 2)),
        *report("customer", one, ("pending", 0), ("verified", 30), ("rejected", 60)),
        *report("customer", two, ("verified", 3)),
        *report("bank_account", one, ("pending", 0), ("verified", 10)),
        *report("virtual_account", one, ("pending", 0), ("enabled", 1)),
        *report(
            "limits", replace(one, account_no="77"), ("Annual", 0), ("Daily", 1), ("Annual", 5)
        ),
        *report("limits_request", one, ("pending", 0), ("approved", 4), ("rejected", 5)),
        *report("rfi", one, ("sent", 0), ("received", 4), ("completed", 9)),
        *report("conversion", deal(rng), ("Pending", 0), ("Success", 6), ("Rejected", 9)),
        SimulatedCallback("straitsx", None, b"{nonsense"),
    ]
    rng.shuffle(found)
    return found


@dataclass
class Oracle:
    """Remembers every answer at every place, and asks for it again."""

    service: Service
    customers: list[str]
    seen: list[tuple[dict[str, int], dict[str, Any]]] = field(default_factory=list)

    async def remember(self) -> None:
        """Fold to the head and keep all answers."""
        await self.service.fold()
        found = {name: await self.get(f"/v1/{name}", limit=1000) for name in LISTS}
        for row in found["transactions"]["transactions"]:
            path = f"/v1/transactions/{row['source']}/{row['id']}"
            found[path] = await self.get(path, kind=row["kind"])
        for id_ in self.customers:
            path = f"/v1/customers/straitsx/{id_}"
            found[path] = await self.get(path)
        self.seen.append((found["wallets"]["position"], found))

    async def get(self, path: str, **params: Any) -> Json:
        """Ask, and leave out of the answer what only an as-of has."""
        async with self.service.client.get(path, params=params) as response:
            if response.status != 200:
                return {"status": (await problem(response))[0]}
            found: Json = await response.json()
        found.pop("as_of", None)
        return found

    async def check(self, place: dict[str, int], was: dict[str, Any]) -> None:
        """Ask everything again as of `place`."""
        position = ",".join(f"{source}:{at}" for source, at in place.items())
        for name in LISTS:
            assert (
                _differing(
                    await self.get(f"/v1/{name}", limit=1000, position=position), was[name], name
                )
                == []
            ), place
        for path, answer in was.items():
            if path.startswith("/"):
                source = path.split("/")[3]
                kind = {"kind": answer["kind"]} if "kind" in answer else {}
                now = await self.get(path, position=place[source], **kind)
                # The other source's place is not asked about, and has moved on.
                assert _here(now, source) == _here(answer, source), path


def _differing(now: Json, was: Json, name: str) -> list[tuple[str, Any, Any]]:
    """Return what differs of two answers, so that a failure shows it."""
    found = [(key, now[key], was[key]) for key in now.keys() | was.keys() if key != name]
    found += [(name, len(now[name]), len(was[name]))]
    for one, other in zip(now[name], was[name], strict=False):
        found += [(key, one[key], other[key]) for key in one.keys() | other.keys()]
    return [each for each in found if each[1] != each[2]]


def _here(answer: Json, source: str) -> Json:
    return answer | {"position": answer.get("position", {}).get(source)}


async def decide(service: Service, rng: Random) -> bool:
    """Decide on one open conflict; return whether there was one."""
    rows = (await service.ask("/v1/exceptions", state="open", reason="conflict"))["exceptions"]
    if not rows:
        return False
    row = rng.choice(rows)
    events = await service.ask("/v1/events", kind=row["kind"], resource_id=row["resource_id"])
    keep = rng.choice([event["position"] for event in events["events"]])
    path = f"/v1/exceptions/{row['id']}/resolve"
    async with service.client.post(path, json={"action": "keep", "keep": keep}) as response:
        return response.status == 200


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_as_of_a_position_is_what_was_answered_there(
    database: Database, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balance_index, "BLOCK_POSITIONS", 4 + seed)
    monkeypatch.setattr(balance_index, "INDEXED_ENTRIES_MIN", 3)
    monkeypatch.setattr(balance_index, "WIDE_BLOCKS", 2)
    monkeypatch.setattr(reads_asof, "EVENTS_AT_ONCE", 3)
    rng = Random(seed)
    stated = stories(rng)
    people = sorted({part for each in stated for part in _customers(each.body)})
    async with serving(database) as service:
        oracle = Oracle(service, people)
        await oracle.remember()
        decisions = 0
        for n, callback in enumerate(stated):
            await service.post(callback.provider, callback.body, callback.event)
            await oracle.remember()
            if n % 5 == 4 and await decide(service, rng):
                decisions += 1
                await oracle.remember()
        assert decisions > 0
        assert len(oracle.seen) > 40
        for place, was in oracle.seen:
            await oracle.check(place, was)


def _customers(body: bytes) -> list[str]:
    return [word for word in body.decode().split('"') if word.startswith("customer_profile_")]
