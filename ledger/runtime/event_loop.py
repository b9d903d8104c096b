"""The event loop: which one runs, waiting with a deadline, and loops that retry until stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any


def runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Return the fastest event loop's `run` that this platform has."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait until `event` is set, for so many seconds at most; return whether it is."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True


def stop_if_cancelled() -> None:
    """Raise CancelledError when the running task has been asked to stop.

    A task group whose task fails at the moment of a cancellation raises the failure alone (Python
    3.11 and 3.12), so every loop that catches failures to try again calls this first.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def first_failure(error: BaseException) -> BaseException:
    """Return the first single failure inside a group, or the failure itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@dataclass(slots=True)
class Backoff:
    """Pauses that double from `seconds_min` to `seconds_max` while failures go on."""

    seconds_min: float
    seconds_max: float
    failures: int = 0

    async def pause(self) -> None:
        """Count a failure and sleep."""
        seconds = min(self.seconds_min * 2.0 ** min(self.failures, 30), self.seconds_max)
        self.failures += 1
        await asyncio.sleep(seconds)

    def reset(self) -> None:
        """Begin again with the shortest pause: the work succeeded."""
        self.failures = 0
