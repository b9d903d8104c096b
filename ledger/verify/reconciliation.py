"""Verify the stored results of reconciliations: compute them again and compare.

The tables of results are derived: an edited row differs until the next run writes it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger.books.compare import Difference
from ledger.config.reconciliation import Rules
from ledger.reconciliation.result import Result
from ledger.reconciliation.runner import ADVICE, Run, reason_of, reconcile_snapshot
from ledger.reconciliation.store import (
    BREAKS,
    MATCHES,
    MONTHS,
    RUNS,
    Records,
    StoredTable,
    breaks_of,
    matches_of,
    months_of,
    read_stored,
    run_of,
    stored_currencies,
)

PAUSE_SECONDS: Final = 0.2

SELECT_SOURCES: Final = """
SELECT source FROM ledger.recon_runs
 UNION
SELECT source FROM ledger.recon_matches
 UNION
SELECT source FROM ledger.recon_breaks
 UNION
SELECT source FROM ledger.recon_months
 ORDER BY source
"""

TABLES: Final = (RUNS, MATCHES, BREAKS, MONTHS)
WalletRows = tuple[Records, Records, Records, Records]
"""The rows of a wallet's run, its matches, its breaks and its months."""


@dataclass(frozen=True, slots=True)
class RunComparison:
    """How the stored results of a source compare with a new run."""

    wallets: int
    breaks: int
    differences: tuple[Difference, ...]
    behind: tuple[str, ...]
    """What could not be compared, and why."""


async def reconciled_sources(connection: Any) -> list[str]:
    """Return every source with stored results."""
    return [row["source"] for row in await connection.fetch(SELECT_SOURCES)]


async def compare_source(
    connection: Any, source: str, rules: Rules, wait_seconds: float
) -> RunComparison:
    """Reconcile a source in one snapshot and compare; wait for a run that is behind."""
    deadline = asyncio.get_running_loop().time() + wait_seconds
    while True:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            run = await reconcile_snapshot(connection, source, rules)
            if run is None:
                return RunComparison(0, 0, (), ("there are no books to reconcile",))
            comparison = await _compare(connection, source, run, rules)
        is_late = asyncio.get_running_loop().time() > deadline
        if comparison.differences or not comparison.behind or is_late:
            return comparison
        await asyncio.sleep(PAUSE_SECONDS)


async def _compare(connection: Any, source: str, run: Run, rules: Rules) -> RunComparison:
    """Compare the stored results with a run of the same snapshot, wallet by wallet."""
    results = {result.currency: result for result in run.results}
    differences: list[Difference] = []
    behind = [
        f"{currency}: cannot be reconciled: {reason_of(error)}; {ADVICE}"
        for currency, error in run.failed.items()
    ]
    stored = await stored_currencies(connection, source)
    for currency in sorted({*results, *stored} - {*run.failed}):
        result = results.get(currency)
        (stored_run, matches, breaks, months) = [
            await read_stored(connection, table, source, currency) for table in TABLES
        ]
        reason = _why_behind(run, stored_run, rules, has_result=result is not None)
        if reason:
            behind.append(f"{currency}: {reason}")
        else:
            wallet = {"source": source, "currency": currency}
            rows = stored_run, matches, breaks, months
            differences += _wallet_differences(wallet, rows, _rows_of(result, run))
    count = sum(len(result.breaks) for result in run.results)
    return RunComparison(len(results), count, tuple(differences), tuple(behind))


def _rows_of(result: Result | None, run: Run) -> WalletRows:
    if result is None:
        return {}, {}, {}, {}
    stored_run = run_of(result, run.positions, run.generation)
    return stored_run, matches_of(result), breaks_of(result), months_of(result)


def _why_behind(run: Run, stored: Records, rules: Rules, *, has_result: bool) -> str:
    """Return why the stored run is not of these books; "" when it is.

    A stored run is never ahead of books that are read later.
    """
    if not stored:
        return "not reconciled yet" if has_result else ""
    row = dict(zip(RUNS.columns, stored[()], strict=True))
    positions = row["positions"] if isinstance(row["positions"], dict) else {}
    is_earlier = positions != run.positions and all(
        isinstance(positions.get(log), int) and positions[log] <= position
        for log, position in run.positions.items()
    )
    if row["generation"] != run.generation or is_earlier:
        return f"reconciled at {positions} of books {row['generation']}, not yet at {run.positions}"
    if row["rules_sha256"] != rules.sha256:
        return "reconciled by other rules than are declared here"
    return ""


def _wallet_differences(
    wallet: Mapping[str, Any], stored: WalletRows, computed: WalletRows
) -> Iterator[Difference]:
    for table, old, new in zip(TABLES, stored, computed, strict=True):
        for key in sorted({*old, *new}):
            difference = _row_difference(table, wallet, key, old, new)
            if difference is not None:
                yield difference


def _row_difference(
    table: StoredTable,
    wallet: Mapping[str, Any],
    key: tuple[str, ...],
    stored: Records,
    computed: Records,
) -> Difference | None:
    if stored.get(key) == computed.get(key):
        return None
    live, again = (
        dict(zip(table.columns, rows[key], strict=True)) if key in rows else None
        for rows in (stored, computed)
    )
    if live is not None and again is not None:
        one, two = _flat(live), _flat(again)
        names = [name for name in {**two, **one} if one.get(name) != two.get(name)]
        live, again = ({name: row.get(name) for name in names} for row in (one, two))
    named = dict(wallet) | dict(zip(table.key, key, strict=True))
    return Difference(table.name, named, _jsonable(live), _jsonable(again))


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the fields of its objects beside the others: `figures.closing`."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _jsonable(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a row with values that JSON has."""
    if row is None:
        return None
    plain = (str, int, list, dict, type(None))
    return {k: value if isinstance(value, plain) else str(value) for k, value in row.items()}
