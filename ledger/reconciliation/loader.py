"""Reading what is to be reconciled: statement lines, movements, decisions, balances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from ledger.books import balance_index as cells
from ledger.config.reconciliation import Rules
from ledger.model import changed
from ledger.reconciliation.coverage import Coverage, CoveredFile, coverage_of
from ledger.reconciliation.items import (
    ZERO,
    Frame,
    Known,
    LedgerMovement,
    Manual,
    StatementItem,
    added,
)
from ledger.reconciliation.matching import Matcher
from ledger.reconciliation.result import Decided, LedgerBalances, Result, conclude
from ledger.registry import Registry

WALLET: Final = ("assets:wallet:available", "assets:wallet:held")
MOMENT: Final = timedelta(microseconds=1)
"""The least difference between two times: what is dated before one is dated up to the last."""

SELECT_CURRENCIES: Final = """
SELECT DISTINCT currency FROM statements WHERE source = $1 AND status = 'imported' ORDER BY currency
"""
SELECT_FILES: Final = """
SELECT sha256, opened_at, closed_at, opening, closing, position
  FROM statements WHERE source = $1 AND currency = $2 AND status = 'imported'
"""
SELECT_LINES: Final = """
SELECT line, row_kind, amount, effective_at, contract_id, idempotency_id, reference
  FROM statement_lines
 WHERE source = $1 AND currency = $2 AND status = 'stated'
   AND effective_at >= $3 AND effective_at < $4
"""
SELECT_MOVES: Final = """
WITH moved AS (
       SELECT e.kind, e.transaction AS id, e.effective_at,
              coalesce(sum(e.amount) FILTER (WHERE e.account LIKE 'assets:wallet:%'), 0) AS net,
              coalesce(sum(e.amount) FILTER (WHERE e.account LIKE 'expenses:%'), 0) AS fee
         FROM checkpoints AS c
        CROSS JOIN generate_series(0, c.position >> 16) AS slices(slice)
        CROSS JOIN unnest('{assets:wallet:available,assets:wallet:held,expenses:fees,
                            expenses:network_fees}'::text[]) AS wanted(account)
        CROSS JOIN LATERAL (
              SELECT kind, transaction, effective_at, amount, account FROM entries
               WHERE source = $1 AND currency = $2 AND kind <> 'adjustment'
                 AND account = wanted.account
                 AND (position >> 16 << 32) + hashtext(account)
                     = (slice << 32) + hashtext(wanted.account)
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
"""
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
       SELECT hashtextextended(wanted, 0) FROM unnest($3::text[]) AS wanted))
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
SELECT_DECIDED: Final = """
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
class Pair:
    """A source and the log of its statements, read through one snapshot of live books.

    The connection's search_path names a generation.
    """

    connection: Any
    registry: Registry
    source: str
    log: str
    rules: Rules
    position: int
    """Where the books of the source are."""

    async def currencies(self) -> list[str]:
        """Return the currencies that have a statement."""
        rows = await self.connection.fetch(SELECT_CURRENCIES, self.log)
        return [row["currency"] for row in rows]

    async def reconcile(self, currency: str) -> Result | None:
        """Reconcile one currency as the snapshot has it; None when it has no statement."""
        files = await self.connection.fetch(SELECT_FILES, self.log, currency)
        cover = coverage_of([CoveredFile(*row) for row in files], self.rules.since)
        if cover is None:
            return None
        parked = await self.connection.fetchval(SELECT_PARKED, [self.source, self.log])
        if parked:
            told = f"{parked} parked events are not in these figures; see /v1/exceptions"
            cover = changed(cover, missing=(*cover.missing, told))
        frame = cover.frame
        decided = await self._decided(currency, frame)
        manual = _manual(decided.values())
        matcher, known = await self._matcher(currency, cover, manual)
        matcher.match(manual)
        elsewhere = await self._elsewhere(currency, matcher.moves.values())
        before, balance = [
            await self._held(currency, moment) for moment in (frame.opened, frame.cutoff)
        ]
        return conclude(
            self.source,
            currency,
            cover=cover,
            ledger=LedgerBalances(before, balance),
            groups=matcher.finish(known, elsewhere),
            decided=decided,
            rules=self.rules,
        )

    async def _held(self, currency: str, before: datetime) -> Decimal:
        """Return what the journal says that a wallet holds of what is dated before a moment."""
        bound = cells.Bound(self.source, self.position, before - MOMENT)
        sums = await cells.sums(self.connection, bound, [(name, currency) for name in WALLET])
        return added(debits - credited for debits, credited in sums.values())

    async def _matcher(
        self, currency: str, cover: Coverage, manual: Sequence[Manual]
    ) -> tuple[Matcher, dict[str, Known]]:
        frame = cover.frame
        lines = [
            StatementItem(*row)
            for row in await self.connection.fetch(
                SELECT_LINES, self.log, currency, frame.opened, frame.cutoff
            )
        ]
        reach = max(self.rules.window, self.rules.settlement)
        rows = await self.connection.fetch(
            SELECT_MOVES, self.source, currency, frame.opened - reach, frame.cutoff + reach
        )
        moves = _moves(rows)
        have = {move.id for move in moves}
        named = {line.contract for line in lines if line.contract}
        # What was matched by hand counts however far apart in time its items are.
        keys = (key.partition(":") for each in manual for key in each.keys)
        named |= {name for kind, _, name in keys if kind != "line"}
        wanted = sorted(named - have)
        more, known = await self._named(currency, wanted)
        return Matcher.of(frame, self.rules, lines, [*moves, *more]), known

    async def _named(
        self, currency: str, ids: Sequence[str]
    ) -> tuple[list[LedgerMovement], dict[str, Known]]:
        """Find transactions by their ids: those that moved this currency, and what of the rest."""
        if not ids:
            return [], {}
        kinds = money_kinds(self.registry)
        rows = await self.connection.fetch(SELECT_NAMED, self.source, kinds, list(ids))
        moves = _moves([row for row in rows if row["currency"] == currency and row["net"]])
        moved = {move.id for move in moves}
        known: dict[str, Known] = {}
        for row in rows:
            if row["id"] in moved:
                continue
            other = row["currency"] if row["net"] else None
            before = known.get(row["id"])
            if before is None or (before.currency is None and other is not None):
                known[row["id"]] = Known(row["kind"], row["status"], other)
        return moves, known

    async def _elsewhere(self, currency: str, moves: Iterable[LedgerMovement]) -> dict[str, str]:
        ids = sorted({move.id for move in moves})
        if not ids:
            return {}
        rows = await self.connection.fetch(
            SELECT_ELSEWHERE, self.log, ids, currency, self.source, money_kinds(self.registry)
        )
        return {row["contract_id"]: row["currency"] for row in reversed(rows)}

    async def _decided(self, currency: str, frame: Frame) -> dict[str, Decided]:
        rows = await self.connection.fetch(
            SELECT_DECIDED, self.source, currency, frame.opened, frame.cutoff
        )
        return {
            row["id"]: Decided(
                row["id"], row["anchor"], row["action"], row["by"] or "", row["note"] or "",
                row["decided_position"], row["decided_at"], row["posted"], row["before"],
                tuple(row["items"]),
            )
            for row in rows
        }  # fmt: skip


def _manual(decided: Iterable[Decided]) -> list[Manual]:
    return [Manual(d.anchor, d.keys, d.position) for d in decided if d.action == "match"]


def _moves(rows: Sequence[Mapping[str, Any]]) -> list[LedgerMovement]:
    """Make movements of rows that are sorted by kind, id and time."""
    found: list[LedgerMovement] = []
    legs: list[tuple[datetime, Decimal]] = []
    fee = ZERO
    for place, row in enumerate(rows):
        legs.append((row["effective_at"], row["net"]))
        fee += row["fee"]
        following = rows[place + 1] if place + 1 < len(rows) else None
        if following is not None and (following["kind"], following["id"]) == (
            row["kind"], row["id"],
        ):  # fmt: skip
            continue
        found.append(
            LedgerMovement(
                row["kind"], row["id"], tuple(legs), fee, row["idempotency_id"], _names(row)
            )
        )
        legs, fee = [], ZERO
    return found


def _names(row: Mapping[str, Any]) -> tuple[str, ...]:
    names = [row.get(name) for name in ("end_to_end", "hash")]
    # Until the chain has taken it, a transfer's hash reads "pending".
    return tuple(dict.fromkeys(name for name in names if name and name != "pending"))
