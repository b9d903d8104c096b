"""Finding the embedded server that a running service has started; nothing is started here."""

from __future__ import annotations

from typing import Final

from ledger.config.settings import Settings
from ledger.errors import ServerNotFound
from ledger.postgres.cluster import Cluster
from ledger.postgres.process import serves

START: Final = "start `ledger serve`, then ask again; nothing of the database was checked"


def database_dsn(settings: Settings) -> str:
    """Return the DSN of the configured database, or of the embedded server that runs now.

    Raises ServerNotFound when the embedded server does not run or its files cannot be read.
    """
    if settings.database_url:
        return settings.database_url
    cluster = Cluster(settings.data_dir.absolute().resolve())
    if not cluster.exists:
        raise ServerNotFound(f"embedded, not created yet in {cluster.data_dir}", START)
    try:
        pid = int((cluster.pgdata / "postmaster.pid").read_text("utf-8").split("\n", 1)[0])
    except FileNotFoundError:
        pid = 0
    except (OSError, ValueError) as error:
        advice = "run the doctor as its owner"
        raise ServerNotFound(f"{cluster.pgdata}: {error}", advice, is_broken=True) from error
    if pid <= 0 or not serves(pid, cluster.pgdata):
        raise ServerNotFound(f"embedded, not running in {cluster.data_dir}", START)
    return cluster.endpoint().service_dsn
