"""The supervisor: brings up the database, migrates it, and keeps the role's processes running."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from ledger import __version__, registry
from ledger.config.settings import Settings
from ledger.database.errors import TRANSIENT
from ledger.errors import DatabaseUnavailable, SettingsError
from ledger.postgres.server import EmbeddedPostgres, Endpoint
from ledger.runtime import logs
from ledger.runtime.event_loop import runner, wait_for
from ledger.service.startup import Prepared, holding, prepare, provided

LOGGER = structlog.get_logger("ledger.serve")

STOP_GRACE_SECONDS: Final = 3.0
RESTART_SECONDS_MIN: Final = 0.1
RESTART_SECONDS_MAX: Final = 5.0
STEADY_SECONDS: Final = 10.0
DATABASE_RETRY_SECONDS: Final = 1.0
ROLES: Final = ("all", "receiver", "projector", "query")


@dataclass(slots=True)
class Child:
    """One supervised process and its link."""

    name: str
    arguments: tuple[str, ...]
    files: tuple[int, ...]
    process: asyncio.subprocess.Process | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Supervisor:
    """Runs the processes of one role over one database."""

    settings: Settings
    role: str
    environment: Mapping[str, str]
    children: list[Child] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def plan(self, sock: socket.socket | None) -> None:
        """Decide which processes there are; web processes share one listening socket."""
        if sock is not None:
            count = self.settings.receivers if self.role != "query" else 1
            fd = sock.fileno()
            for n in range(count):
                self.children.append(Child(f"web-{n + 1}", (self.role, str(fd)), (fd,)))
        if self.role in ("all", "projector"):
            for name in ("projector", "evidence"):
                self.children.append(Child(name, (name,), ()))

    async def keep(self, child: Child) -> None:
        """Start a child again whenever it ends, with growing pauses, until stopping."""
        pause = RESTART_SECONDS_MIN
        loop = asyncio.get_running_loop()
        while not self.stopping.is_set():
            started = loop.time()
            code = await self._run(child)
            if self.stopping.is_set():
                return
            LOGGER.error("process_ended", name=child.name, code=code)
            if loop.time() - started > STEADY_SECONDS:
                pause = RESTART_SECONDS_MIN
            await wait_for(self.stopping, pause)
            pause = min(pause * 2, RESTART_SECONDS_MAX)

    async def _run(self, child: Child) -> int:
        ours, theirs = socket.socketpair()
        with ours:
            role, *rest = child.arguments
            child.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ledger.service.process", role, str(theirs.fileno()), *rest,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *child.files), env=dict(self.environment),
            )  # fmt: skip
            theirs.close()
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            waiting = asyncio.create_task(loop.sock_recv(ours, 16))
            waiting.add_done_callback(lambda task: _said_ready(task, child))
            code = await child.process.wait()
            waiting.cancel()
            await asyncio.wait([waiting])
            return code

    async def stop(self) -> None:
        """End web processes first, so that what they accepted is still appended and folded."""
        for names in (("web",), ("projector", "evidence")):
            group = [c for c in self.children if c.name.startswith(names)]
            running = [c.process for c in group if c.process and c.process.returncode is None]
            for process in running:
                process.send_signal(signal.SIGTERM)
            if not running:
                continue
            ends = asyncio.create_task(_all_ended(running))
            grace = self.settings.drain_seconds_max + STOP_GRACE_SECONDS
            hurried = asyncio.create_task(self.hurry.wait())
            await asyncio.wait([ends, hurried], timeout=grace, return_when="FIRST_COMPLETED")
            hurried.cancel()
            for process in running:
                if process.returncode is None:
                    process.kill()
            await ends


def _said_ready(task: asyncio.Task[bytes], child: Child) -> None:
    if not task.cancelled() and task.exception() is None and task.result():
        child.ready.set()


async def _all_ready(children: list[Child]) -> None:
    for child in children:
        await child.ready.wait()


async def _all_ended(processes: list[asyncio.subprocess.Process]) -> None:
    for process in processes:
        await process.wait()


async def _prepare_when_up(
    endpoint: Endpoint, settings: Settings, role: str, stopping: asyncio.Event
) -> Prepared:
    """Prepare; a database that is away or takes no writes is waited for: providers retry long."""
    while True:
        try:
            return await prepare(endpoint, settings, role)
        except (DatabaseUnavailable, *TRANSIENT) as error:
            LOGGER.warning("database_awaited", error=str(error) or type(error).__name__)
            if stopping.is_set():
                raise
            await wait_for(stopping, DATABASE_RETRY_SECONDS)


def listen(settings: Settings) -> socket.socket:
    """Bind the service's socket. Raises SettingsError when the address is not to be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        raise SettingsError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; end the program "
            "that uses it, or set LEDGER_PORT (0 takes any free port)"
        ) from error
    return sock


async def serve(settings: Settings, role: str) -> int:
    """Run the service until SIGINT or SIGTERM. Returns the exit code.

    Raises DataFolderTaken when another one runs on its data folder.
    """
    with holding(settings, role):
        return await _serve(settings, role)


async def _serve(settings: Settings, role: str) -> int:
    stopping, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: (hurry if stopping.is_set() else stopping).set())
    registry.load()  # what cannot be loaded is refused before anything is served
    sock = listen(settings) if role != "projector" else None
    try:
        async with provided(settings) as (endpoint, embedded):
            prepared = await _prepare_when_up(endpoint, settings, role, stopping)
            LOGGER.info("database_ready", origin="embedded" if embedded else "external",
                        events=len(prepared.applied))  # fmt: skip
            if prepared.reading_only:
                LOGGER.warning("database_takes_no_writes", reason=prepared.reading_only,
                               position=prepared.positions)  # fmt: skip
            for warning in settings.warnings():
                LOGGER.warning("settings_warning", warning=warning)
            with tempfile.TemporaryDirectory(prefix="ledger-metrics-") as metrics_dir:
                environment = {
                    **os.environ,
                    "LEDGER_DATABASE_URL": endpoint.service_dsn,
                    "PROMETHEUS_MULTIPROC_DIR": metrics_dir,
                }
                supervisor = Supervisor(settings, role, environment, stopping=stopping, hurry=hurry)
                await _supervise(supervisor, embedded, sock)
    finally:
        if sock is not None:
            sock.close()
    return 0


async def _supervise(
    supervisor: Supervisor, embedded: EmbeddedPostgres | None, sock: socket.socket | None
) -> None:
    supervisor.plan(sock)
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(supervisor.keep(child)) for child in supervisor.children
    ]
    if embedded is not None:
        tasks.append(asyncio.create_task(embedded.watch()))
    ready = asyncio.create_task(_all_ready(supervisor.children))
    stop = asyncio.create_task(supervisor.stopping.wait())
    await asyncio.wait([ready, stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        LOGGER.info("service_ready", role=supervisor.role)
        if sock is not None:
            _announce(supervisor.settings, sock)
    await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
    supervisor.stopping.set()
    LOGGER.info("service_stopping")
    ready.cancel()
    await supervisor.stop()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _announce(settings: Settings, sock: socket.socket) -> None:
    """Say where the service is and what to type next."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{sock.getsockname()[1]}"
    suffix = "" if url == "http://127.0.0.1:8080" else f" --url {url}"
    name = next(iter(settings.sources))
    send, wallets = f"send{suffix}", f"wallets{suffix}"
    sys.stdout.write(
        f"\ncallback-ledger {__version__} is ready on {url}\n\n"
        f"  providers post to    {url}/callbacks/{name}\n"
        f"  API and its pages    {url}/docs\n\n"
        "In another terminal:\n\n"
        f"  .venv/bin/ledger {send:<{len(wallets)}}   posts one callback of every kind\n"
        f"  .venv/bin/ledger {wallets}   what came of them\n"
        f"  .venv/bin/ledger {'doctor':<{len(wallets)}}   checks this installation\n\n"
        "Ctrl-C stops the service and its database; nothing is lost.\n\n"
    )
    sys.stdout.flush()


def run(settings: Settings, role: str = "all") -> int:
    """Serve `role` and return the exit code; expected failures are one line on stderr."""
    if role not in ROLES:
        raise SettingsError(f"role {role!r} is none of {', '.join(ROLES)}")
    logs.configure(settings.log_format)
    code = 3

    async def main() -> None:
        nonlocal code
        code = await serve(settings, role)

    runner()(main())
    return code


def migrate_now(settings: Settings) -> list[str]:
    """Apply pending migrations and add missing sources; return the names applied.

    It decides no source's terms and makes no key: that is for the service that projects.
    """
    logs.configure(settings.log_format)
    found: list[str] = []

    async def main() -> None:
        async with provided(settings, is_guest=True) as (endpoint, _):
            found.extend((await prepare(endpoint, settings, "migrate")).applied)

    runner()(main())
    return found
