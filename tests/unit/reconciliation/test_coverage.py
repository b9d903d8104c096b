"""Statements follow each other: what one closes with, the next one opens with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from ledger.model import changed
from ledger.reconciliation.coverage import Coverage, CoveredFile, continuity_breaks, coverage_of
from ledger.reconciliation.items import Period, StatementItem


def day(number: int) -> datetime:
    return datetime(2026, 6, number, tzinfo=UTC)


def file(name: str, begin: int, end: int, opening: str, closing: str, position: int) -> CoveredFile:
    return CoveredFile(name, day(begin), day(end), Decimal(opening), Decimal(closing), position)


def line(number: int, amount: str) -> StatementItem:
    return StatementItem(f"l{number}", "", Decimal(amount), day(number))


def covered(*files: CoveredFile) -> Coverage:
    found = coverage_of(files)
    assert found is not None
    assert found == coverage_of(files[::-1])
    return found


def test_files_that_follow_each_other_have_nothing_broken() -> None:
    coverage = covered(file("a", 1, 10, "0", "7", 1), file("b", 10, 20, "7", "9", 2))
    assert not continuity_breaks(
        coverage.stated_balances, Decimal(0), [line(3, "7"), line(10, "2")]
    )
    assert (coverage.opening, coverage.closing, coverage.missing) == (Decimal(0), Decimal(9), ())


def test_a_file_that_opens_otherwise_than_the_last_one_closed_is_named() -> None:
    first, second = file("a", 1, 10, "0", "7", 1), file("b", 10, 20, "6", "8", 2)
    stated = covered(first, second).stated_balances
    found = continuity_breaks(stated, Decimal(0), [line(3, "7"), line(10, "2")])
    assert [each.split(",")[0] for each in found] == [
        "statement b opens at 2026-06-10T00:00:00+00:00 with 6",
        "statement b closes at 2026-06-20T00:00:00+00:00 with 8",
    ]


def test_jumps_that_cancel_out_are_found() -> None:
    files = (
        file("a", 1, 10, "0", "7", 3), file("b", 10, 20, "2", "4", 1),
        file("c", 20, 28, "9", "9", 2),
    )  # fmt: skip
    found = continuity_breaks(
        covered(*files).stated_balances, Decimal(0), [line(3, "7"), line(10, "2")]
    )
    assert [each.split()[1] for each in found] == ["b", "b"]


def test_balances_of_a_newer_file_replace_those_of_an_older_one_in_its_period() -> None:
    older, newer = file("a", 1, 10, "0", "7", 1), file("b", 5, 15, "4", "8", 2)
    lines = [line(3, "4"), line(7, "2"), line(9, "1"), line(12, "1")]
    assert [each.sha256 for each in covered(older, newer).stated_balances] == ["a", "b", "b"]
    assert continuity_breaks(covered(older, newer).stated_balances, Decimal(0), lines) == []
    late = [*lines, line(8, "-1")]
    assert len(continuity_breaks(covered(older, newer).stated_balances, Decimal(0), late)) == 1


def test_since_begins_where_a_statement_begins_and_leaves_the_rest_out() -> None:
    files = [file("a", 1, 10, "0", "7", 1), file("b", 10, 20, "7", "9", 2)]
    coverage = coverage_of(files, day(10))
    assert coverage is not None
    assert (coverage.opening, coverage.files, coverage.missing) == (Decimal(7), ("b",), ())
    assert coverage.period == Period(day(10), day(20))
    between = coverage_of(files, day(5))
    assert between is not None
    assert "no statement begins at 2026-06-05" in between.missing[0]
    assert coverage_of(files, day(21)) is None


def business(moment: datetime) -> timedelta:
    """Return the business time up to a moment of June 2026, whose 6th and 7th are a weekend."""
    return min(moment, day(6)) - day(1) + max(moment - day(8), timedelta(0))


def test_a_weekend_between_equal_balances_is_no_gap() -> None:
    friday, monday = file("f", 5, 6, "0", "7", 1), file("m", 8, 9, "7", "9", 2)
    coverage = coverage_of([friday, monday], None, business)
    assert coverage is not None
    assert (coverage.missing, coverage.period.cutoff) == ((), day(9))
    other = changed(monday, opening=Decimal(6))
    coverage = coverage_of([friday, other], None, business)
    assert coverage is not None
    assert (len(coverage.missing), coverage.period.cutoff) == (1, day(6))
    tuesday = changed(monday, opened_at=day(9), closed_at=day(10))
    coverage = coverage_of([friday, tuesday], None, business)
    assert coverage is not None
    assert len(coverage.missing) == 1


def inferred(file: CoveredFile) -> CoveredFile:
    """Return a file whose opening balance is of its first day, on which it has lines."""
    return changed(file, claimed_from=file.opened_at + timedelta(days=1))


def test_a_file_begins_on_the_day_of_its_opening_balance_unless_another_has_that_day() -> None:
    alone = covered(inferred(file("b", 10, 20, "7", "9", 1)))
    assert (alone.period.opened_at, alone.opening) == (day(10), Decimal(7))
    after = covered(file("a", 1, 11, "0", "7", 2), inferred(file("b", 10, 20, "7", "9", 1)))
    assert after.missing == ()
    lines = [line(10, "7"), StatementItem("late", "", Decimal(2), day(10), booked_at=day(11))]
    assert not continuity_breaks(after.stated_balances, Decimal(0), lines)


def test_the_day_of_an_opening_balance_may_be_the_first_of_the_period() -> None:
    first = file("a", 1, 10, "0", "7", 1)
    following = changed(file("b", 11, 20, "7", "9", 2), claimed_from=day(11))
    assert covered(first, following).missing == ()
    stated = changed(following, claimed_from=None)
    assert len(covered(first, stated).missing) == 1
