"""Read what is to be reconciled: statement lines, movements, decisions, balances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from ledger.books import balance_index
from ledger.books.balance_index import SHARD_BITS
from ledger.config.reconciliation import Rules
from ledger.model import changed
from ledger.reconciliation.coverage import CoveredFile, coverage_of
from ledger.reconciliation.items import (
    KnownTransaction,
    LedgerMovement,
    ManualMatch,
    Period,
    StatementItem,
    sum_of,
)
from ledger.reconciliation.matching import Matching
from ledger.reconciliation.result import LatestDecision, LedgerBalances, Result, build_result
from ledger.reconciliation.unmatched import add_unmatched
from ledger.registry import Registry

WALLET: Final = ("assets:wallet:available", "assets:wallet:held")
MOMENT: Final = timedelta(microseconds=1)
"""The resolution of times: what is dated before a time is dated up to one MOMENT before it."""

SELECT_CURRENCIES: Final = """
SELECT DISTINCT currency FROM statements WHERE source = $1 AND status = 'imported' ORDER BY currency
"""
SELECT_FILES: Final = """
SELECT sha256, opened_at, closed_at, opening, closing, position, claimed_from
  FROM statements WHERE source = $1 AND currency = $2 AND status = 'imported'
"""
SELECT_LINES: Final = """
SELECT line, row_kind, amount, effective_at, contract_id, idempotency_id, reference, booked_at
  FROM statement_lines
 WHERE source = $1 AND currency = $2 AND status = 'stated'
   AND booked_at >= $3 AND booked_at < $4
"""
SELECT_MOVEMENTS: Final = f"""
WITH moved AS (
       SELECT e.kind, e.transaction AS id, e.effective_at,
              coalesce(sum(e.amount) FILTER (WHERE e.account LIKE 'assets:wallet:%'), 0) AS net,
              coalesce(sum(e.amount) FILTER (WHERE e.account LIKE 'expenses:%'), 0) AS fee
         FROM checkpoints AS c
        CROSS JOIN generate_series(0, c.position >> {SHARD_BITS}) AS shards(shard)
        CROSS JOIN unnest('{{assets:wallet:available,assets:wallet:held,expenses:fees,
                            expenses:network_fees}}'::text[]) AS requested(account)
        CROSS JOIN LATERAL (
              SELECT kind, transaction, effective_at, amount, account FROM entries
               WHERE source = $1 AND currency = $2 AND kind <> 'adjustment'
                 AND account = requested.account
                 AND (position >> {SHARD_BITS} << 32) + hashtext(account)
                     = (shard << 32) + hashtext(requested.account)
                 AND effective_at >= $3 AND effective_at < $4 OFFSET 0) AS e
        WHERE c.source = $1
        GROUP BY e.kind, e.transaction, e.effective_at)
SELECT m.kind, m.id, m.effective_at, m.net, m.fee, t.idempotency_id,
       t.details->>'end_to_end_ref' AS end_to_end, t.details->>'transaction_hash' AS hash
  FROM moved AS m LEFT JOIN transactions AS t
    ON t.source = $1 AND t.kind = m.kind AND t.id = m.id
   AND hashtextextended(t.id, 0) = hashtextextended(m.id, 0)
 WHERE m.net <> 0
 ORDER BY m.kind, m.id, m.effective_at
"""  # noqa: S608 - made of the constant SHARD_BITS
SELECT_NAMED: Final = """
SELECT t.kind, t.id, t.status, t.idempotency_id, e.currency, e.effective_at,
       coalesce(sum(e.amount) FILTER (WHERE e.account LIKE 'assets:wallet:%'), 0) AS net,
       coalesce(sum(e.amount) FILTER (WHERE e.account LIKE 'expenses:%'), 0) AS fee
  FROM transactions AS t
  LEFT JOIN entries AS e
    ON e.source = t.source AND e.kind = t.kind AND e.transaction = t.id
   AND e.position = ANY (journal_positions(t.source, t.kind, t.id))
   AND e.account IN ('assets:wallet:available', 'assets:wallet:held', 'expenses:fees',
                     'expenses:network_fees')
 WHERE t.source = $1 AND t.kind = ANY ($2::text[]) AND t.id = ANY ($3::text[])
   AND hashtextextended(t.id, 0) = ANY (ARRAY(
       SELECT hashtextextended(id, 0) FROM unnest($3::text[]) AS id))
 GROUP BY t.kind, t.id, t.status, t.idempotency_id, e.currency, e.effective_at
 ORDER BY t.kind, t.id, e.currency, e.effective_at
"""
SELECT_ELSEWHERE: Final = """
SELECT DISTINCT l.contract_id, l.currency
  FROM statement_lines AS l
 WHERE l.source = $1 AND l.contract_id = ANY ($2::text[]) AND l.currency <> $3
   AND l.status = 'stated'
   AND NOT EXISTS (SELECT FROM entries AS e
                    WHERE e.source = $4 AND e.kind = ANY ($5::text[])
                      AND e.transaction = l.contract_id AND e.currency = l.currency
                      AND e.position = ANY (journal_positions($4, NULL, l.contract_id))
                      AND e.account LIKE 'assets:wallet:%')
 ORDER BY l.contract_id, l.currency
"""
SELECT_DECISIONS: Final = """
SELECT a.id, a.anchor, a.action, a.by, a.note, a.decided_position, a.decided_at, a.items,
       coalesce(p.posted, 0) AS posted, coalesce(p.before, 0) AS before
  FROM adjustments AS a
 CROSS JOIN LATERAL (
       SELECT sum(e.amount) AS posted,
              sum(e.amount) FILTER (WHERE e.effective_at < $3) AS before
         FROM entries AS e
        WHERE e.source = a.source AND e.kind = 'adjustment' AND e.transaction = a.id
          AND e.position = ANY (journal_positions(a.source, 'adjustment', a.id))
          AND e.currency = a.currency AND e.effective_at < $4
          AND e.account IN ('assets:wallet:available', 'assets:wallet:held')) AS p
 WHERE a.source = $1 AND a.currency = $2
"""


SELECT_PARKED: Final = "SELECT count(*) FROM parked WHERE source = ANY ($1::text[])"


def money_kinds(registry: Registry) -> list[str]:
    """Return the kinds whose streams are transactions."""
    return sorted(
        kind for kind, each in registry.streams.items() if each.table.name == "transactions"
    )


@dataclass(frozen=True, slots=True)
class SourceReconciliation:
    """Reconciles a source with the log of its statements, through one snapshot of live books.

    The connection's search_path names a generation.
    """

    connection: Any
    registry: Registry
    source: str
    log: str
    rules: Rules
    position: int
    """The position of the source's books."""

    async def currencies(self) -> list[str]:
        """Return the currencies that have a statement."""
        rows = await self.connection.fetch(SELECT_CURRENCIES, self.log)
        return [row["currency"] for row in rows]

    async def reconcile(self, currency: str) -> Result | None:
        """Reconcile one currency as the snapshot has it; None when it has no statement."""
        files = await self.connection.fetch(SELECT_FILES, self.log, currency)
        coverage = coverage_of([CoveredFile(*row) for row in files], self.rules.since)
        if coverage is None:
            return None
        parked = await self.connection.fetchval(SELECT_PARKED, [self.source, self.log])
        if parked:
            reason = f"{parked} parked events are not in these figures; see /v1/exceptions"
            coverage = changed(coverage, missing=(*coverage.missing, reason))
        period = coverage.period
        decisions = await self._decisions(currency, period)
        matching, known = await self._load(currency, period, _manual_matches(decisions.values()))
        matching.match()
        elsewhere = await self._elsewhere(currency, matching.movements.values())
        before = await self._balance(currency, period.opened_at)
        balance = await self._balance(currency, period.cutoff)
        return build_result(
            self.source,
            currency,
            coverage=coverage,
            ledger=LedgerBalances(before, balance),
            groups=add_unmatched(matching, known, elsewhere),
            decisions=decisions,
            rules=self.rules,
        )

    async def _balance(self, currency: str, before: datetime) -> Decimal:
        """Return the wallet's balance by the journal, of what is dated before a time."""
        bound = balance_index.Bound(self.source, self.position, before - MOMENT)
        sums = await balance_index.sums(
            self.connection, bound, [(name, currency) for name in WALLET]
        )
        return sum_of(debits - credited for debits, credited in sums.values())

    async def _load(
        self, currency: str, period: Period, manual: Sequence[ManualMatch]
    ) -> tuple[Matching, dict[str, KnownTransaction]]:
        """Read the items to match, and the transactions that lines name in vain."""
        lines = [
            StatementItem(*row)
            for row in await self.connection.fetch(
                SELECT_LINES, self.log, currency, period.opened_at, period.cutoff
            )
        ]
        reach = max(self.rules.window, self.rules.settlement)
        rows = await self.connection.fetch(
            SELECT_MOVEMENTS, self.source, currency, period.opened_at - reach, period.cutoff + reach
        )
        movements = movements_of(rows)
        named = {line.contract for line in lines if line.contract}
        # What was matched by hand counts however far apart in time its items are.
        keys = (key.partition(":") for match in manual for key in match.keys)
        named |= {name for kind, _, name in keys if kind != "line"}
        missing = sorted(named - {movement.id for movement in movements})
        more, known = await self._named(currency, missing)
        return Matching.of(period, self.rules, lines, [*movements, *more], manual), known

    async def _named(
        self, currency: str, ids: Sequence[str]
    ) -> tuple[list[LedgerMovement], dict[str, KnownTransaction]]:
        """Read transactions by their ids: those that moved this currency, and the others."""
        if not ids:
            return [], {}
        kinds = money_kinds(self.registry)
        rows = await self.connection.fetch(SELECT_NAMED, self.source, kinds, list(ids))
        movements = movements_of(
            [row for row in rows if row["currency"] == currency and row["net"]]
        )
        moved = {movement.id for movement in movements}
        known: dict[str, KnownTransaction] = {}
        for row in rows:
            if row["id"] in moved:
                continue
            other = row["currency"] if row["net"] else None
            before = known.get(row["id"])
            if before is None or (before.currency is None and other is not None):
                known[row["id"]] = KnownTransaction(row["kind"], row["status"], other)
        return movements, known

    async def _elsewhere(
        self, currency: str, movements: Iterable[LedgerMovement]
    ) -> dict[str, str]:
        """Return contract → other currency whose statement has it, of free movements."""
        ids = sorted({movement.id for movement in movements})
        if not ids:
            return {}
        rows = await self.connection.fetch(
            SELECT_ELSEWHERE, self.log, ids, currency, self.source, money_kinds(self.registry)
        )
        return {row["contract_id"]: row["currency"] for row in reversed(rows)}

    async def _decisions(self, currency: str, period: Period) -> dict[str, LatestDecision]:
        rows = await self.connection.fetch(
            SELECT_DECISIONS, self.source, currency, period.opened_at, period.cutoff
        )
        return {
            row["id"]: LatestDecision(
                row["id"], row["anchor"], row["action"], row["by"] or "", row["note"] or "",
                row["decided_position"], row["decided_at"], row["posted"], row["before"],
                tuple(row["items"]),
            )
            for row in rows
        }  # fmt: skip


def _manual_matches(decisions: Iterable[LatestDecision]) -> list[ManualMatch]:
    return [ManualMatch(d.anchor, d.keys, d.position) for d in decisions if d.action == "match"]


def movements_of(rows: Sequence[Mapping[str, Any]]) -> list[LedgerMovement]:
    """Return the movements of rows that are sorted by kind, id and time."""
    movements: list[LedgerMovement] = []
    for (kind, name), group in groupby(rows, itemgetter("kind", "id")):
        dated = list(group)
        legs = tuple((row["effective_at"], row["net"]) for row in dated)
        fee = sum_of(row["fee"] for row in dated)
        last = dated[-1]
        movements.append(
            LedgerMovement(kind, name, legs, fee, last["idempotency_id"], _references(last))
        )
    return movements


def _references(row: Mapping[str, Any]) -> tuple[str, ...]:
    names = [row.get(name) for name in ("end_to_end", "hash")]
    # Until the chain has taken it, a transfer's hash reads "pending".
    return tuple(dict.fromkeys(name for name in names if name and name != "pending"))
