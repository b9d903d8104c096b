"""Business days: which days count, in which time zone, and the business time between. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ledger.payload import shown

DAY: Final = timedelta(days=1)
_WEEK: Final = 7
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WEEKDAYS: Final = (
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
)  # fmt: skip
_WEEKEND: Final = ("saturday", "sunday")
_MIDNIGHT: Final = time()


@dataclass(frozen=True, slots=True)
class Calendar:
    """The business days of a source, and the time zone that its days are of."""

    zone: tzinfo = UTC
    weekend: frozenset[int] = frozenset({5, 6})
    """Weekdays on which nothing is settled, 0 = Monday."""
    holidays: tuple[date, ...] = ()
    """Other such days, sorted."""
    _closed: tuple[int, ...] = field(init=False, repr=False, default=())
    """The ordinals of the holidays outside of weekends."""

    def __post_init__(self) -> None:
        days = [day.toordinal() for day in self.holidays if day.weekday() not in self.weekend]
        object.__setattr__(self, "_closed", tuple(sorted(days)))

    def day_of(self, moment: datetime) -> date:
        """Return the day of a moment."""
        return moment.astimezone(self.zone).date()

    def stated_day(self, moment: datetime) -> date | None:
        """Return the day of a line that may state no more than its day; None of other times.

        Such a time is midnight of the zone, or of UTC, as days without a declared zone are written.
        """
        if moment.second or moment.microsecond:
            return None
        local, utc = moment.astimezone(self.zone), moment.astimezone(UTC)
        if local.time() == _MIDNIGHT:
            return local.date()
        return utc.date() if utc.time() == _MIDNIGHT else None

    def business_time(self, moment: datetime) -> timedelta:
        """Return the business time up to a moment: 24 hours for each business day.

        Time does not pass on other days. Only differences of the result mean something.
        """
        if not self.weekend and not self._closed:
            return moment - _EPOCH
        local = moment.astimezone(self.zone)
        start, is_open = self._start_of(local.date())
        if not is_open:
            return start
        return start + timedelta(
            hours=local.hour, minutes=local.minute, seconds=local.second,
            microseconds=local.microsecond,
        )  # fmt: skip

    def span_of(self, moment: datetime) -> tuple[timedelta, timedelta]:
        """Return from and to which business time a line may be dated: any of a day, or one time."""
        day = self.stated_day(moment)
        if day is None:
            at = self.business_time(moment)
            return at, at
        if not self.weekend and not self._closed:
            begin = datetime.combine(day, _MIDNIGHT, self.zone) - _EPOCH
            return begin, begin + DAY
        start, is_open = self._start_of(day)
        return start, start + DAY if is_open else start

    def before(self, moment: datetime, reach: timedelta) -> datetime:
        """Return a moment at least `reach` of business time before another one."""
        bound, result = self.business_time(moment) - reach, moment - reach
        while self.business_time(result) > bound:
            result -= DAY
        return result

    def after(self, moment: datetime, reach: timedelta) -> datetime:
        """Return a moment at least `reach` of business time after another one."""
        bound, result = self.business_time(moment) + reach, moment + reach
        while self.business_time(result) < bound:
            result += DAY
        return result

    @property
    def text(self) -> str:
        """The calendar in words that differ where calendars do."""
        return f"{self.zone}{sorted(self.weekend)}{[day.isoformat() for day in self.holidays]}"

    def _start_of(self, day: date) -> tuple[timedelta, bool]:
        """Return the business time at the beginning of a day, and whether time passes on it."""
        ordinal = day.toordinal()
        weeks, rest = divmod(ordinal - 1, _WEEK)  # day 1 of the calendar is a Monday
        days = weeks * (_WEEK - len(self.weekend))
        days += sum(1 for weekday in range(rest) if weekday not in self.weekend)
        place = bisect_left(self._closed, ordinal)
        is_holiday = place < len(self._closed) and self._closed[place] == ordinal
        return timedelta(days=days - place), not is_holiday and rest not in self.weekend


def calendar_of(declared: Mapping[str, Any]) -> Calendar:
    """Read `calendar`, `time_zone` and `utc_offset_hours` of a table. Raises ValueError."""
    table = declared.get("calendar", {})
    if not isinstance(table, dict) or set(table) - {"weekend", "holidays"}:
        raise ValueError('calendar is a table of weekend and holidays, as { weekend = ["sunday"] }')
    weekend = frozenset(_weekday(each) for each in _list(table, "weekend", _WEEKEND))
    if len(weekend) == _WEEK:
        raise ValueError("weekend names all seven days; leave at least one business day")
    holidays = sorted({_day(each) for each in _list(table, "holidays", ())})
    return Calendar(_zone(declared), weekend, tuple(holidays))


def _list(table: Mapping[str, Any], name: str, default: Sequence[str]) -> Sequence[Any]:
    value = table.get(name, default)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} is {shown(value)}, not a list")
    return value


def _weekday(value: Any) -> int:
    if not isinstance(value, str) or value.casefold() not in _WEEKDAYS:
        raise ValueError(f"weekend has {shown(value)}, which is none of {', '.join(_WEEKDAYS)}")
    return _WEEKDAYS.index(value.casefold())


def _day(value: Any) -> date:
    try:
        day = date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        day = None
    if not isinstance(day, date) or isinstance(day, datetime):
        raise ValueError(f"holidays has {shown(value)}, which is no day as 2026-08-09")
    return day


def _zone(declared: Mapping[str, Any]) -> tzinfo:
    name, hours = declared.get("time_zone"), declared.get("utc_offset_hours")
    if name is not None and hours is not None:
        raise ValueError("time_zone and utc_offset_hours are two time zones; keep time_zone")
    if hours is not None:
        if not isinstance(hours, int) or isinstance(hours, bool) or not -14 <= hours <= 14:
            raise ValueError(
                f"utc_offset_hours is {shown(hours)}, not a number of whole hours from -14 to 14"
            )
        return timezone(timedelta(hours=hours))
    if name is None:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError) as error:
        raise ValueError(f"time_zone is {shown(name)}, no time zone as Asia/Singapore") from error
