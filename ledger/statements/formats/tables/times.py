"""Times as tables write them: by a declared format, else as ISO 8601, in a declared zone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import combinations
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ledger.config.statement_profile import StatementProfile
from ledger.model import shown
from ledger.statements.formats.tables.cells import DateCell
from ledger.statements.model import StatementRefused
from ledger.statements.validation import refusal

FORMATS_MAX: Final = 16

_CACHE_MAX: Final = 50_000
_TIME_OF_DAY: Final = re.compile(r"%-?[HIMSpfXcrRT]")
_DAY: Final = re.compile(r"\d{4}-?\d{2}-?\d{2}|\d{4}-?W\d{2}-?\d", re.ASCII)
_LOOSE: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ] *(\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)"
    r" *(?:(UTC|GMT|Z|z)|([+-]\d{2}):?(\d{2}))?",
    re.ASCII,
)
"""ISO 8601 as people and programs change it: blanks, small letters, `UTC`."""
_OFFSET: Final = re.compile(r"(?:UTC|GMT)?([+-]\d{1,2})(?::?(\d{2}))?", re.ASCII)
_ABBREVIATIONS: Final = {
    "UTC": 0, "GMT": 0, "WET": 0, "WEST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "MSK": 3,
    "SGT": 8, "HKT": 8, "PHT": 8, "MYT": 8, "AWST": 8, "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11,
    "NZST": 12, "NZDT": 13, "HST": -10, "AKST": -9, "AKDT": -8, "PST": -8, "PDT": -7, "MST": -7,
    "MDT": -6, "CDT": -5, "EST": -5, "EDT": -4,
}  # fmt: skip
"""Abbreviations of one zone → hours from UTC. CST, IST, BST and AST name several."""


class Time(NamedTuple):
    """A time as a row states it."""

    local: datetime
    """Without an offset in the zone of the file, or with its own."""
    is_day: bool
    """Whether it has no time of day."""


class TimeReader:
    """Reads the times of one file."""

    def __init__(self, profile: StatementProfile, where: ZoneInfo | None) -> None:
        declared = profile.time_format
        self._formats = (declared,) if isinstance(declared, str) else declared or ()
        if len(self._formats) > FORMATS_MAX:
            raise StatementRefused(f"time_format has more than {FORMATS_MAX} patterns; leave some")
        for pattern in self._formats:
            _check_pattern(pattern)
        self._where = where
        self._cache: dict[str, Time] = {}
        self._zones: dict[str, tzinfo] = {}

    @property
    def needs_choice(self) -> bool:
        """Whether several formats are declared, so that `choose` must be called."""
        return len(self._formats) > 1

    def choose(self, times: Iterable[tuple[int, str]]) -> None:
        """Keep the one format that reads the time of every row: (line, text).

        Texts that no format reads are left for later. Raises StatementRefused when no format reads
        all the others, or two read them differently.
        """
        open_formats = list(self._formats)
        doubtful: dict[tuple[str, str], tuple[int, str]] = {}
        known: set[str] = set()
        for number, text in times:
            if text in known or isinstance(text, DateCell):
                continue
            if len(known) < _CACHE_MAX:
                known.add(text)
            read = {each: _strptime(text, each) for each in self._formats}
            if not any(read.values()):
                continue
            left = [each for each in open_formats if read[each]]
            if not left:
                raise refusal(number, f"{text[:40]!r} is not written as the times before it; "
                              f"declare time_format, which is {_listed(open_formats)}")  # fmt: skip
            open_formats = left
            for pair in combinations(left, 2):
                if read[pair[0]] != read[pair[1]]:
                    doubtful.setdefault(pair, (number, text))
        for pair in combinations(open_formats, 2):
            if pair in doubtful:
                number, text = doubtful[pair]
                raise refusal(number, f"{text[:40]!r} can be read as {_listed(pair)}, as all "
                              "times of the file can; declare the right time_format")  # fmt: skip
        self._formats = tuple(open_formats[:1])

    def read(self, number: int, name: str, text: str, zone: str = "") -> Time:
        """Return the time of a row's text; `zone` is the text of its zone's column.

        Raises StatementRefused, naming line, column and text.
        """
        time = self._parsed(text)
        if time is None:
            how = "of ISO 8601; declare time_format, as %d/%m/%Y"
            if self._formats and not isinstance(text, DateCell):
                how = f"as {self._formats[0]!r} writes it; correct the row or time_format"
            raise refusal(number, f"{name} {text[:40]!r} is no time {how}")
        if time.local.tzinfo is not None:
            return time
        if zone:
            own = self._zones.get(zone)
            if own is None:
                own = self._zones[zone] = self._zone(number, zone)
            return Time(time.local.replace(tzinfo=own), time.is_day)
        if self._where is None:
            raise refusal(number, f"{name} {text[:40]!r} names no zone; declare time_zone, as "
                          "Asia/Singapore")  # fmt: skip
        return time

    def reads(self, text: str) -> bool:
        """Return whether a text is a time."""
        return self._parsed(text) is not None

    def instant(self, number: int, name: str, time: Time) -> datetime:
        """Return the instant of a time, in UTC. Raises StatementRefused."""
        try:
            if time.local.tzinfo is not None:
                return time.local.astimezone(UTC)
            return time.local.replace(tzinfo=self._where).astimezone(UTC)
        except (OverflowError, ValueError) as error:
            raise refusal(number, f"{name} {time.local.isoformat()} is no time of the calendar; "
                          "correct it") from error  # fmt: skip

    def is_doubled(self, time: Time) -> bool:
        """Return whether the clock of the zone shows a time twice."""
        if time.local.tzinfo is not None or self._where is None:
            return False
        where = self._where
        return where.utcoffset(time.local) != where.utcoffset(time.local.replace(fold=1))

    def _parsed(self, text: str) -> Time | None:
        time = self._cache.get(text)
        if time is not None:
            return time
        if self._formats and not isinstance(text, DateCell):
            local = _strptime(text, self._formats[0])
            is_day = self._are_days
        else:
            local, is_day = _iso(text), _DAY.fullmatch(text) is not None
        if local is None:
            return None
        time = Time(local, is_day)
        if len(self._cache) < _CACHE_MAX:
            self._cache[text] = time
        return time

    @property
    def _are_days(self) -> bool:
        return not _TIME_OF_DAY.search(self._formats[0])

    def _zone(self, number: int, text: str) -> tzinfo:
        hours = _ABBREVIATIONS.get(text.upper())
        if hours is not None:
            return timezone(timedelta(hours=hours))
        match = _OFFSET.fullmatch(text.upper())
        try:
            if match:
                whole = int(match[1])
                minutes = int(match[2] or 0) * (-1 if match[1][0] == "-" else 1)
                return timezone(timedelta(hours=whole, minutes=minutes))
            return ZoneInfo(text)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            if self._where is not None:
                return self._where
            raise refusal(number, f"{text[:40]!r} names no zone, or several; declare time_zone, as "
                          "Asia/Singapore") from error  # fmt: skip


def _strptime(text: str, pattern: str) -> datetime | None:
    try:
        return datetime.strptime(text, pattern)  # noqa: DTZ007 - the zone comes from elsewhere
    except (ValueError, OverflowError):
        return None


def _iso(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    match = _LOOSE.fullmatch(text)
    if match is None:
        return None
    day, clock, utc, hours, minutes = match.groups()
    offset = "+00:00" if utc else f"{hours}:{minutes}" if hours else ""
    try:
        clock = clock if clock[2] == ":" else f"0{clock}"
        return datetime.fromisoformat(f"{day}T{clock}{offset}")
    except ValueError:
        return None


def _check_pattern(pattern: str) -> None:
    """Refuse a pattern that strptime cannot use. It compiles one to a regular expression."""
    try:
        datetime.strptime("", pattern)  # noqa: DTZ007 - nothing is read
    except (re.error, KeyError, IndexError, TypeError) as error:
        raise _bad_pattern(pattern) from error
    except ValueError as error:
        if "does not match" not in str(error):
            raise _bad_pattern(pattern) from error


def _bad_pattern(pattern: str) -> StatementRefused:
    return StatementRefused(
        f"time_format {shown(pattern)} is no pattern of strptime; write it like %d/%m/%Y %H:%M"
    )


def _listed(patterns: Iterable[str]) -> str:
    return " or ".join(map(repr, patterns))
