"""Put statements of one account into the order in which they follow each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import groupby, pairwise
from typing import Any, TypeVar

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


def _followed(
    group: list[T], balances: Callable[[T], Balances], closing: Decimal | None
) -> list[T]:
    """Return statements of one time so that each opens with what the one before closed with."""
    links = [(None, closing), *map(balances, group)]
    if all(follows(earlier, later) for earlier, later in pairwise(links)):
        return group
    result: list[T] = []
    remaining = list(group)
    while remaining:
        openings = [balances(each)[0] for each in remaining]
        if closing is None:  # begin with the one that follows none of them
            closings = [balances(each)[1] for each in remaining]
            place = next((n for n, each in enumerate(openings) if each not in closings), 0)
        else:
            place = openings.index(closing) if closing in openings else 0
        result.append(remaining.pop(place))
        closing = balances(result[-1])[1]
    return result
