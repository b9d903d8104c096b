"""Promise: the number of connections does not grow with the sources; 300 of them fold."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson

from ledger.database import connection as db
from ledger.postgres.cluster import Cluster
from tests.asking import payment
from tests.conftest import eventually
from tests.service import calling, serving

SOURCES = 300
CONNECTIONS_MAX = 60
MEMORY_MIB_MAX = 200
"""Of the receiver, and of the projector, at the peak."""
COUNT = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


async def test_300_sources_are_received_and_folded_on_few_connections(tmp_path: Path) -> None:
    names = [f"account-{n}" for n in range(SOURCES)]
    config = tmp_path / "ledger.toml"
    config.write_text("".join(f'[sources.{name}]\nprovider = "straitsx"\n' for name in names))
    with serving(tmp_path / "service", LEDGER_CONFIG=str(config)) as service:
        async with calling(service.url, connections=50) as caller:
            for number in range(1, 4):
                body = orjson.dumps(payment(number))
                await asyncio.gather(*(caller.report(name, body) for name in names))

            async def is_folded() -> bool:
                status = await caller.ask("/v1/status")
                return all(row["lag_events"] == 0 and row["head"] == 3 for row in status["sources"])

            await eventually(is_folded, 60)
            (wallet,) = (await caller.ask("/v1/wallets", source=names[-1]))["wallets"]
            assert wallet["available"] == "28.5"
            status = await caller.ask("/v1/status")
            assert [w for w in status["warnings"] if "retrying" in w or "stalled" in w] == []
        endpoint = Cluster(service.data_dir.resolve()).endpoint()
        async with db.connected(endpoint.owner_dsn) as connection:
            count = await connection.fetchval(COUNT)
        peaks = {role: peak_mib(service.pids(role)[0]) for role in ("all", "projector")}
        print("connections", count, "peaks in MiB", peaks)
        assert count <= CONNECTIONS_MAX
        assert max(peaks.values()) <= MEMORY_MIB_MAX
