"""Read what changed a closed month after it was closed: entries and statement lines.

Both are looked for in shards of the log from the close on, by their dates, so that only what is
dated before the end of the month is read, however much was recorded since.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from ledger.books.balance_index import SHARD_BITS
from ledger.eventlog.identity import statements_log
from ledger.model import plain
from ledger.queries.schemas.closes import ChangedEntry, ChangedLine, CloseChanges
from ledger.queries.snapshot import Snapshot
from ledger.reconciliation.closing.close_log import Close

LISTED_MAX: Final = 100
"""Entries and lines of one close that are listed; all are counted."""

SELECT_ENTRIES: Final = f"""
WITH late AS MATERIALIZED (
       SELECT e.position, e.kind, e.transaction, sum(e.amount) AS amount,
              min(e.effective_at) AS effective_at, min(e.recorded_at) AS recorded_at
         FROM checkpoints AS c
        CROSS JOIN generate_series($3::bigint >> {SHARD_BITS}, c.position >> {SHARD_BITS})
                   AS shards(shard)
        CROSS JOIN unnest('{{assets:wallet:available,assets:wallet:held}}'::text[])
                   AS requested(account)
        CROSS JOIN LATERAL (
              SELECT * FROM entries
               WHERE source = $1 AND currency = $2 AND account = requested.account
                 AND (position >> {SHARD_BITS} << 32) + hashtext(account)
                     = (shard << 32) + hashtext(requested.account)
                 AND effective_at < $4 AND position > $3 OFFSET 0) AS e
        WHERE c.source = $1
        GROUP BY e.position, e.kind, e.transaction HAVING sum(e.amount) <> 0)
SELECT *, count(*) OVER () AS count, sum(amount) OVER () AS total
  FROM late ORDER BY position, kind, transaction LIMIT $5
"""  # noqa: S608 - made of the constant SHARD_BITS
SELECT_LINES: Final = f"""
SELECT l.position, l.line, l.status, l.amount, l.booked_at, l.versions, l.file,
       count(*) OVER () AS count
  FROM checkpoints AS c
 CROSS JOIN generate_series($3::bigint >> {SHARD_BITS}, c.position >> {SHARD_BITS}) AS shards(shard)
 CROSS JOIN LATERAL (
       SELECT * FROM statement_lines
        WHERE source = $1 AND currency = $2 AND (position >> {SHARD_BITS}) = shard
          AND booked_at < $4 AND position > $3 OFFSET 0) AS l
 WHERE c.source = $1
 ORDER BY l.position, l.line LIMIT $5
"""  # noqa: S608 - made of the constant SHARD_BITS
SELECT_BALANCES: Final = """
SELECT (figures->>'statement')::numeric AS statement FROM ledger.recon_months
 WHERE source = $1 AND currency = $2 AND period = $3
"""


async def read_changes(snapshot: Snapshot, source: str, close: Close) -> CloseChanges:
    """Read what was recorded after a close and is dated before its end.

    The ledger's balance changed by the sum of the entries; the statement's is compared with that of
    the latest reconciliation, which may be older than the lines.
    """
    entries = await snapshot.rows(
        SELECT_ENTRIES, source, close.currency, close.books_position, close.end, LISTED_MAX
    )
    log = statements_log(source)
    lines = await snapshot.rows(
        SELECT_LINES, log, close.currency, close.statements_position, close.end, LISTED_MAX
    )
    now = await snapshot.row(SELECT_BALANCES, source, close.currency, close.period)
    statement = None if now is None else now["statement"]
    return CloseChanges(
        changed=bool(entries or lines),
        ledger=plain(entries[0]["total"]) if entries else "0",
        statement=None if statement is None else plain(statement - close.statement_balance),
        entries_count=entries[0]["count"] if entries else 0,
        lines_count=lines[0]["count"] if lines else 0,
        entries=[_entry(source, row) for row in entries],
        lines=[
            ChangedLine(
                log, row["position"], row["line"], _change(row), plain(row["amount"]),
                row["booked_at"],
                f"/v1/statement_lines?source={quote(source)}&line={quote(row['line'], safe='')}",
            )
            for row in lines
        ],
    )  # fmt: skip


def _entry(source: str, row: Any) -> ChangedEntry:
    kind, name = row["kind"], quote(row["transaction"], safe="")
    address = f"/v1/breaks/{name}" if kind == "adjustment" else (
        f"/v1/transactions/{quote(source)}/{name}"
    )  # fmt: skip
    return ChangedEntry(
        source, row["position"], kind, row["transaction"], plain(row["amount"]),
        row["effective_at"], row["recorded_at"], address,
    )  # fmt: skip


def _change(row: Any) -> str:
    if row["status"] != "stated":
        return "withdrawn"
    return "new" if row["versions"] == 1 else "changed"
