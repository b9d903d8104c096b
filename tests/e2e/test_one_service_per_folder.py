"""Promise: a data folder has one service; the second one says which process has it, and ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson

from tests.asking import payment
from tests.conftest import Database, eventually
from tests.service import Service, calling, serving


async def ended(folder: Path, *arguments: str, **environ: str) -> Service:
    """Run a command to its end."""
    service = Service(folder, environ, arguments)
    service.launch()
    try:
        await asyncio.to_thread(service.wait)
    finally:
        await asyncio.to_thread(service.clean_up)
    return service


async def check_refused(folder: Path, first: Service, *arguments: str, **environ: str) -> None:
    second = await ended(folder, *arguments, LEDGER_DATA_DIR=str(first.data_dir), **environ)
    (line,) = second.text().splitlines()
    assert second.running.returncode == 3
    assert f"process {first.running.pid};" in line
    assert "LEDGER_DATA_DIR" in line


async def test_a_second_service_leaves_the_first_ones_database_alone(tmp_path: Path) -> None:
    with serving(tmp_path / "first") as first:
        postmaster = first.postmaster()
        for number, role in enumerate(("all", "receiver", "projector", "query")):
            await check_refused(tmp_path / f"second-{number}", first, "serve", "--role", role)
        guest = await ended(tmp_path / "guest", "migrate", LEDGER_DATA_DIR=str(first.data_dir))
        assert (guest.running.returncode, "up to date" in guest.text()) == (0, True)
        async with calling(first.url) as caller:
            assert (await caller.report("straitsx", orjson.dumps(payment(1))))["position"] == 1
        assert first.postmaster() == postmaster


async def test_a_guest_leaves_the_database_to_a_service_that_came_meanwhile(
    tmp_path: Path,
) -> None:
    first = Service(tmp_path / "first")
    try:
        for _ in range(3):
            guest = Service(
                tmp_path / "guest", {"LEDGER_DATA_DIR": str(first.data_dir)}, ("migrate",)
            )
            guest.launch()
            first.start()
            assert await asyncio.to_thread(guest.wait) == 0
            async with calling(first.url) as caller:
                assert (await caller.request("GET", "/readyz")).status == 200
            assert "postgres_died" not in first.text()
            assert await asyncio.to_thread(first.stop) == 0
    finally:
        await asyncio.to_thread(first.clean_up)


async def test_keys_and_checkpoints_have_one_service_too(
    database: Database, tmp_path: Path
) -> None:
    given = {"LEDGER_DATABASE_URL": database.service_dsn}
    with serving(tmp_path / "first", **given) as first:
        await check_refused(tmp_path / "second", first, "serve", **given)
        await check_refused(tmp_path / "third", first, "serve", "--role", "projector", **given)
        shared = {**given, "LEDGER_DATA_DIR": str(first.data_dir)}
        with serving(tmp_path / "query", "serve", "--role", "query", **shared):
            pass


async def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    with serving(tmp_path / "first") as first:
        first.running.kill()
        await asyncio.to_thread(first.wait)
        first.start()

        async def is_ready() -> bool:
            async with calling(first.url) as caller:
                return (await caller.request("GET", "/readyz")).status == 200

        await eventually(is_ready)
