"""Faults that cancel out are each found, and nothing else: random months, planted pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from random import Random

import pytest

from ledger.config.reconciliation import Rules
from ledger.model import changed
from ledger.reconciliation.coverage import Coverage
from ledger.reconciliation.items import MATCHED, Group, LedgerMovement, StatementItem, sum_of
from ledger.reconciliation.matching import Matching
from ledger.reconciliation.result import LedgerBalances, build_result
from ledger.reconciliation.unmatched import add_unmatched
from tests.unit.reconciliation.test_matching import PERIOD

ZERO = Decimal(0)


class Deal:
    """One transaction of the books and its rows on the statement."""

    def __init__(self, rng: Random, number: int) -> None:
        self.at = PERIOD.opened_at + timedelta(hours=rng.randrange(24 * 20), minutes=number % 60)
        # Nothing else has the amount, so that a line without names has one transaction.
        self.amount = Decimal(rng.choice((-1, 1)) * (1000 + 10 * number)) + Decimal("0.01") * number
        self.fee = Decimal(rng.randrange(1, 5)) if rng.random() < 0.5 else ZERO
        self.is_refunded = self.amount > 0 and rng.random() < 0.2
        self.number = number
        self.is_named = True
        self.planted: set[str] = set()
        legs = [(self.at, self.amount - self.fee)]
        if self.is_refunded:
            legs.append((self.at + timedelta(hours=2), -self.amount))
        self.movement = LedgerMovement(
            "payment" if self.amount > 0 else "payout", f"contract_{number:04}", tuple(legs),
            self.fee, f"idem-{number:04}", (f"invoice-{number:04}",),
        )  # fmt: skip
        self.rows = [self.row("a", self.amount)]
        if self.fee:
            self.rows.append(self.row("b", -self.fee, kind="Fee"))
        if self.is_refunded:
            refund = self.row("c", -self.amount, kind="Refund")
            self.rows.append(changed(refund, at=self.at + timedelta(hours=2, minutes=2)))
        self.name(rng.randrange(6))

    def row(self, suffix: str, amount: Decimal, kind: str = "Transfer") -> StatementItem:
        at = self.at + timedelta(minutes=1)
        return StatementItem(f"{self.number:04}{suffix}", kind, amount, at)

    def name(self, how: int) -> None:
        """Name the rows as one of the formats does; without names, by amount alone."""
        fields = {
            0: {"contract": self.movement.id, "idempotency": self.movement.idempotency},
            1: {"idempotency": self.movement.idempotency},
            2: {"reference": self.movement.references[0]},
            3: {"names": ("bank-1", str(self.movement.idempotency).upper())},
            4: {"names": (self.movement.id, f"bank-{self.number}")},
            5: {"names": (f"bank-{self.number}",)},
        }[how if not self.is_refunded else how % 5]
        self.is_named = how != 5 or self.is_refunded
        self.rows = [changed(row, **fields) for row in self.rows]

    def plant(self, *rows: StatementItem) -> None:
        """Note that something is wrong about the transaction, and about some of its rows."""
        self.planted |= {self.movement.key, *(row.key for row in rows)}


def plain_deals(deals: list[Deal], rng: Random, count: int) -> list[Deal]:
    """Take deals that nothing is planted in, named and without a refund."""
    free = [d for d in deals if not d.planted and d.is_named and not d.is_refunded]
    return rng.sample(free, count)


Fault = Callable[[list[Deal], Random], list[StatementItem]]


def fee_and_gross(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """A fee of 51 instead of 1, and a gross amount that is 50 too high."""
    (deal,) = [d for d in plain_deals(deals, rng, 12) if d.fee][:1]
    deal.rows[0] = changed(deal.rows[0], amount=deal.amount + 50)
    deal.rows[1] = changed(deal.rows[1], amount=-deal.fee - 50)
    deal.plant(*deal.rows)
    return []


def fee_and_gross_swapped(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """The amount in the fee's row, and the fee in that of the amount."""
    (deal,) = [d for d in plain_deals(deals, rng, 12) if d.fee][:1]
    one, two = deal.rows
    deal.rows = [changed(one, amount=two.amount), changed(two, amount=one.amount)]
    deal.plant(*deal.rows)
    return []


def fees_of_two(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """Two fees, one as much too high as the other one is too low."""
    one, two = [d for d in plain_deals(deals, rng, 16) if d.fee][:2]
    for deal, more in ((one, Decimal("0.5")), (two, Decimal("-0.5"))):
        deal.rows[1] = changed(deal.rows[1], amount=deal.rows[1].amount + more)
        deal.plant(deal.rows[1])
    return []


def amounts_of_two(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """Two amounts, one as much too high as the other one is too low."""
    for deal, more in zip(plain_deals(deals, rng, 2), (7, -7), strict=True):
        deal.rows[0] = changed(deal.rows[0], amount=deal.rows[0].amount + more)
        deal.plant(deal.rows[0])
    return []


def contracts_swapped(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """Two lines with each other's amount."""
    one, two = plain_deals(deals, rng, 2)
    one.rows[0], two.rows[0] = (
        changed(one.rows[0], amount=two.amount), changed(two.rows[0], amount=one.amount),
    )  # fmt: skip
    for deal in (one, two):
        deal.plant(deal.rows[0])
    return []


def lost_payout_and_account_fee(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """A payout that the bank lost, and a fee of its amount that the bank took at the same time."""
    (deal,) = [d for d in plain_deals(deals, rng, 16) if d.amount < 0][:1]
    deal.rows = []
    deal.plant()
    words = rng.choice(({"kind": "Account Fee"}, {"kind": "NCHG"}, {"description": "Account fee"}))
    row = changed(deal.row("x", deal.movement.net), **words)  # type: ignore[arg-type]
    deal.planted.add(row.key)
    return [row]


def lost_payment_and_strange_contract(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """A payment that the provider lost, and a line of its amount for a contract we do not have."""
    (deal,) = plain_deals(deals, rng, 1)
    deal.rows = []
    row = changed(deal.row("x", deal.movement.net), contract="contract_unknown")
    deal.plant(row)
    return [row]


def lost_payment_and_repeated_line(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """A line twice, and a transaction of its amount missing."""
    kept, lost = [d for d in plain_deals(deals, rng, 16) if not d.fee][:2]
    twin = changed(kept.rows[0], id=f"{kept.rows[0].id}2")
    lost.movement = changed(lost.movement, legs=((lost.at, kept.amount),))
    lost.rows = []
    lost.plant()
    kept.planted.add(twin.key)
    return [twin]


def directions_of_two(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """What came in goes out and the other way round."""
    for deal in plain_deals(deals, rng, 2):
        deal.rows[0] = changed(deal.rows[0], amount=-deal.amount)
        deal.plant(deal.rows[0])
    return []


def payment_and_refund_repeated(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """A payment and its refund, both on the statement twice."""
    (deal,) = [d for d in deals if d.is_refunded and not d.planted][:1]
    twins = [changed(row, id=f"{row.id}2") for row in deal.rows if row.kind != "Fee"]
    deal.planted |= {twin.key for twin in twins}
    return twins


def payment_and_refund_the_other_way_round(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """A payment that goes out and a refund that comes in."""
    (deal,) = [d for d in deals if d.is_refunded and not d.planted][:1]
    deal.rows = [row if row.kind == "Fee" else changed(row, amount=-row.amount)
                 for row in deal.rows]  # fmt: skip
    deal.plant(*(row for row in deal.rows if row.kind != "Fee"))
    return []


def payment_and_refund_both_too_high(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """A payment that is too high, and its refund that is too high by as much."""
    (deal,) = [d for d in deals if d.is_refunded and not d.planted][:1]
    deal.rows = [row if row.kind == "Fee" else changed(row, amount=row.amount * 2)
                 for row in deal.rows]  # fmt: skip
    deal.plant(*(row for row in deal.rows if row.kind != "Fee"))
    return []


def lines_that_cancel_out(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """Two lines of a transaction that the books do not have."""
    (deal,) = plain_deals(deals, rng, 1)
    rows = [changed(deal.rows[0], id=f"{deal.number}{n}", amount=Decimal(amount))
            for n, amount in (("x", 50), ("y", -50))]  # fmt: skip
    deal.planted |= {row.key for row in rows}
    return rows


def repeated_line_and_its_return(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """A line twice, and once taken back."""
    (deal,) = plain_deals(deals, rng, 1)
    row = deal.rows[0]
    rows = [changed(row, id=f"{row.id}2"), changed(row, id=f"{row.id}3", amount=-row.amount)]
    deal.planted |= {each.key for each in rows}
    return rows


def lost_transaction_and_another_number(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """A transaction that the bank lost, and a line of its amount with another number."""
    (deal,) = plain_deals(deals, rng, 1)
    deal.rows = []
    number = rng.choice((f"invoice-{deal.number}9", f"INVOICE {9000 + deal.number}", "idem-1-23"))
    row = changed(deal.row("x", deal.amount), names=(number,))
    deal.plant(row)
    return [row]


def lost_transaction_and_interest(deals: list[Deal], rng: Random) -> list[StatementItem]:
    """A transaction that the bank lost, and interest or taxes of its amount."""
    (deal,) = plain_deals(deals, rng, 1)
    deal.rows = []
    words = rng.choice(("Interest", "Withholding tax", "Account maintenance", "Zinsen"))
    row = changed(deal.row("x", deal.movement.net), description=words)
    deal.plant(row)
    return [row]


FAULTS: tuple[Fault, ...] = (
    fee_and_gross, fee_and_gross_swapped, fees_of_two, amounts_of_two, contracts_swapped,
    lost_payout_and_account_fee, lost_payment_and_strange_contract, lost_payment_and_repeated_line,
    directions_of_two, payment_and_refund_repeated, payment_and_refund_the_other_way_round,
    payment_and_refund_both_too_high, lines_that_cancel_out, repeated_line_and_its_return,
    lost_transaction_and_another_number, lost_transaction_and_interest,
)  # fmt: skip


def grouped(lines: list[StatementItem], movements: list[LedgerMovement]) -> list[Group]:
    matching = Matching.of(PERIOD, Rules(), lines, movements)
    matching.match()
    return add_unmatched(matching, {})


def check_invariants(
    groups: list[Group], lines: list[StatementItem], movements: list[LedgerMovement]
) -> None:
    stated = [line.key for group in groups for line in group.lines]
    assert sorted(stated) == sorted(line.key for line in lines)
    matched = [key for group in groups if group.classification == MATCHED for key in group.keys]
    assert max(Counter(matched).values(), default=1) == 1
    anchors = [group.anchor for group in groups]
    assert len(anchors) == len({*anchors})
    booked = sum_of(movement.net for movement in movements)
    assert sum_of(group.ledger_amount for group in groups) == booked
    closing = sum_of(line.amount for line in lines)
    result = build_result(
        "straitsx", "XSGD", coverage=Coverage(PERIOD, ZERO, closing, ("f" * 64,)),
        ledger=LedgerBalances(ZERO, booked), groups=groups, decisions={}, rules=Rules(),
    )  # fmt: skip
    assert (result.figures["residual"], result.figures["chain"]) == ("0", "0")
    assert result.figures["transactions"] == len(movements)
    assert (result.state == "RECONCILED") == all(g.classification == MATCHED for g in groups)


@pytest.mark.parametrize("seed", range(25))
def test_faults_that_cancel_out_are_breaks_and_nothing_else_is(seed: int) -> None:
    print("seed", seed)
    rng = Random(seed)
    deals = [Deal(rng, number) for number in range(160)]
    assert {g.classification for g in grouped(
        [row for deal in deals for row in deal.rows], [deal.movement for deal in deals]
    )} == {MATCHED}  # fmt: skip
    more: list[StatementItem] = []
    for fault in rng.sample(FAULTS, 8):
        more += fault(deals, rng)
    lines = [row for deal in deals for row in deal.rows] + more
    movements = [deal.movement for deal in deals]
    rng.shuffle(lines)
    rng.shuffle(movements)
    groups = grouped(lines, movements)
    check_invariants(groups, lines, movements)
    planted = set().union(*(deal.planted for deal in deals))
    broken = {key for g in groups if g.classification != MATCHED for key in g.keys}
    assert planted <= broken
    # A break shows the rest of its transaction as well.
    touched = {key for deal in deals if deal.planted
               for key in (deal.movement.key, *(row.key for row in deal.rows))}  # fmt: skip
    assert broken - planted <= touched
    whole = {key for g in groups if g.classification == MATCHED for key in g.keys}
    wrong_lines = {line.key for line in lines if line.key in planted}
    assert not wrong_lines & whole


@pytest.mark.parametrize(
    ("stated", "legs", "expected"),
    [
        (["-100", "100"], ["-90", "90"], ["AMOUNT"]),
        (["-100", "30"], ["-90", "20"], ["AMOUNT"]),
        (["-100", "100", "fee -1"], ["-90", "90", "fee 1"], ["AMOUNT"]),
        (["-100", "100", "fee -2"], ["-90", "90", "fee 1"], ["AMOUNT", "FEE"]),
        (["60", "40"], ["50", "50"], ["AMOUNT"]),
        (["110", "-10"], ["100"], ["AMOUNT"]),
        (["100", "50", "-50"], ["100"], ["MATCHED", "MISSING_IN_LEDGER", "MISSING_IN_LEDGER"]),
        (["100", "100", "-100"], ["100"], ["DUPLICATE_PROVIDER", "DUPLICATE_PROVIDER", "MATCHED"]),
        (["60", "40"], ["100"], ["MATCHED"]),
        (["100", "-30"], ["100", "-10", "-20"], ["MATCHED"]),
        (["100", "-100"], ["100", "-100", "fee 1"], ["FEE", "MATCHED"]),
        (["99", "-100"], ["100", "-100", "fee 1"], ["MATCHED"]),
        (["100", "tax -1", "-100"], ["100", "-100", "fee 1"], ["MATCHED"]),
        (["-30"], ["-50", "20"], ["MATCHED"]),
    ],
)
def test_what_comes_in_and_what_goes_out_are_compared_apart(
    stated: list[str], legs: list[str], expected: list[str]
) -> None:
    begun = PERIOD.opened_at + timedelta(days=5)
    rows = [
        StatementItem(str(n), {"fee": "Fee"}.get(kind, kind), Decimal(amount),
                      begun + n * timedelta(hours=2), "c")
        for n, (kind, _, amount) in enumerate(text.rpartition(" ") for text in stated)
    ]  # fmt: skip
    fee = sum_of(Decimal(leg.removeprefix("fee ")) for leg in legs if leg.startswith("fee"))
    amounts = [Decimal(leg) for leg in legs if not leg.startswith("fee")]
    amounts[0] -= fee
    dated = tuple((begun + n * timedelta(hours=2), each) for n, each in enumerate(amounts))
    movement = LedgerMovement("payment", "c", dated, fee)
    groups = grouped(rows, [movement])
    assert sorted(group.classification for group in groups) == expected
    check_invariants(groups, rows, [movement])


def test_amounts_of_a_batch_that_cancel_out_are_a_break() -> None:
    at = PERIOD.opened_at + timedelta(days=5)
    rows = [StatementItem("1", "in", Decimal(100), at, names=("AAAAAA",)),
            StatementItem("2", "out", Decimal(-100), at, names=("AAAAAA", "RRRRRR"))]  # fmt: skip
    paid = LedgerMovement("payment", "a", ((at, Decimal(90)),), references=("AAAAAA",))
    returned = LedgerMovement("payout", "r", ((at, Decimal(-90)),), references=("RRRRRR",))
    (found,) = grouped(rows, [paid, returned])
    assert (found.classification, found.difference) == ("AMOUNT", 0)
    assert found.detail == (
        "the statement has 100 in and 100 out, the books 90 in and 90 out; the sums agree"
    )
