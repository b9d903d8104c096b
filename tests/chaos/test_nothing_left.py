"""Law: no process outlives its supervisor, whatever else dies at that moment."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import aiohttp
import orjson
import pytest

from tests import processes
from tests.asking import payment
from tests.conftest import eventually
from tests.service import Service, calling

LEFT_SECONDS_MAX = 15.0
MOMENT_SECONDS_MAX = 4.0
BETWEEN_SECONDS_MAX = 1.5
SENDERS = 4
STARTING = 0.25
"""Share of rounds that strike before the service is ready."""


async def load(service: Service, numbers: Iterator[int]) -> None:
    """Post callbacks for as long as there is someone to take them."""
    with suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with calling(service.url) as caller:
            while True:
                await caller.post("straitsx", orjson.dumps(payment(next(numbers))))


async def kill_database(service: Service) -> None:
    """Kill the postmaster that there is, if there is one."""
    with suppress(OSError, ValueError):
        processes.kill(service.postmaster())


async def strike(folder: Path, rng: random.Random, *, supervisor_first: bool) -> None:
    """Start a service, and kill its supervisor and its database at random moments."""
    service = Service(folder)
    senders: list[asyncio.Task[None]] = []
    if rng.random() < STARTING:
        service.launch()
    else:
        service.start()
        numbers = count(1)
        senders = [asyncio.create_task(load(service, numbers)) for _ in range(SENDERS)]
    try:
        await asyncio.sleep(rng.random() * MOMENT_SECONDS_MAX)
        if not supervisor_first:
            await kill_database(service)
            await asyncio.sleep(rng.random() * BETWEEN_SECONDS_MAX)
        assert processes.kill(service.running.pid)
        await asyncio.to_thread(service.running.wait)
        if supervisor_first:
            await asyncio.sleep(rng.random() * BETWEEN_SECONDS_MAX)
        # The supervisor may have started the database again before it died.
        await kill_database(service)

        async def none_left() -> bool:
            await kill_database(service)
            return not processes.of_folder(folder)

        try:
            await eventually(none_left, LEFT_SECONDS_MAX)
        except pytest.fail.Exception:
            left = processes.of_folder(folder)
            raise AssertionError(f"left: {left}\n{service.text()[-5000:]}") from None
    finally:
        for task in senders:
            task.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        for pid in processes.of_folder(folder):
            processes.kill(pid)


async def rounds(tmp_path: Path, number: int) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(2**32))
    print(f"CHAOS_SEED={seed}")
    rng = random.Random(seed)
    for place in range(number):
        folder = tmp_path / f"round-{place}"
        await strike(folder, rng, supervisor_first=place % 2 == 0)


@pytest.mark.timeout(240)
async def test_no_process_outlives_its_supervisor(tmp_path: Path) -> None:
    await rounds(tmp_path, 3)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
async def test_no_process_outlives_its_supervisor_in_fifty_rounds(tmp_path: Path) -> None:
    await rounds(tmp_path, 50)
