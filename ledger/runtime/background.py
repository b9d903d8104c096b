"""Work that others must not wait for: in a thread of its own, or in a process of low priority."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Final

import structlog

from ledger.errors import LedgerError
from ledger.runtime.event_loop import first_failure, runner

LOGGER = structlog.get_logger("ledger.background")

STOP_SECONDS_MAX: Final = 3.0

BACKGROUND_NICENESS: Final = 10
"""Niceness of processes whose work no client waits for: sealing, reconciling, rebuilding, imports.

A process gives it to itself once, at its start, with `os.nice`.
"""


@contextmanager
def in_thread(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[Future[None]]:
    """Run `work` for the length of a block, then cancel it.

    Yields a future that is done when the work has ended by itself. Its failure is logged and is
    the future's exception.
    """
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = Future()
    ended: Future[None] = Future()

    async def main() -> None:
        task = asyncio.create_task(work())
        begun.set_result((asyncio.get_running_loop(), task))
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    def run() -> None:
        try:
            runner()(main())
        except Exception as error:  # noqa: BLE001 - the thread's last; the block's owner gets it
            _log_failure(name, error)
            if not begun.done():
                begun.set_exception(error)
            ended.set_exception(error)
        else:
            ended.set_result(None)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        if begun.exception() is None:
            loop, task = begun.result()
            with suppress(RuntimeError):  # the work has ended and its event loop is closed
                loop.call_soon_threadsafe(task.cancel)
            thread.join(STOP_SECONDS_MAX)


def _log_failure(name: str, error: BaseException) -> None:
    """Log what ended a work: our own errors with their message, others by where they arose."""
    cause = first_failure(error)
    text = str(cause) if isinstance(cause, LedgerError) else type(cause).__name__
    LOGGER.error("background_work_failed", name=name, error=text, exc_info=error)
