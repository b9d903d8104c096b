"""Reading what looks incomplete without any statement, as of a moment.

Each finding has the id of an exception, under which operators see it and decide on it. Ages
depend on the moment, so stuck transactions are read from the transactions; what depends on several
streams is kept in the books (`ledger.books.findings`). Every statement reads one page by an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from ledger import registry
from ledger.books.balance_index import SHARD_BITS
from ledger.books.findings import NAME
from ledger.config.reconciliation import Rules
from ledger.errors import NotCaughtUp
from ledger.payload import plain
from ledger.queries.closed_months import changed_lines_sql, stated_now_sql
from ledger.queries.params import QueryParams, after, write_cursor
from ledger.queries.schemas.reconciliation import FindingAnswer, Findings
from ledger.queries.snapshot import DatabaseRow, Snapshot

NAMED_MAX: Final = 100_000
"""How many of the newest stuck transactions are searched for one exception id."""

LISTED_MAX: Final = 5
"""Returns that one finding names; it counts the others."""

NEVER: Final = datetime(1, 1, 2, tzinfo=UTC)
"""The time of a finding whose beginning is unknown (`NEVER` of `ledger.books.findings`)."""

NO_TIME: Final = timedelta(0)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BEFORE_THE_LOG: Final = 2**62
"""Subtracted from a finding's time, in microseconds, so that it sorts after every position."""

# All take: $1 source, $2 the moment, $3 rows, $4 $5 time and name of the last one seen, $6 reason,
# $7 state, $8 the one requested name, $9 kinds. The newest first; equally old ones by name. LIMIT 1
# keeps the planner from reading all decisions into memory.
_NOT_SEEN: Final = """
   AND ($4::timestamptz IS NULL OR {since} <= $4) AND ($4::timestamptz IS NULL
        OR ({since}, {name}) < ($4, $5::text))
   AND ($7::text IS NULL OR ($7 = 'resolved') = ((
        SELECT x.position FROM exceptions AS x
         WHERE x.source = $1 AND x.id = {name} AND x.action = 'resolved' LIMIT 1) IS NOT NULL))
   AND ($8::text IS NULL OR {name} = $8)
"""
# Kind by kind: each is a walk along an index of its own.
SELECT_STUCK: Final = f"""
SELECT t.* FROM unnest($9::text[]) AS kinds(kind)
 CROSS JOIN LATERAL (
       SELECT 'stuck_pending' AS reason, p.kind, p.id, p.currency, p.amount,
              p.effective_at AS since, p.position, n.name
         FROM (SELECT kind, id, currency, amount, effective_at, position FROM transactions
                WHERE source = $1 AND kind = kinds.kind AND status IN ('pending', 'Pending')
                  AND effective_at < $2 AND ($4::timestamptz IS NULL OR effective_at <= $4)
                  AND ($6::text IS NULL OR $6 = 'stuck_pending')
                ORDER BY effective_at DESC
                LIMIT CASE WHEN $8::text IS NOT NULL THEN {NAMED_MAX} END) AS p
        CROSS JOIN LATERAL (
              SELECT {
    NAME.format(
        source="$1",
        reason="'stuck_pending'",
        kind="p.kind",
        id="p.id",
        currency="p.currency",
        amount="NULL",
    )
} AS name) AS n
        WHERE true {_NOT_SEEN.format(since="p.effective_at", name="n.name")}
        ORDER BY p.effective_at DESC, n.name DESC LIMIT $3) AS t
 ORDER BY t.since DESC, t.name DESC LIMIT $3
"""  # noqa: S608 - made of the constants above
# What came back of a payout is added up at the last return of it.
SELECT_RETURNS: Final = f"""
SELECT f.*, n.name
  FROM (SELECT r.effective_at AS since, p.kind, p.id, p.currency, p.flags, p.amount AS sent,
               back.amount,
               CASE WHEN back.amount >= p.amount THEN 'payout_returned'
                    ELSE 'payout_partly_returned' END AS reason,
               greatest(back.position, p.position) AS position, back.payments, back.listed
          FROM (SELECT kind, id, effective_at, position, line FROM returns
                 WHERE source = $1 AND effective_at <= $2
                   AND ($4::timestamptz IS NULL OR effective_at <= $4)
                   AND ($6::text IS NULL OR $6 IN ('payout_returned', 'payout_partly_returned'))
                 ORDER BY effective_at DESC) AS r
         CROSS JOIN LATERAL (
               SELECT e.position, e.line FROM returns AS e
                WHERE e.source = $1 AND e.kind = r.kind AND e.id = r.id
                  AND hashtextextended(e.id, 0) = hashtextextended(r.id, 0)
                  AND e.effective_at <= $2
                ORDER BY e.effective_at DESC, e.position DESC, e.line DESC LIMIT 1) AS last
          JOIN LATERAL (
               SELECT * FROM transactions AS t
                WHERE t.source = $1 AND t.kind = r.kind AND t.id = r.id
                  AND hashtextextended(t.id, 0) = hashtextextended(r.id, 0) LIMIT 1) AS p
            ON (last.position, last.line) = (r.position, r.line)
         CROSS JOIN LATERAL (
               SELECT coalesce(sum(o.amount), 0) AS amount, max(o.position) AS position,
                      count(*) AS payments,
                      (array_agg(o.name ORDER BY o.name COLLATE "C"))[:{LISTED_MAX}] AS listed
                 FROM (SELECT e.return_kind || ' ' || e.return_id AS name,
                              max(e.position) AS position,
                              sum(e.amount) FILTER (
                                  WHERE e.currency = coalesce(p.details ->> 'wallet', p.currency))
                                  AS amount
                         FROM returns AS e
                        WHERE e.source = $1 AND e.kind = r.kind AND e.id = r.id
                          AND hashtextextended(e.id, 0) = hashtextextended(r.id, 0)
                          AND e.effective_at <= $2
                        GROUP BY e.return_kind, e.return_id HAVING sum(e.count) > 0) AS o) AS back
         WHERE back.payments > 0
       ) AS f
 CROSS JOIN LATERAL (SELECT {
    NAME.format(
        source="$1",
        reason="f.reason",
        kind="f.kind",
        id="f.id",
        currency="f.currency",
        amount="CASE f.reason WHEN 'payout_partly_returned' THEN trim_scale(f.amount) END",
    )
}
                         AS name) AS n
 WHERE ($6::text IS NULL OR f.reason = $6) AND f.kind = ANY ($9::text[])
       {_NOT_SEEN.format(since="f.since", name="n.name")}
 ORDER BY f.since DESC, n.name DESC LIMIT $3
"""  # noqa: S608 - made of the constants above
# $2 has no effect: what is kept is true of the books at any moment.
SELECT_KEPT: Final = f"""
SELECT reason, kind, id, currency, amount, since, position, detail, name FROM findings AS f
 WHERE source = $1 AND reason = $6 AND kind = ANY ($9::text[]) AND $2::timestamptz IS NOT NULL
       {_NOT_SEEN.format(since="f.since", name="f.name")}
 ORDER BY f.since DESC, f.name DESC LIMIT $3
"""  # noqa: S608 - made of the constants above
# What is dated before the end of a closed month and recorded after its close. $2 and $9 select
# nothing: a close is as of now.
SELECT_CLOSED: Final = f"""
SELECT f.*, n.name
  FROM (SELECT 'closed_month_changed' AS reason, c.kind, c.id, c.currency, c.period,
               c.by AS closed_by, coalesce(e.amount, 0) AS amount, e.count, l.count AS lines,
               e.position,
               s.grown,
               coalesce(e.since, (
                   SELECT v.recorded_at FROM ledger.events AS v
                    WHERE v.source = $1 || '.statements' AND v.position = l.position),
                   c.decided_at) AS since
          FROM closes AS c
         CROSS JOIN LATERAL (
               SELECT count(*) AS count, sum(z.amount) AS amount, min(z.position) AS position,
                      min(z.since) AS since
                 FROM (SELECT x.position, sum(x.amount) AS amount, min(x.recorded_at) AS since
                         FROM checkpoints AS k
                        CROSS JOIN generate_series(c.books_position >> {SHARD_BITS},
                                                   k.position >> {SHARD_BITS}) AS shards(shard)
                        CROSS JOIN unnest(
                              '{{assets:wallet:available,assets:wallet:held}}'::text[])
                              AS requested(account)
                        CROSS JOIN LATERAL (
                              SELECT * FROM entries
                               WHERE source = $1 AND currency = c.currency
                                 AND account = requested.account
                                 AND (position >> {SHARD_BITS} << 32) + hashtext(account)
                                     = (shard << 32) + hashtext(requested.account)
                                 AND effective_at < c.end_at AND position > c.books_position
                              OFFSET 0) AS x
                        WHERE k.source = $1
                        GROUP BY x.position, x.kind, x.transaction
                       HAVING sum(x.amount) <> 0) AS z) AS e
         CROSS JOIN LATERAL (
               SELECT count(*) AS count, min(y.position) AS position
                 FROM ({
    changed_lines_sql(
        log="($1 || '.statements')",
        currency="c.currency",
        end="c.end_at",
        position="c.statements_position",
    )
}) AS y) AS l
         CROSS JOIN LATERAL (
               SELECT CASE WHEN NOT z.is_covered OR (z.is_kept AND z.statement IS NULL)
                           THEN 'unknown'
                           WHEN z.statement <> c.statement_balance
                           THEN trim_scale(z.statement - c.statement_balance)::text END AS grown
                 FROM ({
    stated_now_sql(source="$1", currency="c.currency", end="c.end_at", period="c.period")
}) AS z) AS s
         WHERE c.source = $1 AND c.status = 'closed'
           AND (e.count > 0 OR l.count > 0 OR s.grown IS NOT NULL)
           AND $2::timestamptz IS NOT NULL AND $9::text[] IS NOT NULL
           AND ($6::text IS NULL OR $6 = 'closed_month_changed')) AS f
 CROSS JOIN LATERAL (SELECT {
    NAME.format(
        source="$1",
        reason="f.reason",
        kind="f.kind",
        id="f.id",
        currency="f.currency",
        amount="concat_ws('/', trim_scale(f.amount), f.count, f.lines, f.grown)",
    )
}
                         AS name) AS n
 WHERE true {_NOT_SEEN.format(since="f.since", name="n.name")}
 ORDER BY f.since DESC, n.name DESC LIMIT $3
"""  # noqa: S608 - made of the constants above
HAS_CLOSES: Final = "SELECT to_regclass('closes') IS NOT NULL AS is_there"
"""Books of an earlier version have none."""
SELECT_NOW: Final = "SELECT now() AS now"

FindingKey: TypeAlias = tuple[int, str]
"""When a finding began, as a number below every position, and its id as an exception."""


@dataclass(frozen=True, slots=True)
class FindingsReader:
    """A statement that reads findings of some reasons; those of one reader read the same rows."""

    reasons: tuple[str, ...]
    kinds: frozenset[str]
    """Kinds of its findings; empty: any kind of transaction."""
    statement: str

    def is_requested(self, reason: str | None, kind: str | None) -> bool:
        """Return whether it may have findings of this reason and kind."""
        if reason is not None and reason not in self.reasons:
            return False
        return kind is None or (kind in self.kinds if self.kinds else kind not in NOT_MONEY)


NOT_MONEY: Final = frozenset({"customer", "limits", "close"})
READERS: Final = (
    FindingsReader(("closed_month_changed",), frozenset({"close"}), SELECT_CLOSED),
    FindingsReader(("limit_drift",), frozenset({"limits"}), SELECT_KEPT),
    FindingsReader(
        ("payout_partly_returned", "payout_returned"),
        frozenset(),
        SELECT_RETURNS,
    ),
    FindingsReader(("stuck_pending",), frozenset(), SELECT_STUCK),
    FindingsReader(("unverified_money",), frozenset({"customer"}), SELECT_KEPT),
)
REASONS: Final = tuple(sorted(reason for reader in READERS for reason in reader.reasons))


@dataclass(frozen=True, slots=True)
class FindingsRequest:
    """Which findings of one source to read; `start` is the key of the last one already read."""

    as_of: datetime
    count: int
    start: FindingKey | None = None
    reason: str | None = None
    kind: str | None = None
    state: str | None = None
    """`open` or `resolved`."""
    name: str | None = None


async def findings(snapshot: Snapshot, params: QueryParams, rules: Mapping[str, Rules]) -> Findings:
    """Read what looks incomplete as of a moment, by source and reason, the newest first."""
    as_of = params.time("as_of") or await now(snapshot)
    requested = params.text("reason")
    listed: list[FindingAnswer] = []
    for source in snapshot.sources(params):
        begin, order, name = after(params, source, [str, int, str])
        for reason in REASONS if requested is None else (requested,):
            if begin is not None and reason < str(begin):
                continue
            start = (int(order or 0), str(name)) if reason == begin else None
            count = params.limit + 1 - len(listed)
            request = FindingsRequest(as_of, count, start, reason)
            listed += await read_findings(snapshot, source, request, rules.get(source, Rules()))
            if len(listed) > params.limit:
                listed = listed[: params.limit]
                return _page(listed, as_of, snapshot, _cursor(listed[-1]))
    return _page(listed, as_of, snapshot, None)


def _page(
    listed: list[FindingAnswer], as_of: datetime, snapshot: Snapshot, following: str | None
) -> Findings:
    return Findings(findings=listed, as_of=as_of, next=following, position=snapshot.position)


def _cursor(last: FindingAnswer) -> str:
    return write_cursor([last.source, last.reason, *key_of(last)])


async def now(snapshot: Snapshot) -> datetime:
    """Return the moment of the snapshot, by the database's clock."""
    row = await snapshot.row(SELECT_NOW)
    if row is None:
        raise NotCaughtUp("the database returned no time; repeat the request")
    moment: datetime = row["now"]
    return moment


async def read_findings(
    snapshot: Snapshot, source: str, request: FindingsRequest, rules: Rules
) -> list[FindingAnswer]:
    """Return a page of one source's findings, the newest first."""
    listed: list[FindingAnswer] = []
    for reader in READERS:
        if reader.is_requested(request.reason, request.kind):
            listed += await _read(snapshot, source, reader, request, rules)
    return sorted(listed, key=key_of, reverse=True)[: request.count]


async def _read(
    snapshot: Snapshot, source: str, reader: FindingsReader, request: FindingsRequest, rules: Rules
) -> list[FindingAnswer]:
    if reader.statement is SELECT_CLOSED:
        known = await snapshot.row(HAS_CLOSES)
        if known is None or not known["is_there"]:
            return []
    is_kept = reader.statement is SELECT_KEPT
    until = request.as_of - (rules.stuck if reader.statement is SELECT_STUCK else NO_TIME)
    start = request.start
    rows = await snapshot.rows(
        reader.statement,
        source,
        until,
        request.count,
        None if start is None else _time(start[0]),
        None if start is None else start[1],
        reader.reasons[0] if is_kept else request.reason,
        request.state,
        request.name,
        [request.kind] if request.kind else sorted(reader.kinds or registry.load().money_kinds),
    )
    return [_finding(source, row, request.as_of) for row in rows]


def _finding(source: str, row: DatabaseRow, as_of: datetime) -> FindingAnswer:
    match row["reason"]:
        case "stuck_pending":
            detail = _age(row, as_of)
        case "limit_drift" | "unverified_money":
            detail = row["detail"]
        case "closed_month_changed":
            detail = _changed(row)
        case _:
            detail = _returned(row)
    return FindingAnswer(
        source=source,
        reason=row["reason"],
        kind=row["kind"],
        id=row["id"],
        currency=row["currency"],
        amount=None if row["amount"] is None else plain(row["amount"]),
        since=None if row["since"] == NEVER else row["since"],
        detail=detail,
        event_position=row["position"],
        exception=row["name"],
    )


def key_of(finding: FindingAnswer) -> FindingKey:
    """Return the key of a finding within its source: the newest first, after every position."""
    since = finding.since or NEVER
    return (since - EPOCH) // timedelta(microseconds=1) - BEFORE_THE_LOG, finding.exception


def _time(order: int) -> datetime:
    """Return the time of a key. One that no finding can have is that of the oldest."""
    try:
        return EPOCH + timedelta(microseconds=order + BEFORE_THE_LOG)
    except OverflowError:
        return NEVER


def _changed(row: DatabaseRow) -> str:
    stated = ""
    if row["grown"] == "unknown":
        stated = "no statement states its balance any more, "
    elif row["grown"] is not None:
        stated = f"its statement balance by {row['grown']}, "
    return (
        f"{row['period']} of {row['currency']}, closed by {row['closed_by']}: its ledger balance "
        f"changed by {plain(row['amount'])} ({row['count']} entries), {stated}and {row['lines']} "
        "statement lines are new, changed, moved or withdrawn; /v1/reconciliation/closes lists them"
    )


def _age(row: DatabaseRow, as_of: datetime) -> str:
    days = (as_of - row["since"]).days
    return f"pending for {days} days; ask the provider, or send its last callback again"


def _returned(row: DatabaseRow) -> str:
    listed: Sequence[Any] = row["listed"]
    more = f" and {row['payments'] - LISTED_MAX} more" if row["payments"] > LISTED_MAX else ""
    sent = "an unknown amount" if row["sent"] is None else plain(row["sent"])
    text = f"{plain(row['amount'])} of {sent} came back with {', '.join(listed)}{more}"
    if "return_currency_differs" not in row["flags"]:
        return text
    return f"{text}; some of it in another currency, which is not counted"
