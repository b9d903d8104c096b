"""The columns of a table: which place in a row has what a profile names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ledger.config.statement_profile import COLUMNS, JOINED, StatementProfile
from ledger.model import shown
from ledger.statements.formats.tables.cells import COLUMNS_MAX, Row, is_blank, unwrapped
from ledger.statements.model import StatementRefused

HEAD_ROWS_MAX: Final = 10_000
"""Rows among which a header may be that `header_row` names."""

_SEARCHED_ROWS: Final = 100
"""Rows among which a header is looked for."""
_SKIP: Final = "skip_where."
_CURRENCY: Final = "{currency}"
_BY_NUMBER: Final = re.compile(r"#(\d{1,3})", re.ASCII)
_BY_ORDINAL: Final = re.compile(r"(.+)#(\d{1,2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a table has what its profile names; places count from 0."""

    places: Mapping[str, tuple[int, ...]]
    """Setting → its column, or columns; those that the header lacks are left out."""
    skipped: tuple[tuple[str, int, frozenset[str]], ...]
    """Of `skip_where`: the column's name, its place, and the texts in small letters."""
    header: tuple[str, ...]
    """The names of the header; none without one."""
    width: int
    """How many columns a row has at least: those of the header, or those that are named."""
    currency: str = ""
    """The one that the header names, as in `Deposits (SGD)`."""
    missing: tuple[tuple[str, str], ...] = ()
    """What the header lacks, or has several times: setting and what is wrong."""

    def name(self, setting: str) -> str:
        """Return the name of a setting's column, for messages."""
        place = self.places[setting][0]
        return self.header[place] if place < len(self.header) else f"#{place + 1}"

    def cell(self, cells: Sequence[str], setting: str) -> str:
        """Return the cell of a setting's column in a row, without blanks around; "" without one."""
        places = self.places.get(setting)
        return cells[places[0]].strip() if places else ""

    def texts(self, cells: Sequence[str], setting: str) -> str:
        """Return the texts of a setting's columns in a row, with a blank between them."""
        texts = (" ".join(unwrapped(cells[at]).split()) for at in self.places.get(setting, ()))
        return " ".join(filter(None, texts))

    def place(self, setting: str) -> int:
        """Return the place of a setting's column, -1 without one."""
        places = self.places.get(setting)
        return places[0] if places else -1


def check_profile(profile: StatementProfile) -> None:
    """Refuse a profile that does not say where time and amount are, or says so twice."""
    if not profile.effective_at:
        raise StatementRefused("the profile lacks effective_at; name the column of the time")
    is_split = bool(profile.debit and profile.credit)
    if bool(profile.amount) == is_split or (profile.amount and (profile.debit or profile.credit)):
        raise StatementRefused(
            "name the amount's column (amount), or those of both debit and credit"
        )
    if profile.indicator and not profile.amount:
        raise StatementRefused("indicator belongs to amount; leave it out beside debit and credit")
    if profile.header_row is not None and profile.header_row < 1:
        raise StatementRefused("header_row is the line of the header, counted from 1")
    if profile.amount_sign and (profile.indicator or not profile.amount):
        raise StatementRefused(
            "amount_sign belongs to amount alone; leave it out beside indicator, debit and credit"
        )
    if profile.header is False and profile.header_row is not None:
        raise StatementRefused("header = false and header_row contradict each other; remove one")
    if profile.header is False:
        for setting, name in _named(profile):
            if not _BY_NUMBER.fullmatch(name):
                raise StatementRefused(
                    f"{setting} is {shown(name)}; without a header columns are numbers, as #3"
                )


def columns_in(names: Sequence[str], profile: StatementProfile) -> Columns:
    """Return the columns of a header, which may lack some: `missing` says which."""
    header = tuple(_clean(name) for name in names)
    find = _Finder(header)
    places: dict[str, tuple[int, ...]] = {}
    missing: list[tuple[str, str]] = []
    for setting in COLUMNS:
        declared = profile.columns(setting)
        if not declared:
            continue
        found = [place for name in declared if (place := find(name)) is not None]
        if found:
            places[setting] = tuple(found) if setting in JOINED else (found[0],)
        if len(found) < len(declared) if setting in JOINED else not found:
            lacking = [name for name in declared if find(name) is None]
            if setting not in profile.optional:
                missing.append((setting, find.fault(lacking)))
    skipped = []
    for name, texts in profile.skip_where.items():
        place = find(name)
        if place is not None:
            skipped.append((name, place, frozenset(text.casefold() for text in texts)))
        elif name not in profile.optional:
            missing.append((_SKIP + name, find.fault([name])))
    missing += [("required", find.fault([n])) for n in profile.required if find(n) is None]
    width = len(header)
    if profile.header is False:
        used = [place for joined in places.values() for place in joined]
        width = 1 + max(used + [place for _, place, _ in skipped], default=0)
    return Columns(places, tuple(skipped), header, width, find.currency, tuple(missing))


def head_rows_max(profile: StatementProfile) -> int:
    """Return how many of the first rows are searched for the header."""
    return min(max(_SEARCHED_ROWS, profile.header_row or 0), HEAD_ROWS_MAX)


def numbered_columns(profile: StatementProfile) -> Columns:
    """Return the columns of a table without a header."""
    return columns_in((), profile)


def find_header(rows: Sequence[Row], profile: StatementProfile) -> tuple[int, Columns] | None:
    """Return the line of the header among the first rows, and its columns; None = none fits."""
    for number, cells in rows:
        if profile.header_row not in (None, number) or is_blank(cells):
            continue
        columns = columns_in(cells, profile)
        if not columns.missing:
            return number, columns
    return None


def refuse_header(rows: Sequence[Row], profile: StatementProfile) -> StatementRefused:
    """Return the refusal of a file none of whose first rows has every column."""
    candidates = [
        (len(columns_in(cells, profile).missing), -len(cells), number, cells)
        for number, cells in rows
        if profile.header_row in (None, number) and not is_blank(cells)
    ]
    if not candidates:
        return StatementRefused(
            f"line {profile.header_row or 1}: there is no header; correct header_row"
        )
    _, _, number, cells = min(candidates)
    columns = columns_in(cells, profile)
    faults = "; ".join(f"{fault} for {setting}" for setting, fault in columns.missing[:8])
    return StatementRefused(
        f"line {number}: the header has {faults}; it has {listed(columns.header)}; correct the "
        "profile, or name columns (--column)"
    )


def listed(names: Sequence[str]) -> str:
    """Return the names of a header for a message."""
    return ", ".join(name for name in names if name)[:500]


def check_width(number: int, cells: Sequence[str]) -> None:
    """Refuse a header with too many columns."""
    if len(cells) > COLUMNS_MAX:
        raise StatementRefused(f"line {number}: more than {COLUMNS_MAX} columns; export fewer")


def _clean(name: str) -> str:
    return " ".join(unwrapped(name).replace("\ufeff", "").split())


def _named(profile: StatementProfile) -> list[tuple[str, str]]:
    pairs = [(setting, name) for setting in COLUMNS for name in profile.columns(setting)]
    return pairs + [(_SKIP + name, name) for name in profile.skip_where]


@dataclass(slots=True)
class _Finder:
    """Finds columns by the names that profiles have."""

    header: tuple[str, ...]
    currency: str = ""
    _folded: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._folded = tuple(name.casefold() for name in self.header)

    def __call__(self, name: str) -> int | None:
        """Return the place of a column; None when it is not there, or there several times."""
        name = _clean(name)
        by_number = _BY_NUMBER.fullmatch(name)
        if by_number and name not in self.header:
            place = int(by_number[1]) - 1
            return place if 0 <= place < (len(self.header) or COLUMNS_MAX) else None
        places = self._places(name)
        if not places and (ordinal := _BY_ORDINAL.fullmatch(name)):
            places = self._places(ordinal[1].strip())
            place = int(ordinal[2])
            return places[place - 1] if 0 < place <= len(places) else None
        return places[0] if len(places) == 1 else None

    def fault(self, names: Sequence[str]) -> str:
        """Describe why none of the names is a column."""
        doubled = [name for name in names if len(self._places(_clean(name))) > 1]
        if doubled:
            count = len(self._places(_clean(doubled[0])))
            return f"{count} columns {doubled[0]!r} (write {doubled[0]}#1 for the first)"
        return f"no column {' or '.join(repr(name) for name in names)}"

    def _places(self, name: str) -> list[int]:
        if _CURRENCY in name:
            return self._by_currency(name)
        places = [place for place, other in enumerate(self.header) if other == name]
        folded = name.casefold()
        return places or [place for place, other in enumerate(self._folded) if other == folded]

    def _by_currency(self, name: str) -> list[int]:
        before, _, after = name.partition(_CURRENCY)
        pattern = re.compile(rf"{re.escape(before)}([A-Z]{{3,5}}){re.escape(after)}", re.IGNORECASE)
        places = []
        for place, other in enumerate(self.header):
            match = pattern.fullmatch(other)
            if match and self.currency in ("", match[1].upper()):
                self.currency = match[1].upper()
                places.append(place)
        return places
