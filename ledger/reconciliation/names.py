"""Find the transactions that the names on a line mean. Pure.

Names are compared exactly. A line of which no name is known exactly is looked up by letters and
digits alone, in any case, since banks drop blanks and punctuation; and by the beginning of a name,
since banks cut long ones off. A short name that is found so, or that stands in a list of names,
means a transaction only where the amounts agree as well.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, TypeVar

from ledger.model import Record
from ledger.reconciliation.classification import is_fee
from ledger.reconciliation.items import LedgerMovement, StatementItem

T = TypeVar("T")

_NO_LETTERS: Final = re.compile(r"[\W_]+")

SHARED_MAX: Final = 20
"""Transactions that may have one name; a name of more of them names none."""
EXACT_MIN: Final = 4
"""Characters from which on a name of a list is believed whatever the amounts are."""
FOLDED_MIN: Final = 8
"""Letters and digits from which on that holds for a name that differs in spelling."""
CUT_MIN: Final = 14
"""Letters and digits that must be left of a name cut off; MT940 has room for 16 characters, of
which a UUID has two hyphens."""


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

    def __init__(self, movements: Iterable[LedgerMovement]) -> None:
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
        for name in line.all_names:
            found = self.having(name)
            if len(found) == 1:
                if self._is_believed(line, name, found[0]):
                    own.setdefault(found[0].key, (name, found[0]))
            elif found:
                shared.append(name)
        if own or shared:
            return Named(tuple(own.values()), tuple(shared))
        for name in line.all_names:
            known, least = self._spelled(name)
            for spelling in known:
                found = self.having(spelling)
                is_sure = len(known) == len(found) == 1 and least
                for movement in found:
                    if is_sure or fits(line, movement):
                        own.setdefault(movement.key, (spelling, movement))
        # More than one transaction by names that are not exact is no more than a guess.
        return Named(tuple(own.values())) if len(own) == 1 else NAMELESS

    def _is_believed(self, line: StatementItem, name: str, movement: LedgerMovement) -> bool:
        is_typed = name in (line.idempotency, line.reference)
        return is_typed or len(name) >= EXACT_MIN or fits(line, movement)

    def _spelled(self, name: str) -> tuple[tuple[str, ...], bool]:
        """Return the known names that a name may spell, and whether it is long enough to be sure.

        They are those of the same letters and digits, else those that begin with them.
        """
        if self._folded is None:
            self._folded = {}
            _collect(self._folded, ((folded(known), known) for known in self._exact))
            self._sorted = sorted(self._folded)
        letters = folded(name)
        if letters in self._folded:
            return self._folded[letters], len(letters) >= FOLDED_MIN
        if len(letters) < CUT_MIN:
            return (), False
        place = bisect_left(self._sorted, letters)
        begun = [each for each in self._sorted[place : place + 2] if each.startswith(letters)]
        return (self._folded[begun[0]], True) if len(begun) == 1 else ((), False)


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
