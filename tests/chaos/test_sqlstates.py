"""Law: a passing error costs no event. When it is over, the books are the fold of the log.

Every class of SQLSTATE is raised by a real PostgreSQL, under load, where a stage writes: appending,
folding, sealing, reconciling, rebuilding. What only one event causes parks that event, and is
tried again at every start and when an operator asks.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from ledger.books.generations import SELECT_LIVE, schema_of, use_generation
from ledger.config.settings import Settings, load
from ledger.database import connection as db
from ledger.postgres.server import EmbeddedPostgres
from ledger.service.startup import prepare
from ledger.simulator.simulate import SimulatedCallback
from ledger.terminal.progress import Progress
from ledger.verify.database import Verification, VerifyOptions
from ledger.verify.outcome import overall
from tests.asking import payment
from tests.chaos import faults
from tests.conftest import eventually
from tests.dumps import differences, dump, fold_from_zero
from tests.service import PG_BIN, Caller, Service, calling, free_port, serving
from tests.statements import row, statement
from tests.storm import SELECT_EVENTS, SELECT_HEADS, Storm, check_log

PASSING = (
    "08006", "0A000", "25006", "26000", "28000", "34000", "40001", "42501", "53300", "55P03",
    "57014", "58030", "72000", "F0000", "P0001", "XX000",
)  # fmt: skip
"""One of each class that no row causes."""
MORE = (
    "08000", "08P01", "25P02", "28P01", "2F002", "38000", "39000", "3D000", "3F000", "40P01",
    "42P01", "42703", "42883", "44000", "53100", "53200", "55000", "55006", "57P01", "57P03",
    "58P01", "HV000", "P0004", "XX001", "XX002",
)  # fmt: skip
"""The others that have been seen, for `make soak`."""
OF_A_ROW = ("22003", "23514", "54000")

FOLD_SECONDS_MAX = 5.0
"""How long after a fault the books may take to be where the log was when it ended."""
BEHIND_SECONDS_MAX = 20.0
"""The same of what works behind the books, and rests."""
HOLD_SECONDS = 1.2
SENDERS = 4
PROGRESS = 5
REBUILD_SECONDS_MAX = 120.0

SELECT_SEALED = "SELECT source, max(size) FROM ledger.seals GROUP BY source"
SELECT_RUN = "SELECT positions->>'straitsx' FROM ledger.recon_runs WHERE source = 'straitsx'"
IS_REFUSED = "reason = 'rows_refused' OR detail LIKE 'rows_refused:%'"
SELECT_LISTED = f"SELECT id, detail FROM exceptions WHERE {IS_REFUSED}"
TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE usename = 'ledger' AND pid <> pg_backend_pid()
"""
CANCEL = TERMINATE.replace("terminate", "cancel")


@dataclass(slots=True)
class Bench:
    """A service over a PostgreSQL of its own, its superuser, and the load on it."""

    service: Service
    caller: Caller
    storm: Storm
    owner: Any
    dsn: str
    senders: list[asyncio.Task[None]]

    @property
    def settings(self) -> Settings:
        return replace(load({}), data_dir=self.service.data_dir, database_url=self.dsn)

    async def heads(self) -> dict[str, int]:
        """Return where the logs of callbacks are."""
        found = dict(await self.owner.fetch(SELECT_HEADS))
        return {source: place for source, place in found.items() if "." not in source}

    async def live(self) -> str:
        """Return the schema of the live books."""
        return schema_of((await self.owner.fetchrow(SELECT_LIVE))["generation"])

    async def moving(self) -> None:
        """Wait until more callbacks are acknowledged."""
        before = self.storm.answers["200"]

        async def progress() -> bool:
            return self.storm.answers["200"] >= before + PROGRESS

        await eventually(progress, BEHIND_SECONDS_MAX)

    async def folded(self, seconds: float = FOLD_SECONDS_MAX) -> None:
        """Wait until the books are where the log is now."""
        expected = await self.heads()
        schema = await self.live()

        async def check() -> bool:
            rows = await self.owner.fetch(f"SELECT source, position FROM {schema}.checkpoints")
            found = dict(rows)
            return all(found.get(source, 0) >= place for source, place in expected.items())

        await eventually(check, seconds)

    async def sealed(self) -> None:
        """Wait until what the log is now is sealed."""
        expected = await self.heads()

        async def check() -> bool:
            found = dict(await self.owner.fetch(SELECT_SEALED))
            return all(found.get(source, 0) >= place for source, place in expected.items())

        await eventually(check, BEHIND_SECONDS_MAX)

    async def reconciled(self) -> None:
        """Wait until what the log is now is reconciled."""
        expected = (await self.heads())["straitsx"]

        async def check() -> bool:
            return int(await self.owner.fetchval(SELECT_RUN) or 0) >= expected

        await eventually(check, BEHIND_SECONDS_MAX)

    async def import_statement(self) -> None:
        """Give the reconciler something to do."""
        params = {"source": "straitsx", "currency": "XSGD",
                  "from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}  # fmt: skip
        body = statement([row("r1", "c1", "10", "2026-01-10T12:00:00Z")])
        reply = await self.caller.request("POST", "/v1/statements", params=params, data=body)
        assert reply.status == 200, reply


@asynccontextmanager
async def under_load(folder: Path) -> AsyncIterator[Bench]:
    """Serve under load; at the end everything sent is acknowledged."""
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(2**32))
    print(f"CHAOS_SEED={seed}")
    server = EmbeddedPostgres(folder / "cluster", pg_bin=PG_BIN)
    endpoint = await server.start()
    try:
        await prepare(endpoint, load({}))
        dsn = endpoint.service_dsn
        port = free_port()
        with serving(folder / "service", LEDGER_DATABASE_URL=dsn, LEDGER_PORT=port) as service:
            async with (
                db.connected(endpoint.owner_dsn, seconds_max=60) as owner,
                calling(service.url) as caller,
                asyncio.TaskGroup() as tasks,
            ):
                storm = Storm(random.Random(seed))
                feed = storm.callbacks()
                senders = [tasks.create_task(storm.send(caller, feed)) for _ in range(SENDERS)]
                bench = Bench(service, caller, storm, owner, dsn, senders)
                await bench.moving()
                await bench.folded(BEHIND_SECONDS_MAX)
                await faults.install(owner)
                try:
                    yield bench
                finally:
                    storm.calm.set()
    finally:
        await server.stop()


async def check(bench: Bench) -> None:
    """Nothing is lost, doubled or parked; the books are a fold of the log; verify agrees."""
    bench.storm.calm.set()
    await asyncio.wait(bench.senders)
    await bench.folded(BEHIND_SECONDS_MAX)
    await bench.sealed()
    check_log(
        await bench.owner.fetch(SELECT_EVENTS), dict(await bench.owner.fetch(SELECT_HEADS)),
        bench.storm,
    )  # fmt: skip
    await faults.remove(bench.owner)
    live = (await bench.owner.fetchrow(SELECT_LIVE))["generation"]
    await use_generation(bench.owner, live)
    assert await bench.owner.fetchval("SELECT count(*) FROM parked") == 0
    assert await bench.owner.fetch(SELECT_LISTED) == []
    fresh = await fold_from_zero(bench.dsn, load({}))
    one, two = [await dump(bench.owner, each, index=False) for each in (live, fresh)]
    assert differences(one, two) == {}
    await bench.owner.execute(f"DROP SCHEMA {schema_of(fresh)} CASCADE")
    await bench.owner.execute("DELETE FROM ledger.generations WHERE generation = $1", fresh)
    found = await Verification(bench.settings, VerifyOptions(), Progress(quiet=True)).examine()
    assert overall(found) == "ok", [each for each in found if each.outcome != "ok"]


async def through(bench: Bench, stage: str, codes: Sequence[str]) -> None:
    """Raise every code at a stage, one after the other, and wait until each is got over."""
    for code in codes:
        print(stage, code)
        async with faults.raised(bench.owner, stage, code):
            pass
        await bench.folded()
        await bench.moving()
    if stage == "seal":
        await bench.sealed()
    if stage == "reconcile":
        await bench.reconciled()


async def survive(folder: Path, stage: str, codes: Sequence[str]) -> None:
    async with under_load(folder) as bench:
        if stage == "reconcile":
            await bench.import_statement()
        await through(bench, stage, codes)
        await check(bench)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", ["append", "fold", "seal", "reconcile"])
async def test_no_class_of_errors_costs_an_event(tmp_path: Path, stage: str) -> None:
    await survive(tmp_path, stage, PASSING)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("stage", ["append", "fold", "seal", "reconcile"])
async def test_no_error_costs_an_event(tmp_path: Path, stage: str) -> None:
    await survive(tmp_path, stage, (*PASSING, *MORE))


async def rebuilt(bench: Bench) -> tuple[int, str]:
    """Rebuild and compare, as an operator does; return the exit status and what was printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ledger", "rebuild", "--verify-only",
        env={**os.environ, "LEDGER_DATABASE_URL": bench.dsn,
             "LEDGER_DATA_DIR": str(bench.service.data_dir)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(REBUILD_SECONDS_MAX):
        stated, _ = await process.communicate()
    return process.returncode or 0, stated.decode()


async def rebuild_through(bench: Bench, codes: Sequence[str]) -> None:
    """A rebuild that meets an error finishes without it or says that it could not: never 1."""
    for code in codes:
        print("rebuild", code)
        async with faults.raised(bench.owner, "rebuild", code, hits=1):
            running = asyncio.create_task(rebuilt(bench))
        status, stated = await running
        assert status in (0, 3), (code, stated)
        assert "Traceback" not in stated, (code, stated)
    status, stated = await rebuilt(bench)
    assert status == 0, stated


@pytest.mark.timeout(600)
async def test_no_class_of_errors_makes_a_rebuild_lie(tmp_path: Path) -> None:
    async with under_load(tmp_path) as bench:
        await rebuild_through(bench, PASSING[::2])
        await check(bench)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
async def test_no_error_makes_a_rebuild_lie(tmp_path: Path) -> None:
    async with under_load(tmp_path) as bench:
        await rebuild_through(bench, (*PASSING, *MORE))
        await check(bench)


@asynccontextmanager
async def locked(bench: Bench) -> AsyncIterator[None]:
    """Another session holds a lock for longer than the role's lock_timeout."""
    await bench.owner.execute("ALTER ROLE ledger SET lock_timeout = '500ms'")
    await bench.owner.execute(TERMINATE)
    await bench.folded()
    async with bench.owner.transaction():
        await bench.owner.execute(f"LOCK TABLE {await bench.live()}.transactions IN SHARE MODE")
        yield
    await bench.owner.execute("ALTER ROLE ledger RESET lock_timeout")


@asynccontextmanager
async def again_and_again(bench: Bench, statement: str) -> AsyncIterator[None]:
    """Do something to all of the service's sessions, all the time."""

    async def repeat() -> None:
        while True:
            await bench.owner.fetch(statement)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(repeat())
    yield
    task.cancel()
    await asyncio.wait([task])


@asynccontextmanager
async def between(bench: Bench, begin: str, end: str) -> AsyncIterator[None]:
    """Change something about the database and change it back."""
    name = await bench.owner.fetchval("SELECT current_database()")
    places = {"books": await bench.live(), "database": name}
    for each in begin.format(**places).split(";"):
        await bench.owner.execute(each)
    yield
    for each in end.format(**places).split(";"):
        await bench.owner.execute(each)


REAL = {
    "a lock for longer than lock_timeout": locked,
    "sessions terminated": lambda bench: again_and_again(bench, TERMINATE),
    "statements cancelled": lambda bench: again_and_again(bench, CANCEL),
    "read only by default": lambda bench: between(
        bench, "ALTER ROLE ledger SET default_transaction_read_only = on;" + TERMINATE,
        "ALTER ROLE ledger RESET default_transaction_read_only;" + TERMINATE,
    ),
    "a short statement_timeout": lambda bench: between(
        bench, "ALTER ROLE ledger SET statement_timeout = '1ms';" + TERMINATE,
        "ALTER ROLE ledger RESET statement_timeout;" + TERMINATE,
    ),
    "no connections": lambda bench: between(
        bench, "ALTER ROLE ledger CONNECTION LIMIT 1;" + TERMINATE,
        "ALTER ROLE ledger CONNECTION LIMIT -1",
    ),
    "no login": lambda bench: between(
        bench, "ALTER ROLE ledger NOLOGIN;" + TERMINATE, "ALTER ROLE ledger LOGIN"
    ),
    "no grant on the books": lambda bench: between(
        bench, "REVOKE ALL ON {books}.entries, {books}.checkpoints FROM ledger",
        "GRANT ALL ON {books}.entries, {books}.checkpoints TO ledger",
    ),
    "no grant to append": lambda bench: between(
        bench, "REVOKE EXECUTE ON FUNCTION ledger.append FROM ledger_service",
        "GRANT EXECUTE ON FUNCTION ledger.append TO ledger_service",
    ),
    "a table renamed": lambda bench: between(
        bench, "ALTER TABLE {books}.history RENAME TO gone",
        "ALTER TABLE {books}.gone RENAME TO history",
    ),
    "a head's row locked": lambda bench: between(
        bench, "BEGIN;UPDATE ledger.heads SET position = position", "ROLLBACK"
    ),
}  # fmt: skip


@pytest.mark.timeout(300)
async def test_no_real_fault_costs_an_event(tmp_path: Path) -> None:
    async with under_load(tmp_path) as bench:
        for name, fault in REAL.items():
            print(name)
            async with fault(bench):
                await asyncio.sleep(HOLD_SECONDS)  # how long the fault lasts
            await bench.moving()
            await bench.folded()
        await check(bench)


async def parked(bench: Bench, id_: str) -> list[Any]:
    """Return the exception that lists the event of a transaction, once it is parked."""
    live = await bench.live()

    async def listed() -> list[Any]:
        rows: list[Any] = await bench.owner.fetch(
            f"SELECT id, position FROM {live}.exceptions"
            f" WHERE ({IS_REFUSED}) AND resource_id = $1 AND action = 'opened'", id_,
        )  # fmt: skip
        return rows

    return list(await eventually(listed, BEHIND_SECONDS_MAX))


async def is_in_books(bench: Bench, id_: str) -> bool:
    live = await bench.live()
    found = await bench.owner.fetchval(
        f"SELECT count(*) FROM {live}.transactions WHERE id = $1", id_
    )
    return bool(found)


@pytest.mark.timeout(300)
async def test_what_one_row_causes_sets_that_event_apart_until_it_is_tried_again(
    tmp_path: Path,
) -> None:
    async with under_load(tmp_path) as bench:
        for place, code in enumerate(OF_A_ROW):
            print(code)
            id_ = f"poison-{place}"
            async with faults.raised(bench.owner, "fold", code, id_=id_):
                body = orjson.dumps(payment(900 + place, id=id_))
                taken = SimulatedCallback("straitsx", None, body)
                assert await bench.storm.deliver(bench.caller, taken)
                ((exception_id, _),) = await parked(bench, id_)
                await bench.moving()
                await bench.folded()  # all the others flow on
                assert not await is_in_books(bench, id_)
            if place == 0:
                await asked_again(bench, exception_id)
            else:
                await started_again(bench)
            # The books are folded again beside the live ones, compared and swapped in.
            await eventually(lambda id_=id_: is_in_books(bench, id_), REBUILD_SECONDS_MAX)
        bench.storm.calm.set()
        live = await bench.live()
        still = f"""
            SELECT id FROM {live}.exceptions AS o WHERE ({IS_REFUSED})
               AND action = 'opened' AND NOT EXISTS (
                   SELECT FROM {live}.exceptions AS x WHERE x.source = o.source AND x.id = o.id
                      AND x.action <> 'opened' AND x.position >= o.position)"""
        assert await bench.owner.fetch(still) == []


async def asked_again(bench: Bench, exception_id: str) -> None:
    """Ask for the event to be tried again, as an operator does."""
    path = f"/v1/exceptions/{exception_id}/resolve"
    stated = {"action": "retry", "by": "ann", "note": "the constraint is gone"}
    reply = await bench.caller.request("POST", path, json=stated)
    assert reply.status == 200, reply


async def started_again(bench: Bench) -> None:
    """Start the service again on the same port."""
    assert await asyncio.to_thread(bench.service.stop) == 0
    await asyncio.to_thread(bench.service.start)
