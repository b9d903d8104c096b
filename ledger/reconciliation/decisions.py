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
from typing import Any, Final, TypeAlias

import orjson

from ledger.config.reconciliation import Rules
from ledger.errors import Conflicting, InvalidRequest, NotFound
from ledger.eventlog.new_event import NewEvent, operator_event
from ledger.model import plain, shown
from ledger.queries.snapshot import DatabaseRow, Snapshot
from ledger.reconciliation.closing.close_log import open_from, read_closes
from ledger.reconciliation.decision_log import (
    BEFORE_COMMIT,
    Standing,
    read_standings,
    with_event,
)
from ledger.reconciliation.items import (
    AMOUNT,
    FEE,
    MISSING_IN_LEDGER,
    TIMING,
    ZERO,
    gross_anchor,
)
from ledger.reconciliation.result import OPEN, RESOLVED

KIND: Final = "adjustment"
AVAILABLE: Final = "assets:wallet:available"
FEES: Final = "expenses:fees"
SUSPENSE: Final = "suspense"
OPENING_ACCOUNT: Final = "equity:opening"
ACCOUNT: Final = re.compile(
    r"suspense|(expenses|income|equity):[a-z_]{1,40}|liabilities:customers:\S{1,200}", re.ASCII
)
UNLISTED: Final = "UNLISTED"
"""The state of a break that is not among the stored ones, or not after its latest decision."""
CHARGED: Final = frozenset({FEE, MISSING_IN_LEDGER, AMOUNT})

SELECT_BREAKS: Final = """
SELECT source, currency, id, type, state, anchor, rule, items, difference, gap, at
  FROM ledger.recon_breaks WHERE source = $1 AND id = ANY ($2::text[])
"""
SELECT_RUN_POSITIONS: Final = """
SELECT currency, (positions->>source)::bigint AS position
  FROM ledger.recon_runs WHERE source = $1
"""
SELECT_MATCHED: Final = """
SELECT item, anchor FROM ledger.recon_matches
 WHERE source = $1 AND currency = $2 AND item = ANY ($3::text[]) AND anchor <> ALL ($4::text[])
 ORDER BY item LIMIT 1
"""
SELECT_CONTEXT: Final = """
SELECT coalesce(array_agg(item ORDER BY item), '{}') AS items FROM ledger.recon_matches
 WHERE source = $1 AND currency = $2 AND item = ANY ($3::text[]) AND anchor = $4
   AND starts_with(item, 'line:')
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

Legs: TypeAlias = list[tuple[str, Decimal]]
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


@dataclass(frozen=True, slots=True)
class PlannedDecision:
    """A decision that was checked: the event to append, and what it will have done."""

    source: str
    currency: str
    body: Mapping[str, Any]
    done_at: int | None = None
    """The position of the same request that was appended before."""
    is_in_force: bool = True
    """Whether that request's decision is still the one in force."""

    @property
    def legs(self) -> Legs:
        """What it posts."""
        return [(leg["account"], Decimal(leg["amount"])) for leg in self.body["legs"]]


async def plan_decision(
    snapshot: Snapshot,
    break_id: str,
    request: DecisionRequest,
    rules_of_source: Mapping[str, Rules],
) -> PlannedDecision:
    """Check a decision against its break and the latest decision on it in the log.

    Raises NotFound, Conflicting when the state of the break does not allow it, InvalidRequest when
    the action is not for such a break.
    """
    planner = await DecisionPlanner.over(snapshot, [(break_id, request)], rules_of_source)
    return await planner.plan(break_id, request)


@dataclass(frozen=True, slots=True)
class DecisionPlanner:
    """Checks decisions one after the other, each as if those before it were in the log."""

    snapshot: Snapshot
    rules: Mapping[str, Rules]
    rows: Mapping[str, DatabaseRow]
    """Break → its stored row."""
    reconciled: Mapping[tuple[str, str], int]
    """(source, currency) → the position of the source at which the stored breaks are true."""
    standings: dict[str, dict[str, Standing]]
    """Source → break → what the log says about it."""
    posted_from: Mapping[tuple[str, str], datetime]
    """(source, currency) → the end of the latest closed month, before which nothing is posted."""

    @classmethod
    async def over(
        cls,
        snapshot: Snapshot,
        requests: Sequence[tuple[str, DecisionRequest]],
        rules: Mapping[str, Rules],
    ) -> DecisionPlanner:
        """Read what the decisions on some breaks are checked against."""
        ids = [break_id for break_id, _ in requests]
        rows: dict[str, DatabaseRow] = {}
        standings: dict[str, dict[str, Standing]] = {}
        reconciled: dict[tuple[str, str], int] = {}
        posted_from: dict[tuple[str, str], datetime] = {}
        for source in snapshot.places:
            listed = await snapshot.rows(SELECT_BREAKS, source, ids)
            rows |= {row["id"]: row for row in listed}
            items = {item for row in listed for item in row["items"]}
            items |= {item for _, request in requests for item in request.items}
            standings[source] = await read_standings(snapshot, source, ids, items)
            runs = await snapshot.rows(SELECT_RUN_POSITIONS, source)
            closes = await read_closes(snapshot, source) if runs else []
            for run in runs:
                wallet = source, run["currency"]
                reconciled[wallet] = run["position"] or 0
                begin = open_from(closes, run["currency"])
                if begin is not None:
                    posted_from[wallet] = begin
        return cls(snapshot, rules, rows, reconciled, standings, posted_from)

    async def plan(
        self, break_id: str, request: DecisionRequest, *, once: bool = False
    ) -> PlannedDecision:
        """Check one decision; with `once`, the same request is not planned a second time."""
        row, standing = self._find(break_id)
        source = row["source"]
        digest = request_digest(break_id, request)
        if once and standing is not None and digest in standing.requests:
            done_at = standing.requests[digest]
            is_in_force = request.action == "note" or done_at == standing.position
            body = {"legs": (), "action": request.action, "id": break_id}
            return PlannedDecision(source, row["currency"], body, done_at, is_in_force)
        body = await self._body(row, standing, request)
        body["request"] = digest
        known = self.standings[source]
        known[break_id] = with_event(standing, body, BEFORE_COMMIT)
        return PlannedDecision(source, row["currency"], body)

    def _find(self, break_id: str) -> tuple[DatabaseRow, Standing | None]:
        """Return a break as the log has it by now, and the standing; also one that is not listed.

        Raises NotFound.
        """
        stored = self.rows.get(break_id)
        for source, standings in self.standings.items():
            standing = standings.get(break_id)
            if stored is not None and stored["source"] == source:
                run = self.reconciled.get((source, stored["currency"]), 0)
                return current_row(stored, standing, run), standing
            if stored is None and standing is not None:
                return unlisted_row(source, standing), standing
        raise NotFound(f"there is no break {break_id!r}; /v1/breaks lists them")

    async def _body(
        self, row: DatabaseRow, standing: Standing | None, request: DecisionRequest
    ) -> dict[str, Any]:
        """Check a decision; return the body of its event."""
        rules = self.rules.get(row["source"], Rules())
        items: list[str] = sorted(row["items"])
        legs: Legs = []
        decided = standing if standing is not None and standing.action else None
        match request.action:
            case "note":
                pass
            case "reopen":
                _check_reopen(row, decided)
            case "match":
                _check_open(row, decided)
                items = await _with_context(self.snapshot, row, request.items or items)
                self._check_free(row, items)
                ended = [*self._reopened(row), gross_anchor(row["anchor"])]
                await _check_match(self.snapshot, row, items, ended)
            case _:
                _check_open(row, decided)
                self._check_free(row, items)
                legs = await _legs(self.snapshot, row, request, rules)
        body = body_of(row, request, items, legs)
        body |= dated_from(row, self.posted_from.get((row["source"], row["currency"])))
        if request.action == "match":
            body["break_items"] = sorted(row["items"])
        if request.action == "reopen" and decided is not None:
            body |= _taken_back(decided)
        return body

    def _reopened(self, row: DatabaseRow) -> list[str]:
        """Return the anchors of the matches by hand that are taken back since the stored run."""
        run = self.reconciled.get((row["source"], row["currency"]), 0)
        standings = self.standings[row["source"]].values()
        return [s.anchor for s in standings if s.action == "reopen" and s.position > run]

    def _check_free(self, row: DatabaseRow, items: Sequence[str]) -> None:
        """Check that no match by hand of another break has an item. Raises Conflicting."""
        for name, standing in self.standings[row["source"]].items():
            run = self.reconciled.get((row["source"], row["currency"]), 0)
            is_known = standing.position <= run
            if name == row["id"] or standing.action != "match" or is_known:
                continue
            shared = sorted({*items} & {*standing.items})
            if shared and standing.currency == row["currency"]:
                raise Conflicting(
                    f"{shared[0]} is already matched, with break {name}: {standing.sentence()}; an "
                    "item has one match"
                )


def current_row(row: DatabaseRow, standing: Standing | None, reconciled: int) -> DatabaseRow:
    """Return a stored break with the state that decisions after its reconciliation give it.

    `reconciled` is the position at which the stored row is true.
    """
    if standing is None or not standing.action or standing.position <= reconciled:
        return row
    if standing.action != "reopen":
        return {**row, "state": RESOLVED}
    if row["items"] == [f"{KIND}:{row['id']}"]:
        return {**row, "state": UNLISTED, "items": []}
    if row["rule"] != "hand" or standing.difference is None:
        return {**row, "state": OPEN}
    return {
        **row, "state": OPEN, "difference": standing.difference, "type": standing.break_type,
        "items": list(standing.break_items),
    }  # fmt: skip


def unlisted_row(source: str, standing: Standing) -> DatabaseRow:
    """Return a break that was decided on and is not among the stored ones."""
    return {
        "source": source, "currency": standing.currency, "id": standing.break_id,
        "type": standing.break_type, "state": UNLISTED, "anchor": standing.anchor, "rule": "none",
        "items": list(standing.break_items), "difference": ZERO, "at": standing.at,
    }  # fmt: skip


def _check_reopen(row: DatabaseRow, decided: Standing | None) -> None:
    if decided is None:
        raise Conflicting(f"break {row['id']} has no decision yet that could be reopened")
    if decided.action == "reopen":
        raise Conflicting(f"break {row['id']} is reopened already: {decided.sentence()}")


def _check_open(row: DatabaseRow, decided: Standing | None) -> None:
    """Check that a break is open for a decision. Raises Conflicting, naming the decision on it."""
    name, state = row["id"], row["state"]
    if row["items"] == [f"{KIND}:{name}"]:
        raise Conflicting(
            f"the reason for the decision on {name} is gone; reopen it to take its posting back"
        )
    if state == UNLISTED:
        raise Conflicting(
            f"break {name} is not open: it is not listed any more, because what it was about is "
            "matched or gone; `ledger reconcile breaks` lists what is open"
        )
    if state != OPEN:
        by = f": {decided.sentence()}" if decided is not None else ""
        raise Conflicting(f"break {name} is not open{by}; reopen it first")


def _taken_back(decided: Standing) -> dict[str, Any]:
    """Return what a reopening keeps of the decision that it takes back."""
    kept: dict[str, Any] = {"rule": decided.rule}
    if decided.action == "match":
        kept |= {
            "difference": plain(decided.difference or ZERO), "break_type": decided.break_type,
            "items": list(decided.break_items),
        }  # fmt: skip
    return kept


def request_digest(break_id: str, request: DecisionRequest) -> str:
    """Return the digest of what is requested of a break; it does not depend on who requests it."""
    parts = [break_id, request.action, sorted({*request.items}), request.account, request.note]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:32]


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
        "account": request.account,
        "items": list(items),
        "legs": [{"account": account, "amount": plain(amount)} for account, amount in legs],
        "by": request.by,
        "note": request.note,
        "effective_at": at.astimezone(UTC).isoformat(),
    }


def dated_from(row: Mapping[str, Any], begin: datetime | None) -> dict[str, Any]:
    """Return the time of a posting about a closed month: the first that is not closed."""
    if begin is None or row["anchor"] == "opening" or row["at"] >= begin:
        return {}
    return {"effective_at": begin.astimezone(UTC).isoformat()}


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


async def _with_context(snapshot: Snapshot, row: DatabaseRow, items: Sequence[str]) -> list[str]:
    """Return what a match by hand is about, sorted.

    Where only the fee of a transaction is a break, the lines that match the rest of it are shown
    with the break. The transaction is one item, so they belong to the match as well.
    """
    if not {*items} & {*row["items"]}:
        return sorted({*items})
    found = await snapshot.row(
        SELECT_CONTEXT, row["source"], row["currency"], row["items"], gross_anchor(row["anchor"])
    )
    return sorted({*items} | {*(found["items"] if found is not None else ())})


async def _check_match(
    snapshot: Snapshot, row: DatabaseRow, items: Sequence[str], ended: Sequence[str]
) -> None:
    """Check that items are free, known and of equal amounts; matches of `ended` anchors end."""
    source, currency = row["source"], row["currency"]
    if not items:
        raise InvalidRequest("items must name what belongs together, like line:<id>, payment:<id>")
    if not {*items} & {*row["items"]}:
        raise InvalidRequest(f"at least one item must be of the break: {', '.join(row['items'])}")
    matched = await snapshot.row(SELECT_MATCHED, source, currency, items, list(ended))
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
