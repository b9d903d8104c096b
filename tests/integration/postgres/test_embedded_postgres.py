"""The embedded PostgreSQL: created, adopted, restarted, and what was committed is kept."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from ledger.config.settings import load
from ledger.errors import PostgresError
from ledger.postgres import process as postgres_process
from ledger.postgres.server import EmbeddedPostgres, Endpoint
from ledger.service.supervisor import migrate_now
from tests.conftest import Database

SECONDS_MAX = 150.0  # beyond the server's own deadline for a start, also on a slow disk


@asynccontextmanager
async def running(
    data_dir: Path, *, pg_bin: str | None = None, pg_user: str | None = None
) -> AsyncIterator[tuple[EmbeddedPostgres, Endpoint]]:
    server = EmbeddedPostgres(data_dir, pg_bin=pg_bin, pg_user=pg_user)
    try:
        yield server, await server.start()
    finally:
        await server.stop()


async def value(dsn: str, query: str, *arguments: object) -> object:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()


async def run(dsn: str, script: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Endpoint]]:
    data_dir = tmp_path_factory.mktemp("embedded") / "ledger-data"
    server = EmbeddedPostgres(data_dir)
    endpoint = asyncio.run(server.start())
    yield data_dir, endpoint
    asyncio.run(server.stop())


async def test_a_cluster_is_created_and_answers_within_seconds(tmp_path: Path) -> None:
    began = time.monotonic()
    async with running(tmp_path / "new" / "ledger-data") as (server, endpoint):
        seconds = time.monotonic() - began
        assert await value(endpoint.service_dsn, "SELECT current_user || '@' || "
                           "current_database()") == "ledger@ledger"  # fmt: skip
        assert await value(endpoint.owner_dsn, "SELECT current_user || '@' || "
                           "current_database()") == "ledger_owner@ledger"  # fmt: skip
        assert server.pid is not None
    assert server.pid is None
    assert seconds < SECONDS_MAX


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("wal_level", "replica"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("password_encryption", "scram-sha-256"),
        ("TimeZone", "UTC"),
        ("max_connections", "400"),
        ("max_wal_size", "2GB"),
        ("shared_buffers", "128MB"),
        ("autovacuum_vacuum_cost_delay", "10ms"),
        ("checkpoint_flush_after", "256kB"),
        ("bgwriter_flush_after", "512kB"),
        ("backend_flush_after", "256kB"),
        ("wal_writer_flush_after", "1MB"),
        ("log_statement", "none"),
        ("log_parameter_max_length_on_error", "0"),
    ],
)
async def test_the_server_is_set_up_to_lose_nothing_and_to_log_no_values(
    shared: tuple[Path, Endpoint], name: str, setting: str
) -> None:
    assert await value(shared[1].service_dsn, "SELECT current_setting($1)", name) == setting


async def test_an_operator_cannot_lower_durability_by_alter_system(tmp_path: Path) -> None:
    async with running(tmp_path / "d") as (_, endpoint):
        await run(endpoint.owner_dsn, "ALTER SYSTEM SET fsync = off")
        await run(endpoint.owner_dsn, "SELECT pg_reload_conf()")
        assert await value(endpoint.service_dsn, "SELECT current_setting('fsync')") == "on"


async def test_a_cluster_of_an_earlier_version_gets_settings_that_it_was_not_created_with(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "d"):
        pass
    settings = (tmp_path / "d" / "pgdata" / "postgresql.conf").read_text()
    assert not [line for line in settings.splitlines() if line.startswith("backend_flush_after")]
    async with running(tmp_path / "d") as (_, endpoint):
        assert await value(endpoint.service_dsn, "SHOW backend_flush_after") == "256kB"


async def test_text_sorts_by_code_point(shared: tuple[Path, Endpoint]) -> None:
    query = "SELECT array_agg(w ORDER BY w) FROM unnest(ARRAY['b', 'a', 'B', 'é']) AS w"
    assert await value(shared[1].service_dsn, query) == ["B", "a", "b", "é"]


@pytest.mark.parametrize("role", ["ledger", "ledger_owner"])
async def test_a_wrong_password_is_refused(shared: tuple[Path, Endpoint], role: str) -> None:
    host = str(shared[0] / "pgdata")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(host=host, user=role, password="guess", database="ledger")


async def test_the_service_role_may_create_schemas_but_no_roles(
    shared: tuple[Path, Endpoint],
) -> None:
    dsn = shared[1].service_dsn
    flags = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
    assert await value(dsn, f"SELECT {flags} FROM pg_roles WHERE rolname = 'ledger'") is False
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'ledger'"
    assert await value(dsn, owner) == "ledger_owner"
    await run(dsn, "CREATE SCHEMA books_1; DROP SCHEMA books_1")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await run(dsn, "CREATE ROLE another")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await run(dsn, "ALTER SYSTEM SET fsync = off")


def test_only_we_can_read_the_data_directory_and_its_secrets(
    shared: tuple[Path, Endpoint],
) -> None:
    data_dir, endpoint = shared
    assert data_dir.stat().st_mode & 0o777 == 0o700
    for name in ("ledger.password", "ledger_owner.password", "postgres.log", "start.lock"):
        assert (data_dir / name).stat().st_mode & 0o777 == 0o600, name
    password = (data_dir / "ledger_owner.password").read_text().strip()
    assert len(password) >= 32
    assert password not in repr(endpoint)


async def test_values_never_reach_the_server_log(shared: tuple[Path, Endpoint]) -> None:
    data_dir, endpoint = shared
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await run(endpoint.service_dsn, "SELECT 'canary-4711'::int")
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await value(endpoint.service_dsn, "SELECT $1::text::int", "canary-4711")
    log = (data_dir / "postgres.log").read_text()
    assert "ready to accept connections" in log
    assert "canary" not in log


async def test_a_killed_server_is_restarted_and_keeps_what_was_committed(tmp_path: Path) -> None:
    async with running(tmp_path / "d") as (server, endpoint):
        await run(endpoint.service_dsn, "CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 42 AS n")
        watching = asyncio.create_task(server.watch())
        for _ in range(2):
            killed = server.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)

            async def answers(killed: int = killed) -> bool:
                return server.pid != killed and await reachable(endpoint.service_dsn)

            await until(answers)
            assert await value(endpoint.service_dsn, "SELECT n FROM s.t") == 42
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def reachable(dsn: str) -> bool:
    try:
        return await value(dsn, "SELECT 1") == 1
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        return False


async def test_a_second_instance_adopts_the_running_server(tmp_path: Path) -> None:
    async with running(tmp_path / "d") as (first, endpoint):
        second = EmbeddedPostgres(tmp_path / "d")
        assert await second.start() == endpoint
        assert second.pid == first.pid
        await second.stop()
        assert not await reachable(endpoint.service_dsn)


@pytest.mark.parametrize("is_running", [True, False])
async def test_migrating_leaves_the_server_as_it_was(tmp_path: Path, is_running: bool) -> None:
    settings = load({"LEDGER_DATA_DIR": str(tmp_path / "d")})
    if not is_running:
        assert await asyncio.to_thread(migrate_now, settings)
    async with running(tmp_path / "d") as (server, endpoint):
        pid = server.pid
        applied = await asyncio.to_thread(migrate_now, settings)
        assert (server.pid, bool(applied)) == (pid, is_running)
        assert await reachable(endpoint.service_dsn)


async def test_migrating_decides_no_terms_and_makes_no_key(
    database: Database, tmp_path: Path
) -> None:
    settings = replace(database.settings, database_url=database.owner_dsn, data_dir=tmp_path / "d")
    terms = "SELECT string_agg(source || currency, ',') FROM ledger.sources WHERE source = 'gokart'"
    await run(
        database.owner_dsn,
        "UPDATE ledger.sources SET currency = 'SGD' WHERE source = 'gokart'; "
        "DELETE FROM ledger.heads WHERE source = 'straitsx'; "
        "DELETE FROM ledger.sources WHERE source = 'straitsx'",
    )
    await asyncio.to_thread(migrate_now, settings)
    assert await value(database.owner_dsn, terms) == "gokartSGD"
    assert await value(database.owner_dsn, "SELECT count(*) FROM ledger.sources") == 2
    assert not settings.data_dir.exists()


async def test_stopping_and_starting_keeps_data_and_passwords(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "d")
    await server.stop()
    endpoint = await server.start()
    await run(endpoint.service_dsn, "CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 42 AS n")
    await server.stop()
    await server.stop()
    assert not (tmp_path / "d" / "pgdata" / "postmaster.pid").exists()
    try:
        assert await server.start() == endpoint
        assert await value(endpoint.service_dsn, "SELECT n FROM s.t") == 42
    finally:
        await server.stop()
    log = (tmp_path / "d" / "postgres.log").read_text()
    assert "not properly shut down" not in log


async def test_remains_of_an_interrupted_creation_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "d" / "pgdata.new" / "base").mkdir(parents=True)
    (tmp_path / "d" / "pgdata.new" / "PG_VERSION").write_text("18\n")
    async with running(tmp_path / "d") as (_, endpoint):
        assert await value(endpoint.service_dsn, "SELECT 1") == 1
    assert not (tmp_path / "d" / "pgdata.new").exists()


async def test_a_pid_file_that_names_another_programs_process_does_not_prevent_a_start(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "d"):
        text = (tmp_path / "d" / "pgdata" / "postmaster.pid").read_text()
    _, rest = text.split("\n", 1)
    (tmp_path / "d" / "pgdata" / "postmaster.pid").write_text(f"{os.getpid()}\n{rest}")
    async with running(tmp_path / "d") as (server, endpoint):
        assert server.pid != os.getpid()
        assert await value(endpoint.service_dsn, "SELECT 1") == 1


async def test_a_lost_service_password_is_replaced_and_a_lost_owners_is_asked_for(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "d") as (_, before):
        pass
    (tmp_path / "d" / "ledger.password").unlink()
    async with running(tmp_path / "d") as (_, after):
        assert after.service_dsn != before.service_dsn
        assert await value(after.service_dsn, "SELECT current_user") == "ledger"
    (tmp_path / "d" / "ledger_owner.password").unlink()
    with pytest.raises(PostgresError, match=r"ledger_owner\.password is missing"):
        await EmbeddedPostgres(tmp_path / "d").start()

    async def is_stopped() -> bool:
        return not postgres_process.any_serves(tmp_path / "d" / "pgdata")

    await until(is_stopped)


async def test_a_start_that_fails_leaves_no_server_behind(tmp_path: Path) -> None:
    async with running(tmp_path / "d"):
        pass
    (tmp_path / "d" / "ledger_owner.password").write_text("another")
    with pytest.raises(PostgresError, match="refuses the password"):
        await EmbeddedPostgres(tmp_path / "d").start()

    async def none_left() -> bool:
        return not postgres_process.any_serves(tmp_path / "d" / "pgdata")

    await until(none_left)


async def test_a_server_that_cannot_start_is_an_error_with_its_own_words(tmp_path: Path) -> None:
    async with running(tmp_path / "d"):
        pass
    with (tmp_path / "d" / "pgdata" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(PostgresError, match="no_such_setting"):
        await EmbeddedPostgres(tmp_path / "d").start()


SCRIPT = """
import asyncio, pathlib, sys
from ledger.postgres.server import EmbeddedPostgres
async def main():
    server = EmbeddedPostgres(pathlib.Path(sys.argv[1]))
    await server.start()
    sys.stderr.write(f"pid={server.pid}\\n")
    sys.stderr.flush()
    await asyncio.Event().wait()
asyncio.run(main())
"""


def start_elsewhere(data_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(data_dir)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def pid_told_by(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("pid="):
            return int(line[4:])
    raise AssertionError("the other process did not start a server")


async def test_a_killed_service_leaves_its_server_to_the_next_one(tmp_path: Path) -> None:
    with start_elsewhere(tmp_path / "d") as other:
        pid = await asyncio.to_thread(pid_told_by, other)
        other.kill()
    async with running(tmp_path / "d") as (server, endpoint):
        assert server.pid == pid
        assert await value(endpoint.service_dsn, "SELECT 1") == 1
    assert not postgres_process.alive(pid)


async def test_two_processes_that_start_at_once_share_one_server(tmp_path: Path) -> None:
    with start_elsewhere(tmp_path / "d") as one, start_elsewhere(tmp_path / "d") as two:
        pids = await asyncio.gather(
            asyncio.to_thread(pid_told_by, one), asyncio.to_thread(pid_told_by, two)
        )
        one.kill()
        two.kill()
    async with running(tmp_path / "d") as (server, _):
        assert set(pids) == {server.pid}
