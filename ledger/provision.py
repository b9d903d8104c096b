"""Brings up what every role needs first: a database, migrated, safe, that knows the sources."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import orjson

from ledger import database, seal, sources
from ledger.errors import MigrationError
from ledger.migrate import migrate
from ledger.postgres import EmbeddedPostgres, Endpoint
from ledger.settings import Settings

ASK_OWNER: Final = "run `ledger migrate` once with the LEDGER_DATABASE_URL of the schema's owner"

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
async def provided(
    settings: Settings, *, is_guest: bool = False
) -> AsyncIterator[tuple[Endpoint, EmbeddedPostgres | None]]:
    """Provide the database: the configured one, or the embedded one for as long as the block.

    A guest leaves a server running that it found running: somebody else's, most likely.
    """
    if settings.database_url:
        yield Endpoint(settings.database_url, settings.database_url), None
        return
    embedded = EmbeddedPostgres(settings.data_dir, pg_bin=settings.pg_bin, pg_user=settings.pg_user)
    endpoint = await embedded.start()
    try:
        yield endpoint, embedded
    finally:
        if not (is_guest and embedded.adopted):
            await embedded.stop()


async def prepare(endpoint: Endpoint, settings: Settings, role: str = "all") -> list[str]:
    """Migrate, check that a commit is durable, register the sources.

    Returns the migrations applied. Raises UnsafeDatabase or MigrationError.
    """
    async with database.connected(endpoint.owner_dsn, seconds_max=300) as owner:
        await database.assert_safe(owner)
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
    return applied
