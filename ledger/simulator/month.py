"""A month of a provider account: callbacks, statements that agree with them, planted faults.

Every story is made twice from the same seed, once for the statements and once, lazily, for the
callbacks, so that a month of any size needs memory for its statement rows only. Nothing depends
on anything but the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Final

from ledger.simulator.deal import deal
from ledger.simulator.faults import FAULTS
from ledger.simulator.simulate import SCRIPTS
from ledger.simulator.statement_files import Writer, straitsx_json
from ledger.simulator.story import OPENED_AT, PERIOD, Planted, SimulatedRow, Story, StoryMaker

CURRENCIES: Final = ("SGD", "USD", "USDC", "XSGD", "XUSD")
TRANSACTIONS_MIN: Final = 200
"""Fewer transactions leave no room between the planted faults."""
COPIES_MAX: Final = 5
_PEOPLE_MAX: Final = 200
_TAIL: Final = timedelta(hours=3)
"""No story but a fault begins this late: its callbacks must end within the month."""

_MIX: Final = (
    ("payment", 34), ("payout", 20), ("user_deposit", 8), ("user_withdrawal", 6),
    ("chain_deposit", 7), ("chain_withdrawal", 6), ("swap", 6), ("fx_payout", 3),
    ("refunded", 3), ("blocked", 1), ("failed", 1), ("returned", 2), ("twins", 1), ("unnamed", 2),
)  # fmt: skip
"""Story → how many of a hundred."""


@dataclass(frozen=True, slots=True)
class Month:
    """A month as the provider reports it: callbacks one by one, statements as files."""

    seed: int
    transactions: int
    faults: bool
    statements: Mapping[str, bytes]
    """Currency, upper case → its account statement, as the writer given writes it."""
    planted: tuple[Planted, ...]
    opened_at: datetime = OPENED_AT
    closed_at: datetime = OPENED_AT + PERIOD

    @property
    def callbacks(self) -> Iterator[tuple[str, bytes]]:
        """Make the callbacks again: (event name of the URL, body), about in the order of time."""
        for story in _stories(self.seed, self.transactions, self.faults):
            for kind, d, status, minutes in story.steps:
                script = SCRIPTS[kind]
                yield script.event or "", script.body(d, status, minutes)


def month(seed: int, transactions: int, faults: bool, write: Writer = straitsx_json) -> Month:
    """Make up a month of about `transactions` transactions; the same seed gives the same bytes.

    `write` makes the statements' files, those of StraitsX unless another is given. Without
    `faults` every wallet's movements are exactly its statement's lines. Raises ValueError for
    fewer than TRANSACTIONS_MIN transactions.
    """
    if transactions < TRANSACTIONS_MIN:
        raise ValueError(f"a month has at least {TRANSACTIONS_MIN} transactions")
    rows: dict[str, list[SimulatedRow]] = {currency: [] for currency in CURRENCIES}
    planted: list[Planted] = []
    for story in _stories(seed, transactions, faults):
        planted += story.planted
        for row in story.rows:
            rows[row.currency].append(row)
    statements = {
        currency: write(currency, sorted(lines, key=lambda row: row.at))
        for currency, lines in rows.items()
    }
    return Month(seed, transactions, faults, statements, tuple(planted))


def _stories(seed: int, transactions: int, faults: bool) -> Iterator[Story]:
    rng = Random(seed)  # noqa: S311 - made-up money
    maker = StoryMaker(rng)
    people = [deal(rng).customer_id for _ in range(min(_PEOPLE_MAX, transactions // 20))]
    for customer_id in people:
        known = replace(deal(rng), customer_id=customer_id, created=OPENED_AT)
        yield Story([("customer", known, "verified", 0)])
    for story in _funding(maker):
        yield story
        maker.transactions += story.transactions
    plan = _plan(seed, transactions) if faults else {}
    while maker.transactions < transactions:
        share = maker.transactions / transactions
        created = OPENED_AT + (PERIOD - _TAIL) * share + timedelta(seconds=rng.randrange(60))
        fault = plan.pop(min(plan), None) if plan and min(plan) <= maker.transactions else None
        maker.begin(created, rng.choice(people))
        story = FAULTS[fault](maker) if fault is not None else _usual(maker)
        maker.transactions += story.transactions
        yield story


def _plan(seed: int, transactions: int) -> dict[int, int]:
    """Spread every fault over the month: number of transactions before it → fault.

    The last fifth has none but those that must be there, so that what is wrong has had its time.
    """
    copies = max(1, min(COPIES_MAX, transactions // 500))
    faults = list(range(len(FAULTS))) * copies
    rng = Random(f"faults of {seed}")  # noqa: S311 - made-up money
    rng.shuffle(faults)
    first = TRANSACTIONS_MIN // 10
    room = (transactions * 4 // 5 - first) // len(faults)
    return {first + n * room + rng.randrange(room): fault for n, fault in enumerate(faults)}


def _funding(maker: StoryMaker) -> Iterator[Story]:
    """Fill the wallets first, so that none is overdrawn."""
    for n, currency in enumerate(("sgd", "usd", "xsgd", "xusd", "usdc")):
        maker.begin(OPENED_AT + timedelta(minutes=n), "")
        kind = "chain_deposit" if currency == "usdc" else "user_deposit"
        filled = replace(maker.deal(currency), amount=Decimal(90_000_000), fees=Decimal(0))
        yield maker.story(kind, filled, (("completed", 0),))


def _usual(maker: StoryMaker) -> Story:
    """Make one of the stories of `_MIX`."""
    rng = maker.rng
    name = rng.choices([name for name, _ in _MIX], [weight for _, weight in _MIX])[0]
    steps = (("pending", 0), ("completed", 3)) if rng.random() < 0.4 else (("completed", 1),)
    match name:
        case "refunded":
            return maker.story("payment", maker.deal(), (*steps, ("refunded", 90)))
        case "blocked":
            blocked = (("pending", 0), ("failed", 30), ("refunded", 60))
            return maker.story("payment", maker.deal(), blocked)
        case "failed":
            return maker.story("payout", maker.deal(), (("pending", 0), ("failed", 6)))
        case "returned":
            return _returned(maker)
        case "twins":
            return _twins(maker)
        case "unnamed":
            return _unnamed(maker)
        case "swap":
            return maker.story(name, maker.deal("xsgd"), steps)
        case "fx_payout":
            return maker.story(name, maker.deal("xusd"), steps)
        case "chain_deposit" | "chain_withdrawal":
            return maker.story(name, maker.deal(rng.choice(("xsgd", "xusd", "usdc"))), steps)
        case _:
            return maker.story(name, maker.deal(), steps)


def _returned(maker: StoryMaker) -> Story:
    """Make a payout that the bank sent back, sometimes less its own charge."""
    sent = maker.deal()
    kept = maker.rng.choice((0, 0, 5))
    back = replace(
        maker.deal(sent.currency),
        amount=sent.amount - min(Decimal(kept), sent.amount / 2),
        fees=Decimal(0),
        customer_id="",  # a bank knows no customer of ours
        remarks=f"RTN {sent.idempotency_id}",
        created=sent.created + timedelta(minutes=30),
    )
    first = maker.story("payout", sent, (("pending", 0), ("completed", 3)))
    return first.then(maker.story("payment", back, (("completed", 1),)))


def _twins(maker: StoryMaker) -> Story:
    """Make two equal payments in the same minute, which only their ids distinguish."""
    one = maker.deal()
    two = replace(maker.deal(one.currency), amount=one.amount, fees=one.fees, created=one.created)
    steps = (("completed", 1),)
    return maker.story("payment", one, steps).then(maker.story("payment", two, steps))


def _unnamed(maker: StoryMaker) -> Story:
    """Make a line that names no contract: a reference or its amount alone must do."""
    if maker.rng.random() < 0.5:
        story = maker.story("chain_deposit", maker.deal("xsgd"), (("completed", 1),))
        return story.unnamed(keep_reference=True)
    odd = maker.odd(maker.deal())
    return maker.story("payment", odd, (("completed", 1),)).unnamed(keep_reference=False)
