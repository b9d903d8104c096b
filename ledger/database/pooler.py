"""Recognises a connection pooler that breaks sessions, by what connections through it do.

The service keeps state in its sessions: settings, locks, listening, prepared statements. A pooler
that may give every transaction another session (PgBouncer with pool_mode = transaction) mixes that
state up.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg

from ledger.database import connection as database
from ledger.database.errors import TRANSIENT
from ledger.errors import DatabaseRefused, DatabaseUnavailable

ROUNDS: Final = 20
"""How often two connections compare their sessions; a pooler mostly hands out the latest one."""

SELECT_PID: Final = "SELECT pg_backend_pid()"
SELECT_CHANGED: Final = """
SELECT name FROM unnest($1::text[], $2::text[]) AS pinned(name, value)
 WHERE current_setting(name) <> value ORDER BY name
"""
STATEMENT_MODE: Final = "statement pooling mode"
"""PgBouncer's error in a transaction when every statement may get another session."""

MIXED: Final = (
    asyncpg.ProtocolViolationError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
"""What a client meets whose statements were prepared in another session than its own."""


async def check(dsn: str) -> None:
    """Raise DatabaseRefused when a pooler is in between that does not keep sessions.

    Raises DatabaseUnavailable when the database does not answer.
    """
    try:
        async with database.connected(dsn) as connection:
            # A pooler answers for many sessions, so the process that it names is none of them.
            if await _pid(connection) == connection.get_server_pid():
                return
            pinned = database.PINNED
            changed = await connection.fetch(SELECT_CHANGED, list(pinned), list(pinned.values()))
            if changed:
                names = ", ".join(row["name"] for row in changed)
                raise DatabaseRefused(database.POOLER.format(detail=f"lost: {names}"))
            if await _is_shared(dsn, connection):
                detail = "each transaction may get another session"
                raise DatabaseRefused(database.POOLER.format(detail=detail))
    except MIXED as error:
        detail = "what was prepared in a session is not there any more"
        raise DatabaseRefused(database.POOLER.format(detail=detail)) from error
    except TRANSIENT as error:
        if STATEMENT_MODE in str(error):
            raise DatabaseRefused(database.POOLER.format(detail=STATEMENT_MODE)) from error
        raise DatabaseUnavailable(
            f"the database went away: {str(error) or type(error).__name__}"
        ) from error


async def _is_shared(dsn: str, connection: Any) -> bool:
    """Return whether another connection gets this one's session, or this one gets others."""
    mine = set()
    async with database.connected(dsn) as other:
        for _ in range(ROUNDS):
            mine.add(await _pid(connection))
            if len(mine) > 1 or await _pid(other) in mine:
                return True
    return False


async def _pid(connection: Any) -> int:
    """Return the process that serves a transaction of this connection."""
    async with connection.transaction():
        return int(await connection.fetchval(SELECT_PID))
