"""Fetch the statements of every source that declares a pull, and import them.

Fetching begins where the imported statements end, also those that were uploaded, so nothing is lost
when the process ends at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import aiohttp
import structlog

from ledger import registry
from ledger.config.pull import Pull
from ledger.config.settings import Settings
from ledger.config.source import Source
from ledger.database import connection as database
from ledger.database.errors import EXPECTED
from ledger.errors import LedgerError, RegistryError
from ledger.eventlog.identity import statements_log
from ledger.runtime.event_loop import stop_if_cancelled
from ledger.statements.import_process import ImportOptions, import_file
from ledger.statements.importer import Permission
from ledger.statements.provider_api import APIS, StatementApi

LOGGER = structlog.get_logger(__name__)

SELECT_IMPORTED: Final = """
SELECT split_part(resource_id, ':', 1) AS currency,
       min((convert_from(body, 'UTF8')::jsonb->>'opened_at')::timestamptz) AS opened_at,
       max(provider_at) AS closed_at
  FROM (SELECT DISTINCT ON (resource_id) resource_id, provider_at, status, body
          FROM ledger.events
         WHERE source = $1 AND origin = 'statement' AND kind = 'statement'
         ORDER BY resource_id, position DESC) AS latest
 WHERE status = 'imported' GROUP BY 1
"""
RETRY_SECONDS: Final = 5.0
PERIOD_MAX: Final = timedelta(days=1)
REASON_CHARACTERS_MAX: Final = 300

Importer = Callable[[bytes], Awaitable[None]]
Clock = Callable[[], datetime]


class ImportedPeriod(NamedTuple):
    """From when up to when statements of a currency are imported."""

    opened_at: datetime
    closed_at: datetime


def has_pulls(settings: Settings) -> bool:
    """Tell whether any source declares a pull."""
    return any(source.pull is not None for source in settings.sources.values())


async def run(
    dsn: str,
    settings: Settings,
    now: Clock = lambda: datetime.now(UTC),
    apis: Mapping[str, StatementApi] = APIS,
) -> None:
    """Fetch and import statements until cancelled, each source in a task of its own."""
    async with asyncio.TaskGroup() as tasks:
        for source in settings.sources.values():
            if source.pull is not None:
                api = declared_api(source, apis)
                tasks.create_task(_pull_source(dsn, source, source.pull, api, now))


def check_apis(settings: Settings, apis: Mapping[str, StatementApi] = APIS) -> None:
    """Raise RegistryError unless every source with a pull has a provider with a known API."""
    for source in settings.sources.values():
        if source.pull is not None:
            declared_api(source, apis)


def declared_api(source: Source, apis: Mapping[str, StatementApi]) -> StatementApi:
    """Return the API that a source's provider declares. Raises RegistryError for an unknown one."""
    name = registry.load().providers[source.provider].statement_api or ""
    if name not in apis:
        raise RegistryError(
            f"the provider {source.provider} declares statement_api={name!r}; "
            f"use one of {', '.join(apis)}"
        )
    return apis[name]


async def _pull_source(dsn: str, source: Source, pull: Pull, api: StatementApi, now: Clock) -> None:
    """Begin where the imported statements end; begin again after every loss of the database."""

    async def importer(body: bytes) -> None:
        result = await asyncio.to_thread(
            import_file, dsn, source, body, ImportOptions(), now(),
            permission=Permission(replace=True),
        )  # fmt: skip
        if result.changed or result.withdrawn:
            LOGGER.warning(
                "pull_changed_lines", source=source.name, name=result.currency,
                state=f"{result.changed} changed, {result.withdrawn} withdrawn",
            )  # fmt: skip

    while True:
        try:
            async with database.connected(dsn, seconds_max=60) as connection:
                imported = await imported_periods(connection, source.name)
            await pull_forever(api, pull, importer, now, imported)
        except EXPECTED as error:
            stop_if_cancelled()
            LOGGER.warning("pull_waits", source=source.name, error=type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS)


async def imported_periods(connection: Any, source: str) -> dict[str, ImportedPeriod]:
    """Return from when up to when the statements of a source are imported, by currency."""
    rows = await connection.fetch(SELECT_IMPORTED, statements_log(source))
    return {row["currency"]: ImportedPeriod(row["opened_at"], row["closed_at"]) for row in rows}


async def pull_forever(
    api: StatementApi,
    pull: Pull,
    importer: Importer,
    now: Clock,
    imported: MutableMapping[str, ImportedPeriod],
) -> None:
    """Fetch and import what is new, every `every_seconds`, until cancelled.

    `imported` is by currency; it is kept up to date and changes only after `importer` returned.
    Failures are logged and tried again.
    """
    async with api.open_session(pull) as session:
        while True:
            for currency in pull.currencies:
                try:
                    await catch_up(api, session, pull, currency, importer, now, imported)
                except Exception as error:  # noqa: BLE001 - the outermost loop; nothing moved
                    stop_if_cancelled()
                    reason = str(error) if isinstance(error, LedgerError) else type(error).__name__
                    LOGGER.warning(
                        "pull_failed", name=currency, reason=reason[:REASON_CHARACTERS_MAX]
                    )
            await asyncio.sleep(pull.every_seconds)


async def catch_up(
    api: StatementApi,
    session: aiohttp.ClientSession,
    pull: Pull,
    currency: str,
    importer: Importer,
    now: Clock,
    imported: MutableMapping[str, ImportedPeriod],
) -> None:
    """Import one currency's statements up to `delay_seconds` ago, a day at most at a time.

    The first period begins `overlap_seconds` before the imported one ends, so that rows which the
    provider entered late are imported too.
    """
    until = (now() - timedelta(seconds=pull.delay_seconds)).replace(microsecond=0)
    first = (pull.since or until.replace(hour=0, minute=0, second=0)).astimezone(UTC)
    begin, end = imported.get(currency, ImportedPeriod(first, first))
    opened_at = max(begin, end - timedelta(seconds=pull.overlap_seconds))
    while end < until:
        closed_at = min(end + PERIOD_MAX, until)
        await importer(await api.fetch_statement(session, pull, currency, opened_at, closed_at))
        opened_at = end = closed_at
        imported[currency] = ImportedPeriod(begin, end)
        LOGGER.info("pulled", name=currency, state=closed_at.isoformat())
