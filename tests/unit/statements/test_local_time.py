"""A local time that occurs twice is the instant that the order of the rows requires."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from ledger.statements.local_time import instants_of

BERLIN = ZoneInfo("Europe/Berlin")
"""On 25 October 2026 its clocks show 02:00 to 03:00 twice: from 00:00 and from 01:00 UTC on."""
SINGAPORE = ZoneInfo("Asia/Singapore")


def local(*clocks: str, day: int = 25, month: int = 10) -> list[datetime]:
    return [datetime.fromisoformat(f"2026-{month:02}-{day:02}T{clock}") for clock in clocks]


def in_utc(*clocks: str, zone: ZoneInfo = BERLIN, day: int = 25, month: int = 10) -> list[str]:
    return [f"{at:%H:%M}" for at in instants_of(local(*clocks, day=day, month=month), zone)]


def test_a_time_that_occurs_once_is_that_instant() -> None:
    assert instants_of(local("09:00", day=1), SINGAPORE) == [datetime(2026, 10, 1, 1, tzinfo=UTC)]
    assert in_utc("01:59", "03:00") == ["23:59", "02:00"]


def test_a_time_that_occurs_twice_is_the_first_instant_without_other_evidence() -> None:
    assert in_utc("02:30") == ["00:30"]
    assert in_utc("01:30", "02:10", "02:50", "03:10") == ["23:30", "00:10", "00:50", "02:10"]


def test_a_time_before_the_row_before_it_is_the_second_instant() -> None:
    assert in_utc("02:50", "02:10") == ["00:50", "01:10"]
    assert in_utc("02:10", "02:50", "02:20", "02:40", "03:00") == [
        "00:10", "00:50", "01:20", "01:40", "02:00",
    ]  # fmt: skip


def test_equal_times_are_one_instant() -> None:
    assert in_utc("02:30", "02:30", "02:10", "02:30") == ["00:30", "00:30", "01:10", "01:30"]


def test_rows_out_of_order_do_not_move_the_others() -> None:
    assert in_utc("02:50", "02:10", "02:05") == ["00:50", "01:10", "00:05"]
    assert in_utc("05:00", "02:30") == ["04:00", "00:30"]


def test_an_offset_of_its_own_counts() -> None:
    stated = datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=1)))
    assert instants_of([stated, *local("02:20")], BERLIN) == [
        datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 0, 20, tzinfo=UTC),
    ]
    assert instants_of([stated, *local("02:40")], BERLIN)[1].hour == 1


def test_a_time_that_the_clock_skips_has_the_offset_from_before() -> None:
    assert in_utc("01:30", "02:30", "03:30", day=29, month=3) == ["00:30", "01:30", "01:30"]


@given(st.lists(st.integers(0, 6 * 3600), max_size=30))
def test_times_in_order_stay_in_order(seconds: list[int]) -> None:
    begin = datetime(2026, 10, 24, 22, tzinfo=UTC)
    written = [begin + timedelta(seconds=each) for each in sorted(seconds)]
    clocks = [at.astimezone(BERLIN).replace(tzinfo=None, fold=0) for at in written]
    read = instants_of(clocks, BERLIN)
    assert read == sorted(read)
    assert [at.astimezone(BERLIN).replace(tzinfo=None, fold=0) for at in read] == clocks
