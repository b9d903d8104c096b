"""Make of one reconciliation what the wallet was at the end of each month. Pure.

Nothing is matched a second time: a match of today tells that something was in transit at the end of
a month that lies between its two sides. Groups add up, so at each end the same identity holds:
ledger balance = statement balance + in transit + open breaks + residual.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from itertools import accumulate
from typing import Any, Final, NamedTuple

import msgspec

from ledger.config.reconciliation import Rules
from ledger.model import changed, plain
from ledger.reconciliation.coverage import continuity_breaks
from ledger.reconciliation.items import AMOUNT, MATCHED, TIMING, ZERO, Group, Period, sum_of
from ledger.reconciliation.result import (
    BREAKS,
    INCOMPLETE,
    OPEN,
    RECONCILED,
    RESOLVED,
    RESOLVING,
    WITH_TIMING,
    LatestDecision,
    MonthEnd,
    MonthItem,
    Result,
    break_id_of,
)

MONTHS_MAX: Final = 36
"""How many of the latest months a reconciliation keeps the ends of."""


class MonthBounds(NamedTuple):
    """A calendar month in a time zone."""

    period: str
    begin: datetime
    end: datetime
    """Exclusive."""


def month_of(year: int, month: int, zone: tzinfo) -> MonthBounds:
    """Return a calendar month; `month` may be 0 or 13 and above, counted from the year's begin."""
    begin = _first(year, month, zone)
    name = begin.astimezone(zone)
    return MonthBounds(f"{name.year:04}-{name.month:02}", begin, _first(year, month + 1, zone))


def _first(year: int, month: int, zone: tzinfo) -> datetime:
    years, index = divmod(month - 1, 12)
    return datetime(year + years, index + 1, 1, tzinfo=zone).astimezone(UTC)


def months_within(period: Period, zone: tzinfo) -> list[MonthBounds]:
    """Return the latest months that end within a period, in order."""
    last = period.cutoff.astimezone(zone)
    found: list[MonthBounds] = []
    for back in range(MONTHS_MAX + 1):
        month = month_of(last.year, last.month - back, zone)
        if month.end <= period.opened_at or len(found) == MONTHS_MAX:
            break
        if month.end <= period.cutoff:
            found.append(month)
    return found[::-1]


@dataclass(frozen=True, slots=True)
class MonthEndBuilder:
    """Makes the ends of the months of one wallet."""

    result: Result
    groups: Sequence[Group]
    decisions: Mapping[str, LatestDecision]
    rules: Rules
    parked: str | None = None
    """Why every figure may lack something."""

    def build(self, balances: Mapping[MonthBounds, Decimal]) -> tuple[MonthEnd, ...]:
        """Return the end of each month whose ledger balance is given."""
        if not balances:
            return ()
        ends = [month.end for month in balances]
        spread = [group for group in self.groups if _may_be_open(group, ends)]
        lines = sorted(
            (line.booked_at or line.at, line.amount) for group in self.groups
            for line in group.lines
        )  # fmt: skip
        sheet = _Lines([at for at, _ in lines], [ZERO, *accumulate(amount for _, amount in lines)],
                       [amount for _, amount in lines])  # fmt: skip
        return tuple(
            self._month(month, balance, spread, sheet) for month, balance in balances.items()
        )

    def _month(
        self, month: MonthBounds, ledger: Decimal, spread: Sequence[Group], lines: _Lines
    ) -> MonthEnd:
        opened = sorted(self._open_at(month.end, spread), key=lambda item: item.id)
        resolved = [
            MonthItem(b.id, b.type, b.at, b.difference, b.items, b.action)
            for b in self.result.breaks
            if b.state == RESOLVED and month.begin <= b.at < month.end
        ]
        opening = self.result.figures["opening"]
        statement = None if opening is None else Decimal(opening) + lines.sum_before(month.end)
        figures = _figures(month, statement, ledger, opened, lines)
        reasons = tuple(self._reasons(month, statement, figures))
        state = _state(opened, reasons)
        content = [
            self.result.source, self.result.currency, self.result.rules_sha256, month, state,
            figures, reasons, [_values(item) for item in (*opened, *resolved)],
        ]  # fmt: skip
        sha256 = hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()
        return MonthEnd(
            *month, state, figures, tuple(opened), tuple(resolved), reasons, sha256
        )  # fmt: skip

    def _open_at(self, end: datetime, spread: Sequence[Group]) -> Iterator[MonthItem]:
        """Yield what is open or in transit at an end."""
        cutoff = self.result.coverage.period.cutoff
        for group in spread:
            item = self._of_group(group, end, cutoff)
            if item is not None:
                yield item
        for each in self.result.breaks:
            is_orphan = each.items == (f"adjustment:{each.id}",)
            if each.state != OPEN or not (is_orphan or each.anchor == "opening"):
                continue
            decision = self.decisions.get(each.id)
            later = decision.posted - _posted(decision, end) if decision else ZERO
            gap = each.gap - later
            if each.at < end and gap:
                yield MonthItem(each.id, each.type, each.at, gap, each.items)

    def _of_group(self, group: Group, end: datetime, cutoff: datetime) -> MonthItem | None:
        """Return what a group is at an end; None where nothing of it is open."""
        cut = _cut(group, end, cutoff)
        if cut is None or cut.at is None:
            return None
        name = break_id_of(self.result.source, self.result.currency, group.anchor)
        decision = self.decisions.get(name)
        posted = _posted(decision, end)
        gap = cut.difference + posted
        kind = group.classification
        if kind == MATCHED:
            kind = AMOUNT if posted else TIMING
            return MonthItem(name, kind, cut.at, gap, cut.keys) if gap else None
        is_resolved = decision is not None and decision.action in RESOLVING and not gap
        is_whole = len(cut.lines) == len(group.lines) and cut.ledger_amount == group.ledger_amount
        if is_resolved or not (gap or is_whole):
            return None
        return MonthItem(name, kind, cut.at, gap, cut.keys)

    def _reasons(
        self, month: MonthBounds, statement: Decimal | None, figures: Mapping[str, Any]
    ) -> Iterator[str]:
        coverage, since = self.result.coverage, self.rules.since
        if since is not None and coverage.period.opened_at != since:
            yield f"no statement begins at {since.isoformat()}, which is where `since` begins"
        if self.parked:
            yield self.parked
        if statement is None:
            yield "no statement states a balance from which the one at the end of the month follows"
            return
        stated = [each for each in coverage.stated_balances if each.at <= month.end]
        lines = [line for group in self.groups for line in group.lines]
        opening = Decimal(self.result.figures["opening"])
        broken = continuity_breaks(stated, opening, lines) if self.result.reasons else []
        yield from broken
        if not broken and figures["residual"] != "0":
            yield f"{figures['residual']} of the ledger balance is not explained"


class _Lines(NamedTuple):
    """The lines of the statements in the order in which they are booked."""

    times: list[datetime]
    sums: list[Decimal]
    """Sums of the first 0, 1, 2 … amounts."""
    amounts: list[Decimal]

    def sum_before(self, end: datetime) -> Decimal:
        """Return the sum of the amounts before a time."""
        return self.sums[bisect_left(self.times, end)]


def _may_be_open(group: Group, ends: Sequence[datetime]) -> bool:
    """Tell whether a group can be open at one of the ends: it is a break, or spread over one."""
    if group.classification != MATCHED or group.difference:
        return True
    times = [line.booked_at or line.at for line in group.lines]
    times += [at for movement in group.movements for at, _ in movement.legs]
    return bool(times) and bisect_left(ends, min(times)) != bisect_left(ends, max(times))


def _cut(group: Group, end: datetime, cutoff: datetime) -> Group | None:
    """Return what of a group is dated before an end; None when nothing is."""
    lines = tuple(line for line in group.lines if (line.booked_at or line.at) < end)
    legs = [leg for movement in group.movements for leg in movement.legs]
    later = sum_of(amount for at, amount in legs if end <= at < cutoff)
    if not lines and all(at >= end for at, _ in legs):
        return None
    movements = tuple(m for m in group.movements if m.legs[0][0] < end)
    return changed(
        group, lines=lines, movements=movements, ledger_amount=group.ledger_amount - later
    )


def _posted(decision: LatestDecision | None, end: datetime) -> Decimal:
    """Return what a decision posted, as far as it is dated before an end."""
    if decision is None or decision.effective_at is None or decision.effective_at >= end:
        return ZERO
    return decision.posted


def _figures(
    month: MonthBounds, statement: Decimal | None, ledger: Decimal, opened: Sequence[MonthItem],
    lines: _Lines,
) -> dict[str, Any]:  # fmt: skip
    transit = sum_of(item.gap for item in opened if item.type == TIMING)
    breaks = sum_of(item.gap for item in opened if item.type != TIMING)
    first, last = bisect_left(lines.times, month.begin), bisect_left(lines.times, month.end)
    amounts = lines.amounts[first:last]
    residual = None if statement is None else ledger - statement - transit - breaks
    return {
        "statement": None if statement is None else plain(statement),
        "ledger": plain(ledger),
        "in_transit": plain(transit),
        "in_transit_count": sum(item.type == TIMING for item in opened),
        "breaks": plain(breaks),
        "breaks_count": sum(item.type != TIMING for item in opened),
        "residual": None if residual is None else plain(residual),
        "lines": len(amounts),
        "money_in": plain(sum_of(amount for amount in amounts if amount > 0)),
        "money_out": plain(sum_of(amount for amount in amounts if amount < 0)),
    }


def _state(opened: Sequence[MonthItem], reasons: Sequence[str]) -> str:
    if reasons:
        return INCOMPLETE
    if any(item.type != TIMING for item in opened):
        return BREAKS
    return WITH_TIMING if opened else RECONCILED


def _values(item: MonthItem) -> list[Any]:
    return [
        plain(value) if isinstance(value, Decimal) else value
        for value in msgspec.structs.astuple(item)
    ]
