"""What a busy account sends in a day: made-up stories of many customers at the same time.

Stories begin one after another, so what callbacks say of time goes with their order in the log, as
a provider's does, but for what overlaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from heapq import heapify, heapreplace
from random import Random
from typing import Final, TypeAlias

from ledger.simulator.deal import FIRST, Deal, deal
from ledger.simulator.simulate import SCRIPTS, STRAITSX, SimulatedCallback, returned

Steps: TypeAlias = tuple[tuple[str, int], ...]

HOT_SHARE: Final = 0.2
"""How many of the money's stories belong to one and the same customer."""

AT_ONCE: Final = 300
"""How many stories are under way at any time."""

STEP: Final = timedelta(seconds=2)
"""How long after a story the next one begins: a hundred thousand callbacks make a day."""

MONEY: Final[tuple[tuple[int, str, Steps], ...]] = (
    (30, "payment", (("pending", 0), ("completed", 2))),
    (10, "payment", (("completed", 2),)),
    (5, "payment", (("pending", 0), ("completed", 2), ("refunded", 90))),
    (2, "payment", (("pending", 0), ("failed", 30))),
    (20, "payout", (("pending", 0), ("completed", 3))),
    (3, "payout", (("pending", 0), ("failed", 6))),
    (4, "fx_payout", (("pending", 0), ("completed", 9))),
    (3, "swap", (("pending", 0), ("completed", 1))),
    (2, "user_deposit", (("pending", 0), ("completed", 4))),
    (2, "user_withdrawal", (("pending", 0), ("completed", 4))),
    (2, "chain_deposit", (("pending", 0), ("completed", 4))),
    (2, "chain_withdrawal", (("pending", 0), ("completed", 4))),
)
"""(weight, kind, (status, minute) …)."""

STATUS: Final[tuple[tuple[int, str, Steps], ...]] = (
    (4, "customer", (("pending", 0), ("verified", 60))),
    (2, "customer", (("pending", 0), ("rejected", 30), ("pending", 60), ("verified", 90))),
    (3, "bank_account", (("pending", 0), ("verified", 10))),
    (3, "virtual_account", (("pending", 0), ("enabled", 1))),
    (1, "limits", (("Annual", 0), ("Daily", 1))),
    (1, "limits_request", (("pending", 0), ("approved", 20))),
    (1, "rfi", (("sent", 0), ("received", 40), ("completed", 80))),
)
RETURNS: Final = 2
"""Weight of payouts that the bank sends back."""

_ALL: Final = (*MONEY, *STATUS, (RETURNS, "return", ()))
_WEIGHTS: Final = [weight for weight, _, _ in _ALL]


def mixed(seed: int, count: int, began: datetime = FIRST) -> Iterator[SimulatedCallback]:
    """Yield `count` distinct StraitsX callbacks; the same seed yields the same, in the same order.

    The first stories begin at `began`.
    """
    rng = Random(seed)  # noqa: S311 - made-up callbacks, repeatable on purpose
    hot = deal(rng)
    waiting = [(rng.random(), n, _story(rng, hot, began + n * STEP)) for n in range(AT_ONCE)]
    heapify(waiting)
    started = AT_ONCE
    for _ in range(count):
        moment, number, steps = waiting[0]
        yield steps[0]
        rest = steps[1:]
        if not rest:
            number, rest = started, _story(rng, hot, began + started * STEP)
            started += 1
        heapreplace(waiting, (moment + rng.random(), number, rest))


def _story(rng: Random, hot: Deal, began: datetime) -> list[SimulatedCallback]:
    """Return one story of the mix."""
    _, kind, steps = rng.choices(_ALL, _WEIGHTS)[0]
    if not steps:
        return returned(rng, began)
    script = SCRIPTS[kind]
    about = deal(rng, script.currency, began)
    if any(kind == known for _, known, _ in MONEY) and rng.random() < HOT_SHARE:
        about = replace(about, customer_id=hot.customer_id, account_no=hot.account_no)
    return [
        SimulatedCallback(
            STRAITSX, script.event, script.body(about, status, minutes), f"{kind} {status}"
        )
        for status, minutes in steps
    ]
