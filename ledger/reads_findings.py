"""Reading what looks incomplete without any statement: completeness, asked at a moment.

Ages depend on when one asks, so nothing here is in the books; a moment is given, or is now. Each
finding has the name of an exception, under which operators see it and decide on it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, TypeAlias

from ledger import registry
from ledger.answers_recon import FindingAnswer, Findings
from ledger.errors import LedgerError, NotYet
from ledger.model import Record, SourceTerms
from ledger.questions import Question, after, write_cursor
from ledger.reading import plain
from ledger.reads import Row, Snapshot
from ledger.recon_rules import Rules

FOUND_MAX: Final = 10_000
"""Findings of one reason and source; more are an incident, not a list."""

LISTED_MAX: Final = 5
"""Returns that one finding names; the rest it counts."""

BY_AMOUNT: Final = frozenset({"limit_drift", "payout_partly_returned"})
"""Reasons under which another amount is another exception: who has seen one has not seen it."""

LIMITS_PAGE: Final = 500
"""Customers' limits that are compared at a time."""

Limit: TypeAlias = tuple[str, str, str]
"""Customer, period and kind."""

DAY: Final = timezone(timedelta(hours=8))
"""Limits count the days and years of Singapore (StraitsX is there)."""

PERIODS: Final = tuple((p, k) for p in ("annual", "daily") for k in ("payment", "payout"))

SELECT_NOW: Final = "SELECT now() AS now"
SELECT_STUCK: Final = """
SELECT kind, id, currency, amount, effective_at AS since, position FROM transactions
 WHERE source = $1 AND status IN ('pending', 'Pending') AND effective_at < $2
 ORDER BY kind, id LIMIT $3
"""
SELECT_RETURNS: Final = """
SELECT r.kind, r.id, r.currency, r.amount, r.effective_at AS since, r.return_of,
       greatest(r.position, p.position) AS position,
       p.id AS payout, p.amount AS sent, p.details->>'returned_amount' AS returned
  FROM transactions AS r
  LEFT JOIN transactions AS p
    ON p.source = r.source AND p.idempotency_id = r.return_of AND p.kind = 'payout'
   AND hashtextextended(p.idempotency_id, 0) = hashtextextended(r.return_of, 0)
 WHERE r.source = $1 AND r.return_of IS NOT NULL AND r.status = 'completed'
   AND r.effective_at <= $2
 ORDER BY r.kind, r.id LIMIT $3
"""
# A full join cannot be a loop: without statistics on `source` the planner believes in one customer
# and would read all of them for each balance.
SELECT_UNVERIFIED: Final = """
SELECT 'customer' AS kind, b.id, b.currency, b.amount, c.updated_at AS since,
       c.verification_status AS status, c.position
  FROM (SELECT substr(account, 23) AS id, currency, credits - debits AS amount FROM balances
         WHERE source = $1 AND account LIKE 'liabilities:customers:%') AS b
  FULL JOIN (SELECT id, updated_at, verification_status, position FROM customers
              WHERE source = $1 AND kind = 'customer') AS c ON c.id = b.id
 WHERE coalesce(b.amount, 0) <> 0 AND c.verification_status IS DISTINCT FROM 'verified'
 ORDER BY b.id, b.currency LIMIT $2
"""
# The last few events of each stream: what was told when is in the events, not in the books.
SELECT_LIMITS: Final = """
SELECT l.customer_id, e.position, e.received_at, e.path_event, e.body, s.provider
  FROM (SELECT source, kind, id, customer_id FROM limits
         WHERE source = $1 AND customer_id IS NOT NULL
           AND ($3::text IS NULL OR customer_id > $3)
         ORDER BY customer_id FETCH FIRST ($2::bigint) ROWS WITH TIES) AS l
  JOIN ledger.sources AS s ON s.source = l.source
 CROSS JOIN LATERAL (
       SELECT h.position FROM history AS h
        WHERE h.source = l.source AND h.kind = l.kind AND h.id = l.id
          AND hashtextextended(h.id, 0) = hashtextextended(l.id, 0)
        ORDER BY h.position DESC LIMIT 8) AS latest
  JOIN ledger.events AS e ON e.source = l.source AND e.position = latest.position
 ORDER BY l.customer_id, e.position
"""
SELECT_USED: Final = """
SELECT u.place, t.currency, t.amount
  FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::bigint[])
       WITH ORDINALITY AS u(customer, kind, begin, until, position, place)
 CROSS JOIN LATERAL (
       SELECT currency, sum(amount) AS amount FROM transactions
        WHERE source = $1 AND customer_id = u.customer AND kind = u.kind
          AND hashtextextended(customer_id, 0) = hashtextextended(u.customer, 0)
          AND status = 'completed'
          AND effective_at >= u.begin AND effective_at < u.until AND first_position <= u.position
        GROUP BY currency) AS t
 ORDER BY u.place, t.currency
"""


class Used(Record, frozen=True):
    """What the provider said to be used of a limit, and where and when it said so."""

    amount: Decimal
    position: int
    at: datetime


async def findings(snapshot: Snapshot, question: Question, rules: Mapping[str, Rules]) -> Findings:
    """Read what looks incomplete as of a moment, source by source."""
    asked = question.time("as_of") or await now(snapshot)
    reason = question.text("reason")
    found: list[FindingAnswer] = []
    following = None
    for source in snapshot.sources(question):
        key = [str(part) for part in after(question, source, [str] * 4) if part is not None]
        rows = await of_source(snapshot, source, asked, rules.get(source, Rules()), reason)
        found += [each for each in rows if [*_key(each)] > key]
    if len(found) > question.limit:
        found = found[: question.limit]
        following = write_cursor([found[-1].source, *_key(found[-1])])
    return Findings(findings=found, as_of=asked, next=following, position=snapshot.position)


async def now(snapshot: Snapshot) -> datetime:
    """Return the moment of the snapshot, by the database's clock."""
    row = await snapshot.row(SELECT_NOW)
    if row is None:
        raise NotYet("the database does not tell the time; ask again")
    moment: datetime = row["now"]
    return moment


async def of_source(
    snapshot: Snapshot, source: str, as_of: datetime, rules: Rules, reason: str | None = None,
    kind: str | None = None,
) -> list[FindingAnswer]:  # fmt: skip
    """Return the findings of one source, sorted; only what the filters ask for is looked up."""
    found: dict[str, FindingAnswer] = {}
    for reasons, kinds, read in READERS:
        if (reason is None or reason in reasons) and (kind is None or kinds(kind)):
            found |= {each.exception: each for each in await read(snapshot, source, as_of, rules)}
    return sorted(
        (
            each
            for each in found.values()
            if reason in (None, each.reason) and kind in (None, each.kind)
        ),
        key=_key,
    )


def _key(each: FindingAnswer) -> tuple[str, str, str, str]:
    return each.reason, each.kind, each.id, each.currency or ""


async def _stuck(
    snapshot: Snapshot, source: str, as_of: datetime, rules: Rules
) -> list[FindingAnswer]:
    rows = await snapshot.rows(SELECT_STUCK, source, as_of - rules.stuck, FOUND_MAX)
    return [_found(source, "stuck_pending", row, _age(row, as_of)) for row in rows]


async def _unverified(
    snapshot: Snapshot, source: str, as_of: datetime, rules: Rules
) -> list[FindingAnswer]:
    rows = await snapshot.rows(SELECT_UNVERIFIED, source, FOUND_MAX)
    return [
        _found(source, "unverified_money", row,
               f"the customer has money and is {row['status'] or 'of unknown verification'}")
        for row in rows
    ]  # fmt: skip


def _found(source: str, reason: str, row: Mapping[str, Any], detail: str) -> FindingAnswer:
    amount = None if row["amount"] is None else plain(row["amount"])
    about = [source, reason, row["kind"], row["id"], row["currency"] or ""]
    if reason in BY_AMOUNT:
        about.append(amount or "")
    return FindingAnswer(
        source=source,
        reason=reason,
        kind=row["kind"],
        id=row["id"],
        currency=row["currency"],
        amount=amount,
        since=row["since"],
        detail=detail,
        event_position=row["position"],
        exception=_name(about),
    )


def _name(about: Sequence[str]) -> str:
    """Name a finding as an exception: the same thing has the same name whenever one asks."""
    return hashlib.sha256("|".join(["finding", *about]).encode()).hexdigest()[:16]


def _age(row: Row, as_of: datetime) -> str:
    days = (as_of - row["since"]).days
    return f"pending for {days} days; ask the provider, or send its last callback again"


async def _returns(
    snapshot: Snapshot, source: str, as_of: datetime, rules: Rules
) -> list[FindingAnswer]:
    """Name payouts that came back, whole or in part, and returns that belong to none."""
    payouts: dict[str, list[Row]] = defaultdict(list)
    found: list[FindingAnswer] = []
    for row in await snapshot.rows(SELECT_RETURNS, source, as_of, FOUND_MAX):
        if row["payout"] is None:
            detail = f"returns {row['return_of']}, which is no payout of the books"
            found.append(_found(source, "return_unmatched", row, detail))
        else:
            payouts[row["payout"]].append(row)
    return found + [_returned(source, rows) for rows in payouts.values()]


def _returned(source: str, rows: Sequence[Row]) -> FindingAnswer:
    """Name one payout that came back by one payment or several."""
    last = max(rows, key=lambda row: (row["since"], row["id"]))
    back = Decimal(last["returned"] or sum(row["amount"] for row in rows))
    reason = "payout_returned" if back >= last["sent"] else "payout_partly_returned"
    by = ", ".join(f"{row['kind']} {row['id']}" for row in rows[:LISTED_MAX])
    more = f" and {len(rows) - LISTED_MAX} more" if len(rows) > LISTED_MAX else ""
    detail = f"{plain(back)} of {plain(last['sent'])} came back with {by}{more}"
    position = max(row["position"] for row in rows)
    about = {
        **last, "kind": "payout", "id": last["payout"], "amount": back, "position": position,
    }  # fmt: skip
    return _found(source, reason, about, detail)


async def _drifts(
    snapshot: Snapshot, source: str, as_of: datetime, rules: Rules
) -> list[FindingAnswer]:
    """Compare what the provider says is used of each limit with what the transactions used."""
    found: list[FindingAnswer] = []
    last: str | None = None
    while rows := await snapshot.rows(SELECT_LIMITS, source, LIMITS_PAGE, last):
        last = rows[-1]["customer_id"]
        found += await _drifts_of(snapshot, source, list(_limits(source, rows).items()))
    return found


def _limits(source: str, rows: Sequence[Row]) -> dict[Limit, Used]:
    """Return what was last told to be used of each limit."""
    known = registry.load()
    found: dict[Limit, Used] = {}
    for row in rows:
        terms = SourceTerms(source, row["provider"])
        try:
            fact = known.translate(terms, "callback", row["path_event"], row["body"])
        except LedgerError:
            continue  # listed as an exception
        told = fact.details.get("limits") or {}
        for period, kind in PERIODS:
            name = f"{period}_{kind}_limit"
            whole, left = told.get(f"total_{name}"), told.get(f"available_{name}")
            if whole is not None and left is not None:
                amount = Decimal(whole) - Decimal(left)
                place = row["customer_id"], period, kind
                found[place] = Used(amount, row["position"], row["received_at"])
    return found


async def _drifts_of(
    snapshot: Snapshot, source: str, told: Sequence[tuple[Limit, Used]]
) -> list[FindingAnswer]:
    sums: dict[int, list[Row]] = defaultdict(list)
    for row in await snapshot.rows(
        SELECT_USED, source, [customer for (customer, _, _), _ in told],
        [kind for (_, _, kind), _ in told], [_begin(period, u) for (_, period, _), u in told],
        [used.at for _, used in told], [used.position for _, used in told],
    ):  # fmt: skip
        sums[row["place"]].append(row)
    drifts = (
        _drift(source, limit, used, sums[place]) for place, (limit, used) in enumerate(told, 1)
    )
    return [each for each in drifts if each is not None]


def _begin(period: str, used: Used) -> datetime:
    begin = used.at.astimezone(DAY).replace(hour=0, minute=0, second=0, microsecond=0)
    return begin.replace(month=1, day=1) if period == "annual" else begin


def _drift(source: str, limit: Limit, used: Used, sums: Sequence[Row]) -> FindingAnswer | None:
    if len(sums) > 1:
        return None  # a limit is in one currency, and does not say in which
    ours = sums[0]["amount"] if sums else Decimal(0)
    if ours == used.amount:
        return None
    customer, period, kind = limit
    about = {
        "kind": "limits", "id": f"{customer}:{period}_{kind}", "amount": used.amount - ours,
        "currency": sums[0]["currency"] if sums else None, "since": used.at,
        "position": used.position,
    }  # fmt: skip
    detail = f"the provider counts {plain(used.amount)} used, the transactions {plain(ours)}"
    return _found(source, "limit_drift", about, detail)


Read: TypeAlias = Callable[[Snapshot, str, datetime, Rules], Awaitable[list[FindingAnswer]]]
"""(snapshot, source, as of, rules) → findings."""

_PEOPLE: Final = frozenset({"customer", "limits"})

READERS: Final[Sequence[tuple[frozenset[str], Callable[[str], bool], Read]]] = (
    (frozenset({"stuck_pending"}), lambda kind: kind not in _PEOPLE, _stuck),
    (
        frozenset({"payout_returned", "payout_partly_returned", "return_unmatched"}),
        lambda kind: kind not in _PEOPLE,
        _returns,
    ),
    (frozenset({"unverified_money"}), lambda kind: kind == "customer", _unverified),
    (frozenset({"limit_drift"}), lambda kind: kind == "limits", _drifts),
)
"""Reasons, whether findings of a kind are among them, and what reads them."""
