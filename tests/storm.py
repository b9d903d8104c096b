"""Load for tests of faults: senders that resend everything until it is acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from ledger.simulator.simulate import GOKART, STRAITSX, SimulatedCallback, disturb, story
from tests.service import Caller

PACE_SECONDS_MAX = 0.02
RESEND_SECONDS = 0.05

SELECT_EVENTS = """
SELECT source, position, encode(event_id, 'hex') AS event_id, path_event, body, recorded_at
  FROM ledger.events WHERE origin = 'callback' ORDER BY source, position
"""
SELECT_HEADS = "SELECT source, position FROM ledger.heads"

Delivery = tuple[str, str | None, bytes]
"""(source, event name, body): what makes two deliveries the same callback."""


@dataclass(slots=True)
class Storm:
    """Senders that resend everything until it is acknowledged, and what they were told."""

    rng: random.Random
    stated: dict[Delivery, set[tuple[str, int]]] = field(default_factory=dict)
    firsts: Counter[Delivery] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    calm: asyncio.Event = field(default_factory=asyncio.Event)

    def callbacks(self) -> Iterator[SimulatedCallback]:
        """Tell stories for ever, disturbed: repeated, reordered, contradicted."""
        while True:
            stated = story("everything", self.rng)
            yield from disturb(stated, self.rng, duplicate=0.3, shuffle=True, conflict=True)

    async def send(self, caller: Caller, feed: Iterator[SimulatedCallback]) -> None:
        """Send callbacks until calm; none is given up."""
        while not self.calm.is_set():
            callback = next(feed)
            taken = await self.deliver(caller, callback)
            while not taken:
                await asyncio.sleep(RESEND_SECONDS)
                taken = await self.deliver(caller, callback)
            await asyncio.sleep(self.rng.random() * PACE_SECONDS_MAX)

    async def deliver(self, caller: Caller, callback: SimulatedCallback) -> bool:
        """Post once; return whether it was acknowledged."""
        key = callback.provider, callback.event, callback.body
        try:
            reply = await caller.post(callback.provider, callback.body, callback.event)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.answers[type(error).__name__] += 1
            return False
        self.answers[str(reply.status)] += 1
        if reply.status != 200:
            assert reply.status == 503, reply
            return False
        reported = reply.json
        self.stated.setdefault(key, set()).add((reported["event_id"], reported["position"]))
        self.firsts[key] += reported["status"] != "duplicate"
        return True


def check_log(events: list[Any], heads: dict[str, int], found: Storm) -> None:
    """Everything acknowledged is in the log as it was sent, dense, once; nothing else is."""
    stored = {(row["source"], row["position"]): row for row in events}
    for (source, event, body), reported in found.stated.items():
        assert len(reported) == 1, (source, event, reported)
        ((event_id, position),) = reported
        row = stored[source, position]
        assert (row["event_id"], row["path_event"], bytes(row["body"])) == (event_id, event, body)
    assert all(count <= 1 for count in found.firsts.values())
    assert len(stored) == len(found.stated)
    for source in (STRAITSX, GOKART):
        positions = [row["position"] for row in events if row["source"] == source]
        times = [row["recorded_at"] for row in events if row["source"] == source]
        assert positions == list(range(1, heads[source] + 1))
        assert times == sorted(times)
    assert len({(row["source"], row["event_id"]) for row in events}) == len(events)
