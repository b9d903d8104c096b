"""Judging lines and movements that name each other: equal, on their way, or how they differ."""

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
    Frame,
    Group,
    LedgerMovement,
    StatementItem,
    added,
    first_within,
    ledger_amounts,
)


@dataclass(frozen=True, slots=True)
class Classifier:
    """Says what lines and movements mean that belong together beyond doubt."""

    frame: Frame
    settlement: timedelta

    def judge(
        self,
        anchor: str,
        rule: str,
        lines: Sequence[StatementItem],
        moves: Sequence[LedgerMovement],
    ) -> list[Group]:
        """Return the group that they make, or two when some lines are copies of others."""
        found = self.equal(anchor, rule, lines, moves)
        if found is not None:
            return [found]
        legs = self._legs(moves)
        kept = tuple(legs[first_within(legs, self.frame.opened) :])
        due = ledger_amounts(kept, self.frame)
        told, want = added(line.amount for line in lines), added(amount for _, amount in kept)
        behind = self._behind(kept, told)
        if behind is not None:
            verdict, detail = behind
            return [Group(anchor, rule, verdict, tuple(lines), tuple(moves), *due, detail)]
        copies = _copies(lines, told, want)
        if copies:
            rest = tuple(line for line in lines if line not in copies)
            detail = f"the statement repeats a line of {anchor}"
            return [
                Group(anchor, rule, MATCHED, rest, tuple(moves), *due),
                *(Group(line.key, rule, DUPLICATE_PROVIDER, (line,), (), ZERO, ZERO, detail)
                  for line in copies),
            ]  # fmt: skip
        fee = added(move.fee for move in moves)
        verdict, detail = _difference(lines, told, want, fee)
        return [Group(anchor, rule, verdict, tuple(lines), tuple(moves), *due, detail)]

    def equal(
        self,
        anchor: str,
        rule: str,
        lines: Sequence[StatementItem],
        moves: Sequence[LedgerMovement],
    ) -> Group | None:
        """Return the group when the amounts are equal, else None; it is matched unless it aged."""
        told = added(line.amount for line in lines)
        legs = self._legs(moves)
        first = first_within(legs, self.frame.opened)
        for start in (first, 0) if first else (0,):
            kept = legs[start:]
            if added(amount for _, amount in kept) == told:
                due = ledger_amounts(kept, self.frame)
                verdict, detail = self._across(lines, kept) if due[0] != told else (MATCHED, "")
                return Group(anchor, rule, verdict, tuple(lines), tuple(moves), *due, detail)
        return None

    def _across(
        self, lines: Sequence[StatementItem], legs: Sequence[DatedAmount]
    ) -> tuple[str, str]:
        """Tell what equal amounts on both sides of the cut-off are: in transit until they age."""
        cutoff = self.frame.cutoff
        seen = [line.at for line in lines] or [at for at, _ in legs if at < cutoff]
        if max(seen, default=cutoff) >= cutoff - self.settlement:
            return MATCHED, ""
        late = max(at for at, _ in legs)
        return STATUS, f"the amounts agree, but the books date it at {late.isoformat()}"

    def _legs(self, moves: Sequence[LedgerMovement]) -> tuple[DatedAmount, ...]:
        if len(moves) == 1:
            return moves[0].legs
        return tuple(sorted(leg for move in moves for leg in move.legs))

    def _behind(self, legs: Sequence[DatedAmount], told: Decimal) -> tuple[str, str] | None:
        """Tell that the statement shows the earlier part of what the books know."""
        since = self.frame.cutoff - self.settlement
        running = ZERO
        for place, (_, amount) in enumerate(legs[:-1], 1):
            running += amount
            if running != told:
                continue
            at = legs[place][0]
            if at >= since:
                return TIMING, f"the statement does not show yet what happened at {at.isoformat()}"
            return STATUS, f"the statement does not show what happened at {at.isoformat()}"
        return None


def _copies(lines: Sequence[StatementItem], told: Decimal, want: Decimal) -> list[StatementItem]:
    """Return the lines without which the rest is right, when they repeat one that stays."""
    seen: set[tuple[str, Decimal]] = set()
    again: list[StatementItem] = []
    for line in sorted(lines, key=lambda line: (line.at, line.id)):
        look = (line.kind, line.amount)
        if look in seen:
            again.append(line)
        seen.add(look)
    if not again:
        return []
    if told - added(line.amount for line in again) == want:
        return again
    return next(([line] for line in again if told - line.amount == want), [])


def _difference(
    lines: Sequence[StatementItem], told: Decimal, want: Decimal, fee: Decimal
) -> tuple[str, str]:
    """Name the way in which the amounts differ."""
    for line in lines:
        if line.amount and told - 2 * line.amount == want:
            return DIRECTION, f"line {line.id} goes the other way"
    fees = added(line.amount for line in lines if is_fee(line))
    if told - fees == want + fee:
        return FEE, f"the statement charges {plain(-fees)}, the books {plain(fee)}"
    if fee and told == fees == -fee:
        return MISSING_AT_PROVIDER, "the statement has nothing but the fee"
    for line in lines:
        if line.amount in (-want, -(want + fee)) and told - line.amount in (want, want + fee):
            return STATUS, f"line {line.id} takes back what stands in the books"
    return AMOUNT, f"the statement says {plain(told)}, the books {plain(want)}"


def is_fee(line: StatementItem) -> bool:
    """Tell a fee's row by its kind (StraitsX docs, account statement: `Fee`)."""
    return "fee" in line.kind.casefold()
