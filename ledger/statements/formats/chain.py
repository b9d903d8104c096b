"""Put statements of one account into order, and find the time between them that none is about."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from decimal import Decimal
from itertools import groupby, pairwise
from typing import Any, Final, TypeVar

from ledger.config.calendar import Calendar

LONGEST_DAY: Final = timedelta(hours=25)
"""By a clock that is put back."""

T = TypeVar("T")
Balances = tuple[Decimal | None, Decimal | None]
"""The opening and the closing balance of a statement, where it has them."""


def chained(
    statements: Sequence[T], key: Callable[[T], Any], balances: Callable[[T], Balances]
) -> list[T]:
    """Return the statements by time, those that begin at one time as their balances follow.

    `key` returns when a statement begins, then what else puts it in order.
    """
    result: list[T] = []
    for _, group in groupby(sorted(statements, key=key), key=lambda each: key(each)[0]):
        closing = balances(result[-1])[1] if result else None
        result += _followed(list(group), balances, closing)
    return result


def follows(earlier: Balances, later: Balances) -> bool:
    """Return whether a statement opens with what the one before closed with, if both are known."""
    return None in (earlier[1], later[0]) or earlier[1] == later[0]


def is_gap(
    ended_at: datetime,
    begins_at: datetime,
    where: tzinfo | None,
    *,
    may_begin_earlier: bool = False,
) -> bool:
    """Return whether a statement is missing between two with equal balances.

    None is where only Saturdays and Sundays lie between them. `may_begin_earlier`: the later one's
    period is inferred, and may have the day of its opening balance as well.
    """
    calendar = Calendar(where or UTC)
    if calendar.business_time(begins_at) <= calendar.business_time(ended_at):
        return False
    return not (may_begin_earlier and begins_at - ended_at <= LONGEST_DAY)


def time_between(ended_at: datetime, begins_at: datetime, where: tzinfo | None) -> str:
    """Name the days between two statements, or the times where these are no whole days."""
    begin, end = (each.astimezone(where or UTC) for each in (ended_at, begins_at))
    if begin.time() != time() or end.time() != time():
        return f"{begin.isoformat()} to {end.isoformat()}"
    last_day = end.date() - timedelta(days=1)
    return f"{begin.date()}" if begin.date() == last_day else f"{begin.date()} to {last_day}"


def _followed(
    group: list[T], balances: Callable[[T], Balances], closing: Decimal | None
) -> list[T]:
    """Return statements of one time so that each opens with what the one before closed with."""
    links = [(None, closing), *map(balances, group)]
    if all(follows(earlier, later) for earlier, later in pairwise(links)):
        return group
    return [group[place] for place in _places(list(map(balances, group)), closing)]


def _places(links: Sequence[Balances], closing: Decimal | None) -> Iterator[int]:
    """Yield the places of statements of one time, each after the one with whose balance it opens.

    One that follows none comes when no other does; the first of these is the one before all.
    """
    by_opening: dict[Decimal | None, deque[int]] = defaultdict(deque)
    for place, (opening, _) in enumerate(links):
        by_opening[opening].append(place)
    waiting = deque(range(len(links)))
    if closing is None:  # begin with one that follows none of them
        closings = {each for _, each in links}
        first = next((n for n, (opening, _) in enumerate(links) if opening not in closings), 0)
        waiting.appendleft(first)
    taken: set[int] = set()
    while len(taken) < len(links):
        following = None if closing is None else by_opening.get(closing)
        while following and following[0] in taken:
            following.popleft()
        while waiting[0] in taken:
            waiting.popleft()
        place = following[0] if following else waiting[0]
        taken.add(place)
        yield place
        closing = links[place][1]
