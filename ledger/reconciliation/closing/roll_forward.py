"""Roll the breaks of a wallet forward from month to month. Pure.

carried in + opened + changed - closed = carried out, in counts (without `changed`) and in amounts.
What a closed month ended with is what its close states, so that the next month begins with that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from ledger.model import Record
from ledger.reconciliation.closing.close_log import CLOSED, Close
from ledger.reconciliation.items import ZERO, sum_of

CARRIED_IN: Final = "carried_in"
OPENED: Final = "opened"
CLOSED_BY_DECISION: Final = "closed_by_decision"
CLOSED_BY_MATCH: Final = "closed_by_match"
CARRIED_OUT: Final = "carried_out"
MOVEMENTS: Final = (CARRIED_IN, OPENED, CLOSED_BY_DECISION, CLOSED_BY_MATCH, CARRIED_OUT)


class RolledItem(Record, frozen=True):
    """A break or something in transit, with its gap (books - statement)."""

    id: str
    type: str
    amount: Decimal


class RolledMonth(Record, frozen=True):
    """What was open at the end of a month, and which breaks of it decisions resolved."""

    period: str
    state: str
    open: tuple[RolledItem, ...]
    resolved: tuple[RolledItem, ...] = ()


class RollForward(Record, frozen=True):
    """The roll-forward of one month."""

    period: str
    state: str
    is_closed: bool
    items: Mapping[str, Sequence[RolledItem]]
    """Movement → its items, sorted by id."""
    changed: Decimal
    """By how much the gaps of carried items differ between begin and end."""

    def count(self, movement: str) -> int:
        """Return how many items a movement has."""
        return len(self.items[movement])

    def amount(self, movement: str) -> Decimal:
        """Return the sum of a movement's gaps."""
        return sum_of(item.amount for item in self.items[movement])


def roll_forward(months: Sequence[RolledMonth], closes: Iterable[Close]) -> list[RollForward]:
    """Return the roll-forward of each month, in order; the first one begins with nothing."""
    closed = {close.period: close for close in closes if close.status == CLOSED}
    resolved = {item.id for month in months for item in month.resolved}
    before: dict[str, RolledItem] = {}
    rolled = []
    for month in months:
        after = _by_id(_out(month, closed.get(month.period)))
        rolled.append(_roll(month, before, after, resolved, is_closed=month.period in closed))
        before = after
    return rolled


def _out(month: RolledMonth, close: Close | None) -> Sequence[RolledItem]:
    if close is None:
        return month.open
    return [RolledItem(item.id, item.type, item.gap) for item in close.open]


def _roll(
    month: RolledMonth, before: Mapping[str, RolledItem], after: Mapping[str, RolledItem],
    resolved: set[str], *, is_closed: bool,
) -> RollForward:  # fmt: skip
    seen = _by_id([*month.resolved, *after.values()])
    opened = {name: item for name, item in seen.items() if name not in before}
    ended = {name: item for name, item in {**before, **opened}.items() if name not in after}
    kept = [(before[name], item) for name, item in after.items() if name in before]
    items = {
        CARRIED_IN: before,
        OPENED: opened,
        CLOSED_BY_DECISION: {n: item for n, item in ended.items() if n in resolved},
        CLOSED_BY_MATCH: {n: item for n, item in ended.items() if n not in resolved},
        CARRIED_OUT: after,
    }
    return RollForward(
        month.period,
        month.state,
        is_closed,
        {name: [some[key] for key in sorted(some)] for name, some in items.items()},
        sum((new.amount - old.amount for old, new in kept), ZERO),
    )


def _by_id(items: Iterable[RolledItem]) -> dict[str, RolledItem]:
    return {item.id: item for item in items}
