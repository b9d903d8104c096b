"""Law: a clock that was wrong is told while it matters, and by every answer that it spoils."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger.api.routes import exported_lists
from ledger.doctor import doctor
from ledger.eventlog import clocks
from ledger.export.export import ExportRequest, write
from tests.asking import Service, payment, serving
from tests.conftest import Database
from tests.evidence import append

AHEAD = "UPDATE ledger.heads SET recorded_at = clock_timestamp() + interval '1 hour'"
LEFT_OUT = "straitsx: events after position 1 had arrived by then"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


async def jump(database: Database) -> None:
    """Let the log have an event by a clock that is an hour ahead, and put the clock right."""
    async with database.owner() as owner:
        await owner.execute(AHEAD + " WHERE source = 'straitsx'")


async def post(service: Service, number: int) -> None:
    await service.post_json("straitsx", payment(number, amount="10", fees="0"))
    await service.fold()


def now() -> str:
    return datetime.now(UTC).isoformat()


async def warnings(service: Service, path: str = "/v1/wallets", **as_of: Any) -> list[str]:
    answer = await service.ask(path, **as_of)
    return list(answer["as_of"].get("warnings", []))


async def test_a_log_ahead_of_its_clock_is_stated_until_the_clock_is_there(
    service: Service, database: Database
) -> None:
    await post(service, 1)
    assert not any("clock" in each for each in (await service.ask("/v1/status"))["warnings"])
    await jump(database)
    stated = [w for w in (await service.ask("/v1/status"))["warnings"] if clocks.LOG_AHEAD in w]
    assert len(stated) == 1
    assert stated[0].startswith("straitsx: log_ahead_of_clock: its last event is recorded at 20")
    found = await doctor.check_database(database.settings)
    assert any(each.verdict == "fail" and clocks.LOG_AHEAD in each.found for each in found)
    async with database.service() as connection:
        (condition,) = await clocks.clock_conditions(connection)
        assert (condition.source, condition.name) == ("straitsx", clocks.LOG_AHEAD)
    async with database.owner() as owner:
        await owner.execute("UPDATE ledger.heads SET recorded_at = now() + interval '50 seconds'")
    async with database.service() as connection:
        assert await clocks.clock_conditions(connection) == []


async def test_an_answer_that_leaves_events_out_by_a_wrong_clock_states_so(
    service: Service, database: Database
) -> None:
    await post(service, 1)
    before = now()
    await jump(database)
    await post(service, 2)
    after = now()
    assert (await service.ask("/v1/wallets"))["wallets"][0]["available"] == "20"
    answer = await service.ask("/v1/wallets", recorded_at=after)
    assert answer["wallets"][0]["available"] == "10"
    (stated,) = answer["as_of"]["warnings"]
    assert stated.startswith(LEFT_OUT)
    assert await warnings(service, "/v1/transactions", recorded_at=after) == [stated]
    assert await warnings(service, "/v1/entries", recorded_at=after, source="straitsx") == [stated]
    assert await warnings(service, recorded_at=after, source="gokart") == []
    assert await warnings(service, recorded_at=after, position="straitsx:1") == []
    assert await warnings(service, recorded_at=after, position="straitsx:2,gokart:0") == [stated]
    assert await warnings(service, recorded_at=before) == []
    assert await warnings(service, position="straitsx:1") == []


async def test_events_dated_by_the_clock_that_was_ahead_are_missed_too(
    service: Service, database: Database
) -> None:
    """Where service and database share a clock, what came during the jump seems to come later."""
    await post(service, 1)
    then = now()
    await jump(database)
    async with database.service() as connection:
        event = {"id": b"0123456789abcdef", "at": datetime.now(UTC) + timedelta(hours=1)}
        await connection.execute(APPEND, event["id"], event["at"])
    during = now()
    await post(service, 3)
    await post(service, 4)
    for moment in (during, now()):
        assert [each[: len(LEFT_OUT)] for each in await warnings(service, recorded_at=moment)] == [
            LEFT_OUT
        ]
    assert await warnings(service, recorded_at=datetime.now(UTC) - timedelta(hours=1)) == []
    assert then < during


APPEND = """
SELECT ledger.append('straitsx', ARRAY[$1::bytea], ARRAY['k'], ARRAY['unknown'], ARRAY['r'],
    ARRAY[''], ARRAY[NULL::text], ARRAY[NULL::timestamptz], ARRAY[NULL::text],
    ARRAY['callback'], ARRAY['unknown'], ARRAY[NULL::text], ARRAY['peer'], ARRAY['{}'],
    ARRAY['{}'::bytea], ARRAY[$2::timestamptz])
"""


async def test_an_export_as_of_a_time_states_what_it_leaves_out(
    service: Service, database: Database, tmp_path: Path
) -> None:
    await post(service, 1)
    await jump(database)
    await post(service, 2)
    out = tmp_path / "out.csv"
    lists = exported_lists()
    dated = ExportRequest("csv", "transactions", str(out), {"recorded_at": now()})
    done = await write(database.service_dsn, dated, lists)
    assert [each[: len(LEFT_OUT)] for each in done.warnings] == [LEFT_OUT]
    rows = await asyncio.to_thread(out.read_text, "utf-8")
    assert len(list(csv.DictReader(rows.splitlines()))) == 1
    undated = ExportRequest("csv", "transactions", str(out), {})
    done = await write(database.service_dsn, undated, lists)
    assert (done.rows, done.warnings) == (2, [])


async def test_looking_for_late_events_does_not_read_the_log(database: Database) -> None:
    await append(database, 3000)
    async with database.owner() as owner:
        await owner.execute("ANALYZE ledger.events")
        await owner.execute("SET enable_bitmapscan = off")
        explain = "EXPLAIN " + clocks.SELECT_LATE
        rows = await owner.fetch(explain, "straitsx", datetime.now(UTC), 7)
    plan = "\n".join(row[0] for row in rows)
    assert plan.count("events_recorded_late") == 2, plan
    assert "Seq Scan on events" not in plan
