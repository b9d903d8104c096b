"""Every session is as the service needs it, whatever a role or a database carries."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import unused_port

from ledger.config.settings import load
from ledger.database import connection as db
from ledger.doctor import doctor
from ledger.errors import DatabaseReadOnly, DatabaseRefused, UnsafeDatabase
from ledger.postgres.server import Endpoint
from ledger.service.startup import prepare
from tests.conftest import Database, eventually, with_database
from tests.pooling import close, forwarding, pooling

CARRIED = {
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "exit_on_error": "on",
    "row_security": "off",
    "timezone": "Asia/Singapore",
    "datestyle": "German",
    "intervalstyle": "iso_8601",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "synchronous_commit": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "default_transaction_read_only": "on",
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_session_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "transaction_timeout": "50ms",
}
SELECT_SETTINGS = "SELECT name, setting FROM pg_settings WHERE name = ANY ($1)"
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


async def settings_of(connection: object) -> dict[str, str]:
    return dict(await connection.fetch(SELECT_SETTINGS, list(CARRIED)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("owner", ["ROLE ledger IN DATABASE {0}", "DATABASE {0}"])
async def test_what_a_role_or_a_database_carries_does_not_reach_a_session(
    database: Database, owner: str
) -> None:
    async with database.service() as connection:
        name = await connection.fetchval("SELECT current_database()")
        expected = await settings_of(connection)
    async with database.owner() as connection:
        for setting, value in CARRIED.items():
            if setting in expected:
                place = owner.format(name)
                await connection.execute(f"ALTER {place} SET {setting} = '{value}'")
    async with database.service() as connection:
        assert await settings_of(connection) == expected
        await connection.execute("SELECT pg_sleep(0.2)")
        await connection.execute("CREATE TEMPORARY TABLE t ON COMMIT DROP AS SELECT ''::text")
    async with db.pooled(database.service_dsn, size_max=1) as pool:
        for _ in range(2):
            async with pool.acquire() as connection:
                assert await settings_of(connection) == expected


async def test_a_server_that_is_read_only_on_purpose_stays_so(database: Database) -> None:
    """ALTER SYSTEM is a statement about the server; sessions of ours do not go around it."""
    async with database.owner() as owner:
        try:
            await owner.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            await owner.execute("SELECT pg_reload_conf()")
            async with database.service() as connection:
                assert "read-only" in str(await db.read_only_reason(connection))
            with pytest.raises(DatabaseReadOnly, match="RESET default_transaction_read_only"):
                await prepare(Endpoint(database.owner_dsn, database.service_dsn), load({}))
            found = {f.name: f for f in await doctor.check_database(database.settings)}
            assert (found["writes"].verdict, "read-only" in found["writes"].found) == ("fail", True)
        finally:
            await owner.execute("SET default_transaction_read_only = off")
            await owner.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await owner.execute("SELECT pg_reload_conf()")


async def test_an_encoding_that_lacks_letters_is_refused(cluster: Endpoint) -> None:
    name = f"win_{os.getpid()}"
    async with db.connected(cluster.owner_dsn, seconds_max=60) as owner:
        await owner.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'WIN1252' LOCALE 'C'"
            " LOCALE_PROVIDER libc"
        )
        dsn = with_database(cluster.owner_dsn, name)
        try:
            with pytest.raises(UnsafeDatabase, match=r"WIN1252.*ENCODING 'UTF8'"):
                await prepare(Endpoint(dsn, dsn), load({}))
            found = await doctor.check_database(replace(load({}), database_url=dsn))
            (encoding,) = [each for each in found if each.name == "encoding"]
            assert (encoding.verdict, "WIN1252" in encoding.found) == ("fail", True)
        finally:
            await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("drops", [True, False])
async def test_a_pooler_that_shares_sessions_is_refused_with_what_to_do(
    database: Database, *, drops: bool
) -> None:
    async with pooling(database.service_dsn, drops=drops) as dsn:
        with pytest.raises(DatabaseRefused, match=r"pooler.*PostgreSQL itself"):
            await prepare(Endpoint(dsn, dsn), load({}))
        found = await doctor.check_database(replace(database.settings, database_url=dsn))
    assert [each.verdict for each in found if "pooler" in each.found] == ["fail"]


@asynccontextmanager
async def bouncing(folder: Path, dsn: str, mode: str) -> AsyncIterator[str]:
    """Run PgBouncer before the server of `dsn`."""
    parts = urlsplit(dsn)
    port = unused_port()
    ini = folder / f"{mode}.ini"
    async with forwarding(dsn) as behind:
        ini.write_text(
            f"[databases]\n* = host=127.0.0.1 port={behind} user={parts.username} "
            f"password={parts.password}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
            f"unix_socket_dir =\npool_mode = {mode}\nignore_startup_parameters = "
            f"{', '.join(db.SESSION)}\n"
        )
        account = ["-u", "nobody"] if os.geteuid() == 0 else []
        process = await asyncio.create_subprocess_exec(
            str(PGBOUNCER), *account, str(ini), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await eventually(lambda: is_open(port))
            yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"
        finally:
            process.terminate()
            await process.wait()


async def is_open(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    await close(writer)
    return True


@pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed")
async def test_pgbouncer_may_keep_sessions_but_not_share_them(
    database: Database, tmp_path: Path
) -> None:
    async with bouncing(tmp_path, database.owner_dsn, "session") as dsn:
        await prepare(Endpoint(dsn, dsn), load({}))
    for mode in ("transaction", "statement"):
        async with bouncing(tmp_path, database.owner_dsn, mode) as dsn:
            with pytest.raises(DatabaseRefused, match=r"pooler.*PostgreSQL itself"):
                await prepare(Endpoint(dsn, dsn), load({}))
