"""Law: whatever is killed, and whenever, what was acknowledged is kept, once, and folded once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ledger import books, registry, sealfile
from ledger import database as db
from ledger.note import open_checkpoint
from ledger.postgres import EmbeddedPostgres
from ledger.rebuild import Rebuild, alone
from ledger.seal import SourceSealer
from ledger.settings import load
from ledger.simulate import GOKART, STRAITSX, Callback, disturb, story
from ledger.verdict import overall
from ledger.verify import Options, Verification
from ledger.verify_progress import Progress
from tests.conftest import eventually
from tests.dumps import differences, dump, fold_from_zero
from tests.service import PG_BIN, Caller, Service, calling, serving

SENDERS = 8
PACE_SECONDS_MAX = 0.02
DELAY_SECONDS_MAX = 0.4
RESEND_SECONDS = 0.05
PROGRESS = 5
"""Callbacks acknowledged after a kill before the next one."""

SELECT_EVENTS = """
SELECT source, position, encode(event_id, 'hex') AS event_id, path_event, body, recorded_at
  FROM ledger.events ORDER BY source, position
"""
SELECT_NOTES = "SELECT size, note FROM ledger.seals WHERE source = $1"
SELECT_HEADS = "SELECT source, position FROM ledger.heads"
SELECT_SUMS = "SELECT currency, sum(debits) - sum(credits) AS sum FROM balances GROUP BY 1"

Delivery = tuple[str, str | None, bytes]
"""(source, event name, body): what makes two deliveries the same callback."""


@dataclass(slots=True)
class Storm:
    """Senders that resend everything until it is acknowledged, and what they were told."""

    rng: random.Random
    told: dict[Delivery, set[tuple[str, int]]] = field(default_factory=dict)
    firsts: Counter[Delivery] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    calm: asyncio.Event = field(default_factory=asyncio.Event)

    def callbacks(self) -> Iterator[Callback]:
        """Tell stories for ever, disturbed: repeated, reordered, contradicted."""
        while True:
            told = story("everything", self.rng)
            yield from disturb(told, self.rng, duplicate=0.3, shuffle=True, conflict=True)

    async def send(self, caller: Caller, feed: Iterator[Callback]) -> None:
        """Send callbacks until calm; none is given up."""
        while not self.calm.is_set():
            callback = next(feed)
            taken = await self.deliver(caller, callback)
            while not taken:
                await asyncio.sleep(RESEND_SECONDS)
                taken = await self.deliver(caller, callback)
            await asyncio.sleep(self.rng.random() * PACE_SECONDS_MAX)

    async def deliver(self, caller: Caller, callback: Callback) -> bool:
        """Post once; return whether it was acknowledged."""
        key = callback.source, callback.event, callback.body
        try:
            reply = await caller.post(callback.source, callback.body, callback.event)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.answers[type(error).__name__] += 1
            return False
        self.answers[str(reply.status)] += 1
        if reply.status != 200:
            assert reply.status == 503, reply
            return False
        said = reply.json
        self.told.setdefault(key, set()).add((said["event_id"], said["position"]))
        self.firsts[key] += said["status"] != "duplicate"
        return True

    async def strike(self, service: Service) -> None:
        """Kill something at a random moment and wait until callbacks are acknowledged again."""
        await asyncio.sleep(self.rng.random() * DELAY_SECONDS_MAX)
        victim = self.rng.choice(("all", "projector", "evidence", "postmaster"))
        await eventually(lambda: self._kill(service, victim))
        self.kills[victim] += 1
        before = self.answers["200"]
        await eventually(lambda: self._since(before), 30)

    async def _kill(self, service: Service, victim: str) -> bool:
        """Kill one process of a role; it may be just on its way down or up."""
        try:
            pids = [service.postmaster()] if victim == "postmaster" else service.pids(victim)
            os.kill(self.rng.choice(pids), signal.SIGKILL)
        except (OSError, IndexError, ValueError):
            return False
        return True

    async def _since(self, before: int) -> bool:
        return self.answers["200"] >= before + PROGRESS


async def storm(service: Service, seed: int, cycles: int) -> Storm:
    """Run the load and the kills; return when everything sent is acknowledged."""
    found = Storm(random.Random(seed))
    feed = found.callbacks()
    async with calling(service.url) as caller, asyncio.TaskGroup() as tasks:
        for _ in range(SENDERS):
            tasks.create_task(found.send(caller, feed))
        for _ in range(cycles):
            await found.strike(service)
        found.calm.set()
    return found


async def caught_up(service: Service) -> None:
    """Wait until the books are at the head of every log."""

    async def check() -> bool:
        async with calling(service.url) as caller:
            reply = await caller.request("GET", "/v1/status")
        return reply.status == 200 and all(row["lag_events"] == 0 for row in reply.json["sources"])

    await eventually(check, 60)


def check_log(events: list[Any], heads: dict[str, int], found: Storm) -> None:
    """Everything acknowledged is in the log as it was sent, dense, once; nothing else is."""
    stored = {(row["source"], row["position"]): row for row in events}
    for (source, event, body), said in found.told.items():
        assert len(said) == 1, (source, event, said)
        ((event_id, position),) = said
        row = stored[source, position]
        assert (row["event_id"], row["path_event"], bytes(row["body"])) == (event_id, event, body)
    assert all(count <= 1 for count in found.firsts.values())
    assert len(stored) == len(found.told)
    for source in (STRAITSX, GOKART):
        positions = [row["position"] for row in events if row["source"] == source]
        times = [row["recorded_at"] for row in events if row["source"] == source]
        assert positions == list(range(1, heads[source] + 1))
        assert times == sorted(times)
    assert len({(row["source"], row["event_id"]) for row in events}) == len(events)


async def check_books(data_dir: Path, found: Storm) -> None:
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
            live = (await connection.fetchrow(books.SELECT_LIVE))["generation"]
            fresh = await fold_from_zero(endpoint.service_dsn, load({}))
            one, two = [await dump(connection, each, index=False) for each in (live, fresh)]
            assert differences(one, two) == {}
            await books.use_generation(connection, live)
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
    async with alone(dsn) as connection:
        rebuild = Rebuild(dsn, settings, connection, registry.load())
        await rebuild.build()
        compared = await rebuild.compare()
        heads = dict(await connection.fetch(SELECT_HEADS))
        assert {found.source: found.position for found in compared} == heads
        assert [found for found in compared if found.differences] == []
        await rebuild.swap()
        assert (await connection.fetchrow(books.SELECT_LIVE))["generation"] == rebuild.generation


async def check_evidence(data_dir: Path, dsn: str) -> None:
    """One history was sealed, in the database and in the file, and all of it is verified."""
    settings = replace(load({}), data_dir=data_dir, database_url=dsn)
    for source in (STRAITSX, GOKART):
        async with db.connected(dsn, seconds_max=60) as connection:
            while await SourceSealer(source, settings).step(connection):
                pass
            kept = dict(await connection.fetch(SELECT_NOTES, source))
        notes = list(sealfile.read(sealfile.path_of(data_dir, source)))
        assert {open_checkpoint(note, ())[0].size: note for note in notes} == kept
        assert set(notes) == set(kept.values())
    found = await Verification(settings, Options(), Progress(quiet=True)).examine()
    assert overall(found) == "ok", found


async def survive(folder: Path, cycles: int) -> None:
    """Run a storm of `cycles` kills and check what is left."""
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(2**32))
    print(f"CHAOS_SEED={seed}")
    with serving(folder, LEDGER_RECEIVERS="2") as service:
        found = await storm(service, seed, cycles)
        print(dict(found.kills), dict(found.answers))
        await caught_up(service)
        assert await asyncio.to_thread(service.stop) == 0
        await check_books(service.data_dir, found)
    assert sum(found.kills.values()) == cycles


@pytest.mark.timeout(180)
async def test_thirty_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    await survive(tmp_path, 30)


@pytest.mark.soak
@pytest.mark.timeout(7_200)
async def test_a_thousand_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    await survive(tmp_path, 1_000)
