"""`ledger bench`: the whole service measured on this machine, against what one would write instead.

The service and the baselines (`ledger.bench.baseline`) take turns under the same load generator, so
that a machine that slows down shows itself in both.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from statistics import mean, median
from typing import Any, Final

import msgspec
import orjson

from ledger import __version__
from ledger.bench import report as bench_report
from ledger.bench.baseline import Ports, Setup
from ledger.bench.fold import EVENTS, measure_fold
from ledger.bench.load import LOST, Figures
from ledger.bench.machine import (
    Process,
    describe,
    disturbance,
    machine_used,
    percentile,
    tree_cpu_seconds,
    tree_peak,
)
from ledger.bench.query import measure_query
from ledger.bench.reads import Visibility, gauge
from ledger.bench.rebuild import measure_rebuild
from ledger.bench.run import (
    SOURCE,
    TOOL_SECONDS_MAX,
    environment,
    measured,
    served,
    tool,
    workplace,
)
from ledger.bench.stage import CONNECTIONS, PATH, Stage
from ledger.bench.statements.imports import measure_import
from ledger.errors import MeasurementFailed

TURNS: Final = 5
"""Turns of the service and of each baseline that writes; the no-op handler has one more."""

TURN_SHARE: Final = 0.25
"""A turn's length against that of the half-load part."""

FOLD_SHARE: Final = 1.5
"""Length of receiving a backlog to fold, against a turn: a short one shows only its start."""

WARM_SECONDS: Final = 1.0
CATCH_UP_SECONDS_MAX: Final = 30.0
MEMORY_SECONDS: Final = 0.25
SAMPLES_MAX: Final = 50_000
PARTS: Final = ("web", "projector", "evidence", "postgresql", "generator")
"""What a callback costs processor time in."""
OK: Final = 0
PROBLEM: Final = 1


def ingest(*, seconds: float, json: bool) -> int:
    """Measure receiving; `seconds` is the length of the half-load part; turns last a quarter of it.

    Returns 0, or 1 when the log does not hold what was answered. Raises MeasurementFailed.
    """
    found = measured(lambda: _ingest(seconds))
    _print(found, json=json)
    return OK if found["verified"]["ok"] else PROBLEM


def fold(*, events: int = EVENTS, json: bool) -> int:
    """Measure folding a log of `events` callbacks. Returns 0, or 1 when the books are wrong."""
    found = measured(lambda: measure_fold(events))
    _print(found, json=json)
    return OK if found["verified"]["ok"] else PROBLEM


def rebuild(*, events: int, processes: int, json: bool) -> int:
    """Measure rebuilding books of `events` callbacks. Returns 0, or 1 when they differ."""
    found = measured(lambda: measure_rebuild(events, processes))
    _print(found, json=json)
    return OK if found["verified"]["ok"] else PROBLEM


def query(*, events: int, customers: int, processes: int, requests: int, json: bool) -> int:
    """Measure answers on books of so many customers and callbacks.

    Returns 0, or 1 when the books are wrong.
    """
    found = measured(lambda: measure_query(events, customers, processes, requests))
    _print(found, json=json)
    return OK if found["verified"]["ok"] else PROBLEM


def import_statements(*, lines: int, formats: Sequence[str], json: bool) -> int:
    """Measure importing statements of so many lines. Returns 0. Raises MeasurementFailed."""
    _print(measured(lambda: measure_import(lines, formats)), json=json)
    return OK


def _print(found: Mapping[str, Any], *, json: bool) -> None:
    if json:
        sys.stdout.write(orjson.dumps(found).decode() + "\n")
    else:
        bench_report.show(found)


async def _ingest(seconds: float) -> dict[str, Any]:
    async with workplace() as folder:
        machine = describe(folder)
        secret = secrets.token_hex(32)
        environ = environment(folder, SECRET_STRAITSX=secret)
        async with (
            served(folder, environ, "all") as service,
            tool(folder, "ledger.bench.baseline") as baseline,
            tool(folder, "ledger.bench.load") as load,
        ):
            port = await service.port()
            setup = msgspec.json.encode(Setup(PATH, secret, service.dsn))
            line = await baseline.ask(setup, TOOL_SECONDS_MAX)
            others = msgspec.json.decode(line, type=Ports)
            async with gauge(service.dsn, SOURCE) as look:
                stage = Stage(service, load, baseline, look, port, others, secret)
                machine["postgresql"] = await look.version()
                return {
                    "bench": "ingest",
                    "version": __version__,
                    "seconds": seconds,
                    "machine": machine,
                    **await _measure(stage, seconds),
                }


async def _measure(stage: Stage, seconds: float) -> dict[str, Any]:
    for port in (*msgspec.structs.astuple(stage.others), stage.port):
        await stage.phase(port, min(WARM_SECONDS, seconds))
    await stage.look.caught_up(CATCH_UP_SECONDS_MAX)
    before, ours, started = machine_used(), _ours(stage), time.monotonic()
    async with _watching_memory(stage):
        saturation = await _saturate(stage, seconds * TURN_SHARE)
        half = await _half_load(stage, seconds, saturation["ledger_per_second"] / 2)
        await stage.look.caught_up(CATCH_UP_SECONDS_MAX)
    disturbing = disturbance(
        before, machine_used(), _ours(stage) - ours, time.monotonic() - started
    )
    sizes = await stage.look.sizes()
    return {
        **disturbing,
        "load": {"connections": CONNECTIONS, "body_bytes": sizes["body_bytes_per_event"]},
        "saturation": saturation,
        "half_load": half,
        "memory": _memory(stage),
        "disk": sizes,
        "verified": await _verify(stage, sizes["events"]),
    }


async def _saturate(stage: Stage, seconds: float) -> dict[str, Any]:
    """Let service and baselines take turns: as many callbacks as answers come."""
    noop = [await _turn(stage, stage.others.noop, seconds)]
    turns: dict[str, list[Turn]] = {"insert": [], "ledger": [], "balances": []}
    behind: list[int] = []
    waits: list[float] = []
    folds: list[Folded] = []
    for _ in range(TURNS):
        turns["insert"].append(await _turn(stage, stage.others.insert, seconds))
        turns["ledger"].append(await _turn(stage, stage.port, seconds))
        behind.append(await stage.look.head() - (await stage.look.checkpoint() or 0))
        waits.append(await stage.look.caught_up(CATCH_UP_SECONDS_MAX))
        turns["balances"].append(await _turn(stage, stage.others.balances, seconds))
        noop.append(await _turn(stage, stage.others.noop, seconds))
        folds.append(await _fold(stage, seconds * FOLD_SHARE))
    ours = turns["ledger"]
    rates = [turn.rate for turn in ours]
    return {
        **_rates("ledger", rates),
        **_rates("noop", [turn.rate for turn in noop]),
        **_ratios("", rates, [turn.rate for turn in noop]),
        **_beside("insert", rates, turns["insert"]),
        **_beside("balances", rates, turns["balances"]),
        **_rates("fold", [turn.rate for turn in folds]),
        **_ratios("fold_", [turn.rate for turn in folds], rates),
        **_latencies("ledger", ours),
        **_latencies("noop", noop),
        **_latencies("insert", turns["insert"]),
        **_latencies("balances", turns["balances"]),
        "books_behind_events": max(behind),
        "books_catch_up_seconds": round(max(waits), 3),
        "cpu_us_per_callback": _cpu_per_answer(ours, PARTS),
        "noop_cpu_us_per_request": _cpu_per_answer(noop, ("baseline", "generator")),
        "service_cpu_us_per_noop_request": sum(_cpu_per_answer(noop, PARTS[:-1]).values()),
    }


def _rates(name: str, rates: Sequence[float]) -> dict[str, Any]:
    """Return the median rate of some turns, and the rate of each."""
    return {
        f"{name}_per_second": round(median(rates)),
        f"{name}_turns": [round(rate) for rate in rates],
    }


def _ratios(name: str, rates: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
    """Return the median ratio of some turns to those around them, and the ratio of each."""
    ratios = against(rates, others)
    return {f"{name}ratio": median(ratios), f"{name}ratio_turns": ratios}


def _beside(name: str, rates: Sequence[float], turns: Sequence[Turn]) -> dict[str, Any]:
    """Return the rates of a baseline that writes, and how many times faster the service was.

    Raises MeasurementFailed when a turn gave no answer.
    """
    others = [turn.rate for turn in turns]
    if not all(others):
        raise MeasurementFailed("nothing was answered in a turn: measure more seconds")
    ratios = [round(rate / other, 2) for rate, other in zip(rates, others, strict=True)]
    return {
        **_rates(name, others),
        f"{name}_ratio": median(ratios),
        f"{name}_ratio_turns": ratios,
    }


def against(rates: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return each turn's rate against the mean of the other kind's just before and after it.

    A machine changes its speed from turn to turn, so each has its own measure. Without one after
    it, the last is compared with the one before. Raises MeasurementFailed.
    """
    if not all(others):
        raise MeasurementFailed("nothing was answered in a turn: measure more seconds")
    return [round(rate / mean(others[n : n + 2]), 3) for n, rate in enumerate(rates)]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn at saturation, and the CPU seconds that it took, by part."""

    figures: Figures
    cpu_seconds: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.figures.counted / self.figures.seconds


async def _turn(stage: Stage, port: int, seconds: float) -> Turn:
    await stage.supply(port, seconds)
    before = _cpu(stage)
    figures = await stage.phase(port, seconds, keep_every=10)
    return Turn(figures, _since(stage, before))


@dataclass(frozen=True, slots=True)
class Folded:
    """A backlog that was folded with nothing else to do."""

    events: int
    seconds: float

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


async def _fold(stage: Stage, seconds: float) -> Folded:
    """Receive for a turn while the projector is held, then let it fold what came."""
    await stage.supply(stage.port, seconds)
    with _held(stage.service.child("projector")):
        await stage.phase(stage.port, seconds, keep_every=10)
        events = await stage.look.head() - (await stage.look.checkpoint() or 0)
    seconds_max = max(CATCH_UP_SECONDS_MAX, 10 * seconds)
    return Folded(events, await stage.look.caught_up(seconds_max))


@contextmanager
def _held(process: Process) -> Iterator[None]:
    """Stop a process for the length of a block."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def _since(stage: Stage, before: Mapping[str, float]) -> dict[str, float]:
    return {name: spent - before[name] for name, spent in _cpu(stage).items()}


def _cpu_per_answer(turns: list[Turn], names: tuple[str, ...]) -> dict[str, int]:
    """Return CPU time per answer in µs, by part; the scheduler's ticks make it a coarse figure."""
    answers = max(1, sum(sum(turn.figures.answers.values()) for turn in turns))
    return {
        name: round(sum(turn.cpu_seconds[name] for turn in turns) / answers * 1e6) for name in names
    }


def _latencies(name: str, turns: list[Turn]) -> dict[str, float | None]:
    times = [latency for turn in turns for latency in turn.figures.latencies]
    return {f"{name}_p50_ms": milliseconds(times, 0.5), f"{name}_p99_ms": milliseconds(times, 0.99)}


def milliseconds(times: list[float], share: float) -> float | None:
    """Return a percentile of times in seconds as milliseconds; None without times."""
    found = percentile(times, share)
    return None if found is None else round(found * 1_000, 2)


def _cpu(stage: Stage) -> dict[str, float]:
    """Return the CPU seconds used so far, by part."""
    return {
        "web": stage.service.child("all").cpu_seconds(),
        "projector": stage.service.child("projector").cpu_seconds(),
        "evidence": stage.service.child("evidence").cpu_seconds(),
        "postgresql": tree_cpu_seconds(stage.service.postgres),
        "generator": stage.load.held.cpu_seconds(),
        "baseline": stage.baseline.held.cpu_seconds(),
    }


def _ours(stage: Stage) -> float:
    """Return the CPU seconds that this measurement has used so far."""
    return sum(_cpu(stage).values()) + time.process_time()


async def _half_load(stage: Stage, seconds: float, rate: float) -> dict[str, Any]:
    """Offer a fixed rate by the clock; a late answer does not make the next question later."""
    keep_every = max(1, int(rate * seconds / SAMPLES_MAX))
    seen = Visibility()
    await stage.supply(stage.port, seconds, rate)
    before = _cpu(stage)
    async with gauge(stage.service.dsn, SOURCE) as look:
        watching = asyncio.create_task(seen.watch(look))
        try:
            figures = await stage.phase(stage.port, seconds, rate=rate, keep_every=keep_every)
            await stage.look.caught_up(CATCH_UP_SECONDS_MAX)
            turn = Turn(figures, _since(stage, before))
            # One more look, after the books are known to be complete, closes the record.
            seen.saw(time.monotonic(), await stage.look.head())
        finally:
            watching.cancel()
            await asyncio.wait([watching])
    lags = seen.lags(figures.acks)
    return {
        "offered_per_second": round(rate),
        "answered_per_second": round(figures.counted / figures.seconds),
        "p50_ms": milliseconds(figures.latencies, 0.5),
        "p99_ms": milliseconds(figures.latencies, 0.99),
        "visible_p50_ms": milliseconds(lags, 0.5),
        "visible_p99_ms": milliseconds(lags, 0.99),
        "samples": len(lags),
        "cpu_us_per_callback": _cpu_per_answer([turn], PARTS),
    }


@asynccontextmanager
async def _watching_memory(stage: Stage) -> AsyncIterator[None]:
    web = stage.service.child("all")

    async def look() -> None:
        while True:
            stage.rss.append(web.memory("VmRSS") or 0.0)
            await asyncio.sleep(MEMORY_SECONDS)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _memory(stage: Stage) -> dict[str, Any]:
    rss = stage.rss
    first, middle, last = rss[0], rss[len(rss) // 2], rss[-1]
    service = stage.service
    peaks: Mapping[str, Process] = {
        "supervisor": service.process,
        "web": service.child("all"),
        "projector": service.child("projector"),
        "evidence": service.child("evidence"),
        "generator": stage.load.held,
    }
    return {
        "web_start_mib": first,
        "web_middle_mib": middle,
        "web_end_mib": last,
        "peak_mib": {name: process.memory("VmHWM") for name, process in peaks.items()}
        | {"postgresql_largest": tree_peak(service.postgres)},
    }


async def _verify(stage: Stage, events: int) -> dict[str, Any]:
    """Compare the log with the answers: what was not answered 200 may or may not be in it."""
    accepted = stage.answers["200"]
    unknown = sum(n for status, n in stage.answers.items() if status == LOST or status[0] == "5")
    sound = await stage.look.books_are_sound()
    return {
        "answers": dict(stage.answers),
        "accepted": accepted,
        "events": events,
        "in_books": await stage.look.checkpoint(),
        **sound,
        "ok": accepted <= events <= accepted + unknown
        and not sound["parked"] and not sound["unbalanced_currencies"],
    }  # fmt: skip
