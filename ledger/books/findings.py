"""What operators look for, kept in the books: found while folding, not by asking.

Two findings that hang on several streams: money of a customer without a verified status, and
limits of which the provider counts another amount used than the transactions do. And which
exceptions are open. What a batch may have changed is looked for again at its end, customer by
customer, in the batch's own transaction; what is kept follows from the other tables alone, so that
a rebuild keeps the same. Findings of a single stream are read from its row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ledger.fold.change import ChangeSet

OWNED: Final = "liabilities:customers:"
"""What accounts of customers begin with."""

CUSTOMER: Final = "customer"
LIMITS: Final = "limits"
USING: Final = frozenset({"payment", "payout"})
"""Kinds that have limits."""

NAME: Final = """
left(encode(sha256(convert_to(concat_ws('|', 'finding', {source}, {reason}, {kind}, {id},
     coalesce({currency}, ''), {amount}), 'UTF8')), 'hex'), 16)
"""
"""The name of a finding as an exception: the same thing has the same name whenever one asks. Where
another amount is another exception, the amount is part of it; NULL otherwise."""

NEVER: Final = "'0001-01-02 00:00:00+00'::timestamptz"
"""Since when, where nothing says it: before everything. (The driver takes the first day of that
year for minus infinity.)"""

TABLES: Final = (
    """
CREATE TABLE findings (
    source text NOT NULL, name text NOT NULL, reason text NOT NULL, kind text NOT NULL,
    id text NOT NULL, customer_id text NOT NULL, currency text, amount numeric NOT NULL,
    since timestamptz NOT NULL, position bigint, detail text NOT NULL)
""",
    "CREATE INDEX ON findings (source, reason, since, name)",
    "CREATE INDEX ON findings (source, name)",
    "CREATE INDEX ON findings (hashtextextended(customer_id, 0), reason)",
    """
CREATE TABLE open_exceptions (
    source text, id text, position bigint NOT NULL, reason text NOT NULL, kind text NOT NULL,
    PRIMARY KEY (source, id))
""",
    "CREATE INDEX ON open_exceptions (source, position, id)",
    "CREATE INDEX ON open_exceptions (source, reason, position, id)",
    "CREATE INDEX ON open_exceptions (source, kind, position, id)",
)
# $2 customers whose money or verification may have changed, $3 those whose limits may have, $4 $5
# those whom payments and payouts name, with the first positions of these: a later transaction of a
# customer does not concern limits that were reported before it. Limits count the days and years of
# Singapore (StraitsX is there); those that are used in two currencies are not compared, since a
# limit does not name its currency. The statement is planned once, perhaps while its tables are
# empty: OFFSET 0 makes each customer a look-up of its own, `||` and coalesce keep the planner from
# every index but the right one.
REFRESH: Final = f"""
WITH people AS MATERIALIZED (
       SELECT DISTINCT u.id FROM unnest($2::text[]) AS u(id)),
     limited AS MATERIALIZED (
       SELECT u.id FROM unnest($3::text[]) AS u(id)
        UNION
       SELECT u.id FROM unnest($4::text[], $5::bigint[]) AS u(id, first_position)
        WHERE EXISTS (SELECT FROM limits AS l
                       WHERE l.source || '' = $1 AND l.customer_id = u.id
                         AND hashtextextended(l.customer_id, 0) = hashtextextended(u.id, 0)
                         AND l.position >= u.first_position)),
     claims AS (
       SELECT DISTINCT ON (l.customer_id, c.what) l.customer_id, c.what,
              split_part(c.what, '_', 1) AS period, split_part(c.what, '_', 2) AS kind,
              (c.used->>'amount')::numeric AS amount, (c.used->>'position')::bigint AS position,
              (c.used->>'at')::timestamptz AS at
         FROM limited AS d
        CROSS JOIN LATERAL (SELECT * FROM limits
                             WHERE source || '' = $1 AND customer_id = d.id
                               AND hashtextextended(customer_id, 0) = hashtextextended(d.id, 0)
                            OFFSET 0) AS l
        CROSS JOIN LATERAL jsonb_each(l.used) AS c(what, used)
        ORDER BY l.customer_id, c.what, (c.used->>'position')::bigint DESC),
     drifts AS (
       SELECT 'limit_drift' AS reason, 'limits' AS kind, c.customer_id || ':' || c.what AS id,
              c.customer_id, ours.currency, trim_scale(c.amount - ours.amount) AS amount,
              c.at AS since, c.position,
              'the provider counts ' || trim_scale(c.amount) || ' used, the transactions '
              || trim_scale(ours.amount) AS detail
         FROM claims AS c
        CROSS JOIN LATERAL (
              SELECT count(*) AS currencies, min(s.currency) AS currency,
                     coalesce(sum(s.amount), 0) AS amount
                FROM (SELECT t.currency, sum(t.amount) AS amount FROM transactions AS t
                       WHERE t.source || '' = $1 AND coalesce(t.customer_id, '') = c.customer_id
                         AND hashtextextended(t.kind || coalesce(t.customer_id, ''), 0)
                             = hashtextextended(c.kind || c.customer_id, 0)
                         AND t.status = 'completed' AND t.kind = c.kind
                         AND t.effective_at < c.at
                         AND t.effective_at
                             >= date_trunc(CASE c.period WHEN 'annual' THEN 'year' ELSE 'day' END,
                                           c.at AT TIME ZONE INTERVAL '08:00')
                                AT TIME ZONE INTERVAL '08:00'
                         AND t.first_position + 0 <= c.position
                       GROUP BY t.currency) AS s) AS ours
        WHERE ours.currencies <= 1 AND ours.amount <> c.amount),
     unverified AS (
       SELECT 'unverified_money' AS reason, 'customer' AS kind, d.id, d.id AS customer_id,
              b.currency, trim_scale(b.credits - b.debits) AS amount,
              coalesce(c.updated_at, {NEVER}) AS since, c.position,
              'the customer has ' || trim_scale(b.credits - b.debits) || ' ' || b.currency
              || ' and is ' || coalesce(c.verification_status, 'of unknown verification') AS detail
         FROM people AS d
        CROSS JOIN LATERAL (SELECT * FROM balances
                             WHERE source = $1 AND account = '{OWNED}' || d.id OFFSET 0) AS b
         LEFT JOIN LATERAL (SELECT * FROM customers
                             WHERE source || '' = $1 AND kind || '' = 'customer' AND id = d.id
                               AND hashtextextended(id, 0) = hashtextextended(d.id, 0)
                            OFFSET 0) AS c
           ON true
        WHERE b.credits <> b.debits AND c.verification_status IS DISTINCT FROM 'verified'),
     gone AS (
       DELETE FROM findings AS f
        USING (SELECT id, 'unverified_money' AS reason FROM people
                UNION ALL
               SELECT id, 'limit_drift' FROM limited) AS d
        WHERE f.source || '' = $1 AND f.customer_id = d.id AND f.reason = d.reason
          AND hashtextextended(f.customer_id, 0) = hashtextextended(d.id, 0)),
     fresh AS (
       SELECT *, CASE reason WHEN 'limit_drift' THEN amount END AS named FROM drifts
        UNION ALL
       SELECT *, NULL FROM unverified)
INSERT INTO findings
       (source, name, reason, kind, id, customer_id, currency, amount, since, position, detail)
SELECT $1, {
    NAME.format(
        source="$1",
        reason="n.reason",
        kind="n.kind",
        id="n.id",
        currency="n.currency",
        amount="n.named",
    )
},
       n.reason, n.kind, n.id, n.customer_id, n.currency, n.amount, n.since, n.position, n.detail
  FROM fresh AS n
"""  # noqa: S608 - made of the constants above
# An exception is its latest row. $2 those of which there are new rows.
REFRESH_OPEN: Final = """
WITH latest AS MATERIALIZED (
       SELECT l.* FROM unnest($2::text[]) AS u(id)
        CROSS JOIN LATERAL (
              SELECT x.id, x.position, x.action, x.reason, x.kind FROM exceptions AS x
               WHERE x.source = $1 AND x.id = u.id
               ORDER BY x.position DESC, x.action DESC LIMIT 1) AS l),
     closed AS (
       DELETE FROM open_exceptions AS o USING latest AS l
        WHERE o.source = $1 AND o.id = l.id AND l.action <> 'opened')
INSERT INTO open_exceptions (source, id, position, reason, kind)
SELECT $1, id, position, reason, kind FROM latest WHERE action = 'opened'
    ON CONFLICT (source, id) DO UPDATE
   SET position = EXCLUDED.position, reason = EXCLUDED.reason, kind = EXCLUDED.kind
"""
SELECT_NAMES: Final = """
SELECT DISTINCT id FROM exceptions WHERE source = $1 AND id > $2 ORDER BY id LIMIT $3
"""
SELECT_OWNERS: Final = f"""
SELECT DISTINCT account FROM balances
 WHERE source = $1 AND account > $2 AND account LIKE '{OWNED}%' ORDER BY account LIMIT $3
"""  # noqa: S608 - made of the constants above
SELECT_LIMITED: Final = """
SELECT id, customer_id FROM limits
 WHERE source = $1 AND kind = 'limits' AND id > $2 ORDER BY id LIMIT $3
"""
AT_ONCE: Final = 5_000
"""Customers or exceptions that one statement is about when everything is looked for."""


@dataclass(slots=True)
class Due:
    """Customers about whom a batch may have changed what is kept."""

    people: set[str] = field(default_factory=set)
    limited: set[str] = field(default_factory=set)
    payers: dict[str, int] = field(default_factory=dict)
    """Customer → the first position of the earliest of its payments and payouts that changed."""

    def arguments(self, source: str) -> tuple[Any, ...]:
        """Return the arguments of REFRESH."""
        payers = sorted(self.payers)
        return (source, sorted(self.people), sorted(self.limited), payers,
                [self.payers[name] for name in payers])  # fmt: skip


def due(change: ChangeSet) -> Due | None:
    """Return about whom a batch may have changed something; None when about nobody."""
    found = Due()
    for _, account, _ in change.sums.get("balances", ()):
        if account.startswith(OWNED):
            found.people.add(account[len(OWNED) :])
    for stream in change.streams:
        kind, resource = stream.key
        if kind == CUSTOMER:
            found.people.add(resource)
        if kind != LIMITS and kind not in USING:
            continue
        for name in stream.customers:
            if kind == LIMITS:
                found.limited.add(name)
            else:
                first = found.payers.get(name, stream.first_position)
                found.payers[name] = min(first, stream.first_position)
    return found if found.people or found.limited or found.payers else None


def refreshing(change: ChangeSet, source: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Return the statements, with their arguments, that refresh what a batch may have changed."""
    customers = due(change)
    if customers is not None:
        yield REFRESH, customers.arguments(source)
    names = {row[1] for row in change.rows.get("exceptions", ())}
    if names:
        yield REFRESH_OPEN, (source, sorted(names))


async def fill(connection: Any, source: str) -> None:
    """Look for everything of a source, some customers or exceptions at a time."""
    last = ""
    while rows := await connection.fetch(SELECT_NAMES, source, last, AT_ONCE):
        last = rows[-1]["id"]
        await connection.execute(REFRESH_OPEN, source, [row["id"] for row in rows])
    last = OWNED
    while rows := await connection.fetch(SELECT_OWNERS, source, last, AT_ONCE):
        last = rows[-1]["account"]
        people = [row["account"].removeprefix(OWNED) for row in rows]
        await connection.execute(REFRESH, source, people, [], [], [])
    last = ""
    while rows := await connection.fetch(SELECT_LIMITED, source, last, AT_ONCE):
        last = rows[-1]["id"]
        limited = {row["customer_id"] for row in rows if row["customer_id"] is not None}
        await connection.execute(REFRESH, source, [], sorted(limited), [], [])
