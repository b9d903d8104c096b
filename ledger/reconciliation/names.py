"""Find the transactions that the names on a line mean. Pure.

Names are compared exactly. A line of which no name is known exactly is looked up by letters and
digits alone, in any case, since banks drop blanks and punctuation; and by the beginning of a name,
since banks cut long ones off. Numbers of a series are close to each other (`INV-11-2`, `INV-1-12`,
`INV-11-20`), so that such a name means a transaction only where amount and time agree as well.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, TypeVar

from ledger.config.reconciliation import Rules
from ledger.model import Record
from ledger.reconciliation.classification import is_fee
from ledger.reconciliation.items import LedgerMovement, StatementItem

T = TypeVar("T")

_NO_LETTERS: Final = re.compile(r"[\W_]+")

SHARED_MAX: Final = 20
"""Transactions that may have one name; a name of more of them names none."""
EXACT_MIN: Final = 4
"""Characters of a name of a list below which it counts only where the amount agrees."""
SURE_MIN: Final = 8
"""Characters of a name from which on it is believed whatever amount and time are."""
CUT_MIN: Final = 14
"""Letters and digits that must be left of a name cut off; MT940 has room for 16 characters, of
which a UUID has two hyphens."""
CUT_LENGTHS: Final = frozenset({16, 27, 35})
"""Where the formats cut: a reference of :61:, a subfield of :86:, an id of camt.053 (Max35Text)."""
RANDOM_MIN: Final = 4
"""Changes between letters and digits from which on a name is no number of a series."""
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_CHANGE: Final = re.compile(r"(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)")
_NUMBER: Final = re.compile(r"\d+")
_BETWEEN_DIGITS: Final = re.compile(r"(?<=\d)[\W_]+(?=\d)")


class Named(Record, frozen=True):
    """What the names of a line mean."""

    own: tuple[tuple[str, LedgerMovement], ...] = ()
    """Movements that have one of its names alone, each with that name, as the books have it."""
    shared: tuple[str, ...] = ()
    """Names that several transactions have."""

    @property
    def is_known(self) -> bool:
        """Whether the books know any of the names."""
        return bool(self.own or self.shared)


NAMELESS: Final = Named()


def folded(name: str) -> str:
    """Return the letters and digits of a name, in one case."""
    return _NO_LETTERS.sub("", name).casefold()


class NameIndex:
    """The movements of a wallet by every name that they have."""

    def __init__(self, movements: Iterable[LedgerMovement], rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self._exact: dict[str, tuple[LedgerMovement, ...]] = {}
        self._folded: dict[str, tuple[str, ...]] | None = None
        self._sorted: list[str] = []
        self.add(movements)

    def add(self, movements: Iterable[LedgerMovement]) -> None:
        """Add movements."""
        _collect(self._exact, ((name, m) for m in movements for name in m.names))
        self._folded = None

    def having(self, name: str) -> tuple[LedgerMovement, ...]:
        """Return the movements of a name; none when more than SHARED_MAX have it."""
        found = self._exact.get(name, ())
        return found if len(found) <= SHARED_MAX else ()

    def named_by(self, line: StatementItem) -> Named:
        """Return what the names of a line mean, other than its contract."""
        if not line.all_names:
            return NAMELESS
        own: dict[str, tuple[str, LedgerMovement]] = {}
        shared = []
        known = [(name, found) for name in line.all_names if (found := self.having(name))]
        for name, found in known:
            if len(found) > 1:
                shared.append(name)
            elif self._is_believed(line, name, found[0], is_alone=len(known) == 1):
                own.setdefault(found[0].key, (name, found[0]))
        if own or shared:
            return Named(tuple(own.values()), tuple(shared))
        for name in line.all_names:
            for spelling, is_sure in self._spelled(name):
                for movement in self.having(spelling):
                    if is_sure or (fits(line, movement) and self._is_near(line, movement)):
                        own.setdefault(movement.key, (spelling, movement))
        # More than one transaction by names that are not exact is no more than a guess.
        return Named(tuple(own.values())) if len(own) == 1 else NAMELESS

    def _is_believed(
        self, line: StatementItem, name: str, movement: LedgerMovement, *, is_alone: bool
    ) -> bool:
        """Tell whether an exact name counts; `is_alone` when no other name of the line is known."""
        if len(name) >= SURE_MIN or fits(line, movement):
            return True
        is_typed = name in (line.idempotency, line.reference)
        if not is_typed and len(name) < EXACT_MIN:
            return False
        return not is_alone or self._is_near(line, movement)

    def _is_near(self, line: StatementItem, movement: LedgerMovement) -> bool:
        """Tell whether a line may be dated at a time of a movement, by the window of matching."""
        calendar, window = self._rules.calendar, self._rules.window
        begin, end = calendar.span_of(line.at)
        times = (calendar.business_time(at) for at, _ in movement.legs)
        return any(begin - window <= at <= end + window for at in times)

    def _spelled(self, name: str) -> list[tuple[str, bool]]:
        """Return the known names that a name may spell, and whether each one surely is it.

        They are those of the same letters and digits, else the one that begins with them.
        """
        if self._folded is None:
            self._folded = {}
            _collect(self._folded, ((folded(known), known) for known in self._exact))
            self._sorted = sorted(self._folded)
        letters = folded(name)
        if letters in self._folded:
            known = [each for each in self._folded[letters] if _may_spell(name, each)]
            is_one = len(known) == 1 and len(self.having(known[0])) == 1
            return [(each, is_one and _surely_spells(name, each)) for each in known]
        if len(letters) < CUT_MIN:
            return []
        place = bisect_left(self._sorted, letters)
        begun = [each for each in self._sorted[place : place + 2] if each.startswith(letters)]
        if len(begun) != 1:
            return []
        known = [*self._folded[begun[0]]]
        is_one = len(known) == 1 and len(self.having(known[0])) == 1
        if is_one and _is_random(letters, known[0]):
            return [(known[0], True)]
        return [(each, False) for each in known] if len(name) in CUT_LENGTHS else []


def contradicts(line: StatementItem, movement: LedgerMovement) -> bool:
    """Tell whether a line and a movement have different numbers of one series of names.

    Such names are alike but for their digits, as `E2E-123456` and `E2E-999999`.
    """
    booked: dict[str, list[str]] = {}
    for name in movement.names:
        booked.setdefault(_series(name), []).append(name)
    found = False
    for name in line.all_names:
        series, letters = _series(name), folded(name)
        for other in booked.get(series, ()) if series else ():
            known = folded(other)
            if known == letters and _may_spell(name, other):
                return False
            if known != letters and len(name) in CUT_LENGTHS and known.startswith(letters):
                return False
            found = True
    return found


def _series(name: str) -> str:
    """Return a name with one digit for each of its numbers; "" without a number or a word."""
    series = _NUMBER.sub("0", folded(name))
    return series if "0" in series and len(series.replace("0", "")) > 1 else ""


def _joints(name: str) -> frozenset[int]:
    """Return after how many letters and digits a name has a mark between two digits."""
    return frozenset(len(folded(name[: at.start()])) for at in _BETWEEN_DIGITS.finditer(name))


def _may_spell(name: str, known: str) -> bool:
    """Tell whether one of two names of the same letters and digits has marks dropped, not moved."""
    one, other = _joints(name), _joints(known)
    return one <= other or other <= one


def _surely_spells(name: str, known: str) -> bool:
    letters = folded(name)
    return _is_random(letters, known) or (
        len(letters) >= SURE_MIN and _joints(name) == _joints(known)
    )


def _is_random(letters: str, known: str) -> bool:
    """Tell whether these letters are a name by themselves, rather than a number of a series."""
    return len(_CHANGE.findall(letters)) >= RANDOM_MIN or bool(_UUID.fullmatch(known))


def fits(line: StatementItem, movement: LedgerMovement) -> bool:
    """Tell whether a line states the amount of a movement, before or after the fee, or its fee."""
    if line.amount in (movement.net, movement.gross):
        return True
    return bool(movement.fee) and line.amount == -movement.fee and is_fee(line)


def _collect(found: dict[str, tuple[T, ...]], pairs: Iterable[tuple[str, T]]) -> None:
    for name, each in pairs:
        known = found.get(name)
        if known is None:
            found[name] = (each,)
        elif each not in known and len(known) <= SHARED_MAX:
            found[name] = (*known, each)
