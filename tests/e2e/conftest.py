"""A service per module, on a database of its own in the run's one cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ledger.postgres.server import Endpoint
from tests.conftest import Database, create_database, drop_database
from tests.service import Service, in_new_loop, serving

Serve = Callable[..., AbstractContextManager[Service]]
"""(TOML text, **environment) → a running service, for the length of a block."""


@pytest.fixture(scope="session")
def serve(cluster: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Give a way to run the service on a new database of the run's cluster."""

    @contextmanager
    def run(toml: str, **environ: str) -> Iterator[Service]:
        folder: Path = tmp_path_factory.mktemp("service")
        (folder / "ledger.toml").write_text(toml, encoding="utf-8")
        database: Database = in_new_loop(lambda: create_database(cluster))
        given = {
            "LEDGER_CONFIG": str(folder / "ledger.toml"),
            "LEDGER_DATABASE_URL": database.service_dsn,
        }
        try:
            with serving(folder, **{**given, **environ}) as service:
                yield service
        finally:
            in_new_loop(lambda: drop_database(cluster, database))

    return run
