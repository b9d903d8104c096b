"""What is matched: statement lines, movements of the ledger, and groups of both. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeAlias

from ledger.model import Record

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
    contract: str | None = None
    idempotency: str | None = None
    reference: str | None = None
    booked_at: datetime | None = None
    """When it counts in the statement's balances; None = at `at`."""

    @property
    def key(self) -> str:
        """Its name, unique among the items of its currency."""
        return f"line:{self.id}"


class LedgerMovement(Record, frozen=True):
    """What one transaction did to the wallet by the books: its dated amounts, oldest first.

    The amounts contain `fee`, which was charged in the wallet's currency.
    """

    kind: str
    id: str
    legs: tuple[DatedAmount, ...]
    fee: Decimal = ZERO
    idempotency: str | None = None
    references: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name, unique among the items of its currency."""
        return f"{self.kind}:{self.id}"


class Group(Record, frozen=True):
    """Lines and movements that belong together, and how they compare.

    Its ledger amount is what the movements did to the wallet before the cut-off, its statement
    amount the sum of the lines.
    """

    anchor: str
    """What the group is about, the same in every run: `contract:…`, `line:…`, `opening` …"""
    rule: str
    """What connects its items: `contract`, `idempotency`, `reference`, `amount`, `group`, `hand`;
    `none` where nothing does."""
    classification: str
    """MATCHED, TIMING or a type of break."""
    lines: tuple[StatementItem, ...]
    movements: tuple[LedgerMovement, ...]
    ledger_amount: Decimal
    ledger_amount_before: Decimal = ZERO
    """How much of `ledger_amount` is dated before the statement begins."""
    detail: str = ""

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
        """The names of its items, sorted."""
        return tuple(sorted([*(line.key for line in self.lines), *(m.key for m in self.movements)]))

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

    kind: str
    status: str
    currency: str | None
    """The currency of the wallet that it moved; None when it moved none."""


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
