"""One supervised process: `python -m ledger.service.process ROLE PIPE_FD [SOCKET_FD]`.

The supervisor pipe is a socket: the process writes `ready` to it, and ends when it closes. A
process that has not ended `WATCHDOG_SECONDS` after that ends itself at once: none outlives its
supervisor.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Final

import structlog

from ledger.config.settings import Settings, load
from ledger.evidence.sealer import sealing
from ledger.reconciliation.runner import Reconciler
from ledger.runtime import logs
from ledger.runtime.background import BACKGROUND_NICENESS, in_thread
from ledger.runtime.decimals import configure_decimal
from ledger.runtime.event_loop import runner
from ledger.service.projector import Projector
from ledger.service.web import Web
from ledger.statements import puller

LOGGER = structlog.get_logger("ledger.service.process")
WATCHDOG_SECONDS: Final = 10.0
ORPHANED: Final = 70
"""The exit code of a process that the watchdog ended because its supervisor was gone."""
WORK_ENDED: Final = 71
"""The exit code of a process whose work in a thread has ended by itself."""
NICENESS: Final = {"projector": 5, "evidence": BACKGROUND_NICENESS}
"""Role → niceness: answers to providers go first, then the books, then all else."""


async def serve_web(
    settings: Settings, role: str, pipe: socket.socket, sock: socket.socket
) -> None:
    """Serve HTTP until SIGTERM, or the end of the supervisor."""
    stop = _stop_event(pipe)
    web = await Web.start(settings, settings.database_url or "", role, sock)
    pipe.send(b"ready\n")
    await stop.wait()
    await web.stop()


async def serve_projector(settings: Settings, pipe: socket.socket) -> None:
    """Fold until SIGTERM, or the end of the supervisor."""
    stop = _stop_event(pipe)
    projector = Projector(settings.database_url or "", settings)
    task = asyncio.create_task(projector.run())
    reporting = asyncio.create_task(_report_ready(projector, pipe))
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    task.cancel()
    reporting.cancel()
    await asyncio.wait([task, reporting])


async def serve_evidence(settings: Settings, pipe: socket.socket) -> None:
    """Seal, reconcile and fetch statements until SIGTERM, or the end of the supervisor.

    Ends the process with WORK_ENDED when one of these ends by itself, which it logs: the
    supervisor then starts the process again.
    """
    stop = _stop_event(pipe)
    dsn = settings.database_url or ""
    with ExitStack() as stack:
        ended = [
            stack.enter_context(sealing(dsn, settings)),
            stack.enter_context(in_thread("reconciler", Reconciler(dsn, settings).run)),
        ]
        if puller.has_pulls(settings):
            pulling = in_thread("puller", lambda: puller.run(dsn, settings))
            ended.append(stack.enter_context(pulling))
        for work in ended:
            work.add_done_callback(_setter(stop))
        pipe.send(b"ready\n")
        await stop.wait()
        has_ended = any(work.done() for work in ended)
    if has_ended:
        sys.exit(WORK_ENDED)


def _setter(stop: asyncio.Event) -> Callable[[Future[None]], None]:
    """Return a callback that sets an event of this event loop from any thread."""
    loop = asyncio.get_running_loop()

    def set_event(_: Future[None]) -> None:
        if not stop.is_set():
            loop.call_soon_threadsafe(stop.set)

    return set_event


async def _report_ready(projector: Projector, pipe: socket.socket) -> None:
    await projector.answering.wait()
    pipe.send(b"ready\n")


def _stop_event(pipe: socket.socket) -> asyncio.Event:
    """Return an event that is set by SIGTERM, and by the end of the supervisor."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def closed() -> None:
        loop.remove_reader(pipe)  # a closed socket stays readable
        stop.set()

    pipe.setblocking(False)
    loop.add_reader(pipe, closed)
    return stop


def _watch(pipe: socket.socket) -> None:
    """End the process some seconds after the pipe has closed, whatever its event loops do."""

    def watch() -> None:
        select.select([pipe], [], [])
        time.sleep(WATCHDOG_SECONDS)
        LOGGER.error("process_outlived_supervisor", code=ORPHANED)
        os._exit(ORPHANED)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()


def main() -> None:
    """Run the role named on the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _tune_collector()
    role, pipe_fd = sys.argv[1], int(sys.argv[2])
    pipe = socket.socket(fileno=pipe_fd)
    _watch(pipe)
    settings = load(os.environ)
    logs.configure(settings.log_format)
    configure_decimal()
    os.nice(NICENESS.get(role, 0))
    match role:
        case "projector":
            runner()(serve_projector(settings, pipe))
        case "evidence":
            runner()(serve_evidence(settings, pipe))
        case _:
            sock = socket.socket(fileno=int(sys.argv[3]))
            runner()(serve_web(settings, role, pipe, sock))


def _tune_collector() -> None:
    """Search for garbage cycles rarely: batches are trees, which reference counts free."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000_000, 5, 5)


if __name__ == "__main__":
    main()
