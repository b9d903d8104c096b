"""What is pulled goes into the log of statements, from where the imported ones end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ledger.config.pull import Pull
from ledger.statements import puller as pulling
from ledger.statements.provider_api import Span
from tests.asking import serving
from tests.conftest import Database
from tests.statements import post_statement, row, statement

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
PULL = Pull("https://api.example/v1", "key", ("XSGD",), 60.0)
FILE = b"""
{"currency":"xsgd","from":"2026-02-01T00:00:00Z","to":"2026-02-02T00:00:00Z",
 "meta":{"openingBalance":10,"closingBalance":12.5},
 "data":[{"id":"p1","type":"Bank Transfer In","contractId":"c9","creditDebitIndicator":"credit",
          "amount":2.5,"ledgerBalance":12.5,"createdAt":"2026-02-01T10:00:00Z"}]}
"""


async def test_a_pulled_statement_is_imported_and_the_next_begins_where_it_ends(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Span]] = []
    done = asyncio.Event()

    async def pull_once(
        pull: Pull,
        importer: Callable[[bytes], Awaitable[None]],
        now: Callable[[], datetime],
        covered: MutableMapping[str, Span],
    ) -> None:
        assert (pull, now()) == (PULL, NOW)
        seen.append(dict(covered))
        await importer(FILE)
        done.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(pulling.pull, "run", pull_once)
    straitsx = replace(database.settings.sources["straitsx"], pull=PULL)
    settings = replace(database.settings, sources={"straitsx": straitsx})
    assert pulling.pulls(settings)
    assert not pulling.pulls(database.settings)
    async with serving(database) as service:
        await post_statement(service, statement([row("r1", "c1", "10", "2026-01-02T00:00:00Z")]))
        task = asyncio.create_task(pulling.run(database.service_dsn, settings, lambda: NOW))
        async with asyncio.timeout(20):
            await done.wait()
        task.cancel()
        await asyncio.wait([task])
        assert seen == [{"XSGD": Span(JANUARY, datetime(2026, 2, 1, tzinfo=UTC))}]
        await service.fold()
        found: list[dict[str, Any]] = (await service.ask("/v1/statements"))["statements"]
        assert [each["closing"] for each in found] == ["12.5", "10"]
    async with database.service() as connection:
        assert await pulling.covered_by(connection, "straitsx") == {
            "XSGD": Span(JANUARY, datetime(2026, 2, 2, tzinfo=UTC))
        }
