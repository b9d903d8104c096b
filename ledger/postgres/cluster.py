"""The embedded cluster on disk: its files, its creation, its roles and its settings."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

from ledger.errors import PostgresError
from ledger.postgres.binaries import Binaries
from ledger.postgres.process import SystemAccount, launch, opened_directory
from ledger.runtime.files import sync_folder

OWNER: Final = "ledger_owner"
SERVICE: Final = "ledger"
DATABASE: Final = "ledger"
PORT: Final = 5432
"""Only part of the socket's name: nothing listens on the network."""

SOCKET_PATH_BYTES_MAX: Final = 100
"""Longest path of a unix socket that every system takes (Linux 107, macOS 103)."""
SHORT: Final = "/tmp"  # noqa: S108 - a link of our own, checked before use

CREATION_SECONDS_MAX: Final = 120.0
LOG_BYTES_MAX: Final = 10 * 1024 * 1024
"""Size at which the server's log is set aside, as postgres.log.1, before the next start."""

WAL_SEGMENT_MIB: Final = 1
"""A commit that needs a new segment waits while it is filled with zeros: 4 ms each, not 65."""

TUNING: Final = """
# callback-ledger's choices; edit them here or with ALTER SYSTEM. What durability, privacy and an
# even writing to disk need is given on the server's command line and cannot be overridden here.
shared_buffers = 128MB
max_connections = 400
autovacuum_vacuum_cost_delay = 10ms
wal_level = replica
min_wal_size = 1GB
max_wal_size = 2GB
checkpoint_completion_target = 0.9
timezone = 'UTC'
log_timezone = 'UTC'
"""

GUARANTEES: Final = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_checkpoints": "off",
}
"""Settings given on the command line: nothing acknowledged is lost, no callback text is logged.

`log_min_messages = log` leaves out errors of statements: their text quotes values. The caller
gets them; the log keeps what concerns the server (starts, crashes, refused connections).
"""

WRITEBACK: Final = {
    "checkpoint_flush_after": "256kB",
    "bgwriter_flush_after": "512kB",
    "backend_flush_after": "256kB",
    "wal_writer_flush_after": "1MB",
}
"""After how many written bytes PostgreSQL asks the kernel to begin writing them to disk.

Otherwise the kernel collects them for half a minute and writes all at once, and commits wait for
that. PostgreSQL's defaults on Linux, except that backends do it too. On the command line, so that
a cluster that an earlier version created has them as well.
"""

FACTS: Final = """
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS role,
       EXISTS (SELECT FROM pg_database WHERE datname = $2) AS database
"""
CREATE_ROLE: Final = """
SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD %L',
              $1::text, $2::text)
"""
ALTER_ROLE: Final = "SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)"
CREATE_DATABASE: Final = "SELECT format('CREATE DATABASE %I OWNER %I', $1::text, $2::text)"
MAY_CREATE: Final = "SELECT has_database_privilege($1::text, $2::text, 'CREATE')"
GRANT: Final = "SELECT format('GRANT CONNECT, CREATE ON DATABASE %I TO %I', $1::text, $2::text)"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to connect: DSNs of the owner (migrations) and of the service role. Both are secret."""

    owner_dsn: str
    service_dsn: str

    def __repr__(self) -> str:
        return "Endpoint(owner_dsn=…, service_dsn=…)"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the files of an embedded cluster are. `data_dir` is absolute, without symlinks."""

    data_dir: Path

    @property
    def pgdata(self) -> Path:
        """PostgreSQL's own directory, which belongs to the account that the server runs under."""
        return self.data_dir / "pgdata"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data_dir / "postgres.log"

    @property
    def exists(self) -> bool:
        """Whether the cluster was created completely."""
        return (self.pgdata / "PG_VERSION").is_file()

    @property
    def belongs_to_root(self) -> bool:
        """Whether root owns it, as a cluster that an earlier version ran in a user namespace."""
        return self.pgdata.stat().st_uid == 0

    def give_to(self, account: SystemAccount) -> None:
        """Make an account the owner of every file of the cluster; symlinks are not followed.

        The directory itself comes last, so that an interrupted change is made again. Raises
        PostgresError where the directory is a symlink or its owner cannot be changed.
        """
        if self.pgdata.is_symlink():
            raise PostgresError(
                f"{self.pgdata} is a symlink to a directory of root, and PostgreSQL does not run "
                f"as root: make {account.name} the owner of that directory and of all in it "
                f"(`chown -R {account.name}: {shlex.quote(str(self.pgdata.resolve()))}`)"
            )
        try:
            for _, folders, files, opened in os.fwalk(self.pgdata, follow_symlinks=False):
                for name in (*folders, *files):
                    os.chown(name, account.uid, account.gid, dir_fd=opened, follow_symlinks=False)
            os.chown(self.pgdata, account.uid, account.gid, follow_symlinks=False)
        except OSError as error:
            raise PostgresError(
                f"the files in {self.pgdata} belong to root, and {account.name} cannot be made "
                f"their owner: {error}"
            ) from error

    def password(self, role: str) -> str:
        """Return a role's password, made at first and kept in a 0600 file."""
        path = self.data_dir / f"{role}.password"
        with suppress(FileNotFoundError):
            if text := path.read_text(encoding="ascii").strip():
                return text
        if role == OWNER and self.exists:
            raise PostgresError(
                f"{path} is missing or empty: put it back from a backup; without it the cluster in "
                f"{self.pgdata} cannot be opened"
            )
        text = secrets.token_urlsafe(24)
        _write_secret(path, text)
        return text

    def dsn(self, role: str, database: str = DATABASE) -> str:
        """Return the DSN of a role, through the unix socket."""
        host = quote(str(self.socket_directory()), safe="/")
        return f"postgresql://{role}:{self.password(role)}@/{database}?host={host}&port={PORT}"

    def endpoint(self) -> Endpoint:
        """Return the DSNs that the rest of the program uses."""
        return Endpoint(self.dsn(OWNER), self.dsn(SERVICE))

    def socket_directory(self) -> Path:
        """Return the directory of the socket: the cluster's own, by a short symlink if need be.

        Socket names are limited to about a hundred bytes, and drivers split them at commas.
        """
        link = self._link()
        if link is None:
            return self.pgdata
        with suppress(FileExistsError):
            link.symlink_to(self.pgdata, target_is_directory=True)
        found = link.lstat()
        if (
            not stat.S_ISLNK(found.st_mode)
            or found.st_uid != os.geteuid()
            or link.readlink() != self.pgdata
        ):
            raise PostgresError(f"{link} is in the way and not ours: remove it")
        return link

    def forget_socket(self) -> None:
        """Remove the symlink that `socket_directory` may have made."""
        link = self._link()
        if link is not None:
            with suppress(OSError):
                link.unlink()

    def _link(self) -> Path | None:
        if _fits(self.pgdata):
            return None
        mark = hashlib.sha256(os.fsencode(self.pgdata)).hexdigest()[:16]
        links = [Path(folder) / f"ledger-{mark}" for folder in (tempfile.gettempdir(), SHORT)]
        return next((link for link in links if _fits(link)), links[-1])

    def check_version(self, binaries: Binaries) -> None:
        """Refuse programs of another major version than the cluster's. Raises PostgresError."""
        version = (self.pgdata / "PG_VERSION").read_text(encoding="ascii").strip()
        if version == str(binaries.major):
            return
        raise PostgresError(
            f"{self.pgdata} was created by PostgreSQL {version}, but the programs in "
            f"{binaries.path} are {binaries.version}. What to do: set LEDGER_PG_BIN to the "
            f"programs of PostgreSQL {version}; or dump with those (pg_dump), move "
            f"{self.data_dir} aside, start with a new directory and restore the dump"
        )


def _write_secret(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_folder(path.parent)


async def create(cluster: Cluster, binaries: Binaries, account: SystemAccount) -> None:
    """Create the cluster. It appears under its name only once complete; remains are replaced.

    Raises PostgresError with the end of initdb's output.
    """
    password = cluster.password(OWNER)
    draft = cluster.data_dir / "pgdata.new"
    for locale in _locales(binaries):
        await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        account.take(draft)
        issue = await _initdb(cluster, binaries, account, draft, password, locale)
        if issue is None:
            break
    else:
        raise PostgresError(f"initdb could not create {cluster.pgdata}: {issue}")
    with (draft / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(TUNING)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(cluster.pgdata)
    sync_folder(cluster.data_dir)


def _locales(binaries: Binaries) -> list[list[str]]:
    if binaries.major >= 17:
        return [["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]]
    return [["--locale=C.UTF-8"], ["--locale=C"]]


async def _initdb(
    cluster: Cluster,
    binaries: Binaries,
    account: SystemAccount,
    target: Path,
    password: str,
    locale: Sequence[str],
) -> str | None:
    """Run initdb. Returns None, or the end of its output."""
    with (
        tempfile.TemporaryFile() as output,
        opened_directory(account, target) as (place, passed),
        _password_file(cluster, account, password) as (password_file, secret),
    ):
        process = launch(
            account,
            [str(binaries.path / "initdb"), "-D", place, "-U", OWNER, "-E", "UTF8", *locale,
             "--auth=scram-sha-256", f"--pwfile={password_file}", "--data-checksums",
             f"--wal-segsize={WAL_SEGMENT_MIB}", "--no-instructions"],
            output, (*passed, *secret),
        )  # fmt: skip
        try:
            await asyncio.to_thread(process.wait, CREATION_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            return f"not done after {CREATION_SECONDS_MAX:.0f} seconds"
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        output.seek(0)
        printed = output.read().decode("utf-8", "replace").strip()
        return None if process.returncode == 0 else printed[-500:]


@contextmanager
def _password_file(
    cluster: Cluster, account: SystemAccount, password: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Pass the password to initdb: our file, or for another account one that is only in memory."""
    if account.is_current or not hasattr(os, "memfd_create"):
        yield str(cluster.data_dir / f"{OWNER}.password"), ()
        return
    opened = os.memfd_create("password")
    try:
        os.write(opened, password.encode() + b"\n")
        os.fchown(opened, account.uid, account.gid)
        yield f"/proc/self/fd/{opened}", (opened,)
    finally:
        os.close(opened)


def server_arguments(binaries: Binaries, place: str) -> list[str]:
    """Return the server's command line for the cluster directory named `place`."""
    settings = GUARANTEES | WRITEBACK
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return [str(binaries.path / "postgres"), "-D", place, *options]


async def ensure_roles(cluster: Cluster, owner: asyncpg.Connection[asyncpg.Record]) -> None:
    """Create what is missing of the service role, the database and its grants.

    `owner` is connected to the database `postgres` as the owner.
    """
    password = cluster.password(SERVICE)
    facts = await owner.fetchrow(FACTS, SERVICE, DATABASE)
    if not facts or not facts["role"]:
        await owner.execute(await owner.fetchval(CREATE_ROLE, SERVICE, password))
    if not facts or not facts["database"]:
        await owner.execute(await owner.fetchval(CREATE_DATABASE, DATABASE, OWNER))
    if not await owner.fetchval(MAY_CREATE, SERVICE, DATABASE):
        await owner.execute(await owner.fetchval(GRANT, DATABASE, SERVICE))
    try:
        service = await asyncpg.connect(cluster.dsn(SERVICE), timeout=5)
    except asyncpg.InvalidPasswordError:
        await owner.execute(await owner.fetchval(ALTER_ROLE, SERVICE, password))
    else:
        await service.close(timeout=5)


def _fits(folder: Path) -> bool:
    """Return whether a socket may lie in `folder`: the name is short and drivers can read it."""
    socket = str(folder / f".s.PGSQL.{PORT}")
    return len(os.fsencode(socket)) <= SOCKET_PATH_BYTES_MAX and "," not in socket
