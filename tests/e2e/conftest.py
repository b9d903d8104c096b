"""A service per module, on a database of its own in the run's one cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ledger.database import connection as db
from ledger.postgres.server import Endpoint
from tests.conftest import TEMPLATE, with_database
from tests.service import Service, in_new_loop, serving

_numbers = itertools.count(1)

Serve = Callable[..., AbstractContextManager[Service]]
"""(TOML text, **environment) → a running service, for the length of a block."""


async def _create(cluster: Endpoint, name: str) -> None:
    async with db.connected(cluster.owner_dsn, seconds_max=60) as owner:
        await owner.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        await owner.execute(f"GRANT CREATE, CONNECT ON DATABASE {name} TO ledger")


async def _drop(cluster: Endpoint, name: str) -> None:
    async with db.connected(cluster.owner_dsn, seconds_max=60) as owner:
        await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def serve(cluster: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Give a way to run the service on a new database of the run's cluster."""

    @contextmanager
    def run(toml: str, **environ: str) -> Iterator[Service]:
        folder: Path = tmp_path_factory.mktemp("service")
        (folder / "ledger.toml").write_text(toml, encoding="utf-8")
        name = f"e2e_{next(_numbers)}"
        in_new_loop(lambda: _create(cluster, name))
        given = {
            "LEDGER_CONFIG": str(folder / "ledger.toml"),
            "LEDGER_DATABASE_URL": with_database(cluster.service_dsn, name),
        }
        try:
            with serving(folder, **{**given, **environ}) as service:
                yield service
        finally:
            in_new_loop(lambda: _drop(cluster, name))

    return run
