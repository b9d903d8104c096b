"""Classify lines and movements that belong together: matched, in transit or a break. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from ledger.payload import plain
from ledger.reconciliation.items import (
    AMOUNT,
    DIRECTION,
    DUPLICATE_PROVIDER,
    FEE,
    MATCHED,
    MISSING_AT_PROVIDER,
    STATUS,
    TIMING,
    ZERO,
    DatedAmount,
    Group,
    LedgerMovement,
    Period,
    StatementItem,
    first_leg_within,
    ledger_amounts,
    sum_of,
)


@dataclass(frozen=True, slots=True)
class Classifier:
    """Classifies lines and movements of one period."""

    period: Period
    settlement: timedelta
    """For how long before the cut-off something may still be in transit."""

    def classify(
        self,
        anchor: str,
        rule: str,
        lines: Sequence[StatementItem],
        movements: Sequence[LedgerMovement],
    ) -> list[Group]:
        """Return the group of the items, or one group per duplicate line and one of the rest."""
        equal = self.group_if_equal(anchor, rule, lines, movements)
        if equal is not None:
            return [equal]
        legs = self._legs(movements)
        kept = tuple(legs[first_leg_within(legs, self.period.opened_at) :])
        amounts = ledger_amounts(kept, self.period)
        statement_amount = sum_of(line.amount for line in lines)
        ledger_amount = sum_of(amount for _, amount in kept)
        difference = self._not_yet_shown(kept, statement_amount)
        if difference is None:
            duplicates = _duplicates(lines, statement_amount, ledger_amount)
            if duplicates:
                detail = f"the statement repeats a line of {anchor}"
                rest = tuple(line for line in lines if line not in duplicates)
                return [
                    Group(anchor, rule, MATCHED, rest, tuple(movements), *amounts),
                    *(Group(line.key, rule, DUPLICATE_PROVIDER, (line,), (), ZERO, ZERO, detail)
                      for line in duplicates),
                ]  # fmt: skip
            fee = sum_of(movement.fee for movement in movements)
            difference = _difference(lines, statement_amount, ledger_amount, fee)
        classification, detail = difference
        return [
            Group(anchor, rule, classification, tuple(lines), tuple(movements), *amounts, detail)
        ]

    def group_if_equal(
        self,
        anchor: str,
        rule: str,
        lines: Sequence[StatementItem],
        movements: Sequence[LedgerMovement],
    ) -> Group | None:
        """Return the group of the items when their amounts are equal, else None.

        It is MATCHED, or STATUS when its two sides are too far apart in time.
        """
        statement_amount = sum_of(line.amount for line in lines)
        legs = self._legs(movements)
        first = first_leg_within(legs, self.period.opened_at)
        for start in (first, 0) if first else (0,):
            kept = legs[start:]
            if sum_of(amount for _, amount in kept) == statement_amount:
                amounts = ledger_amounts(kept, self.period)
                classification, detail = MATCHED, ""
                if amounts[0] != statement_amount:
                    classification, detail = self._across_cutoff(lines, kept)
                items = tuple(lines), tuple(movements)
                return Group(anchor, rule, classification, *items, *amounts, detail)
        return None

    def _across_cutoff(
        self, lines: Sequence[StatementItem], legs: Sequence[DatedAmount]
    ) -> tuple[str, str]:
        """Classify equal amounts on both sides of the cut-off: matched until they age."""
        cutoff = self.period.cutoff
        times = [line.at for line in lines] or [at for at, _ in legs if at < cutoff]
        if max(times, default=cutoff) >= cutoff - self.settlement:
            return MATCHED, ""
        last = max(at for at, _ in legs)
        return STATUS, f"the amounts agree, but the books date it at {last.isoformat()}"

    def _legs(self, movements: Sequence[LedgerMovement]) -> tuple[DatedAmount, ...]:
        if len(movements) == 1:
            return movements[0].legs
        return tuple(sorted(leg for movement in movements for leg in movement.legs))

    def _not_yet_shown(
        self, legs: Sequence[DatedAmount], statement_amount: Decimal
    ) -> tuple[str, str] | None:
        """Classify a statement that shows only the earlier legs; None when it does not."""
        running = ZERO
        for count, (_, amount) in enumerate(legs[:-1], 1):
            running += amount
            if running != statement_amount:
                continue
            at = legs[count][0]
            if at >= self.period.cutoff - self.settlement:
                return TIMING, f"the statement does not show yet what happened at {at.isoformat()}"
            return STATUS, f"the statement does not show what happened at {at.isoformat()}"
        return None


def _duplicates(
    lines: Sequence[StatementItem], statement_amount: Decimal, ledger_amount: Decimal
) -> list[StatementItem]:
    """Return the lines that repeat another one and without which the amounts are equal."""
    seen: set[tuple[str, Decimal]] = set()
    repeated: list[StatementItem] = []
    for line in sorted(lines, key=lambda line: (line.at, line.id)):
        content = (line.kind, line.amount)
        if content in seen:
            repeated.append(line)
        seen.add(content)
    if not repeated:
        return []
    if statement_amount - sum_of(line.amount for line in repeated) == ledger_amount:
        return repeated
    single = (line for line in repeated if statement_amount - line.amount == ledger_amount)
    return next(([line] for line in single), [])


def _difference(
    lines: Sequence[StatementItem], statement_amount: Decimal, ledger_amount: Decimal, fee: Decimal
) -> tuple[str, str]:
    """Classify how the amounts differ."""
    for line in lines:
        if line.amount and statement_amount - 2 * line.amount == ledger_amount:
            return DIRECTION, f"line {line.id} goes in the opposite direction"
    charged = sum_of(line.amount for line in lines if is_fee(line))
    if statement_amount - charged == ledger_amount + fee:
        return FEE, f"the statement charges {plain(-charged)}, the books {plain(fee)}"
    if fee and statement_amount == charged == -fee:
        return MISSING_AT_PROVIDER, "the statement has nothing but the fee"
    gross = ledger_amount + fee
    for line in lines:
        is_reversal = line.amount in (-ledger_amount, -gross)
        if is_reversal and statement_amount - line.amount in (ledger_amount, gross):
            return STATUS, f"line {line.id} reverses what the books still hold"
    return AMOUNT, f"the statement has {plain(statement_amount)}, the books {plain(ledger_amount)}"


def is_fee(line: StatementItem) -> bool:
    """Tell a fee's row by its kind (StraitsX docs, account statement: `Fee`)."""
    return "fee" in line.kind.casefold()
