"""The supervisor: brings up the database, migrates it, and keeps the role's processes running."""

from __future__ import annotations

import asyncio
import errno
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
from ledger.errors import DatabaseUnavailable, ProcessNotStarted, SettingsError
from ledger.postgres.server import EmbeddedPostgres, Endpoint
from ledger.runtime import logs
from ledger.runtime.event_loop import runner, wait_for
from ledger.service.startup import Prepared, data_folder_lock, prepare, running_database
from ledger.statements import puller

LOGGER = structlog.get_logger(__name__)

STOP_GRACE_SECONDS: Final = 3.0
RESTART_SECONDS_MIN: Final = 0.1
RESTART_SECONDS_MAX: Final = 5.0
STEADY_SECONDS: Final = 10.0
DATABASE_RETRY_SECONDS: Final = 1.0
NEVER_STARTS: Final = frozenset(
    {
        errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.EPERM, errno.ENOTDIR, errno.EISDIR,
        errno.ELOOP, errno.ENAMETOOLONG, errno.E2BIG,
    }
)  # fmt: skip
"""Errors of starting a program that no later attempt gets over; all others are tried again."""

ROLES: Final = ("all", "receiver", "projector", "query")


@dataclass(slots=True)
class ServiceProcess:
    """One supervised process: what it is started with, and the run that there is now."""

    name: str
    arguments: tuple[str, ...]
    """What `ledger.service.process` gets: its role, and the number of its listening socket."""
    files: tuple[int, ...]
    """Descriptors that it inherits."""
    running: asyncio.subprocess.Process | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Supervisor:
    """Starts, restarts and stops the processes of one role over one database."""

    settings: Settings
    role: str
    environment: Mapping[str, str]
    processes: list[ServiceProcess] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    killing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a second signal: processes that still finish their work are killed."""

    def plan(self, sock: socket.socket | None) -> None:
        """Decide which processes there are; web processes share one listening socket."""
        if sock is not None:
            count = self.settings.receivers if self.role != "query" else 1
            fd = sock.fileno()
            for n in range(count):
                name = f"web-{n + 1}"
                self.processes.append(ServiceProcess(name, (self.role, str(fd)), (fd,)))
        if self.role in ("all", "projector"):
            for name in ("projector", "evidence"):
                self.processes.append(ServiceProcess(name, (name,), ()))

    async def keep_running(self, process: ServiceProcess) -> None:
        """Start a process again whenever it ends, with growing pauses, until stopping.

        Raises ProcessNotStarted when its program cannot be run at all.
        """
        pause = RESTART_SECONDS_MIN
        loop = asyncio.get_running_loop()
        while not self.stopping.is_set():
            started = loop.time()
            try:
                code = await self._run(process)
            except OSError as error:  # too many processes or files, or too little memory, for now
                LOGGER.error("process_start_failed", name=process.name, error=str(error))
            else:
                if self.stopping.is_set():
                    return
                LOGGER.error("process_ended", name=process.name, code=code)
            if loop.time() - started > STEADY_SECONDS:
                pause = RESTART_SECONDS_MIN
            await wait_for(self.stopping, pause)
            pause = min(pause * 2, RESTART_SECONDS_MAX)

    async def _run(self, process: ServiceProcess) -> int:
        """Run a process to its end; return its exit status. Raises OSError if it cannot start."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process.running = await self._start(process, theirs.fileno())
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            reading = asyncio.create_task(loop.sock_recv(ours, 16))
            reading.add_done_callback(lambda task: _set_ready(task, process))
            code = await process.running.wait()
            reading.cancel()
            await asyncio.wait([reading])
            return code

    async def _start(self, process: ServiceProcess, pipe: int) -> asyncio.subprocess.Process:
        role, *rest = process.arguments
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ledger.service.process", role, str(pipe), *rest,
                stdin=asyncio.subprocess.DEVNULL, pass_fds=(pipe, *process.files),
                env=dict(self.environment),
            )  # fmt: skip
        except OSError as error:
            if error.errno not in NEVER_STARTS:
                raise
            raise ProcessNotStarted(
                f"the process {process.name} cannot be started with {sys.executable}: {error}; "
                "correct it and start the service again"
            ) from error

    async def stop(self) -> None:
        """End web processes first, so that what they accepted is still appended and folded."""
        for names in (("web",), ("projector", "evidence")):
            group = [p.running for p in self.processes if p.running and p.name.startswith(names)]
            running = [process for process in group if process.returncode is None]
            for process in running:
                process.send_signal(signal.SIGTERM)
            if not running:
                continue
            ends = asyncio.create_task(_all_ended(running))
            grace = self.settings.drain_seconds_max + STOP_GRACE_SECONDS
            killing = asyncio.create_task(self.killing.wait())
            await asyncio.wait([ends, killing], timeout=grace, return_when="FIRST_COMPLETED")
            killing.cancel()
            for process in running:
                if process.returncode is None:
                    process.kill()
            await ends


def _set_ready(task: asyncio.Task[bytes], process: ServiceProcess) -> None:
    if not task.cancelled() and task.exception() is None and task.result():
        process.ready.set()


async def _all_ready(processes: list[ServiceProcess]) -> None:
    for process in processes:
        await process.ready.wait()


async def _all_ended(processes: list[asyncio.subprocess.Process]) -> None:
    for process in processes:
        await process.wait()


async def _prepare_when_up(
    endpoint: Endpoint, settings: Settings, role: str, stopping: asyncio.Event
) -> Prepared:
    """Prepare the database; wait while it is away or takes no writes: providers retry for long."""
    while True:
        try:
            return await prepare(endpoint, settings, role)
        except (DatabaseUnavailable, *TRANSIENT) as error:
            LOGGER.warning("database_awaited", error=str(error) or type(error).__name__)
            if stopping.is_set():
                raise
            await wait_for(stopping, DATABASE_RETRY_SECONDS)


def listen(settings: Settings) -> socket.socket:
    """Bind the service's socket. Raises SettingsError when the address cannot be used."""
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

    Raises DataFolderTaken when another service runs on its data folder, RegistryError for a
    handler, projection or statement API that cannot be used, and ProcessNotStarted for a process
    that cannot be started again, once the others are stopped.
    """
    with data_folder_lock(settings, role):
        return await _serve(settings, role)


async def _serve(settings: Settings, role: str) -> int:
    stopping, killing = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: (killing if stopping.is_set() else stopping).set())
    registry.load()  # what cannot be loaded is refused before anything is served
    if role in ("all", "projector"):
        puller.check_apis(settings)
    sock = listen(settings) if role != "projector" else None
    try:
        async with running_database(settings) as (endpoint, embedded):
            prepared = await _prepare_when_up(endpoint, settings, role, stopping)
            LOGGER.info("database_ready", origin="embedded" if embedded else "external",
                        events=len(prepared.applied))  # fmt: skip
            if prepared.read_only_reason:
                LOGGER.warning("database_takes_no_writes", reason=prepared.read_only_reason,
                               position=prepared.positions)  # fmt: skip
            for warning in settings.warnings():
                LOGGER.warning("settings_warning", warning=warning)
            with tempfile.TemporaryDirectory(prefix="ledger-metrics-") as metrics_dir:
                environment = {
                    **os.environ,
                    "LEDGER_DATABASE_URL": endpoint.service_dsn,
                    "PROMETHEUS_MULTIPROC_DIR": metrics_dir,
                }
                supervisor = Supervisor(
                    settings, role, environment, stopping=stopping, killing=killing
                )
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
        asyncio.create_task(supervisor.keep_running(process)) for process in supervisor.processes
    ]
    if embedded is not None:
        tasks.append(asyncio.create_task(embedded.watch()))
    ready = asyncio.create_task(_all_ready(supervisor.processes))
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
    for task in tasks:
        if not task.cancelled():
            task.result()


def _announce(settings: Settings, sock: socket.socket) -> None:
    """Print where the service is and what to type next."""
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
    """Serve `role` and return the exit code.

    Raises SettingsError for an unknown role, and as `serve`.
    """
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
    """Apply pending migrations and add missing sources; return the names of those applied.

    It decides no source's terms and makes no key: the service that projects does.
    """
    logs.configure(settings.log_format)
    applied: list[str] = []

    async def main() -> None:
        async with running_database(settings, is_guest=True) as (endpoint, _):
            applied.extend((await prepare(endpoint, settings, "migrate")).applied)

    runner()(main())
    return applied
