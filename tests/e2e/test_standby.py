"""Promise: a database that takes no writes is waited for, and questions are answered from it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from ledger.config.settings import load
from ledger.database import connection as db
from ledger.doctor import doctor
from ledger.postgres.server import EmbeddedPostgres, Endpoint, find_binaries
from ledger.service.startup import prepare
from tests.asking import payment
from tests.conftest import eventually
from tests.pooling import forwarding
from tests.service import PG_BIN, Caller, Reply, Service, calling, serving

READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = on"
WRITABLE = "ALTER SYSTEM RESET default_transaction_read_only"
RELOAD = "SELECT pg_reload_conf()"


async def alter(endpoint: Endpoint, statement: str) -> None:
    async with db.connected(endpoint.owner_dsn) as owner:
        await owner.execute("SET default_transaction_read_only = off")
        await owner.execute(statement)
        await owner.execute(RELOAD)


async def post(caller: Caller, number: int) -> Reply:
    return await caller.post("straitsx", orjson.dumps(payment(number)))


async def ready(caller: Caller) -> Reply:
    return await caller.request("GET", "/readyz")


async def is_ready(caller: Caller) -> bool:
    return (await ready(caller)).status == 200


async def verdict(dsn: str, name: str) -> tuple[str, str]:
    found = await doctor.check_database(load({"LEDGER_DATABASE_URL": dsn}))
    return next((each.verdict, each.found) for each in found if each.name == name)


async def test_a_server_made_read_only_is_not_ready_and_is_waited_for(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "cluster", pg_bin=PG_BIN)
    endpoint = await server.start()
    given = {"LEDGER_DATABASE_URL": endpoint.service_dsn}
    try:
        await prepare(endpoint, load({}))
        with serving(tmp_path / "service", **given) as service:
            async with calling(service.url) as caller:
                await eventually(lambda: is_ready(caller))
                assert (await post(caller, 1)).status == 200
                await alter(endpoint, READ_ONLY)

                async def refuses() -> bool:
                    return (await ready(caller)).status == 503

                await eventually(refuses)
                assert "read-only" in (await ready(caller)).json["reason"]
                assert (await post(caller, 2)).status == 503
                status = await caller.ask("/v1/status")
                assert status["database"]["writable"] is False
                assert any("read-only" in warning for warning in status["warnings"])
                assert (await verdict(endpoint.service_dsn, "writes"))[0] == "fail"
            assert await asyncio.to_thread(service.stop) == 0

            service.launch()
            seen = len(service.reported())
            await eventually(lambda: states(service, b"database_awaited", seen))
            assert b"Traceback" not in service.reported(seen)
            await alter(endpoint, WRITABLE)
            await eventually(lambda: states(service, b"service_ready", seen))
    finally:
        await server.stop()


async def states(service: Service, words: bytes, offset: int) -> bool:
    assert service.running.poll() is None, service.text()
    return words in service.reported(offset)


def settle(primary: Path, folder: Path) -> None:
    """Give a copy the primary's passwords and account, and take away what names its process."""
    for path in primary.glob("*.password"):
        shutil.copy(path, folder)
    for path in (folder / "pgdata").glob(".s.PGSQL.*"):
        path.unlink()
    owner = (primary / "pgdata").stat()
    for path in [folder / "pgdata", *(folder / "pgdata").rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid)


@asynccontextmanager
async def standby_of(endpoint: Endpoint, primary: Path, folder: Path) -> AsyncIterator[Endpoint]:
    """Run a hot standby that follows `primary`, made by pg_basebackup."""
    parts = urlsplit(endpoint.owner_dsn)
    pgdata = folder / "pgdata"
    async with forwarding(endpoint.owner_dsn) as port:
        process = await asyncio.create_subprocess_exec(
            str(find_binaries(PG_BIN).path / "pg_basebackup"), "-h", "127.0.0.1", "-p", str(port),
            "-U", str(parts.username), "-D", str(pgdata), "-R", "-X", "stream", "-c", "fast",
            env={**os.environ, "PGPASSWORD": str(parts.password)},
        )  # fmt: skip
        assert await process.wait() == 0
        settle(primary, folder)
        server = EmbeddedPostgres(folder, pg_bin=PG_BIN)
        try:
            yield await server.start()
        finally:
            await server.stop()


async def test_questions_are_answered_on_a_hot_standby(tmp_path: Path) -> None:
    primary = EmbeddedPostgres(tmp_path / "primary", pg_bin=PG_BIN)
    endpoint = await primary.start()
    try:
        with serving(tmp_path / "service", LEDGER_DATABASE_URL=endpoint.owner_dsn) as service:
            async with (
                calling(service.url) as sender,
                standby_of(endpoint, tmp_path / "primary", tmp_path / "standby") as behind,
            ):
                given = {"LEDGER_DATABASE_URL": behind.owner_dsn}
                assert (await post(sender, 1)).status == 200
                with serving(tmp_path / "query", "serve", "--role", "query", **given) as query:
                    assert b"database_takes_no_writes" in query.reported()
                    async with calling(query.url) as asker:
                        await check_follows(sender, asker)
                    assert await asyncio.to_thread(query.stop) == 0
                assert b"Traceback" not in query.reported()
                await check_waits(tmp_path / "receiver", given)
    finally:
        await primary.stop()


async def check_follows(sender: Caller, asker: Caller) -> None:
    """The standby answers at its own position, and comes to the primary's."""
    await eventually(lambda: is_ready(asker))
    assert (await post(sender, 2)).status == 200
    answer = await asker.ask("/v1/wallets", at_least="straitsx:2")
    assert answer["position"]["straitsx"] == 2
    status = await asker.ask("/v1/status")
    assert status["database"]["writable"] is False
    assert any("standby" in warning for warning in status["warnings"])


async def check_waits(folder: Path, given: dict[str, str]) -> None:
    """Every other role waits until the standby is promoted, and `ledger migrate` says why not."""
    service = Service(folder, given)
    service.launch()
    try:
        await eventually(lambda: states(service, b"database_awaited", 0))
        assert b"standby" in service.reported()
        service.terminate()
        assert await asyncio.to_thread(service.wait) == 3
        assert b"Traceback" not in service.reported()
    finally:
        await asyncio.to_thread(service.clean_up)
    migrate = Service(folder, given, ("migrate",))
    migrate.launch()
    assert await asyncio.to_thread(migrate.wait) == 3
    assert b"standby" in migrate.reported()
