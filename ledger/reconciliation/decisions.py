"""Check operators' decisions on breaks and turn them into events of the source's log.

An event contains the legs that it posts, so that a rebuild posts the same. A decision replaces the
earlier one on the same break.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson

from ledger.config.reconciliation import Rules
from ledger.config.source import Source
from ledger.errors import Conflicting, InvalidRequest, NotFound
from ledger.eventlog.appender import APPEND, NOTIFY, columns
from ledger.eventlog.new_event import NewEvent, operator_event
from ledger.evidence.authenticity import mark_event
from ledger.model import plain, shown
from ledger.queries.snapshot import DatabaseRow, Snapshot
from ledger.reconciliation.items import AMOUNT, FEE, MISSING_IN_LEDGER, TIMING, ZERO
from ledger.reconciliation.result import OPEN, Break, Result

KIND: Final = "adjustment"
AVAILABLE: Final = "assets:wallet:available"
FEES: Final = "expenses:fees"
SUSPENSE: Final = "suspense"
OPENING_ACCOUNT: Final = "equity:opening"
ACCOUNT: Final = re.compile(
    r"suspense|(expenses|income|equity):[a-z_]{1,40}|liabilities:customers:\S{1,200}", re.ASCII
)
CHARGED: Final = frozenset({FEE, MISSING_IN_LEDGER, AMOUNT})

SELECT_BREAK: Final = """
SELECT source, currency, id, type, state, anchor, rule, items, difference, gap, at
  FROM ledger.recon_breaks WHERE source = $1 AND id = $2
"""
SELECT_ADJUSTMENT: Final = """
SELECT source, currency, id, break_type AS type, anchor, items, action,
       coalesce(effective_at, decided_at) AS at
  FROM adjustments WHERE source = $1 AND kind = 'adjustment' AND id = $2
"""
SELECT_MATCHED: Final = """
SELECT item, anchor FROM ledger.recon_matches
 WHERE source = $1 AND currency = $2 AND item = ANY ($3::text[]) ORDER BY item LIMIT 1
"""
SELECT_STATEMENT_AMOUNT: Final = """
SELECT coalesce(array_agg('line:' || line), '{}') AS keys, coalesce(sum(amount), 0) AS amount
  FROM statement_lines
 WHERE source = $1 || '.statements' AND currency = $2 AND line = ANY ($3::text[])
   AND status = 'stated'
   AND hashtextextended(line, 0) = ANY (ARRAY(
       SELECT hashtextextended(id, 0) FROM unnest($3::text[]) AS id))
"""
SELECT_LEDGER_AMOUNT: Final = """
SELECT coalesce(array_agg(DISTINCT e.kind || ':' || e.transaction), '{}') AS keys,
       coalesce(sum(e.amount), 0) AS amount
  FROM unnest($3::text[], $4::text[]) AS u(kind, id)
  JOIN entries AS e ON e.source = $1 AND e.kind = u.kind AND e.transaction = u.id
   AND e.position = ANY (journal_positions($1, u.kind, u.id))
 WHERE e.currency = $2 AND e.account IN ('assets:wallet:available', 'assets:wallet:held')
"""
SELECT_LEGS: Final = """
SELECT e.account, sum(e.amount) AS amount
  FROM unnest($3::text[], $4::text[]) AS u(kind, id)
  JOIN entries AS e ON e.source = $1 AND e.kind = u.kind AND e.transaction = u.id
   AND e.position = ANY (journal_positions($1, u.kind, u.id))
 WHERE e.currency = $2 AND e.account NOT LIKE 'memo:%'
 GROUP BY e.account HAVING sum(e.amount) <> 0 ORDER BY e.account
"""

Legs = list[tuple[str, Decimal]]
"""Account and signed amount."""

NOTHING: Final[DatabaseRow] = {"keys": (), "amount": ZERO}


@dataclass(frozen=True, slots=True)
class DecisionRequest:
    """What an operator decides about a break."""

    action: str
    by: str
    note: str = ""
    items: tuple[str, ...] = ()
    """The items to match; without them, those of the break."""
    account: str | None = None
    """The account of a write-off; without it, the declared difference account."""


async def decide(
    snapshot: Snapshot,
    break_id: str,
    request: DecisionRequest,
    rules_of_source: Mapping[str, Rules],
) -> tuple[str, dict[str, Any]]:
    """Check a decision against its break; return its source and the body of its event.

    Raises NotFound, Conflicting when the state of the break does not allow it, InvalidRequest when
    the action is not for such a break.
    """
    row = await _find_break(snapshot, break_id)
    source = row["source"]
    rules = rules_of_source.get(source, Rules())
    items = sorted({*request.items}) or sorted(row["items"])
    legs: Legs = []
    if row["items"] == [f"{KIND}:{break_id}"] and request.action not in ("reopen", "note"):
        raise Conflicting(
            f"the reason for the decision on {break_id} is gone; reopen it to take its posting back"
        )
    match request.action:
        case "note":
            pass
        case "reopen":
            known = await snapshot.row(SELECT_ADJUSTMENT, source, break_id)
            if known is None or known["action"] == "note":
                raise Conflicting(f"break {break_id} has no decision yet that could be reopened")
        case "match":
            await _check_match(snapshot, row, items)
        case _:
            legs = await _legs(snapshot, row, request, rules)
    if request.action != "match":
        items = sorted(row["items"])
    return source, body_of(row, request, items, legs)


def body_of(
    row: Mapping[str, Any], request: DecisionRequest, items: Sequence[str], legs: Legs
) -> dict[str, Any]:
    """Return the event's body; its effective time is that of the break."""
    at: datetime = row["at"]
    if row["anchor"] == "opening":
        at -= timedelta(microseconds=1)
    return {
        "type": KIND,
        "id": row["id"],
        "action": request.action,
        "currency": row["currency"],
        "anchor": row["anchor"],
        "break_type": row["type"],
        "difference": plain(row.get("difference") or ZERO),
        "items": list(items),
        "legs": [{"account": account, "amount": plain(amount)} for account, amount in legs],
        "by": request.by,
        "note": request.note,
        "effective_at": at.astimezone(UTC).isoformat(),
    }


def decision_event(source: str, body: Mapping[str, Any], now: datetime) -> NewEvent:
    """Return the event to append for a decision."""
    raw = orjson.dumps(dict(body), option=orjson.OPT_SORT_KEYS)
    key = f"{source}/{KIND}//{body['id']}/{hashlib.sha256(raw).hexdigest()}"
    return operator_event(
        key=key,
        kind=KIND,
        resource_id=str(body["id"]),
        status=str(body["action"]),
        body=raw,
        received_at=now,
        provider_at=datetime.fromisoformat(body["effective_at"]),
    )


async def post_tolerated(
    connection: Any, result: Result, rules: Rules, terms: Source | None
) -> int:
    """Append a posting for each difference within the declared tolerance; return how many.

    The same difference makes the same event in every run, so the log takes it once. `terms` are the
    source's settings, whose secret marks the event.
    """
    limit = rules.tolerance.get(result.currency)
    tolerated = [b for b in result.breaks if limit and _is_tolerated(b, limit)]
    for each in tolerated:
        row = {name: getattr(each, name) for name in Break.__struct_fields__}
        row |= {"currency": result.currency}
        request = DecisionRequest(
            "tolerance", "rule", f"within {plain(limit or ZERO)}, rules {rules.sha256}"
        )
        legs = [(AVAILABLE, -each.difference), (rules.difference_account, each.difference)]
        body = body_of(row, request, each.items, legs)
        new_event = decision_event(result.source, body, datetime.now(UTC))
        new_event = mark_event(terms, result.source, new_event)
        await connection.fetchrow(APPEND, result.source, *columns([new_event]))
    if tolerated:
        await connection.execute(NOTIFY)
    return len(tolerated)


def _is_tolerated(each: Break, limit: Decimal) -> bool:
    is_small = each.difference != 0 and abs(each.difference) <= limit
    return each.type == AMOUNT and each.action is None and is_small


async def _find_break(snapshot: Snapshot, break_id: str) -> DatabaseRow:
    """Read a break, or the decision on one that is not listed any more."""
    for statement in (SELECT_BREAK, SELECT_ADJUSTMENT):
        for source in snapshot.places:
            row = await snapshot.row(statement, source, break_id)
            if row is not None:
                return row
    raise NotFound(f"there is no break {break_id!r}; /v1/breaks lists them")


async def _check_match(snapshot: Snapshot, row: DatabaseRow, items: Sequence[str]) -> None:
    source, currency = row["source"], row["currency"]
    if not items:
        raise InvalidRequest("items must name what belongs together, like line:<id>, payment:<id>")
    if not {*items} & {*row["items"]}:
        raise InvalidRequest(f"at least one item must be of the break: {', '.join(row['items'])}")
    matched = await snapshot.row(SELECT_MATCHED, source, currency, items)
    if matched is not None:
        raise Conflicting(
            f"{matched['item']} is already matched, by {matched['anchor']}; an item has one match"
        )
    lines, kinds, ids = _split(items)
    if KIND in kinds:
        raise InvalidRequest(
            "the posting of a decision cannot be matched; name lines and transactions"
        )
    stated = await snapshot.row(SELECT_STATEMENT_AMOUNT, source, currency, lines) or NOTHING
    booked = await snapshot.row(SELECT_LEDGER_AMOUNT, source, currency, kinds, ids) or NOTHING
    missing = {*items} - {*stated["keys"]} - {*booked["keys"]}
    if missing:
        raise InvalidRequest(
            f"{', '.join(sorted(missing))}: the {currency} wallet has no statement line or "
            "transaction of this name; `ledger reconcile breaks` and /v1/transactions list them"
        )
    difference = booked["amount"] - stated["amount"]
    if difference:
        raise Conflicting(
            f"the amounts of the items differ by {plain(difference)} {currency} (books - "
            "statement); write_off posts a difference"
        )


def _split(items: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the ids of the lines, and kinds and ids of the transactions."""
    lines, kinds, ids = [], [], []
    for item in items:
        kind, colon, name = item.partition(":")
        if not colon or not name:
            raise InvalidRequest(
                f"{item!r} is not the name of an item; write line:<id> or <kind>:<id>"
            )
        if kind == "line":
            lines.append(name)
        else:
            kinds.append(kind)
            ids.append(name)
    return lines, kinds, ids


async def _legs(
    snapshot: Snapshot, row: DatabaseRow, request: DecisionRequest, rules: Rules
) -> Legs:
    """Return what a write-off, a fee or a void posts. Raises Conflicting or InvalidRequest."""
    if row.get("state") != OPEN:
        raise Conflicting(f"break {row['id']} is not open; reopen it first")
    if row["type"] == TIMING:
        raise Conflicting(
            f"{row['id']} may still be in transit; it becomes a break after the settlement time"
        )
    difference: Decimal = row["difference"]
    if not difference:
        raise Conflicting("there is no difference to post; match the items that belong together")
    if request.account is not None and not ACCOUNT.fullmatch(request.account):
        raise InvalidRequest(
            f"account is {shown(request.account)}; it must be suspense, expenses:…, income:…, "
            "equity:… or liabilities:customers:…"
        )
    match request.action:
        case "post_fee":
            if row["type"] not in CHARGED or request.account is not None:
                raise InvalidRequest(
                    "post_fee is for breaks about a fee, and always posts to expenses:fees"
                )
            other = FEES
        case "void":
            return await _void_legs(snapshot, row, request, difference)
        case _:
            is_opening = row["anchor"] == "opening"
            default = OPENING_ACCOUNT if is_opening else rules.difference_account
            other = request.account or default
    return [(AVAILABLE, -difference), (other, difference)]


async def _void_legs(
    snapshot: Snapshot, row: DatabaseRow, request: DecisionRequest, difference: Decimal
) -> Legs:
    """Reverse a transaction that the provider does not have; post a line to suspense."""
    lines, kinds, ids = _split(row["items"])
    if not row["items"]:
        raise InvalidRequest(
            f"void is for transactions and lines; write_off posts to {OPENING_ACCOUNT}"
        )
    if not ids:
        return [(AVAILABLE, -difference), (request.account or SUSPENSE, difference)]
    rows = await snapshot.rows(SELECT_LEGS, row["source"], row["currency"], kinds, ids)
    wallet = sum((r["amount"] for r in rows if r["account"].startswith("assets:wallet:")), ZERO)
    if lines or wallet != difference:
        raise InvalidRequest(
            "void reverses whole transactions, but a part of this one is on the statement; "
            "use write_off"
        )
    return [(r["account"], -r["amount"]) for r in rows]
