"""A lane lets small batches grow, and keeps nobody waiting who need not wait."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from ledger.config.settings import load
from ledger.eventlog import appender as log
from ledger.eventlog.appender import PACED_EVENTS, QUIET_SECONDS, Appender, InFlightLimit, NewEvent

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class Recorder(Appender):
    """A lane whose commits only note their sizes."""

    def __init__(self) -> None:
        settings = load({})
        super().__init__("straitsx", settings, InFlightLimit(1_000, 1_000_000), lambda: None)
        self.sizes: list[int] = []

    async def _commit(self, pool: Any, batch: list[Any]) -> None:
        self.sizes.append(len(batch))
        for waiting in batch:
            waiting.tell(log.AppendResult(1, fresh=True))


def arrive(lane: Appender, count: int) -> list[asyncio.Future[log.AppendResult]]:
    return [
        lane.append(
            NewEvent(
                bytes(16), "", "", "", "", None, None, None, "callback", None, None, "", "", b"",
                MOMENT,
            )
        )
        for _ in range(count)
    ]  # fmt: skip


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        found.append(seconds)
        await sleep(0)

    monkeypatch.setattr(log.asyncio, "sleep", noted)
    return found


async def test_only_a_busy_lane_waits_for_more(pauses: list[float]) -> None:
    few, some, many = 1, PACED_EVENTS.start, PACED_EVENTS.stop
    lane = Recorder()
    running = asyncio.create_task(lane.run(None))
    for count in (few, few, some):
        await asyncio.gather(*arrive(lane, count))
    assert pauses == [], "callbacks that come one by one do not wait for each other"
    await asyncio.gather(*arrive(lane, some))
    assert len(pauses) == 1
    assert 0 < pauses[0] <= QUIET_SECONDS, "senders that wait for answers are not waited for"
    await asyncio.gather(*arrive(lane, many))
    assert len(pauses) == 1, "many do not wait for more"
    assert lane.sizes == [few, few, some, some, many]
    told = arrive(lane, few)
    lane.stop()
    await asyncio.gather(running, *told)
    assert len(pauses) == 1, "a lane that stops does not wait either"


async def test_a_busy_lane_waits_while_callbacks_keep_coming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lane = Recorder()
    told = arrive(lane, PACED_EVENTS.start)
    sleep = asyncio.sleep

    async def one_more(seconds: float) -> None:
        if len(told) < PACED_EVENTS.start + 5:
            told.extend(arrive(lane, 1))
        await sleep(0)

    running = asyncio.create_task(lane.run(None))
    await asyncio.gather(*told)
    monkeypatch.setattr(log.asyncio, "sleep", one_more)
    told += arrive(lane, 1)
    await asyncio.gather(*told)
    assert lane.sizes == [PACED_EVENTS.start, 5]
    lane.stop()
    await running
