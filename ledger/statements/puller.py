"""Pulled statements on their way into the log, for every source that declares a pull."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, Final

import asyncpg
import structlog

from ledger import registry
from ledger.config.pull import Pull
from ledger.config.settings import Settings
from ledger.config.source import Source
from ledger.database import connection as database
from ledger.errors import LedgerError, RegistryError
from ledger.eventlog.identity import statements_log
from ledger.runtime.event_loop import stop_if_cancelled
from ledger.statements import provider_api as pull
from ledger.statements.import_process import ImportOptions, import_file
from ledger.statements.provider_api import Span

LOGGER = structlog.get_logger("ledger.pulling")

SELECT_COVERED: Final = """
SELECT split_part(resource_id, ':', 1) AS currency,
       min((convert_from(body, 'UTF8')::jsonb->>'opened_at')::timestamptz) AS opened_at,
       max(provider_at) AS closed_at
  FROM (SELECT DISTINCT ON (resource_id) resource_id, provider_at, status, body
          FROM ledger.events
         WHERE source = $1 AND kind = 'statement'
         ORDER BY resource_id, position DESC) AS latest
 WHERE status = 'imported' GROUP BY 1
"""
RETRY_SECONDS: Final = 5.0
APIS: Final = {"straitsx": pull}
"""The APIs that statements are fetched from, by the name with which a provider declares its own."""


def pulls(settings: Settings) -> bool:
    """Tell whether any source declares a pull."""
    return any(source.pull is not None for source in settings.sources.values())


async def run(
    dsn: str, settings: Settings, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> None:
    """Fetch and import statements until cancelled, each source for itself."""
    async with asyncio.TaskGroup() as tasks:
        for source in settings.sources.values():
            if source.pull is not None:
                _api(source)
                tasks.create_task(_source(dsn, source, source.pull, now))


async def _source(dsn: str, source: Source, terms: Pull, now: Callable[[], datetime]) -> None:
    """Begin where the imported statements end, whoever imported them."""
    name = source.name

    async def importer(body: bytes) -> None:
        await asyncio.to_thread(import_file, dsn, source, body, ImportOptions(), now())

    while True:
        try:
            async with database.connected(dsn, seconds_max=60) as connection:
                covered = await covered_by(connection, name)
            await _api(source).run(terms, importer, now, covered)
        except (LedgerError, asyncpg.PostgresError, *database.LOST) as error:
            stop_if_cancelled()
            LOGGER.warning("pull_waits", source=name, error=type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS)


def _api(source: Source) -> ModuleType:
    """Return the API that a source's provider declares. Raises RegistryError for an unknown one."""
    name = registry.load().providers[source.provider].statement_api
    if name not in APIS:
        raise RegistryError(
            f"the provider {source.provider} declares statement_api={name!r}; "
            f"use one of {', '.join(APIS)}"
        )
    return APIS[name]


async def covered_by(connection: Any, source: str) -> dict[str, Span]:
    """Return from when up to when the imported statements of a source go, by currency."""
    rows = await connection.fetch(SELECT_COVERED, statements_log(source))
    return {row["currency"]: Span(row["opened_at"], row["closed_at"]) for row in rows}
