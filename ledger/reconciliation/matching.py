"""Match statement lines with movements of the ledger: which of them are the same thing.

Pure, deterministic and exact; an item is in one group at most. MATCHING_RULES lists the rules in
the order in which they are tried. Items that fit several others make an AMBIGUOUS group; nothing
is guessed. The order in which lines and movements are given changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final, TypeAlias, TypeVar

from ledger.config.reconciliation import GroupRule, Rules
from ledger.reconciliation.classification import Classifier, is_fee, is_of_bank
from ledger.reconciliation.items import (
    AMBIGUOUS,
    AMOUNT,
    Group,
    KnownTransaction,
    LedgerMovement,
    ManualMatch,
    Period,
    StatementItem,
    first_leg_within,
    ledger_amounts,
    sum_of,
)
from ledger.reconciliation.names import NameIndex, contradicts

T = TypeVar("T")
K = TypeVar("K")
Items: TypeAlias = tuple[list[StatementItem], list[LedgerMovement]]


@dataclass(slots=True)
class Matching:
    """The lines and movements of one currency that are in no group yet, and the groups made."""

    period: Period
    rules: Rules
    lines: dict[str, StatementItem]
    """Free lines by key, oldest first."""
    movements: dict[str, LedgerMovement]
    """Free movements by key, oldest first."""
    manual: Sequence[ManualMatch] = ()
    """What operators matched, oldest first."""
    known: Mapping[str, KnownTransaction] = field(default_factory=dict)
    """Name on a line → the transaction of that name, which moved nothing in this currency."""
    names: NameIndex = field(default_factory=lambda: NameIndex(()))
    """The movements, free or not, by name."""
    groups: list[Group] = field(default_factory=list)
    classifier: Classifier = field(init=False)

    def __post_init__(self) -> None:
        self.classifier = Classifier(self.period, self.rules)

    @classmethod
    def of(
        cls,
        period: Period,
        rules: Rules,
        lines: Iterable[StatementItem],
        movements: Iterable[LedgerMovement],
        manual: Iterable[ManualMatch] = (),
        known: Mapping[str, KnownTransaction] | None = None,
        names: NameIndex | None = None,
    ) -> Matching:
        """Take lines, movements and manual matches in any order; `names` is of the movements."""
        movements = [*movements]
        return cls(
            period,
            rules,
            {line.key: line for line in sorted(lines, key=lambda line: (line.at, line.id))},
            {m.key: m for m in sorted(movements, key=lambda m: (m.legs[0][0], m.kind, m.id))},
            sorted(manual, key=lambda match: match.position),
            known or {},
            names or NameIndex(movements, rules),
        )

    def match(self) -> None:
        """Apply every rule to the items that the rules before it left."""
        for rule in MATCHING_RULES:
            rule(self)

    def add(self, groups: Iterable[Group]) -> None:
        """Keep groups; their items are not free any more."""
        for group in groups:
            self.groups.append(group)
            for line in group.lines:
                del self.lines[line.key]
            for movement in group.movements:
                self.movements.pop(movement.key, None)  # two groups may have a part of it each

    def add_if_equal(
        self,
        anchor: str,
        rule: str,
        lines: Sequence[StatementItem],
        movements: Sequence[LedgerMovement],
    ) -> None:
        """Group items when their amounts are equal."""
        group = self.classifier.group_if_equal(anchor, rule, lines, movements)
        if group is not None:
            self.add([group])

    def known_transaction(self, line: StatementItem) -> KnownTransaction | None:
        """Return the transaction that a line names and that moved nothing in this currency."""
        if line.contract is not None:
            return self.known.get(line.contract)
        named = (self.known[name] for name in line.all_names if name in self.known)
        return next(named, None)

    def is_nameless(self, line: StatementItem) -> bool:
        """Tell whether the books know no transaction by any name of a line.

        A contract is the provider's own id: a line that names one is never about another one.
        """
        if line.contract is not None or self.known_transaction(line) is not None:
            return False
        return not self.names.named_by(line).is_known


MatchingRule: TypeAlias = Callable[[Matching], None]


def match_by_hand(matching: Matching) -> None:
    """Group what operators matched, unless an earlier decision has one of the items."""
    for decision in matching.manual:
        if not all(key in matching.lines or key in matching.movements for key in decision.keys):
            continue
        lines = [matching.lines[key] for key in decision.keys if key in matching.lines]
        movements = [matching.movements[key] for key in decision.keys if key in matching.movements]
        group = matching.classifier.group_if_equal(
            decision.anchor, "hand", lines, movements, in_total=True
        )
        if group is None:
            legs = (leg for movement in movements for leg in movement.legs)
            amounts = ledger_amounts(legs, matching.period)
            detail = "matched by hand, but the amounts differ now"
            items = tuple(lines), tuple(movements)
            group = Group(decision.anchor, "hand", AMOUNT, *items, *amounts, detail)
        matching.add([group])


def match_by_name(matching: Matching) -> None:
    """Group lines with the transactions that they name: contract, idempotency id, or another name.

    All lines that name a transaction belong to it, and all transactions that a line names to the
    line. A line that names a contract names nothing else, whatever it has in common with others.
    """
    connected = _connected(matching)
    fees = _fee_rows_beside(matching, connected)
    for place, (lines, named) in enumerate(connected):
        movements = sorted({m.key: m for _, m in named}.values(), key=lambda m: (m.kind, m.id))
        rule, anchor = _called(lines, named)
        with_fee = [*lines, *fees.get(place, ())]
        matching.add(matching.classifier.classify(anchor, rule, with_fee, movements))


def match_by_shared_name(matching: Matching) -> None:
    """Group lines with transactions that have one name in common: by sign, then by amount.

    What several transactions share is an id that was used again, a virtual account's reference, the
    id of a payout and of what the bank sent back of it; a declared group may share one as well.
    """
    sharing: dict[str, list[StatementItem]] = defaultdict(list)
    for line in matching.lines.values():
        if line.contract is None:
            for name in matching.names.named_by(line).shared[:1]:
                sharing[name].append(line)
    for name, lines in sorted(sharing.items()):
        free = [m for m in matching.names.having(name) if m.key in matching.movements]
        if free:
            free.sort(key=lambda m: (m.legs[0][0], m.kind, m.id))
            _match_shared(matching, name, lines, free)


def match_by_amount(matching: Matching) -> None:
    """Group a line without a known name with the one transaction of its amount in its time window.

    Of several it is the one of the line's day, where that day has no other line or transaction of
    the amount. Names that are two numbers of one series are not the same thing. The amount is the
    net one, or the one before the fee; a fee row, interest and taxes fit no transaction.
    """
    nameless = [line for line in matching.lines.values() if matching.is_nameless(line)]
    lines = [line for line in nameless if not is_of_bank(line)]
    fee_rows = group_by(
        [line for line in nameless if is_fee(line)], lambda line: (line.amount, line.at)
    )
    for near, candidates in _alike(matching, lines, matching.movements.values()):
        pairs = _pairs(matching, near, candidates)
        for line, movement in pairs:
            rows = fee_rows.get((-movement.fee, line.at), [])
            is_gross = movement.fee and line.amount == movement.gross
            with_fee = [line, *(rows[:1] if is_gross else [])]
            del rows[: len(with_fee) - 1]
            matching.add(matching.classifier.classify(line.key, "amount", with_fee, [movement]))
        for some, others in _left(matching, near, candidates, pairs):
            ids = "|".join(sorted(line.id for line in some))
            anchor = f"equal:{hashlib.sha256(ids.encode()).hexdigest()[:16]}"
            matching.add([_ambiguous(matching, anchor, "amount", some, others)])


def match_by_day(matching: Matching) -> None:
    """Group the one line of a day with all transactions of that day, as declared."""
    for rule in matching.rules.groups:
        if rule.by == "day":
            _match_days(matching, rule)


MATCHING_RULES: Final[tuple[MatchingRule, ...]] = (
    match_by_hand,
    match_by_name,
    match_by_shared_name,
    match_by_amount,
    match_by_day,
)
"""The rules in their order: the first that groups an item decides about it."""

Names: TypeAlias = list[tuple[str, LedgerMovement]]
"""Names by which lines name movements."""


def _connected(matching: Matching) -> list[tuple[list[StatementItem], Names]]:
    """Return the lines and movements that names connect, in the order of their oldest lines."""
    components = Components()
    named: list[tuple[StatementItem, Names]] = []
    for line in matching.lines.values():
        found = [(name, m) for name, m in _named_by(matching, line) if m.key in matching.movements]
        if found:
            named.append((line, found))
            components.connect([movement.key for _, movement in found])
    groups: dict[str, tuple[list[StatementItem], Names]] = {}
    for line, found in named:
        lines, names = groups.setdefault(components.root(found[0][1].key), ([], []))
        lines.append(line)
        names += found
    return [*groups.values()]


def _fee_rows_beside(
    matching: Matching, connected: Sequence[tuple[list[StatementItem], Names]]
) -> dict[int, list[StatementItem]]:
    """Return the fee row without a known name that belongs to what names connect, by its place.

    It has the time of the lines, and it is the fee of one of the transactions, or at a time of day
    the only such row beside the only such lines. So a line is not taken for net of its fee.
    """
    rows = group_by(
        [line for line in matching.lines.values() if is_fee(line) and matching.is_nameless(line)],
        lambda line: line.at,
    )
    places: dict[datetime, list[int]] = defaultdict(list)
    for place, (lines, named) in enumerate(connected) if rows else ():
        if lines[0].at in rows and not any(map(is_fee, lines)) and any(m.fee for _, m in named):
            places[lines[0].at].append(place)
    found: dict[int, list[StatementItem]] = {}
    for at, beside in places.items():
        by_amount = group_by(rows[at], lambda line: line.amount)
        for place in beside:
            lines, named = connected[place]
            movements = {m.key: m for _, m in named}.values()
            fee, gross = sum_of(m.fee for m in movements), sum_of(m.gross for m in movements)
            same = by_amount.get(-fee)
            if same and sum_of(line.amount for line in lines) == gross:
                found[place] = [same.pop(0)]
        is_only = len(rows[at]) == len(beside) == 1 and not found.get(beside[0])
        if is_only and matching.rules.calendar.stated_day(at) is None:
            found[beside[0]] = rows[at]
    return found


def _named_by(matching: Matching, line: StatementItem) -> Sequence[tuple[str, LedgerMovement]]:
    if line.contract is None:
        return matching.names.named_by(line).own
    same = matching.names.having(line.contract)
    return [(line.contract, movement) for movement in same if movement.id == line.contract]


def _called(lines: Sequence[StatementItem], named: Names) -> tuple[str, str]:
    """Return the rule that connects items, and the anchor of their group."""
    if len({movement.id for _, movement in named}) > 1:
        first = min(lines, key=lambda line: (line.at, line.id))
        return "batch", f"batch:{first.id}"
    ranked = []
    for name, movement in named:
        if name == movement.id:
            ranked.append((0, "contract", name))
        elif name == movement.idempotency:
            ranked.append((1, "idempotency", name))
        else:
            ranked.append((2, "reference", name))
    _, rule, name = min(ranked)
    return rule, f"{rule}:{name}"


def _match_shared(
    matching: Matching,
    name: str,
    lines: Sequence[StatementItem],
    movements: Sequence[LedgerMovement],
) -> None:
    is_idempotency = any(movement.idempotency == name for movement in movements)
    rule = "idempotency" if is_idempotency else "reference"
    anchor = f"{rule}:{name}"
    declared = _declared_group(matching, anchor, lines, movements)
    if declared is not None:
        matching.add([declared])
        return
    for sign in (1, -1):
        side = [line for line in lines if line.amount * sign > 0]
        others = [m for m in movements if m.net * sign > 0]
        if len(others) > 1:
            for near, candidates in [*_alike(matching, side, others)]:
                for line, movement in _pairs(matching, near, candidates):
                    matching.add(matching.classifier.classify(line.key, rule, [line], [movement]))
        side = [line for line in side if line.key in matching.lines]
        others = [m for m in others if m.key in matching.movements]
        if side and len(others) == 1:
            matching.add(matching.classifier.classify(anchor, rule, side, others))
        elif side and others:
            matching.add([_ambiguous(matching, anchor, rule, side, others)])


def _declared_group(
    matching: Matching,
    anchor: str,
    lines: Sequence[StatementItem],
    movements: Sequence[LedgerMovement],
) -> Group | None:
    for rule in matching.rules.groups:
        fits = all(line.kind == rule.line for line in lines)
        if rule.by == "reference" and fits and all(m.kind in rule.kinds for m in movements):
            return matching.classifier.group_if_equal(anchor, "group", lines, movements)
    return None


def _ambiguous(
    matching: Matching,
    anchor: str,
    rule: str,
    lines: Sequence[StatementItem],
    movements: Sequence[LedgerMovement],
) -> Group:
    opened_at = matching.period.opened_at
    legs = [
        leg
        for movement in movements
        for leg in movement.legs[first_leg_within(movement.legs, opened_at) :]
    ]
    detail = f"{len(lines)} lines and {len(movements)} transactions fit each other"
    amounts = ledger_amounts(legs, matching.period)
    return Group(anchor, rule, AMBIGUOUS, tuple(lines), tuple(movements), *amounts, detail)


def _alike(
    matching: Matching, lines: Iterable[StatementItem], movements: Iterable[LedgerMovement]
) -> list[Items]:
    """Return the lines and movements that equal amounts within the time window connect."""
    lines_by_amount = group_by(lines, lambda line: line.amount)
    movements_by_amount: dict[Decimal, list[LedgerMovement]] = defaultdict(list)
    for movement in movements:
        for amount in {movement.net, movement.gross} if movement.fee else (movement.net,):
            if amount in lines_by_amount:
                movements_by_amount[amount].append(movement)
    components = Components()
    found: list[Items] = []
    for amount, candidates in sorted(movements_by_amount.items()):
        for items in _within_window(matching, lines_by_amount[amount], candidates):
            found.append(items)
            components.connect([movement.key for movement in items[1]])
    groups: dict[str, tuple[list[StatementItem], dict[str, LedgerMovement]]] = {}
    for near, candidates in found:
        group = groups.setdefault(components.root(candidates[0].key), ([], {}))
        group[0].extend(near)
        group[1].update((movement.key, movement) for movement in candidates)
    return [(near, [*movements.values()]) for near, movements in groups.values()]


def _pairs(
    matching: Matching, lines: Sequence[StatementItem], movements: Sequence[LedgerMovement]
) -> list[tuple[StatementItem, LedgerMovement]]:
    """Return the pairs of lines and movements of equal amounts that leave no choice.

    They are the only two, or the only two of their day.
    """
    if len(lines) == len(movements) == 1:
        return [] if contradicts(lines[0], movements[0]) else [(lines[0], movements[0])]
    calendar = matching.rules.calendar
    lines_of = group_by(
        lines, lambda line: (calendar.stated_day(line.at) or calendar.day_of(line.at), line.amount)
    )
    movements_of: dict[tuple[date, Decimal], list[LedgerMovement]] = defaultdict(list)
    for movement in movements:
        for amount in {movement.net, movement.gross}:
            movements_of[calendar.day_of(movement.legs[0][0]), amount].append(movement)
    pairs = []
    for (day, amount), same in sorted(lines_of.items()):
        found = movements_of[day, amount]
        if len(same) == len(found) == 1 and not contradicts(same[0], found[0]):
            others = {found[0].net, found[0].gross} - {amount}
            if not any((day, other) in lines_of for other in others):
                pairs.append((same[0], found[0]))
    return pairs


def _left(
    matching: Matching,
    lines: Sequence[StatementItem],
    movements: Sequence[LedgerMovement],
    pairs: Sequence[tuple[StatementItem, LedgerMovement]],
) -> list[Items]:
    """Return what still fits each other when the pairs are taken out."""
    some = [line for line in lines if line.key in matching.lines]
    others = [movement for movement in movements if movement.key in matching.movements]
    if len(lines) == len(movements) == 1:
        return []
    return _alike(matching, some, others) if pairs else [(some, others)]


def _within_window(
    matching: Matching, lines: Sequence[StatementItem], movements: Sequence[LedgerMovement]
) -> Iterator[Items]:
    """Yield the lines and movements that the window of time connects."""
    calendar, window = matching.rules.calendar, matching.rules.window
    spans = [(*calendar.span_of(line.at), line.key, line) for line in lines]
    reaches = sorted((low - window, high + window, key, line) for low, high, key, line in spans)
    times = sorted((calendar.business_time(m.legs[0][0]), m.key, m) for m in movements)
    near: Items = ([], [])
    end = timedelta.min  # of the reach of the lines in `near`
    place = 0
    for at, _, movement in times:
        if at > end and near[1]:
            yield near
            near = ([], [])
        while place < len(reaches) and reaches[place][0] <= at:
            if reaches[place][1] >= at:
                near[0].append(reaches[place][3])
                end = max(end, reaches[place][1])
            place += 1
        if at <= end:
            near[1].append(movement)
    if near[1]:
        yield near


def _match_days(matching: Matching, rule: GroupRule) -> None:
    calendar = matching.rules.calendar
    movements = group_by(
        [each for each in matching.movements.values() if each.kind in rule.kinds],
        lambda movement: calendar.day_of(movement.legs[0][0]),
    )
    lines = group_by(
        [line for line in matching.lines.values() if line.kind == rule.line],
        lambda line: calendar.stated_day(line.at) or calendar.day_of(line.at),
    )
    for day in sorted(lines.keys() & movements.keys()):
        if len(lines[day]) == 1:
            anchor = f"group:{rule.line}:{day.isoformat()}"
            matching.add_if_equal(anchor, "group", lines[day], movements[day])


class Components:
    """Connected nodes, by a root of each component (union-find)."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def root(self, node: str) -> str:
        """Return the root of a node's component; a new node is its own."""
        parents = self._parents
        while (parent := parents.get(node, node)) != node:
            parents[node] = parents.get(parent, parent)
            node = parent
        return node

    def connect(self, nodes: Sequence[str]) -> None:
        """Make one component of the nodes'; its root is the smallest of their roots."""
        first = min(self.root(node) for node in nodes)
        for node in nodes:
            self._parents[self.root(node)] = first


def group_by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Group items by a key, in their order."""
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)
