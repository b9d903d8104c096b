"""Work that others must not wait for: in a thread of its own, or in a process of low priority."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final

from ledger.runtime.event_loop import runner

STOP_SECONDS_MAX: Final = 3.0

BACKGROUND_NICENESS: Final = 10
"""Niceness of processes whose work no client waits for: sealing, reconciling, rebuilding, imports.

A process gives it to itself once, at its start, with `os.nice`.
"""


@contextmanager
def in_thread(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Run `work` for the length of a block, then cancel it."""
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = Future()

    async def main() -> None:
        task = asyncio.create_task(work())
        begun.set_result((asyncio.get_running_loop(), task))
        await asyncio.wait([task])

    thread = threading.Thread(target=runner(), args=(main(),), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop, task = begun.result()
        loop.call_soon_threadsafe(task.cancel)
        thread.join(STOP_SECONDS_MAX)
