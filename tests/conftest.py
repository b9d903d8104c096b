"""Real PostgreSQL for every test that needs one: one cluster per run, one database per test.

Each process of a run (pytest-xdist) has a cluster and a template database of its own.

`TEST_PG_BIN` chooses other binaries than the embedded ones, `PYTEST_DEBUG_TEMPROOT` another place
for temporary folders.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from ledger.config.settings import Settings, load
from ledger.database import connection as db
from ledger.postgres.server import EmbeddedPostgres, Endpoint
from ledger.runtime.decimals import configure_decimal
from ledger.service.startup import prepare
from tests.service import PG_BIN

TEMPLATE = "ledger_template"
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 4 * 1024**3
TESTS = Path(__file__).parent
WITHOUT_DATABASE = ("unit", "property", "test_tidy.py")
_numbers = itertools.count(1)


def pytest_configure() -> None:
    """Add money exactly, and keep temporary folders in memory where there is room.

    Data folders are most of a run.
    """
    configure_decimal()
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests of `make check` that need a database."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in WITHOUT_DATABASE and "cluster" in getattr(item, "fixturenames", ()):
            raise pytest.UsageError(f"{item.nodeid} needs a database: move it to integration/")


@dataclass(frozen=True, slots=True)
class Database:
    """One migrated database of its own; `owner` may do anything, `service` what the service may."""

    name: str
    owner_dsn: str
    service_dsn: str
    settings: Settings

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[Any]:
        async with db.connected(self.owner_dsn, seconds_max=60) as connection:
            yield connection

    @asynccontextmanager
    async def service(self) -> AsyncIterator[Any]:
        async with db.connected(self.service_dsn, seconds_max=60) as connection:
            yield connection


def with_database(dsn: str, name: str) -> str:
    """Return `dsn` pointing at another database of the same server."""
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(path="/" + name))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Run one PostgreSQL for the whole session and make the migrated template database."""
    folder = tmp_path_factory.mktemp("cluster")
    server = EmbeddedPostgres(Path(folder), pg_bin=PG_BIN)
    endpoint = asyncio.run(server.start())
    asyncio.run(_make_template(endpoint, Path(folder) / "template"))
    yield endpoint
    asyncio.run(server.stop())
    shutil.rmtree(folder)  # it may lie in memory; that of a run that failed is of no use either


async def _make_template(endpoint: Endpoint, data_dir: Path) -> None:
    async with db.connected(endpoint.owner_dsn) as owner:
        await owner.execute(f"CREATE DATABASE {TEMPLATE}")
    template = Endpoint(
        with_database(endpoint.owner_dsn, TEMPLATE), with_database(endpoint.service_dsn, TEMPLATE)
    )
    await prepare(template, replace(load({}), data_dir=data_dir))


async def create_database(cluster: Endpoint) -> Database:
    """Clone the template: a migrated database with the sources straitsx and gokart."""
    name = f"t{next(_numbers)}_{os.getpid()}"
    async with db.connected(cluster.owner_dsn, seconds_max=60) as owner:
        await owner.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        await owner.execute(f"GRANT CREATE, CONNECT ON DATABASE {name} TO ledger")
    service_dsn = with_database(cluster.service_dsn, name)
    settings = replace(load({}), database_url=service_dsn)
    return Database(name, with_database(cluster.owner_dsn, name), service_dsn, settings)


async def drop_database(cluster: Endpoint, database: Database) -> None:
    """Drop a clone, whoever is connected to it."""
    async with db.connected(cluster.owner_dsn, seconds_max=60) as owner:
        await owner.execute(f"DROP DATABASE {database.name} WITH (FORCE)")


@asynccontextmanager
async def new_database(cluster: Endpoint) -> AsyncIterator[Database]:
    """Clone the template for the length of a block."""
    made = await create_database(cluster)
    try:
        yield made
    finally:
        await drop_database(cluster, made)


@pytest.fixture
async def database(cluster: Endpoint) -> AsyncIterator[Database]:
    """Give a test a database of its own."""
    async with new_database(cluster) as made:
        yield made


async def eventually(check: Any, seconds: float = 20) -> Any:
    """Await `check()` until it is true; fail with its last answer at the deadline."""
    answer = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = await check()
                if answer:
                    return answer
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within {seconds} s; last answer: {answer!r}")
