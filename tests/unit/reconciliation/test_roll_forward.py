"""Breaks carried in, opened, changed and closed add up to those carried out, month by month."""

from __future__ import annotations

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


def names(roll: RollForward) -> dict[str, list[str]]:
    return {move: [item.id for item in roll.items[move]] for move in MOVEMENTS if roll.items[move]}


def test_breaks_are_carried_until_a_match_or_a_decision_closes_them() -> None:
    months = [
        RolledMonth("2026-01", "BREAKS", items(a="5", b="-3", c="1"), items(d="2")),
        RolledMonth("2026-02", "BREAKS", items(a="5", c="4", e="7"), items(b="-3")),
        RolledMonth("2026-03", "RECONCILED", ()),
    ]
    january, february, march = roll_forward(months, [])
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
        RolledMonth("2026-01", "RECONCILED", (), items(a="5")),
        RolledMonth("2026-02", "RECONCILED", ()),
    ]
    january, february = roll_forward(months, [close("2026-01", a="5")])
    assert (january.is_closed, names(january)) == (True, {OPENED: ["a"], CARRIED_OUT: ["a"]})
    assert names(february) == {CARRIED_IN: ["a"], CLOSED_BY_DECISION: ["a"]}
    january, february = roll_forward(months, [close("2026-01", REOPENED, a="5")])
    assert (january.is_closed, names(january)) == (
        False,
        {OPENED: ["a"], CLOSED_BY_DECISION: ["a"]},
    )
    assert names(february) == {}
