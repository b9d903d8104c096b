"""Which statement lines and stated balances of a closed month differ from those at its close.

The SQL is made for its callers: parameters are values or columns, like `$1` or `c.currency`.
"""

from __future__ import annotations

from ledger.books.balance_index import SHARD_BITS


def changed_lines_sql(log: str, currency: str, end: str, position: str) -> str:
    """Return the SELECT of lines whose part in the balance at `end` differs from that at a close.

    `position` is where the log of statements was at the close. What is booked before the end is
    read, and of what is booked later only the lines that were stated more than once.
    """
    return f"""
SELECT t.position, t.line, t.amount, t.booked_at, was.booked_at AS booked_before,
       CASE WHEN t.status <> 'stated' THEN 'withdrawn' WHEN was.booked_at IS NULL THEN 'new'
            WHEN (t.booked_at < {end}) <> (was.booked_at < {end}) THEN 'moved'
            ELSE 'changed' END AS change
  FROM (SELECT l.* FROM checkpoints AS k
         CROSS JOIN generate_series({position} >> {SHARD_BITS}, k.position >> {SHARD_BITS})
                    AS shards(shard)
         CROSS JOIN LATERAL (
               SELECT * FROM statement_lines
                WHERE source = {log} AND currency = {currency}
                  AND (position >> {SHARD_BITS}) = shard
                  AND booked_at < {end} AND position > {position} OFFSET 0) AS l
         WHERE k.source = {log}
         UNION ALL
        (SELECT * FROM statement_lines
          WHERE source = {log} AND currency = {currency} AND versions > 1
            AND position > {position} AND booked_at >= {end} OFFSET 0)) AS t
  LEFT JOIN LATERAL (
       SELECT x.booked_at
         FROM (SELECT e.status, e.provider_at AS booked_at FROM ledger.events AS e
                WHERE e.source = {log} AND e.origin = 'statement'
                  AND e.kind || '' = 'statement_line' AND e.resource_id = t.id
                  AND hashtextextended(e.resource_id, 0) = hashtextextended(t.id, 0)
                  AND e.position + 0 <= {position}
                ORDER BY e.position + 0 DESC LIMIT 1) AS x
        WHERE x.status = 'stated') AS was ON t.versions > 1
 WHERE was.booked_at < {end} OR (t.status = 'stated' AND t.booked_at < {end})
"""  # noqa: S608 - made of constants of the callers


def stated_now_sql(source: str, currency: str, end: str, period: str) -> str:
    """Return the SELECT of the statement's balance at the end of a month, by the latest result.

    A result keeps the latest months only: `is_kept` tells whether it has this one; `is_covered`,
    whether statements reach its end.
    """
    return f"""
SELECT EXISTS (SELECT FROM ledger.recon_runs AS r
                WHERE r.source = {source} AND r.currency = {currency} AND r.closed_at >= {end})
       AS is_covered,
       m.period IS NOT NULL AS is_kept, (m.figures->>'statement')::numeric AS statement
  FROM (SELECT 1) AS one
  LEFT JOIN ledger.recon_months AS m
    ON m.source = {source} AND m.currency = {currency} AND m.period = {period}
"""  # noqa: S608 - made of constants of the callers
