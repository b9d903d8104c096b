"""`ledger bench import`: how long a long statement takes to read and append, in how much memory.

Every format has the same made-up lines in a database of its own. The file is tried (a dry run:
read, checked, compared), imported, and then both again as a newer file with the same lines.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final

from ledger import __version__
from ledger.bench.machine import (
    Process,
    describe,
    disturbance,
    machine_used,
    tree_cpu_seconds,
)
from ledger.bench.reads import gauge
from ledger.bench.run import SOURCE, environment, server_of, workplace
from ledger.config.settings import load
from ledger.config.source import Source, source_of_provider
from ledger.config.statement_profile import profile_of
from ledger.errors import MeasurementFailed
from ledger.postgres.server import EmbeddedPostgres
from ledger.service.startup import prepare
from ledger.simulator.statement_files import (
    CSV_PROFILE,
    Writer,
    account_of,
    bank_csv,
    camt053,
    mt940,
    straitsx_json,
)
from ledger.simulator.story import OPENED_AT, PERIOD, SimulatedRow
from ledger.statements.import_process import ImportOptions, import_file
from ledger.statements.importer import ImportResult, Permission

WRITERS: Final[Mapping[str, Writer]] = {
    "straitsx-json": straitsx_json, "camt.053": camt053, "mt940": mt940, "csv": bank_csv,
}  # fmt: skip
CURRENCY: Final = "SGD"
SEED: Final = 1
POLL_SECONDS: Final = 0.05
TRY: Final = Permission(dry_run=True)
IMPORT: Final = Permission()


@dataclass(slots=True)
class Usage:
    """What the process of one import took."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0
    address_space_mib: float = 0.0

    def look(self) -> None:
        """Look at the process that imports, while it runs."""
        parent = Process.of(os.getpid())
        for process in parent.children() if parent else ():
            if "ledger.statements.import_process" in process.arguments():
                self.peak_mib = max(self.peak_mib, process.memory("VmHWM") or 0)
                self.address_space_mib = max(self.address_space_mib, process.memory("VmPeak") or 0)
                if process.alive:
                    self.cpu_seconds = max(self.cpu_seconds, process.cpu_seconds())


async def measure_import(lines: int, formats: Sequence[str]) -> dict[str, Any]:
    """Import a file of so many lines in each of some formats; return the figures.

    Raises MeasurementFailed when an import does not end as it must.
    """
    rows = list(made_up(lines, Random(SEED)))  # noqa: S311 - made-up money
    figures = {}
    for name in formats:
        async with _database() as place:
            figures[name] = await _measure(place, name, rows)
            machine = place.machine
    return {
        "bench": "import",
        "version": __version__,
        "machine": machine,
        "lines": lines,
        "formats": figures,
        "verified": {"ok": True, "lines": lines, "imports": 2 * len(figures)},
    }


def made_up(count: int, rng: Random) -> Iterator[SimulatedRow]:
    """Yield rows of a month, oldest first; the account is never overdrawn."""
    for n in range(count):
        amount = Decimal(rng.randrange(1, 10**7)) / 100
        debit = n % 3 == 2
        yield SimulatedRow(
            id=f"entry_{n:08d}",
            at=OPENED_AT + (PERIOD - timedelta(hours=1)) * (n / count),
            currency=CURRENCY,
            kind="Bank Transfer Out" if debit else "Bank Transfer In",
            amount=-amount / 10 if debit else amount,
            contract_id=f"contract_{n:032x}",
            idempotency_id=f"{n:08x}-0000-4000-8000-{n:012x}",
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """A new database, and how to reach it."""

    dsn: str
    server: Process
    machine: dict[str, Any]

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server, of this process and of its children so far."""
        return tree_cpu_seconds(self.server) + sum(os.times()[:4])


@asynccontextmanager
async def _database() -> AsyncIterator[_Place]:
    async with workplace() as folder:
        settings = load(environment(folder))
        embedded = EmbeddedPostgres(settings.data_dir, pg_bin=settings.pg_bin,
                                    pg_user=settings.pg_user)  # fmt: skip
        endpoint = await embedded.start()
        await prepare(endpoint, settings)
        machine = describe(folder)
        async with gauge(endpoint.owner_dsn, SOURCE) as look:
            machine["postgresql"] = await look.version()
        yield _Place(endpoint.service_dsn, server_of(settings.data_dir), machine)


async def _measure(place: _Place, name: str, rows: Sequence[SimulatedRow]) -> dict[str, Any]:
    body, count = WRITERS[name](CURRENCY, rows), len(rows)
    run = _Run(place.dsn, source_of_provider(SOURCE), _options(name))
    before, own, began = machine_used(), place.cpu_seconds(), time.monotonic()
    tried = await run.measured(body, TRY, ("preview", count, 0))
    imported = await run.measured(body, IMPORT, ("accepted", count, 0))
    newer = body + b"\r\n"
    tried_again = await run.measured(newer, TRY, ("preview", 0, count))
    again = await run.measured(newer, IMPORT, ("accepted", 0, count))
    ours = place.cpu_seconds() - own
    return {
        "file_mib": round(len(body) / 2**20, 1),
        "try": _shown(tried),
        "import": _shown(imported),
        "try_again": _shown(tried_again),
        "import_again": _shown(again),
        "lines_per_second": round(count / imported.seconds),
        "append_seconds": round(imported.seconds - tried.seconds, 2),
        "again_ratio": round(again.seconds / imported.seconds, 2),
        **disturbance(before, machine_used(), ours, time.monotonic() - began),
    }


@dataclass(frozen=True, slots=True)
class _Run:
    dsn: str
    source: Source
    options: ImportOptions

    async def measured(
        self, body: bytes, permission: Permission, expected: tuple[str, int, int]
    ) -> Usage:
        """Import a file; return what that took. Raises MeasurementFailed for another result."""
        usage, began = Usage(), time.monotonic()
        work = asyncio.create_task(asyncio.to_thread(self._import, body, permission))
        while not work.done():
            usage.look()
            await asyncio.wait([work], timeout=POLL_SECONDS)
        usage.seconds = time.monotonic() - began
        result = work.result()
        found = result.status, result.new, result.unchanged
        if found != expected:
            raise MeasurementFailed(f"the import ended with {found}, not {expected}")
        return usage

    def _import(self, body: bytes, permission: Permission) -> ImportResult:
        now = datetime.now(UTC)
        return import_file(self.dsn, self.source, body, self.options, now, permission=permission)


def _options(name: str) -> ImportOptions:
    if name != "csv":
        return ImportOptions(format=name)
    profile = profile_of(CSV_PROFILE)
    window = OPENED_AT, OPENED_AT + PERIOD
    return ImportOptions(currency=CURRENCY, account=account_of(CURRENCY), profile=profile,
                         window=window)  # fmt: skip


def _shown(usage: Usage) -> dict[str, float]:
    return {
        "seconds": round(usage.seconds, 2),
        "cpu_seconds": round(usage.cpu_seconds, 2),
        "peak_mib": round(usage.peak_mib),
        "address_space_mib": round(usage.address_space_mib),
    }
