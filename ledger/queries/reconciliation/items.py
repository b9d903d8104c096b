"""Reading the statement lines and transactions that matches and breaks name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlencode

import msgspec
import orjson

from ledger.payload import plain
from ledger.queries.schemas.reconciliation import (
    BreakStep,
    ReconciledLine,
    ReconciledTransaction,
)
from ledger.queries.snapshot import DatabaseRow, Snapshot
from ledger.statements.validation import names_of

SELECT_LINES: Final = """
SELECT l.currency, l.line, l.effective_at, l.amount, l.row_kind AS kind, l.description,
       l.contract_id, l.idempotency_id, l.reference, l.names, l.provider_id, l.counterparty,
       coalesce(l.booked_at, l.effective_at) AS booked_at
  FROM statement_lines AS l
 WHERE l.source = $1 || '.statements' AND l.currency = ANY ($2::text[])
   AND l.line = ANY ($3::text[])
   AND hashtextextended(l.line, 0) = ANY (ARRAY(
       SELECT hashtextextended(line, 0) FROM unnest($3::text[]) AS line))
"""
# What each transaction did to the wallet of the currency that its row in the parameters names; of
# every kind where that is `contract`.
SELECT_TRANSACTIONS: Final = """
SELECT u.currency, u.kind AS requested, t.kind, t.id,
       coalesce(m.effective_at, t.effective_at) AS effective_at,
       m.amount, m.fee, t.status, t.customer_id, t.idempotency_id, t.details
  FROM (SELECT DISTINCT currency, kind, id
          FROM unnest($2::text[], $3::text[], $4::text[]) AS u(currency, kind, id)) AS u
  JOIN transactions AS t
    ON t.source = $1 AND (t.kind = u.kind OR u.kind = 'contract') AND t.id = u.id
   AND hashtextextended(t.id, 0) = hashtextextended(u.id, 0)
 CROSS JOIN LATERAL (
       SELECT min(e.effective_at) AS effective_at,
              sum(e.amount) FILTER (WHERE e.account LIKE 'assets:wallet:%') AS amount,
              sum(e.amount) FILTER (WHERE e.account LIKE 'expenses:%') AS fee
         FROM entries AS e
        WHERE e.source = $1 AND e.kind = t.kind AND e.transaction = t.id
          AND e.position = ANY (journal_positions($1, t.kind, t.id))
          AND e.currency = u.currency
          AND e.account IN ('assets:wallet:available', 'assets:wallet:held', 'expenses:fees',
                            'expenses:network_fees')) AS m
"""
SELECT_POSTED: Final = """
SELECT a.currency, a.kind AS requested, a.kind, a.id, a.effective_at, a.action AS status, p.amount
  FROM adjustments AS a
 CROSS JOIN LATERAL (
       SELECT sum(e.amount) AS amount FROM entries AS e
        WHERE e.source = a.source AND e.kind = 'adjustment' AND e.transaction = a.id
          AND e.position = ANY (journal_positions(a.source, 'adjustment', a.id))
          AND e.currency = a.currency
          AND e.account IN ('assets:wallet:available', 'assets:wallet:held')) AS p
 WHERE a.source = $1 AND a.kind = 'adjustment' AND a.id = ANY ($2::text[])
"""
SELECT_STEPS: Final = """
SELECT id, words::text AS words FROM adjustments
 WHERE source = $1 AND kind = 'adjustment' AND id = ANY ($2::text[])
"""

LINE: Final = "line"
ADJUSTMENT: Final = "adjustment"
REFERENCES: Final = (
    "end_to_end_ref", "transaction_hash", "external_reference", "payout_invoice_id",
    "merchant_ref", "invoice_id",
)  # fmt: skip
"""Details of a transaction that name it elsewhere."""
NO_HASH_YET: Final = "pending"
"""What a transfer names as its hash until the chain has taken it."""
COUNTERPARTIES: Final = ("counterparty", "counterparty_name", "recipient_name", "sender_name")
"""Details of a transaction that name the other party, where the facts have one."""

Key: TypeAlias = tuple[str, str]
"""A currency and the name of an item: `line:…`, `<kind>:…`; `contract:…` is of any kind."""


@dataclass(frozen=True, slots=True)
class ReconciledItems:
    """The items of some breaks or matches of one source, by currency and name."""

    lines: Mapping[Key, ReconciledLine]
    transactions: Mapping[Key, list[ReconciledTransaction]]

    def lines_of(self, currency: str, items: Iterable[str]) -> list[ReconciledLine]:
        """Return the lines among items, oldest first."""
        keys = [(currency, item) for item in items]
        found = [self.lines[key] for key in keys if key in self.lines]
        return sorted(found, key=lambda line: (line.effective_at, line.line))

    def transactions_of(self, currency: str, items: Iterable[str]) -> list[ReconciledTransaction]:
        """Return the transactions among items, oldest first."""
        found = [each for item in items for each in self.transactions.get((currency, item), ())]
        return sorted(found, key=lambda each: (each.effective_at, each.kind, each.id))


async def read_items(snapshot: Snapshot, source: str, keys: Iterable[Key]) -> ReconciledItems:
    """Read the lines and transactions that items of a source name, those that are there."""
    split = [(currency, *item.partition(":")[::2]) for currency, item in keys]
    names = sorted({name for _, kind, name in split if kind == LINE})
    currencies = sorted({currency for currency, _, _ in split})
    posted = sorted({name for _, kind, name in split if kind == ADJUSTMENT})
    moved = sorted({key for key in split if key[1] not in (LINE, ADJUSTMENT)})
    lines: dict[Key, ReconciledLine] = {}
    rows: list[DatabaseRow] = []
    if names:
        for row in await snapshot.rows(SELECT_LINES, source, currencies, names):
            lines[row["currency"], f"{LINE}:{row['line']}"] = _line(source, row)
    if moved:
        columns = [list(column) for column in zip(*moved, strict=True)]
        rows += await snapshot.rows(SELECT_TRANSACTIONS, source, *columns)
    if posted:
        rows += await snapshot.rows(SELECT_POSTED, source, posted)
    transactions: dict[Key, list[ReconciledTransaction]] = {}
    for row in rows:
        key = row["currency"], f"{row['requested']}:{row['id']}"
        transactions.setdefault(key, []).append(_transaction(source, row))
    return ReconciledItems(lines, transactions)


async def read_steps(
    snapshot: Snapshot, source: str, break_ids: Iterable[str]
) -> dict[str, list[BreakStep]]:
    """Read the decisions and notes of breaks of a source, oldest first, by the break's id."""
    rows = await snapshot.rows(SELECT_STEPS, source, sorted(break_ids))
    return {row["id"]: msgspec.json.decode(row["words"], type=list[BreakStep]) for row in rows}


def _line(source: str, row: DatabaseRow) -> ReconciledLine:
    names = (
        row["contract_id"], row["idempotency_id"], row["reference"], row["provider_id"],
        *(row["names"] or ()),
    )  # fmt: skip
    return ReconciledLine(
        line=row["line"],
        effective_at=row["effective_at"],
        booked_at=row["booked_at"],
        amount=plain(row["amount"]),
        kind=row["kind"],
        counterparty=row["counterparty"] or None,
        description=row["description"] or None,
        references=_references(names),
        href=f"/v1/statement_lines?{urlencode({'source': source, 'line': row['line']})}",
    )


def _transaction(source: str, row: DatabaseRow) -> ReconciledTransaction:
    details = _details(row)
    names = [row.get("idempotency_id"), *(details.get(name) for name in REFERENCES)]
    if details.get("transaction_hash") == NO_HASH_YET:
        names.remove(NO_HASH_YET)
    path = f"/v1/transactions/{quote(source, safe='')}/{quote(row['id'], safe='')}"
    if row["kind"] == ADJUSTMENT:
        path = f"/v1/breaks/{quote(row['id'], safe='')}"
    amount, fee = row["amount"], row.get("fee")
    return ReconciledTransaction(
        kind=row["kind"],
        id=row["id"],
        effective_at=row["effective_at"],
        amount=None if amount is None else plain(amount),
        fee=None if fee is None else plain(fee),
        status=row["status"],
        customer_id=row.get("customer_id"),
        counterparty=next(iter(_references(details.get(name) for name in COUNTERPARTIES)), None),
        references=_references(names),
        href=path if row["kind"] == ADJUSTMENT else f"{path}?kind={quote(row['kind'], safe='')}",
    )


def _details(row: DatabaseRow) -> Mapping[str, Any]:
    details = row.get("details")
    decoded = orjson.loads(details) if isinstance(details, str) else details
    return decoded if isinstance(decoded, dict) else {}


def _references(names: Iterable[Any]) -> list[str]:
    """Return the names that are texts and name something, each once."""
    return list(names_of(*(name for name in names if isinstance(name, str))))
