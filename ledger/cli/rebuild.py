"""`ledger rebuild`: runs a rebuild from the command line and prints its result.

Exit status: 0 the books equal the log's fold (or the swap was done), 1 they differ, 3 it could
not be finished; run again, it goes on.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import asyncpg
import orjson

from ledger.books.compare import DIFFERENCES_MAX
from ledger.config.settings import Settings
from ledger.database.errors import CONNECTION_LOST
from ledger.errors import DatabaseUnavailable, InvalidRequest, NoBooks
from ledger.eventlog.sources import changed_terms
from ledger.postgres.attach import database_dsn
from ledger.rebuild.coordinator import PROCESSES
from ledger.rebuild.swap import Rebuild, SourceComparison, exclusive_rebuild
from ledger.registry import load as load_registry
from ledger.runtime import logs
from ledger.terminal import exit_status as exits
from ledger.terminal import tables
from ledger.terminal.progress import Progress, Stages

OK: Final = 0
PROBLEM: Final = 1
POSITIONS_SHOWN: Final = 5
VALUE_MAX: Final = 60
"""Characters shown of a value that differs; --json has all of it."""

PROCESSES_MAX: Final = 64

Then = Literal["kept", "dropped", "swapped", "refused"]
"""What became of the rebuilt books: kept for a later --swap, or why not."""


@dataclass(frozen=True, slots=True)
class RebuildOptions:
    """What to do with the rebuilt books."""

    swap: bool = False
    accept_differences: bool = False
    verify_only: bool = False
    rollback: bool = False
    processes: int = PROCESSES
    json: bool = False

    def check(self) -> None:
        """Raise InvalidRequest when the options contradict each other."""
        if self.swap + self.verify_only + self.rollback > 1:
            raise InvalidRequest("choose one of --swap, --verify-only and --rollback")
        if self.accept_differences and not (self.swap or self.rollback):
            raise InvalidRequest("--accept-differences goes with --swap or --rollback")
        if not 1 <= self.processes <= PROCESSES_MAX:
            raise InvalidRequest(f"--processes takes 1 to {PROCESSES_MAX}")


@dataclass(slots=True)
class Report:
    """What a rebuild did, for people and for programs."""

    generation: int
    live: int
    version: str
    live_version: str
    then: Then
    compared: Sequence[SourceComparison]
    events: int = 0
    """Events loaded in bulk by this run."""
    seconds: float = 0.0
    peak_mib: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    """Stage → seconds."""
    flag: str = "--swap"
    """What makes the generation live: --swap, or --rollback for the previous one."""

    @property
    def differences(self) -> int:
        """How many rows differ, at least."""
        return sum(len(source.differences) for source in self.compared)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row per differing column, or per row that only one side has."""
        for source in self.compared:
            for difference in source.differences:
                for column, live, rebuilt in difference.cells():
                    yield {
                        "source": source.source,
                        "table": difference.table,
                        "key": difference.key,
                        "column": column or None,
                        "live": live,
                        "rebuilt": rebuilt,
                        "positions": list(difference.positions),
                    }

    def document(self) -> dict[str, Any]:
        """Return everything as JSON."""
        return {
            "generation": self.generation,
            "live": self.live,
            "version": self.version,
            "live_version": self.live_version,
            "verdict": "different" if self.differences else "equal",
            "then": self.then,
            "sources": [
                {"source": c.source, "position": c.position, "differences": len(c.differences)}
                for c in self.compared
            ],
            "differences": list(self.rows()),
            "events": self.events,
            "seconds": self.seconds,
            "events_per_second": round(self.events / self.seconds) if self.seconds else 0,
            "peak_mib": self.peak_mib,
            "stages": dict(self.stages),
        }


def run(settings: Settings, options: RebuildOptions) -> int:
    """Rebuild, print the result, and return the exit status."""
    options.check()
    dsn = database_dsn(settings)
    logs.configure(settings.log_format)
    with Progress.shown(quiet=options.json and not sys.stderr.isatty()) as progress:
        clock = Clock(Stages(progress))
        work = _roll_back if options.rollback else _rebuild
        report = asyncio.run(_through(work(dsn, settings, options, clock)))
    if options.json:
        sys.stdout.write(orjson.dumps(report.document()).decode() + "\n")
    else:
        _show(report)
    return PROBLEM if report.differences and report.then != "swapped" else OK


async def _through(work: Coroutine[Any, Any, Report]) -> Report:
    """Say of a database that is lost or refuses what can be done about it."""
    try:
        return await work
    except (asyncpg.PostgresError, ExceptionGroup, *CONNECTION_LOST) as error:
        raise DatabaseUnavailable(
            f"the rebuild was interrupted ({exits.sentence(error)}); see that the database runs "
            "and that this is the service's role, then run it again: it goes on"
        ) from error


@dataclass(slots=True)
class Clock:
    """Shows the stages and keeps how long each took."""

    stages: Stages
    began: float = field(default_factory=time.monotonic)
    spent: dict[str, float] = field(default_factory=dict)
    _stage: str = ""
    _since: float = 0.0

    def tell(self, stage: str, done: int, total: int) -> None:
        """Say how far a stage is."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._since = stage, now
        self.spent[stage] = self.spent.get(stage, 0.0) + now - self._since
        self._since = now
        self.stages.report(stage, done, total)

    def seconds(self) -> float:
        """Return the seconds since the beginning."""
        return round(time.monotonic() - self.began, 3)


async def _check_settings(connection: Any, settings: Settings) -> None:
    """Raise NoBooks when the service folds by other terms than these settings give."""
    for source, how in await changed_terms(connection, settings):
        raise NoBooks(
            f"the terms of {source} differ ({how}): run this with the settings of the service; if "
            "these are they, ledger.sources was changed, and a restart of `ledger serve` mends it"
        )


async def _rebuild(dsn: str, settings: Settings, options: RebuildOptions, clock: Clock) -> Report:
    async with exclusive_rebuild(dsn) as connection:
        await _check_settings(connection, settings)
        rebuild = Rebuild(dsn, settings, connection, load_registry(), options.processes, clock.tell)
        await rebuild.build()
        built = clock.seconds()
        compared = await rebuild.compare()
        then: Then = "kept"
        if options.verify_only:
            await rebuild.drop()
            then = "dropped"
        elif options.swap:
            then = await _swap(rebuild, compared, options)
        clock.stages.done()
        return _report(rebuild, compared, then, clock, built)


async def _roll_back(dsn: str, settings: Settings, options: RebuildOptions, clock: Clock) -> Report:
    async with exclusive_rebuild(dsn) as connection:
        await _check_settings(connection, settings)
        rebuild = Rebuild(dsn, settings, connection, load_registry(), 1, clock.tell)
        await rebuild.look_back()
        compared = await rebuild.compare()
        then = await _swap(rebuild, compared, options)
        clock.stages.done()
        report = _report(rebuild, compared, then, clock, clock.seconds())
        return replace(report, flag="--rollback")


async def _swap(
    rebuild: Rebuild, compared: Sequence[SourceComparison], options: RebuildOptions
) -> Then:
    if any(source.differences for source in compared) and not options.accept_differences:
        return "refused"
    await rebuild.swap()
    return "swapped"


def _report(
    rebuild: Rebuild, compared: Sequence[SourceComparison], then: Then, clock: Clock, seconds: float
) -> Report:
    load = rebuild.load
    return Report(
        rebuild.generation,
        rebuild.live,
        rebuild.version,
        rebuild.live_version,
        then,
        compared,
        load.events if load else 0,
        seconds,
        load.peak_mib if load else 0.0,
        {stage: round(spent, 3) for stage, spent in clock.spent.items()},
    )


def _show(report: Report) -> None:
    out = tables.console()
    rows = [
        {
            **row,
            "key": " ".join(str(v) for name, v in row["key"].items() if name != "source"),
            "live": _shown(row, "live"),
            "rebuilt": _shown(row, "rebuilt"),
            "positions": _places(row["positions"]),
        }
        for row in report.rows()
    ]
    if rows:
        out.print(tables.table("differences", rows, out))
    for source in report.compared:
        words = f"{source.source}: compared at position {source.position}: {_count(source)}"
        tables.line(out, words, "fail" if source.differences else "ok")
    tables.line(out, _conclusion(report), "fail" if report.then == "refused" else "")


def _count(source: SourceComparison) -> str:
    count = len(source.differences)
    if not count:
        return "every table is equal"
    per_table = Counter(difference.table for difference in source.differences)
    least = "at least " if max(per_table.values()) >= DIFFERENCES_MAX else ""
    return f"{least}{count} row{'s' * (count != 1)} differ{'s' * (count == 1)}"


def _conclusion(report: Report) -> str:
    number, live = report.generation, report.live
    accept = " --accept-differences" if report.differences else ""
    if report.differences and report.live_version != report.version:
        tables.line(
            tables.console(),
            "the live books were folded by another version of this program: differences are what "
            "that version folded it otherwise",
        )
    match report.then:
        case "swapped":
            return (
                f"generation {number} is live; {live} is kept until the next swap: "
                f"`ledger rebuild --rollback{accept}` brings it back"
            )
        case "dropped":
            return f"generation {number} was dropped; {live} is live as before"
        case "refused":
            return (
                f"not swapped, because the books differ; generation {number} is kept: "
                f"`ledger rebuild {report.flag}{accept}` makes it live"
            )
        case "kept":
            return (
                f"generation {number} is kept beside {live}, which is live as before: "
                f"`ledger rebuild --swap{accept}` makes it live, `--verify-only` drops it"
            )


def _shown(row: Mapping[str, Any], side: str) -> str:
    """Show a value of one side; of a row that only one side has, whether it is there."""
    value = row[side]
    if row["column"] is None:
        return "(no row)" if value is None else "(a row)"
    text = "(none)" if value is None else tables.text(value)
    return text if len(text) <= VALUE_MAX else text[: VALUE_MAX - 1] + "…"


def _places(positions: Sequence[int]) -> str:
    shown = " ".join(map(str, positions[:POSITIONS_SHOWN]))
    return shown + (" …" if len(positions) > POSITIONS_SHOWN else "")
