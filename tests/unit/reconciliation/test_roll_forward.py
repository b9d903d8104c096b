"""Breaks carried in, opened, changed and closed add up to those carried out, month by month."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from ledger.reconciliation.closing.close_log import CLOSED, REOPENED, Close, ClosedItem
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

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def items(**gaps: str) -> tuple[RolledItem, ...]:
    return tuple(RolledItem(name, "AMOUNT", Decimal(gap)) for name, gap in gaps.items())


def close(period: str, status: str = CLOSED, **gaps: str) -> Close:
    opened = tuple(ClosedItem(name, "AMOUNT", NOON, Decimal(gap)) for name, gap in gaps.items())
    zero = Decimal(0)
    return Close(
        f"XSGD:{period}", status, "XSGD", period, NOON, NOON, "BREAKS", zero, zero, zero, zero,
        tuple(gaps), opened, 0, 0, 0, "", "", None, "ann", "", NOON, 1,
    )  # fmt: skip


Month = tuple[str, str, tuple[RolledItem, ...], tuple[RolledItem, ...]]
"""Period, state, what is open at the end, what decisions resolved."""


def month(
    period: str, state: str, opened: tuple[RolledItem, ...], resolved: tuple[RolledItem, ...] = ()
) -> Month:
    return period, state, opened, resolved


def rolled(months: Sequence[Month], closes: Sequence[Close]) -> list[RollForward]:
    """Return the roll-forward of each month with its items, whose sums it checks."""
    made, before = [], dict[str, RolledItem]()
    for period, state, opened, resolved in months:
        after = {item.id: item for item in opened}
        changed = tuple(item for item in opened if before.get(item.id) != item)
        ended = tuple(name for name in before if name not in after)
        made.append(RolledMonth(period, state, changed, ended, resolved))
        before = after
    sums = roll_forward(made, closes)
    listed = [roll_forward(made, closes, each.period)[n] for n, each in enumerate(made)]
    for plain, each in zip(sums, listed, strict=True):
        assert (plain.items, plain.sums, plain.changed) == ({}, each.sums, each.changed)
        for move in MOVEMENTS:
            amounts = [item.amount for item in each.items[move]]
            assert each.sums[move] == (len(amounts), sum(amounts))
    return listed


def names(roll: RollForward) -> dict[str, list[str]]:
    return {move: [item.id for item in roll.items[move]] for move in MOVEMENTS if roll.items[move]}


def test_breaks_are_carried_until_a_match_or_a_decision_closes_them() -> None:
    months = [
        month("2026-01", "BREAKS", items(a="5", b="-3", c="1"), items(d="2")),
        month("2026-02", "BREAKS", items(a="5", c="4", e="7"), items(b="-3")),
        month("2026-03", "RECONCILED", ()),
    ]
    january, february, march = rolled(months, [])
    assert names(january) == {
        OPENED: ["a", "b", "c", "d"], CLOSED_BY_DECISION: ["d"], CARRIED_OUT: ["a", "b", "c"],
    }  # fmt: skip
    assert names(february) == {
        CARRIED_IN: ["a", "b", "c"], OPENED: ["e"], CLOSED_BY_DECISION: ["b"],
        CARRIED_OUT: ["a", "c", "e"],
    }  # fmt: skip
    assert february.changed == 3
    assert names(march) == {CARRIED_IN: ["a", "c", "e"], CLOSED_BY_MATCH: ["a", "c", "e"]}
    for each in (january, february, march):
        ended = each.amount(CLOSED_BY_DECISION) + each.amount(CLOSED_BY_MATCH)
        begun = each.amount(CARRIED_IN) + each.amount(OPENED) + each.changed
        assert begun - ended == each.amount(CARRIED_OUT)


def test_a_closed_month_ends_with_what_its_close_states() -> None:
    months = [
        month("2026-01", "RECONCILED", (), items(a="5")),
        month("2026-02", "RECONCILED", ()),
    ]
    january, february = rolled(months, [close("2026-01", a="5")])
    assert (january.is_closed, names(january)) == (True, {OPENED: ["a"], CARRIED_OUT: ["a"]})
    assert names(february) == {CARRIED_IN: ["a"], CLOSED_BY_DECISION: ["a"]}
    january, february = rolled(months, [close("2026-01", REOPENED, a="5")])
    assert (january.is_closed, names(january)) == (
        False,
        {OPENED: ["a"], CLOSED_BY_DECISION: ["a"]},
    )
    assert names(february) == {}
