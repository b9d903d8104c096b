"""Roll the breaks of a wallet forward from month to month. Pure.

carried in + opened + changed - closed = carried out, in counts (without `changed`) and in amounts.
What a closed month ended with is what its close states, so that the next month begins with that.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, TypeAlias

from ledger.model import Record
from ledger.reconciliation.closing.close_log import CLOSED, Close
from ledger.reconciliation.items import ZERO, sum_of

CARRIED_IN: Final = "carried_in"
OPENED: Final = "opened"
CLOSED_BY_DECISION: Final = "closed_by_decision"
CLOSED_BY_MATCH: Final = "closed_by_match"
CARRIED_OUT: Final = "carried_out"
MOVEMENTS: Final = (CARRIED_IN, OPENED, CLOSED_BY_DECISION, CLOSED_BY_MATCH, CARRIED_OUT)


Total: TypeAlias = tuple[int, Decimal]
"""How many items, and the sum of their gaps."""


class RolledItem(Record, frozen=True):
    """A break or something in transit, with its gap (books - statement)."""

    id: str
    type: str
    amount: Decimal


class RolledMonth(Record, frozen=True):
    """How a month changes what is open, and which breaks of it decisions resolved."""

    period: str
    state: str
    changed: tuple[RolledItem, ...]
    """What is open at its end and was not, or otherwise, at the end of the month before."""
    ended: tuple[str, ...] = ()
    """Ids of what was open at the end of the month before and is not any more."""
    resolved: tuple[RolledItem, ...] = ()


class RollForward(Record, frozen=True):
    """The roll-forward of one month."""

    period: str
    state: str
    is_closed: bool
    sums: Mapping[str, Total]
    """Movement → how many items it has, and the sum of their gaps."""
    changed: Decimal
    """By how much the gaps of carried items differ between begin and end."""
    items: Mapping[str, Sequence[RolledItem]] = {}
    """Movement → its items, sorted by id, where they are requested."""

    def count(self, movement: str) -> int:
        """Return how many items a movement has."""
        return self.sums[movement][0]

    def amount(self, movement: str) -> Decimal:
        """Return the sum of a movement's gaps."""
        return self.sums[movement][1]


def roll_forward(
    months: Sequence[RolledMonth], closes: Iterable[Close], listed: str | None = None
) -> list[RollForward]:
    """Return the roll-forward of each month, in order; the first one begins with nothing.

    `listed` is the period whose items are listed. Months cost what changes in them; one that is
    closed, and the one after it, cost what is open.
    """
    closed = {close.period: close for close in closes if close.status == CLOSED}
    resolved = {item.id for month in months for item in month.resolved}
    current: dict[str, RolledItem] = {}  # by the reconciliation, whatever a close states
    carried, total = current, (0, ZERO)
    rolled = []
    for month in months:
        close, is_listed = closed.get(month.period), month.period == listed
        names = {*month.ended, *(item.id for item in (*month.changed, *month.resolved))}
        is_whole = is_listed or close is not None or carried is not current
        before = {name: carried[name] for name in (carried if is_whole else names & carried.keys())}
        for name in month.ended:
            del current[name]
        current |= _by_id(month.changed)
        after = current if close is None else _closed_items(close)
        if is_whole:
            names |= {*before, *after}
        movements = _Movements(resolved)
        own = _by_id(month.resolved)
        for name in sorted(names):
            movements.add(before.get(name), after.get(name), own.get(name))
        sums = movements.sums(total)
        total = sums[CARRIED_OUT]
        items = (
            movements.items
            | {
                CARRIED_IN: [before[name] for name in sorted(before)],
                CARRIED_OUT: [after[name] for name in sorted(after)],
            }
            if is_listed
            else {}
        )
        rolled.append(
            RollForward(
                month.period, month.state, close is not None, sums, movements.changed, items
            )
        )  # fmt: skip
        carried = after
    return rolled


class _Movements:
    """What comes, changes and ends in one month."""

    def __init__(self, resolved: Container[str]) -> None:
        """Begin with nothing; `resolved` are the ids of what decisions resolved."""
        self._resolved = resolved
        self.changed = ZERO
        self.items: dict[str, list[RolledItem]] = {
            OPENED: [], CLOSED_BY_DECISION: [], CLOSED_BY_MATCH: [],
        }  # fmt: skip

    def add(
        self, before: RolledItem | None, after: RolledItem | None, resolved: RolledItem | None
    ) -> None:
        """Add what an item is at the begin and the end, and as a break resolved in the month."""
        if before is not None and after is not None:
            self.changed += after.amount - before.amount
        opened = (after or resolved) if before is None else None
        if opened is not None:
            self.items[OPENED].append(opened)
        ended = before or opened
        if after is None and ended is not None:
            is_decided = ended.id in self._resolved
            self.items[CLOSED_BY_DECISION if is_decided else CLOSED_BY_MATCH].append(ended)

    def sums(self, carried_in: Total) -> dict[str, Total]:
        """Return count and sum of each movement."""
        sums = {
            name: (len(some), sum_of(item.amount for item in some))
            for name, some in self.items.items()
        }
        ended = (sums[CLOSED_BY_DECISION], sums[CLOSED_BY_MATCH])
        count = carried_in[0] + sums[OPENED][0] - sum(each[0] for each in ended)
        amount = carried_in[1] + sums[OPENED][1] + self.changed - sum_of(e[1] for e in ended)
        return sums | {CARRIED_IN: carried_in, CARRIED_OUT: (count, amount)}


def _closed_items(close: Close) -> dict[str, RolledItem]:
    return {item.id: RolledItem(item.id, item.type, item.gap) for item in close.open}


def _by_id(items: Iterable[RolledItem]) -> dict[str, RolledItem]:
    return {item.id: item for item in items}
