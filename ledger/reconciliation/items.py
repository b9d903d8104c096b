"""What is matched: statement lines, movements of the ledger, and groups of both. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeAlias

from ledger.model import Record, changed

MATCHED: Final = "MATCHED"
TIMING: Final = "TIMING"
MISSING_AT_PROVIDER: Final = "MISSING_AT_PROVIDER"
MISSING_IN_LEDGER: Final = "MISSING_IN_LEDGER"
AMOUNT: Final = "AMOUNT"
FEE: Final = "FEE"
CURRENCY: Final = "CURRENCY"
STATUS: Final = "STATUS"
DIRECTION: Final = "DIRECTION"
DUPLICATE_PROVIDER: Final = "DUPLICATE_PROVIDER"
DUPLICATE_INTERNAL: Final = "DUPLICATE_INTERNAL"
AMBIGUOUS: Final = "AMBIGUOUS"
CONFLICT: Final = "CONFLICT"
OPENING: Final = "OPENING"

BREAK_TYPES: Final = (
    MISSING_AT_PROVIDER, MISSING_IN_LEDGER, AMOUNT, FEE, CURRENCY, STATUS, DIRECTION,
    DUPLICATE_PROVIDER, DUPLICATE_INTERNAL, AMBIGUOUS, CONFLICT, OPENING,
)  # fmt: skip
"""The types of difference between statement and books; TIMING is not one yet."""

ZERO: Final = Decimal(0)

DatedAmount: TypeAlias = tuple[datetime, Decimal]


class StatementItem(Record, frozen=True):
    """A statement line to match. `amount` > 0 came in, < 0 went out."""

    id: str
    kind: str
    amount: Decimal
    at: datetime
    """Its time as the statement has it; midnight where that names no more than the day."""
    contract: str | None = None
    """The provider's own id of the transaction."""
    idempotency: str | None = None
    reference: str | None = None
    names: tuple[str, ...] = ()
    """Every other name of it or of its transactions."""
    counterparty: str = ""
    description: str = ""
    booked_at: datetime | None = None
    """When it counts in the balances of the statement; None = at `at`."""

    @property
    def key(self) -> str:
        """Its name, unique among the items of its currency."""
        return f"line:{self.id}"

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every name but the contract, the better known first; without repeats."""
        typed = [name for name in (self.idempotency, self.reference) if name]
        return (*dict.fromkeys([*typed, *self.names]),) if typed or self.names else ()


class LedgerMovement(Record, frozen=True):
    """What one transaction did to the wallet by the books: its dated amounts, oldest first.

    The amounts contain `fee`, which was charged in the wallet's currency, with the first of them.
    """

    kind: str
    id: str
    legs: tuple[DatedAmount, ...]
    fee: Decimal = ZERO
    idempotency: str | None = None
    references: tuple[str, ...] = ()
    """Every other name of the transaction: invoice, end-to-end reference, hash …"""
    customer: str | None = None

    @property
    def key(self) -> str:
        """Its name, unique among the items of its currency; its parts have the same."""
        return f"{self.kind}:{self.id}"

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of the transaction, its id first."""
        named = (self.idempotency,) if self.idempotency else ()
        return self.id, *named, *self.references

    @property
    def net(self) -> Decimal:
        """What it did to the wallet in all."""
        return sum_of(amount for _, amount in self.legs)

    @property
    def gross(self) -> Decimal:
        """What it did to the wallet before its fee."""
        return self.net + self.fee if self.fee else self.net

    def gross_part(self) -> LedgerMovement:
        """Return the movement without its fee."""
        at, amount = self.legs[0]
        return changed(self, legs=((at, amount + self.fee), *self.legs[1:]), fee=ZERO)

    def fee_part(self) -> LedgerMovement:
        """Return its fee alone; the amount is 0 without one."""
        return changed(self, legs=((self.legs[0][0], -self.fee),))


class Group(Record, frozen=True):
    """Lines and movements that belong together, and how they compare.

    Its ledger amount is what the movements did to the wallet before the cut-off, its statement
    amount the sum of the lines.
    """

    anchor: str
    """What the group is about, the same in every run: `contract:…`, `line:…`, `opening` …"""
    rule: str
    """What connects its items: `contract`, `idempotency`, `reference`, `batch`, `amount`, `group`,
    `hand`; `none` where nothing does."""
    classification: str
    """MATCHED, TIMING or a type of break."""
    lines: tuple[StatementItem, ...]
    movements: tuple[LedgerMovement, ...]
    ledger_amount: Decimal
    ledger_amount_before: Decimal = ZERO
    """How much of `ledger_amount` is dated before the statement begins."""
    detail: str = ""
    context: tuple[StatementItem, ...] = ()
    """Lines of its transaction that another group matches: shown with it, not counted."""

    @property
    def statement_amount(self) -> Decimal:
        """The sum of the lines."""
        return sum_of(line.amount for line in self.lines)

    @property
    def difference(self) -> Decimal:
        """Ledger amount - statement amount: negative when the books lack something."""
        return self.ledger_amount - self.statement_amount

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of its items and context, sorted."""
        lines = (*self.lines, *self.context) if self.context else self.lines
        return tuple(sorted([*(line.key for line in lines), *(m.key for m in self.movements)]))

    @property
    def at(self) -> datetime | None:
        """The time of its oldest item; None without items."""
        times = [line.at for line in self.lines]
        times += [move.legs[0][0] for move in self.movements]
        return min(times) if times else None


class Period(Record, frozen=True):
    """What the statements cover: from `opened_at` (inclusive) to `cutoff` (exclusive)."""

    opened_at: datetime
    cutoff: datetime


class ManualMatch(Record, frozen=True):
    """An operator's decision that some items belong together; `anchor` names the break it ended."""

    anchor: str
    keys: tuple[str, ...]
    position: int


class KnownTransaction(Record, frozen=True):
    """A transaction that a line names and that moved nothing in the line's currency."""

    id: str
    kind: str
    status: str
    currency: str | None
    """The currency of the wallet that it moved; None when it moved none."""


def gross_anchor(anchor: str) -> str:
    """Return the anchor of the match of a transaction whose fee alone is the break `anchor`."""
    return f"{anchor}#gross"


def sum_of(amounts: Iterable[Decimal]) -> Decimal:
    """Return the sum of amounts, exact in every process that `check_decimal_context` accepts."""
    return sum(amounts, ZERO)


def first_leg_within(legs: tuple[DatedAmount, ...], opened_at: datetime) -> int:
    """Return the index of the first leg that the statement can show; 0 when there is none."""
    return next((index for index, (at, _) in enumerate(legs) if at >= opened_at), 0)


def ledger_amounts(legs: Iterable[DatedAmount], period: Period) -> tuple[Decimal, Decimal]:
    """Return the sums of the legs before the cut-off and of those before the opening.

    They are the fields `ledger_amount` and `ledger_amount_before` of a Group.
    """
    amount = before = ZERO
    for at, leg in legs:
        if at < period.cutoff:
            amount += leg
        if at < period.opened_at:
            before += leg
    return amount, before
