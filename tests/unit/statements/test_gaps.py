"""Several statements in one file: the time between two of them is never taken for a quiet one.

Two files one by one make the wallet incomplete when a business day lies between them, so one file
of both is refused then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

import pytest

from ledger.config.calendar import Calendar
from ledger.config.statement_profile import StatementProfile, profile_of
from ledger.errors import StatementRefused
from ledger.reconciliation.coverage import CoveredFile, coverage_of
from ledger.statements.model import Reading, Statement
from ledger.statements.reader import read_statement
from tests.camt053 import account, bal, document, ntry, period, stmt, zipped

DAY = timedelta(days=1)
Write = Callable[[date, date, int], str]
"""Opening balance's day, closing balance's day, closing balance in hundreds → a statement."""


def camt(opening_day: date, closing_day: date, hundreds: int, *parts: str) -> str:
    balances = (
        bal("OPBD", f"{hundreds - 1}00", f"{opening_day}"),
        bal("CLBD", f"{hundreds}00", f"{closing_day}"),
    )
    entry = ntry("100", day=f"{closing_day}")
    return stmt(account(), *parts, *balances, entry, id_=f"D-{closing_day}")


def camt_with_period(opening_day: date, closing_day: date, hundreds: int) -> str:
    stated = period(f"{closing_day}T00:00:00", f"{closing_day}T23:59:59")
    return camt(opening_day, closing_day, hundreds, stated)


def mt940(opening_day: date, closing_day: date, hundreds: int) -> str:
    opened, closed = (f"{day:%y%m%d}" for day in (opening_day, closing_day))
    return (
        f":20:X\n:25:SG0001\n:28C:1\n:60F:C{opened}SGD{hundreds - 1}00,\n"
        f":61:{closed}{closed[2:]}C100,NTRFA-{closed}\n:62F:C{closed}SGD{hundreds}00,\n-\n"
    )


def csv(_: date, closing_day: date, hundreds: int) -> str:
    return f"d,a,b\n{closing_day},100,{hundreds}00\n"


PROFILE = profile_of({"effective_at": "d", "amount": "a", "balance": "b", "time_zone": "UTC"})
LAYOUTS: dict[str, tuple[Write, StatementProfile]] = {
    "camt": (camt, StatementProfile()),
    "camt-period": (camt_with_period, StatementProfile()),
    "mt940": (mt940, StatementProfile()),
    "csv": (csv, PROFILE),
}


def statements(write: Write, days: Sequence[date]) -> list[str]:
    """Return statements of single days, whose balances are both of the day itself."""
    return [write(day, day, number) for number, day in enumerate(days, 2)]


def one_file(layout: str, parts: Sequence[str]) -> bytes:
    return (document(*parts) if layout.startswith("camt") else "".join(parts)).encode()


def archive(layout: str, parts: Sequence[str]) -> bytes:
    is_camt = layout.startswith("camt")
    return zipped({f"{n}": document(part) if is_camt else part for n, part in enumerate(parts)})


def read(layout: str, body: bytes) -> Statement:
    return read_statement(body, Reading(currency="SGD", profile=LAYOUTS[layout][1]))


SHAPES = [
    *((layout, archive) for layout in LAYOUTS),
    *((layout, one_file) for layout in LAYOUTS if layout != "csv"),
]
JUNE = [date(2026, 6, 1) + n * DAY for n in range(30)]
BUSINESS_DAYS = [day for day in JUNE if day.weekday() < 5]


@pytest.mark.parametrize(("layout", "packed"), SHAPES)
def test_the_days_of_a_month_are_joined_across_its_weekends(
    layout: str, packed: Callable[[str, Sequence[str]], bytes]
) -> None:
    parts = statements(LAYOUTS[layout][0], BUSINESS_DAYS)
    statement = read(layout, packed(layout, parts))
    assert len(statement.lines) == len(BUSINESS_DAYS)
    assert (statement.opened_at, statement.closed_at) == (
        datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC),
    )  # fmt: skip
    assert [line.booked_at for line in statement.lines] == [
        datetime(day.year, day.month, day.day, tzinfo=UTC) for day in BUSINESS_DAYS
    ]


@pytest.mark.parametrize(("layout", "packed"), SHAPES)
@pytest.mark.parametrize(
    ("days", "missing"),
    [
        ((date(2026, 6, 1), date(2026, 6, 3)), "2026-06-02"),
        ((date(2026, 6, 1), date(2026, 6, 10)), "2026-06-02 to 2026-06-09"),
        ((date(2026, 6, 5), date(2026, 6, 9)), "2026-06-06 to 2026-06-08"),
        ((date(2026, 4, 2), date(2026, 4, 7)), "2026-04-03 to 2026-04-06"),  # Easter
    ],
)
def test_a_business_day_between_two_statements_is_named_and_refused(
    layout: str,
    packed: Callable[[str, Sequence[str]], bytes],
    days: Sequence[date],
    missing: str,
) -> None:
    body = packed(layout, statements(LAYOUTS[layout][0], days))
    with pytest.raises(StatementRefused) as caught:
        read(layout, body)
    assert f"is about {missing}, " in str(caught.value)
    assert re.search("one by one|as a file of its own", str(caught.value))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_statements_across_holidays_are_complete_one_by_one(layout: str) -> None:
    holidays = tuple(date(2026, month, day) for month, day in ((4, 3), (4, 6), (5, 1)))
    april = [date(2026, 4, 1) + n * DAY for n in range(33)]
    calendar = Calendar(holidays=holidays)
    days = [day for day in april if day.weekday() < 5 and day not in holidays]
    parts = statements(LAYOUTS[layout][0], days)
    read_parts = [read(layout, one_file(layout, [part])) for part in parts]
    assert coverage(read_parts, calendar) == ()
    assert coverage([*read_parts[:5], *read_parts[6:]], calendar) != ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_business_day_between_two_files_is_missing(layout: str) -> None:
    """As in one file, also where a period is inferred from the balances."""
    parts = statements(LAYOUTS[layout][0], [date(2026, 6, 1), date(2026, 6, 3)])
    (missing,) = coverage([read(layout, one_file(layout, [part])) for part in parts], Calendar())
    assert "2026-06-02" in missing


def coverage(parts: Sequence[Statement], calendar: Calendar) -> tuple[str, ...]:
    """Return what statements lack that are imported one by one."""
    files = [
        CoveredFile(
            part.sha256, part.opened_at, part.closed_at, part.opening, part.closing, position,
            part.claimed_from,
        )
        for position, part in enumerate(parts, 1)
    ]  # fmt: skip
    covered = coverage_of(files, business_time=calendar.business_time)
    assert covered is not None
    return covered.missing


@pytest.mark.parametrize("layout", ["camt", "mt940"])
@pytest.mark.parametrize("packed", [one_file, archive])
def test_the_day_of_the_opening_balance_may_be_the_first(
    layout: str, packed: Callable[[str, Sequence[str]], bytes]
) -> None:
    """A bank may date it by the first day of the period, or by the day before."""
    write = LAYOUTS[layout][0]
    parts = [
        write(date(2026, 6, 1), date(2026, 6, 1), 2),
        write(date(2026, 6, 2), date(2026, 6, 4), 3),
        write(date(2026, 6, 4), date(2026, 6, 8), 4),
    ]
    assert len(read(layout, packed(layout, parts)).lines) == 3
    parts[1] = write(date(2026, 6, 3), date(2026, 6, 4), 3)
    with pytest.raises(StatementRefused, match="2026-06-02 to 2026-06-03"):
        read(layout, packed(layout, parts))


@pytest.mark.parametrize("layout", ["camt", "camt-period"])
@pytest.mark.parametrize("packed", [one_file, archive])
def test_a_line_dated_in_a_gap_counts_within_its_own_statement(
    layout: str, packed: Callable[[str, Sequence[str]], bytes]
) -> None:
    parts = statements(LAYOUTS[layout][0], [date(2026, 6, 5), date(2026, 6, 8)])
    parts[1] = parts[1].replace("<BookgDt><Dt>2026-06-08", "<BookgDt><Dt>2026-06-06")
    friday, monday = read(layout, packed(layout, parts)).lines
    assert (monday.effective_at, monday.booked_at) == (
        datetime(2026, 6, 6, tzinfo=UTC), datetime(2026, 6, 8, tzinfo=UTC),
    )  # fmt: skip
    assert friday.booked_at == datetime(2026, 6, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2026-06-01,1\n2026-06-10,1", "2026-06-20,1\n2026-06-30,1"),
        ("2026-06-01,1\n2026-06-05,1", "2026-06-08,1\n2026-06-30,1"),  # a weekend between
        ("2026-06-01T08:00:00Z,1\n2026-06-05T08:00:00Z,1", "2026-06-05T09:00:00Z,1"),
    ],
)
def test_tables_without_balances_must_meet(first: str, second: str) -> None:
    profile = profile_of({"effective_at": "d", "amount": "a", "time_zone": "UTC"})
    body = zipped({"a.csv": f"d,a\n{first}\n", "b.csv": f"d,a\n{second}\n"})
    with pytest.raises(StatementRefused, match=r"no member is about .* import each by itself"):
        read_statement(body, Reading(currency="SGD", profile=profile))


def test_statements_of_a_camt_without_balances_must_meet() -> None:
    def without_balances(first: int, last: int) -> str:
        stated = period(f"2026-06-{first:02}T00:00:00", f"2026-06-{last:02}T23:59:59")
        return stmt(account(), stated, ntry("1", day=f"2026-06-{first:02}"), id_=f"D-{first}")

    body = document(without_balances(1, 5), without_balances(6, 8))
    assert len(read_statement(body.encode(), Reading()).lines) == 2
    body = document(without_balances(1, 5), without_balances(8, 8))
    with pytest.raises(StatementRefused, match="does not begin where the other ends"):
        read_statement(body.encode(), Reading())
    pages = [part.replace("<Id>", "<StmtPgntn><PgNb>1</PgNb></StmtPgntn><Id>")
             for part in (without_balances(1, 5), without_balances(8, 8))]  # fmt: skip
    with pytest.raises(StatementRefused, match="does not begin where the other ends"):
        read_statement(document(*pages).encode(), Reading())


def test_balances_without_a_date_show_no_time_between_them() -> None:
    undated = stmt(account(), bal("OPBD", "10", "2026-06-01"), bal("CLBD", "10", ""), id_="A")
    following = stmt(account(), bal("OPBD", "10", ""), bal("CLBD", "10", "2026-06-10"), id_="B")
    with pytest.raises(StatementRefused, match="a balance has no date"):
        read_statement(document(undated, following).encode(), Reading())


def test_statements_of_an_mt940_without_balances_must_meet() -> None:
    def without_balances(day: int) -> str:
        return f":20:X\n:25:SG0001\n:61:2606{day:02}C1,NTRFA-{day}\n-\n"

    def both(*days: int) -> Statement:
        body = "".join(map(without_balances, days))
        return read_statement(body.encode(), Reading(currency="SGD"))

    assert len(both(1, 2).lines) == 2
    with pytest.raises(StatementRefused, match="import each as a file of its own"):
        both(1, 4)


def test_a_weekend_is_one_of_the_zone_of_the_profile() -> None:
    """Also where that is the profile that fits, which nobody gave."""
    profile = profile_of(
        {"effective_at": "d", "amount": "a", "balance": "b", "time_zone": "Asia/Singapore"}
    )
    parts = [csv(day, day, n) for n, day in ((2, date(2026, 6, 5)), (3, date(2026, 6, 8)))]
    how = Reading(currency="SGD", profiles={"own": profile})
    assert len(read_statement(archive("csv", parts), how).lines) == 2
