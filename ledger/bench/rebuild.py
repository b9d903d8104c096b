"""`ledger bench rebuild`: a log of any length folded again, against a plain COPY of it.

The live books are made by one load, then the real command rebuilds them beside a running service
and compares every row; meanwhile callbacks are answered at a fixed rate.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
import orjson

from ledger import __version__, registry
from ledger.bench import load as bench_load
from ledger.bench.fill import fill
from ledger.bench.machine import describe, percentile, tree_peak
from ledger.bench.people import EVENTS_EACH
from ledger.bench.reads import Gauge, gauge
from ledger.bench.run import (
    SOURCE,
    MeasuredService,
    Tool,
    environment,
    served,
    server_of,
    tool,
    workplace,
)
from ledger.books.fold_version import current_version
from ledger.config.settings import Settings, load
from ledger.database import connection as database
from ledger.errors import MeasurementFailed
from ledger.eventlog.sources import load_terms
from ledger.postgres.server import EmbeddedPostgres
from ledger.rebuild.coordinator import build_generation
from ledger.rebuild.swap import index_balances
from ledger.service.startup import prepare

COPIES: Final = 3
CONNECTIONS: Final = 8
RATE: Final = 100.0
"""Callbacks per second while the books are rebuilt: some traffic, not the most."""

PHASE_SECONDS: Final = 5.0
WARM_SECONDS: Final = 1.0
ANSWER_SECONDS_MAX: Final = 60.0
COMMAND_SECONDS_MAX: Final = 24 * 3600.0
PATH: Final = f"/callbacks/{SOURCE}"
MAKE_LIVE: Final = """
UPDATE ledger.generations SET state = 'live', version = $2 WHERE generation = $1
"""


@dataclass(frozen=True, slots=True)
class Stand:
    """A filled log with live books, before anything is measured."""

    folder: Path
    environ: dict[str, str]
    dsn: str
    settings: Settings
    look: Gauge
    machine: dict[str, Any]
    start: datetime
    """The time before the first event; each position is a millisecond later."""
    fill_seconds: float
    first_per_second: float
    generation: int


@asynccontextmanager
async def standing(events: int, processes: int, customers: int = 0) -> AsyncIterator[Stand]:
    """Fill a log and load its books, for the length of a block."""
    async with workplace() as folder:
        machine = describe(folder)
        secret = secrets.token_hex(32)
        environ = environment(folder, SECRET_STRAITSX=secret)
        settings = load(environ)
        embedded = EmbeddedPostgres(settings.data_dir, pg_bin=settings.pg_bin,
                                    pg_user=settings.pg_user)  # fmt: skip
        endpoint = await embedded.start()
        await prepare(endpoint, settings)
        dsn = endpoint.owner_dsn
        async with gauge(dsn, SOURCE) as look:
            machine["postgresql"] = await look.version()
            began = time.monotonic()
            start = await fill(folder, dsn, events, customers)
            filled = time.monotonic() - began
            total = events + customers * EVENTS_EACH
            generation, rate = await _first_books(dsn, settings, total, processes)
            await look.checkpoint()
            environ["LEDGER_DATABASE_URL"] = dsn
            yield Stand(
                folder, environ, dsn, settings, look, machine, start, round(filled, 2), rate,
                generation,
            )  # fmt: skip


async def _first_books(
    dsn: str, settings: Settings, events: int, processes: int
) -> tuple[int, float]:
    """Load the first books and make them live; return their number and events per second."""
    async with database.connected(dsn, seconds_max=COMMAND_SECONDS_MAX) as connection:
        terms = await load_terms(connection)
        known = registry.load()
        began = time.monotonic()
        generation, load_ = await build_generation(
            dsn, settings, known, "bench", {SOURCE: events}, processes=processes
        )
        rate = load_.events / (time.monotonic() - began)
        await index_balances(dsn, generation, terms)
        version = current_version(terms)
        await connection.execute(MAKE_LIVE, generation, version)
    return generation, rate


async def measure_rebuild(events: int, processes: int) -> dict[str, Any]:
    """Rebuild books of `events` callbacks and return the figures."""
    async with standing(events, processes) as stand:
        look = stand.look
        copies = [await look.copy_log() for _ in range(COPIES)]
        quiet = await verify_only(stand, processes)
        copies += [await look.copy_log() for _ in range(COPIES)]
        copied = events / median(copies)
        peak = tree_peak(server_of(stand.folder / "data"))
        return {
            "bench": "rebuild",
            "version": __version__,
            "machine": stand.machine,
            "log": {"events": events, "fill_seconds": stand.fill_seconds},
            "rebuild": {
                "processes": processes,
                "events_per_second": quiet["events_per_second"],
                "first_per_second": round(stand.first_per_second),
                "seconds": quiet["seconds"],
                "stages": quiet["stages"],
                "us_per_event": _each(quiet["stages"], events),
                "peak_mib": quiet["peak_mib"],
                "postgresql_largest_peak_mib": peak,
                "copy_per_second": round(copied),
                "ratio": round(quiet["events_per_second"] / copied, 4),
            },
            "traffic": await _traffic(stand, processes),
            "disk": await look.sizes(),
            "verified": {
                "differences": len(quiet["differences"]),
                **await look.books_are_sound(),
                "ok": quiet["verdict"] == "equal",
            },
        }


def _each(stages: Mapping[str, float], events: int) -> dict[str, float]:
    return {stage: round(seconds / events * 1e6, 2) for stage, seconds in stages.items()}


async def verify_only(stand: Stand, processes: int) -> dict[str, Any]:
    """Run `ledger rebuild --verify-only` as a process of its own; return what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ledger", "rebuild", "--verify-only", "--json",
        "--processes", str(processes),
        env=stand.environ, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if not out:
        raise MeasurementFailed(f"the rebuild printed nothing: {err.decode('utf-8', 'replace')}")
    found = orjson.loads(out)
    assert isinstance(found, dict)
    return found


async def _traffic(stand: Stand, processes: int) -> dict[str, Any]:
    """Answer callbacks at a fixed rate, first in peace, then while the books are rebuilt."""
    async with (
        served(stand.folder, stand.environ, "all") as service,
        tool(stand.folder, "ledger.bench.load") as generator,
    ):
        port = await service.port()
        await _phase(service, generator, port, WARM_SECONDS)
        before = [await _phase(service, generator, port, PHASE_SECONDS)]
        work = asyncio.create_task(verify_only(stand, processes))
        during = []
        try:
            while not work.done():
                during.append(await _phase(service, generator, port, PHASE_SECONDS / 5))
            outcome = await work
        finally:
            work.cancel()
        return {
            "offered_per_second": RATE,
            "peace": _answers(before),
            "rebuilding": _answers(during),
            "differences": len(outcome["differences"]),
        }


async def _phase(
    service: MeasuredService, generator: Tool, port: int, seconds: float
) -> bench_load.Figures:
    secret = service.environ["LEDGER_SECRET_STRAITSX"]
    command = bench_load.LoadCommand(port, PATH, secret, seconds, CONNECTIONS, RATE)
    line = await generator.ask(msgspec.json.encode(command), seconds + ANSWER_SECONDS_MAX)
    return msgspec.json.decode(line, type=bench_load.Figures)


def _answers(phases: Sequence[bench_load.Figures]) -> dict[str, Any]:
    times = [latency for phase in phases for latency in phase.latencies]
    counts: Counter[str] = Counter()
    for phase in phases:
        counts.update(phase.answers)
    return {
        "answers": dict(counts),
        "p50_ms": _milliseconds(times, 0.5),
        "p99_ms": _milliseconds(times, 0.99),
    }


def _milliseconds(times: list[float], share: float) -> float | None:
    found = percentile(times, share)
    return None if found is None else round(found * 1_000, 2)
