"""Promise: an appender lets small batches grow, and keeps no sender waiting in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from ledger.config.settings import load
from ledger.eventlog.appender import Appender, AppendResult, InFlightLimit, Linger
from ledger.eventlog.new_event import NewEvent

LINGER = Linger()
FEW, SOME, MANY = 1, LINGER.events_min, LINGER.events_max


class SizesOfBatches:
    """A pool of connections whose database takes every event as new, and notes the batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[SizesOfBatches]:
        """Lend the one connection."""
        yield self

    async def fetchrow(self, _statement: str, _source: str, ids: list[bytes], *_: Any) -> Any:
        """Append a batch."""
        self.sizes.append(len(ids))
        return {"base": 0, "positions": None, "fresh": None}


def appender(sleep: Callable[[float], Awaitable[None]]) -> Appender:
    """Return an appender that waits by means of `sleep`."""
    in_flight = InFlightLimit(1_000, 1_000_000)
    return Appender("straitsx", load({}), in_flight, linger=LINGER, sleep=sleep)


def post(to: Appender, count: int) -> list[asyncio.Future[AppendResult]]:
    """Queue some events."""
    return [
        to.append(
            NewEvent(
                event_id=bytes(16), idempotency_key="", kind="", resource_id="", status="",
                origin="callback", body=b"", received_at=datetime(2026, 1, 1, tzinfo=UTC),
            )
        )
        for _ in range(count)
    ]  # fmt: skip


async def test_only_a_busy_appender_waits_for_more() -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    tested, pool = appender(sleep), SizesOfBatches()
    running = asyncio.create_task(tested.run(pool))  # type: ignore[arg-type]
    for count in (FEW, FEW, SOME):
        await asyncio.gather(*post(tested, count))
    assert pauses == [], "callbacks that come one by one do not wait for each other"
    await asyncio.gather(*post(tested, SOME))
    assert len(pauses) == 1
    assert 0 < pauses[0] <= LINGER.quiet_seconds, "senders may be waiting for their answers"
    await asyncio.gather(*post(tested, MANY))
    assert len(pauses) == 1, "a large batch does not wait for more"
    assert pool.sizes == [FEW, FEW, SOME, SOME, MANY]
    last = post(tested, FEW)
    tested.stop()
    await asyncio.gather(running, *last)
    assert len(pauses) == 1, "an appender that stops does not wait"


async def test_a_busy_appender_waits_while_callbacks_keep_coming() -> None:
    waiting: list[asyncio.Future[AppendResult]] = []

    async def one_more(_seconds: float) -> None:
        if len(waiting) < SOME + 5:
            waiting.extend(post(tested, 1))
        await asyncio.sleep(0)

    tested, pool = appender(one_more), SizesOfBatches()
    waiting += post(tested, SOME)
    running = asyncio.create_task(tested.run(pool))  # type: ignore[arg-type]
    await asyncio.gather(*waiting)
    waiting += post(tested, 1)
    await asyncio.gather(*waiting)
    assert pool.sizes == [SOME, 5]
    tested.stop()
    await running
