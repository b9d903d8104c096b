"""Law: as of a position, every answer is the one that was given when the books stood there."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

import pytest

from ledger.books import balance_index
from ledger.queries.as_of import snapshot as reads_asof
from ledger.simulator.deal import Deal, deal
from ledger.simulator.simulate import SCRIPTS, SimulatedCallback
from tests.asking import serving
from tests.conftest import Database
from tests.every_position import EveryPosition, Step, decide


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


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_as_of_a_position_is_what_was_answered_there(
    database: Database, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balance_index, "BLOCK_POSITIONS", 4 + seed)
    monkeypatch.setattr(balance_index, "INDEXED_ENTRIES_MIN", 3)
    monkeypatch.setattr(balance_index, "WIDE_BLOCKS", 2)
    monkeypatch.setattr(reads_asof, "EVENTS_AT_ONCE", 3)
    rng = Random(seed)
    steps: list[Step] = []
    for n, each in enumerate(stories(rng)):
        steps += [each, partial(decide, rng=rng)] if n % 5 == 4 else [each]
    bodies = [each.body for each in steps if isinstance(each, SimulatedCallback)]
    people = sorted({name for body in bodies for name in _customers(body)})
    async with serving(database) as service:
        positions = EveryPosition(service, customers=people)
        await positions.play(steps)
        resolved = await service.ask("/v1/exceptions", state="resolved", reason="conflict")
        assert resolved["exceptions"]
        assert len(positions.recorded) > 40
        await positions.check()
        await positions.check_filters(rng, 100)


def _customers(body: bytes) -> list[str]:
    return [word for word in body.decode().split('"') if word.startswith("customer_profile_")]
