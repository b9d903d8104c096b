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
from ledger.queries.closed_months import changed_lines_sql, stated_now_sql
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
SELECT *, count(*) OVER () AS count FROM ({
    changed_lines_sql(log="$1", currency="$2", end="$4::timestamptz", position="$3::bigint")
}) AS l
 ORDER BY position, line LIMIT $5
"""  # noqa: S608 - made of a constant
SELECT_STATED: Final = stated_now_sql(
    source="$1", currency="$2", end="$4::timestamptz", period="$3"
)


async def read_changes(snapshot: Snapshot, source: str, close: Close) -> CloseChanges:
    """Read what was recorded after a close and changes what is dated before its end.

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
    now = await snapshot.row(SELECT_STATED, source, close.currency, close.period, close.end)
    statement = None if now is None else now["statement"]
    is_other = now is None or not now["is_covered"] or (
        now["is_kept"] and statement != close.statement_balance
    )  # fmt: skip
    return CloseChanges(
        changed=bool(entries or lines) or is_other,
        ledger=plain(entries[0]["total"]) if entries else "0",
        statement=None if statement is None else plain(statement - close.statement_balance),
        entries_count=entries[0]["count"] if entries else 0,
        lines_count=lines[0]["count"] if lines else 0,
        entries=[_entry(source, row) for row in entries],
        lines=[
            ChangedLine(
                log, row["position"], row["line"], row["change"], plain(row["amount"]),
                row["booked_at"], row["booked_before"],
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
