"""Classify the lines and movements that no matching rule grouped. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

from ledger.model import changed
from ledger.reconciliation.items import (
    CONFLICT,
    CURRENCY,
    DUPLICATE_INTERNAL,
    MISSING_AT_PROVIDER,
    MISSING_IN_LEDGER,
    STATUS,
    TIMING,
    ZERO,
    Group,
    KnownTransaction,
    LedgerMovement,
    StatementItem,
    first_leg_within,
    ledger_amounts,
)
from ledger.reconciliation.matching import Matching, group_by

Identity: TypeAlias = tuple[str, str | None, Decimal]
"""Kind, idempotency id and net amount of a movement."""


def add_unmatched(matching: Matching, elsewhere: Mapping[str, str]) -> list[Group]:
    """Classify the items that are still free; return all groups, sorted by anchor.

    `elsewhere` names the other currency whose statement has a free movement's transaction, by id.
    """
    matched = {_identity(m) for group in matching.groups for m in group.movements}
    by_anchor: dict[str, list[StatementItem]] = defaultdict(list)
    for line in matching.lines.values():
        known = matching.known_transaction(line)
        contract = line.contract if known is None else known.id
        by_anchor[line.key if contract is None else f"contract:{contract}"].append(line)
    for anchor, lines in sorted(by_anchor.items()):
        _add_lines(matching, anchor, lines, matching.known_transaction(lines[0]))
    movements = group_by(matching.movements.values(), lambda movement: movement.id)
    for contract, same in sorted(movements.items()):
        _add_movements(matching, same, matched, elsewhere.get(contract))
    return _with_own_anchors(matching.groups)


def _add_lines(
    matching: Matching,
    anchor: str,
    lines: Sequence[StatementItem],
    known: KnownTransaction | None,
) -> None:
    classification, detail = _classify_lines(known)
    last = max(line.at for line in lines)
    is_recent = matching.rules.is_recent(last, matching.period.cutoff)
    if is_recent and classification in (MISSING_IN_LEDGER, STATUS):
        classification = TIMING
    matching.add([Group(anchor, "none", classification, tuple(lines), (), ZERO, ZERO, detail)])


def _classify_lines(known: KnownTransaction | None) -> tuple[str, str]:
    if known is None:
        return MISSING_IN_LEDGER, "the books have no such transaction"
    if known.currency is not None:
        return CURRENCY, f"the books moved {known.currency} for it"
    classification = CONFLICT if known.status == "conflict" else STATUS
    return classification, f"the books hold this {known.kind} as {known.status}"


def _add_movements(
    matching: Matching,
    movements: Sequence[LedgerMovement],
    matched: set[Identity],
    other_currency: str | None,
) -> None:
    """Classify the movements of one transaction; drop those outside the statement's period."""
    period = matching.period
    shown = [
        leg
        for movement in movements
        for leg in movement.legs[first_leg_within(movement.legs, period.opened_at) :]
        if period.opened_at <= leg[0] < period.cutoff
    ]
    if not shown:
        for movement in movements:
            del matching.movements[movement.key]
        return
    first = movements[0]
    classification, detail = MISSING_AT_PROVIDER, "the statement has no line for it"
    if other_currency is not None:
        classification, detail = CURRENCY, f"the statement of {other_currency} has it"
    elif first.idempotency and _identity(first) in matched:
        classification = DUPLICATE_INTERNAL
        detail = "another transaction with its idempotency id and amount is on the statement"
    elif matching.rules.is_recent(min(shown)[0], period.cutoff):
        classification, detail = TIMING, "not on the statement yet"
    anchor, amounts = f"contract:{first.id}", ledger_amounts(shown, period)
    matching.add([Group(anchor, "none", classification, (), tuple(movements), *amounts, detail)])


def _identity(movement: LedgerMovement) -> Identity:
    return movement.kind, movement.idempotency, movement.net


def _with_own_anchors(groups: Sequence[Group]) -> list[Group]:
    """Sort groups by anchor and give each its own; of equal ones a manual match keeps it."""
    result: list[Group] = []
    taken: set[str] = set()
    for group in sorted(groups, key=lambda g: (g.anchor, g.rule != "hand", g.keys)):
        if group.anchor in taken:
            group = changed(group, anchor=f"{group.anchor}#{group.keys[0]}")
        taken.add(group.anchor)
        result.append(group)
    return result
