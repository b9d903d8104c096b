"""Make of one reconciliation what the wallet was at the end of each month. Pure.

Nothing is matched a second time: a match of today tells that something was in transit at the end of
a month that lies between its two sides. Groups add up, so at each end the same identity holds:
ledger balance = statement balance + in transit + open breaks + residual.

What is open is followed by its changes, so that time and size grow with the breaks, not with the
breaks times the months.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from functools import partial
from itertools import accumulate, chain
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from ledger.config.reconciliation import Rules
from ledger.model import changed, plain
from ledger.reconciliation.coverage import CONTINUITY_BREAKS_MAX, dated_continuity_breaks
from ledger.reconciliation.items import AMOUNT, MATCHED, TIMING, ZERO, Group, Period, sum_of
from ledger.reconciliation.result import (
    BREAKS,
    INCOMPLETE,
    OPEN,
    RECONCILED,
    RESOLVED,
    RESOLVING,
    WITH_TIMING,
    Break,
    LatestDecision,
    MonthEnd,
    MonthItem,
    Result,
    break_id_of,
)

MONTHS_MAX: Final = 36
"""How many of the latest months a reconciliation keeps the ends of."""


ItemChange: TypeAlias = tuple[str, MonthItem | None]
"""Id of an item and what it is from then on; None where it ends."""
Followed: TypeAlias = tuple[str, list[datetime], Callable[[datetime], MonthItem | None]]
"""Id of an item, the times at which it may change, and what it is at an end."""


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
        """Return the end of each month whose ledger balance is given; `balances` is in order."""
        months = list(balances)
        ends = [month.end for month in months]
        lines = _lines_of(self.groups)
        changes = self._changes(ends)
        resolved = self._resolved(months)
        continuity = self._continuity()
        opened = _OpenItems({item_id for some in changes for item_id, _ in some})
        made = []
        for place, month in enumerate(months):
            changed_items, ended = opened.apply(changes[place])
            statement = self._statement_balance(lines, month.end)
            figures = _figures(month, statement, balances[month], opened, lines)
            reasons = tuple(self._reasons(month, statement, figures, continuity))
            state = _state(opened, reasons)
            content = [
                self.result.source, self.result.currency, self.result.rules_sha256, month, state,
                figures, reasons, opened.digest(), [_values(item) for item in resolved[place]],
            ]  # fmt: skip
            sha256 = hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()
            made.append(
                MonthEnd(
                    *month, state, figures, changed_items, ended, tuple(resolved[place]), reasons,
                    sha256,
                )
            )  # fmt: skip
        return tuple(made)

    def _changes(self, ends: Sequence[datetime]) -> list[list[ItemChange]]:
        """Return what becomes open, changes or ends between one end and the next, for each end."""
        changes: list[list[ItemChange]] = [[] for _ in ends]
        for name, times, item_at in chain(self._groups_to_follow(ends), self._breaks_to_follow()):
            before: MonthItem | None = None
            for place in sorted({bisect_right(ends, at) for at in times}):
                if place == len(ends):
                    break
                item = item_at(ends[place])
                if item != before:
                    changes[place].append((name, item))
                before = item
        return changes

    def _groups_to_follow(self, ends: Sequence[datetime]) -> Iterator[Followed]:
        """Yield the groups that may be open at an end."""
        cutoff = self.result.coverage.period.cutoff
        posted = {each.anchor for each in self.decisions.values() if each.posted}
        for group in self.groups:
            times = _times_of(group)
            if not times:
                continue
            is_spread = bisect_right(ends, min(times)) != bisect_right(ends, max(times))
            is_whole = group.classification == MATCHED and not group.difference
            if is_whole and not is_spread and group.anchor not in posted:
                continue
            name = break_id_of(self.result.source, self.result.currency, group.anchor)
            times += _posted_at(self.decisions.get(name))
            yield name, times, partial(self._of_group, group, name, cutoff)

    def _breaks_to_follow(self) -> Iterator[Followed]:
        """Yield the open breaks that have no group."""
        for each in self.result.breaks:
            is_orphan = each.items == (f"adjustment:{each.id}",)
            if each.state == OPEN and (is_orphan or each.anchor == "opening"):
                decision = self.decisions.get(each.id)
                times = [each.at, *_posted_at(decision)]
                yield each.id, times, partial(_of_break, each, decision)

    def _resolved(self, months: Sequence[MonthBounds]) -> list[list[MonthItem]]:
        """Return the breaks dated in each month that decisions resolved, sorted by id."""
        resolved: list[list[MonthItem]] = [[] for _ in months]
        ends = [month.end for month in months]
        for b in self.result.breaks:
            place = bisect_right(ends, b.at)
            if b.state == RESOLVED and place < len(months) and months[place].begin <= b.at:
                item = MonthItem(b.id, b.type, b.at, b.difference, b.items, b.action)
                resolved[place].append(item)
        return resolved

    def _statement_balance(self, lines: _Lines, end: datetime) -> Decimal | None:
        """Return the statements' balance at a time; None where none follows from those stated.

        Without an opening balance it follows from the first one that is stated by then.
        """
        opening = self.result.figures["opening"]
        if opening is not None:
            return Decimal(opening) + lines.sum_before(end)
        stated = next(iter(self.result.coverage.stated_balances), None)
        if stated is None or stated.at > end:
            return None
        return stated.balance + lines.sum_before(end) - lines.sum_before(stated.at)

    def _continuity(self) -> list[tuple[datetime, str]]:
        """Return the stated balances that do not follow, where the result names any reason."""
        opening = self.result.figures["opening"]
        if opening is None or not self.result.reasons:
            return []
        lines = [line for group in self.groups for line in group.lines]
        stated = self.result.coverage.stated_balances
        return dated_continuity_breaks(stated, Decimal(opening), lines)

    def _of_group(
        self, group: Group, name: str, cutoff: datetime, end: datetime
    ) -> MonthItem | None:
        """Return what a group is at an end; None where nothing of it is open."""
        cut = _cut(group, end, cutoff)
        if cut is None or cut.at is None:
            return None
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
        self, month: MonthBounds, statement: Decimal | None, figures: Mapping[str, Any],
        continuity: Sequence[tuple[datetime, str]],
    ) -> Iterator[str]:  # fmt: skip
        coverage, since = self.result.coverage, self.rules.since
        if since is not None and coverage.period.opened_at != since:
            yield f"no statement begins at {since.isoformat()}, which is where `since` begins"
        if self.parked:
            yield self.parked
        if statement is None:
            yield "no statement states a balance from which the one at the end of the month follows"
            return
        broken = [sentence for at, sentence in continuity if at <= month.end]
        yield from broken[:CONTINUITY_BREAKS_MAX]
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


def _lines_of(groups: Sequence[Group]) -> _Lines:
    ordered = sorted(
        (line.booked_at or line.at, line.amount) for group in groups for line in group.lines
    )
    amounts = [amount for _, amount in ordered]
    return _Lines([at for at, _ in ordered], [ZERO, *accumulate(amounts)], amounts)


class _OpenItems:
    """What is open or in transit, followed from month to month; counts and sums with it."""

    def __init__(self, ids: Iterable[str]) -> None:
        """Begin with nothing; `ids` are those of all items that are ever open."""
        self._ranks = {name: rank for rank, name in enumerate(sorted(ids))}
        self._digests: list[bytes | None] = [None] * len(self._ranks)
        self._items: dict[str, MonthItem] = {}
        self.counts = {True: 0, False: 0}
        """Whether in transit → how many."""
        self.sums = {True: ZERO, False: ZERO}
        """Whether in transit → the sum of the gaps."""

    def apply(self, changes: Sequence[ItemChange]) -> tuple[tuple[MonthItem, ...], tuple[str, ...]]:
        """Take the changes up to an end; return the changed items and the ended ids, sorted."""
        for name, item in changes:
            before = self._items.pop(name, None)
            if before is not None:
                self._count(before, -1)
            if item is not None:
                self._items[name] = item
                self._count(item, 1)
            values = None if item is None else msgspec.json.encode(_values(item))
            digest = None if values is None else hashlib.sha256(values).digest()
            self._digests[self._ranks[name]] = digest
        made = sorted((item for _, item in changes if item is not None), key=lambda each: each.id)
        return tuple(made), tuple(sorted(name for name, item in changes if item is None))

    def _count(self, item: MonthItem, sign: int) -> None:
        is_in_transit = item.type == TIMING
        self.counts[is_in_transit] += sign
        self.sums[is_in_transit] += sign * item.gap

    def digest(self) -> str:
        """Return the digest of all that is open, sorted by id."""
        return hashlib.sha256(b"".join(filter(None, self._digests))).hexdigest()


def _times_of(group: Group) -> list[datetime]:
    """Return the times at which something of a group is dated."""
    times = [line.booked_at or line.at for line in group.lines]
    return times + [at for movement in group.movements for at, _ in movement.legs]


def _posted_at(decision: LatestDecision | None) -> list[datetime]:
    """Return when what a decision posted is dated."""
    return [decision.effective_at] if decision is not None and decision.effective_at else []


def _of_break(each: Break, decision: LatestDecision | None, end: datetime) -> MonthItem | None:
    """Return what a break without a group is at an end; None where it is not open."""
    later = decision.posted - _posted(decision, end) if decision else ZERO
    gap = each.gap - later
    return (
        MonthItem(each.id, each.type, each.at, gap, each.items) if each.at < end and gap else None
    )


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
    month: MonthBounds, statement: Decimal | None, ledger: Decimal, opened: _OpenItems,
    lines: _Lines,
) -> dict[str, Any]:  # fmt: skip
    transit, breaks = opened.sums[True], opened.sums[False]
    first, last = bisect_left(lines.times, month.begin), bisect_left(lines.times, month.end)
    amounts = lines.amounts[first:last]
    residual = None if statement is None else ledger - statement - transit - breaks
    return {
        "statement": None if statement is None else plain(statement),
        "ledger": plain(ledger),
        "in_transit": plain(transit),
        "in_transit_count": opened.counts[True],
        "breaks": plain(breaks),
        "breaks_count": opened.counts[False],
        "residual": None if residual is None else plain(residual),
        "lines": len(amounts),
        "money_in": plain(sum_of(amount for amount in amounts if amount > 0)),
        "money_out": plain(sum_of(amount for amount in amounts if amount < 0)),
    }


def _state(opened: _OpenItems, reasons: Sequence[str]) -> str:
    if reasons:
        return INCOMPLETE
    if opened.counts[False]:
        return BREAKS
    return WITH_TIMING if opened.counts[True] else RECONCILED


def _values(item: MonthItem) -> list[Any]:
    return [
        plain(value) if isinstance(value, Decimal) else value
        for value in msgspec.structs.astuple(item)
    ]
