"""Match statement lines with movements of the ledger: which of them are the same thing.

Pure, deterministic and exact; an item is in one group at most. MATCHING_RULES lists the rules in
the order in which they are tried. Items that fit several others make an AMBIGUOUS group; nothing
is guessed. The order in which lines and movements are given changes nothing.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeAlias, TypeVar

from ledger.config.reconciliation import GroupRule, Rules
from ledger.reconciliation.classification import Classifier
from ledger.reconciliation.items import (
    AMBIGUOUS,
    AMOUNT,
    DatedAmount,
    Group,
    LedgerMovement,
    ManualMatch,
    Period,
    StatementItem,
    first_leg_within,
    ledger_amounts,
    sum_of,
)

T = TypeVar("T")
K = TypeVar("K")


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
    groups: list[Group] = field(default_factory=list)
    classifier: Classifier = field(init=False)

    def __post_init__(self) -> None:
        self.classifier = Classifier(self.period, self.rules.settlement)

    @classmethod
    def of(
        cls,
        period: Period,
        rules: Rules,
        lines: Iterable[StatementItem],
        movements: Iterable[LedgerMovement],
        manual: Iterable[ManualMatch] = (),
    ) -> Matching:
        """Take lines, movements and manual matches in any order."""
        return cls(
            period,
            rules,
            {line.key: line for line in sorted(lines, key=lambda line: (line.at, line.id))},
            {m.key: m for m in sorted(movements, key=lambda m: (m.legs[0][0], m.kind, m.id))},
            sorted(manual, key=lambda match: match.position),
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
                del self.movements[movement.key]

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


MatchingRule: TypeAlias = Callable[[Matching], None]


def match_by_hand(matching: Matching) -> None:
    """Group what operators matched, unless an earlier decision has one of the items."""
    for decision in matching.manual:
        if not all(key in matching.lines or key in matching.movements for key in decision.keys):
            continue
        lines = [matching.lines[key] for key in decision.keys if key in matching.lines]
        movements = [matching.movements[key] for key in decision.keys if key in matching.movements]
        group = matching.classifier.group_if_equal(decision.anchor, "hand", lines, movements)
        if group is None:
            legs = (leg for movement in movements for leg in movement.legs)
            amounts = ledger_amounts(legs, matching.period)
            detail = "matched by hand, but the amounts differ now"
            items = tuple(lines), tuple(movements)
            group = Group(decision.anchor, "hand", AMOUNT, *items, *amounts, detail)
        matching.add([group])


def match_by_contract_id(matching: Matching) -> None:
    """Group all lines that name a contract with the movements of that transaction."""
    movements = group_by(matching.movements.values(), lambda movement: movement.id)
    for contract, lines in named(matching.lines.values(), lambda line: line.contract):
        if contract in movements:
            anchor = f"contract:{contract}"
            matching.add(
                matching.classifier.classify(anchor, "contract", lines, movements[contract])
            )


def match_by_idempotency_id(matching: Matching) -> None:
    """Group by the idempotency id that a line and a transaction share."""

    def names(movement: LedgerMovement) -> tuple[str, ...]:
        return (movement.idempotency,) if movement.idempotency else ()

    _match_by_name(matching, "idempotency", lambda line: line.idempotency, names)


def match_by_reference(matching: Matching) -> None:
    """Group by end-to-end reference or transaction hash; a declared group may share one."""
    _match_by_name(matching, "reference", lambda line: line.reference, lambda m: m.references)


def match_by_amount(matching: Matching) -> None:
    """Group a line without an id with the one transaction of its amount in its time window."""
    lines = group_by(
        [
            line
            for line in matching.lines.values()
            if line.contract is None and line.idempotency is None
        ],
        lambda line: line.amount,
    )
    movements = group_by(matching.movements.values(), net_amount)
    for amount in sorted(lines.keys() & movements.keys()):
        for near, candidates in _within_window(matching, lines[amount], movements[amount]):
            if len(near) == 1 and len(candidates) == 1:
                matching.add_if_equal(near[0].key, "amount", near, candidates)
            else:
                ids = "|".join(sorted(line.id for line in near))
                anchor = f"equal:{hashlib.sha256(ids.encode()).hexdigest()[:16]}"
                matching.add([_ambiguous(matching, anchor, "amount", near, candidates)])


def match_by_day(matching: Matching) -> None:
    """Group the one line of a day with all transactions of that day, as declared."""
    for rule in matching.rules.groups:
        if rule.by == "day":
            _match_days(matching, rule)


MATCHING_RULES: Final[tuple[MatchingRule, ...]] = (
    match_by_hand,
    match_by_contract_id,
    match_by_idempotency_id,
    match_by_reference,
    match_by_amount,
    match_by_day,
)
"""The rules in their order: the first that groups an item decides about it."""


def _match_by_name(
    matching: Matching,
    rule: str,
    name_of_line: Callable[[StatementItem], str | None],
    names_of_movement: Callable[[LedgerMovement], Sequence[str]],
) -> None:
    """Group by a name that lines and movements may share."""
    movements: dict[str, list[LedgerMovement]] = defaultdict(list)
    for movement in matching.movements.values():
        for name in names_of_movement(movement):
            movements[name].append(movement)
    for name, lines in named(matching.lines.values(), name_of_line):
        free = [each for each in movements.get(name, ()) if each.key in matching.movements]
        if free:
            matching.add(_same_name(matching, rule, name, lines, free))


def _same_name(
    matching: Matching,
    rule: str,
    name: str,
    lines: Sequence[StatementItem],
    movements: Sequence[LedgerMovement],
) -> list[Group]:
    anchor = f"{rule}:{name}"
    group = None
    if len(movements) == 1:
        group = matching.classifier.group_if_equal(anchor, rule, lines, movements)
    elif rule == "reference":
        group = _declared_group(matching, anchor, lines, movements)
    if group is not None:
        return [group]
    # A line that names another contract is about that one, whatever else it has in common.
    free = [line for line in lines if line.contract is None]
    if not free:
        return []
    if len(movements) == 1:
        return matching.classifier.classify(anchor, rule, free, movements)
    return [_ambiguous(matching, anchor, rule, free, movements)]


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
    legs = [leg for movement in movements for leg in legs_within(movement, matching.period)]
    detail = f"{len(lines)} lines and {len(movements)} transactions fit each other"
    amounts = ledger_amounts(legs, matching.period)
    return Group(anchor, rule, AMBIGUOUS, tuple(lines), tuple(movements), *amounts, detail)


def _within_window(
    matching: Matching, lines: Sequence[StatementItem], movements: Sequence[LedgerMovement]
) -> Iterator[tuple[list[StatementItem], list[LedgerMovement]]]:
    """Yield the lines and movements that the window of time connects; both are oldest first."""
    window = matching.rules.window
    times = [line.at for line in lines]
    near: tuple[list[StatementItem], list[LedgerMovement]] = ([], [])
    end = 0  # lines before this index are in `near`, or too old for any further movement
    for movement in movements:
        at = movement.legs[0][0]
        low, high = bisect_left(times, at - window), bisect_right(times, at + window)
        if low == high:
            continue
        if low >= end and near[1]:
            yield near
            near = ([], [])
        near[0].extend(lines[max(low, end) : high])
        near[1].append(movement)
        end = max(end, high)
    if near[1]:
        yield near


def _match_days(matching: Matching, rule: GroupRule) -> None:
    offset = matching.rules.utc_offset
    movements = group_by(
        [each for each in matching.movements.values() if each.kind in rule.kinds],
        lambda movement: (movement.legs[0][0] + offset).date(),
    )
    lines = group_by(
        [line for line in matching.lines.values() if line.kind == rule.line],
        lambda line: (line.at + offset).date(),
    )
    for day in sorted(lines.keys() & movements.keys()):
        if len(lines[day]) == 1:
            anchor = f"group:{rule.line}:{day.isoformat()}"
            matching.add_if_equal(anchor, "group", lines[day], movements[day])


def legs_within(movement: LedgerMovement, period: Period) -> Sequence[DatedAmount]:
    """Return the legs of a movement from the first one on that the statement can show."""
    return movement.legs[first_leg_within(movement.legs, period.opened_at) :]


def net_amount(movement: LedgerMovement) -> Decimal:
    """Return what a movement did to the wallet in all."""
    return sum_of(amount for _, amount in movement.legs)


def named(
    lines: Iterable[StatementItem], name: Callable[[StatementItem], str | None]
) -> list[tuple[str, list[StatementItem]]]:
    """Group the lines that have a name by it, sorted by name."""
    groups: dict[str, list[StatementItem]] = defaultdict(list)
    for line in lines:
        key = name(line)
        if key:
            groups[key].append(line)
    return sorted(groups.items())


def group_by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Group items by a key, in their order."""
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)
