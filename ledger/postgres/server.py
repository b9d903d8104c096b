"""Embedded PostgreSQL: finds the programs, creates the cluster, runs and watches the server.

The server outlives this process, even killed: the next start adopts it. It listens on a unix
socket only, and its two passwords stay in the data directory.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import asyncpg
import structlog

from ledger.database import connection as database
from ledger.database.errors import CONNECTION_LOST, EXPECTED
from ledger.errors import PostgresError
from ledger.postgres.binaries import Binaries, find_binaries, locked_programs
from ledger.postgres.cluster import (
    LOG_BYTES_MAX,
    OWNER,
    Cluster,
    Endpoint,
    create,
    ensure_roles,
    server_arguments,
)
from ledger.postgres.process import (
    SystemAccount,
    accounts,
    alive,
    any_serves,
    choose_account,
    launch,
    opened_directory,
    remember,
    serves,
    was_started_here,
)

__all__ = ["Binaries", "EmbeddedPostgres", "Endpoint", "find_binaries"]

START_SECONDS_MAX: Final = 60.0
"""Seconds without an answer before a start is given up; recovering from a crash is an answer."""

STOP_SECONDS_MAX: Final = 30.0
"""Seconds for a fast shutdown, then for an immediate one (the next start recovers)."""

PROBE_SECONDS_MAX: Final = 5.0
WATCH_SECONDS: Final = 0.05
POLL_SECONDS: Final = 0.02
BACK_OFF_SECONDS: Final = (0.1, 5.0)
"""First and longest pause between restarts."""

STEADY_SECONDS: Final = 1.0
"""A server that ran this long is restarted without a pause."""

STILL_HELD: Final = ("pre-existing shared memory block", "lock file", "is still in use")
"""What PostgreSQL logs while processes of a killed server are still ending."""

if sys.platform != "win32":
    import fcntl

_log = structlog.get_logger(__name__)


class _Ended(Exception):
    """The server's process ended before it answered."""


class EmbeddedPostgres:
    """One embedded server on `data_dir`. Several processes may use it: the first one starts it.

    `pg_bin` names the directory of PostgreSQL's programs, `pg_user` the account that root's
    server runs under; both are found if not given.
    """

    def __init__(
        self, data_dir: Path, *, pg_bin: str | None = None, pg_user: str | None = None
    ) -> None:
        self._data_dir = data_dir
        self._pg_bin = pg_bin
        self._pg_user = pg_user
        self._pid: int | None = None
        self._started_at = 0.0
        self._stopped = False
        self._adopted = False

    @property
    def adopted(self) -> bool:
        """Whether the server ran before this process started."""
        return self._adopted

    @property
    def pid(self) -> int | None:
        """The server's process id, once started or adopted."""
        return self._pid

    async def start(self) -> Endpoint:
        """Return how to connect to the server, which is created, started or adopted as needed.

        Raises PostgresError, which says what to do.
        """
        self._stopped = False
        cluster = self._cluster()
        async with _exclusive(cluster):
            known = self._pid
            try:
                return await self._start(cluster)
            except BaseException:
                if self._pid is not None and self._pid != known:
                    _ask_to_stop(self._pid)  # the caller has got nothing that it could stop
                raise

    async def watch(self) -> None:
        """Restart the server whenever it dies, with growing pauses. Runs until cancelled."""
        first, longest = BACK_OFF_SECONDS
        pause = first
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._stopped or self._pid is None or alive(self._pid):
                continue
            _log.error("postgres_died", pid=self._pid)
            if time.monotonic() - self._started_at > STEADY_SECONDS:
                pause = first
            else:
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
            await self._restart()

    async def stop(self) -> None:
        """Shut the server down and wait for its end. Does nothing if there is none.

        Raises PostgresError if its process does not end.
        """
        self._stopped = True
        cluster = self._cluster()
        async with _exclusive(cluster):
            ours = self._pid is not None and alive(self._pid) and was_started_here(self._pid)
            pid, self._pid = self._pid if ours else _server_pid(cluster), None
            if pid is None:
                return
            for how in (signal.SIGINT, signal.SIGQUIT):
                _ask_to_stop(pid, how)
                if await _gone(pid):
                    cluster.forget_socket()
                    _log.info("postgres_stopped", pid=pid, how=how.name)
                    return
        raise PostgresError(f"PostgreSQL (process {pid}) does not stop; see {cluster.log}")

    def _cluster(self) -> Cluster:
        if os.name != "posix":
            raise PostgresError(
                "the embedded PostgreSQL needs Linux or macOS: set LEDGER_DATABASE_URL to a server"
            )
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Cluster(self._data_dir.resolve())
        except OSError as error:
            raise PostgresError(
                f"LEDGER_DATA_DIR={self._data_dir} cannot be used: {error}"
            ) from error

    async def _start(self, cluster: Cluster) -> Endpoint:
        cluster.password(OWNER)
        pid = _server_pid(cluster)
        if pid is not None:
            try:
                await _until_ready(cluster, pid)
            except _Ended:
                _log.info("postgres_left", pid=pid)
            else:
                self._adopted = True
                return self._running(cluster, pid, "postgres_adopted")
        self._adopted = False
        return await self._launch(cluster)

    async def _launch(self, cluster: Cluster) -> Endpoint:
        binaries = await asyncio.to_thread(find_binaries, self._pg_bin)
        if cluster.exists:
            cluster.check_version(binaries)
        candidates = accounts(cluster.pgdata, self._pg_user)
        account, binaries = await asyncio.to_thread(choose_account, binaries, candidates)
        if cluster.exists and cluster.belongs_to_root and not account.is_current:
            await _give(cluster, account)
        if not cluster.exists:
            began = time.monotonic()
            await create(cluster, binaries, account)
            _log.info("postgres_created", version=binaries.version, user=account.name,
                      seconds=round(time.monotonic() - began, 3))  # fmt: skip
        _rotate(cluster.log)
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            _forget_stale(cluster)
            offset = cluster.log.stat().st_size if cluster.log.exists() else 0
            self._pid = pid = _serve(cluster, binaries, account)
            try:
                await _until_ready(cluster, pid)
            except _Ended:
                logged = _tail(cluster.log, offset)
                if time.monotonic() > deadline or not any(word in logged for word in STILL_HELD):
                    raise PostgresError(
                        f"PostgreSQL did not start; {cluster.log} ends with: {logged[-800:]}"
                    ) from None
                _log.warning("postgres_start_waits", pid=pid, reason="old backends still run")
                await asyncio.sleep(BACK_OFF_SECONDS[0])
            else:
                return self._running(cluster, pid, "postgres_started")

    def _running(self, cluster: Cluster, pid: int, event: str) -> Endpoint:
        self._pid = pid
        self._started_at = time.monotonic()
        _log.info(event, pid=pid, data_dir=str(cluster.data_dir))
        return cluster.endpoint()

    async def _restart(self) -> None:
        """Try once to start again; failures are logged, and the watch tries again."""
        try:
            cluster = self._cluster()
            async with _exclusive(cluster):
                if not self._stopped:
                    await self._start(cluster)
        except EXPECTED as error:
            self._started_at = time.monotonic()
            _log.error("postgres_restart_failed", error=str(error))


@asynccontextmanager
async def _exclusive(cluster: Cluster) -> AsyncIterator[None]:
    """Let one start or stop at a time work on the data directory, among all processes."""
    opened = os.open(cluster.data_dir / "start.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        waiting = False
        while True:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    _log.info("postgres_waits_for_its_turn", data_dir=str(cluster.data_dir))
                waiting = True
                await asyncio.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(opened)


def _server_pid(cluster: Cluster) -> int | None:
    """Return the live server's process id from its pid file, None if there is none."""
    try:
        text = (cluster.pgdata / "postmaster.pid").read_text(encoding="utf-8", errors="replace")
        pid = int(text.split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    return pid if pid > 0 and serves(pid, cluster.pgdata) else None


async def _give(cluster: Cluster, account: SystemAccount) -> None:
    """Make the account the owner of a cluster of root once no process of PostgreSQL uses it."""
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while any_serves(cluster.pgdata):
        if time.monotonic() > deadline:
            raise PostgresError(
                f"a PostgreSQL process that the ledger did not find by its pid file still uses "
                f"{cluster.pgdata}: stop it and start again"
            )
        await asyncio.sleep(POLL_SECONDS)
    await asyncio.to_thread(cluster.give_to, account)
    _log.info("postgres_owner_changed", user=account.name, data_dir=str(cluster.data_dir))


def _forget_stale(cluster: Cluster) -> None:
    # PostgreSQL takes any live process with the remembered id for itself and refuses to start;
    # in a new container another process often has that id.
    if not any_serves(cluster.pgdata):
        (cluster.pgdata / "postmaster.pid").unlink(missing_ok=True)


def _serve(cluster: Cluster, binaries: Binaries, account: SystemAccount) -> int:
    """Start the server's process, in a session of its own. Returns its id."""
    with (
        open(cluster.log, "ab", opener=_private) as log,
        opened_directory(account, cluster.pgdata) as (place, passed),
        locked_programs(binaries) as lock,
    ):
        arguments = server_arguments(binaries, place)
        return remember(launch(account, arguments, log, (*passed, *lock)))


async def _until_ready(cluster: Cluster, pid: int) -> None:
    """Wait until the server answers and holds its roles and database.

    Raises _Ended if the process ends first, PostgresError if it stays silent for too long.
    """
    deadline = time.monotonic() + START_SECONDS_MAX
    issue: Exception | None = None
    while time.monotonic() < deadline:
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                owner = await asyncpg.connect(
                    cluster.dsn(OWNER, "postgres"),
                    timeout=PROBE_SECONDS_MAX,
                    command_timeout=START_SECONDS_MAX,
                    server_settings=database.SESSION,
                )
                try:
                    await ensure_roles(cluster, owner)
                finally:
                    await owner.close(timeout=PROBE_SECONDS_MAX)
            return
        except asyncpg.InvalidPasswordError as error:
            raise PostgresError(
                f"PostgreSQL refuses the password in {cluster.data_dir}/{OWNER}.password: put the "
                "file back that belongs to this cluster"
            ) from error
        except asyncpg.CannotConnectNowError as error:
            issue, deadline = error, time.monotonic() + START_SECONDS_MAX
        except (asyncpg.PostgresError, *CONNECTION_LOST) as error:
            issue = error
        if not alive(pid):
            raise _Ended
        await asyncio.sleep(POLL_SECONDS)
    raise PostgresError(
        f"PostgreSQL (process {pid}) did not answer for {START_SECONDS_MAX:.0f} seconds "
        f"({issue!r}); see {cluster.log}"
    )


def _ask_to_stop(pid: int, how: signal.Signals = signal.SIGINT) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, how)


async def _gone(pid: int) -> bool:
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".1"))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _tail(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        file.seek(offset)
        return file.read(64 * 1024).decode("utf-8", "replace").strip()
