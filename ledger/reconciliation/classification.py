"""Classify lines and movements that belong together: matched, in transit or a break. Pure.

Fee rows are compared with fees and the other lines with gross amounts, so that a wrong fee and a
wrong amount do not cancel out. A line without a fee row beside it may also be net of the fee.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import Final

from ledger.config.reconciliation import Rules
from ledger.model import Record, changed
from ledger.payload import plain
from ledger.reconciliation.items import (
    AMOUNT,
    DIRECTION,
    DUPLICATE_PROVIDER,
    FEE,
    MATCHED,
    MISSING_AT_PROVIDER,
    MISSING_IN_LEDGER,
    STATUS,
    TIMING,
    ZERO,
    Group,
    LedgerMovement,
    Period,
    StatementItem,
    gross_anchor,
    ledger_amounts,
    sum_of,
)

_WORDS: Final = frozenset(
    {"fee", "fees", "charge", "charges", "commission", "commissions", "frais", "spesen"}
)
_STEMS: Final = ("gebühr", "gebuehr", "entgelt")
"""Of words of German that others are put before: Kontoführungsgebühr, Buchungsentgelte."""
_CODES: Final = frozenset({"chrg", "comm", "nchg", "fchg", "schg", "ncom", "fcom", "scom"})
"""Codes of a row's kind: sub-families of camt.053 (CHRG, COMM; FEES is a word), SWIFT's types of
transaction CHG and COM after N, F or S."""
_OF_ACCOUNT: Final = frozenset(
    {"maintenance", "interest", "tax", "stamp", "levy", "zinsen", "steuer", "kosten",
     "intérêts", "agios", "intr", "taxe", "taxs", "nint", "fint", "sint"}
)  # fmt: skip
"""What a bank books of its own accord, besides fees: interest and taxes, in words or by the codes
of camt.053 and SWIFT."""
_GIVEN_BACK: Final = frozenset(
    {"refund", "refunded", "rebate", "reversal", "reversed", "waived", "waiver"}
)
AMOUNTS_SHOWN: Final = 5
"""Amounts that the detail of a break lists."""
_WORD: Final = re.compile(r"[^\W\d_]+")


class StatedParts(Record, frozen=True):
    """Lines by what they state: the fees, and everything else."""

    others: tuple[StatementItem, ...]
    fees: tuple[StatementItem, ...]
    gross: Decimal
    """The sum of `others`."""
    charged: Decimal
    """The sum of `fees`: below zero where a fee was taken."""


class DatedLeg(Record, frozen=True, order=True):
    """What movements did to the wallet at one time: the net amount, and the fee within it."""

    at: datetime
    net: Decimal
    fee: Decimal = ZERO

    @property
    def gross(self) -> Decimal:
        """The amount before the fee."""
        return self.net + self.fee if self.fee else self.net


class BookedParts(Record, frozen=True):
    """The sums of legs: gross - charged = net."""

    gross: Decimal
    charged: Decimal

    @property
    def net(self) -> Decimal:
        """What is left in the wallet."""
        return self.gross - self.charged if self.charged else self.gross


@dataclass(frozen=True, slots=True)
class Classifier:
    """Classifies lines and movements of one period."""

    period: Period
    rules: Rules

    def classify(
        self,
        anchor: str,
        rule: str,
        lines: Sequence[StatementItem],
        movements: Sequence[LedgerMovement],
    ) -> list[Group]:
        """Return the group of the items; several where duplicates or a fee are breaks of their own.

        The amounts of the groups add up to those of the items.
        """
        equal = self.group_if_equal(anchor, rule, lines, movements)
        legs = self.legs_within(_legs_of(movements))
        if equal is not None:
            return self._by_flows(equal, legs if _agrees(lines, legs) else _legs_of(movements))
        unshown = self._not_yet_shown(lines, legs)
        if unshown is not None:
            return [self._group(anchor, rule, unshown[0], lines, movements, legs, unshown[1])]
        duplicates = _duplicates(lines, legs)
        if duplicates:
            return self._with_duplicates(anchor, rule, lines, movements, legs, duplicates)
        stated = next(parted(lines))
        return self._differing(anchor, rule, stated, movements, legs)

    def group_if_equal(
        self,
        anchor: str,
        rule: str,
        lines: Sequence[StatementItem],
        movements: Sequence[LedgerMovement],
        *,
        in_total: bool = False,
    ) -> Group | None:
        """Return the group of the items when their amounts are equal, else None.

        It is MATCHED, or STATUS when its two sides are too far apart in time. `in_total` compares
        nothing but the totals, as an operator does.
        """
        legs = _legs_of(movements)
        within = self.legs_within(legs)
        for kept in (within, legs) if len(within) < len(legs) else (legs,):
            if in_total:
                is_equal = sum_of(line.amount for line in lines) == _sums(kept).net
            else:
                is_equal = _agrees(lines, kept)
            if is_equal:
                return self._matched(anchor, rule, lines, movements, kept)
        return None

    def legs_within(self, legs: Sequence[DatedLeg]) -> Sequence[DatedLeg]:
        """Return the legs from the first one on that the statement can show; else all."""
        opened_at = self.period.opened_at
        first = next((place for place, leg in enumerate(legs) if leg.at >= opened_at), 0)
        return legs[first:] if first else legs

    def _matched(
        self,
        anchor: str,
        rule: str,
        lines: Sequence[StatementItem],
        movements: Sequence[LedgerMovement],
        legs: Sequence[DatedLeg],
    ) -> Group:
        group = self._group(anchor, rule, MATCHED, lines, movements, legs)
        if not group.difference:
            return group
        # Equal amounts on both sides of the cut-off are matched until they age.
        cutoff = self.period.cutoff
        times = [line.at for line in lines] or [leg.at for leg in legs if leg.at < cutoff]
        if self.rules.is_recent(max(times, default=cutoff), cutoff):
            return group
        last = max(leg.at for leg in legs).isoformat()
        detail = f"the amounts agree, but the books date it at {last}"
        return changed(group, classification=STATUS, detail=detail)

    def _group(
        self,
        anchor: str,
        rule: str,
        classification: str,
        lines: Sequence[StatementItem],
        movements: Sequence[LedgerMovement],
        legs: Sequence[DatedLeg],
        detail: str = "",
    ) -> Group:
        amounts = ledger_amounts(((leg.at, leg.net) for leg in legs), self.period)
        items = tuple(lines), tuple(movements)
        return Group(anchor, rule, classification, *items, *amounts, detail)

    def _not_yet_shown(
        self, lines: Sequence[StatementItem], legs: Sequence[DatedLeg]
    ) -> tuple[str, str] | None:
        """Classify a statement that shows only the earlier legs; None when it does not."""
        partings = [*parted(lines)]
        gross = charged = ZERO
        for leg, later in pairwise(legs):
            gross, charged = gross + leg.gross, charged + leg.fee
            if not any(_is_stated(stated, BookedParts(gross, charged)) for stated in partings):
                continue
            at = later.at
            if self.rules.is_recent(at, self.period.cutoff):
                return TIMING, f"the statement does not show yet what happened at {at.isoformat()}"
            return STATUS, f"the statement does not show what happened at {at.isoformat()}"
        return None

    def _by_flows(self, group: Group, legs: Sequence[DatedLeg]) -> list[Group]:
        """Return a group of equal sums, or the breaks that cancel out within them."""
        if len(group.lines) == 1:
            return [group]
        books = _sums(legs)
        partings = [stated for stated in parted(group.lines) if _is_stated(stated, books)]
        for stated in partings:
            if _has_flows(stated, legs):
                swapped = _swapped(stated.others, legs)
                if swapped is None:
                    return [group]
                return [changed(group, classification=DIRECTION, detail=swapped)]
        repeated = _repeated(group.lines)
        rest = _without(group.lines, repeated)
        if repeated and _agrees(rest, legs) and _has_flows(next(parted(rest)), legs):
            return self._with_duplicates(
                group.anchor, group.rule, group.lines, group.movements, legs, repeated
            )
        surplus = _surplus(partings[0], legs)
        if surplus:
            return self._with_surplus(group, legs, surplus)
        detail = _flows_detail(partings[0], legs)
        return [changed(group, classification=AMOUNT, detail=detail)]

    def _with_surplus(
        self, group: Group, legs: Sequence[DatedLeg], surplus: Sequence[StatementItem]
    ) -> list[Group]:
        """Return what is matched, and each line of which the books have nothing."""
        rest = _without(group.lines, surplus)
        sizes = {(line.kind, line.amount) for line in rest}
        repeats = {line.amount for line in surplus if (line.kind, line.amount) in sizes}
        return [
            self._matched(group.anchor, group.rule, rest, group.movements, legs),
            *(self._surplus_line(group, line, repeats) for line in surplus),
        ]

    def _surplus_line(self, group: Group, line: StatementItem, repeats: set[Decimal]) -> Group:
        if line.amount in repeats or -line.amount in repeats:
            kind, detail = DUPLICATE_PROVIDER, f"the statement repeats a line of {group.anchor}"
            if line.amount not in repeats:
                detail = f"the statement takes back a repeated line of {group.anchor}"
        else:
            is_recent = self.rules.is_recent(line.at, self.period.cutoff)
            kind = TIMING if is_recent else MISSING_IN_LEDGER
            detail = f"the books have no such movement of {group.anchor}; another line cancels it"
        return Group(line.key, group.rule, kind, (line,), (), ZERO, ZERO, detail)

    def _with_duplicates(
        self,
        anchor: str,
        rule: str,
        lines: Sequence[StatementItem],
        movements: Sequence[LedgerMovement],
        legs: Sequence[DatedLeg],
        duplicates: Sequence[StatementItem],
    ) -> list[Group]:
        rest = _without(lines, duplicates)
        detail = f"the statement repeats a line of {anchor}"
        return [
            self._matched(anchor, rule, rest, movements, legs),
            *(
                Group(line.key, rule, DUPLICATE_PROVIDER, (line,), (), ZERO, ZERO, detail)
                for line in duplicates
            ),
        ]

    def _differing(
        self,
        anchor: str,
        rule: str,
        stated: StatedParts,
        movements: Sequence[LedgerMovement],
        legs: Sequence[DatedLeg],
    ) -> list[Group]:
        """Return the breaks of items whose gross amounts or fees differ."""
        books = _sums(legs)
        is_fee_right = stated.charged == -books.charged
        is_one = is_fee_right or (not stated.fees and stated.gross != -books.gross)
        is_taken_back = not stated.charged and not stated.gross and bool(stated.fees)
        if stated.gross != books.gross and (is_one or is_taken_back):
            kind, detail = _named_difference(stated, books)
            lines = (*stated.others, *stated.fees)
            return [self._group(anchor, rule, kind, lines, movements, legs, detail)]
        gross_legs = [DatedLeg(leg.at, leg.gross) for leg in legs]
        fee_legs = [DatedLeg(leg.at, -leg.fee) for leg in legs if leg.fee]
        parts = [movement.gross_part() for movement in movements]
        if stated.gross == books.gross:
            whole = self._matched(anchor, rule, stated.others, parts, gross_legs)
            gross, *surplus = self._by_flows(whole, gross_legs)
        else:
            kind, detail = _named_difference(stated, BookedParts(books.gross, ZERO))
            gross = self._group(anchor, rule, kind, stated.others, parts, gross_legs, detail)
            surplus = []
        detail = f"the statement charges {plain(-stated.charged)}, the books {plain(books.charged)}"
        charged = [movement.fee_part() for movement in movements]
        fee = self._group(anchor, rule, FEE, stated.fees, charged, fee_legs, detail)
        # The break keeps the name that it has where the amount or the fee alone is wrong.
        if gross.classification == MATCHED:
            fee = changed(fee, context=stated.others)
            return [changed(gross, anchor=gross_anchor(anchor)), *surplus, fee]
        return [gross, *surplus, changed(fee, anchor=f"{anchor}#fee")]


def _legs_of(movements: Sequence[LedgerMovement]) -> Sequence[DatedLeg]:
    """Return the legs of all movements, oldest first."""
    legs = [
        DatedLeg(at, amount, ZERO if place else movement.fee)
        for movement in movements
        for place, (at, amount) in enumerate(movement.legs)
    ]
    return legs if len(movements) == 1 else sorted(legs)


def _sums(legs: Sequence[DatedLeg]) -> BookedParts:
    if len(legs) == 1:
        return BookedParts(legs[0].gross, legs[0].fee)
    return BookedParts(sum_of(leg.gross for leg in legs), sum_of(leg.fee for leg in legs))


def _agrees(lines: Sequence[StatementItem], legs: Sequence[DatedLeg]) -> bool:
    """Tell whether lines state the gross amount and the fee of legs, or their net amount."""
    books = _sums(legs)
    return any(_is_stated(stated, books) for stated in parted(lines))


def _is_stated(stated: StatedParts, books: BookedParts) -> bool:
    if stated.gross == books.gross and stated.charged == -books.charged:
        return True
    return not stated.fees and stated.gross == books.net


def _has_flows(stated: StatedParts, legs: Sequence[DatedLeg]) -> bool:
    """Tell whether what came in and what went out agrees, not only the sum of both.

    A sum of several legs may be one line. As many lines as legs are those legs' amounts, each.
    """
    lines = [line.amount for line in stated.others]
    if len(lines) == 1:
        return True
    booked = [[leg.gross for leg in legs if leg.gross]]
    if not stated.fees and any(leg.fee for leg in legs):
        booked += [[leg.net for leg in legs], [*booked[0], *(-leg.fee for leg in legs if leg.fee)]]
    return any(_are_same_flows(lines, amounts) for amounts in booked)


def _are_same_flows(stated: Sequence[Decimal], booked: Sequence[Decimal]) -> bool:
    if len(stated) == len(booked):
        return sorted(stated) == sorted(booked)
    return _flows(stated) == _flows(booked)


def _flows(amounts: Sequence[Decimal]) -> tuple[Decimal, Decimal]:
    """Return what came in and what went out."""
    return sum_of(a for a in amounts if a > 0), sum_of(-a for a in amounts if a < 0)


def _flows_detail(stated: StatedParts, legs: Sequence[DatedLeg]) -> str:
    """Describe flows that differ, or the amounts where they do not."""
    lines, booked = [line.amount for line in stated.others], [leg.gross for leg in legs]
    texts = [_flow_text(lines), _flow_text(booked)]
    if texts[0] == texts[1]:
        texts = [_amounts_text(lines), _amounts_text(booked)]
    return f"the statement has {texts[0]}, the books {texts[1]}; the sums agree"


def _flow_text(amounts: Sequence[Decimal]) -> str:
    came_in, went_out = _flows(amounts)
    return f"{plain(came_in)} in and {plain(went_out)} out"


def _amounts_text(amounts: Sequence[Decimal]) -> str:
    shown = [plain(amount) for amount in amounts[:AMOUNTS_SHOWN]]
    more = ["…"] if len(amounts) > AMOUNTS_SHOWN else []
    return ", ".join([*shown, *more])


def _surplus(stated: StatedParts, legs: Sequence[DatedLeg]) -> list[StatementItem]:
    """Return the lines that are left when each leg has a line of its amount; none otherwise.

    The first line of an amount is the leg's. The lines left cancel out, as the sums are equal.
    """
    is_gross = stated.gross == sum_of(leg.gross for leg in legs)
    left = Counter(leg.gross if is_gross else leg.net for leg in legs)
    surplus = []
    for line in sorted(stated.others, key=lambda line: (line.at, line.id)):
        if left[line.amount]:
            left[line.amount] -= 1
        else:
            surplus.append(line)
    return [] if left.total() else surplus


def _swapped(lines: Sequence[StatementItem], legs: Sequence[DatedLeg]) -> str | None:
    """Describe lines that go, each at its time, in the opposite direction; None of others."""
    ordered = sorted(lines, key=lambda line: (line.at, line.id))
    amounts = [line.amount for line in ordered]
    if len(amounts) != len(legs) or any(one.at == two.at for one, two in pairwise(ordered)):
        return None
    if amounts == [leg.gross for leg in legs] or amounts != [-leg.gross for leg in legs]:
        return None
    return f"lines {', '.join(line.id for line in ordered)} go in the opposite directions"


def _duplicates(
    lines: Sequence[StatementItem], legs: Sequence[DatedLeg]
) -> Sequence[StatementItem]:
    """Return the lines that repeat another one and without which the amounts are equal."""
    repeated = _repeated(lines)
    if not repeated:
        return []
    if _agrees(_without(lines, repeated), legs):
        return repeated
    books = _sums(legs)
    for stated in parted(lines):
        fees = {line.key for line in stated.fees}
        for one in repeated:
            if _is_stated(_less(stated, one, is_fee=one.key in fees), books):
                return [one]
    return []


def _less(stated: StatedParts, line: StatementItem, *, is_fee: bool) -> StatedParts:
    """Return the sums without a line; of the lines only whether there are fees stays right."""
    if is_fee:
        fees, charged = stated.fees[1:], stated.charged - line.amount
        return changed(stated, fees=fees, charged=charged)
    return changed(stated, gross=stated.gross - line.amount)


def _without(
    lines: Sequence[StatementItem], others: Sequence[StatementItem]
) -> list[StatementItem]:
    keys = {line.key for line in others}
    return [line for line in lines if line.key not in keys]


def _repeated(lines: Sequence[StatementItem]) -> list[StatementItem]:
    """Return the lines of the kind and amount of an earlier one."""
    seen: set[tuple[str, Decimal]] = set()
    repeated: list[StatementItem] = []
    for line in sorted(lines, key=lambda line: (line.at, line.id)):
        content = (line.kind, line.amount)
        if content in seen:
            repeated.append(line)
        seen.add(content)
    return repeated


def _named_difference(stated: StatedParts, books: BookedParts) -> tuple[str, str]:
    """Classify how a gross amount differs; without a fee row it may be net of the fee."""
    amounts = {books.gross} if stated.fees else {books.gross, books.net}
    for line in stated.others:
        if line.amount and stated.gross - 2 * line.amount in amounts:
            return DIRECTION, f"line {line.id} goes in the opposite direction"
    if not stated.others:
        return MISSING_AT_PROVIDER, "the statement has nothing but the fee"
    for line in stated.others:
        if -line.amount in amounts and stated.gross - line.amount in amounts:
            return STATUS, f"line {line.id} reverses what the books still hold"
    stated_text, books_text = plain(stated.gross), plain(books.gross)
    if not stated.fees and books.charged:
        books_text = f"{plain(books.net)}, or {books_text} before the fee"
    return AMOUNT, f"the statement has {stated_text}, the books {books_text}"


def is_fee(line: StatementItem) -> bool:
    """Tell a fee's row by its kind (StraitsX docs, account statement: `Fee`) or description."""
    return is_fee_kind(line.kind) or _reads_as_fee(line)


def is_of_bank(line: StatementItem) -> bool:
    """Tell whether a row is the bank's own: a fee, interest or tax, which nobody else ordered."""
    words = _words_of(line.kind) | _words_of(line.description)
    return is_fee(line) or not words.isdisjoint(_OF_ACCOUNT)


@lru_cache(maxsize=4096)
def is_fee_kind(kind: str) -> bool:
    """Tell whether a row type names a fee, in plain words or by a code."""
    words = _words_of(kind)
    return _has_fee(words) or not words.isdisjoint(_CODES)


def _has_fee(words: frozenset[str]) -> bool:
    if not words.isdisjoint(_WORDS):
        return True
    return any(stem in word for word in words for stem in _STEMS)


def parted(lines: Sequence[StatementItem]) -> Iterator[StatedParts]:
    """Yield how the lines of one transaction may be parted, the likelier way first.

    A line that only its description makes a fee may as well be a payment for somebody's fees.
    """
    by_kind = [line for line in lines if is_fee_kind(line.kind)]
    read = [line for line in lines if not is_fee_kind(line.kind) and _reads_as_fee(line)]
    if read and len(by_kind) + len(read) < len(lines):
        yield _parts_of(lines, [*by_kind, *read])
    yield _parts_of(lines, by_kind)


def _parts_of(lines: Sequence[StatementItem], fees: Sequence[StatementItem]) -> StatedParts:
    if not fees:
        amount = lines[0].amount if len(lines) == 1 else sum_of(line.amount for line in lines)
        return StatedParts(tuple(lines), (), amount, Decimal(0))
    keys = {line.key for line in fees}
    others = tuple(line for line in lines if line.key not in keys)
    return StatedParts(
        others,
        tuple(line for line in lines if line.key in keys),
        sum_of(line.amount for line in others),
        sum_of(line.amount for line in fees),
    )


def _reads_as_fee(line: StatementItem) -> bool:
    """Tell a fee by its description: what is taken, or a fee that is given back."""
    if not line.description:
        return False
    words = _words_of(line.description)
    if not _has_fee(words):
        return False
    return line.amount < 0 or not words.isdisjoint(_GIVEN_BACK)


def _words_of(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold()))
