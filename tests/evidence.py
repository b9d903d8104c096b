"""Logs to seal and to tamper with: appended in bulk, changed as a superuser could."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from ledger import registry
from ledger.eventlog.appender import Log
from ledger.eventlog.new_event import NewEvent, callback_event
from ledger.evidence import checkpoint_file, keys
from tests.asking import payment, payout
from tests.conftest import Database

_numbers = itertools.count(1)
SWITCH_OFF = "ALTER TABLE ledger.{0} DISABLE TRIGGER {0}_immutable"
SWITCH_ON = "ALTER TABLE ledger.{0} ENABLE ALWAYS TRIGGER {0}_immutable"


def new_event(source: str, body: bytes, path_event: str | None = None) -> NewEvent:
    """Return a callback as the receiver would append it."""
    provider = "gokart" if source == "gokart" else "straitsx"
    reading = registry.load().read(provider, path_event, body)
    return callback_event(
        source, reading, body, received_at=datetime.now(UTC), path_event=path_event,
        peer="127.0.0.1", headers='{"content-type":"application/json"}',
    )  # fmt: skip


def stories(count: int) -> list[dict[str, Any]]:
    """Return payments and payouts of their own, every fifth a payout."""
    numbers = [next(_numbers) for _ in range(count)]
    at = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:01Z"}
    return [payout(n, **at) if n % 5 == 0 else payment(n, **at) for n in numbers]


async def append(database: Database, count: int, source: str = "straitsx") -> None:
    """Append made-up callbacks to a log, in batches."""
    await append_bodies(database, [orjson.dumps(body) for body in stories(count)], source)


async def append_bodies(database: Database, bodies: list[bytes], source: str = "straitsx") -> None:
    """Append these bodies to a log, in order."""
    log = Log(database.service_dsn, database.settings)
    running = asyncio.create_task(log.run())
    appender = log.appenders[source]
    await asyncio.gather(*(appender.append(new_event(source, body)) for body in bodies))
    log.stop()
    await running


def with_key(database: Database, data_dir: Path) -> Database:
    """Give a database a data directory of its own, with what the service's first start makes."""
    keys.create_private_folder(data_dir / checkpoint_file.FOLDER)
    keys.create_first(data_dir)
    return replace(database, settings=replace(database.settings, data_dir=data_dir))


async def as_superuser(database: Database, *statements: str) -> None:
    """Change what may not be changed: triggers off, the statements, triggers on."""
    async with database.owner() as connection:
        for table in ("events", "tiles", "seals"):
            await connection.execute(SWITCH_OFF.format(table))
        for statement in statements:
            await connection.execute(statement)
        for table in ("events", "tiles", "seals"):
            await connection.execute(SWITCH_ON.format(table))
