"""The made-up month agrees with itself to the last unit, but for what was planted."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections import Counter, defaultdict
from datetime import timedelta
from decimal import Decimal

import pytest

from ledger import registry
from ledger.model import total
from ledger.simulator.month import CURRENCIES, Month, month
from ledger.statements.model import Reading, Statement
from ledger.statements.reader import read_statement
from tests.property.driver import STRAITSX, Books

WALLETS = ("assets:wallet:available", "assets:wallet:held")


def statements(stated: Month) -> dict[str, Statement]:
    return {
        currency: read_statement(body, Reading()) for currency, body in stated.statements.items()
    }


def movements(stated: Month) -> dict[str, Decimal]:
    """Fold the callbacks and return what every wallet holds."""
    found = registry.load()
    facts = [
        found.dispatch.translate(STRAITSX, "callback", event, body)
        for event, body in stated.callbacks
    ]
    sums = Books().report(*facts, batches=[500] * (len(facts) // 500)).sums
    held: dict[str, Decimal] = defaultdict(Decimal)
    for (account, currency), (debits, credited) in sums.items():
        if account in WALLETS:
            held[currency] = total(held[currency], debits, credited.copy_negate())
    return held


@pytest.mark.parametrize("seed", [1, 2])
def test_without_faults_the_statements_are_the_wallets_movements(seed: int) -> None:
    stated = month(seed, 1_500, faults=False)
    held = movements(stated)
    read = statements(stated)
    assert set(read) == set(CURRENCIES)
    for currency, statement in read.items():
        assert total(*(line.amount for line in statement.lines)) == held[currency]
        assert statement.closing == held[currency]
        assert min(line.balance or Decimal(0) for line in statement.lines) > 0
    assert stated.planted == ()


def test_with_faults_the_differences_are_those_planted() -> None:
    stated = month(3, 1_500, faults=True)
    held = movements(stated)
    expected: dict[str, Decimal] = defaultdict(Decimal)
    for fault in stated.planted:
        for currency, difference in fault.differences:
            expected[currency] = total(expected[currency], difference)
    for currency, statement in statements(stated).items():
        assert total(held[currency], -(statement.closing or Decimal(0))) == expected[currency]


def test_every_kind_of_fault_is_planted_and_names_what_exists() -> None:
    stated = month(4, 3_000, faults=True)
    assert Counter(fault.type for fault in stated.planted) == {
        "MISSING_AT_PROVIDER": 10, "MISSING_IN_LEDGER": 10, "AMOUNT": 15, "FEE": 15,
        "DUPLICATE_PROVIDER": 5, "DIRECTION": 5, "TIMING": 5, "AMBIGUOUS": 10, "CURRENCY": 5,
    }  # fmt: skip
    lines = {line.id: line for s in statements(stated).values() for line in s.lines}
    bodies = b"".join(body for _, body in stated.callbacks)
    for fault in stated.planted:
        if fault.line_id is not None:
            assert lines[fault.line_id].amount == fault.amount
            assert lines[fault.line_id].currency == fault.currency
        assert fault.transaction_id is None or fault.transaction_id.encode() in bodies
        if fault.line_id is not None:
            assert stated.closed_at - lines[fault.line_id].effective_at > timedelta(days=5)
    ids = [fault.transaction_id for fault in stated.planted if fault.transaction_id]
    assert len(set(ids)) == len(ids)


def test_the_same_seed_gives_the_same_bytes() -> None:
    def digest(seed: int) -> str:
        stated = month(seed, 400, faults=True)
        parts = [*stated.statements.values(), *(body for _, body in stated.callbacks)]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    assert digest(7) == digest(7)
    assert digest(7) != digest(8)


def test_about_as_many_transactions_as_asked_for_and_no_fewer_than_fit() -> None:
    stated = month(5, 1_000, faults=True)
    found = registry.load()
    streams = {
        (envelope.kind, envelope.resource_id)
        for event, body in stated.callbacks
        if (envelope := found.read("straitsx", event, body).envelope).kind != "customer"
    }
    assert 1_000 <= len(streams) <= 1_002
    with pytest.raises(ValueError, match="at least 200"):
        month(1, 100, faults=True)


def test_lines_are_on_other_days_than_their_callbacks_and_nothing_is_planted_of_it() -> None:
    stated = month(6, 2_500, faults=True)
    crossing = [
        line
        for statement in statements(stated).values()
        for line in statement.lines
        if line.effective_at.strftime("%H:%M:%S") in ("00:00:30", "16:00:30")
    ]
    assert len(crossing) >= 5
    assert not {line.id for line in crossing} & {fault.line_id for fault in stated.planted}


def test_a_long_month_is_made_callback_by_callback_in_little_memory() -> None:
    stated = month(9, 20_000, faults=True)
    assert sum(1 for _ in stated.callbacks) > 26_000
    tracemalloc.start()
    for _ in zip(range(5_000), stated.callbacks, strict=False):
        pass
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
