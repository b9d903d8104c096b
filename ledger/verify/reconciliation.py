"""Verifying what was reconciled: found anew from the books, and compared with what is stored.

The tables of results are derived, so an edited row shows until the next run writes it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger.books.compare import Difference
from ledger.config.reconciliation import Rules
from ledger.reconciliation import store as recon_store
from ledger.reconciliation.result import Result
from ledger.reconciliation.runner import ADVICE, Run, computed, reason_of
from ledger.reconciliation.store import BREAKS, MATCHES, RUNS, Records, StoredTable

WAIT_SECONDS_MAX: Final = 5.0
"""How long a run is waited for that is behind the books."""

PAUSE_SECONDS: Final = 0.2

SELECT_SOURCES: Final = """
SELECT source FROM ledger.recon_runs
 UNION
SELECT source FROM ledger.recon_matches
 UNION
SELECT source FROM ledger.recon_breaks
 ORDER BY source
"""

Rows = tuple[Records, Records, Records]
"""The rows of a wallet's run, its matches and its breaks."""


@dataclass(frozen=True, slots=True)
class RunComparison:
    """What a source's results are worth. `behind` names what could not be compared, and why."""

    wallets: int
    breaks: int
    differences: tuple[Difference, ...]
    behind: tuple[str, ...]


async def sources(connection: Any) -> list[str]:
    """Return every source of which results are stored."""
    return [row["source"] for row in await connection.fetch(SELECT_SOURCES)]


async def check(connection: Any, source: str, rules: Rules) -> RunComparison:
    """Reconcile a source in one snapshot and compare; wait a little for a run that is behind."""
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS_MAX
    while True:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            run = await computed(connection, source, rules)
            if run is None:
                return RunComparison(0, 0, (), ("there are no books to reconcile",))
            found = await _compare(connection, source, run, rules)
        is_late = asyncio.get_running_loop().time() > deadline
        if found.differences or not found.behind or is_late:
            return found
        await asyncio.sleep(PAUSE_SECONDS)


async def _compare(connection: Any, source: str, run: Run, rules: Rules) -> RunComparison:
    """Compare what is stored with a run of the same snapshot, wallet by wallet."""
    results = {result.currency: result for result in run.results}
    found: list[Difference] = []
    behind: list[str] = []
    for currency, error in run.failed.items():
        behind.append(f"{currency}: cannot be reconciled: {reason_of(error)}; {ADVICE}")
    stored = await recon_store.currencies(connection, source)
    for currency in sorted({*results, *stored} - {*run.failed}):
        result = results.get(currency)
        (row, matches, breaks) = [
            await recon_store.stored(connection, table, source, currency)
            for table in (RUNS, MATCHES, BREAKS)
        ]
        why = _behind(run, row, result is not None, rules)
        if why:
            behind.append(f"{currency}: {why}")
        else:
            place = {"source": source, "currency": currency}
            found += _of_wallet(place, (row, matches, breaks), _wanted(result, run))
    count = sum(len(result.breaks) for result in run.results)
    return RunComparison(len(results), count, tuple(found), tuple(behind))


def _wanted(result: Result | None, run: Run) -> Rows:
    if result is None:
        return {}, {}, {}
    return (
        recon_store.run_of(result, run.positions, run.generation),
        recon_store.matches_of(result),
        recon_store.breaks_of(result),
    )


def _behind(run: Run, stored: Records, is_wanted: bool, rules: Rules) -> str:
    """Say why what is stored of a wallet is not of these books; "" when it should be.

    What is stored is never ahead of books that are read later.
    """
    if not stored:
        return "not reconciled yet" if is_wanted else ""
    row = dict(zip(RUNS.columns, stored[()], strict=True))
    told = row["positions"] if isinstance(row["positions"], dict) else {}
    is_earlier = told != run.positions and all(
        isinstance(told.get(log), int) and told[log] <= place
        for log, place in run.positions.items()
    )
    if row["generation"] != run.generation or is_earlier:
        return f"reconciled at {told} of books {row['generation']}, not yet at {run.positions}"
    if row["rules_sha256"] != rules.sha256:
        return "reconciled by other rules than are declared here"
    return ""


def _of_wallet(place: Mapping[str, Any], stored: Rows, wanted: Rows) -> Iterator[Difference]:
    for table, have, want in zip((RUNS, MATCHES, BREAKS), stored, wanted, strict=True):
        for key in sorted({*have, *want}):
            difference = _row(table, place, key, have, want)
            if difference is not None:
                yield difference


def _row(
    table: StoredTable, place: Mapping[str, Any], key: tuple[str, ...], have: Records, want: Records
) -> Difference | None:
    if have.get(key) == want.get(key):
        return None
    live, again = (
        dict(zip(table.columns, rows[key], strict=True)) if key in rows else None
        for rows in (have, want)
    )
    if live is not None and again is not None:
        one, two = _flat(live), _flat(again)
        names = [name for name in {**two, **one} if one.get(name) != two.get(name)]
        live, again = ({name: row.get(name) for name in names} for row in (one, two))
    named = dict(place) | dict(zip(table.key, key, strict=True))
    return Difference(table.name, named, _told(live), _told(again))


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the fields of its objects beside the others: `figures.closing`."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        inner = value if isinstance(value, dict) else None
        found |= {name: value} if inner is None else {f"{name}.{k}": v for k, v in inner.items()}
    return found


def _told(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a row as it can be written as JSON."""
    if row is None:
        return None
    plain = (str, int, list, dict, type(None))
    return {k: value if isinstance(value, plain) else str(value) for k, value in row.items()}
