"""Amounts and times as people read them: digits in groups, decimals alike, in a named zone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Final
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
