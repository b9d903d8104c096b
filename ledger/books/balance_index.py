"""The balance index: sums over the journal, by which earlier balances of busy accounts are fast.

A balance as known at position P and dated up to E is a sum over entries with `position <= P` and
`effective_at <= E`. The log is cut into blocks of `BLOCK_POSITIONS` positions. For every indexed
account, which is one that once had `INDEXED_ENTRIES_MIN` entries in one block, a complete block
leaves sums by hour and by day, and `WIDE_BLOCKS` blocks leave them once more together; the other
accounts have few entries. It is an index and not a view: it may lag behind, and the answers stay
the same.

An account is indexed in all its currencies: its lines are not indexed by currency, and a rare one
must not be searched among all of them. So once an account is indexed, a currency without sums had
no lines in any block that is done.

Books of earlier versions are read while they are folded again, so the tables keep their names:
`spans` has how many blocks are done, `hot` the indexed accounts, `cells` the sums of blocks.
Entries are indexed by account in shards of 2^`SHARD_BITS` positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

from ledger.database import connection as database

Account: TypeAlias = tuple[str, str]
"""(account, currency)"""
Sums: TypeAlias = dict[Account, tuple[Decimal, Decimal]]
"""(account, currency) → debits, credits"""

BLOCK_POSITIONS: Final = 4_096
"""Positions of a block; books keep the size that they began with. Indexing one takes a processor
for 25 ms (measured), which folding notices."""

WIDE_BLOCKS: Final = 64
"""Blocks that are summed once more together; kept like the size."""

SHARD_BITS: Final = 16
"""Positions of a shard of the index of entries by account, as a power of two (see `entries`)."""

INDEXED_ENTRIES_MIN: Final = 32
"""Entries within one block, of any currency, from which on an account is indexed."""

FOREVER: Final = datetime.max.replace(tzinfo=UTC)
"""The effective time of a question that names none: no entry is dated later."""

TABLES: Final = (
    """
CREATE TABLE spans (
    source text PRIMARY KEY, size bigint NOT NULL, wide bigint NOT NULL, done bigint NOT NULL)
""",
    """
CREATE TABLE hot (
    source text, account text, currency text, id bigint GENERATED ALWAYS AS IDENTITY,
    wide bigint NOT NULL DEFAULT 0, PRIMARY KEY (source, account, currency))
""",
    """
CREATE TABLE cells (
    hot bigint, hours smallint, width int, span int, moment timestamptz,
    debits numeric NOT NULL, credits numeric NOT NULL,
    PRIMARY KEY (hot, hours, width, span, moment) INCLUDE (debits, credits))
""",
)
SELECT_DUE: Final = """
SELECT c.position, coalesce(s.size, $2) AS size, coalesce(s.wide, $3) AS wide,
       coalesce(s.done, 0) AS done
  FROM checkpoints AS c LEFT JOIN spans AS s ON s.source = c.source
 WHERE c.source = $1
"""
INSERT_PROGRESS: Final = "INSERT INTO spans VALUES ($1, $2, $3, 0) ON CONFLICT DO NOTHING"
# A block's lines fit into this; the usual limit would send them through files.
SET_MEMORY: Final = "SET LOCAL work_mem = '32MB'"
ADVANCE_PROGRESS: Final = "UPDATE spans SET done = $2 + 1 WHERE source = $1 AND done = $2"
# $2 < position <= $3. The block's lines are read once, by position: an account's own index would
# lead through all it ever had. Returns the earlier currencies of accounts that become indexed: the
# inner DISTINCT makes every account a look-up of its own, and `source || ''` keeps the planner of a
# young table from looking for it among all lines of the source.
INSERT_BLOCK: Final = f"""
WITH hours AS MATERIALIZED (
       SELECT account, currency, date_bin('1 hour', effective_at, '2000-01-01Z') AS moment,
              sum(debits) AS debits, sum(amount) AS amount, count(*) AS lines
         FROM entries WHERE source = $1 AND position > $2 AND position <= $3
        GROUP BY account, currency, moment),
     known AS MATERIALIZED (
       SELECT id, account, currency FROM hot WHERE source = $1),
     fresh AS MATERIALIZED (
       SELECT account FROM hours WHERE account NOT IN (SELECT account FROM known)
        GROUP BY account HAVING sum(lines) >= $4),
     earlier AS MATERIALIZED (
       SELECT DISTINCT f.account, l.currency FROM fresh AS f
        CROSS JOIN generate_series(0, $2::bigint >> {SHARD_BITS}) AS shards(shard)
        CROSS JOIN LATERAL (
              SELECT DISTINCT currency FROM entries
               WHERE source || '' = $1 AND account = f.account
                 AND (position >> {SHARD_BITS} << 32) + hashtext(account)
                     = (shard << 32) + hashtext(f.account)
                 AND effective_at > '-infinity' AND position + 0 <= $2) AS l),
     added AS (
       INSERT INTO hot (source, account, currency)
       SELECT $1, account, currency FROM hours
        WHERE account IN (SELECT account FROM known UNION ALL SELECT account FROM fresh)
        UNION
       SELECT $1, account, currency FROM earlier
       ON CONFLICT DO NOTHING
       RETURNING id, account, currency),
     hourly AS MATERIALIZED (
       SELECT h.id, s.moment, s.debits, s.debits - s.amount AS credits
         FROM hours AS s
         JOIN (SELECT * FROM known UNION ALL SELECT * FROM added) AS h USING (account, currency)),
     summed AS (
       INSERT INTO cells
       SELECT id, 1, 1, $5::bigint, moment, debits, credits FROM hourly
        UNION ALL
       SELECT id, 24, 1, $5::bigint, date_bin('1 day', moment, '2000-01-01Z'),
              sum(debits), sum(credits)
         FROM hourly GROUP BY 1, 5
        ORDER BY 1, 2, 4, 5)
SELECT account, currency FROM earlier
"""  # noqa: S608 - made of the constant above
# What accounts that become indexed had in the blocks before, up to position $4.
INSERT_EARLIER_BLOCKS: Final = f"""
WITH hours AS MATERIALIZED (
       SELECT h.id, e.span, e.moment, e.debits, e.credits
         FROM unnest($2::text[], $3::text[]) AS u(account, currency)
         JOIN hot AS h ON h.source = $1 AND h.account = u.account AND h.currency = u.currency
        CROSS JOIN LATERAL (
              SELECT (l.position - 1) / $5::bigint AS span,
                     date_bin('1 hour', l.effective_at, '2000-01-01Z') AS moment,
                     sum(l.debits) AS debits, sum(l.debits - l.amount) AS credits
                FROM generate_series(0, $4::bigint >> {SHARD_BITS}) AS shards(shard)
               CROSS JOIN LATERAL (
                     SELECT position, effective_at, debits, amount FROM entries
                      WHERE source || '' = $1 AND account = u.account AND currency = u.currency
                        AND (position >> {SHARD_BITS} << 32) + hashtext(account)
                            = (shard << 32) + hashtext(u.account)
                        AND effective_at > '-infinity' AND position + 0 <= $4) AS l
               GROUP BY 1, 2) AS e)
INSERT INTO cells
SELECT id, 1, 1, span, moment, debits, credits FROM hours
 UNION ALL
SELECT id, 24, 1, span, date_bin('1 day', moment, '2000-01-01Z'), sum(debits), sum(credits)
  FROM hours GROUP BY 1, 4, 5
 ORDER BY 1, 2, 4, 5
"""  # noqa: S608 - made of the constant above
# $2 blocks make a wide one, of which $3 are complete.
INSERT_WIDE_BLOCKS: Final = """
INSERT INTO cells
SELECT c.hot, c.hours, $2::bigint, c.span / $2, c.moment, sum(c.debits), sum(c.credits)
  FROM hot AS h JOIN cells AS c ON c.hot = h.id
 WHERE h.source = $1 AND h.wide < $3 AND c.width = 1
   AND c.span >= h.wide * $2 AND c.span < $3 * $2
 GROUP BY c.hot, c.hours, c.span / $2, c.moment
 ORDER BY 1, 2, 4, 5
"""
UPDATE_INDEXED_ACCOUNTS: Final = "UPDATE hot SET wide = $2 WHERE source = $1 AND wide < $2"
SELECT_PROGRESS: Final = "SELECT size, wide, done FROM spans WHERE source = $1"
SELECT_INDEXED_ACCOUNTS: Final = """
SELECT u.account, u.currency FROM unnest($2::text[], $3::text[]) AS u(account, currency)
 WHERE EXISTS (SELECT FROM hot AS h WHERE h.source = $1 AND h.account = u.account)
"""
# $4 blocks, $5 of which make a wide one. Whole days, then the whole hours of the last day, then
# the last hour line by line. The inner sums make every block a look-up of its own.
SELECT_BLOCK_SUMS: Final = f"""
WITH pieces AS MATERIALIZED (
       SELECT $5::bigint AS width, generate_series(0, $4::bigint / $5 - 1) AS span
        UNION ALL
       SELECT 1, generate_series($4::bigint / $5 * $5, $4::bigint - 1))
SELECT h.account, h.currency, s.debits, s.credits
  FROM unnest($2::text[], $3::text[]) AS u(account, currency)
  JOIN hot AS h ON h.source = $1 AND h.account = u.account AND h.currency = u.currency
 CROSS JOIN LATERAL (
       SELECT sum(part.debits) AS debits, sum(part.credits) AS credits FROM (
              SELECT whole.debits, whole.credits FROM pieces AS p
               CROSS JOIN LATERAL (
                     SELECT sum(c.debits) AS debits, sum(c.credits) AS credits FROM cells AS c
                      WHERE c.hot = h.id AND c.hours = 24 AND c.width = p.width
                        AND c.span = p.span
                        AND c.moment < date_bin('1 day', $7::timestamptz, '2000-01-01Z')) AS whole
               UNION ALL
              SELECT whole.debits, whole.credits FROM pieces AS p
               CROSS JOIN LATERAL (
                     SELECT sum(c.debits) AS debits, sum(c.credits) AS credits FROM cells AS c
                      WHERE c.hot = h.id AND c.hours = 1 AND c.width = p.width
                        AND c.span = p.span
                        AND c.moment >= date_bin('1 day', $7::timestamptz, '2000-01-01Z')
                        AND c.moment < date_bin('1 hour', $7::timestamptz, '2000-01-01Z')) AS whole
               UNION ALL
              SELECT whole.debits, whole.credits
                FROM generate_series(0, $6::bigint >> {SHARD_BITS}) AS shards(shard)
               CROSS JOIN LATERAL (
                     SELECT sum(e.debits) AS debits, sum(e.debits - e.amount) AS credits
                       FROM entries AS e
                      WHERE e.source = $1 AND e.account = h.account AND e.currency = h.currency
                        AND (e.position >> {SHARD_BITS} << 32) + hashtext(e.account)
                            = (shard << 32) + hashtext(h.account)
                        AND e.effective_at >= date_bin('1 hour', $7::timestamptz, '2000-01-01Z')
                        AND e.effective_at <= $7 AND e.position + 0 <= $6) AS whole) AS part) AS s
"""  # noqa: S608 - made of the constant above
SELECT_TAIL_SUMS: Final = """
SELECT account, currency, sum(debits) AS debits, sum(debits - amount) AS credits
  FROM entries
 WHERE source = $1 AND position > $4 AND position <= $5 AND effective_at <= $6
   AND account = ANY ($2::text[]) AND currency = ANY ($3::text[])
 GROUP BY account, currency
"""
SELECT_PLAIN_SUMS: Final = f"""
SELECT u.account, u.currency, s.debits, s.credits
  FROM unnest($2::text[], $3::text[]) AS u(account, currency)
 CROSS JOIN LATERAL (
       SELECT sum(whole.debits) AS debits, sum(whole.credits) AS credits
         FROM generate_series(0, $4::bigint >> {SHARD_BITS}) AS shards(shard)
        CROSS JOIN LATERAL (
              SELECT sum(e.debits) AS debits, sum(e.debits - e.amount) AS credits
                FROM entries AS e
               WHERE e.source = $1 AND e.account = u.account AND e.currency = u.currency
                 AND (e.position >> {SHARD_BITS} << 32) + hashtext(e.account)
                     = (shard << 32) + hashtext(u.account)
                 AND e.effective_at <= $5 AND e.position + 0 <= $4) AS whole) AS s
"""  # noqa: S608 - made of the constant above
INDEXING_SESSION: Final[Mapping[str, Any]] = {
    "synchronous_commit": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
}
"""Statistics of a young table mislead; and sums that are lost in a crash are made again."""

_ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Bound:
    """Which part of one source's journal counts: recorded up to `position`, dated up to a time."""

    source: str
    position: int
    effective_at: datetime = FOREVER


def connected(dsn: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    """Open a connection for indexing: it reads entries by an index, and waits for no disk."""
    return database.connected(dsn, **INDEXING_SESSION, **options)


async def next_block_end(connection: Any, source: str) -> int:
    """Return the position at which the next block is complete."""
    row = await connection.fetchrow(SELECT_DUE, source, BLOCK_POSITIONS, WIDE_BLOCKS)
    return int((row["done"] + 1) * row["size"]) if row else BLOCK_POSITIONS


async def index_next_block(connection: Any, source: str) -> int:
    """Index the next block if the books have completed it; return where the one after it ends."""
    row = await connection.fetchrow(SELECT_DUE, source, BLOCK_POSITIONS, WIDE_BLOCKS)
    if row is None:
        return BLOCK_POSITIONS
    size, wide, done = int(row["size"]), int(row["wide"]), int(row["done"])
    if row["position"] < (done + 1) * size:
        return (done + 1) * size
    async with connection.transaction():
        await connection.execute(SET_MEMORY)
        await connection.execute(INSERT_PROGRESS, source, size, wide)
        if await connection.execute(ADVANCE_PROGRESS, source, done) == "UPDATE 1":
            low, high = done * size, (done + 1) * size
            fresh = await connection.fetch(
                INSERT_BLOCK, source, low, high, INDEXED_ENTRIES_MIN, done
            )
            if fresh and low:
                names = _columns([(row["account"], row["currency"]) for row in fresh])
                await connection.execute(INSERT_EARLIER_BLOCKS, source, *names, low, size)
            await connection.execute(INSERT_WIDE_BLOCKS, source, wide, (done + 1) // wide)
            await connection.execute(UPDATE_INDEXED_ACCOUNTS, source, (done + 1) // wide)
    return (done + 2) * size


async def sums(connection: Any, bound: Bound, accounts: Sequence[Account]) -> Sums:
    """Return debits and credits of accounts within `bound`; accounts without entries have zero."""
    found: Sums = dict.fromkeys(accounts, (_ZERO, _ZERO))
    names = _columns(accounts)
    progress = await connection.fetchrow(SELECT_PROGRESS, bound.source)
    indexed: list[Account] = []
    if progress is not None:
        rows = await connection.fetch(SELECT_INDEXED_ACCOUNTS, bound.source, *names)
        indexed = [(row["account"], row["currency"]) for row in rows]
    if indexed and progress is not None:
        usable = min(progress["done"], bound.position // progress["size"])
        await _add_indexed(connection, found, bound, indexed, progress, usable)
    plain = [account for account in accounts if account not in set(indexed)]
    if plain:
        within = (bound.position, bound.effective_at)
        rows = await connection.fetch(SELECT_PLAIN_SUMS, bound.source, *_columns(plain), *within)
        _add(found, plain, rows)
    return found


async def _add_indexed(
    connection: Any,
    found: Sums,
    bound: Bound,
    indexed: Sequence[Account],
    progress: Mapping[str, Any],
    usable: int,
) -> None:
    given = (bound.source, *_columns(indexed))
    covered, at = usable * progress["size"], bound.effective_at
    rows = await connection.fetch(SELECT_BLOCK_SUMS, *given, usable, progress["wide"], covered, at)
    _add(found, indexed, rows)
    _add(
        found,
        indexed,
        await connection.fetch(SELECT_TAIL_SUMS, *given, covered, bound.position, at),
    )


def _add(found: Sums, requested: Sequence[Account], rows: Iterable[Mapping[str, Any]]) -> None:
    accounts = set(requested)
    for row in rows:
        account = (row["account"], row["currency"])
        if row["debits"] is not None and account in accounts:
            debits, credited = found[account]
            found[account] = (debits + row["debits"], credited + row["credits"])


def _columns(accounts: Sequence[Account]) -> tuple[list[str], list[str]]:
    return [name for name, _ in accounts], [currency for _, currency in accounts]
