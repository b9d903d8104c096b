"""Promise: a proof that could not be finished says so, with 3 and one sentence; 1 is a finding."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from ledger.postgres.server import Endpoint
from tests.asking import payment
from tests.conftest import Database, eventually, new_database
from tests.service import Caller, calling, serving

EVENTS = 60
ROUNDS = 2
COMMANDS = {
    "verify": ["verify"],
    "rebuild": ["rebuild", "--verify-only"],
    "export": ["export", "--format", "csv", "--out", "entries.csv"],
    "pack": ["export", "--audit", "pack.ledger"],
}
CANCEL = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE datname = $1"
TERMINATE = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1"


@dataclass(frozen=True, slots=True)
class Kept:
    """A log with books and seals that no service looks after now."""

    folder: Path
    database: Database

    async def ledger(
        self, *arguments: str, before: Callable[[], object] | None = None
    ) -> tuple[int, str]:
        """Run a command; return its exit status and what it printed."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")}
        given = {
            "LEDGER_DATABASE_URL": self.database.service_dsn,
            "LEDGER_DATA_DIR": str(self.folder / "data"),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ledger", *arguments, env=kept | given, cwd=self.folder,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, preexec_fn=before,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, out.decode()

    async def check(self, name: str, *expected: int) -> int:
        """A command ends with one of these statuses, and says why in words when it is no pass."""
        code, out = await self.ledger(*COMMANDS[name])
        assert code in expected, (code, out)
        assert "Traceback" not in out
        if code:
            assert out.strip(), name
        return code


async def are_folded(caller: Caller) -> bool:
    status = await caller.ask("/v1/status")
    return all(source["lag_events"] == 0 for source in status["sources"])


async def are_sealed(database: Database) -> bool:
    async with database.service() as connection:
        return bool(await connection.fetchval("SELECT max(size) FROM ledger.seals") == EVENTS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(cluster: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kept]:
    """Make a log with a service and stop it; every command passes on it."""
    folder = tmp_path_factory.mktemp("kept")
    async with new_database(cluster) as database:
        with serving(folder, LEDGER_DATABASE_URL=database.service_dsn) as service:
            async with calling(service.url) as caller:
                for number in range(EVENTS):
                    await caller.report("straitsx", orjson.dumps(payment(number)))
                await eventually(lambda: are_folded(caller))
                await eventually(lambda: are_sealed(database))
            assert await asyncio.to_thread(service.stop) == 0
        kept = Kept(folder, database)
        for name in COMMANDS:
            await kept.check(name, 0)
        yield kept


@pytest.fixture
async def kept(made: Kept) -> AsyncIterator[Kept]:
    """Give a test the log; what the test forbids is allowed again after it."""
    yield made
    async with made.database.owner() as owner:
        await owner.execute(f"ALTER DATABASE {made.database.name} CONNECTION LIMIT -1")


async def test_without_connections_nothing_is_proved_and_nothing_found(kept: Kept) -> None:
    async with kept.database.owner() as owner:
        for limit in (0, 4, 5, 6):
            await owner.execute(f"ALTER DATABASE {kept.database.name} CONNECTION LIMIT {limit}")
            for name in COMMANDS:
                await kept.check(name, *((3,) if limit == 0 else (0, 3)))


@asynccontextmanager
async def disturbed(kept: Kept, statement: str, rng: random.Random) -> AsyncIterator[None]:
    """Disturb every session of the service's role again and again, for as long as a block."""

    async def disturb() -> None:
        async with kept.database.owner() as owner:
            while True:
                await asyncio.sleep(rng.uniform(0, 0.2))
                await owner.fetchval(statement + " AND usename = 'ledger'", kept.database.name)

    task = asyncio.create_task(disturb())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("statement", [CANCEL, TERMINATE])
@pytest.mark.timeout(240)
async def test_sessions_that_are_cancelled_or_ended_are_no_finding(
    kept: Kept, statement: str
) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    async with disturbed(kept, statement, random.Random(seed)):
        for _ in range(ROUNDS):
            for name in COMMANDS:
                await kept.check(name, 0, 3)
    for name in COMMANDS:
        await kept.check(name, 0)


async def test_a_full_disk_is_no_finding(kept: Kept) -> None:
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100, 100))
    for name in ("export", "pack"):
        code, out = await kept.ledger(*COMMANDS[name], before=limit)
        assert (code, "Traceback" in out) == (3, False), out
        assert "File too large" in out
    assert not list(kept.folder.glob(".ledger-*.new"))


async def test_reconciling_without_a_service_or_a_source_is_no_finding(kept: Kept) -> None:
    code, out = await kept.ledger("reconcile", "--url", "http://127.0.0.1:1")
    assert (code, "no service answers" in out) == (3, True)
    with serving(kept.folder, LEDGER_DATABASE_URL=kept.database.service_dsn) as service:
        code, out = await kept.ledger("reconcile", "--source", "nobody", "--url", service.url)
        assert (code, "nobody" in out) == (2, True), out
        async with kept.database.owner() as owner:
            await owner.execute(f"ALTER DATABASE {kept.database.name} CONNECTION LIMIT 0")
            await owner.fetchval(TERMINATE + " AND usename = 'ledger'", kept.database.name)
            code, out = await kept.ledger("reconcile", "--url", service.url)
            assert (code, "Traceback" in out) == (3, False), out
