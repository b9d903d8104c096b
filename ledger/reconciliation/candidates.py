"""Suggest what may be the other side of a break: up to three items, the best first. Pure.

A candidate is on the other side and in no match. It is a suggestion for a person, never a match:
its reason says what the two have in common and what differs. The cost of a break depends on what
fits it, not on how many breaks there are, because items are looked up by amount and by name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from operator import attrgetter, itemgetter
from typing import Any, Final, TypeAlias

from ledger.model import Record, plain, stamp
from ledger.reconciliation.items import ZERO, Group, LedgerMovement, StatementItem, sum_of

STATEMENT: Final = "statement"
BOOKS: Final = "books"

CANDIDATES_MAX: Final = 3
BREAKS_MAX: Final = 20_000
"""How many breaks get candidates, the largest first."""
ENTRIES_MAX: Final = 50_000
"""How many items of one side may be candidates, the largest of them."""
NAMES_MAX: Final = 50_000
"""Names of one side among which similar ones are searched; with more, only equal ones."""
NEIGHBOURS: Final = 4
"""Items that are looked at on either side of an amount."""
ALIKE_MAX: Final = 50
"""Items that are looked at of those with one name, or a similar one."""
NAME_MIN: Final = 5
"""Characters of the shortest name that is compared with similar ones."""
PREFIX_MIN: Final = 8
"""Characters of the shortest name that may be the beginning of another."""
SHORT_MAX: Final = 24
"""Characters up to which a name is looked up with each of its characters left out."""
CLOSE_SHARE: Final = Decimal("0.01")
"""Share of an amount up to which another one is close to it."""
NEAR: Final = timedelta(days=7)
"""How far apart two items with close amounts and nothing else in common may be."""
SHARE_OF_BEST: Final = 0.3
"""Share of the best candidate's points that another one needs."""

EQUAL: Final = 8
BEFORE_FEES: Final = 6
OPPOSITE: Final = 4
CLOSE: Final = 2
"""How well an amount fits; more points, better fit."""

NOTHING: Final = (0, "")
SAME_NAME: Final = (8, "a name is the same")
NAMED: Final = (7, "a name is in the description")
CUT_SHORT: Final = (5, "a name is the beginning of the other")
ONE_CHARACTER: Final = (5, "a name differs by one character")
SWAPPED: Final = (5, "a name has two characters swapped")
ONE_DIGIT: Final = (4, "a name differs by one character")
SWAPPED_DIGITS: Final = (4, "a name has two characters swapped")
"""What two names have in common: points and reason."""


class Candidate(Record, frozen=True):
    """An item that may belong to a break, and why."""

    item: str
    """Its name: `line:…`, `<kind>:…`."""
    side: str
    """STATEMENT or BOOKS."""
    effective_at: datetime
    amount: Decimal
    counterparty: str
    description: str
    reason: str

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "item": self.item,
            "side": self.side,
            "effective_at": stamp(self.effective_at),
            "amount": plain(self.amount),
            "counterparty": self.counterparty or None,
            "description": self.description or None,
            "reason": self.reason,
        }


_Key: TypeAlias = tuple[str, Decimal]


class _Entry(Record, frozen=True):
    """A line or a transaction that is in no match."""

    item: str
    side: str
    at: datetime
    amount: Decimal
    fee: Decimal
    """Contained in the amount of a transaction."""
    names: tuple[str, ...]
    counterparty: str
    description: str

    @property
    def key(self) -> _Key:
        """Its name and amount: a transaction and its fee may be two entries of one name."""
        return self.item, self.amount


class _Subject(Record, frozen=True):
    """What a break is about, as its candidates are compared with it."""

    items: frozenset[str]
    at: datetime
    amount: Decimal
    """What the other side must have so that the break closes."""
    fees: Decimal
    names: tuple[str, ...]
    words: tuple[str, ...]
    """Words of its description that may be names."""
    counterparties: tuple[str, ...]
    is_two_sided: bool


def suggest_candidates(groups: Sequence[Group], zone: tzinfo) -> dict[str, tuple[Candidate, ...]]:
    """Return anchor → candidates of groups that are open breaks; days are those of a zone."""
    pools = {STATEMENT: _Pool(), BOOKS: _Pool()}
    for group in groups:
        for line in group.lines:
            pools[STATEMENT].add(_of_line(line))
        for movement in group.movements:
            pools[BOOKS].add(_of_movement(movement))
    for pool in pools.values():
        pool.build()
    largest = sorted(groups, key=lambda group: (-abs(group.difference), group.anchor))
    suggested = {}
    for group in largest[:BREAKS_MAX]:
        scored = [
            scored
            for side, subject in _subjects(group)
            for scored in pools[side].candidates(subject, zone)
        ]
        if scored:
            suggested[group.anchor] = _best(scored)
    return suggested


def _best(scored: list[tuple[_Rank, Candidate]]) -> tuple[Candidate, ...]:
    """Return the best candidates, without those that fit far worse than the best one."""
    scored.sort(key=itemgetter(0))
    enough = scored[0][0][0] * SHARE_OF_BEST
    best: dict[str, Candidate] = {}
    for rank, each in scored:
        if rank[0] <= enough and len(best) < CANDIDATES_MAX:
            best.setdefault(each.item, each)
    return tuple(best.values())


def _subjects(group: Group) -> Iterator[tuple[str, _Subject]]:
    """Yield where to look for candidates of a group, and for what."""
    at = group.at
    is_two_sided = bool(group.lines and group.movements)
    if at is None or (is_two_sided and not group.difference):
        return
    own = [_of_line(line) for line in group.lines]
    own += [_of_movement(movement) for movement in group.movements]
    fees = sum_of(movement.fee for movement in group.movements)

    def subject(amount: Decimal) -> _Subject:
        return _Subject(
            frozenset(group.keys),
            at,
            amount,
            fees,
            tuple(dict.fromkeys(name for entry in own for name in entry.names)),
            tuple(dict.fromkeys(word for entry in own for word in _words(entry.description))),
            tuple(dict.fromkeys(_normal(e.counterparty) for e in own if e.counterparty)),
            is_two_sided,
        )

    if group.movements:
        amount = group.difference if is_two_sided else sum_of(each.net for each in group.movements)
        yield STATEMENT, subject(amount)
    if group.lines:
        yield BOOKS, subject(-group.difference if is_two_sided else group.statement_amount)


def _of_line(line: StatementItem) -> _Entry:
    names = _names((line.contract, *line.all_names))
    return _Entry(
        line.key, STATEMENT, line.at, line.amount, ZERO, names, line.counterparty, line.description
    )


def _of_movement(movement: LedgerMovement) -> _Entry:
    names = _names(movement.names)
    at = movement.legs[0][0]
    return _Entry(movement.key, BOOKS, at, movement.net, movement.fee, names, "", "")


def _names(names: Iterable[str | None]) -> tuple[str, ...]:
    """Return names as they are compared."""
    return tuple(dict.fromkeys(filter(None, (_normal(name) for name in names if name))))


def _normal(name: str) -> str:
    """Return a name without blanks and punctuation, in one case."""
    return "".join(sign for sign in name.casefold() if sign.isalnum())


def _words(description: str) -> list[str]:
    """Return the words of a description that may be names: with a digit, and long enough."""
    words = (_normal(word) for word in description.split())
    return [
        word for word in words if len(word) >= NAME_MIN and any(sign.isdigit() for sign in word)
    ]


_Rank: TypeAlias = tuple[int, timedelta, str, str]
"""Points below 0, distance in time, side and name: the smaller, the better."""


@dataclass(slots=True)
class _Pool:
    """The items of one side that are in no match, found by amount and by name."""

    entries: list[_Entry] = field(default_factory=list)
    by_name: dict[str, list[_Entry]] = field(default_factory=lambda: defaultdict(list))
    by_word: dict[str, list[_Entry]] = field(default_factory=lambda: defaultdict(list))
    by_part: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Parts of names → names: two that differ by one character have a part in common."""
    by_counterparty: dict[str, list[_Entry]] = field(default_factory=lambda: defaultdict(list))
    sorted_names: list[str] = field(default_factory=list)

    def add(self, entry: _Entry) -> None:
        """Add an item."""
        self.entries.append(entry)

    def build(self) -> None:
        """Index the items, in an order that does not depend on that of their groups."""
        if len(self.entries) > ENTRIES_MAX:
            self.entries.sort(key=lambda entry: (-abs(entry.amount), entry.at, entry.item))
            del self.entries[ENTRIES_MAX:]
        self.entries.sort(key=attrgetter("amount", "at", "item"))
        for entry in self.entries:
            for name in entry.names:
                self.by_name[name].append(entry)
            for word in _words(entry.description):
                self.by_word[word].append(entry)
            if entry.counterparty:
                self.by_counterparty[_normal(entry.counterparty)].append(entry)
        self.sorted_names = sorted(self.by_name)
        if len(self.by_name) <= NAMES_MAX:
            for name in self.sorted_names:
                for part in _parts(name):
                    self.by_part[part].append(name)

    def candidates(self, subject: _Subject, zone: tzinfo) -> Iterator[tuple[_Rank, Candidate]]:
        """Yield the items that fit, each with its rank: the smaller, the better."""
        entries = {entry.key: entry for entry in self._by_amounts(subject)}
        shared: dict[_Key, tuple[int, str]] = {}
        if not subject.is_two_sided:
            for points, reason, entry in self._by_names(subject):
                entries[entry.key] = entry
                shared[entry.key] = max((points, reason), shared.get(entry.key, NOTHING))
        for key, entry in entries.items():
            if entry.item in subject.items:
                continue
            points, reason = _compare(subject, entry, shared.get(key, NOTHING), zone)
            if points:
                rank = -points, abs(entry.at - subject.at), entry.side, entry.item
                yield rank, _candidate(entry, reason)

    def _by_amounts(self, subject: _Subject) -> Iterator[_Entry]:
        """Yield the items whose amounts fit, or are close."""
        yield from self._by_amount(subject.amount, subject.at)
        if subject.fees:
            yield from self._by_amount(subject.amount + subject.fees, subject.at)
        if not subject.is_two_sided:
            yield from self._by_amount(-subject.amount, subject.at)

    def _by_amount(self, amount: Decimal, at: datetime) -> Iterator[_Entry]:
        """Yield the items of an amount that are nearest in time, and the next smaller and larger.

        Of items with equal amounts those on either side of the time come first.
        """
        place = bisect_left(self.entries, (amount, at), key=attrgetter("amount", "at"))
        yield from self.entries[max(0, place - NEIGHBOURS) : place + NEIGHBOURS]
        first = bisect_left(self.entries, amount, key=attrgetter("amount"))
        yield from self.entries[max(0, first - NEIGHBOURS) : first]

    def _by_names(self, subject: _Subject) -> Iterator[tuple[int, str, _Entry]]:
        """Yield the items that share a name or a similar one, with points and reason."""
        for name in subject.names:
            for entry in self.by_name.get(name, [])[:ALIKE_MAX]:
                yield *SAME_NAME, entry
            for entry in self.by_word.get(name, [])[:ALIKE_MAX]:
                yield *NAMED, entry
            for found, other in self._similar(name):
                for entry in self.by_name[other][:ALIKE_MAX]:
                    yield *found, entry
        for word in subject.words:
            for entry in self.by_name.get(word, [])[:ALIKE_MAX]:
                yield *NAMED, entry
        for counterparty in subject.counterparties:
            same = self.by_counterparty.get(counterparty, [])
            place = bisect_left(same, subject.amount, key=attrgetter("amount"))
            for entry in same[max(0, place - NEIGHBOURS) : place + NEIGHBOURS]:
                yield *NOTHING, entry

    def _similar(self, name: str) -> Iterator[tuple[tuple[int, str], str]]:
        """Yield the names that differ from one by a character, or begin like it."""
        for part in _parts(name):
            for other in self.by_part.get(part, [])[:ALIKE_MAX]:
                found = _one_apart(name, other)
                if found is not None:
                    yield found, other
        if len(name) < PREFIX_MIN:
            return
        place = bisect_left(self.sorted_names, name)
        for other in self.sorted_names[place : place + NEIGHBOURS]:
            if other != name and other.startswith(name):
                yield CUT_SHORT, other
        for length in range(PREFIX_MIN, len(name)):
            if name[:length] in self.by_name:
                yield CUT_SHORT, name[:length]


def _parts(name: str) -> list[str]:
    """Return the parts of which names that differ by one character share one.

    A short name with each of its characters left out; of a longer one its halves.
    """
    if len(name) < NAME_MIN:
        return []
    if len(name) <= SHORT_MAX:
        return [name, *dict.fromkeys(name[:i] + name[i + 1 :] for i in range(len(name)))]
    middle = SHORT_MAX // 2
    return [f"^{name[:middle]}", f"{name[-middle:]}$"]


def _one_apart(name: str, other: str) -> tuple[int, str] | None:
    """Return points and reason when two names differ by one character, or by two swapped ones."""
    if name == other or abs(len(name) - len(other)) > 1:
        return None
    begin = 0
    while begin < min(len(name), len(other)) and name[begin] == other[begin]:
        begin += 1
    one, two = name[begin:], other[begin:]
    if one[1:] == two[1:]:
        is_serial = (one[:1] + two[:1]).isdigit()
        return ONE_DIGIT if is_serial else ONE_CHARACTER
    if one[1:] == two or one == two[1:]:
        return ONE_CHARACTER
    if one[:2] == two[1::-1] and one[2:] == two[2:]:
        return SWAPPED_DIGITS if one[:2].isdigit() else SWAPPED
    return None


def _compare(
    subject: _Subject, entry: _Entry, shared: tuple[int, str], zone: tzinfo
) -> tuple[int, str]:
    """Return how well an item fits, 0 for not at all, and why it does."""
    points, name = shared
    fit, amount = _compare_amounts(subject, entry)
    if subject.is_two_sided:
        return (fit, f"{amount}, {_apart(subject.at, entry.at, zone)}") if fit == EQUAL else NOTHING
    if _normal(entry.counterparty) in subject.counterparties:
        is_comparable = 2 * abs(entry.amount - subject.amount) <= abs(subject.amount)
        if points or fit or is_comparable:
            points, name = points + 3, f"{name}, same counterparty" if name else "same counterparty"
    if not points and (not fit or (fit == CLOSE and abs(entry.at - subject.at) > NEAR)):
        return NOTHING
    # Numbers of one series differ by one digit, or have two swapped, without meaning anything.
    if shared in (ONE_DIGIT, SWAPPED_DIGITS) and not fit:
        return NOTHING
    reasons = (name, amount, _apart(subject.at, entry.at, zone))
    return points + fit, ", ".join(filter(None, reasons))


def _compare_amounts(subject: _Subject, entry: _Entry) -> tuple[int, str]:
    """Return how well the amount of an item fits, and in words."""
    difference = abs(entry.amount - subject.amount)
    fee = subject.fees or entry.fee
    if not difference:
        if subject.is_two_sided:
            return EQUAL, f"its amount is the difference of {plain(abs(subject.amount))}"
        return EQUAL, "same amount"
    if fee and entry.amount + entry.fee == subject.amount + subject.fees:
        return BEFORE_FEES, f"same amount before the fee of {plain(fee)}"
    if entry.amount == -subject.amount:
        return OPPOSITE, "same amount in the opposite direction"
    words = f"differs by {plain(difference)}"
    return (CLOSE if difference <= CLOSE_SHARE * abs(subject.amount) else 0), words


def _apart(one: datetime, other: datetime, zone: tzinfo) -> str:
    days = abs((one.astimezone(zone).date() - other.astimezone(zone).date()).days)
    if not days:
        return "same day"
    return "1 day apart" if days == 1 else f"{days} days apart"


def _candidate(entry: _Entry, reason: str) -> Candidate:
    return Candidate(
        entry.item, entry.side, entry.at, entry.amount, entry.counterparty, entry.description,
        reason,
    )  # fmt: skip
