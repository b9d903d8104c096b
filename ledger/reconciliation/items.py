"""The nouns of matching: a statement's lines, the books' movements, and groups of both. Pure."""

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
"""What a difference between statement and books can be; TIMING is none yet."""

ZERO: Final = Decimal(0)

DatedAmount: TypeAlias = tuple[datetime, Decimal]


class StatementItem(Record, frozen=True):
    """A statement line on its way through matching. `amount` > 0 came in, < 0 went out."""

    id: str
    kind: str
    amount: Decimal
    at: datetime
    contract: str | None = None
    idempotency: str | None = None
    reference: str | None = None

    @property
    def key(self) -> str:
        """Its name among all items of its currency."""
        return f"line:{self.id}"


class LedgerMovement(Record, frozen=True):
    """What the books say that one transaction did to the wallet: its dated amounts, oldest first.

    `fee` is what it was charged in the wallet's currency and is contained in the amounts.
    """

    kind: str
    id: str
    legs: tuple[DatedAmount, ...]
    fee: Decimal = ZERO
    idempotency: str | None = None
    references: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name among all items of its currency."""
        return f"{self.kind}:{self.id}"


class Group(Record, frozen=True):
    """Lines and movements that belong together, and what that says.

    `due` is what the movements did to the wallet before the cut-off; the statement's part is the
    sum of its lines.
    """

    anchor: str
    """What the group is about, in a form that lasts: `contract:…`, `line:…`, `opening` …"""
    rule: str
    """What connects its items: `contract`, `idempotency`, `reference`, `amount`, `group`, `hand`;
    `none` where nothing does."""
    verdict: str
    """MATCHED, TIMING or a type of break."""
    lines: tuple[StatementItem, ...]
    moves: tuple[LedgerMovement, ...]
    due: Decimal
    before: Decimal = ZERO
    """How much of `due` is dated before the statement begins."""
    detail: str = ""

    @property
    def told(self) -> Decimal:
        """What the statement says: the sum of the lines."""
        return added(line.amount for line in self.lines)

    @property
    def difference(self) -> Decimal:
        """What the books say beyond the statement: books - statement, negative when they lack."""
        return self.due - self.told

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of its items, sorted."""
        return tuple(sorted([*(line.key for line in self.lines), *(m.key for m in self.moves)]))

    @property
    def at(self) -> datetime | None:
        """When the oldest of it happened; None for what has no date."""
        times = [line.at for line in self.lines]
        times += [move.legs[0][0] for move in self.moves]
        return min(times) if times else None


class Frame(Record, frozen=True):
    """Between which times lines are known: from `opened` (inclusive) to `cutoff` (exclusive)."""

    opened: datetime
    cutoff: datetime


class Manual(Record, frozen=True):
    """An operator's word that some items belong together. `anchor` names the break it ended."""

    anchor: str
    keys: tuple[str, ...]
    position: int


class Known(Record, frozen=True):
    """A transaction that a line names and that moved nothing in the line's currency."""

    kind: str
    status: str
    currency: str | None
    """The currency of the wallet that it did move; None when it moved none."""


def added(amounts: Iterable[Decimal]) -> Decimal:
    """Add amounts up (the default context is exact for all that the log may hold)."""
    return sum(amounts, ZERO)


def first_within(legs: tuple[DatedAmount, ...], opened: datetime) -> int:
    """Return the place of the first leg that the statement can show; 0 when there is none."""
    for place, (at, _) in enumerate(legs):
        if at >= opened:
            return place
    return 0


def ledger_amounts(legs: Iterable[DatedAmount], frame: Frame) -> tuple[Decimal, Decimal]:
    """Return what the legs before the cut-off add up to, and how much of it is before the opening.

    Fits the fields `due` and `before` of a Group.
    """
    due = before = ZERO
    for at, amount in legs:
        if at < frame.cutoff:
            due += amount
        if at < frame.opened:
            before += amount
    return due, before
