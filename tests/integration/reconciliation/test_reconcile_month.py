"""A month with planted faults: each is found, typed and named, and nothing else is reported."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from random import Random
from typing import Any

import pytest

from ledger import registry
from ledger.config.source import Source
from ledger.eventlog.appender import Log
from ledger.eventlog.new_event import NewEvent, callback_event
from ledger.reconciliation.runner import Run
from ledger.simulator.month import Month, month
from ledger.simulator.statement_files import account_of, camt053
from ledger.simulator.story import Planted
from ledger.statements.importer import in_wallet
from ledger.statements.model import Reading
from ledger.statements.reader import read_statement
from tests.asking import Service, serving
from tests.conftest import Database
from tests.statements import append_statement, decide, reconcile, reconcile_now

SEED = 11
ALONE = """
import asyncio, re, sys, time
from pathlib import Path
from ledger.database import connection as database
from ledger.runtime.decimals import configure_decimal
from ledger.reconciliation.runner import Reconciler
from ledger.config.settings import load
from ledger.runtime.decimals import configure_decimal

async def main():
    async with database.connected(sys.argv[1], seconds_max=600) as connection:
        await Reconciler(sys.argv[1], load({})).reconcile(connection, "straitsx")

configure_decimal()
begun = time.perf_counter()
asyncio.run(main())
# Not ru_maxrss: that is the parent's at first.
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
print(time.perf_counter() - begun, time.process_time(), int(peak[1]) // 1024)
"""
"""What the reconcile step does, in a process of its own: prints seconds, CPU seconds and MiB."""


def new_event(event: str | None, body: bytes) -> NewEvent:
    reading = registry.load().read("straitsx", event or None, body)
    return callback_event(
        "straitsx", reading, body, received_at=datetime.now(UTC), path_event=event or None,
        peer="127.0.0.1",
    )  # fmt: skip


async def append_callbacks(database: Database, callbacks: list[tuple[str, bytes]]) -> None:
    """Append callbacks in the order given."""
    log = Log(database.service_dsn, database.settings)
    running = asyncio.create_task(log.run())
    for start in range(0, len(callbacks), 5_000):
        some = callbacks[start : start + 5_000]
        await asyncio.gather(*(log.appenders["straitsx"].append(new_event(*each)) for each in some))
    log.stop()
    await running


async def import_all(
    database: Database, stated: Month, currencies: list[str], accounts: dict[str, str] | None = None
) -> None:
    terms = Source("straitsx", "straitsx", accounts=accounts or {})
    for currency in currencies:
        read = read_statement(stated.statements[currency], Reading())
        await append_statement(database.service_dsn, "straitsx", in_wallet(read, terms))


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def found_of(run: Run) -> list[tuple[str, str, frozenset[str]]]:
    """Return every break and timing as currency, type, items."""
    return sorted(
        ((r.currency, b.type, frozenset(b.items)) for r in run.results for b in r.breaks),
        key=str,
    )


def names(found: tuple[str, str, frozenset[str]], fault: Planted) -> bool:
    """Tell whether a break is a planted fault: its type, and its line or transaction."""
    currency, kind, items = found
    if kind != fault.type or currency not in {c for c, _ in fault.differences}:
        return False
    ids = {item.partition(":")[2] for item in items}
    expected = {each for each in (fault.line_id, fault.transaction_id) if each}
    return bool(expected & ids)


def check_found(run: Run, stated: Month) -> None:
    """Every planted fault is found in each wallet it touches; every break is a planted fault."""
    found = found_of(run)
    for fault in stated.planted:
        wallets = {currency for currency, _ in fault.differences}
        hits = {each[0] for each in found if names(each, fault)}
        assert hits == wallets, fault
    for each in found:
        assert any(names(each, fault) for fault in stated.planted), each


def check_identity(run: Run) -> None:
    for result in run.results:
        assert (result.figures["residual"], result.figures["chain"]) == ("0", "0"), result.currency
        assert result.state != "INCOMPLETE"


async def shuffled(service: Service, stated: Month, rng: Random) -> None:
    callbacks = list(stated.callbacks)
    rng.shuffle(callbacks)
    currencies = list(stated.statements)
    rng.shuffle(currencies)
    await import_all(service.database, stated, currencies[:2])
    await append_callbacks(service.database, callbacks)
    await import_all(service.database, stated, currencies[2:])


async def test_every_planted_fault_is_found_and_nothing_else(service: Service) -> None:
    stated = month(SEED, 2_500, faults=True)
    print("seed", SEED)
    await append_callbacks(service.database, list(stated.callbacks))
    await import_all(service.database, stated, list(stated.statements))
    run = await reconcile(service)
    check_found(run, stated)
    check_identity(run)
    assert {b.type for r in run.results for b in r.breaks} == {f.type for f in stated.planted}


async def test_a_month_without_faults_is_reconciled(service: Service) -> None:
    stated = month(SEED, 1_000, faults=False)
    await append_callbacks(service.database, list(stated.callbacks))
    await import_all(service.database, stated, list(stated.statements))
    run = await reconcile(service)
    assert {r.currency: (r.state, r.breaks) for r in run.results} == dict.fromkeys(
        stated.statements, ("RECONCILED", ())
    )


async def test_the_order_of_import_changes_nothing(cluster: Any, database: Database) -> None:
    stated = month(SEED, 600, faults=True)
    digests = set()
    async with serving(database) as service:
        await append_callbacks(database, list(stated.callbacks))
        await import_all(database, stated, list(stated.statements))
        digests.add(tuple(r.sha256 for r in (await reconcile(service)).results))
    rng = Random(SEED)
    from tests.conftest import database as fresh

    async for other in fresh.__wrapped__(cluster):  # type: ignore[attr-defined]
        async with serving(other) as service:
            await shuffled(service, stated, rng)
            digests.add(tuple(r.sha256 for r in (await reconcile(service)).results))
    assert len(digests) == 1


async def test_the_identity_holds_when_all_breaks_are_decided(service: Service) -> None:
    stated = month(SEED, 600, faults=True)
    await append_callbacks(service.database, list(stated.callbacks))
    await import_all(service.database, stated, list(stated.statements))
    run = await reconcile(service)
    check_identity(run)
    for result in run.results:
        for each in result.breaks:
            if each.type != "TIMING":
                action = "write_off" if each.difference else "match"
                await decide(service, each.id, action)
    run = await reconcile(service)
    check_identity(run)
    states = {r.state for r in run.results}
    assert states <= {"RECONCILED", "RECONCILED_WITH_TIMING"}, found_of(run)
    assert {b.state for r in run.results for b in r.breaks if b.type != "TIMING"} == {"RESOLVED"}


async def reconcile_alone(service: Service, stated: Month, accounts: dict[str, str]) -> Run:
    """Reconcile a month in a process of its own, within its limits; then once more, here."""
    for some in batched(stated.callbacks, 20_000):
        await append_callbacks(service.database, some)
    await import_all(service.database, stated, list(stated.statements), accounts)
    await service.fold()
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", ALONE, service.database.service_dsn],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seconds, cpu_seconds, memory = (float(word) for word in done.stdout.split())
    run = await reconcile_now(service.database)
    lines = sum(r.figures["lines"] for r in run.results)
    transactions = sum(r.figures["transactions"] for r in run.results)
    print(f"seed {SEED}: {lines} lines, {transactions} movements")
    print(f"{seconds:.1f} s, of the processor {cpu_seconds:.1f} s, {memory} MiB")
    assert seconds < 30
    assert memory < 500
    return run


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_month_of_a_hundred_thousand_transactions_is_reconciled_in_time(
    service: Service,
) -> None:
    stated = month(SEED, 100_000, faults=True)
    run = await reconcile_alone(service, stated, {})
    check_found(run, stated)
    check_identity(run)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_such_a_month_in_files_of_a_bank_is_reconciled_in_time(service: Service) -> None:
    stated = month(SEED, 100_000, faults=True, write=camt053)
    run = await reconcile_alone(service, stated, {account_of(c): c for c in stated.statements})
    planted = Counter((c, fault.type) for fault in stated.planted for c, _ in fault.differences)
    found = Counter((currency, kind) for currency, kind, _ in found_of(run))
    assert found.keys() == planted.keys()
    check_identity(run)


def batched(callbacks: Iterable[tuple[str, bytes]], size: int) -> Iterator[list[tuple[str, bytes]]]:
    rest = iter(callbacks)
    while some := list(islice(rest, size)):
        yield some
