"""Business time passes on business days only, in the declared time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pytest

from ledger.config.calendar import Calendar, calendar_of

SINGAPORE = calendar_of({"time_zone": "Asia/Singapore", "calendar": {"holidays": ["2026-08-10"]}})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_time_passes_on_business_days_only() -> None:
    friday, monday = at("2026-06-05T18:00+08:00"), at("2026-06-08T09:00+08:00")
    assert SINGAPORE.business_time(monday) - SINGAPORE.business_time(friday) == timedelta(hours=15)
    before, after = at("2026-08-07T12:00+08:00"), at("2026-08-11T12:00+08:00")
    assert SINGAPORE.business_time(after) - SINGAPORE.business_time(before) == timedelta(days=1)
    every_day = calendar_of({"calendar": {"weekend": []}})
    assert every_day.business_time(monday) - every_day.business_time(friday) == monday - friday


def test_a_midnight_of_the_zone_or_of_utc_states_a_day() -> None:
    for text in ("2026-06-08T00:00+08:00", "2026-06-08T00:00Z"):
        assert SINGAPORE.stated_day(at(text)) == date(2026, 6, 8)
        low, high = SINGAPORE.span_of(at(text))
        assert high - low == timedelta(days=1)
        assert low == SINGAPORE.business_time(at("2026-06-08T00:00+08:00"))
    assert SINGAPORE.stated_day(at("2026-06-08T00:00:01Z")) is None
    new_york = calendar_of({"time_zone": "America/New_York"})
    assert new_york.stated_day(at("2026-06-08T00:00Z")) == date(2026, 6, 8)
    assert new_york.day_of(at("2026-06-08T00:00Z")) == date(2026, 6, 7)


@pytest.mark.parametrize("seed", range(4))
def test_business_time_never_decreases_and_counts_each_business_day(seed: int) -> None:
    rng = Random(seed)
    holidays = tuple(sorted({date(2026, 6, 1) + timedelta(days=rng.randrange(60)) for _ in "abc"}))
    calendar = Calendar(UTC, frozenset(rng.sample(range(7), rng.randrange(1, 4))), holidays)
    moment = datetime(2026, 5, 20, tzinfo=UTC)
    for _ in range(90):
        day = moment.date()
        is_open = day.weekday() not in calendar.weekend and day not in holidays
        passed = calendar.business_time(moment + timedelta(days=1)) - calendar.business_time(moment)
        assert passed == timedelta(days=int(is_open)), (seed, day)
        reach = timedelta(hours=rng.randrange(100))
        assert calendar.business_time(moment) - reach >= calendar.business_time(
            calendar.before(moment, reach)
        )
        assert calendar.business_time(moment) + reach <= calendar.business_time(
            calendar.after(moment, reach)
        )
        moment += timedelta(days=1)


@pytest.mark.parametrize(
    "declared",
    [
        {"time_zone": "Asia/Atlantis"},
        {"time_zone": 8},
        {"time_zone": "Asia/Singapore", "utc_offset_hours": 8},
        {"utc_offset_hours": 15},
        {"calendar": ["sunday"]},
        {"calendar": {"weekends": []}},
        {"calendar": {"weekend": "sunday"}},
        {"calendar": {"weekend": ["sun"]}},
        {"calendar": {"weekend": ["monday", "tuesday", "wednesday", "thursday", "friday",
                                  "saturday", "sunday"]}},
        {"calendar": {"holidays": ["9 August"]}},
        {"calendar": {"holidays": [20260809]}},
    ],
)  # fmt: skip
def test_a_calendar_that_is_not_understood_is_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"calendar|zone|weekend|holidays|utc_offset_hours"):
        calendar_of(declared)
