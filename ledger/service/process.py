"""One supervised process: `python -m ledger.service.process ROLE LINK_FD [SOCKET_FD]`.

The link is a socket to the supervisor: the child says `ready` on it and ends when it closes. What
does not end by itself within `WATCHDOG_SECONDS` of that is ended: no process outlives its
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
from contextlib import nullcontext
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
OUTLIVED: Final = 70
"""The exit code of a process that had to be ended because its supervisor was gone."""
NICENESS: Final = {"projector": 5, "evidence": BACKGROUND_NICENESS}
"""Role → niceness: answers to providers go first, then the books, then all else."""


async def serve_web(
    settings: Settings, role: str, link: socket.socket, sock: socket.socket
) -> None:
    """Serve HTTP until told to stop."""
    stop = _stop_event(link)
    web = await Web.start(settings, settings.database_url or "", role, sock)
    link.send(b"ready\n")
    await stop.wait()
    await web.stop()


async def serve_projector(settings: Settings, link: socket.socket) -> None:
    """Fold until told to stop."""
    stop = _stop_event(link)
    projector = Projector(settings.database_url or "", settings)
    task = asyncio.create_task(projector.run())
    telling = asyncio.create_task(_tell_ready(projector, link))
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    task.cancel()
    telling.cancel()
    await asyncio.wait([task, telling])


async def serve_evidence(settings: Settings, link: socket.socket) -> None:
    """Seal, reconcile and fetch statements until told to stop."""
    stop = _stop_event(link)
    dsn = settings.database_url or ""
    reconciling = in_thread("reconciler", Reconciler(dsn, settings).run)
    pulled = in_thread("puller", lambda: puller.run(dsn, settings))
    with (
        sealing(dsn, settings),
        reconciling,
        pulled if puller.has_pulls(settings) else nullcontext(),
    ):
        link.send(b"ready\n")
        await stop.wait()


async def _tell_ready(projector: Projector, link: socket.socket) -> None:
    await projector.answering.wait()
    link.send(b"ready\n")


def _stop_event(link: socket.socket) -> asyncio.Event:
    """Set when SIGTERM comes or the supervisor is gone."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def closed() -> None:
        loop.remove_reader(link)  # a closed socket stays readable
        stop.set()

    link.setblocking(False)
    loop.add_reader(link, closed)
    return stop


def _watch(link: socket.socket) -> None:
    """End the process some seconds after its link has closed, whatever its loops are doing."""

    def watch() -> None:
        select.select([link], [], [])
        time.sleep(WATCHDOG_SECONDS)
        LOGGER.error("process_outlived_supervisor", code=OUTLIVED)
        os._exit(OUTLIVED)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()


def main() -> None:
    """Run the role named on the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _tune_collector()
    role, link_fd = sys.argv[1], int(sys.argv[2])
    link = socket.socket(fileno=link_fd)
    _watch(link)
    settings = load(os.environ)
    logs.configure(settings.log_format)
    configure_decimal()
    os.nice(NICENESS.get(role, 0))
    match role:
        case "projector":
            runner()(serve_projector(settings, link))
        case "evidence":
            runner()(serve_evidence(settings, link))
        case _:
            sock = socket.socket(fileno=int(sys.argv[3]))
            runner()(serve_web(settings, role, link, sock))


def _tune_collector() -> None:
    """Look for garbage cycles rarely: batches of events are trees, freed by reference counts."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000_000, 5, 5)


if __name__ == "__main__":
    main()
