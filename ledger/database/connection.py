"""Connections: deadlines on every wait, and a refusal to trust an unsafe PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg

from ledger.database.errors import CONNECTION_LOST, REFUSED_CONNECTION, TRANSIENT
from ledger.errors import (
    DatabaseReadOnly,
    DatabaseRefused,
    DatabaseUnavailable,
    UnsafeDatabase,
)
from ledger.runtime.secrets import redact

CONNECT_SECONDS_MAX: Final = 4.0
COMMAND_SECONDS_MAX: Final = 4.0
POOL_CLOSE_SECONDS_MAX: Final = 1.0
VERSION_MIN: Final = 140_000

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

SELECT_SAFETY: Final = """
SELECT name, setting FROM pg_catalog.pg_settings
 WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'server_version_num')
"""

PINNED: Final = {
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "exit_on_error": "off",
    "row_security": "on",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
}
"""Settings that a role or a database may carry: every session of ours pins them, spelled as
PostgreSQL does. Waits are bounded by the driver's deadlines, which end a command, not a session."""

SESSION: Final = {
    **PINNED,
    "application_name": "callback-ledger",
    "idle_in_transaction_session_timeout": "60s",
    # Citus: keeps type look-ups cheap; PostgreSQL takes it as a placeholder.
    "citus.override_table_visibility": "off",
}

PIN: Final = """
SELECT set_config(name, CASE name WHEN 'transaction_timeout' THEN '0' ELSE 'off' END, false)
  FROM pg_catalog.pg_settings
 WHERE name = 'transaction_timeout' AND setting <> '0'
    OR name = 'default_transaction_read_only' AND setting = 'on'
       AND source IN ('global', 'database', 'user', 'database user')
"""
"""What cannot be pinned at the start of a session: PostgreSQL 16 does not know the one, and the
other counts when the whole server is read-only (ALTER SYSTEM, postgresql.conf)."""

SELECT_WRITES: Final = """
SELECT pg_is_in_recovery() AS is_standby,
       current_setting('default_transaction_read_only') = 'on' AS is_read_only
"""
UNKNOWN_PARAMETER: Final = "startup parameter"
"""Part of a connection pooler's error about the settings in SESSION."""

POOLER: Final = (
    "a connection pooler such as PgBouncer is in between and does not keep the session's settings "
    "({detail}); give LEDGER_DATABASE_URL the address of PostgreSQL itself: the service keeps its "
    "own connections"
)


async def connect(dsn: str, *, seconds_max: float = COMMAND_SECONDS_MAX, **session: str) -> Any:
    """Open one connection.

    Raises DatabaseUnavailable when there is none in time, DatabaseRefused when none will be.
    """
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_SECONDS_MAX,
            command_timeout=seconds_max,
            server_settings={**SESSION, **session},
        )
        try:
            await connection.execute(PIN)
        except BaseException:
            connection.terminate()
            raise
    except REFUSED_CONNECTION as error:
        raise DatabaseRefused(f"LEDGER_DATABASE_URL does not work: {_why(error)}") from error
    except asyncpg.ProtocolViolationError as error:
        if UNKNOWN_PARAMETER in str(error):
            raise DatabaseRefused(POOLER.format(detail=redact(str(error)))) from error
        raise DatabaseUnavailable(f"cannot connect to the database: {_why(error)}") from error
    except TRANSIENT as error:
        detail = redact(str(error)) or type(error).__name__
        raise DatabaseUnavailable(f"cannot connect to the database: {detail}") from error
    except asyncpg.PostgresError as error:
        raise DatabaseRefused(f"PostgreSQL refuses the connection: {_why(error)}") from error
    return connection


def _why(error: Exception) -> str:
    """Return why a connection was refused, without what may quote a part of a password."""
    if isinstance(error, asyncpg.PostgresError):
        return redact(str(error))
    return "it cannot be read; write special characters of the password URL-encoded, as %40"


BACKGROUND: Final = {
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
}
"""Settings of a session whose work no client waits for: it takes one processor, not several."""


@asynccontextmanager
async def connected(dsn: str, *, is_background: bool = False, **options: Any) -> AsyncIterator[Any]:
    """Open a connection for the length of a block, with the BACKGROUND settings if asked for."""
    connection = await connect(dsn, **((BACKGROUND | options) if is_background else options))
    try:
        yield connection
    finally:
        await close(connection)


@asynccontextmanager
async def pooled(
    dsn: str,
    *,
    size_max: int,
    seconds_max: float = COMMAND_SECONDS_MAX,
    is_background: bool = False,
    init: Callable[[Any], Awaitable[None]] | None = None,
    session: Mapping[str, str] | None = None,
) -> AsyncIterator[Pool]:
    """Share at most `size_max` connections for the length of a block; they are opened when needed.

    `init` runs once on every new connection. Nothing is set in a session after that, so nothing is
    reset when a connection is given back. Acquiring one raises what PostgreSQL or the network
    raises: the caller tries again.
    """

    async def prepare(connection: Any) -> None:
        await connection.execute(PIN)
        if init is not None:
            await init(connection)

    pool = asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size_max,
        timeout=CONNECT_SECONDS_MAX,
        command_timeout=seconds_max,
        init=prepare,
        reset=_keep_session,
        server_settings={**SESSION, **(BACKGROUND if is_background else {}), **(session or {})},
    )
    await pool
    try:
        yield pool
    finally:
        await _close_pool(pool)


async def _keep_session(_connection: Any) -> None:
    """Leave a pooled session as it is."""


async def _close_pool(pool: Pool) -> None:
    """Close every connection politely, or at once when the server does not answer."""
    try:
        async with asyncio.timeout(POOL_CLOSE_SECONDS_MAX):
            await pool.close()
    except CONNECTION_LOST:
        pool.terminate()


async def close(connection: Any) -> None:
    """Close a connection politely, or at once when the server does not answer."""
    try:
        await connection.close(timeout=1)
    except CONNECTION_LOST:
        connection.terminate()


async def safety_problems(connection: Any) -> list[str]:
    """Return what makes a committed callback losable on this server, as sentences; [] is safe."""
    found = dict(await connection.fetch(SELECT_SAFETY))
    problems = [
        f"{name} is off: a crash can lose acknowledged callbacks; set {name} = on in "
        "postgresql.conf and reload"
        for name in ("fsync", "full_page_writes")
        if found.get(name) != "on"
    ]
    if found.get("synchronous_commit") not in ("on", "remote_apply"):
        problems.append(
            f"synchronous_commit is {found.get('synchronous_commit')}: an answer may precede "
            "durability; set it to on for this role and database"
        )
    if int(found.get("server_version_num", "0")) < VERSION_MIN:
        problems.append("PostgreSQL is older than 14; use 14 or newer")
    return problems


def encoding_problem(connection: Any) -> str | None:
    """Return why this database cannot hold every text, as a sentence; None when it can."""
    encoding = connection.get_settings().server_encoding
    if encoding == "UTF8":
        return None
    return (
        f"the database's encoding is {encoding}: it cannot hold every name that a provider sends; "
        "create a database with ENCODING 'UTF8' TEMPLATE template0, and restore a dump into it"
    )


async def read_only_reason(connection: Any) -> str | None:
    """Return why the next transaction cannot write, as a sentence; None when it can."""
    found = await connection.fetchrow(SELECT_WRITES)
    if found["is_standby"]:
        return "the database is a standby and takes no writes; connect to the primary"
    if found["is_read_only"]:
        return (
            "the database is read-only (default_transaction_read_only is on); turn it off with "
            "ALTER SYSTEM RESET default_transaction_read_only and a reload"
        )
    return None


async def assert_writable(connection: Any) -> None:
    """Raise DatabaseReadOnly while nothing can be committed on this connection."""
    problem = await read_only_reason(connection)
    if problem is not None:
        raise DatabaseReadOnly(problem)


async def assert_safe(connection: Any) -> None:
    """Raise UnsafeDatabase unless this database keeps every text, and a commit is durable."""
    encoding = encoding_problem(connection)
    problems = [*([encoding] if encoding else []), *await safety_problems(connection)]
    if problems:
        raise UnsafeDatabase("; ".join(problems))
