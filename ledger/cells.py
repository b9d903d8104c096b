"""Cells: sums over the journal, so that an earlier balance of a busy account is read in no time.

A balance as known at position P and dated up to E is a sum over entries with `position <= P` and
`effective_at <= E`. The log is cut into spans of `SPAN` positions. For every account that once
had `HOT_ENTRIES` entries in one span, a span that is complete leaves sums by hour and by day; the
other accounts have few entries. Cells are an index and not a view: they may lag behind or be
missing, and the answers stay the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

Account: TypeAlias = tuple[str, str]
"""(account, currency)"""
Sums: TypeAlias = dict[Account, tuple[Decimal, Decimal]]
"""(account, currency) → debits, credits"""

SPAN: Final = 32_768
"""Positions that share their cells; books keep the size that they began with."""

HOT_ENTRIES: Final = 256
"""Entries within one span from which on an account has cells."""

FOREVER: Final = datetime.max.replace(tzinfo=UTC)
"""The effective time of a question that names none: no entry is dated later."""

TABLES: Final = (
    """
CREATE TABLE spans (source text PRIMARY KEY, size bigint NOT NULL, done bigint NOT NULL)
""",
    """
CREATE TABLE hot (source text, account text, currency text, PRIMARY KEY (source, account, currency))
""",
    """
CREATE TABLE cells (
    source text, account text, currency text, unit text, moment timestamptz, span bigint,
    debits numeric NOT NULL, credits numeric NOT NULL,
    PRIMARY KEY (source, account, currency, unit, moment, span) INCLUDE (debits, credits))
""",
)
SELECT_DUE: Final = """
SELECT c.position, coalesce(s.size, $2) AS size, coalesce(s.done, 0) AS done
  FROM checkpoints AS c LEFT JOIN spans AS s ON s.source = c.source
 WHERE c.source = $1
"""
INSERT_SPANS: Final = "INSERT INTO spans VALUES ($1, $2, 0) ON CONFLICT DO NOTHING"
ADVANCE_SPANS: Final = "UPDATE spans SET done = $2 + 1 WHERE source = $1 AND done = $2"
# $2 < position <= $3. What an account had before it became hot is summed with its first span.
INSERT_CELLS: Final = """
WITH known AS (
       SELECT account, currency FROM hot WHERE source = $1),
     fresh AS (
       INSERT INTO hot
       SELECT e.source, e.account, e.currency FROM entries AS e
        WHERE e.source = $1 AND e.position > $2 AND e.position <= $3
          AND (e.account, e.currency) NOT IN (SELECT account, currency FROM known)
        GROUP BY e.source, e.account, e.currency HAVING count(*) >= $5
       RETURNING account, currency),
     lines AS (
       SELECT e.account, e.currency, e.effective_at, e.position, e.debits, e.amount
         FROM entries AS e JOIN known AS k ON (k.account, k.currency) = (e.account, e.currency)
        WHERE e.source = $1 AND e.position > $2 AND e.position <= $3
        UNION ALL
       SELECT e.account, e.currency, e.effective_at, e.position, e.debits, e.amount
         FROM entries AS e JOIN fresh AS f ON (f.account, f.currency) = (e.account, e.currency)
        WHERE e.source = $1 AND e.position <= $3),
     hours AS MATERIALIZED (
       SELECT account, currency, date_trunc('hour', effective_at, 'UTC') AS moment,
              (position - 1) / $4::bigint AS span,
              sum(debits) AS debits, sum(debits - amount) AS credits
         FROM lines GROUP BY 1, 2, 3, 4)
INSERT INTO cells
SELECT $1, account, currency, 'hour', moment, span, debits, credits FROM hours
 UNION ALL
SELECT $1, account, currency, 'day', date_trunc('day', moment, 'UTC'), span,
       sum(debits), sum(credits)
  FROM hours GROUP BY account, currency, date_trunc('day', moment, 'UTC'), span
"""
SELECT_SPANS: Final = "SELECT size, done FROM spans WHERE source = $1"
SELECT_HOT: Final = """
SELECT h.account, h.currency FROM unnest($2::text[], $3::text[]) AS u(account, currency)
  JOIN hot AS h ON h.source = $1 AND h.account = u.account AND h.currency = u.currency
"""
# Whole days, then the whole hours of the last day, then the last hour line by line.
SELECT_COVERED: Final = """
SELECT u.account, u.currency, s.debits, s.credits
  FROM unnest($2::text[], $3::text[]) AS u(account, currency)
 CROSS JOIN LATERAL (
       SELECT sum(part.debits) AS debits, sum(part.credits) AS credits FROM (
              SELECT c.debits, c.credits FROM cells AS c
               WHERE c.source = $1 AND c.account = u.account AND c.currency = u.currency
                 AND c.unit = 'day' AND c.span < $4
                 AND c.moment < date_trunc('day', $6::timestamptz, 'UTC')
               UNION ALL
              SELECT c.debits, c.credits FROM cells AS c
               WHERE c.source = $1 AND c.account = u.account AND c.currency = u.currency
                 AND c.unit = 'hour' AND c.span < $4
                 AND c.moment >= date_trunc('day', $6::timestamptz, 'UTC')
                 AND c.moment < date_trunc('hour', $6::timestamptz, 'UTC')
               UNION ALL
              SELECT e.debits, e.debits - e.amount FROM entries AS e
               WHERE e.source = $1 AND e.account = u.account AND e.currency = u.currency
                 AND e.effective_at >= date_trunc('hour', $6::timestamptz, 'UTC')
                 AND e.effective_at <= $6 AND e.position <= $5) AS part) AS s
"""
SELECT_TAIL: Final = """
SELECT account, currency, sum(debits) AS debits, sum(debits - amount) AS credits
  FROM entries
 WHERE source = $1 AND position > $4 AND position <= $5 AND effective_at <= $6
   AND account = ANY ($2::text[]) AND currency = ANY ($3::text[])
 GROUP BY account, currency
"""
SELECT_LINES: Final = """
SELECT u.account, u.currency, s.debits, s.credits
  FROM unnest($2::text[], $3::text[]) AS u(account, currency)
 CROSS JOIN LATERAL (
       SELECT sum(e.debits) AS debits, sum(e.debits - e.amount) AS credits FROM entries AS e
        WHERE e.source = $1 AND e.account = u.account AND e.currency = u.currency
          AND e.effective_at <= $5 AND e.position <= $4) AS s
"""
_ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Bound:
    """Which part of one source's journal counts: recorded up to `position`, dated up to a time."""

    source: str
    position: int
    effective_at: datetime = FOREVER


async def due(connection: Any, source: str) -> int:
    """Return the position at which the next span is complete."""
    row = await connection.fetchrow(SELECT_DUE, source, SPAN)
    return int((row["done"] + 1) * row["size"]) if row else SPAN


async def advance(connection: Any, source: str) -> int:
    """Sum the next span if the books have completed it; return where the one after it ends."""
    row = await connection.fetchrow(SELECT_DUE, source, SPAN)
    if row is None:
        return SPAN
    size, done = int(row["size"]), int(row["done"])
    if row["position"] < (done + 1) * size:
        return (done + 1) * size
    async with connection.transaction():
        await connection.execute(INSERT_SPANS, source, size)
        if await connection.execute(ADVANCE_SPANS, source, done) == "UPDATE 1":
            low, high = done * size, (done + 1) * size
            await connection.execute(INSERT_CELLS, source, low, high, size, HOT_ENTRIES)
    return (done + 2) * size


async def sums(connection: Any, bound: Bound, accounts: Sequence[Account]) -> Sums:
    """Return debits and credits of accounts within `bound`; accounts without entries have zero."""
    found: Sums = dict.fromkeys(accounts, (_ZERO, _ZERO))
    names = _columns(accounts)
    spans = await connection.fetchrow(SELECT_SPANS, bound.source)
    hot: list[Account] = []
    if spans is not None:
        rows = await connection.fetch(SELECT_HOT, bound.source, *names)
        hot = [(row["account"], row["currency"]) for row in rows]
    if hot and spans is not None:
        usable = min(spans["done"], bound.position // spans["size"])
        await _add_hot(connection, found, bound, hot, usable, usable * spans["size"])
    cold = [account for account in accounts if account not in set(hot)]
    if cold:
        within = (bound.position, bound.effective_at)
        rows = await connection.fetch(SELECT_LINES, bound.source, *_columns(cold), *within)
        _add(found, cold, rows)
    return found


async def _add_hot(
    connection: Any, found: Sums, bound: Bound, hot: Sequence[Account], spans: int, covered: int
) -> None:
    given = (bound.source, *_columns(hot))
    at = bound.effective_at
    _add(found, hot, await connection.fetch(SELECT_COVERED, *given, spans, covered, at))
    _add(found, hot, await connection.fetch(SELECT_TAIL, *given, covered, bound.position, at))


def _add(found: Sums, wanted: Sequence[Account], rows: Iterable[Mapping[str, Any]]) -> None:
    accounts = set(wanted)
    for row in rows:
        account = (row["account"], row["currency"])
        if row["debits"] is not None and account in accounts:
            debits, credited = found[account]
            found[account] = (debits + row["debits"], credited + row["credits"])


def _columns(accounts: Sequence[Account]) -> tuple[list[str], list[str]]:
    return [name for name, _ in accounts], [currency for _, currency in accounts]
