"""Matching is deterministic, exact and exclusive, and every difference has its name."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ledger.config.reconciliation import Rules, bucket_of, rules_of
from ledger.reconciliation.coverage import Coverage
from ledger.reconciliation.items import (
    Group,
    KnownTransaction,
    LedgerMovement,
    ManualMatch,
    Period,
    StatementItem,
)
from ledger.reconciliation.matching import Matching
from ledger.reconciliation.result import (
    LatestDecision,
    LedgerBalances,
    Result,
    break_id_of,
    build_result,
)
from ledger.reconciliation.unmatched import add_unmatched

NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)
PERIOD = Period(datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))
RULES = Rules()


def line(id_: str, amount: str, at: datetime = NOON, **more: Any) -> StatementItem:
    return StatementItem(id_, more.pop("kind", "Bank Transfer In"), Decimal(amount), at, **more)


def move(id_: str, amount: str, at: datetime = NOON, fee: str = "0", **more: Any) -> LedgerMovement:
    return LedgerMovement(
        more.pop("kind", "payment"), id_, ((at, Decimal(amount)),), Decimal(fee), **more
    )


def grouped(
    lines: list[StatementItem], moves: list[LedgerMovement], rules: Rules = RULES,
    manual: tuple[ManualMatch, ...] = (),
    known: dict[str, KnownTransaction] | None = None, elsewhere: dict[str, str] | None = None,
) -> list[Group]:  # fmt: skip
    matching = Matching.of(PERIOD, rules, lines, moves, manual, known)
    matching.match()
    return add_unmatched(matching, elsewhere or {})


def classified(groups: list[Group]) -> list[tuple[str, str, str]]:
    return [(group.anchor, group.rule, group.classification) for group in groups]


def one(lines: list[StatementItem], moves: list[LedgerMovement], **more: Any) -> Group:
    (found,) = grouped(lines, moves, **more)
    return found


def test_the_gross_row_and_the_fee_row_of_a_contract_are_its_one_transaction() -> None:
    rows = [line("1", "100", contract="c"), line("2", "-0.5", contract="c", kind="Fee")]
    found = one(rows, [move("c", "99.5", fee="0.5")])
    assert (found.rule, found.classification, found.difference) == ("contract", "MATCHED", 0)


def test_spellings_of_an_amount_are_one_amount() -> None:
    assert one([line("1", "1.0", contract="c")], [move("c", "1.00")]).classification == "MATCHED"


@pytest.mark.parametrize(
    ("amounts", "net", "fee", "classification", "difference"),
    [
        (["100.000001"], "100", "0", "AMOUNT", "-0.000001"),
        (["-100"], "100", "0", "DIRECTION", "200"),
        (["-100", "fee -1"], "99", "1", "DIRECTION", "200"),
        (["98"], "99", "1", "AMOUNT", "1"),
        (["-99"], "99", "1", "DIRECTION", "198"),
        (["100", "-100"], "100", "0", "STATUS", "100"),
        (["fee -1"], "99", "1", "MISSING_AT_PROVIDER", "100"),
    ],
)
def test_a_difference_within_a_contract_is_named(
    amounts: list[str], net: str, fee: str, classification: str, difference: str
) -> None:
    rows = [
        line(str(n), text.removeprefix("fee "), contract="c",
             kind="Fee" if text.startswith("fee") else f"row {n}")
        for n, text in enumerate(amounts)
    ]  # fmt: skip
    found = one(rows, [move("c", net, fee=fee)])
    assert (found.classification, found.difference) == (classification, Decimal(difference))


@pytest.mark.parametrize(
    ("amounts", "net", "fee", "expected"),
    [
        (["100"], "99", "1", {"MATCHED": 0, "FEE": -1}),
        (["100", "fee -1"], "100", "0", {"MATCHED": 0, "FEE": 1}),
        (["100", "fee -2"], "99", "1", {"MATCHED": 0, "FEE": 1}),
        (["150", "fee -51"], "99", "1", {"AMOUNT": -50, "FEE": 50}),
        (["-1", "fee -100"], "-101", "1", {"AMOUNT": -99, "FEE": 99}),
        (["-100", "fee -2"], "99", "1", {"DIRECTION": 200, "FEE": 1}),
        (["-100"], "99", "1", {"DIRECTION": 200, "FEE": -1}),
        (["fee -3"], "99", "1", {"MISSING_AT_PROVIDER": 100, "FEE": 2}),
        (["99"], "99", "1", {"MATCHED": 0}),
        (["100", "fee -1", "-100", "fee 1"], "99", "1", {"STATUS": 99}),
    ],
)
def test_fees_are_compared_with_fees_and_gross_amounts_with_gross_amounts(
    amounts: list[str], net: str, fee: str, expected: dict[str, int]
) -> None:
    rows = [
        line(str(n), text.removeprefix("fee "), contract="c",
             kind="Fee" if text.startswith("fee") else f"row {n}")
        for n, text in enumerate(amounts)
    ]  # fmt: skip
    found = grouped(rows, [move("c", net, fee=fee)])
    assert {group.classification: group.difference for group in found} == expected
    assert {key for group in found for key in group.keys} == {
        "payment:c", *(row.key for row in rows),
    }  # fmt: skip
    lines = [each.key for group in found for each in group.lines]
    assert sorted(lines) == sorted({*lines})
    assert sum(group.ledger_amount for group in found) == Decimal(net)
    breaks = [g for g in found if g.classification != "MATCHED"]
    assert all("#" not in group.anchor for group in breaks[:1])


def test_a_repeated_line_is_a_break_and_the_first_is_matched() -> None:
    rows = [line("1", "5", contract="c"), line("2", "5", NOON + timedelta(hours=1), contract="c")]
    assert classified(grouped(rows, [move("c", "5")])) == [
        ("contract:c", "contract", "MATCHED"),
        ("line:2", "contract", "DUPLICATE_PROVIDER"),
    ]


def test_each_side_may_miss_the_other() -> None:
    found = grouped([line("1", "5", contract="x")], [move("c", "7")])
    assert classified(found) == [
        ("contract:c", "none", "MISSING_AT_PROVIDER"),
        ("contract:x", "none", "MISSING_IN_LEDGER"),
    ]


def test_equal_amounts_under_other_contracts_never_match() -> None:
    found = grouped([line("1", "5", contract="x")], [move("c", "5")])
    assert [group.classification for group in found] == ["MISSING_AT_PROVIDER", "MISSING_IN_LEDGER"]


def test_what_may_still_be_on_its_way_is_timing_until_it_ages() -> None:
    # The cut-off is a Monday's midnight: 24 hours of business time before it is Friday's.
    late, early = PERIOD.cutoff - timedelta(hours=71), PERIOD.cutoff - timedelta(hours=73)
    found = grouped([line("1", "5", late, contract="x"), line("2", "5", early, contract="y")],
                    [move("c", "7", late), move("d", "7", early)])  # fmt: skip
    assert [(g.anchor, g.classification) for g in found] == [
        ("contract:c", "TIMING"),
        ("contract:d", "MISSING_AT_PROVIDER"),
        ("contract:x", "TIMING"),
        ("contract:y", "MISSING_IN_LEDGER"),
    ]


def test_a_refund_that_the_statement_does_not_show_yet_is_timing() -> None:
    legs = ((NOON, Decimal(99)), (PERIOD.cutoff - timedelta(hours=2), Decimal(-100)))
    refunded = LedgerMovement("payment", "c", legs, Decimal(1))
    rows = [line("1", "100", contract="c"), line("2", "-1", contract="c", kind="Fee")]
    found = one(rows, [refunded])
    assert (found.classification, found.ledger_amount, found.difference) == ("TIMING", -1, -100)


def test_names_match_in_their_order() -> None:
    rows = [
        line("1", "1", idempotency="i"),
        line("2", "2", reference="0xabc"),
        line("3", "3"),
    ]
    moves = [move("a", "1", idempotency="i"), move("b", "2", references=("0xabc",)), move("c", "3")]
    assert classified(grouped(rows, moves)) == [
        ("idempotency:i", "idempotency", "MATCHED"),
        ("line:3", "amount", "MATCHED"),
        ("reference:0xabc", "reference", "MATCHED"),
    ]


def test_two_candidates_are_a_break_and_no_guess() -> None:
    found = one([line("1", "3"), line("2", "3")], [move("a", "3"), move("b", "3")])
    assert (found.classification, found.difference, len(found.keys)) == ("AMBIGUOUS", 0, 4)
    found = one([line("1", "3")], [move("a", "3"), move("b", "3")])
    assert (found.classification, found.difference) == ("AMBIGUOUS", 3)


def test_two_equal_amounts_of_one_minute_match_by_their_contracts() -> None:
    rows = [line("1", "3", contract="b"), line("2", "3", contract="a")]
    found = grouped(rows, [move("a", "3"), move("b", "3")])
    assert [(g.classification, g.keys) for g in found] == [
        ("MATCHED", ("line:2", "payment:a")),
        ("MATCHED", ("line:1", "payment:b")),
    ]


def test_equal_amounts_out_of_reach_of_each_other_do_not_confuse() -> None:
    apart = [NOON + timedelta(days=3 * n) for n in range(5)]
    rows = [line(str(n), "3", at) for n, at in enumerate(apart)]
    moves = [move(str(n), "3", at + timedelta(hours=20)) for n, at in enumerate(apart)]
    assert {group.classification for group in grouped(rows, moves)} == {"MATCHED"}


def test_one_line_for_several_transactions_needs_a_declared_group() -> None:
    batch = [line("1", "12", kind="Settlement", reference="b7")]
    moves = [move(c, a, references=("b7",)) for c, a in (("a", "5"), ("b", "7"))]
    declared = rules_of(
        {"groups": [{"line": "Settlement", "kinds": ["payment"], "by": "reference"}]}
    )
    assert one(batch, moves).classification == "AMBIGUOUS"
    found = one(batch, moves, rules=declared)
    assert (found.rule, found.classification, len(found.movements)) == ("group", "MATCHED", 2)


def test_a_declared_day_matches_only_when_the_sums_agree() -> None:
    declared = rules_of({"groups": [{"line": "Settlement", "kinds": ["payment"], "by": "day"}]})
    moves = [move("a", "5"), move("b", "7", NOON + timedelta(hours=3))]
    found = one([line("1", "12", kind="Settlement")], moves, rules=declared)
    assert (found.rule, found.classification) == ("group", "MATCHED")
    found_less = grouped([line("1", "11", kind="Settlement")], moves, rules=declared)
    assert {g.classification for g in found_less} == {"MISSING_IN_LEDGER", "MISSING_AT_PROVIDER"}


def test_a_transaction_without_movement_states_why() -> None:
    row = [line("1", "5", contract="c")]
    known = {"c": KnownTransaction("c", "payout", "failed", None)}
    assert one(row, [], known=known).classification == "STATUS"
    assert (
        one(row, [], known={"c": KnownTransaction("c", "payout", "conflict", None)}).classification
        == "CONFLICT"
    )
    assert (
        one(
            row, [], known={"c": KnownTransaction("c", "payout", "completed", "XUSD")}
        ).classification
        == "CURRENCY"
    )
    assert one([], [move("c", "5")], elsewhere={"c": "USD"}).classification == "CURRENCY"


def test_a_second_transaction_for_one_line_is_an_internal_duplicate() -> None:
    rows = [line("1", "5", contract="a")]
    moves = [move("a", "5", idempotency="i"), move("b", "5", idempotency="i")]
    assert [g.classification for g in grouped(rows, moves)] == ["MATCHED", "DUPLICATE_INTERNAL"]


def test_what_was_matched_by_hand_stays_together() -> None:
    rows, moves = [line("1", "5", contract="x")], [move("c", "5")]
    by_hand = ManualMatch("contract:x", ("line:1", "payment:c"), 9)
    found = one(rows, moves, manual=(by_hand,))
    assert (found.anchor, found.rule, found.classification) == ("contract:x", "hand", "MATCHED")
    later = ManualMatch("contract:y", ("line:1", "payment:d"), 10)
    moves.append(move("d", "5"))
    assert [g.rule for g in grouped(rows, moves, manual=(later, by_hand))] == ["none", "hand"]


def many(rng: random.Random) -> tuple[list[StatementItem], list[LedgerMovement]]:
    lines, moves = [], []
    for n in range(300):
        at = NOON + timedelta(minutes=rng.randrange(20_000))
        amount = str(rng.randrange(1, 12))
        name = {
            0: {"contract": f"c{n}"}, 1: {"idempotency": f"i{n % 70}"}, 2: {"reference": f"r{n}"},
            3: {},
        }[rng.randrange(4)]  # fmt: skip
        if rng.random() < 0.9:
            lines.append(line(str(n), amount, at, **name))
        if rng.random() < 0.9:
            moves.append(move(f"c{n}", amount, at, idempotency=f"i{n % 70}", references=(f"r{n}",)))
    return lines, moves


@pytest.mark.parametrize("seed", range(8))
def test_the_order_of_import_changes_nothing_and_nothing_is_matched_twice(seed: int) -> None:
    rng = random.Random(seed)
    print("seed", seed)
    lines, moves = many(rng)
    first = grouped(lines, moves)
    keys = [key for group in first for key in group.keys]
    assert len(keys) == len(set(keys))
    assert set(keys) == {each.key for each in [*lines, *moves]}
    for _ in range(3):
        rng.shuffle(lines)
        rng.shuffle(moves)
        assert grouped(lines, moves) == first


def result(
    lines: list[StatementItem],
    moves: list[LedgerMovement],
    *decided: LatestDecision,
    opening: str = "0",
) -> Result:
    closing = Decimal(opening) + sum(each.amount for each in lines)
    legs = sum(leg[1] for each in moves for leg in each.legs)
    posted = sum(each.posted for each in decided)
    return build_result(
        "straitsx",
        "XSGD",
        coverage=Coverage(PERIOD, Decimal(opening), closing, ("f" * 64,)),
        ledger=LedgerBalances(sum((d.before for d in decided), Decimal(0)), legs + posted),
        groups=grouped(lines, moves),
        decisions={each.break_id: each for each in decided},
        rules=RULES,
    )


def decision(
    anchor: str, posted: str, action: str = "write_off", before: str = "0"
) -> LatestDecision:
    name = break_id_of("straitsx", "XSGD", anchor)
    return LatestDecision(
        name, anchor, action, "ann", "", 5, NOON, Decimal(posted), Decimal(before)
    )


def test_the_closing_identity_holds_before_and_after_decisions() -> None:
    lines = [line("1", "100", contract="a"), line("2", "5", contract="x")]
    moves = [move("a", "100"), move("c", "7")]
    before = result(lines, moves)
    assert before.state == "BREAKS"
    assert [before.figures[n] for n in ("difference", "breaks", "in_transit", "residual")] == [
        "2", "2", "0", "0",
    ]  # fmt: skip
    after = result(lines, moves, decision("contract:x", "5"), decision("contract:c", "-7"))
    assert (after.state, after.figures["difference"], after.figures["residual"]) == (
        "RECONCILED", "0", "0",
    )  # fmt: skip
    assert [each.state for each in after.breaks] == ["RESOLVED", "RESOLVED"]


def test_a_surplus_is_a_break_as_much_as_a_shortage() -> None:
    assert result([line("1", "5", contract="x")], []).state == "BREAKS"
    assert result([], [move("c", "5")]).state == "BREAKS"


def test_errors_that_cancel_out_are_still_found() -> None:
    found = result([line("1", "5", contract="x")], [move("c", "5")])
    assert (found.state, found.figures["difference"], found.figures["breaks_count"]) == (
        "BREAKS", "0", 2,
    )  # fmt: skip


def test_a_decision_that_does_not_fit_any_more_ends_nothing() -> None:
    found = result([line("1", "5", contract="x")], [], decision("contract:x", "4"))
    (only,) = found.breaks
    assert (only.state, only.gap, found.figures["residual"]) == ("OPEN", -1, "0")
    gone = result([], [], decision("contract:x", "4"))
    assert [each.items for each in gone.breaks] == [
        (f"adjustment:{break_id_of('straitsx', 'XSGD', 'contract:x')}",)
    ]
    assert (gone.state, gone.figures["residual"]) == ("BREAKS", "0")


def test_an_opening_balance_that_the_books_do_not_have_is_a_break() -> None:
    found = result([], [], opening="10")
    assert [(each.type, each.difference) for each in found.breaks] == [("OPENING", -10)]
    assert found.breaks[0].detail == (
        "the books begin with 0, the first statement with 10; import the statements before it, "
        "begin at a later one (`since`), or write the difference off"
    )
    assert found.figures["residual"] == "0"
    paid = result([], [], decision("opening", "10", before="10"), opening="10")
    assert (paid.state, paid.figures["residual"]) == ("RECONCILED", "0")


def test_lines_that_do_not_lead_to_the_closing_balance_are_incomplete() -> None:
    found = build_result(
        "straitsx", "XSGD", coverage=Coverage(PERIOD, Decimal(0), Decimal(9), ("f" * 64,)),
        ledger=LedgerBalances(Decimal(0), Decimal(5)), decisions={}, rules=RULES,
        groups=grouped([line("1", "5", contract="a")], [move("a", "5")]),
    )  # fmt: skip
    assert (found.state, found.figures["chain"]) == ("INCOMPLETE", "4")


def test_the_same_things_give_the_same_digest() -> None:
    lines, moves = many(random.Random(1))
    assert result(lines, moves).sha256 == result(lines[::-1], moves[::-1]).sha256
    assert result(lines, moves).sha256 != result(lines[1:], moves).sha256


def test_ages_fall_into_four_buckets() -> None:
    days = [0, 1, 2, 3, 4, 7, 8, 400]
    assert [bucket_of(timedelta(days=d)) for d in days] == [
        "0-1d", "0-1d", "2-3d", "2-3d", "4-7d", "4-7d", ">7d", ">7d",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "declared",
    [
        {"tolerances": {}},
        {"tolerance": {"XSGD": 0.01}},
        {"settlement_hours": "24"},
        {"since": "2026-06-01"},
        {"since": "last month"},
        {"settlement_hours": True},
        {"difference_account": "assets:wallet:available"},
        {"groups": [{"line": "x", "kinds": [], "by": "luck"}]},
    ],
)
def test_rules_that_are_not_understood_are_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        rules_of(declared)


@pytest.mark.parametrize("contract", [None, "c00000"])
def test_very_many_equal_lines_take_no_more_than_their_number(contract: str | None) -> None:
    """Each pair of 30,000 compared would take minutes."""
    count = 30_000
    rows = [line(f"{n:05}", "10", contract=contract) for n in range(count)]
    moves = [move(f"c{n:05}", "10") for n in range(count)]
    begun = time.process_time()
    found = grouped(rows, moves)
    assert time.process_time() - begun < 10
    assert sum(len(group.lines) for group in found) == count
    assert sum(group.ledger_amount for group in found) == 10 * count
