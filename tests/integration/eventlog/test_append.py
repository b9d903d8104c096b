"""Law: the log is dense, keyed by identity, and loses or invents nothing."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from ledger.database import connection as db
from ledger.errors import DatabaseUnavailable
from ledger.eventlog.appender import APPEND, COLUMNS, Appender, InFlightLimit, Log
from ledger.eventlog.new_event import NewEvent
from tests.conftest import Database

HEAD = "SELECT position FROM ledger.heads WHERE source = 'straitsx'"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def rows(ids: list[int]) -> list[Any]:
    """Build the arguments of one append of the events named by `ids`."""
    n = len(ids)
    return [
        "straitsx",
        [i.to_bytes(16, "big") for i in ids],
        [f"key/{i}" for i in ids],
        ["payment"] * n,
        [f"contract_{i}" for i in ids],
        ["completed"] * n,
        [None] * n,
        [None] * n,
        [None] * n,
        ["callback"] * n,
        [None] * n,
        [None] * n,
        ["127.0.0.1"] * n,
        ["{}"] * n,
        [b"body %d" % i for i in ids],
        [MOMENT.isoformat()] * n,
    ]


async def append(connection: Any, ids: list[int]) -> tuple[list[int], list[bool]]:
    """Append and return what the receiver would tell each sender."""
    found = await connection.fetchrow(APPEND, *rows(ids))
    if found["positions"] is None:
        return [found["base"] + n + 1 for n in range(len(ids))], [True] * len(ids)
    return list(found["positions"]), list(found["fresh"])


async def log_of(connection: Any) -> dict[int, int]:
    """Return id → position of the whole log."""
    found = await connection.fetch("SELECT event_id, position FROM ledger.events")
    return {int.from_bytes(row["event_id"], "big"): row["position"] for row in found}


async def test_new_events_get_the_next_positions(database: Database) -> None:
    async with database.service() as connection:
        assert await append(connection, [10, 11, 12]) == ([1, 2, 3], [True] * 3)
        assert await append(connection, [13]) == ([4], [True])
        assert await log_of(connection) == {10: 1, 11: 2, 12: 3, 13: 4}


async def test_a_resent_batch_gets_the_first_positions_and_is_recorded(database: Database) -> None:
    async with database.service() as connection:
        await append(connection, [1, 2, 3])
        assert await append(connection, [3, 1]) == ([3, 1], [False, False])
        found = await connection.fetch(
            "SELECT outcome, answer, position FROM ledger.deliveries ORDER BY id"
        )
        assert [tuple(row) for row in found] == [("duplicate", 200, 3), ("duplicate", 200, 1)]
        assert await connection.fetchval(HEAD) == 3


async def test_a_partly_resent_batch_leaves_no_hole(database: Database) -> None:
    async with database.service() as connection:
        await append(connection, [1, 2])
        assert await append(connection, [5, 1, 6, 2, 7]) == (
            [3, 1, 4, 2, 5],
            [True, False, True, False, True],
        )
        assert sorted((await log_of(connection)).values()) == [1, 2, 3, 4, 5]


async def test_a_copy_within_one_batch_is_a_duplicate(database: Database) -> None:
    async with database.service() as connection:
        assert await append(connection, [1, 1, 2, 1]) == ([1, 1, 2, 1], [True, False, True, False])


async def test_racing_duplicates_over_eight_connections_lose_and_invent_nothing(
    database: Database,
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    stated: dict[int, set[int]] = {}
    fresh: dict[int, int] = {}

    async def sender() -> None:
        async with database.service() as connection:
            for _ in range(25):
                start = rng.randrange(400)
                ids = list(range(start, start + 20))
                rng.shuffle(ids)
                positions, news = await append(connection, ids)
                for i, position, new in zip(ids, positions, news, strict=True):
                    stated.setdefault(i, set()).add(position)
                    fresh[i] = fresh.get(i, 0) + new

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(sender())
    async with database.service() as connection:
        stored = await log_of(connection)
        head = await connection.fetchval(HEAD)
    assert {i: {p} for i, p in stored.items()} == stated
    assert set(fresh.values()) == {1}
    assert sorted(stored.values()) == list(range(1, len(stored) + 1))
    assert head == len(stored)


async def test_a_tailing_reader_misses_nothing_when_two_receivers_interleave(
    database: Database,
) -> None:
    async with database.service() as one, database.service() as two, database.service() as reader:
        held = one.transaction()
        await held.start()
        await append(one, [1])
        second = asyncio.create_task(append(two, [2]))
        seen = await reader.fetch("SELECT position FROM ledger.events")
        assert seen == []
        assert not second.done()
        await held.commit()
        assert await second == ([2], [True])
        found = await reader.fetch("SELECT position FROM ledger.events WHERE position > 0")
        assert [row["position"] for row in found] == [1, 2]


async def test_recorded_at_never_decreases_with_position(database: Database) -> None:
    async with database.owner() as owner:
        await owner.execute("UPDATE ledger.heads SET recorded_at = now() + interval '1 day'")
        await append(owner, [1])
        await append(owner, [2])
        first, second = await owner.fetch("SELECT recorded_at FROM ledger.events ORDER BY position")
        assert second["recorded_at"] >= first["recorded_at"] > datetime.now(UTC)


async def test_a_position_collision_is_an_error_and_not_swallowed(database: Database) -> None:
    async with database.owner() as owner:
        await append(owner, [1, 2])
        await owner.execute("UPDATE ledger.heads SET position = 0 WHERE source = 'straitsx'")
        with pytest.raises(asyncpg.UniqueViolationError):
            await append(owner, [3])


async def test_an_unregistered_source_is_refused(database: Database) -> None:
    arguments = rows([1])
    arguments[0] = "nobody"
    async with database.service() as connection:
        with pytest.raises(asyncpg.PostgresError, match="not registered"):
            await connection.fetchrow(APPEND, *arguments)


def new_event(number: int, rng: random.Random) -> NewEvent:
    """Make a callback up; some texts and times are those of many others, some are its own."""
    text = rng.choice([None, f'"{number}\\\\', "NULL", "", "é{},\n"])
    moment = rng.choice([
        None, MOMENT, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC),
        MOMENT + timedelta(microseconds=rng.randrange(10**14)),
    ])  # fmt: skip
    return NewEvent(
        event_id=number.to_bytes(16),
        idempotency_key=f"key/{number}",
        kind=rng.choice(["payment", "payout"]),
        resource_id=f"r{number}",
        status=rng.choice(["completed", "NULL"]),
        idempotency_id=text,
        provider_at=moment,
        path_event=text,
        origin="callback",
        detail=text,
        peer=rng.choice(["127.0.0.1", "::1"]),
        body=b"body %d" % number,
        received_at=moment or MOMENT,
    )


async def test_an_appender_writes_every_column_as_it_is(database: Database) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    appender = Appender("straitsx", database.settings, InFlightLimit(999, 10**6))
    log = Log(database.service_dsn, database.settings, {"straitsx": appender})
    running = asyncio.create_task(log.run())
    number = 0
    for size in (1, 1, 2, 3, 5, 8, 40):
        batch = [new_event(number + n, rng) for n in range(size)]
        number += size
        found = await asyncio.gather(*[appender.append(each) for each in batch])
        async with database.service() as connection:
            rows = await connection.fetch(
                "SELECT * FROM ledger.events WHERE position > $1 ORDER BY position",
                number - size,
            )
        assert [place.position for place in found] == [row["position"] for row in rows]
        for each, row in zip(batch, rows, strict=True):
            assert [row[name] for name in COLUMNS] == [getattr(each, name) for name in COLUMNS]
    log.stop()
    await running


async def test_position_at_finds_the_last_event_recorded_by_a_moment(database: Database) -> None:
    async with database.service() as connection:
        for i in range(7):
            await append(connection, [i])
        times = await connection.fetch(
            "SELECT position, recorded_at FROM ledger.events ORDER BY position"
        )
        ask = "SELECT ledger.position_at('straitsx', $1)"
        assert [await connection.fetchval(ask, row["recorded_at"]) for row in times] == [
            *range(1, 8)
        ]
        assert await connection.fetchval(ask, MOMENT) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.events SET body = ''",
        "DELETE FROM ledger.events",
        "TRUNCATE ledger.events",
        "INSERT INTO ledger.events SELECT * FROM ledger.events",
        "ALTER TABLE ledger.events DISABLE TRIGGER ALL",
        "UPDATE ledger.heads SET position = 0",
    ],
)
async def test_the_service_cannot_change_the_log(database: Database, statement: str) -> None:
    async with database.service() as connection:
        await append(connection, [1])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
        assert await log_of(connection) == {1: 1}


@pytest.mark.parametrize(
    "statement",
    ["UPDATE ledger.events SET body = ''", "DELETE FROM ledger.events", "TRUNCATE ledger.events"],
)
@pytest.mark.parametrize("mode", ["origin", "replica"])
async def test_triggers_stop_even_a_superuser_in_replica_mode(
    database: Database, statement: str, mode: str
) -> None:
    async with db.connected(database.owner_dsn, session_replication_role=mode) as connection:
        await append(connection, [1])
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await connection.execute(statement)
        assert await log_of(connection) == {1: 1}


async def test_what_a_trigger_swallows_is_not_acknowledged(database: Database) -> None:
    async with database.owner() as owner:
        await owner.execute("""
CREATE FUNCTION ledger.swallow() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF NEW.resource_id = ''r2'' THEN RETURN NULL; END IF; RETURN NEW; END'
""")
        await owner.execute(
            "CREATE TRIGGER swallow BEFORE INSERT ON ledger.events"
            " FOR EACH ROW EXECUTE FUNCTION ledger.swallow()"
        )
    log = Log(database.service_dsn, database.settings)
    running = asyncio.create_task(log.run())
    rng = random.Random(1)
    appender = log.appenders["straitsx"]
    (alone,) = await asyncio.gather(appender.append(new_event(2, rng)), return_exceptions=True)
    assert isinstance(alone, DatabaseUnavailable)
    assert (await appender.append(new_event(1, rng))).position == 1
    async with database.owner() as owner:
        await owner.execute("DROP TRIGGER swallow ON ledger.events")
    assert (await appender.append(new_event(2, rng))).position == 2
    log.stop()
    await running
