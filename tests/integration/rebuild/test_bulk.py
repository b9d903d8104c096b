"""Law: books that were loaded at once are the books of the ordinary fold, byte for byte."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from ledger import registry
from ledger.books.generations import schema_of, use_generation
from ledger.errors import DatabaseUnavailable
from ledger.rebuild import coordinator, sorted_files, worker_process
from ledger.rebuild import plan as load_plan
from ledger.rebuild.coordinator import BulkRebuild, Groups
from ledger.rebuild.tasks import TaskRunner, sorted_file
from ledger.rebuild.worker_process import ExecutorStart
from ledger.simulator.simulate import SimulatedCallback
from tests.asking import payment, payout
from tests.conftest import Database
from tests.dumps import differences, dump, fold_from_zero
from tests.integration.books.test_projection_worker import append, fill, seeded
from tests.samples import body, names

SELECT_HEADS = "SELECT source, position FROM ledger.heads"


@pytest.fixture(autouse=True)
def _many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even short logs into many chunks and parts."""
    monkeypatch.setattr(load_plan, "PARTITION_EVENTS", 40)
    monkeypatch.setattr(load_plan, "CHUNK_EVENTS_MIN", 30)
    monkeypatch.setattr(coordinator, "LINKED_STREAMS", 7)


async def begin(database: Database, version: str = "bulk") -> int:
    async with database.service() as connection:
        targets = dict(await connection.fetch(SELECT_HEADS))
        return await load_plan.begin_load(connection, registry.load(), version, targets)


def load_of(database: Database, generation: int, processes: int = 0) -> BulkRebuild:
    return BulkRebuild(
        database.service_dsn, database.settings, registry.load(), generation, processes
    )


async def unlike_the_ordinary_fold(database: Database, generation: int) -> dict[str, Any]:
    other = await fold_from_zero(database.service_dsn, database.settings, f"beside {generation}")
    async with database.service() as connection:
        return differences(await dump(connection, generation), await dump(connection, other))


@pytest.mark.parametrize("processes", [0, 2])
async def test_a_bulk_load_is_the_ordinary_fold(
    database: Database, tmp_path: Path, processes: int
) -> None:
    database = replace(database, settings=replace(database.settings, data_dir=tmp_path))
    await fill(database, seeded(), 5)
    generation = await begin(database)
    load = load_of(database, generation, processes)
    stated: list[tuple[str, int, int]] = []
    load.on_progress = lambda *reported: stated.append(reported)
    await load.run()
    assert {stage for stage, _, _ in stated} == {"sort", "fold", "fold linked", "index"}
    assert {(done, total) for stage, done, total in stated if stage == "sort"} >= {
        (0, load.events), (load.events, load.events),
    }  # fmt: skip
    assert await unlike_the_ordinary_fold(database, generation) == {}
    assert not any((tmp_path / "rebuild").iterdir())


async def test_the_indexes_of_a_loaded_generation_are_those_of_any_other(
    database: Database,
) -> None:
    await fill(database, seeded(), 1)
    generation = await begin(database)
    await load_of(database, generation).run()
    other = await fold_from_zero(database.service_dsn, database.settings, "other")
    async with database.service() as connection:
        found = []
        for each in (generation, other):
            schema = schema_of(each)
            rows = await connection.fetch(
                "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = $1", schema
            )
            found.append(sorted((t, d.replace(schema, "books")) for t, d in rows))
    assert [d.partition(" ON ")[2] for _, d in found[0]] == [
        d.partition(" ON ")[2] for _, d in found[1]
    ]
    assert len(found[0]) > 20


async def test_samples_are_loaded_as_they_are_folded(database: Database) -> None:
    stated = [
        SimulatedCallback(provider, None, body(name))
        for provider in ("straitsx", "gokart") for name in names(provider)
    ]  # fmt: skip
    await append(database, stated)
    generation = await begin(database)
    await load_of(database, generation).run()
    assert await unlike_the_ordinary_fold(database, generation) == {}


async def test_returns_and_their_payouts_are_folded_together_whatever_part_they_are_in(
    database: Database,
) -> None:
    rng = seeded()
    stated = []
    for n in range(1, 120):
        stated.append(payout(n, status="completed"))
        for each in range(rng.choice((0, 0, 1, 3))):
            # Every third return names a payout of its own and so ties several together.
            named = n if each < 2 else rng.randrange(1, 120)
            stated.append(payment(1000 + 10 * n + each, transaction_remarks=f"RTN idem-{named:04}"))
    # More than are looked at under one link.
    stated += [payment(9000 + n, transaction_remarks="RTN idem-0001") for n in range(40)]
    rng.shuffle(stated)
    await append(
        database, [SimulatedCallback("straitsx", None, orjson.dumps(each)) for each in stated]
    )
    generation = await begin(database)
    stages: set[str] = set()
    load = load_of(database, generation)
    load.on_progress = lambda stage, _done, total: stages.add(f"{stage} {total > 0}")
    await load.run()
    assert "fold linked True" in stages
    assert await unlike_the_ordinary_fold(database, generation) == {}


async def test_what_a_file_cannot_carry_is_read_from_the_log_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = sorted_files._encode_into
    refused = 0

    def encode_into(event: Any, buffer: bytearray, offset: int) -> None:
        nonlocal refused
        sound(event, buffer, offset)
        if event.position % 3 == 0:
            refused += 1
            raise OverflowError("a number of more than 64 bits")

    monkeypatch.setattr(sorted_files, "_encode_into", encode_into)
    await fill(database, seeded(), 2)
    generation = await begin(database)
    await load_of(database, generation).run()
    assert refused > 20
    assert await unlike_the_ordinary_fold(database, generation) == {}


def test_a_sorted_file_gives_every_part_its_events_and_names_those_that_it_cannot_carry(
    tmp_path: Path,
) -> None:
    event = _event(3)
    strange = _event(5, {"amount": 2**70})
    sorter = sorted_files.PartitionWriter(4)
    for part, each in ((0, event), (2, strange), (2, _event(9))):
        sorter.add(part, each)
    path = tmp_path / "chunk"
    sorter.write(path)
    assert sorted_files.is_whole(path, 4)
    assert sorted_files.read(path, 0) == ([event], [])
    assert sorted_files.read(path, 1) == ([], [])
    assert sorted_files.read(path, 2) == ([_event(9)], [5])
    path.write_bytes(path.read_bytes()[:-1])
    assert not sorted_files.is_whole(path, 4)
    assert not sorted_files.is_whole(tmp_path / "none", 4)


def _event(position: int, details: dict[str, Any] | None = None) -> Any:
    from datetime import UTC, datetime

    from ledger.fold.change import TranslatedEvent
    from ledger.model import Fact

    at = datetime(2026, 1, 1, tzinfo=UTC)
    fact = Fact("payment", "p1", "completed", at, details=details or {"note": "ü\n"})
    return TranslatedEvent(position, "ab", "payment", "p1", "completed", at, at, fact)


def test_groups_hold_everything_that_is_joined_directly_or_through_others() -> None:
    rng = random.Random(7)
    groups = Groups()
    keys = [("payout", str(n)) for n in range(60)]
    together = [{key} for key in keys]
    for _ in range(40):
        one, other = rng.sample(keys, 2)
        groups.join(one, other)
        mine = next(group for group in together if one in group)
        theirs = next(group for group in together if other in group)
        if mine is not theirs:
            together.remove(theirs)
            mine |= theirs
    assert {frozenset(k for k in keys if groups.root(k) == groups.root(key)) for key in keys} == {
        frozenset(group) for group in together
    }


class Stopped(Exception):
    """The load was stopped, as a SIGKILL would."""


async def test_a_load_stopped_anywhere_goes_on_and_ends_the_same(
    database: Database, tmp_path: Path
) -> None:
    database = replace(database, settings=replace(database.settings, data_dir=tmp_path))
    rng = seeded()
    await fill(database, rng, 3)
    stops = 0
    finished = False
    while not finished:
        generation = await begin(database)
        load = load_of(database, generation)
        left = rng.randrange(2, 8)

        def on_progress(_stage: str, _done: int, _total: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Stopped

        load.on_progress = on_progress
        try:
            await load.run()
            finished = True
        except* Stopped:
            stops += 1
    assert stops > 3
    assert await unlike_the_ordinary_fold(database, generation) == {}


async def test_files_that_were_lost_are_made_again(database: Database, tmp_path: Path) -> None:
    database = replace(database, settings=replace(database.settings, data_dir=tmp_path))
    await fill(database, seeded(), 2)
    generation = await begin(database)
    load = load_of(database, generation)

    def on_progress(stage: str, done: int, total: int) -> None:
        if stage == "fold" and done > total / 2:
            raise Stopped

    load.on_progress = on_progress
    with pytest.raises(BaseExceptionGroup):
        await load.run()
    async with database.service() as connection:
        await use_generation(connection, generation)
        for plan in await load_plan.read_plans(connection):
            sorted_file(tmp_path / "rebuild", plan, 0).unlink()
    await load_of(database, generation).run()
    assert await unlike_the_ordinary_fold(database, generation) == {}


async def test_a_load_whose_files_cannot_be_made_again_begins_again(
    database: Database, tmp_path: Path
) -> None:
    database = replace(database, settings=replace(database.settings, data_dir=tmp_path))
    stated: list[dict[str, Any]] = []
    for n in range(1, 80):
        stated.append(payout(n, status="completed"))
        stated.append(payment(1000 + n, transaction_remarks=f"RTN idem-{n:04}"))
    await append(
        database, [SimulatedCallback("straitsx", None, orjson.dumps(each)) for each in stated]
    )
    generation = await begin(database)
    load = load_of(database, generation)

    def on_progress(stage: str, _done: int, _total: int) -> None:
        if stage == "fold linked":
            raise Stopped

    load.on_progress = on_progress
    with pytest.raises(Stopped):
        await load.run()
    (lost, *_) = sorted((tmp_path / "rebuild").rglob("moved-*"))
    lost.unlink()
    with pytest.raises(load_plan.CannotResume):
        await load_of(database, generation).run()
    async with database.service() as connection:
        targets = dict(await connection.fetch(SELECT_HEADS))
    made, _ = await coordinator.build_generation(
        database.service_dsn, database.settings, registry.load(), "bulk", targets, processes=0
    )
    assert await unlike_the_ordinary_fold(database, made) == {}


async def test_a_damaged_file_is_taken_away_and_made_again(
    database: Database, tmp_path: Path
) -> None:
    database = replace(database, settings=replace(database.settings, data_dir=tmp_path))
    await fill(database, seeded(), 2)
    generation = await begin(database)
    load = load_of(database, generation)

    def on_progress(stage: str, done: int, total: int) -> None:
        if stage == "sort" and done == total:
            for path in (tmp_path / "rebuild").rglob("chunk-000000"):
                path.write_bytes(b"\xff" * path.stat().st_size)

    load.on_progress = on_progress
    with pytest.raises(DatabaseUnavailable, match="damaged"):
        await load.run()
    await load_of(database, generation).run()
    assert await unlike_the_ordinary_fold(database, generation) == {}


async def test_sorted_callbacks_are_for_their_owner_alone(
    database: Database, tmp_path: Path
) -> None:
    database = replace(database, settings=replace(database.settings, data_dir=tmp_path))
    (tmp_path / "rebuild").mkdir(mode=0o755)
    await fill(database, seeded(), 1)
    modes: set[tuple[str, int]] = set()
    load = load_of(database, await begin(database))
    load.on_progress = lambda *_: modes.update(
        (each.parent.name, each.stat().st_mode & 0o777) for each in (tmp_path / "rebuild").iterdir()
    )
    await load.run()
    assert modes == {("rebuild", 0o700)}
    assert (tmp_path / "rebuild").stat().st_mode & 0o777 == 0o755, "made by someone else"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "rebuild").rmdir()
    (tmp_path / "rebuild").symlink_to(tmp_path / "elsewhere")
    generation = await begin(database, "another")
    with pytest.raises(DatabaseUnavailable, match="belongs to someone else"):
        await load_of(database, generation).run()
    assert not any((tmp_path / "elsewhere").iterdir())


async def test_a_unit_that_waits_for_a_lost_database_is_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A COPY that may not write waits for a server that was killed for as long as it may run."""
    await fill(database, seeded(), 1)
    load = load_of(database, await begin(database))
    waiting = asyncio.Event()

    async def stalled(own: TaskRunner, _source: str, _stage: str, _number: int) -> int:
        waiting.set()
        await asyncio.Event().wait()
        return own.connection is None

    monkeypatch.setattr(TaskRunner, "run", stalled)
    monkeypatch.setattr(worker_process, "LOST_SECONDS", 0.1)
    running = asyncio.create_task(load.run())
    await waiting.wait()
    async with database.owner() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(DatabaseUnavailable, match="the database went away"):
        async with asyncio.timeout(30):
            await running


def test_a_process_of_a_load_ends_with_the_one_who_gave_it_units(database: Database) -> None:

    start = ExecutorStart(database.service_dsn, 1, "/nonexistent", [])
    process = subprocess.Popen(
        [sys.executable, "-m", "ledger.rebuild.worker_process"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    process.communicate(msgspec.json.encode(start) + b"\n", timeout=30)
    assert process.returncode == 0


async def test_a_process_that_ends_interrupts_the_load_and_the_next_one_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(database, seeded(), 2)
    generation = await begin(database)
    load = load_of(database, generation, 2)
    made = coordinator._process

    async def short_lived(start: Any) -> Any:
        process = await made(start)
        load.on_progress = lambda stage, done, _total: (
            process.kill() if stage == "fold" and done and process.returncode is None else None
        )
        return process

    monkeypatch.setattr(coordinator, "_process", short_lived)
    with pytest.raises(DatabaseUnavailable, match="run it again"):
        await load.run()
    monkeypatch.setattr(coordinator, "_process", made)
    await load_of(database, generation, 2).run()
    assert await unlike_the_ordinary_fold(database, generation) == {}
