"""Amounts and times as people read them: digits in groups, decimals alike, in a named zone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_OFFSET: Final = re.compile(r"UTC([+-])(\d\d):(\d\d)", re.ASCII)


class Decimals:
    """How many decimals the amounts of each currency are written with: as many as its longest."""

    def __init__(self, amounts: Iterable[tuple[str, str | None]]) -> None:
        """Take currencies with their amounts, exact decimal texts; None is skipped."""
        self._places: dict[str, int] = {}
        for currency, amount in amounts:
            places = len((amount or "").partition(".")[2])
            self._places[currency] = max(places, self._places.get(currency, 0))

    def text(self, currency: str, amount: str | None, *, grouped: bool = True) -> str:
        """Write an amount of a currency, by default in groups of thousands; "" for None."""
        if amount is None:
            return ""
        places = max(self._places.get(currency, 0), len(amount.partition(".")[2]))
        return f"{Decimal(amount):{',' if grouped else ''}.{places}f}"


def zone_named(name: str) -> tzinfo:
    """Return a time zone by the name that an answer gives: UTC, UTC+08:00 or Asia/Singapore.

    An unknown one is UTC: the other machine may know more zones than this one.
    """
    offset = _OFFSET.fullmatch(name)
    if offset is not None:
        sign, hours, minutes = offset.groups()
        distance = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-distance if sign == "-" else distance)
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def local_time(moment: str | None, zone: tzinfo) -> str:
    """Write a time of an answer (RFC 3339) in a zone, to the second; "" for None.

    Seconds that are 0 are left out.
    """
    if moment is None:
        return ""
    return f"{datetime.fromisoformat(moment).astimezone(zone):%Y-%m-%d %H:%M:%S}".removesuffix(
        ":00"
    )


def dated(moment: str | None, zone: tzinfo) -> str:
    """Write a time of an answer in a zone with its offset, as a spreadsheet can sort it."""
    if moment is None:
        return ""
    return datetime.fromisoformat(moment).astimezone(zone).isoformat(" ", "seconds")


def line_time(moment: str | None, zone: tzinfo) -> str:
    """Write the time of a statement line as local_time does, or the day if it states no more."""
    return _day(moment, zone) or local_time(moment, zone)


def line_dated(moment: str | None, zone: tzinfo) -> str:
    """Write the time of a statement line as dated does, or the day if it states no more."""
    return _day(moment, zone) or dated(moment, zone)


def break_time(each: Mapping[str, Any], zone: tzinfo) -> str:
    """Write the time of a break; of one that is dated by its line, as line_time does."""
    write = line_time if _is_of_line(each) else local_time
    return write(each["at"], zone)


def break_dated(each: Mapping[str, Any], zone: tzinfo) -> str:
    """Write the time of a break; of one that is dated by its line, as line_dated does."""
    write = line_dated if _is_of_line(each) else dated
    return write(each["at"], zone)


def _is_of_line(each: Mapping[str, Any]) -> bool:
    return any(line["effective_at"] == each["at"] for line in each["lines"])


def _day(moment: str | None, zone: tzinfo) -> str:
    """Return the day that a line states, "" where it states a time.

    Midnight of the zone, or of UTC, is a day: so it is read by the matching.
    """
    for where in (zone, UTC) if moment is not None else ():
        local = datetime.fromisoformat(str(moment)).astimezone(where)
        if local.time() == time(0):
            return f"{local:%Y-%m-%d}"
    return ""
