"""Check whether a month can be closed or reopened, and make the event.

A month of a wallet is closed on what the latest reconciliation is at its end. Months are closed in
order and reopened in the opposite one, so that each rests on the one before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import Any, Final

import orjson

from ledger.books.balance_index import SHARD_BITS
from ledger.config.reconciliation import Rules
from ledger.errors import Conflicting, InvalidRequest, NotFound
from ledger.eventlog.identity import statements_log
from ledger.eventlog.new_event import NewEvent, operator_event
from ledger.model import Record, plain
from ledger.payload import shown
from ledger.queries.snapshot import BooksBehind, DatabaseRow, Snapshot
from ledger.reconciliation.closing.close_log import (
    CLOSED,
    REOPENED,
    Close,
    close_id,
    read_closes,
)
from ledger.reconciliation.closing.month_ends import MonthBounds, month_of
from ledger.reconciliation.items import TIMING
from ledger.reconciliation.result import INCOMPLETE
from ledger.terminal.figures import local_time

KIND: Final = "close"
PERIOD: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])", re.ASCII)

SELECT_RUNS: Final = """
SELECT currency, opened_at, closed_at, generation, positions::text AS positions, rules_sha256,
       figures->>'opening' AS opening
  FROM ledger.recon_runs WHERE source = $1 ORDER BY currency
"""
SELECT_MONTH: Final = """
SELECT state, figures::text AS figures, reasons::text AS reasons, sha256,
       ARRAY(SELECT m.open::text FROM ledger.recon_months AS m
              WHERE m.source = $1 AND m.currency = $2 AND m.period <= $3
              ORDER BY m.period) AS changes
  FROM ledger.recon_months WHERE source = $1 AND currency = $2 AND period = $3
"""
SELECT_HAS_EARLIER: Final = f"""
SELECT EXISTS (
       SELECT FROM checkpoints AS c
        CROSS JOIN generate_series(0, c.position >> {SHARD_BITS}) AS shards(shard)
        CROSS JOIN unnest('{{assets:wallet:available,assets:wallet:held}}'::text[])
                   AS requested(account)
        CROSS JOIN LATERAL (
              SELECT FROM entries
               WHERE source = $1 AND currency = $2 AND kind <> 'adjustment'
                 AND account = requested.account
                 AND (position >> {SHARD_BITS} << 32) + hashtext(account)
                     = (shard << 32) + hashtext(requested.account)
                 AND effective_at < $3 LIMIT 1) AS e
        WHERE c.source = $1) AS has_earlier
"""  # noqa: S608 - made of the constant SHARD_BITS
SELECT_DECIDED: Final = """
SELECT coalesce(max(operator_position), 0) AS position FROM adjustments WHERE source = $1
"""


@dataclass(frozen=True, slots=True)
class CloseRequest:
    """Which month an operator closes, of which wallets."""

    period: str
    by: str
    note: str = ""
    source: str | None = None
    currency: str | None = None
    accept: tuple[str, ...] = ()
    """Open breaks that are carried forward."""


class Obstacle(Record, frozen=True):
    """Something that stands in the way of closing a month."""

    source: str
    currency: str
    reason: str
    detail: str
    break_id: str | None = None


@dataclass(slots=True)
class ClosePlan:
    """The events that close a month, and what stands in their way."""

    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Source and body of the event of each wallet."""
    obstacles: list[Obstacle] = field(default_factory=list)
    skipped: list[Obstacle] = field(default_factory=list)
    """Wallets that are closed already, where others are to be closed."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """What the closing of one month of a wallet is checked against."""

    source: str
    run: DatabaseRow
    bounds: MonthBounds
    month: DatabaseRow | None
    open: Sequence[Mapping[str, Any]]
    """What is open or in transit at the end of the month."""
    closes: Sequence[Close]
    """Of the wallet, by month."""
    covered_from: datetime
    """From when on nothing happened in the wallet that no statement covers."""
    zone: tzinfo
    """Of the source, for people to read."""

    @property
    def currency(self) -> str:
        """The wallet's currency."""
        return str(self.run["currency"])

    def time(self, moment: datetime) -> str:
        """Return a time in words, in the zone of the source."""
        return f"{local_time(moment.isoformat(), self.zone)} {self.zone}"

    def obstacle(self, reason: str, detail: str, break_id: str | None = None) -> Obstacle:
        """Return an obstacle of this wallet."""
        return Obstacle(self.source, self.currency, reason, detail, break_id)


def check_period(period: str) -> tuple[int, int]:
    """Return year and month of a period like `2026-06`. Raises InvalidRequest."""
    match = PERIOD.fullmatch(period)
    if match is None or match.group(1) == "0000":
        raise InvalidRequest(f"period is {shown(period)}; write a month like 2026-06")
    return int(match.group(1)), int(match.group(2))


async def plan_close(
    snapshot: Snapshot, request: CloseRequest, rules: Mapping[str, Rules]
) -> ClosePlan:
    """Check the closing of a month for every selected wallet that has a statement.

    Raises BooksBehind while a result lacks imported statements or decisions, NotFound when no such
    wallet has a statement, InvalidRequest for what is no month.
    """
    year, month = check_period(request.period)
    plan = ClosePlan()
    wallets = 0
    accepted: set[str] = set()
    sources = [snapshot.check(request.source)] if request.source else list(snapshot.places)
    for source in sources:
        zone = rules.get(source, Rules()).zone
        for wallet in await _wallets(snapshot, source, request, month_of(year, month, zone), zone):
            wallets += 1
            accepted |= _plan_wallet(plan, wallet, request)
    if not wallets:
        raise NotFound("no such wallet has a statement; `ledger reconcile` lists those that do")
    for name in request.accept:
        if name not in accepted:
            detail = f"{name} is accepted, but is no break that is open at the end of the month"
            plan.obstacles.append(Obstacle("", "", "unknown_break", detail, name))
    if not plan.bodies and not plan.obstacles:
        plan.obstacles, plan.skipped = plan.skipped, []
    return plan


async def _wallets(
    snapshot: Snapshot, source: str, request: CloseRequest, bounds: MonthBounds, zone: tzinfo
) -> list[Wallet]:
    runs = [
        run
        for run in await snapshot.rows(SELECT_RUNS, source)
        if request.currency in (None, run["currency"])
    ]
    if not runs:
        return []
    decided = await snapshot.row(SELECT_DECIDED, source)
    closes = await read_closes(snapshot, source)
    found = []
    for run in runs:
        _check_is_read(snapshot, source, run, 0 if decided is None else decided["position"])
        month = await snapshot.row(SELECT_MONTH, source, run["currency"], request.period)
        own = [close for close in closes if close.currency == run["currency"]]
        begin = run["opened_at"]
        if begin > bounds.begin and not await _has_earlier(snapshot, source, run):
            begin = bounds.begin
        opened = open_at_end([] if month is None else month["changes"])
        found.append(Wallet(source, run, bounds, month, opened, own, begin, zone))
    return found


def open_at_end(changes: Iterable[str]) -> list[dict[str, Any]]:
    """Return what is open after the changes of months, as they are stored; sorted by id."""
    opened: dict[str, dict[str, Any]] = {}
    for text in changes:
        made = orjson.loads(text)
        opened |= {item["id"]: item for item in made["changed"]}
        for name in made["ended"]:
            del opened[name]
    return [opened[name] for name in sorted(opened)]


async def _has_earlier(snapshot: Snapshot, source: str, run: DatabaseRow) -> bool:
    """Tell whether a wallet had anything before its first statement, by statement or books."""
    if run["opening"] != "0":
        return True
    row = await snapshot.row(SELECT_HAS_EARLIER, source, run["currency"], run["opened_at"])
    return row is None or bool(row["has_earlier"])


def _check_is_read(snapshot: Snapshot, source: str, run: DatabaseRow, decided: int) -> None:
    """Check that a result contains every statement and decision. Raises BooksBehind."""
    positions = orjson.loads(run["positions"])
    log = statements_log(source)
    place = snapshot.places.get(log)
    head = 0 if place is None else place.head
    is_read = positions.get(log, 0) >= head and positions.get(source, 0) >= decided
    if not is_read or run["generation"] != snapshot.generation:
        is_decision = positions.get(log, 0) >= head and positions.get(source, 0) < decided
        lacking = f"{source}:{decided}" if is_decision else f"{log}:{head}"
        raise BooksBehind(f"{lacking} in the reconciliation of {run['currency']}")


def _plan_wallet(plan: ClosePlan, wallet: Wallet, request: CloseRequest) -> set[str]:
    """Add a wallet to the plan; return the open breaks of it that are accepted."""
    period = request.period
    known = next((c for c in wallet.closes if c.period == period and c.status == CLOSED), None)
    if known is not None:
        detail = f"{period} is closed already, by {known.by} at position {known.position}"
        plan.skipped.append(wallet.obstacle("closed_already", detail))
        return set()
    obstacles = list(_obstacles(wallet, request))
    plan.obstacles += obstacles
    month = wallet.month
    accepted = {item["id"] for item in wallet.open if item["type"] != TIMING} & {*request.accept}
    if month is not None and not obstacles:
        plan.bodies.append((wallet.source, _close_body(wallet, month, request, sorted(accepted))))
    return accepted


def _obstacles(wallet: Wallet, request: CloseRequest) -> Iterator[Obstacle]:
    """Yield what stands in the way of closing the month of a wallet."""
    out_of_order = _out_of_order(wallet.closes, request.period)
    if out_of_order:
        yield wallet.obstacle("not_in_order", out_of_order)
    month, run = wallet.month, wallet.run
    begin, end = wallet.time(run["opened_at"]), wallet.time(run["closed_at"])
    if month is None:
        yield wallet.obstacle(
            "not_covered",
            f"the statements are of {begin} to {end} and do not reach the end of the month, "
            f"{wallet.time(wallet.bounds.end)}; import those that do",
        )
        return
    if wallet.covered_from > wallet.bounds.begin:
        yield wallet.obstacle(
            "not_covered",
            f"the statements begin at {begin}, after the beginning of the month, "
            f"{wallet.time(wallet.bounds.begin)}; import an earlier one, or close the next month "
            "first",
        )
    if month["state"] == INCOMPLETE:
        for reason in orjson.loads(month["reasons"]):
            yield wallet.obstacle("incomplete", reason)
    for item in wallet.open:
        day = local_time(item["at"], wallet.zone)[:10]
        if item["type"] != TIMING and item["id"] not in request.accept:
            yield wallet.obstacle(
                "open_break",
                f"{item['type']} {item['id']} of {day} is open, gap {item['gap']}; "
                f"decide on it, or accept it (--accept {item['id']})",
                item["id"],
            )


def _out_of_order(closes: Sequence[Close], period: str) -> str | None:
    """Return why a month is not the next one to close; None when it is."""
    closed = [close.period for close in closes if close.status == CLOSED]
    if not closed:
        return None
    year, month = check_period(max(closed))
    following = month_of(year, month + 1, UTC).period
    if period == following:
        return None
    return f"{max(closed)} is the latest closed month, so {following} is the next one to close"


def _close_body(
    wallet: Wallet, month: DatabaseRow, request: CloseRequest, accepted: Sequence[str]
) -> dict[str, Any]:
    """Return the body of the event that closes a month of a wallet."""
    figures = orjson.loads(month["figures"])
    positions = orjson.loads(wallet.run["positions"])
    before = [c for c in wallet.closes if c.status == CLOSED and c.period < request.period]
    return {
        "type": KIND,
        "id": close_id(wallet.currency, request.period),
        "action": CLOSED,
        "currency": wallet.currency,
        "period": request.period,
        "begin": wallet.bounds.begin.isoformat(),
        "end": wallet.bounds.end.isoformat(),
        "state": month["state"],
        "statement_balance": figures["statement"],
        "ledger_balance": figures["ledger"],
        "in_transit": figures["in_transit"],
        "breaks": figures["breaks"],
        "open": [[item["id"], item["type"], item["at"], item["gap"]] for item in wallet.open],
        "accepted": list(accepted),
        "lines": figures["lines"],
        "position": positions.get(wallet.source, 0),
        "statements_position": positions.get(statements_log(wallet.source), 0),
        "sha256": month["sha256"],
        "rules_sha256": wallet.run["rules_sha256"],
        "previous": before[-1].position if before else None,
        "by": request.by,
        "note": request.note,
    }


async def plan_reopening(snapshot: Snapshot, request: CloseRequest) -> list[tuple[str, Any]]:
    """Return source and body of each event that reopens a closed month.

    Raises NotFound when no selected wallet has it closed, Conflicting when a later one is closed.
    """
    check_period(request.period)
    bodies: list[tuple[str, Any]] = []
    sources = [snapshot.check(request.source)] if request.source else list(snapshot.places)
    for source in sources:
        closes = await read_closes(snapshot, source)
        for close in closes:
            is_selected = request.currency in (None, close.currency)
            if close.period != request.period or close.status != CLOSED or not is_selected:
                continue
            later = [c.period for c in closes if c.currency == close.currency
                     and c.status == CLOSED and c.period > close.period]  # fmt: skip
            if later:
                raise Conflicting(
                    f"{close.currency} of {source}: {max(later)} is closed too and rests on "
                    f"{close.period}; reopen the later months first"
                )
            bodies.append((source, _reopening_body(close, request)))
    if not bodies:
        raise NotFound(
            f"{request.period} is not closed for such a wallet; /v1/reconciliation/closes"
        )
    return bodies


def _reopening_body(close: Close, request: CloseRequest) -> dict[str, Any]:
    amounts: dict[str, Decimal] = {
        "statement_balance": close.statement_balance, "ledger_balance": close.ledger_balance,
        "in_transit": close.in_transit, "breaks": close.breaks,
    }  # fmt: skip
    return {
        "type": KIND,
        "id": close.id,
        "action": REOPENED,
        "currency": close.currency,
        "period": close.period,
        "begin": close.begin.astimezone(UTC).isoformat(),
        "end": close.end.astimezone(UTC).isoformat(),
        "state": close.state,
        **{name: plain(amount) for name, amount in amounts.items()},
        "open": [
            [i.id, i.type, i.at.astimezone(UTC).isoformat(), plain(i.gap)] for i in close.open
        ],
        "accepted": list(close.accepted),
        "lines": close.lines,
        "position": close.books_position,
        "statements_position": close.statements_position,
        "sha256": close.sha256,
        "rules_sha256": close.rules_sha256,
        "previous": close.previous,
        "by": request.by,
        "note": request.note,
    }


def close_event(source: str, body: Mapping[str, Any], now: datetime) -> NewEvent:
    """Return the event to append for a closing or reopening."""
    raw = orjson.dumps({**body, "decided_at": now.isoformat()}, option=orjson.OPT_SORT_KEYS)
    return operator_event(
        key=f"{source}/{KIND}//{body['id']}/{hashlib.sha256(raw).hexdigest()}",
        kind=KIND,
        resource_id=str(body["id"]),
        status=str(body["action"]),
        body=raw,
        received_at=now,
        provider_at=now,
    )
