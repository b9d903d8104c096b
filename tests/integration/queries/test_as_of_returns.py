"""Law: what came back, and whose it is, is answered as of every position as it was there.

The answers at every position are also those of a bookkeeper who reads the log up to there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from ledger import registry
from ledger.model import Fact, total
from ledger.simulator.deal import Deal, deal
from ledger.simulator.simulate import SCRIPTS, SimulatedCallback
from tests.asking import Json, Service, serving
from tests.conftest import Database
from tests.every_position import EveryPosition, Step
from tests.property import naive
from tests.property.driver import STRAITSX, attribute, received_at

LISTS = ("/v1/wallets", "/v1/balances", "/v1/entries", "/v1/transactions", "/v1/customers")
CUSTOMERS = ("", "customer_profile_a", "customer_profile_b")
REMARKS = ("RTN {}", "/ROC/RTN {} CLOSED", "rtn: {}", "REF 7 RTN/{}", "RTN {} RTN nobody")


def callback(kind: str, about: Deal, status: str, minutes: int) -> SimulatedCallback:
    """Report a transaction."""
    script = SCRIPTS[kind]
    return SimulatedCallback(script.provider, script.event, script.body(about, status, minutes))


def sent_and_returned(rng: Random, returns: int) -> list[SimulatedCallback]:
    """Make up money that is sent, and what comes back of it or pretends to, in any order."""
    found, names = [], ["nobody-knows"]
    for n, kind in enumerate(("payout", "payout", "user_withdrawal", "fx_payout")):
        about = deal(rng, "xusd" if kind == "fx_payout" else "xsgd")
        about = replace(about, amount=Decimal(100 * (n + 1)), customer_id=rng.choice(CUSTOMERS[1:]))
        if kind == "payout":
            about = replace(about, idempotency_id="po 1" if n else "po")
            names += [about.idempotency_id, about.id] if n else [about.idempotency_id] * 8
        else:
            names.append(about.id.removeprefix("contract_") if n == 3 else about.idempotency_id)
        last = rng.choice(["completed", "completed", "failed"]) if n else "completed"
        found += [callback(kind, about, "pending", 0), callback(kind, about, last, 9)]
    for n in range(returns):
        remarks = rng.choice(REMARKS).format(rng.choice(names))
        about = replace(
            deal(rng, rng.choice(["xsgd", "xsgd", "xusd"])),
            amount=Decimal(rng.choice(["0.01", "7", "50", "100", "400"])),
            remarks=remarks, customer_id=rng.choice(CUSTOMERS),
        )  # fmt: skip
        kind = rng.choice(["payment", "payment", "user_deposit"])
        found.append(callback(kind, about, "completed", n))
        if n % 6 == 5:
            found.append(callback(kind, about, "refunded", n + 60))
    rng.shuffle(found)
    return found


@dataclass
class Log:
    """What was appended, as facts."""

    facts: list[Fact] = field(default_factory=list)

    def steps(self, callbacks: list[SimulatedCallback], rng: Random) -> Iterator[Step]:
        """Yield the callbacks, and decisions between them."""
        for n, each in enumerate(callbacks):
            dispatch = registry.load().dispatch
            yield each
            self.facts.append(dispatch.translate(STRAITSX, "callback", each.event, each.body))
            if n % 4 == 3:
                about = rng.choice([fact for fact in self.facts if fact.kind != "decision"])
                customer = rng.choice([None, f"customer_profile_decided_{n}"])

                async def decide(
                    service: Service, about: Fact = about, customer: str | None = customer
                ) -> None:
                    path = f"/v1/transactions/straitsx/{about.resource_id}/attribute"
                    body = {"note": "asked them", "customer_id": customer}
                    async with service.client.post(path, json=body) as response:
                        if response.status == 200:
                            self.facts.append(attribute(about, customer))

                yield decide


@pytest.mark.parametrize("seed", [1, 2])
async def test_returns_are_answered_as_of_every_position_as_they_were_there(
    database: Database, seed: int
) -> None:
    rng, log = Random(seed), Log()
    async with serving(database) as service:
        every = EveryPosition(service, lists=LISTS, with_transactions=False)
        await every.play(log.steps(sent_and_returned(rng, 18), rng))
        assert len(every.recorded) == len(log.facts) + 1 > 28
        for place, answers in every.recorded:
            agrees(answers, log.facts[: place["straitsx"]])
        await every.check()


def agrees(answers: dict[str, Json], log: list[Fact]) -> None:
    """Check that transactions and balances are those of the bookkeeper."""
    accounts = naive.write(log, STRAITSX, received_at)
    rows = {(row["kind"], row["id"]): row for row in answers["/v1/transactions"]["transactions"]}
    assert rows.keys() == accounts.keys()
    sums: dict[Any, list[Decimal]] = defaultdict(list)
    for key, account in accounts.items():
        row = rows[key]
        assert (row["status"], {*row["flags"]}) == (account.status, account.flags), key
        assert row["return_of"] == account.return_of, key
        for (_, name, currency), amount in account.lines.items():
            sums[name, currency].append(amount)
    balances = {
        (row["account"], row["currency"]): total(Decimal(row["debits"]), -Decimal(row["credits"]))
        for row in answers["/v1/balances"]["balances"]
    }
    expected = {place: total(*amounts) for place, amounts in sums.items()}
    assert {k: v for k, v in balances.items() if v} == {k: v for k, v in expected.items() if v}
