"""Read what the log says about breaks: the decision in force on each, and every request so far.

The books have what they have folded; what was appended since is read from the log itself. So a
decision is known from its commit on, however far behind the books and the reconciliation are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson

from ledger.model import Record, changed
from ledger.queries.snapshot import BooksBehind, DatabaseRow, Snapshot

SELECT_FOLDED: Final = """
SELECT id, currency, anchor, break_type, items, break_items, action, by, note, account, difference,
       rule, decided_position, coalesce(effective_at, decided_at) AS at, words::text AS words
  FROM adjustments
 WHERE source = $1 AND kind = 'adjustment'
   AND (id = ANY ($2::text[]) OR (action = 'match' AND items && $3::text[]))
"""
SELECT_NEWER: Final = """
SELECT e.position, e.body FROM ledger.events AS e
 WHERE e.source = $1 AND e.position > coalesce(
       (SELECT c.position FROM checkpoints AS c WHERE c.source = $1), 0)
   AND e.origin = 'operator' AND e.kind = 'adjustment'
 ORDER BY e.position
"""
SELECT_RUN: Final = """
SELECT generation, (positions->>source)::bigint AS position
  FROM ledger.recon_runs WHERE source = $1 AND currency = $2
"""
SELECT_STATES: Final = """
SELECT id, state FROM ledger.recon_breaks WHERE source = $1 AND id = ANY ($2::text[])
"""

BEFORE_COMMIT: Final = 2**62
"""The position of a decision that is checked and not appended yet."""


class Standing(Record, frozen=True):
    """What the log says about one break: the decision in force, and the requests so far."""

    break_id: str
    currency: str = ""
    anchor: str = ""
    break_type: str = ""
    at: datetime | None = None
    action: str = ""
    """Of the decision in force; "" where there are notes at most."""
    by: str = ""
    note: str = ""
    position: int = 0
    """Of the decision in force."""
    items: tuple[str, ...] = ()
    """What the decision in force is about; for a match, what it matched."""
    break_items: tuple[str, ...] = ()
    """The break's own items when it was decided on."""
    difference: Decimal | None = None
    """The break's difference when it was decided on."""
    account: str | None = None
    rule: str | None = None
    requests: Mapping[str, int] = {}
    """Digest of a request → the position of its event."""

    def sentence(self) -> str:
        """Describe the decision in force."""
        where = "earlier in this request" if self.position == BEFORE_COMMIT else (
            f"at position {self.position}"
        )  # fmt: skip
        return f"{self.action} by {self.by}, {where} ({self.note})"


def folded(row: DatabaseRow) -> Standing:
    """Return the standing that the books have."""
    words = orjson.loads(row["words"])
    requests = {w["request"]: w["position"] for w in words if w.get("request")}
    known = Standing(
        row["id"], row["currency"], row["anchor"], row["break_type"] or "", row["at"],
        requests=requests,
    )  # fmt: skip
    if row["action"] == "note":
        return known
    return changed(
        known, action=row["action"], by=row["by"] or "", note=row["note"] or "",
        position=row["decided_position"], items=tuple(row["items"]),
        break_items=tuple(row["break_items"]), difference=row["difference"],
        account=row["account"], rule=row["rule"],
    )  # fmt: skip


def with_event(known: Standing | None, body: Mapping[str, Any], position: int) -> Standing:
    """Return a standing after one more decision, by the body of its event."""
    known = known or Standing(str(body["id"]))
    request = body.get("request")
    requests = {**known.requests, request: position} if request else known.requests
    known = changed(
        known, currency=body["currency"], anchor=body["anchor"] or known.anchor,
        break_type=body.get("break_type") or known.break_type, requests=requests,
        at=datetime.fromisoformat(body["effective_at"]),
    )  # fmt: skip
    if body["action"] == "note":
        return known
    return changed(
        known, action=body["action"], by=body.get("by") or "", note=body.get("note") or "",
        position=position, items=tuple(body.get("items") or ()),
        break_items=tuple(body.get("break_items") or body.get("items") or ()),
        difference=Decimal(body.get("difference") or 0), account=body.get("account"),
        rule=body.get("rule"),
    )  # fmt: skip


async def read_standings(
    snapshot: Snapshot, source: str, break_ids: Collection[str], items: Iterable[str] = ()
) -> dict[str, Standing]:
    """Read the standings of breaks by their ids, and of the matches by hand that have `items`."""
    rows = await snapshot.rows(SELECT_FOLDED, source, list(break_ids), list(items))
    standings = {row["id"]: folded(row) for row in rows}
    for row in await snapshot.rows(SELECT_NEWER, source):
        body = orjson.loads(row["body"])
        name = str(body["id"])
        standings[name] = with_event(standings.get(name), body, row["position"])
    return standings


async def read_break_states(
    snapshot: Snapshot, positions: Mapping[tuple[str, str], int], break_ids: Collection[str]
) -> dict[str, str]:
    """Read the states of listed breaks from results that contain the positions of their wallets.

    `positions` has, by source and currency, which position of the source the result must contain.
    Raises BooksBehind while one does not.
    """
    for (source, currency), position in positions.items():
        run = await snapshot.row(SELECT_RUN, source, currency)
        is_there = run is not None and run["generation"] == snapshot.generation
        if not is_there or (run is not None and (run["position"] or 0) < position):
            raise BooksBehind(f"{source}:{position} in the reconciliation of {currency}")
    return {
        row["id"]: row["state"]
        for source in {source for source, _ in positions}
        for row in await snapshot.rows(SELECT_STATES, source, list(break_ids))
    }
