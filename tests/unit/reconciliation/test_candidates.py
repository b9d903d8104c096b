"""A break is shown with what may be its other side: the best first, with the reason in words."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from ledger.reconciliation.candidates import BOOKS, STATEMENT, Candidate, suggest_candidates
from ledger.reconciliation.items import (
    AMOUNT,
    MISSING_AT_PROVIDER,
    MISSING_IN_LEDGER,
    Group,
    LedgerMovement,
    StatementItem,
)

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)


def line(name: str, amount: str, days: float = 0, **more: Any) -> StatementItem:
    return StatementItem(name, "", Decimal(amount), NOON + timedelta(days=days), **more)


def movement(name: str, amount: str, days: float = 0, fee: str = "0") -> LedgerMovement:
    legs = ((NOON + timedelta(days=days), Decimal(amount)),)
    return LedgerMovement("payment", name, legs, Decimal(fee))


def missing(item: StatementItem | LedgerMovement) -> Group:
    if isinstance(item, StatementItem):
        return Group(item.key, "none", MISSING_IN_LEDGER, (item,), (), Decimal(0))
    amount = item.legs[0][1]
    return Group(f"contract:{item.id}", "none", MISSING_AT_PROVIDER, (), (item,), amount)


def suggested(*items: StatementItem | LedgerMovement) -> dict[str, list[tuple[str, str]]]:
    found = suggest_candidates([missing(item) for item in items], UTC)
    return {anchor: [(each.item, each.reason) for each in some] for anchor, some in found.items()}


def test_an_equal_amount_says_how_many_days_apart_it_is() -> None:
    assert suggested(line("a", "100", 3), movement("p", "100")) == {
        "line:a": [("payment:p", "same amount, 3 days apart")],
        "contract:p": [("line:a", "same amount, 3 days apart")],
    }


def test_a_candidate_has_everything_that_is_to_be_seen_of_it() -> None:
    found = suggest_candidates([missing(line("a", "100")), missing(movement("p", "100"))], UTC)
    assert found["contract:p"] == (
        Candidate("line:a", STATEMENT, NOON, Decimal(100), "", "", "same amount, same day"),
    )
    assert found["line:a"][0].side == BOOKS
    assert found["line:a"][0].document() == {
        "item": "payment:p", "side": "books", "effective_at": "2026-01-10T12:00:00Z",
        "amount": "100", "counterparty": None, "description": None,
        "reason": "same amount, same day",
    }  # fmt: skip


def test_a_name_with_one_wrong_character_comes_before_an_equal_amount() -> None:
    found = suggested(
        line("a", "100", 9, reference="INV-1O01"), movement("p", "100"), movement("INV-1001", "100")
    )
    assert found["line:a"] == [
        ("payment:INV-1001", "a name differs by one character, same amount, 9 days apart"),
        ("payment:p", "same amount, 9 days apart"),
    ]


def test_numbers_of_a_series_are_no_wrong_characters() -> None:
    assert (
        suggested(line("a", "100", contract="contract_0007"), movement("contract_0008", "9")) == {}
    )


def test_swapped_digits_mean_nothing_where_the_amounts_differ() -> None:
    one, other = "INV-2026-00411", "INV-2026-00141"
    assert suggested(line("a", "37.15", reference=one), movement(other, "117548.45")) == {}
    found = suggested(line("a", "100", reference=one), movement(other, "100"))
    assert found["line:a"][0][1] == "a name has two characters swapped, same amount, same day"


def test_swapped_characters_and_names_cut_short_are_seen() -> None:
    swapped = suggested(line("a", "90", reference="INV-AB12"), movement("INV-BA12", "100"))
    assert swapped["line:a"] == [
        ("payment:INV-BA12", "a name has two characters swapped, differs by 10, same day")
    ]
    short = suggested(line("a", "100", reference="ORDER-2026-00"), movement("ORDER-2026-0042", "7"))
    assert short["line:a"] == [
        ("payment:ORDER-2026-0042", "a name is the beginning of the other, differs by 93, same day")
    ]
    long = "3f0c2d4e-9a55-4a61-8a44-6d2b6a0f3c11"
    other = suggested(line("a", "7", reference=long), movement(long.replace("9a55", "9x55"), "100"))
    assert other["line:a"][0][1].startswith("a name differs by one character")


def test_a_name_in_the_description_is_seen_in_whatever_way_it_is_written() -> None:
    found = suggested(
        line("a", "90", description="Payment for inv-2026/0042, thanks"),
        movement("INV20260042", "100"),
    )
    assert found["line:a"] == [
        ("payment:INV20260042", "a name is in the description, differs by 10, same day")
    ]
    assert found["contract:INV20260042"] == [
        ("line:a", "a name is in the description, differs by 10, same day")
    ]


def test_every_name_of_a_line_counts_and_its_counterparty_is_shown() -> None:
    other = line("a", "90", names=("X", "INV-1O01"), counterparty="陈大文", description="rent")
    groups = [missing(other), missing(movement("INV-1001", "100"))]
    (found,) = suggest_candidates(groups, UTC)["contract:INV-1001"]
    assert (found.counterparty, found.description) == ("陈大文", "rent")
    assert found.reason == "a name differs by one character, differs by 10, same day"


def test_a_line_before_its_fee_and_one_in_the_opposite_direction_are_seen() -> None:
    fee = suggested(line("a", "10"), movement("p", "9.5", fee="0.5"))
    assert fee["line:a"] == [("payment:p", "same amount before the fee of 0.5, same day")]
    assert fee["contract:p"] == [("line:a", "same amount before the fee of 0.5, same day")]
    opposite = suggested(line("a", "-10"), movement("p", "10"))
    assert opposite["line:a"] == [("payment:p", "same amount in the opposite direction, same day")]


def test_a_close_amount_counts_only_near_in_time() -> None:
    assert suggested(line("a", "100"), movement("p", "99.50", 1))["line:a"] == [
        ("payment:p", "differs by 0.5, 1 day apart")
    ]
    assert suggested(line("a", "100"), movement("p", "99.50", 30)) == {}
    assert suggested(line("a", "100"), movement("p", "50")) == {}


def test_there_are_three_at_most_the_nearest_in_time_first() -> None:
    others = [movement(f"p{days}", "100", days) for days in (5, 1, 4, 2, 3)]
    found = suggested(line("a", "100"), *others)["line:a"]
    assert [item for item, _ in found] == ["payment:p1", "payment:p2", "payment:p3"]


def test_a_break_with_two_sides_gets_what_closes_its_gap() -> None:
    group = Group(
        "contract:x", "contract", AMOUNT, (line("a", "100"),), (movement("x", "90"),), Decimal(90)
    )
    rest = [missing(movement("y", "10")), missing(movement("z", "100")), missing(line("b", "-10"))]
    found = suggest_candidates([group, *rest], UTC)["contract:x"]
    assert [(each.item, each.reason) for each in found] == [
        ("payment:y", "its amount is the difference of 10, same day"),
        ("line:b", "its amount is the difference of 10, same day"),
    ]


def test_the_order_in_which_breaks_come_changes_nothing() -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    items = [
        *(line(f"l{n}", str(chance.randrange(1, 9)), chance.randrange(20)) for n in range(60)),
        *(movement(f"INV-{n:04}", str(chance.randrange(1, 9)), n % 20) for n in range(60)),
    ]
    groups = [missing(item) for item in items]
    first = suggest_candidates(groups, UTC)
    chance.shuffle(groups)
    assert suggest_candidates(groups, UTC) == first, f"seed {seed}"


def test_ten_thousand_breaks_are_quick_however_alike_they_are() -> None:
    lines = [line(f"l{n}", "10", n / 100, reference=f"REF-{n:06}") for n in range(5_000)]
    movements = [movement(f"contract_{n:05}", "10", 400 + n / 100) for n in range(5_000)]
    groups = [missing(item) for item in (*lines, *movements)]
    begin = time.process_time()
    found = suggest_candidates(groups, UTC)
    assert len(found) == 10_000
    assert time.process_time() - begin < 15
