"""What a wallet was at the end of each month follows from the groups of the whole period."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from ledger.config.reconciliation import Rules
from ledger.reconciliation.closing.month_ends import (
    MONTHS_MAX,
    MonthEndBuilder,
    month_of,
    months_within,
)
from ledger.reconciliation.coverage import Coverage
from ledger.reconciliation.items import (
    AMOUNT,
    MATCHED,
    MISSING_AT_PROVIDER,
    TIMING,
    Group,
    LedgerMovement,
    Period,
    StatementItem,
)
from ledger.reconciliation.result import (
    LatestDecision,
    LedgerBalances,
    MonthEnd,
    MonthItem,
    break_id_of,
    build_result,
)

SINGAPORE = ZoneInfo("Asia/Singapore")
BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
PERIOD = Period(BEGIN, END)


def at(month: int, day: int, hour: int = 12) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


def group(
    name: str, lines: Sequence[tuple[datetime, str]], legs: Sequence[tuple[datetime, str]],
    kind: str = MATCHED,
) -> Group:  # fmt: skip
    items = tuple(
        StatementItem(f"{name}{n}", "", Decimal(amount), when, booked_at=when)
        for n, (when, amount) in enumerate(lines)
    )
    dated = tuple((when, Decimal(amount)) for when, amount in legs)
    movements = (LedgerMovement("payment", name, dated),) if dated else ()
    ledger = sum((amount for when, amount in dated if when < END), Decimal(0))
    return Group(f"contract:{name}", "contract", kind, items, movements, ledger)


def months(groups: Sequence[Group], *decisions: LatestDecision) -> list[MonthEnd]:
    """Return the ends of the months, with balances that the groups themselves add up to."""
    legs = [leg for each in groups for move in each.movements for leg in move.legs]
    decided = {each.break_id: each for each in decisions}
    legs += [(each.effective_at or BEGIN, each.posted) for each in decisions]

    def balance(end: datetime) -> Decimal:
        return sum((amount for when, amount in legs if when < end), Decimal(0))

    closing = sum((line.amount for each in groups for line in each.lines), Decimal(0))
    coverage = Coverage(PERIOD, Decimal(0), closing, ("a",))
    result = build_result(
        "s", "XSGD", coverage=coverage, ledger=LedgerBalances(Decimal(0), balance(END)),
        groups=groups, decisions=decided, rules=Rules(),
    )  # fmt: skip
    assert result.figures["residual"] == "0"
    builder = MonthEndBuilder(result, groups, decided, Rules())
    ends = {month: balance(month.end) for month in months_within(PERIOD, UTC)}
    return list(builder.build(ends))


def open_items(ends: Sequence[MonthEnd]) -> list[list[MonthItem]]:
    """Return what is open at each end, sorted by id, by the changes from end to end."""
    opened: dict[str, MonthItem] = {}
    listed = []
    for month in ends:
        opened |= {item.id: item for item in month.changed}
        for name in month.ended:
            del opened[name]
        listed.append([opened[name] for name in sorted(opened)])
    return listed


def test_months_are_calendar_months_of_the_zone() -> None:
    june = month_of(2026, 6, SINGAPORE)
    assert (june.period, june.begin, june.end) == (
        "2026-06", datetime(2026, 5, 31, 16, tzinfo=UTC), datetime(2026, 6, 30, 16, tzinfo=UTC),
    )  # fmt: skip
    assert month_of(2026, 13, UTC).period == "2027-01"
    assert month_of(2026, 0, UTC).period == "2025-12"
    # The clock changes in March.
    assert month_of(2026, 3, ZoneInfo("Europe/Berlin")).end == datetime(2026, 3, 31, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("begin", "end", "found"),
    [
        (at(1, 1, 0), at(4, 1, 0), ["2026-01", "2026-02", "2026-03"]),
        (at(1, 20), at(3, 31, 23), ["2026-01", "2026-02"]),
        (at(2, 1, 0), at(3, 1, 0), ["2026-02"]),
        (at(2, 2), at(2, 27), []),
    ],
)
def test_only_months_that_end_within_the_period_count(
    begin: datetime, end: datetime, found: list[str]
) -> None:
    assert [month.period for month in months_within(Period(begin, end), UTC)] == found


def test_of_a_long_time_the_latest_months_are_kept() -> None:
    found = months_within(Period(datetime(2000, 1, 1, tzinfo=UTC), END), UTC)
    assert (len(found), found[-1].period) == (MONTHS_MAX, "2026-03")


def test_what_a_match_joins_across_the_end_of_a_month_was_in_transit_then() -> None:
    january, february, march = months([
        group("a", [(at(1, 10), "10")], [(at(1, 10), "10")]),
        group("late", [(at(2, 20), "7")], [(at(1, 5), "7")]),
        group("early", [(at(1, 31), "-4")], [(at(2, 1), "-4")]),
    ])  # fmt: skip
    assert (january.state, january.figures["statement"], january.figures["ledger"]) == (
        "RECONCILED_WITH_TIMING", "6", "17",
    )  # fmt: skip
    assert sorted((item.type, str(item.gap)) for item in january.changed) == [
        (TIMING, "4"), (TIMING, "7"),
    ]  # fmt: skip
    assert january.figures["residual"] == "0"
    assert (february.state, march.state) == ("RECONCILED", "RECONCILED")
    names = ("lines", "money_in", "money_out")
    assert tuple(january.figures[name] for name in names) == (
        2, "10", "-4",
    )  # fmt: skip


def test_a_break_is_open_from_its_month_until_a_decision_is_dated() -> None:
    missing = group("m", [], [(at(1, 10), "5")], MISSING_AT_PROVIDER)
    name = break_id_of("s", "XSGD", missing.anchor)
    assert [month.state for month in months([missing])] == ["BREAKS"] * 3
    written_off = LatestDecision(
        name, missing.anchor, "write_off", "ann", "", 9, at(3, 5), Decimal(-5),
        effective_at=at(2, 1, 0),
    )  # fmt: skip
    january, february, march = months([missing], written_off)
    assert [(item.id, item.gap) for item in january.changed] == [(name, 5)]
    assert (february.state, march.state) == ("RECONCILED", "RECONCILED")
    assert [item.id for item in january.resolved] == [name]
    assert february.resolved == ()


def test_a_part_of_a_break_counts_in_the_month_in_which_it_is() -> None:
    twice = group("t", [(at(1, 10), "5"), (at(3, 3), "5")], [(at(1, 10), "5")], AMOUNT)
    ends = months([twice])
    assert [month.state for month in ends] == ["RECONCILED", "RECONCILED", "BREAKS"]
    assert [[item.gap for item in some] for some in open_items(ends)] == [[], [], [-5]]


def test_what_was_posted_for_a_match_of_one_month_is_open() -> None:
    matched = group("m", [(at(1, 10), "5")], [(at(1, 10), "5")])
    name = break_id_of("s", "XSGD", matched.anchor)
    posted = LatestDecision(
        name, matched.anchor, "write_off", "ann", "", 9, at(3, 5), Decimal(-5),
        effective_at=at(1, 10),
    )  # fmt: skip
    ends = months([matched], posted)
    assert [[(i.type, i.gap) for i in some] for some in open_items(ends)] == [[(AMOUNT, -5)]] * 3


def test_what_stays_open_is_stated_once_however_many_months_follow() -> None:
    groups = [group(f"b{n}", [], [(at(1, 10), "5")], MISSING_AT_PROVIDER) for n in range(50)]
    groups += [group("t", [(at(3, 2), "7")], [(at(1, 5), "7")])]
    ends = months(groups)
    assert [(len(m.changed), len(m.ended)) for m in ends] == [(51, 0), (0, 0), (0, 1)]
    assert [m.figures["breaks_count"] for m in ends] == [50] * 3
    assert [m.figures["in_transit_count"] for m in ends] == [1, 1, 0]
    assert [len(some) for some in open_items(ends)] == [51, 51, 50]
    assert ends[0].sha256 != ends[1].sha256


def test_every_balance_is_explained_whatever_the_groups() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)

    def some() -> list[tuple[datetime, str]]:
        moments = sorted(
            BEGIN + (END - BEGIN) * chance.random() for _ in range(chance.randint(0, 3))
        )
        return [(moment, str(chance.randint(-9, 9))) for moment in moments]

    for _ in range(60):
        groups = []
        for number in range(chance.randint(0, 8)):
            lines, legs = some(), some()
            if not lines and not legs:
                continue
            kind = AMOUNT if chance.random() < 0.5 else MATCHED
            if kind == MATCHED:
                legs = [(when - timedelta(hours=chance.randint(0, 900)), a) for when, a in lines]
                legs = sorted(leg for leg in legs if leg[0] >= BEGIN)
                lines = lines if len(legs) == len(lines) else []
            if lines or legs:
                groups.append(group(f"g{number}", lines, legs, kind))
        for month in months(groups):
            assert month.figures["residual"] == "0", (seed, month)
            assert month.state != "INCOMPLETE"


def test_the_same_groups_in_any_order_give_the_same_digests() -> None:
    groups = [
        group("a", [(at(1, 10), "10")], [(at(2, 10), "10")]),
        group("b", [], [(at(1, 11), "3")], MISSING_AT_PROVIDER),
    ]
    assert [m.sha256 for m in months(groups)] == [m.sha256 for m in months(groups[::-1])]
    assert months(groups)[0].sha256 != months(groups[:1])[0].sha256
