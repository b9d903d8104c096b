"""Law: however often, in whatever batches, by however many workers: the books are one fold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
import pytest

from ledger import registry
from ledger.books import fold_version
from ledger.books import projection_worker as workers
from ledger.books.fold_connections import fold_connections
from ledger.books.generations import SELECT_LIVE, use_generation
from ledger.books.projection_worker import ProjectionWorker
from ledger.config.settings import Settings
from ledger.database.errors import is_data_error
from ledger.errors import CheckpointConflict, NotStorable
from ledger.eventlog.appender import Log
from ledger.eventlog.new_event import NewEvent, callback_event
from ledger.eventlog.sources import load_terms
from ledger.fold.dispatch import Dispatch
from ledger.fold.translate import OnFailure
from ledger.model import FoldResult, Projection, RecordedFact
from ledger.receiver.operator_events import OperatorEvents
from ledger.registry import Registry
from ledger.service.projector import Projector
from ledger.simulator.simulate import SimulatedCallback, disturb, story
from tests.asking import payment, payout
from tests.capturing import captured_logs
from tests.conftest import Database, eventually
from tests.dumps import NUMBERED, Dump, differences, dump, fold_all, fold_from_zero, make_books

CHUNK = 100
SELECT_CONFLICTS = "SELECT id, kind, resource_id, position FROM exceptions WHERE reason='conflict'"
SELECT_POSITIONS = """
SELECT h.source, h.position AS head, c.position AS books
  FROM ledger.heads h LEFT JOIN checkpoints c USING (source)
"""
KILL_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND usename = 'ledger' AND pid <> pg_backend_pid()
"""
NOISE = (b"", b"{", b"[]", b'{"id": "x", "type": "lottery"}', b'{"id": "x"}')


def seeded() -> random.Random:
    seed = random.randrange(2**32)
    print("seed", seed)
    return random.Random(seed)


def callbacks(rng: random.Random, stories: int) -> list[SimulatedCallback]:
    """Tell stories with everything that can happen to them, and noise between."""
    stated = disturb(story("everything", rng, stories), rng, duplicate=0.2, shuffle=True,
                   conflict=True)  # fmt: skip
    for body in NOISE:
        stated.insert(rng.randrange(len(stated)), SimulatedCallback("straitsx", None, body))
    return stated


def new_event(callback: SimulatedCallback) -> NewEvent:
    """Make of a callback what the receiver makes of it."""
    reading = registry.load().read(callback.provider, callback.event, callback.body)
    return callback_event(
        callback.provider, reading, callback.body, received_at=datetime.now(UTC),
        path_event=callback.event, peer="127.0.0.1",
    )  # fmt: skip


async def append(database: Database, stated: Sequence[SimulatedCallback]) -> None:
    """Append callbacks to the logs of their sources, in batches."""
    new_events = [(callback.provider, new_event(callback)) for callback in stated]
    log = Log(database.service_dsn, database.settings)
    running = asyncio.create_task(log.run())
    for n in range(0, len(stated), CHUNK):
        chunk = new_events[n : n + CHUNK]
        await asyncio.gather(*(log.appenders[source].append(each) for source, each in chunk))
    log.stop()
    await running


async def decide_all(database: Database, generation: int) -> int:
    """Decide every conflict that the books list, in the log; return how many there were."""
    async with database.service() as connection:
        await use_generation(connection, generation)
        rows = await connection.fetch(SELECT_CONFLICTS)
    dsn, settings = database.service_dsn, database.settings
    log = Log(dsn, settings)
    running = asyncio.create_task(log.run())
    decide = OperatorEvents(log).decide
    for row in rows:
        about = {"kind": row["kind"], "resource": row["resource_id"], "reason": "conflict"}
        reported = {"action": "keep", "keep": row["position"], "by": "ops", "exception": row["id"]}
        await decide("straitsx", {**reported, **about, "note": None})
    log.stop()
    await running
    return len(rows)


async def fill(database: Database, rng: random.Random, stories: int = 6) -> None:
    """Fill the logs with stories, decisions on their conflicts, and more stories."""
    await append(database, callbacks(rng, stories))
    generation = await fold_from_zero(database.service_dsn, database.settings, "to decide on")
    assert await decide_all(database, generation) > 0
    await append(database, callbacks(rng, 1))


async def tables(database: Database, generation: int, *, framework: bool = True) -> Dump:
    async with database.service() as connection:
        return await dump(connection, generation, framework=framework)


async def one_fold(database: Database) -> Dump:
    """Return the books of a single worker that reads everything in few batches."""
    generation = await fold_from_zero(database.service_dsn, database.settings, "in one")
    found = await tables(database, generation)
    assert found["parked"] == []
    assert all(found[name] for name in ("transactions", "entries", "balances"))
    return found


async def fold_live(
    database: Database, generation: int, terms: Sequence[Any], settings: Settings
) -> None:
    """Fold every source as the projector does, through every failure, until cancelled."""
    async with database.service() as connection:
        heads = dict(await connection.fetch("SELECT source, position FROM ledger.heads"))
    async with (
        fold_connections(database.service_dsn, generation) as shared,
        asyncio.TaskGroup() as tasks,
    ):
        for each in terms:
            folder = ProjectionWorker(shared, settings, registry.load(), each)
            folder.grow(heads[each.source])
            tasks.create_task(folder.run())


async def terms_of(database: Database) -> list[Any]:
    async with database.service() as connection:
        return await load_terms(connection)


async def is_at_head(database: Database, generation: int) -> bool:
    """Return whether the books contain every event."""
    async with database.service() as connection:
        await use_generation(connection, generation)
        rows = await connection.fetch(SELECT_POSITIONS)
    return all(row["head"] == (row["books"] or 0) for row in rows)


@pytest.mark.parametrize("size", [1, 50])
async def test_the_size_of_batches_leaves_no_trace(database: Database, size: int) -> None:
    await fill(database, seeded(), 3)
    settings = replace(database.settings, fold_events_max=size)
    generation = await make_books(database.service_dsn, "other sizes")
    await fold_all(database.service_dsn, settings, generation)
    assert differences(await tables(database, generation), await one_fold(database)) == {}


async def test_batches_bounded_in_bytes_leave_no_trace(database: Database) -> None:
    await fill(database, seeded(), 2)
    settings = replace(database.settings, fold_bytes_max=1_500)
    generation = await make_books(database.service_dsn, "few bytes")
    await fold_all(database.service_dsn, settings, generation)
    assert differences(await tables(database, generation), await one_fold(database)) == {}


async def test_folding_while_the_log_grows_is_folding_it_at_once(database: Database) -> None:
    rng = seeded()
    stated = callbacks(rng, 4)
    generation = await make_books(database.service_dsn, "bit by bit")
    while stated:
        size = rng.randrange(1, 40)
        await append(database, stated[:size])
        stated = stated[size:]
        await fold_all(database.service_dsn, database.settings, generation)
    await decide_all(database, generation)
    await fold_all(database.service_dsn, database.settings, generation)
    assert differences(await tables(database, generation), await one_fold(database)) == {}


async def test_three_workers_on_the_same_books_fold_nothing_twice(database: Database) -> None:
    await fill(database, seeded())
    terms = await terms_of(database)
    generation = await make_books(database.service_dsn, "crowded")
    running = [
        asyncio.create_task(
            fold_live(database, generation, terms, replace(database.settings, fold_events_max=size))
        )
        for size in (5, 7, 11)
    ]
    try:
        await eventually(lambda: is_at_head(database, generation), 60)
    finally:
        await end(running)
    assert await differing(database, generation) == {}


async def differing(database: Database, generation: int) -> dict[str, list[str]]:
    """Compare books with those of a single fold, without the spans, which may lag behind."""
    one, other = await one_fold(database), await tables(database, generation)
    for each in (one, other):
        for name in NUMBERED:
            each.pop(name)
    return differences(one, other)


@pytest.mark.parametrize(
    ("error", "is_data"),
    [
        (asyncpg.DeadlockDetectedError("x"), False),
        (asyncpg.ConnectionDoesNotExistError("x"), False),
        (asyncpg.LockNotAvailableError("x"), False),
        (asyncpg.ReadOnlySQLTransactionError("x"), False),
        (asyncpg.InsufficientPrivilegeError("x"), False),
        (asyncpg.UndefinedTableError("x"), False),
        (asyncpg.DataCorruptedError("x"), False),
        (asyncpg.QueryCanceledError("x"), False),
        (CheckpointConflict(), False),
        (TimeoutError(), False),
        (asyncpg.UniqueViolationError("x"), True),
        (asyncpg.NumericValueOutOfRangeError("x"), True),
        (asyncpg.ProgramLimitExceededError("x"), True),
        (asyncpg.DataError("x"), True),
        (NotStorable("x"), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_only_what_values_cause_may_set_an_event_apart(error: Exception, is_data: bool) -> None:
    assert is_data_error(error) is is_data


async def folded(connection: Any) -> int:
    """Return how many events the books of this connection contain, over all sources."""
    return int(await connection.fetchval("SELECT coalesce(sum(position), 0) FROM checkpoints"))


async def some_progress(
    database: Database, generation: int, connection: Any, rng: random.Random
) -> None:
    """Wait until some more events are folded, or all are, and then for an instant."""
    expected = await folded(connection) + rng.randrange(1, 40)

    async def check() -> bool:
        return await folded(connection) >= expected or await is_at_head(database, generation)

    await eventually(check, 60)
    await asyncio.sleep(rng.random() * 0.02)


async def test_a_worker_stopped_anywhere_resumes_exactly_once(database: Database) -> None:
    rng = seeded()
    await fill(database, rng)
    terms = await terms_of(database)
    settings = replace(database.settings, fold_events_max=9)
    generation = await make_books(database.service_dsn, "interrupted")
    stops = 0
    async with database.owner() as owner:
        await use_generation(owner, generation)
        while not await is_at_head(database, generation):
            task = asyncio.create_task(fold_live(database, generation, terms, settings))
            await some_progress(database, generation, owner, rng)
            stops += task.cancel()
            await asyncio.wait([task])
    assert stops > 2
    assert await differing(database, generation) == {}


async def test_a_worker_whose_connections_are_cut_resumes_exactly_once(database: Database) -> None:
    rng = seeded()
    await fill(database, rng)
    terms = await terms_of(database)
    settings = replace(database.settings, fold_events_max=9)
    generation = await make_books(database.service_dsn, "cut")
    running = [asyncio.create_task(fold_live(database, generation, terms, settings))]
    cuts = 0
    try:
        async with database.owner() as owner:
            await use_generation(owner, generation)
            while not await is_at_head(database, generation):
                await some_progress(database, generation, owner, rng)
                cuts += len(await owner.fetch(KILL_OTHERS))
    finally:
        await end(running)
    assert cuts > 2
    assert await differing(database, generation) == {}


async def live_at_head(database: Database, version: str | None = None) -> int | None:
    """Return the live generation once it is at the head (and of that version)."""
    async with database.service() as connection:
        row = await connection.fetchrow(SELECT_LIVE)
    if row is None or (version is not None and row["version"] != version):
        return None
    generation = int(row["generation"])
    return generation if await is_at_head(database, generation) else None


async def test_two_projectors_started_together_make_one_generation(database: Database) -> None:
    await append(database, callbacks(seeded(), 4))
    running = [
        asyncio.create_task(Projector(database.service_dsn, database.settings).run())
        for _ in range(2)
    ]
    try:
        generation = await eventually(lambda: live_at_head(database))
        await append(database, callbacks(seeded(), 2))
        assert await eventually(lambda: live_at_head(database)) == generation
    finally:
        await end(running)
    assert differences(await tables(database, generation), await one_fold(database)) == {}


async def end(running: Sequence[asyncio.Task[None]]) -> None:
    for task in running:
        task.cancel()
    for task in running:
        with suppress(asyncio.CancelledError):
            await task


async def test_changed_code_makes_new_books_beside_the_old_and_swaps(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(database, seeded(), 3)
    first = [asyncio.create_task(Projector(database.service_dsn, database.settings).run())]
    old = await eventually(lambda: live_at_head(database))
    await end(first)
    monkeypatch.setattr(fold_version, "current_version", lambda _terms: "changed")
    second = [asyncio.create_task(Projector(database.service_dsn, database.settings).run())]
    try:
        new = await eventually(lambda: live_at_head(database, "changed"))
        assert new != old
        await append(database, callbacks(seeded(), 1))
        assert await eventually(lambda: live_at_head(database)) == new
    finally:
        await end(second)
    assert differences(await tables(database, new), await one_fold(database)) == {}


POISON = "contract_0666"


def poisoned(where: str) -> Registry:
    """Return a registry whose payouts raise for one resource."""
    known = registry.load()
    sound = known.streams["payout"]

    def fold(state: Any, seen: RecordedFact) -> Any:
        if seen.fact.resource_id == POISON:
            raise ZeroDivisionError("a bug in the fold")
        return sound.fold(state, seen)

    def view(state: Any, related: Sequence[Any], terms: Any) -> Any:
        found = sound.view(state, related, terms)
        if found.row["amount"] == 666:
            raise ZeroDivisionError("a bug in the view")
        return found

    if where == "rows":
        return replace(known, projections=tuple(map(_failing, known.projections)))
    change: dict[str, Any] = {"fold": fold} if where == "fold" else {"view": view}
    return replace(known, streams={**known.streams, "payout": replace(sound, **change)})


def _failing(projection: Projection) -> Projection:
    """Make the history raise for what was folded of one resource."""

    def rows(outcome: FoldResult) -> Sequence[tuple[Any, ...]]:
        if outcome.fact is not None and outcome.resource_id == POISON:
            raise ZeroDivisionError("a bug in the rows")
        return projection.rows(outcome)

    return replace(projection, rows=rows) if projection.name == "history" else projection


def poison_of(rng: random.Random) -> list[SimulatedCallback]:
    """Tell a sound story with a payout in it that the poisoned registry cannot fold."""
    stated = story("everything", rng, 2)
    bodies = [
        orjson.dumps(payout(666, status=status, amount="666.0"))
        for status in ("pending", "completed")
    ]
    stated.insert(5, SimulatedCallback("straitsx", None, bodies[0]))
    stated.insert(30, SimulatedCallback("straitsx", None, bodies[1]))
    return stated


def without(found: Dump, marks: Sequence[str]) -> Dump:
    """Leave out the rows of the poisoned stream, and the tables that only count on it."""
    return {
        table: [row for row in rows if not any(mark in row for mark in marks)]
        for table, rows in found.items()
        if table not in ("parked", "balances", "findings", "open_exceptions")
    }


@pytest.mark.parametrize("where", ["fold", "view", "rows"])
@pytest.mark.parametrize("size", [1, 7, 2_000])
async def test_a_stream_whose_fold_raises_is_parked_and_no_other(
    database: Database, where: str, size: int
) -> None:
    await append(database, poison_of(seeded()))
    settings = replace(database.settings, fold_events_max=size)
    known = poisoned(where)
    generation = await make_books(database.service_dsn, "poisoned", known)
    await fold_all(database.service_dsn, settings, generation, known)
    actual, sound = await tables(database, generation), await one_fold(database)
    assert await is_at_head(database, generation)
    assert len(actual["parked"]) == 2
    assert all(POISON in row for row in actual["parked"])
    assert any("a bug in the" in row for row in actual["parked"])
    assert [row for row in actual["entries"] if POISON in row] == []
    opened = [row for row in actual["exceptions"] if POISON in row]
    assert len(opened) == 1
    assert "parked" in opened[0]
    later_bodies = [payout(666, status="failed"), payment(667)]
    await append(
        database,
        [SimulatedCallback("straitsx", None, orjson.dumps(each)) for each in later_bodies],
    )
    await fold_all(database.service_dsn, settings, generation, known)
    later = await tables(database, generation)
    assert len(later["parked"]) == 3
    assert any("contract_0667" in row for row in later["transactions"])
    assert differences(without(actual, [POISON]), without(sound, [POISON])) == {}


async def test_rows_that_the_database_refuses_park_their_stream_and_stop_no_one(
    database: Database,
) -> None:
    known = registry.load()
    sound = known.streams["payout"]

    def view(state: Any, related: Sequence[Any], terms: Any) -> Any:
        found = sound.view(state, related, terms)
        if found.row["amount"] == 666:
            row = {**found.row, "status": "a\x00b"}
            return type(found)(row, found.legs, found.issues)
        return found

    broken = replace(known, streams={**known.streams, "payout": replace(sound, view=view)})
    await append(database, poison_of(seeded()))
    generation = await make_books(database.service_dsn, "refused", broken)
    await fold_all(database.service_dsn, database.settings, generation, broken)
    actual, whole = await tables(database, generation), await one_fold(database)
    assert await is_at_head(database, generation)
    assert len([row for row in actual["exceptions"] if "rows_refused" in row]) == 1
    assert [POISON in row for row in actual["parked"]] == [True, True]
    assert [row for row in actual["entries"] if POISON in row] == []
    marks = [POISON, "rows_refused"]
    assert differences(without(actual, marks), without(whole, marks)) == {}


async def test_a_bug_in_one_sources_fold_leaves_the_other_sources_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(database, callbacks(seeded(), 1))
    sound = workers.translate

    def translate(dispatch: Dispatch, terms: Any, row: Any, on_failure: OnFailure) -> Any:
        if terms.source == "straitsx":
            raise ZeroDivisionError("a bug in the worker")
        return sound(dispatch, terms, row, on_failure)

    monkeypatch.setattr(workers, "translate", translate)
    running = [asyncio.create_task(Projector(database.service_dsn, database.settings).run())]

    async def gokart_is_folded() -> bool:
        async with database.service() as connection:
            live = await connection.fetchrow(SELECT_LIVE)
            if live is None:
                return False
            await use_generation(connection, live["generation"])
            rows = {row["source"]: row for row in await connection.fetch(SELECT_POSITIONS)}
        return bool(rows["gokart"]["head"] == rows["gokart"]["books"] > 0)

    with captured_logs() as reported:
        try:
            await eventually(gokart_is_folded)
            assert not running[0].done()
            monkeypatch.setattr(workers, "translate", sound)
            await eventually(lambda: live_at_head(database))
        finally:
            await end(running)
    failed = [line for line in reported if line["event"] == "fold_failed"]
    assert {line["source"] for line in failed} == {"straitsx"}
