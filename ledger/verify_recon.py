"""Verifying what was reconciled: found anew from the books, and compared with what is stored.

The tables of results are derived, so an edited row shows until the next run writes it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger import recon_store
from ledger.compare import Difference
from ledger.recon_rules import Rules
from ledger.recon_store import BREAKS, MATCHES, RUNS, Kept, Records
from ledger.reconcile import Run, computed

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

Stored = dict[str, tuple[Records, Records, Records]]
"""Currency → the rows of its run, its matches and its breaks."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What a source's results are worth. `behind` names what could not be compared, and why."""

    wallets: int
    breaks: int
    differences: tuple[Difference, ...]
    behind: tuple[str, ...]


async def sources(connection: Any) -> list[str]:
    """Return every source of which results are stored."""
    return [row["source"] for row in await connection.fetch(SELECT_SOURCES)]


async def check(connection: Any, source: str, rules: Rules) -> Compared:
    """Reconcile a source in one snapshot and compare; wait a little for a run that is behind."""
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS_MAX
    while True:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            run = await computed(connection, source, rules)
            stored = await _stored(connection, source)
        found = compare(source, run, stored, rules)
        is_late = asyncio.get_running_loop().time() > deadline
        if found.differences or not found.behind or is_late:
            return found
        await asyncio.sleep(PAUSE_SECONDS)


async def _stored(connection: Any, source: str) -> Stored:
    return {
        currency: (
            await recon_store.stored(connection, RUNS, source, currency),
            await recon_store.stored(connection, MATCHES, source, currency),
            await recon_store.stored(connection, BREAKS, source, currency),
        )
        for currency in await recon_store.currencies(connection, source)
    }


def compare(source: str, run: Run | None, stored: Stored, rules: Rules) -> Compared:
    """Compare what is stored with a run of the same snapshot, wallet by wallet."""
    if run is None:
        return Compared(0, 0, (), ("there are no books to reconcile",))
    wanted: Stored = {
        result.currency: (
            recon_store.run_of(result, run.positions, run.generation),
            recon_store.matches_of(result),
            recon_store.breaks_of(result),
        )
        for result in run.results
    }
    found: list[Difference] = []
    behind: list[str] = []
    for currency in sorted({*wanted, *stored}):
        why = _behind(run, stored.get(currency), currency in wanted, rules)
        if why:
            behind.append(f"{currency}: {why}")
        else:
            found += _of_wallet(source, currency, stored, wanted)
    breaks = sum(len(rows) for _, _, rows in wanted.values())
    return Compared(len(wanted), breaks, tuple(found), tuple(behind))


def _behind(
    run: Run, stored: tuple[Records, Records, Records] | None, is_wanted: bool, rules: Rules
) -> str:
    """Say why what is stored of a wallet is not of these books; "" when it should be.

    What is stored is never ahead of books that are read later.
    """
    rows = list(stored[0].values()) if stored else []
    if not rows:
        return "not reconciled yet" if is_wanted else ""
    (row,) = rows
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


def _of_wallet(source: str, currency: str, stored: Stored, wanted: Stored) -> Iterator[Difference]:
    nothing: tuple[Records, Records, Records] = ({}, {}, {})
    tables = zip(
        (RUNS, MATCHES, BREAKS), stored.get(currency, nothing), wanted.get(currency, nothing),
        strict=True,
    )  # fmt: skip
    for table, have, want in tables:
        for key in sorted({*have, *want}):
            difference = _row(table, {"source": source, "currency": currency}, key, have, want)
            if difference is not None:
                yield difference


def _row(
    table: Kept, place: Mapping[str, Any], key: tuple[str, ...], have: Records, want: Records
) -> Difference | None:
    live, again = have.get(key), want.get(key)
    if live == again:
        return None
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
