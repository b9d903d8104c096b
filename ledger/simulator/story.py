"""A made-up transaction in two forms: its callbacks, and its rows on a statement.

The rows follow the posting rules: the gross amount is a row and the fee another (StraitsX docs,
account statement); what failed, was blocked or only announced moved nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Final, TypeAlias

from ledger.model import Record, changed
from ledger.simulator import money as sim_money
from ledger.simulator.deal import Deal, deal

OPENED_AT: Final = datetime(2026, 6, 1, tzinfo=UTC)
PERIOD: Final = timedelta(days=30)
BANKED: Final = ("sgd", "usd", "xsgd", "xusd")
"""Wallets that banks fill and empty."""

Step: TypeAlias = tuple[str, Deal, str, int]
"""Kind, deal, status reported, minutes since the deal began."""
Parts: TypeAlias = list[tuple[str, str, Decimal]]
"""Currency, row type, signed amount."""


class SimulatedRow(Record, frozen=True):
    """One row of a statement. `amount` > 0 is a credit."""

    id: str
    at: datetime
    currency: str
    kind: str
    amount: Decimal
    contract_id: str = ""
    idempotency_id: str = ""
    reference: str = ""


class Planted(Record, frozen=True):
    """A fault that a reconciliation must find, type and name."""

    type: str
    line_id: str | None
    transaction_id: str | None
    amount: Decimal
    """Signed, of the line, or of the transaction where no line is."""
    currency: str
    differences: tuple[tuple[str, Decimal], ...]
    """(currency, by how much the books exceed the statement) for every wallet touched."""


@dataclass(slots=True)
class Story:
    """Callbacks and rows that belong together, and what is wrong with them."""

    steps: list[Step]
    rows: list[SimulatedRow] = field(default_factory=list)
    planted: list[Planted] = field(default_factory=list)

    @property
    def transactions(self) -> int:
        """How many transactions the callbacks are about."""
        return len({d.id for kind, d, _, _ in self.steps if kind != "customer"})

    def then(self, other: Story) -> Story:
        """Return this story and another as one."""
        return Story(self.steps + other.steps, self.rows + other.rows, self.planted + other.planted)

    def unnamed(self, *, keep_reference: bool) -> Story:
        """Return the story with rows that name no contract."""
        rows = [
            changed(row, contract_id="", idempotency_id="",
                    reference=row.reference if keep_reference else "")
            for row in self.rows
        ]  # fmt: skip
        return Story(self.steps, rows, self.planted)


class StoryMaker:
    """Makes deals and stories at the current time of the month."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.transactions = 0
        self.rows = 0
        self.odds = 0
        self.created = OPENED_AT
        self.customer_id = ""

    def begin(self, created: datetime, customer_id: str) -> None:
        """Move on: the next deals begin at `created` and belong to `customer_id`."""
        self.created, self.customer_id = created, customer_id

    def deal(self, currency: str = "") -> Deal:
        """Make up a deal, in `currency` or one of BANKED."""
        made = deal(self.rng, currency or self.rng.choice(BANKED))
        return replace(made, created=self.created, customer_id=self.customer_id)

    def odd(self, d: Deal) -> Deal:
        """Return the deal without fees, with an amount that no other deal has."""
        self.odds += 1
        return replace(d, amount=d.amount + Decimal(self.odds * 7) / 1_000_000, fees=Decimal(0))

    def story(self, kind: str, d: Deal, steps: Sequence[tuple[str, int]]) -> Story:
        """Make a deal's story in steps of (status, minutes), with its rows on a statement."""
        ends = dict(steps)
        rows = []
        if "completed" in ends:
            rows += self._rows(kind, d, ends["completed"], PARTS[kind](d))
            if "refunded" in ends:
                back = [(d.currency, "Refund", -d.amount)]
                rows += self._rows(kind, d, ends["refunded"], back)
        return Story([(kind, d, status, minutes) for status, minutes in steps], rows)

    def row(
        self, d: Deal, kind: str, amount: Decimal, currency: str = "", **other: str
    ) -> SimulatedRow:
        """Return a row of the deal a little later than it began."""
        self.rows += 1
        ids = {"contract_id": d.id, "idempotency_id": d.idempotency_id} | other
        return SimulatedRow(
            id=f"entry_{self.rows:08d}",
            at=d.created + timedelta(seconds=self.rng.randrange(60, 240)),
            currency=(currency or d.currency).upper(),
            kind=kind,
            amount=amount,
            **ids,
        )

    def _rows(self, kind: str, d: Deal, minutes: int, parts: Parts) -> list[SimulatedRow]:
        """Write the rows of one moment: a little after the time in the callback."""
        moment = d.created + timedelta(minutes=minutes, seconds=self.rng.randrange(90))
        ids = {"reference": _reference(kind, d)}
        if kind == "fx_payout":
            ids |= {"contract_id": d.id.removeprefix("contract_"), "idempotency_id": ""}
        return [
            changed(self.row(d, name, amount, currency, **ids), at=moment)
            for currency, name, amount in parts
            if amount
        ]


def _reference(kind: str, d: Deal) -> str:
    if kind.startswith("chain_"):
        return sim_money.hash_of(d)
    return f"S{d.account_no}" if kind == "payment" else ""


def _incoming(d: Deal) -> Parts:
    return [(d.currency, "Bank Transfer In", d.amount), (d.currency, "Fee", -d.fees)]


def _outgoing(d: Deal) -> Parts:
    return [(d.currency, "Bank Transfer Out", -d.amount), (d.currency, "Fee", -d.fees)]


def _fx_payout(d: Deal) -> Parts:
    return [(d.currency, "FX Payout", -d.amount), (d.currency, "Fee", -d.fees)]


def _swap(d: Deal) -> Parts:
    return [
        (d.currency, "Swap Out", -d.amount),
        (d.currency, "Fee", -d.fees),
        ("usdc", "Swap In", sim_money.bought(d.amount)),
    ]


def _chain_deposit(d: Deal) -> Parts:
    return [(d.currency, "Blockchain Transfer In", d.amount)]


def _chain_withdrawal(d: Deal) -> Parts:
    return [
        (d.currency, "Blockchain Transfer Out", -d.amount),
        (d.currency, "Fee", -sim_money.NETWORK_FEES),
    ]


PARTS: Final[Mapping[str, Callable[[Deal], Parts]]] = {
    "payment": _incoming,
    "user_deposit": _incoming,
    "payout": _outgoing,
    "user_withdrawal": _outgoing,
    "fx_payout": _fx_payout,
    "swap": _swap,
    "chain_deposit": _chain_deposit,
    "chain_withdrawal": _chain_withdrawal,
}
"""Kind → what a completed one is on the statement."""
