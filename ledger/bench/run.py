"""The processes of a measurement: the real service, the tools beside it, and the end of them all.

Everything lives in one temporary folder, which is removed with whatever still runs in it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from ledger.bench.machine import Process
from ledger.errors import MeasurementFailed
from ledger.postgres.cluster import Cluster
from ledger.postgres.server import EmbeddedPostgres
from ledger.runtime import logs
from ledger.runtime.event_loop import runner

READY_SECONDS_MAX: Final = 60.0
TOOL_SECONDS_MAX: Final = 20.0
STOP_SECONDS_MAX: Final = 30.0
POLL_SECONDS: Final = 0.02
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
LOG_CHARS: Final = 600
KEPT: Final = ("LEDGER_PG_BIN", "LEDGER_PG_USER")
SOURCE: Final = "straitsx"
ANNOUNCED: Final = re.compile(r"is ready on http://127\.0\.0\.1:(\d+)\s")

T = TypeVar("T")


def measured(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main` on the service's event loop; SIGTERM ends it as Ctrl-C does, cleaned up."""
    found: list[T] = []
    logs.configure(None)
    logging.getLogger("ledger").setLevel(logging.WARNING)

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        found.append(await main())

    try:
        runner()(run())
    except asyncio.CancelledError:
        raise MeasurementFailed("the measurement was stopped before its end") from None
    return found[0]


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Return a service's environment: none of the operator's settings, a database in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    kept |= {name: os.environ[name] for name in KEPT if name in os.environ}
    own = {"DATA_DIR": str(folder / "data"), "PORT": "0", "LOG_FORMAT": "json", "SOURCES": SOURCE}
    return kept | {f"LEDGER_{name}": value for name, value in {**own, **settings}.items()}


@asynccontextmanager
async def workplace(parent: Path | None = None) -> AsyncIterator[Path]:
    """Make a folder; at the end stop a database left in it and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="ledger-bench-", dir=parent))
    try:
        yield folder
    finally:
        if (folder / "data").is_dir():
            await EmbeddedPostgres(folder / "data").stop()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class MeasuredService:
    """A running `ledger serve`."""

    process: Process
    announcement: Path
    log: Path
    environ: Mapping[str, str]

    @property
    def postgres(self) -> Process:
        """The embedded server's first process. Raises MeasurementFailed when it is gone."""
        return server_of(Path(self.environ["LEDGER_DATA_DIR"]))

    @property
    def dsn(self) -> str:
        """How its owner connects to the embedded database."""
        return Cluster(Path(self.environ["LEDGER_DATA_DIR"]).resolve()).endpoint().owner_dsn

    def child(self, role: str) -> Process:
        """Return its child process of a role (`all`, `projector`)."""
        for process in self.process.children():
            if role in process.arguments()[2:5]:
                return process
        raise MeasurementFailed(f"the service has no {role} process: {self.end_of_log()}")

    def end_of_log(self) -> str:
        """Return the end of its log."""
        return self.log.read_text("utf-8", "replace").strip()[-LOG_CHARS:] or "its log is empty"

    async def port(self) -> int:
        """Wait until it is ready; return its port. Raises MeasurementFailed at the deadline."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            if found := ANNOUNCED.search(self.announcement.read_text("utf-8", "replace")):
                return int(found[1])
            if time.monotonic() > deadline or not self.process.alive:
                raise MeasurementFailed(f"the service did not become ready: {self.end_of_log()}")
            await asyncio.sleep(POLL_SECONDS)


def server_of(data_dir: Path) -> Process:
    """Return the server process of a data directory. Raises MeasurementFailed without one."""
    with suppress(OSError, ValueError):
        text = (Cluster(data_dir.resolve()).pgdata / "postmaster.pid").read_text("utf-8")
        if found := Process.of(int(text.split("\n", 1)[0])):
            return found
    raise MeasurementFailed(f"there is no PostgreSQL running on {data_dir}")


@asynccontextmanager
async def served(
    folder: Path, environ: Mapping[str, str], role: str
) -> AsyncIterator[MeasuredService]:
    """Run `ledger serve` for the length of a block; its processes have ended afterwards."""
    log, announcement = folder / f"{role}.log", folder / f"{role}.out"
    with log.open("wb") as errors, announcement.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ledger", "serve", "--role", role,
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=errors,
            env=dict(environ), start_new_session=True,
        )  # fmt: skip
    held = Process.of(process.pid)
    try:
        if held is None:
            raise MeasurementFailed("the service ended at once, or this system has no /proc")
        yield MeasuredService(held, announcement, log, environ)
    finally:
        children = held.children() if held else []
        await _end(process)
        await _ended(children)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _ended(children: list[Process]) -> None:
    """Wait for children of a service that is gone; they end by themselves, or are ended."""
    deadline = time.monotonic() + STOP_SECONDS_MAX
    for child in children:
        ours = "ledger.service.process" in child.arguments()
        while ours and child.alive:
            if time.monotonic() > deadline:
                os.kill(child.pid, signal.SIGKILL)
            await asyncio.sleep(POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Tool:
    """A helper process: a line of JSON in, a line of JSON out, gone when its stdin closes."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def held(self) -> Process:
        """The running process. Raises MeasurementFailed when it has ended."""
        if found := Process.of(self.process.pid):
            return found
        raise MeasurementFailed(f"{self.name} has ended: {self._end_of_log()}")

    async def ask(self, command: bytes, seconds_max: float) -> bytes:
        """Send a line, return the answer. Raises MeasurementFailed at the deadline."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + b"\n")
        return await self.line(seconds_max)

    async def line(self, seconds_max: float) -> bytes:
        """Return the next line it writes. Raises MeasurementFailed at the deadline."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(seconds_max):
                found = await self.process.stdout.readline()
        except TimeoutError:
            raise MeasurementFailed(
                f"{self.name} did not answer in {seconds_max:.0f} s: {self._end_of_log()}"
            ) from None
        if not found:
            raise MeasurementFailed(f"{self.name} has ended: {self._end_of_log()}")
        return found

    def _end_of_log(self) -> str:
        return self.log.read_text("utf-8", "replace").strip()[-LOG_CHARS:] or "its log is empty"


@asynccontextmanager
async def tool(folder: Path, module: str, *arguments: str) -> AsyncIterator[Tool]:
    """Run `python -m module` for the length of a block."""
    log = folder / f"{module}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=output,
            limit=LINE_BYTES_MAX, start_new_session=True,
        )  # fmt: skip
    try:
        yield Tool(module, process, log)
    finally:
        await _end(process)
