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
from ledger.reconciliation.closing.month_ends import MonthBounds, MonthEndBuilder, months_within
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
from ledger.reconciliation.names import NameIndex, fits
from ledger.reconciliation.result import LatestDecision, LedgerBalances, Result, build_result
from ledger.reconciliation.unmatched import add_unmatched
from ledger.registry import Registry

WALLET: Final = ("assets:wallet:available", "assets:wallet:held")
MOMENT: Final = timedelta(microseconds=1)
"""The resolution of times: what is dated before a time is dated up to one MOMENT before it."""

DATED_OUTSIDE_MAX: Final = timedelta(days=31)
"""How far outside of the period that it is booked in a line may be dated to match by its amount."""

SELECT_CURRENCIES: Final = """
SELECT DISTINCT currency FROM statements WHERE source = $1 AND status = 'imported' ORDER BY currency
"""
SELECT_FILES: Final = """
SELECT sha256, opened_at, closed_at, opening, closing, position, claimed_from
  FROM statements WHERE source = $1 AND currency = $2 AND status = 'imported'
"""
SELECT_LINES: Final = """
SELECT line, row_kind, amount, effective_at, contract_id, idempotency_id, reference, names,
       coalesce(counterparty, '') AS counterparty, description, booked_at
  FROM statement_lines
 WHERE source = $1 AND currency = $2 AND status = 'stated'
   AND booked_at >= $3 AND booked_at < $4
"""
TRANSACTION_NAMES: Final = """array_remove(ARRAY[
           t.details->>'end_to_end_ref', nullif(t.details->>'transaction_hash', 'pending'),
           t.details->>'payout_invoice_id', t.details->>'external_reference',
           t.details->>'merchant_ref', t.details->>'quote_id', t.return_of], NULL)
       || CASE WHEN t.details ? 'idempotency_ids'
               THEN ARRAY(SELECT jsonb_array_elements_text(t.details->'idempotency_ids'))
               ELSE '{}' END"""
"""What we or the provider call a transaction besides its id and idempotency id.

A transfer's hash reads `pending` until the chain has taken it. What brings back a payout is named
after that.
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
SELECT m.kind, m.id, m.effective_at, m.net, m.fee, t.idempotency_id, t.customer_id,
       {TRANSACTION_NAMES} AS names
  FROM moved AS m LEFT JOIN transactions AS t
    ON t.source = $1 AND t.kind = m.kind AND t.id = m.id
   AND hashtextextended(t.id, 0) = hashtextextended(m.id, 0)
 WHERE m.net <> 0 OR m.fee <> 0
 ORDER BY m.kind, m.id, m.effective_at
"""  # noqa: S608 - made of constants
NAMED_BY_PROVIDER: Final = """coalesce(t.details->>'end_to_end_ref',
           t.details->>'transaction_hash', t.details->>'payout_invoice_id',
           t.details->>'quote_id')"""
NAMED_BY_US: Final = """coalesce(t.details->>'external_reference', t.details->>'merchant_ref')"""
"""Of each kind of transaction at most one of these has a value; both are indexed."""
# OFFSET 0 and || '': one name, or one transaction, after the other by the index of its digest,
# whatever the planner assumes.
SELECT_NAMED: Final = f"""
WITH requested AS MATERIALIZED (
       SELECT name, hashtextextended(name, 0) AS digest FROM unnest($3::text[]) AS u(name)),
     named AS MATERIALIZED (
       SELECT t.kind, t.id, array_agg(DISTINCT r.name) AS names FROM requested AS r
        CROSS JOIN LATERAL (
              (SELECT t.kind, t.id FROM transactions AS t
                WHERE t.source || '' = $1 AND hashtextextended(t.id, 0) = r.digest AND t.id = r.name
               OFFSET 0)
              UNION ALL
              (SELECT t.kind, t.id FROM transactions AS t
                WHERE t.source || '' = $1 AND hashtextextended(t.idempotency_id, 0) = r.digest
                  AND t.idempotency_id = r.name
               OFFSET 0)
              UNION ALL
              (SELECT t.kind, t.id FROM transactions AS t
                WHERE t.source || '' = $1 AND hashtextextended({NAMED_BY_PROVIDER}, 0) = r.digest
                  AND {NAMED_BY_PROVIDER} = r.name
               OFFSET 0)
              UNION ALL
              (SELECT t.kind, t.id FROM transactions AS t
                WHERE t.source || '' = $1 AND hashtextextended({NAMED_BY_US}, 0) = r.digest
                  AND {NAMED_BY_US} = r.name
               OFFSET 0)) AS t
        WHERE t.kind = ANY ($2::text[])
        GROUP BY t.kind, t.id)
SELECT n.names AS known_as, t.kind, t.id, t.status, t.idempotency_id, t.customer_id, t.names,
       e.currency, e.effective_at, coalesce(e.net, 0) AS net, coalesce(e.fee, 0) AS fee
  FROM named AS n
 CROSS JOIN LATERAL (
       SELECT t.source, t.kind, t.id, t.status, t.idempotency_id, t.customer_id,
              {TRANSACTION_NAMES} AS names
         FROM transactions AS t
        WHERE t.source || '' = $1 AND t.kind = n.kind AND t.id = n.id
          AND hashtextextended(t.id, 0) = hashtextextended(n.id, 0) OFFSET 0) AS t
  LEFT JOIN LATERAL (
       SELECT e.currency, e.effective_at,
              coalesce(sum(e.amount) FILTER (WHERE e.account LIKE 'assets:wallet:%'), 0) AS net,
              coalesce(sum(e.amount) FILTER (WHERE e.account LIKE 'expenses:%'), 0) AS fee
         FROM entries AS e
        WHERE e.source = t.source AND e.kind = t.kind AND e.transaction = t.id
          AND e.position = ANY (journal_positions(t.source, t.kind, t.id))
          AND e.account IN ('assets:wallet:available', 'assets:wallet:held', 'expenses:fees',
                            'expenses:network_fees')
        GROUP BY e.currency, e.effective_at OFFSET 0) AS e ON true
 ORDER BY t.kind, t.id, e.currency, e.effective_at
"""  # noqa: S608 - made of constants
SELECT_ELSEWHERE: Final = """
WITH free AS (
       SELECT * FROM unnest($5::text[], $6::text[], $7::numeric[], $8::numeric[])
              AS u(name, id, net, gross)),
     stated AS MATERIALIZED (
       SELECT l.currency, l.amount, named.name FROM statement_lines AS l
        CROSS JOIN LATERAL unnest(ARRAY[l.idempotency_id, l.reference] || l.names) AS named(name)
        WHERE l.source = $1 AND l.currency <> $2 AND l.status = 'stated'
          AND l.booked_at >= $3 AND l.booked_at < $4 AND l.contract_id IS NULL),
     elsewhere AS (
       SELECT l.contract_id AS id, l.currency FROM statement_lines AS l
        WHERE l.source = $1 AND l.currency <> $2 AND l.status = 'stated'
          AND l.contract_id = ANY ($6::text[])
        UNION
       SELECT f.id, s.currency FROM stated AS s
         JOIN free AS f ON f.name = s.name AND s.amount IN (f.net, f.gross))
SELECT l.id, l.currency FROM elsewhere AS l
 WHERE NOT EXISTS (SELECT FROM entries AS e
                    WHERE e.source = $9 AND e.kind = ANY ($10::text[])
                      AND e.transaction = l.id AND e.currency = l.currency
                      AND e.position = ANY (journal_positions($9, NULL, l.id))
                      AND e.account LIKE 'assets:wallet:%')
 ORDER BY l.id, l.currency
"""
SELECT_DECISIONS: Final = """
SELECT a.id, a.anchor, a.action, a.by, a.note, a.decided_position, a.decided_at, a.items,
       coalesce(p.posted, 0) AS posted, coalesce(p.before, 0) AS before, a.effective_at
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
        coverage = coverage_of(
            [CoveredFile(*row) for row in files],
            self.rules.since,
            self.rules.calendar.business_time,
        )
        if coverage is None:
            return None
        parked = await self.connection.fetchval(SELECT_PARKED, [self.source, self.log])
        reason = None
        if parked:
            reason = f"{parked} parked events are not in these figures; see /v1/exceptions"
            coverage = changed(coverage, missing=(*coverage.missing, reason))
        period = coverage.period
        decisions = await self._decisions(currency, period)
        matching = await self._load(currency, period, _manual_matches(decisions.values()))
        matching.match()
        elsewhere = await self._elsewhere(currency, matching.movements.values())
        before = await self._balance(currency, period.opened_at)
        balance = await self._balance(currency, period.cutoff)
        groups = add_unmatched(matching, elsewhere)
        result = build_result(
            self.source,
            currency,
            coverage=coverage,
            ledger=LedgerBalances(before, balance),
            groups=groups,
            decisions=decisions,
            rules=self.rules,
        )
        months = MonthEndBuilder(result, groups, decisions, self.rules, reason)
        return changed(result, months=months.build(await self._month_balances(currency, period)))

    async def _month_balances(self, currency: str, period: Period) -> dict[MonthBounds, Decimal]:
        """Return the wallet's balances by the journal at the ends of the months of a period."""
        months = months_within(period, self.rules.zone)
        return {month: await self._balance(currency, month.end) for month in months}

    async def _balance(self, currency: str, before: datetime) -> Decimal:
        """Return the wallet's balance by the journal, of what is dated before a time."""
        bound = balance_index.Bound(self.source, self.position, before - MOMENT)
        sums = await balance_index.sums(
            self.connection, bound, [(name, currency) for name in WALLET]
        )
        return sum_of(debits - credited for debits, credited in sums.values())

    async def _load(self, currency: str, period: Period, manual: Sequence[ManualMatch]) -> Matching:
        """Read the items to match, and the transactions that lines name in vain."""
        rows = await self.connection.fetch(
            SELECT_LINES, self.log, currency, period.opened_at, period.cutoff
        )
        lines = [_item_of(row) for row in rows]
        begin, end = self._reach(period, lines)
        rows = await self.connection.fetch(SELECT_MOVEMENTS, self.source, currency, begin, end)
        movements = movements_of(rows)
        names = NameIndex(movements, self.rules)
        requested = names_to_find(lines, names)
        # What was matched by hand counts however far apart in time its items are.
        loaded = {movement.id for movement in movements}
        keys = (key.partition(":") for match in manual for key in match.keys)
        requested |= {name for kind, _, name in keys if kind != "line" and name not in loaded}
        more, known = await self._named(currency, sorted(requested), movements)
        names.add(more)
        return Matching.of(period, self.rules, lines, [*movements, *more], manual, known, names)

    def _reach(self, period: Period, lines: Sequence[StatementItem]) -> tuple[datetime, datetime]:
        """Return between which times a movement may match a line, or be in transit.

        A line may be dated before the period that it is booked in, or after it.
        """
        first = min((line.at for line in lines), default=period.opened_at)
        last = max((line.at for line in lines), default=period.cutoff)
        begin = max(min(first, period.opened_at), period.opened_at - DATED_OUTSIDE_MAX)
        end = min(max(last, period.cutoff), period.cutoff + DATED_OUTSIDE_MAX)
        reach = max(self.rules.window, self.rules.settlement)
        calendar = self.rules.calendar
        return calendar.before(begin, reach), calendar.after(end, reach)

    async def _named(
        self, currency: str, names: Sequence[str], loaded: Iterable[LedgerMovement]
    ) -> tuple[list[LedgerMovement], dict[str, KnownTransaction]]:
        """Read transactions by their names: those that moved this currency, and the others."""
        if not names:
            return [], {}
        rows = await self.connection.fetch(
            SELECT_NAMED, self.source, money_kinds(self.registry), list(names)
        )
        moved = {movement.key for movement in loaded}
        movements = [
            movement
            for movement in movements_of(
                [row for row in rows if row["currency"] == currency and (row["net"] or row["fee"])]
            )
            if movement.key not in moved
        ]
        moved |= {movement.key for movement in movements}
        known: dict[str, KnownTransaction] = {}
        for row in rows:
            if f"{row['kind']}:{row['id']}" in moved:
                continue
            other = row["currency"] if row["net"] else None
            for name in row["known_as"]:
                before = known.get(name)
                if before is None or (before.currency is None and other is not None):
                    known[name] = KnownTransaction(row["id"], row["kind"], row["status"], other)
        return movements, known

    async def _elsewhere(
        self, currency: str, movements: Iterable[LedgerMovement]
    ) -> dict[str, str]:
        """Return id → other currency whose statement has it, of free movements."""
        movements = [*movements]
        if not movements:
            return {}
        free = [(name, m.id, m.net, m.gross) for m in movements for name in m.names]
        times = [at for movement in movements for at, _ in movement.legs]
        reach = max(self.rules.window, self.rules.settlement)
        calendar = self.rules.calendar
        rows = await self.connection.fetch(
            SELECT_ELSEWHERE, self.log, currency, calendar.before(min(times), reach),
            calendar.after(max(times), reach), *map(list, zip(*free, strict=True)),
            self.source, money_kinds(self.registry),
        )  # fmt: skip
        return {row["id"]: row["currency"] for row in reversed(rows)}

    async def _decisions(self, currency: str, period: Period) -> dict[str, LatestDecision]:
        rows = await self.connection.fetch(
            SELECT_DECISIONS, self.source, currency, period.opened_at, period.cutoff
        )
        return {
            row["id"]: LatestDecision(
                row["id"], row["anchor"], row["action"], row["by"] or "", row["note"] or "",
                row["decided_position"], row["decided_at"], row["posted"], row["before"],
                tuple(row["items"]), row["effective_at"],
            )
            for row in rows
        }  # fmt: skip


def _manual_matches(decisions: Iterable[LatestDecision]) -> list[ManualMatch]:
    return [ManualMatch(d.anchor, d.keys, d.position) for d in decisions if d.action == "match"]


def _item_of(row: Mapping[str, Any]) -> StatementItem:
    return StatementItem(
        row["line"], row["row_kind"], row["amount"], row["effective_at"], row["contract_id"],
        row["idempotency_id"], row["reference"], tuple(row["names"]), row["counterparty"],
        row["description"], row["booked_at"],
    )  # fmt: skip


def movements_of(rows: Sequence[Mapping[str, Any]]) -> list[LedgerMovement]:
    """Return the movements of rows that are sorted by kind, id and time."""
    movements: list[LedgerMovement] = []
    for (kind, name), group in groupby(rows, itemgetter("kind", "id")):
        dated = list(group)
        legs = tuple((row["effective_at"], row["net"]) for row in dated)
        fee = sum_of(row["fee"] for row in dated)
        last = dated[-1]
        movements.append(
            LedgerMovement(
                kind, name, legs, fee, last["idempotency_id"],
                tuple(dict.fromkeys(n for n in last["names"] if n != last["idempotency_id"])),
                last["customer_id"],
            )
        )  # fmt: skip
    return movements


def names_to_find(lines: Iterable[StatementItem], index: NameIndex) -> set[str]:
    """Return the names on lines that none of the movements of an index has.

    Where a line states the amount of the one movement that it names, its other names are needless.
    """
    missing: set[str] = set()
    for line in lines:
        if line.contract is not None:
            if not index.having(line.contract):
                missing.add(line.contract)
            continue
        having = {name: index.having(name) for name in line.all_names}
        named = {movement.key: movement for found in having.values() for movement in found}
        if len(named) == 1 and fits(line, *named.values()):
            continue
        missing.update(name for name, found in having.items() if not found)
    return missing
