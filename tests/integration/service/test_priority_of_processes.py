"""Promise: answers go before whatever catches up, in the database's own processes too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ledger.database import connection as db
from ledger.runtime.priority import BEHIND, NICENESS_MAX
from tests.conftest import Database

SELECT_PID = "SELECT pg_backend_pid()"


def told(pid: int) -> str | None:
    """Return the niceness of a process's session, where sessions have one."""
    group = Path(f"/proc/{pid}/autogroup")
    return group.read_text().split()[-1] if group.exists() else None


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_a_connection_that_is_behind_has_a_backend_that_steps_back(
    database: Database,
) -> None:
    async with (
        db.connected(database.service_dsn) as plain,
        db.connected(database.service_dsn, is_background=True) as behind,
    ):
        first, second = await plain.fetchval(SELECT_PID), await behind.fetchval(SELECT_PID)
        usual, stepped = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (first, second))
        assert stepped == min(usual + BEHIND, NICENESS_MAX) > usual
        assert told(second) in (str(stepped), None)
        assert await behind.fetchval("SHOW max_parallel_workers_per_gather") == "0"
