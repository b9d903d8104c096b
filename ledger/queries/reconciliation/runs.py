"""Reading the reconciliation of each wallet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import msgspec
import orjson

from ledger.config.reconciliation import Rules
from ledger.errors import Conflicting, NotFound
from ledger.queries.findings import FindingsRequest, now, read_findings
from ledger.queries.params import QueryParams
from ledger.queries.reconciliation.breaks import RulesBySource, all_breaks, zone_name
from ledger.queries.schemas.money import Reconciliation, from_row
from ledger.queries.schemas.reconciliation import (
    BreakAnswer,
    ChangedMonth,
    RunAnswer,
    Runs,
    Sealed,
    Sheet,
    Unproved,
)
from ledger.queries.snapshot import DatabaseRow, Listing, Snapshot

SELECT_RUNS: Final = """
SELECT source, currency, state, opened_at, closed_at AS through, positions::text AS positions,
       generation, files::text AS files, figures::text AS figures, reasons::text AS reasons,
       rules_sha256, sha256
  FROM ledger.recon_runs
 WHERE source = $1 AND ($3::text IS NULL OR currency > $3)
   AND ($4::text[] IS NULL OR currency = ANY ($4))
 ORDER BY currency LIMIT $2
"""
SELECT_UNPROVED: Final = """
SELECT b.source, b.currency, sum(b.debits - b.credits) AS total
  FROM balances AS b
 WHERE b.source = $1 AND ($2::text[] IS NULL OR b.currency = ANY ($2))
   AND b.account IN ('assets:wallet:available', 'assets:wallet:held')
   AND NOT EXISTS (SELECT FROM ledger.recon_runs AS r
                    WHERE r.source = b.source AND r.currency = b.currency)
 GROUP BY b.source, b.currency HAVING bool_or(b.debits <> 0 OR b.credits <> 0)
 ORDER BY b.currency
"""
SELECT_SEAL: Final = """
SELECT size, encode(root, 'hex') AS root FROM ledger.seals
 WHERE source = $1 AND size >= $2 ORDER BY size LIMIT 1
"""
SELECT_CLAIMS: Final = """
SELECT currency, state, closed_at, positions::text AS positions, generation,
       figures->>'closing' AS closing,
       figures->>'difference' AS difference, (figures->>'breaks_count')::int AS breaks
  FROM ledger.recon_runs WHERE source = $1
"""

WALLETS_MAX: Final = 10_000
"""Wallets that one printed page holds."""
CLOSED_MONTH_CHANGED: Final = "closed_month_changed"
CHANGED_MAX: Final = 1_000
"""Changed months of a source that are read."""

RUNS: Final = Listing(SELECT_RUNS, {"currency": str})


async def runs(snapshot: Snapshot, params: QueryParams, rules: RulesBySource) -> Runs:
    """Read the latest reconciliation of each wallet."""
    rows, following = await RUNS.page(snapshot, params, params.texts("currency"))
    listed = [await _run(snapshot, row, rules) for row in rows]
    unproved = [
        from_row(Unproved, row)
        for source in snapshot.sources(params)
        for row in await snapshot.rows(SELECT_UNPROVED, source, params.texts("currency"))
    ]
    return Runs(
        reconciliations=listed,
        without_statement=unproved,
        next=following,
        position=snapshot.position,
    )


async def all_runs(snapshot: Snapshot, params: QueryParams, rules: RulesBySource) -> Runs:
    """Read the latest reconciliation of every wallet. Raises Conflicting for too many."""
    answer = await runs(snapshot, replace(params, limit=WALLETS_MAX), rules)
    if answer.next is not None:
        raise Conflicting(
            f"there are more than {WALLETS_MAX} wallets, too many for one page; name a source"
        )
    return answer


async def wallet_run(
    snapshot: Snapshot, source: str, currency: str, rules: RulesBySource
) -> tuple[RunAnswer, list[BreakAnswer]]:
    """Read one wallet's run with all its breaks.

    Raises NotFound, or Conflicting when there are more than BREAKS_MAX.
    """
    snapshot.check(source)
    rows = await snapshot.rows(SELECT_RUNS, source, 1, None, [currency.upper()])
    if not rows:
        raise NotFound(
            f"{currency.upper()} of {source} is not reconciled; import a statement of it first"
        )
    run = await _run(snapshot, rows[0], rules)
    return run, await all_breaks(snapshot, source, currency.upper(), rules)


async def _run(snapshot: Snapshot, row: DatabaseRow, rules: RulesBySource) -> RunAnswer:
    positions: Mapping[str, int] = orjson.loads(row["positions"])
    seals = []
    for source, position in sorted(positions.items()):
        seal = await snapshot.row(SELECT_SEAL, source, position)
        size, root = (seal["size"], seal["root"]) if seal else (None, None)
        seals.append(Sealed(source=source, position=position, size=size, root=root))
    current = row["generation"] == snapshot.generation and all(
        snapshot.position.get(source) == position == snapshot.head.get(source)
        for source, position in positions.items()
    )
    return RunAnswer(
        **{name: row[name] for name in ("source", "currency", "state", "opened_at", "through",
                                        "rules_sha256", "sha256")},
        reasons=orjson.loads(row["reasons"]),
        figures=msgspec.convert(orjson.loads(row["figures"]), Sheet),
        files=orjson.loads(row["files"]),
        positions=dict(sorted(positions.items())),
        seals=seals,
        current=current,
        time_zone=zone_name(rules, row["source"]),
        changed_months=await _changed_months(snapshot, row["source"], row["currency"]),
    )  # fmt: skip


async def _changed_months(snapshot: Snapshot, source: str, currency: str) -> list[ChangedMonth]:
    """Read which closed months of a wallet changed since they were closed, in order."""
    request = FindingsRequest(await now(snapshot), CHANGED_MAX, reason=CLOSED_MONTH_CHANGED)
    changed = [
        ChangedMonth(each.id.rpartition(":")[2], each.amount or "0", each.detail, each.exception)
        for each in await read_findings(snapshot, source, request, Rules())
        if each.currency == currency
    ]
    return sorted(changed, key=lambda month: month.period)


async def claims(snapshot: Snapshot, source: str) -> dict[str, Reconciliation]:
    """Read how far statements confirm each wallet of a source, by currency."""
    rows = await snapshot.rows(SELECT_CLAIMS, source)
    return {row["currency"]: _claim(snapshot, row) for row in rows}


def _claim(snapshot: Snapshot, row: DatabaseRow) -> Reconciliation:
    positions: dict[str, int] = orjson.loads(row["positions"])
    is_here = all(snapshot.position.get(log) == place for log, place in positions.items())
    return Reconciliation(
        state=row["state"],
        through=row["closed_at"],
        statement_balance=row["closing"],
        difference=row["difference"],
        breaks=row["breaks"],
        position=dict(sorted(positions.items())),
        current=is_here and row["generation"] == snapshot.generation,
    )
