"""Fetched statements are imported; fetching begins where the imported statements end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from ledger.config.pull import Pull
from ledger.statements import puller
from ledger.statements.provider_api import APIS, StatementApi
from ledger.statements.puller import ImportedPeriod
from tests.asking import serving
from tests.conftest import Database
from tests.statements import post_statement, row, statement

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
PULL = Pull("https://api.example/v1", "key", ("XSGD",), 60.0)
FILE = b"""
{"currency":"xsgd","from":"2026-02-01T00:00:00Z","to":"2026-02-02T00:00:00Z",
 "meta":{"openingBalance":10,"closingBalance":12.5},
 "data":[{"id":"p1","type":"Bank Transfer In","contractId":"c9","creditDebitIndicator":"credit",
          "amount":2.5,"ledgerBalance":12.5,"createdAt":"2026-02-01T10:00:00Z"}]}
"""


async def test_a_fetched_statement_is_imported_and_the_next_begins_where_it_ends(
    database: Database,
) -> None:
    periods: list[tuple[datetime, datetime]] = []
    is_imported = asyncio.Event()

    async def fetch_statement(
        _: aiohttp.ClientSession,
        pull: Pull,
        currency: str,
        opened_at: datetime,
        closed_at: datetime,
    ) -> bytes:
        assert (pull, currency) == (PULL, "XSGD")
        periods.append((opened_at, closed_at))
        if len(periods) > 1:
            is_imported.set()
            await asyncio.Event().wait()
        return FILE

    api = StatementApi(APIS["straitsx"].open_session, fetch_statement)
    straitsx = replace(database.settings.sources["straitsx"], pull=PULL)
    settings = replace(database.settings, sources={"straitsx": straitsx})
    assert puller.has_pulls(settings)
    assert not puller.has_pulls(database.settings)
    async with serving(database) as service:
        await post_statement(service, statement([row("r1", "c1", "10", "2026-01-02T00:00:00Z")]))
        task = asyncio.create_task(
            puller.run(database.service_dsn, settings, lambda: NOW, {"straitsx": api})
        )
        async with asyncio.timeout(60):
            await is_imported.wait()
        task.cancel()
        await asyncio.wait([task])
        hour = timedelta(seconds=PULL.overlap_seconds)
        assert periods == [(FEBRUARY - hour, FEBRUARY + DAY), (FEBRUARY + DAY, FEBRUARY + 2 * DAY)]
        await service.fold()
        found: list[dict[str, Any]] = (await service.ask("/v1/statements"))["statements"]
        assert [each["closing"] for each in found] == ["12.5", "10"]
    async with database.service() as connection:
        assert await puller.imported_periods(connection, "straitsx") == {
            "XSGD": ImportedPeriod(JANUARY, FEBRUARY + DAY)
        }
