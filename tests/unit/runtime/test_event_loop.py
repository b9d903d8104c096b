"""Law: a loop that tries again ends when it is asked to, whatever fails at that moment."""

from __future__ import annotations

import asyncio

import pytest

from ledger.runtime.event_loop import Backoff, first_failure, stop_if_cancelled, wait_for


async def test_a_failure_at_the_moment_of_a_cancellation_does_not_hide_it() -> None:
    begun = asyncio.Event()

    async def fail_when_cancelled() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionError("the database went away")

    async def keep_trying() -> None:
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(fail_when_cancelled())
            except* ConnectionError:
                stop_if_cancelled()

    task = asyncio.create_task(keep_trying())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()


async def test_a_timeout_of_its_own_is_no_cancellation() -> None:
    assert not await wait_for(asyncio.Event(), 0.001)
    stop_if_cancelled()


def test_the_first_failure_of_nested_groups_is_found() -> None:
    inner = ExceptionGroup("inner", [ValueError("x"), TypeError("y")])
    assert isinstance(first_failure(ExceptionGroup("outer", [inner])), ValueError)


async def test_pauses_double_up_to_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    backoff = Backoff(0.5, 3.0)
    for _ in range(4):
        await backoff.pause()
    backoff.reset()
    await backoff.pause()
    assert slept == [0.5, 1.0, 2.0, 3.0, 0.5]
