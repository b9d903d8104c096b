"""Make the answers about closed months and roll-forwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson

from ledger.eventlog.identity import statements_log
from ledger.model import plain
from ledger.queries.params import QueryParams, after, write_cursor
from ledger.queries.schemas.closes import (
    CloseAnswer,
    CloseChanges,
    CloseItem,
    Closes,
    RolledAmount,
    RolledBreak,
    RollForwardAnswer,
)
from ledger.queries.snapshot import Snapshot
from ledger.reconciliation.closing.changes import read_changes
from ledger.reconciliation.closing.close_log import CLOSED, Close, read_closes
from ledger.reconciliation.closing.roll_forward import (
    CARRIED_IN,
    CARRIED_OUT,
    CLOSED_BY_DECISION,
    CLOSED_BY_MATCH,
    MOVEMENTS,
    OPENED,
    RolledItem,
    RolledMonth,
    RollForward,
    roll_forward,
)

SELECT_MONTHS: Final = """
SELECT currency, period, state, open::text AS open, resolved::text AS resolved
  FROM ledger.recon_months
 WHERE source = $1 AND ($2::text IS NULL OR currency = $2) ORDER BY currency, period
"""


async def read_close_page(snapshot: Snapshot, params: QueryParams) -> Closes:
    """Read a page of the closed months, by source, currency and month."""
    currency, period = params.text("currency"), params.text("period")
    selected = []
    for source in snapshot.sources(params):
        start = after(params, source, [str, str])
        for close in await read_closes(snapshot, source):
            is_later = start[0] is None or (close.currency, close.period) > tuple(start)
            is_requested = currency in (None, close.currency) and period in (None, close.period)
            if is_later and is_requested:
                selected.append((source, close))
    page, following = selected[: params.limit], None
    if len(selected) > len(page):
        source, last = page[-1]
        following = write_cursor([source, last.currency, last.period])
    answers = []
    for source in dict.fromkeys(source for source, _ in page):
        closes = [close for name, close in page if name == source]
        answers += await _close_answers(snapshot, source, closes)
    return Closes(answers, following, snapshot.position)


async def _close_answers(
    snapshot: Snapshot, source: str, closes: Sequence[Close]
) -> list[CloseAnswer]:
    """Return the closed months of a source, each with its later changes and its roll-forward."""
    rolled = {
        (each.currency, each.period): each
        for each in await read_roll_forwards(snapshot, source, None, None)
    }
    answers = []
    for close in closes:
        changes = await read_changes(snapshot, source, close) if close.status == CLOSED else None
        roll = rolled.get((close.currency, close.period))
        answers.append(close_answer(source, close, changes, roll))
    return answers


def close_answer(
    source: str, close: Close, changes: CloseChanges | None, roll: RollForwardAnswer | None
) -> CloseAnswer:
    """Return the answer about one closed month."""
    accepted = {*close.accepted}
    return CloseAnswer(
        source, close.currency, close.period, close.status, close.begin, close.end, close.state,
        plain(close.statement_balance), plain(close.ledger_balance), plain(close.in_transit),
        plain(close.breaks), list(close.accepted),
        [CloseItem(i.id, i.type, i.at, plain(i.gap), i.id in accepted) for i in close.open],
        close.lines,
        {source: close.books_position, statements_log(source): close.statements_position},
        close.sha256, close.rules_sha256, close.previous, close.by, close.note, close.at,
        close.position, changes, roll,
    )  # fmt: skip


def planned_answer(
    source: str, body: Mapping[str, Any], at: datetime | None, position: int | None
) -> CloseAnswer:
    """Return the answer about a month by the body of its event; both are None in a dry run."""
    accepted = {*body["accepted"]}
    return CloseAnswer(
        source, body["currency"], body["period"], body["action"],
        datetime.fromisoformat(body["begin"]), datetime.fromisoformat(body["end"]), body["state"],
        body["statement_balance"], body["ledger_balance"], body["in_transit"], body["breaks"],
        list(body["accepted"]),
        [
            CloseItem(name, kind, datetime.fromisoformat(moment), gap, name in accepted)
            for name, kind, moment, gap in body["open"]
        ],
        body["lines"],
        {source: body["position"], statements_log(source): body["statements_position"]},
        body["sha256"], body["rules_sha256"], body["previous"], body["by"], body["note"], at,
        position, None, None,
    )  # fmt: skip


async def read_roll_forwards(
    snapshot: Snapshot, source: str, currency: str | None, period: str | None
) -> list[RollForwardAnswer]:
    """Read the roll-forward of each month of a source; with a period also its items."""
    months: dict[str, list[RolledMonth]] = {}
    for row in await snapshot.rows(SELECT_MONTHS, source, currency):
        changes = orjson.loads(row["open"])
        month = RolledMonth(
            row["period"], row["state"], _items(changes["changed"]), tuple(changes["ended"]),
            _items(orjson.loads(row["resolved"])),
        )  # fmt: skip
        months.setdefault(row["currency"], []).append(month)
    closes = await read_closes(snapshot, source)
    return [
        _roll_answer(source, name, each)
        for name, some in months.items()
        for each in roll_forward(
            some, [close for close in closes if close.currency == name], period
        )
        if period in (None, each.period)
    ]


def _items(items: Iterable[Mapping[str, Any]]) -> tuple[RolledItem, ...]:
    return tuple(RolledItem(item["id"], item["type"], Decimal(item["gap"])) for item in items)


def _roll_answer(source: str, currency: str, roll: RollForward) -> RollForwardAnswer:
    sums = {name: RolledAmount(roll.count(name), plain(roll.amount(name))) for name in MOVEMENTS}
    items = [
        RolledBreak(item.id, item.type, name, plain(item.amount))
        for name in MOVEMENTS
        for item in roll.items.get(name, ())
    ]  # fmt: skip
    return RollForwardAnswer(
        source, currency, roll.period, roll.state, roll.is_closed, sums[CARRIED_IN], sums[OPENED],
        sums[CLOSED_BY_DECISION], sums[CLOSED_BY_MATCH], plain(roll.changed), sums[CARRIED_OUT],
        items,
    )  # fmt: skip
