"""What every role needs first: a running database, migrated, durable, with all sources."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import orjson

from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.database import pooler
from ledger.database.migrations import migrate, pending
from ledger.errors import DatabaseReadOnly, DataFolderTaken, MigrationError
from ledger.eventlog import sources
from ledger.evidence import sealer as seal
from ledger.postgres.server import EmbeddedPostgres, Endpoint
from ledger.runtime.folder_lock import locked_folder

ASK_OWNER: Final = "run `ledger migrate` once with the LEDGER_DATABASE_URL of the schema's owner"

SELECT_POSITIONS: Final = 'SELECT source, position FROM ledger.heads ORDER BY source COLLATE "C"'
GRANT_SERVICE: Final = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ledger_service')
       AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'ledger') THEN
        GRANT ledger_service TO ledger;
    END IF;
END $$
"""


def _encoded(value: Any) -> str:
    return orjson.dumps(value).decode()


@asynccontextmanager
async def running_database(
    settings: Settings, *, is_guest: bool = False
) -> AsyncIterator[tuple[Endpoint, EmbeddedPostgres | None]]:
    """Use the configured database, or run the embedded server for the length of a block.

    A guest leaves a server running that ran before it, or that a service uses meanwhile.
    """
    if settings.database_url:
        yield Endpoint(settings.database_url, settings.database_url), None
        return
    embedded = EmbeddedPostgres(settings.data_dir, pg_bin=settings.pg_bin, pg_user=settings.pg_user)
    endpoint = await embedded.start()
    try:
        yield endpoint, embedded
    finally:
        if not is_guest:
            await embedded.stop()
        elif not embedded.adopted:
            with suppress(DataFolderTaken), locked_folder(settings.data_dir):
                await embedded.stop()


def data_folder_lock(settings: Settings, role: str) -> AbstractContextManager[None]:
    """Return the lock of the data folder, where a role keeps a database or keys and seals in it."""
    if settings.database_url and role in ("receiver", "query"):
        return nullcontext()
    return locked_folder(settings.data_dir)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a start did to the database, and what state it is in."""

    applied: list[str]
    """The migrations applied now."""
    read_only_reason: str = ""
    """Why the database takes no writes, as a sentence; "" when it takes them."""
    positions: dict[str, int] = field(default_factory=dict)
    """Source → position of its log; only of a database that takes no writes."""


async def prepare(endpoint: Endpoint, settings: Settings, role: str = "all") -> Prepared:
    """Migrate, check that a commit is durable, register the sources.

    The role `query` accepts a database that takes no writes. Raises UnsafeDatabase,
    MigrationError, DatabaseRefused, or DatabaseUnavailable for what is worth another attempt.
    """
    await pooler.check(endpoint.owner_dsn)
    async with database.connected(endpoint.owner_dsn, seconds_max=300) as owner:
        await database.assert_safe(owner)
        reason = await database.read_only_reason(owner)
        if reason is not None:
            return await _prepare_read_only(owner, reason, role)
        try:
            applied = await migrate(owner)
        except asyncpg.InsufficientPrivilegeError as error:
            raise MigrationError(f"{error}; {ASK_OWNER}") from error
        if endpoint.owner_dsn != endpoint.service_dsn:
            await owner.execute(GRANT_SERVICE)
        decides = role in ("all", "projector")
        await sources.register(owner, settings, _encoded, decides=decides)
        if decides:
            await seal.prepare(owner, settings)
    return Prepared(applied)


async def _prepare_read_only(connection: Any, reason: str, role: str) -> Prepared:
    """Check that queries can be answered without writing anything.

    Raises DatabaseReadOnly for every other role, and while migrations are missing.
    """
    if role != "query":
        raise DatabaseReadOnly(reason)
    if await pending(connection):
        raise DatabaseReadOnly(f"{reason}: its schema is older than this program; {ASK_OWNER}")
    rows = await connection.fetch(SELECT_POSITIONS)
    return Prepared([], reason, {row["source"]: row["position"] for row in rows})
