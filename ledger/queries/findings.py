"""Reading what looks incomplete without any statement: completeness, asked at a moment.

Each finding has the name of an exception, under which operators see it and decide on it. Ages
depend on when one asks, so what is stuck is read from the transactions; what hangs on several
streams is kept in the books (`kept_findings`). Every reading is one page, found by an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from ledger import registry
from ledger.books.findings import NAME
from ledger.config.reconciliation import Rules
from ledger.errors import NotCaughtUp
from ledger.payload import plain
from ledger.queries.params import QueryParams, after, write_cursor
from ledger.queries.schemas.reconciliation import FindingAnswer, Findings
from ledger.queries.snapshot import Row, Snapshot

NAMED_MAX: Final = 100_000
"""The newest stuck transactions among which one is looked for by its name as an exception."""

LISTED_MAX: Final = 5
"""Returns that one finding names; the rest it counts."""

NEVER: Final = datetime(1, 1, 2, tzinfo=UTC)
"""Since when a finding is, of which nothing says it (`kept_findings.NEVER`)."""

NO_TIME: Final = timedelta(0)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BEFORE_THE_LOG: Final = 2**62
"""What lets a finding's time, in microseconds, follow every position of a log in a cursor."""

# All take: $1 source, $2 the moment, $3 rows, $4 $5 time and name of the last one seen, $6 reason,
# $7 state, $8 the one name wanted, $9 kinds. The newest first; equally old ones by name. LIMIT 1
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
# A payout that came back is found at the last of the payments that brought it.
SELECT_RETURNS: Final = f"""
SELECT f.*, n.name
  FROM (SELECT r.effective_at AS since, r.return_of, r.currency,
               p.id IS NULL AS unmatched, p.amount AS sent,
               CASE WHEN p.id IS NULL THEN 'return_unmatched'
                    WHEN back.amount >= p.amount THEN 'payout_returned'
                    ELSE 'payout_partly_returned' END AS reason,
               CASE WHEN p.id IS NULL THEN r.kind ELSE 'payout' END AS kind,
               coalesce(p.id, r.id) AS id,
               CASE WHEN p.id IS NULL THEN r.amount ELSE back.amount END AS amount,
               CASE WHEN p.id IS NULL THEN r.position
                    ELSE greatest(back.position, p.position) END AS position,
               back.payments, back.listed
          FROM (SELECT kind, id, currency, amount, effective_at, return_of, position, source
                  FROM transactions
                 WHERE source = $1 AND return_of IS NOT NULL AND status = 'completed'
                   AND effective_at <= $2 AND ($4::timestamptz IS NULL OR effective_at <= $4)
                   AND ($6::text IS NULL
                        OR $6 IN ('return_unmatched', 'payout_returned', 'payout_partly_returned'))
                 ORDER BY effective_at DESC) AS r
          LEFT JOIN transactions AS p
            ON p.source = r.source AND p.idempotency_id = r.return_of AND p.kind = 'payout'
           AND hashtextextended(p.idempotency_id, 0) = hashtextextended(r.return_of, 0)
          LEFT JOIN LATERAL (
                SELECT coalesce((p.details->>'returned_amount')::numeric, sum(o.amount)) AS amount,
                       max(o.position) AS position, count(*) AS payments,
                       (array_agg(o.kind || ' ' || o.id ORDER BY o.kind, o.id COLLATE "C"))
                           [:{LISTED_MAX}] AS listed
                  FROM transactions AS o
                 WHERE o.source = r.source AND o.return_of = r.return_of
                   AND hashtextextended(o.return_of, 0) = hashtextextended(r.return_of, 0)
                   AND o.status = 'completed' AND o.effective_at <= $2) AS back
            ON p.id IS NOT NULL
         WHERE p.id IS NULL OR NOT EXISTS (
               SELECT FROM transactions AS o
                WHERE o.source = r.source AND o.return_of = r.return_of
                  AND hashtextextended(o.return_of, 0) = hashtextextended(r.return_of, 0)
                  AND o.status = 'completed' AND o.effective_at <= $2
                  AND (o.effective_at, o.id COLLATE "C") > (r.effective_at, r.id COLLATE "C"))
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
# $2 is not asked: what is kept is true of the books, whenever one asks.
SELECT_KEPT: Final = f"""
SELECT reason, kind, id, currency, amount, since, position, detail, name FROM findings AS f
 WHERE source = $1 AND reason = $6 AND kind = ANY ($9::text[]) AND $2::timestamptz IS NOT NULL
       {_NOT_SEEN.format(since="f.since", name="f.name")}
 ORDER BY f.since DESC, f.name DESC LIMIT $3
"""  # noqa: S608 - made of the constants above
SELECT_NOW: Final = "SELECT now() AS now"

Place: TypeAlias = tuple[int, str]
"""When a finding began, as a number below every position, and its name."""


@dataclass(frozen=True, slots=True)
class FindingsReader:
    """A statement that reads findings of some reasons; several of one share what they look at."""

    reasons: tuple[str, ...]
    kinds: frozenset[str]
    """Kinds that its findings have; empty: any kind of transaction."""
    statement: str

    def is_asked(self, reason: str | None, kind: str | None) -> bool:
        """Tell whether findings of this reason and kind may be among its own."""
        if reason is not None and reason not in self.reasons:
            return False
        return kind is None or (kind in self.kinds if self.kinds else kind not in PEOPLE)


PEOPLE: Final = frozenset({"customer", "limits"})
READERS: Final = (
    FindingsReader(("limit_drift",), frozenset({"limits"}), SELECT_KEPT),
    FindingsReader(
        ("payout_partly_returned", "payout_returned", "return_unmatched"),
        frozenset(),
        SELECT_RETURNS,
    ),
    FindingsReader(("stuck_pending",), frozenset(), SELECT_STUCK),
    FindingsReader(("unverified_money",), frozenset({"customer"}), SELECT_KEPT),
)
REASONS: Final = tuple(sorted(reason for reader in READERS for reason in reader.reasons))


@dataclass(frozen=True, slots=True)
class FindingsRequest:
    """Which findings of one source are asked for; `start` is the place of the last one seen."""

    as_of: datetime
    count: int
    start: Place | None = None
    reason: str | None = None
    kind: str | None = None
    state: str | None = None
    """`open` or `resolved`."""
    name: str | None = None


async def findings(snapshot: Snapshot, params: QueryParams, rules: Mapping[str, Rules]) -> Findings:
    """Read what looks incomplete as of a moment, by source and reason, the newest first."""
    asked = params.time("as_of") or await now(snapshot)
    wanted = params.text("reason")
    found: list[FindingAnswer] = []
    for source in snapshot.sources(params):
        begin, place, name = after(params, source, [str, int, str])
        for reason in (each for each in REASONS if wanted in (None, each)):
            if begin is not None and reason < str(begin):
                continue
            start = (int(place or 0), str(name)) if reason == begin else None
            count = params.limit + 1 - len(found)
            one = FindingsRequest(asked, count, start, reason)
            found += await of_source(snapshot, source, one, rules.get(source, Rules()))
            if len(found) > params.limit:
                found = found[: params.limit]
                return _page(found, asked, snapshot, _cursor(found[-1]))
    return _page(found, asked, snapshot, None)


def _page(
    found: list[FindingAnswer], asked: datetime, snapshot: Snapshot, following: str | None
) -> Findings:
    return Findings(findings=found, as_of=asked, next=following, position=snapshot.position)


def _cursor(last: FindingAnswer) -> str:
    return write_cursor([last.source, last.reason, *place_of(last)])


async def now(snapshot: Snapshot) -> datetime:
    """Return the moment of the snapshot, by the database's clock."""
    row = await snapshot.row(SELECT_NOW)
    if row is None:
        raise NotCaughtUp("the database does not tell the time; ask again")
    moment: datetime = row["now"]
    return moment


async def of_source(
    snapshot: Snapshot, source: str, wanted: FindingsRequest, rules: Rules
) -> list[FindingAnswer]:
    """Return a page of one source's findings, the newest first; only what is asked is looked up."""
    found: list[FindingAnswer] = []
    for reader in READERS:
        if reader.is_asked(wanted.reason, wanted.kind):
            found += await _read(snapshot, source, reader, wanted, rules)
    return sorted(found, key=place_of, reverse=True)[: wanted.count]


async def _read(
    snapshot: Snapshot, source: str, reader: FindingsReader, wanted: FindingsRequest, rules: Rules
) -> list[FindingAnswer]:
    is_kept = reader.statement is SELECT_KEPT
    until = wanted.as_of - (rules.stuck if reader.statement is SELECT_STUCK else NO_TIME)
    start = wanted.start
    rows = await snapshot.rows(
        reader.statement,
        source,
        until,
        wanted.count,
        None if start is None else _time(start[0]),
        None if start is None else start[1],
        reader.reasons[0] if is_kept else wanted.reason,
        wanted.state,
        wanted.name,
        [wanted.kind] if wanted.kind else sorted(reader.kinds or registry.load().money_kinds),
    )
    return [_found(source, row, wanted.as_of) for row in rows]


def _found(source: str, row: Row, as_of: datetime) -> FindingAnswer:
    match row["reason"]:
        case "stuck_pending":
            detail = _age(row, as_of)
        case "limit_drift" | "unverified_money":
            detail = row["detail"]
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


def place_of(finding: FindingAnswer) -> Place:
    """Place a finding among those of its source: the newest first, after every position."""
    since = finding.since or NEVER
    return (since - EPOCH) // timedelta(microseconds=1) - BEFORE_THE_LOG, finding.exception


def _time(place: int) -> datetime:
    """Return the time of a place. One that no finding can have is that of the oldest."""
    try:
        return EPOCH + timedelta(microseconds=place + BEFORE_THE_LOG)
    except OverflowError:
        return NEVER


def _age(row: Row, as_of: datetime) -> str:
    days = (as_of - row["since"]).days
    return f"pending for {days} days; ask the provider, or send its last callback again"


def _returned(row: Row) -> str:
    if row["unmatched"]:
        return f"returns {row['return_of']}, which is no payout of the books"
    listed: Sequence[Any] = row["listed"]
    more = f" and {row['payments'] - LISTED_MAX} more" if row["payments"] > LISTED_MAX else ""
    sent = "an unknown amount" if row["sent"] is None else plain(row["sent"])
    return f"{plain(row['amount'])} of {sent} came back with {', '.join(listed)}{more}"
