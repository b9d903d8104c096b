"""The real service, `python -m ledger serve`, as a child process with a folder of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from ledger.postgres.server import EmbeddedPostgres
from ledger.signatures.hmac_sha256_hex import sign

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
ANSWER_SECONDS_MAX = 20.0
POLL_SECONDS = 0.01
READY = re.compile(rb"is ready on (http://\S+)")
PG_BIN = os.environ.get("TEST_PG_BIN")
"""The PostgreSQL that tests run on, unless it is the embedded one."""

Json = dict[str, Any]


class NotReady(AssertionError):
    """The service ended, or said nothing in time; the message holds what it printed."""


@dataclass(slots=True)
class Service:
    """One run of the service; it may be stopped and started again on the same data."""

    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ("serve",)
    python: str = sys.executable
    url: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def data_dir(self) -> Path:
        """Where the embedded database and the keys are."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the service printed: both of its streams, over all starts."""
        return self.folder / "service.log"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def launch(self) -> None:
        """Start the process without waiting for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [self.python, "-m", "ledger", *self.arguments],
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def start(self) -> Service:
        """Start the process and wait until it says where it is. Raises NotReady."""
        seen = self.log.stat().st_size if self.log.exists() else 0
        self.launch()
        if "projector" in self.arguments:
            self.until(lambda: b"service_ready" in self.reported(seen), "service_ready")
            return self
        self.until(lambda: READY.search(self.reported(seen)), "ready line")
        self.url = READY.findall(self.reported(seen))[-1].decode()
        return self

    def until(self, check: Callable[[], Any], what: str) -> None:
        """Wait until `check()` is true, for as long as the process lives and a start may take."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not check():
            if self.running.poll() is not None or time.monotonic() > deadline:
                raise NotReady(f"no {what}; exit code {self.running.returncode}:\n{self.text()}")
            time.sleep(POLL_SECONDS)

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process, which must have been launched."""
        assert self.process is not None, "the service was not started"
        return self.process

    def reported(self, offset: int = 0) -> bytes:
        """Return what the service printed from `offset` on."""
        with self.log.open("rb") as log:
            log.seek(offset)
            return log.read()

    def text(self) -> str:
        """Return everything printed, as text."""
        return self.reported().decode("utf-8", "replace")

    def pids(self, role: str) -> list[int]:
        """Return the ids of the children of one role (`all`, `projector`, `evidence` …)."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with suppress(OSError, IndexError, ValueError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.running.pid and words[2:4] == [
                    b"ledger.service.process",
                    role.encode(),
                ]:
                    found.append(int(entry.name))
        return sorted(found)

    def postmaster(self) -> int:
        """Return the process id of the embedded PostgreSQL."""
        text = (self.data_dir / "pgdata" / "postmaster.pid").read_text()
        return int(text.split("\n", 1)[0])

    def terminate(self) -> None:
        """Ask the service to stop."""
        self.running.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = STOP_SECONDS_MAX) -> int:
        """Return the exit code; the process must end in time."""
        try:
            return self.running.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.text()}") from None

    def stop(self) -> int:
        """Stop in good order and return the exit code."""
        self.terminate()
        return self.wait()

    def clean_up(self) -> None:
        """End whatever is left of it: its processes and its own database only."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS_MAX)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if (self.data_dir / "pgdata").exists():
            in_new_loop(EmbeddedPostgres(self.data_dir).stop)

    def _environment(self) -> dict[str, str]:
        kept = {name: v for name, v in os.environ.items() if not name.startswith("LEDGER_")}
        if PG_BIN:
            kept["LEDGER_PG_BIN"] = PG_BIN
        return kept | {
            "LEDGER_DATA_DIR": str(self.data_dir),
            "LEDGER_PORT": "0",
            "LEDGER_LOG_FORMAT": "json",
            **self.environ,
        }


def free_port() -> str:
    """Return a port that the service can have again after each start."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def in_new_loop(make: Callable[[], Any]) -> Any:
    """Return the result of a coroutine in synchronous code, inside a running loop or not."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(make())).result()


@contextmanager
def serving(folder: Path, *arguments: str, **environ: str) -> Iterator[Service]:
    """Run the service for the length of a block; a block that fails shows the service's log."""
    service = Service(folder, environ, arguments or ("serve",))
    try:
        yield service.start()
    except BaseException:
        print(f"--- log of the service in {folder} ---\n{service.text()[-20_000:]}")
        raise
    finally:
        service.clean_up()


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        """The JSON object that it holds."""
        found = orjson.loads(self.body)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True, slots=True)
class Caller:
    """Talks to a running service as providers and operators do."""

    session: aiohttp.ClientSession
    url: str
    secret: str | None = None

    async def request(self, method: str, path: str, **options: Any) -> Reply:
        """Do one request and read the whole answer."""
        async with self.session.request(method, self.url + path, **options) as response:
            return Reply(response.status, dict(response.headers), await response.read())

    async def post(
        self,
        source: str,
        body: bytes,
        event: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Post a callback, signed when there is a secret and no header of its own."""
        given = {"Content-Type": "application/json"} | dict(headers or {})
        if self.secret is not None and headers is None:
            given["Xfers-Signature"] = sign(self.secret, body)
        path = f"/callbacks/{source}" + (f"/{event}" if event else "")
        return await self.request("POST", path, data=body, headers=given)

    async def report(self, source: str, body: bytes, event: str | None = None) -> Json:
        """Post a callback that must be taken; return the answer's JSON."""
        reply = await self.post(source, body, event)
        assert reply.status == 200, reply
        return reply.json

    async def ask(self, path: str, /, **params: Any) -> Json:
        """Ask a question that has an answer; with `at_least`, wait for the books."""
        texts = {name.rstrip("_"): str(value) for name, value in params.items()}
        reply = await self.request("GET", path, params=texts)
        assert reply.status == 200, reply
        return reply.json

    async def rows(self, path: str, name: str, /, **params: Any) -> list[Json]:
        """Return all rows of a list, page by page."""
        found: list[Json] = []
        cursor: str | None = None
        while True:
            answer = await self.ask(path, **params, **({"cursor": cursor} if cursor else {}))
            found += answer[name]
            cursor = answer["next"]
            if cursor is None:
                return found


@asynccontextmanager
async def calling(
    url: str, secret: str | None = None, connections: int = 100
) -> AsyncIterator[Caller]:
    """Open a client of a running service."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield Caller(session, url, secret)
