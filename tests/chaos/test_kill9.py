"""Law: whatever is killed, and whenever, what was acknowledged is kept, once, and folded once."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import pytest

from ledger import registry
from ledger.books.generations import SELECT_LIVE, use_generation
from ledger.config.settings import load
from ledger.database import connection as db
from ledger.evidence import checkpoint_file
from ledger.evidence.sealer import SourceSealer
from ledger.evidence.signed_note import open_checkpoint
from ledger.postgres.server import EmbeddedPostgres
from ledger.rebuild.swap import Rebuild, exclusive_rebuild
from ledger.simulator.simulate import GOKART, STRAITSX
from ledger.terminal.progress import Progress
from ledger.verify.database import Verification, VerifyOptions
from ledger.verify.outcome import overall
from tests import processes
from tests.conftest import eventually
from tests.dumps import differences, dump, fold_from_zero
from tests.service import PG_BIN, NotReady, Service, calling, free_port, serving
from tests.storm import SELECT_EVENTS, SELECT_HEADS, Storm, check_log

SENDERS = 8
DELAY_SECONDS_MAX = 0.4
PROGRESS = 5
"""Callbacks acknowledged after a kill before the next one."""

VICTIMS = ("supervisor", "all", "projector", "evidence", "postmaster", "backend")

SELECT_NOTES = "SELECT size, note FROM ledger.seals WHERE source = $1"
SELECT_SUMS = "SELECT currency, sum(debits) - sum(credits) AS sum FROM balances GROUP BY 1"


@dataclass(slots=True)
class Killing(Storm):
    """A storm during which processes are killed."""

    kills: Counter[str] = field(default_factory=Counter)

    async def strike(self, service: Service, victim: str) -> None:
        """Kill something at a random moment and wait until callbacks are acknowledged again."""
        await asyncio.sleep(self.rng.random() * DELAY_SECONDS_MAX)
        await eventually(lambda: self._kill(service, victim))
        self.kills[victim] += 1
        if victim == "supervisor":
            await eventually(lambda: _started_again(service), 60)
        before = self.answers["200"]
        await eventually(lambda: self._since(before), 30)

    async def _kill(self, service: Service, victim: str) -> bool:
        """Kill one process of a role; it may be just on its way down or up."""
        try:
            return processes.kill(self.rng.choice(_pids(service, victim)))
        except (OSError, IndexError, ValueError):
            return False

    async def _since(self, before: int) -> bool:
        return self.answers["200"] >= before + PROGRESS


def _pids(service: Service, victim: str) -> list[int]:
    match victim:
        case "supervisor":
            return [service.running.pid]
        case "postmaster":
            return [service.postmaster()]
        case "backend":
            return processes.children(service.postmaster())
        case _:
            return service.pids(victim)


async def _started_again(service: Service) -> bool:
    """Start the service as an operator does: again, while what is left of it holds its port."""
    await asyncio.to_thread(service.running.wait)
    try:
        await asyncio.to_thread(service.start)
    except NotReady:
        return False
    return True


async def storm(service: Service, seed: int, each: int) -> Killing:
    """Run the load and the kills; return when everything sent is acknowledged."""
    found = Killing(random.Random(seed))
    feed = found.callbacks()
    victims = list(chain.from_iterable([victim] * each for victim in VICTIMS))
    found.rng.shuffle(victims)
    async with calling(service.url) as caller, asyncio.TaskGroup() as tasks:
        for _ in range(SENDERS):
            tasks.create_task(found.send(caller, feed))
        for victim in victims:
            await found.strike(service, victim)
        found.calm.set()
    return found


async def caught_up(service: Service) -> None:
    """Wait until the books are at the head of every log."""

    async def check() -> bool:
        async with calling(service.url) as caller:
            reply = await caller.request("GET", "/v1/status")
        return reply.status == 200 and all(row["lag_events"] == 0 for row in reply.json["sources"])

    await eventually(check, 60)


async def check_books(data_dir: Path, found: Killing) -> None:
    """The log is what was acknowledged, and the books are a fold of it from zero."""
    server = EmbeddedPostgres(data_dir, pg_bin=PG_BIN)
    endpoint = await server.start()
    try:
        async with db.connected(endpoint.service_dsn, seconds_max=60) as connection:
            check_log(
                await connection.fetch(SELECT_EVENTS),
                dict(await connection.fetch(SELECT_HEADS)),
                found,
            )
            live = (await connection.fetchrow(SELECT_LIVE))["generation"]
            fresh = await fold_from_zero(endpoint.service_dsn, load({}))
            one, two = [await dump(connection, each, index=False) for each in (live, fresh)]
            assert differences(one, two) == {}
            await use_generation(connection, live)
            sums = dict(await connection.fetch(SELECT_SUMS))
            assert len(sums) >= 5
            assert set(sums.values()) == {0}
            assert await connection.fetchval("SELECT count(*) FROM parked") == 0
        await check_rebuild(data_dir, endpoint.service_dsn)
        await check_evidence(data_dir, endpoint.service_dsn)
    finally:
        await server.stop()


async def check_rebuild(data_dir: Path, dsn: str) -> None:
    """A rebuild finds nothing that differs from the live books, at the head of every log."""
    settings = replace(load({}), data_dir=data_dir, database_url=dsn)
    async with exclusive_rebuild(dsn) as connection:
        rebuild = Rebuild(dsn, settings, connection, registry.load())
        await rebuild.build()
        compared = await rebuild.compare()
        heads = dict(await connection.fetch(SELECT_HEADS))
        assert {found.source: found.position for found in compared} == heads
        assert [found for found in compared if found.differences] == []
        await rebuild.swap()
        assert (await connection.fetchrow(SELECT_LIVE))["generation"] == rebuild.generation


async def check_evidence(data_dir: Path, dsn: str) -> None:
    """One history was sealed, in the database and in the file, and all of it is verified."""
    settings = replace(load({}), data_dir=data_dir, database_url=dsn)
    for source in (STRAITSX, GOKART):
        async with db.connected(dsn, seconds_max=60) as connection:
            while await SourceSealer(source, settings).step(connection):
                pass
            kept = dict(await connection.fetch(SELECT_NOTES, source))
        notes = list(checkpoint_file.read(checkpoint_file.path_of(data_dir, source)))
        assert {open_checkpoint(note, ())[0].size: note for note in notes} == kept
        assert set(notes) == set(kept.values())
    found = await Verification(settings, VerifyOptions(), Progress(quiet=True)).examine()
    assert overall(found) == "ok", found


async def survive(folder: Path, each: int) -> None:
    """Run a storm that kills every kind of process `each` times, and check what is left."""
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(2**32))
    print(f"CHAOS_SEED={seed}")
    with serving(folder, LEDGER_RECEIVERS="2", LEDGER_PORT=free_port()) as service:
        found = await storm(service, seed, each)
        print(dict(found.kills), dict(found.answers))
        await caught_up(service)
        assert await asyncio.to_thread(service.stop) == 0
        await check_books(service.data_dir, found)
    assert found.kills == dict.fromkeys(VICTIMS, each)


@pytest.mark.timeout(240)
async def test_thirty_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    await survive(tmp_path, 5)


@pytest.mark.soak
@pytest.mark.timeout(10_800)
async def test_two_hundred_kills_of_each_process_lose_nothing(tmp_path: Path) -> None:
    await survive(tmp_path, 200)
