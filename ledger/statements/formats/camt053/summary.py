"""Check the totals that a statement states (`TxsSummry`) against its entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from ledger.model import plain, shown, total
from ledger.statements.formats.camt053.entry import SIGNS, plain_decimal
from ledger.statements.formats.camt053.fields import Fields
from ledger.statements.model import StatementRefused
from ledger.statements.validation import money


@dataclass(slots=True)
class Totals:
    """How many entries there are in either direction, and what they add up to."""

    credits: int = 0
    debits: int = 0
    credit: Decimal = Decimal(0)
    debit: Decimal = Decimal(0)
    """Without a sign."""

    def add(self, amount: Decimal, mark: str) -> None:
        """Add an entry's signed amount; `mark` is its direction (CRDT, DBIT), zero or not."""
        if mark.upper() == "DBIT":
            self.debits += 1
            self.debit = total(self.debit, amount.copy_negate())
        else:
            self.credits += 1
            self.credit = total(self.credit, amount)

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.credits + other.credits,
            self.debits + other.debits,
            total(self.credit, other.credit),
            total(self.debit, other.debit),
        )

    @property
    def count(self) -> int:
        """Entries in both directions."""
        return self.credits + self.debits

    @property
    def net(self) -> Decimal:
        """Credits less debits."""
        return total(self.credit, self.debit.copy_negate())


def check_summary(label: str, summary: Fields, accepted: Sequence[Totals]) -> None:
    """Refuse totals that none of `accepted` has: the first is that of the booked entries.

    Banks count pending entries or leave them out, and state the totals of a page or of all pages.
    Raises StatementRefused, naming the statement by `label`, the field and both figures.
    """
    for path, stated, figures in _figures(summary, accepted):
        if stated not in figures:
            shown_figures = " or ".join(dict.fromkeys(map(plain, figures)))
            raise StatementRefused(
                f"{label}: TxsSummry/{path} is {shown(summary.first(path))}, but its entries make "
                f"{shown_figures}; an entry is missing or changed: export the statement again"
            )


def _figures(
    summary: Fields, accepted: Sequence[Totals]
) -> Iterator[tuple[str, Decimal, list[Decimal]]]:
    """Yield the path of each figure that is stated, the figure, and what it may be."""
    nets = [each.net for each in accepted]
    grosses = [total(each.credit, each.debit) for each in accepted]
    figures = {
        "TtlNtries/NbOfNtries": [Decimal(each.count) for each in accepted],
        "TtlNtries/Sum": [*grosses, *map(Decimal.copy_abs, nets)],
        "TtlCdtNtries/NbOfNtries": [Decimal(each.credits) for each in accepted],
        "TtlCdtNtries/Sum": [each.credit for each in accepted],
        "TtlDbtNtries/NbOfNtries": [Decimal(each.debits) for each in accepted],
        "TtlDbtNtries/Sum": [each.debit for each in accepted],
        "TtlNtries/TtlNetNtry/Amt": nets,
        "TtlNtries/TtlNetNtryAmt": nets,  # as versions before 001.03 have it
    }
    for path, possible in figures.items():
        words = summary.first(path)
        stated = money(0, f"TxsSummry/{path}", plain_decimal(words) or None)
        if stated is None:
            continue
        if possible is not nets:
            yield path, stated, possible
            continue
        mark = summary.first("TtlNtries/TtlNetNtry/CdtDbtInd", "TtlNtries/CdtDbtInd")
        sign = SIGNS.get(mark.upper(), 0)
        if sign == 0:
            possible = [*nets, *map(Decimal.copy_abs, nets)]
        yield path, stated.copy_negate() if sign < 0 else stated, possible
