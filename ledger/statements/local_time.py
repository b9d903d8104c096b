"""Local times of a file's rows as instants: which of the two, where a clock shows a time twice.

In autumn a clock is set back, and an hour of local time occurs twice. A row does not say which of
them it means; its place among the rows does.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


def instants_of(times: Iterable[datetime], zone: ZoneInfo) -> list[datetime]:
    """Return the instants, in UTC, of the local times of rows that are oldest first.

    A time that occurs twice is the first of its two instants, unless that is before the row
    before it and the second is not: so times decrease only where no reading avoids it. A time
    that the clock skips in spring has the offset from before the change (PEP 495). A time with an
    offset of its own is that instant. Raises OverflowError at the ends of the calendar.
    """
    instants: list[datetime] = []
    before = _EARLIEST
    for time in times:
        before = _instant(time, zone, before)
        instants.append(before)
    return instants


def _instant(time: datetime, zone: ZoneInfo, before: datetime) -> datetime:
    if time.tzinfo is not None:
        return time.astimezone(UTC)
    first = time.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if first >= before:
        return first
    second = time.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return second if second >= before else first
