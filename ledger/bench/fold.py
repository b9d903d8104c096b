"""Measuring the projector: a log filled by the real append, then folded from nothing.

The yardstick is PostgreSQL copying the same log out and doing nothing with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final

from ledger import __version__, registry
from ledger.bench.machine import describe, disturbance, machine_used, tree_cpu_seconds, tree_peak
from ledger.bench.mix import mixed
from ledger.bench.reads import POLL_SECONDS, Gauge, gauge
from ledger.bench.run import (
    READY_SECONDS_MAX,
    SOURCE,
    MeasuredService,
    environment,
    served,
    server_of,
    workplace,
)
from ledger.config.settings import Settings, load
from ledger.errors import MeasurementFailed
from ledger.eventlog.appender import Appender, InFlightLimit, append_pool
from ledger.eventlog.new_event import NewEvent, callback_event
from ledger.postgres.server import EmbeddedPostgres
from ledger.service.startup import prepare
from ledger.simulator.simulate import SimulatedCallback

EVENTS: Final = 100_000
SEED: Final = 1
ROUND_EVENTS: Final = 2_000
APPEND_SECONDS_MAX: Final = 60.0
FOLD_SECONDS_MIN: Final = 60.0
EVENTS_PER_SECOND_MIN: Final = 300
"""Slower than this is taken for standing still."""

COPIES: Final = 3


async def measure_fold(events: int) -> dict[str, Any]:
    """Fill a log with `events` callbacks, fold it, and return the figures."""
    async with workplace() as folder:
        machine = describe(folder)
        environ = environment(folder)
        settings = load(environ)
        embedded = EmbeddedPostgres(settings.data_dir, pg_bin=settings.pg_bin,
                                    pg_user=settings.pg_user)  # fmt: skip
        endpoint = await embedded.start()
        await prepare(endpoint, settings)
        async with gauge(endpoint.owner_dsn, SOURCE) as look:
            machine["postgresql"] = await look.version()
            started = time.monotonic()
            await _fill(endpoint.service_dsn, settings, events)
            filled = time.monotonic() - started
            if await look.head() != events:
                raise MeasurementFailed(f"the log has {await look.head()} of {events} events")
            copies = [await look.copy_log() for _ in range(COPIES)]
            environ["LEDGER_DATABASE_URL"] = endpoint.owner_dsn
            found = await _fold(folder, environ, look, events)
            copies += [await look.copy_log() for _ in range(COPIES)]
            copied = events / median(copies)
            return {
                "bench": "fold",
                "version": __version__,
                "machine": machine,
                "log": {"events": events, "seed": SEED, "fill_seconds": round(filled, 2)},
                "fold": found
                | {
                    "copy_per_second": round(copied),
                    "ratio": round(found["events_per_second"] / copied, 4),
                },
                "disk": await look.sizes(),
                "verified": await _verify(look, events),
            }


async def _fill(dsn: str, settings: Settings, events: int) -> None:
    """Append through the receiver's own appender, in its largest batches."""
    in_flight = InFlightLimit(settings.queue_events_max, settings.queue_bytes_max)
    appender = Appender(SOURCE, settings, in_flight)
    async with append_pool(dsn) as pool:
        running = asyncio.create_task(appender.run(pool))
        try:
            new_events = _new_events(events)
            while part := list(islice(new_events, ROUND_EVENTS)):
                async with asyncio.timeout(APPEND_SECONDS_MAX):
                    for appended in await asyncio.gather(*[appender.append(each) for each in part]):
                        if not appended.fresh:
                            raise MeasurementFailed("two made-up callbacks are the same event")
        finally:
            appender.stop()
            await running


def _new_events(events: int) -> Iterator[NewEvent]:
    known = registry.load()
    for callback in mixed(SEED, events):
        yield new_event(known, callback)


def new_event(known: registry.Registry, callback: SimulatedCallback) -> NewEvent:
    """Turn a made-up callback into what the receiver would append."""
    return callback_event(
        SOURCE, known.read(SOURCE, callback.event, callback.body), callback.body,
        received_at=datetime.now(UTC), path_event=callback.event, peer="127.0.0.1",
        headers='{"Content-Type":"application/json"}',
    )  # fmt: skip


async def _fold(folder: Path, environ: dict[str, str], look: Gauge, events: int) -> dict[str, Any]:
    """Run the projector role until the books have everything; the clock starts with its books."""
    server = server_of(folder / "data")
    async with served(folder, environ, "projector") as service:
        first = await _books_made(look, service)
        projector, evidence = service.child("projector"), service.child("evidence")

        def cpu() -> list[float]:
            return [projector.cpu_seconds(), evidence.cpu_seconds(), tree_cpu_seconds(server)]

        before = cpu()
        machine, own = machine_used(), time.process_time()
        started = time.monotonic()
        seconds_max = max(FOLD_SECONDS_MIN, events / EVENTS_PER_SECOND_MIN)
        await look.caught_up(seconds_max)
        seconds = time.monotonic() - started
        used = [after - then for after, then in zip(cpu(), before, strict=True)]
        ours = sum(used) + time.process_time() - own
        return {
            **disturbance(machine, machine_used(), ours, seconds),
            "events_per_second": round((events - first) / seconds),
            "seconds": round(seconds, 2),
            "projector_cpu_seconds": round(used[0], 2),
            "evidence_cpu_seconds": round(used[1], 2),
            "postgresql_cpu_seconds": round(used[2], 2),
            "projector_peak_mib": projector.memory("VmHWM"),
            "evidence_peak_mib": evidence.memory("VmHWM"),
            "postgresql_largest_peak_mib": tree_peak(server),
        }


async def _books_made(look: Gauge, service: MeasuredService) -> int:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while (found := await look.checkpoint()) is None:
        if time.monotonic() > deadline or not service.process.alive:
            raise MeasurementFailed(f"the projector made no books: {service.end_of_log()}")
        await asyncio.sleep(POLL_SECONDS)
    return found


async def _verify(look: Gauge, events: int) -> dict[str, Any]:
    sound = await look.books_are_sound()
    at = await look.checkpoint()
    return {
        "in_books": at,
        **sound,
        "ok": at == events and not sound["parked"] and not sound["unbalanced_currencies"],
    }
