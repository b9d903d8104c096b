"""Promise: without its database the service says so, never "taken", and heals without a restart."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from ledger.config.settings import load
from ledger.postgres import cluster as postgres_cluster
from ledger.postgres.server import EmbeddedPostgres
from ledger.service.startup import prepare
from tests.asking import payment
from tests.conftest import eventually
from tests.service import PG_BIN, Caller, Reply, Service, calling, serving

ANSWER_SECONDS_MAX = 5.0
RECOVERY_SECONDS_MAX = 2.0
SENDERS = 20


async def started(folder: Path) -> tuple[EmbeddedPostgres, str]:
    """Start a PostgreSQL that the service does not look after; return it and its DSN."""
    server = EmbeddedPostgres(folder, pg_bin=PG_BIN)
    endpoint = await server.start()
    await prepare(endpoint, replace(load({}), data_dir=folder))
    return server, endpoint.service_dsn


def body(number: int) -> bytes:
    return orjson.dumps(payment(number))


async def timed(caller: Caller, number: int) -> tuple[Reply, float]:
    """Post a payment; return the answer and after how many seconds it came."""
    began = time.monotonic()
    reply = await caller.post("straitsx", body(number))
    return reply, time.monotonic() - began


async def check_unavailable(caller: Caller, first: int, rounds: int = 1) -> None:
    """Every callback is answered 503 in time, every question too, and health tells the truth."""
    for _ in range(rounds):
        answers = await asyncio.gather(*(timed(caller, first + n) for n in range(SENDERS)))
        for reply, seconds in answers:
            assert reply.status == 503, reply
            assert seconds < ANSWER_SECONDS_MAX
            assert int(reply.headers["Retry-After"]) > 0
            assert reply.headers["Content-Type"].startswith("application/json")
            assert reply.json["status"] == "unavailable"
    ready = await caller.request("GET", "/readyz")
    assert (ready.status, ready.json["status"]) == (503, "not ready")
    assert (await caller.request("GET", "/healthz")).status == 200
    began = time.monotonic()
    assert (await caller.request("GET", "/v1/wallets")).status == 503
    assert time.monotonic() - began < 2 * ANSWER_SECONDS_MAX


async def check_recovers(caller: Caller, number: int) -> None:
    """A callback is taken soon, the service is ready, and the books follow."""
    began = time.monotonic()

    async def taken() -> Reply | None:
        reply = await caller.post("straitsx", body(number))
        return reply if reply.status == 200 else None

    reply = await eventually(taken, 10)
    assert time.monotonic() - began < RECOVERY_SECONDS_MAX
    assert (await caller.request("GET", "/readyz")).status == 200
    answer = await caller.ask("/v1/wallets", at_least=reply.headers["Ledger-Position"])
    assert answer["position"]["straitsx"] >= reply.json["position"]


async def resend(caller: Caller, first: int) -> list[Reply]:
    """Send again what was answered 503; all of it is taken now."""
    replies = [await caller.post("straitsx", body(first + n)) for n in range(SENDERS)]
    assert {reply.status for reply in replies} == {200}
    return replies


async def check_dense(caller: Caller, payments: int) -> None:
    """Each payment has made one event, and its money is there once."""
    rows = await caller.rows("/v1/events", "events", source="straitsx", limit=500)
    assert [row["position"] for row in reversed(rows)] == list(range(1, payments + 1))
    assert len({row["resource_id"] for row in rows}) == payments
    wallets = await caller.ask("/v1/wallets", at_least=f"straitsx:{payments}")
    assert [w["available"] for w in wallets["wallets"]] == [f"{9.5 * payments:g}"]


async def test_a_stopped_database_is_503_and_heals_without_a_restart(tmp_path: Path) -> None:
    server, dsn = await started(tmp_path / "cluster")
    try:
        with serving(tmp_path / "service", LEDGER_DATABASE_URL=dsn) as service:
            pids = service.pids("all") + service.pids("projector")
            async with calling(service.url) as caller:
                assert (await caller.report("straitsx", body(1)))["position"] == 1
                await server.stop()
                await check_unavailable(caller, 2, rounds=3)
                await server.start()
                await check_recovers(caller, 2)
                await resend(caller, 2)
                await check_dense(caller, 1 + SENDERS)
                failed = await eventually(lambda: failures(caller))
                assert failed == {(503, None)}
            assert service.pids("all") + service.pids("projector") == pids
            assert await asyncio.to_thread(service.stop) == 0
    finally:
        await server.stop()


async def failures(caller: Caller) -> set[tuple[int, int | None]]:
    rows = await caller.rows("/v1/deliveries", "deliveries", outcome="failed")
    return {(row["answer"], row["position"]) for row in rows}


def processes(postmaster: int) -> list[int]:
    """Return the ids of a PostgreSQL server's processes."""
    found = [postmaster]
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == postmaster:
                found.append(int(entry.name))
    return found


@contextmanager
def paused(postmaster: int) -> Iterator[None]:
    """Stop a server's processes where they stand, for the length of a block."""
    pids = processes(postmaster)
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def test_a_database_that_hangs_is_503_in_time_and_heals(tmp_path: Path) -> None:
    server, dsn = await started(tmp_path / "cluster")
    try:
        with serving(tmp_path / "service", LEDGER_DATABASE_URL=dsn) as service:
            async with calling(service.url) as caller:
                assert (await caller.report("straitsx", body(1)))["position"] == 1
                assert server.pid is not None
                with paused(server.pid):
                    await check_unavailable(caller, 2)
                await check_recovers(caller, 2)
                replies = await resend(caller, 2)
                assert len({reply.json["position"] for reply in replies}) == SENDERS
                await check_dense(caller, 1 + SENDERS)
            assert await asyncio.to_thread(service.stop) == 0
    finally:
        await server.stop()


async def test_a_service_started_before_its_database_waits_for_it(tmp_path: Path) -> None:
    server, dsn = await started(tmp_path / "cluster")
    try:
        await server.stop()
        service = Service(tmp_path / "service", {"LEDGER_DATABASE_URL": dsn})
        try:
            service.launch()
            await asyncio.to_thread(
                service.until, lambda: b"database_awaited" in service.reported(), "database_awaited"
            )
            await server.start()
            await asyncio.to_thread(
                service.until, lambda: b"is ready on" in service.reported(), "ready line"
            )
            assert await asyncio.to_thread(service.stop) == 0
        finally:
            await asyncio.to_thread(service.clean_up)
    finally:
        await server.stop()


async def test_a_service_that_waits_for_its_database_stops_when_asked(tmp_path: Path) -> None:
    server, dsn = await started(tmp_path / "cluster")
    await server.stop()
    service = Service(tmp_path / "service", {"LEDGER_DATABASE_URL": dsn})
    try:
        service.launch()
        await asyncio.to_thread(
            service.until, lambda: b"database_awaited" in service.reported(), "database_awaited"
        )
        service.terminate()
        assert await asyncio.to_thread(service.wait, 10) in (0, 3)
        assert "Traceback" not in service.text()
    finally:
        await asyncio.to_thread(service.clean_up)


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_an_unsafe_database_is_refused_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    server = EmbeddedPostgres(tmp_path / "cluster", pg_bin=PG_BIN)
    monkeypatch.setitem(postgres_cluster.GUARANTEES, setting, "off")
    endpoint = await server.start()
    try:
        service = Service(tmp_path / "service", {"LEDGER_DATABASE_URL": endpoint.owner_dsn})
        service.launch()
        try:
            assert await asyncio.to_thread(service.wait, 20) == 3
        finally:
            await asyncio.to_thread(service.clean_up)
        (line,) = service.text().splitlines()
        assert f"{setting} is off" in line
        assert f"set {setting} = on" in line
    finally:
        await server.stop()


async def test_a_database_that_becomes_unsafe_takes_nothing_until_it_is_safe_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, dsn = await started(tmp_path / "cluster")
    try:
        with serving(tmp_path / "service", LEDGER_DATABASE_URL=dsn) as service:
            async with calling(service.url) as caller:
                assert (await caller.report("straitsx", body(1)))["position"] == 1
                await server.stop()
                with monkeypatch.context() as careless:
                    careless.setitem(postgres_cluster.GUARANTEES, "fsync", "off")
                    await server.start()
                await check_unsafe(caller)
                await server.stop()
                await server.start()
                await check_recovers(caller, 2)
                await resend(caller, 2)
                await check_dense(caller, 1 + SENDERS)
    finally:
        await server.stop()


async def check_unsafe(caller: Caller) -> None:
    """Nothing is taken, and health and status say why."""
    for n in range(SENDERS):
        reply, _ = await timed(caller, 2 + n)
        assert reply.status == 503, reply
    ready = await caller.request("GET", "/readyz")
    reason = "a commit is not durable on this database; /v1/status says why"
    assert (ready.status, ready.json["reason"]) == (503, reason)
    status = await caller.ask("/v1/status")
    assert status["database"]["safe"] is False
    assert any("fsync is off" in warning for warning in status["warnings"])
