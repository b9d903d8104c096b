"""Dates and times in the forms that XML Schema allows, and in those that banks write besides.

A day counts as the bank writes it: the `Z` or the offset that some programs add to a date does not
move it. A time with an offset is that moment; without one it is of the zone given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from ledger.statements.formats.camt053.fields import Fields
from ledger.statements.validation import DAY, midnight

_DATE: Final = re.compile(r"(\d{4}-\d\d-\d\d|\d{8})(?:Z|[+-]\d\d:\d\d)?", re.ASCII)
_END_OF_DAY: Final = re.compile(r"[T ]24:00(?::00(?:\.0+)?)?(?=Z|[+-]|$)", re.ASCII)
_LAST_MINUTE: Final = time(23, 59)


@dataclass(frozen=True, slots=True)
class Moment:
    """A date, or a time, as written."""

    at: datetime
    """When it begins, in UTC."""
    day: date
    """Its calendar day as written."""
    is_day: bool
    """Whether it is a date without a time."""
    following: datetime
    """When the next day begins, in UTC."""
    is_midnight: bool = False
    is_last_minute: bool = False


@lru_cache(maxsize=1024)
def moment(text: str, where: ZoneInfo | None) -> Moment:
    """Read a date or a time. Raises ValueError or OverflowError for what is neither."""
    dated = _DATE.fullmatch(text)
    if dated:
        day = date.fromisoformat(dated[1])
        return Moment(midnight(day, where), day, True, midnight(day + DAY, where))
    is_end = _END_OF_DAY.search(text) is not None
    value = datetime.fromisoformat(_END_OF_DAY.sub("T00:00:00", text))
    local = value if value.tzinfo else value.replace(tzinfo=where or UTC)
    if where is not None and not _is_edge(local) and _is_edge(local.astimezone(where)):
        local = local.astimezone(where)  # a day's edge, written in UTC
    following = (local.replace(hour=0, minute=0, second=0, microsecond=0) + DAY).astimezone(UTC)
    return Moment(
        following if is_end else local.astimezone(UTC),
        local.date(),
        False,
        following,
        is_midnight=local.time() == time() and not is_end,
        is_last_minute=local.time() >= _LAST_MINUTE or is_end,
    )


def _is_edge(local: datetime) -> bool:
    """Return whether it is the first moment or in the last minute of its day."""
    return local.time() == time() or local.time() >= _LAST_MINUTE


def period_of(begin: Moment, end: Moment, last_day: date | None) -> tuple[datetime, datetime]:
    """Return the period between two moments; it has the last day where that is meant.

    Its last day is meant whole when it is written as a date, or by its last minute, or as a second
    midnight where `last_day`, the day of the closing balance or of the last booked entry, is that
    day.
    """
    is_whole_day = end.is_day or end.is_last_minute
    if begin.is_midnight and end.is_midnight and end.day in (begin.day, last_day):
        is_whole_day = True
    return begin.at, end.following if is_whole_day else end.at


def written(fields: Fields, path: str) -> str:
    """Return the text of a date or a time: in `Dt`, in `DtTm`, or in the element itself."""
    return fields.first(f"{path}/Dt", f"{path}/DtTm", path)
