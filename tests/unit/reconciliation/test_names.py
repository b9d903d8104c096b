"""Lines and transactions are the same by every name that either side has, and never by a guess."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ledger.config.reconciliation import rules_of
from ledger.reconciliation.items import (
    Group,
    KnownTransaction,
    LedgerMovement,
    Period,
    StatementItem,
)
from ledger.reconciliation.matching import Matching
from ledger.reconciliation.names import SHARED_MAX
from tests.unit.reconciliation.test_matching import NOON, classified, grouped, line, move, one

DAY = timedelta(days=1)
UUID = "5f0c52a6-1a0b-4d3e-9c11-7e5f6a7b8c9d"


def kinds(groups: list[Group]) -> list[str]:
    return sorted(group.classification for group in groups)


@pytest.mark.parametrize(
    ("movement", "name", "anchor"),
    [
        ({}, "contract_1", "contract:contract_1"),
        ({"idempotency": "idem-1"}, "idem-1", "idempotency:idem-1"),
        ({"references": ("INV-0001", "E2E-9")}, "INV-0001", "reference:INV-0001"),
        ({"references": ("INV-0001", "E2E-9")}, "E2E-9", "reference:E2E-9"),
    ],
)
def test_any_name_of_a_line_matches_any_name_of_a_transaction(
    movement: dict[str, Any], name: str, anchor: str
) -> None:
    moves = [move("contract_1", "7", **movement), move("contract_2", "7")]
    found = grouped([line("1", "7", NOON + 20 * DAY, names=("bank-ref", name))], moves)
    assert (anchor, anchor.partition(":")[0], "MATCHED") in classified(found)
    assert kinds(found) == ["MATCHED", "MISSING_AT_PROVIDER"]


def test_a_name_that_is_known_is_about_its_transaction_whatever_the_amount() -> None:
    found = one([line("1", "8", names=("idem-1",))], [move("c", "7", idempotency="idem-1")])
    assert (found.classification, found.difference) == ("AMOUNT", -1)


def test_a_name_that_nobody_knows_counts_as_none() -> None:
    moves = [move("c", "7")]
    for names in ({"names": ("bank-1",)}, {"idempotency": "x"}, {"reference": "y"}):
        found = one([line("1", "7", **names)], moves)  # type: ignore[arg-type]
        assert (found.rule, found.classification) == ("amount", "MATCHED")
    found_two = grouped([line("1", "7", contract="x", names=("bank-1",))], moves)
    assert kinds(found_two) == ["MISSING_AT_PROVIDER", "MISSING_IN_LEDGER"]


def test_an_unknown_contract_never_takes_the_place_of_a_transaction_by_another_name() -> None:
    rows = [line("1", "7", contract="x", idempotency="idem-1")]
    found = grouped(rows, [move("c", "7", idempotency="idem-1")])
    assert kinds(found) == ["MISSING_AT_PROVIDER", "MISSING_IN_LEDGER"]


def test_a_line_that_names_what_moved_nothing_here_never_matches_by_amount() -> None:
    known = {"idem-9": KnownTransaction("d", "payout", "failed", None)}
    rows = [line("1", "7", names=("idem-9",)), line("2", "-1", kind="Fee", names=("idem-9",))]
    found = grouped(rows, [move("c", "7")], known=known)
    assert classified(found) == [
        ("contract:c", "none", "MISSING_AT_PROVIDER"),
        ("contract:d", "none", "STATUS"),
    ]


def test_the_line_of_a_batch_is_all_the_transactions_that_it_names() -> None:
    moves = [move("a", "5", idempotency="idem-a"), move("b", "7", references=("E2E-b",)),
             move("c", "5")]  # fmt: skip
    batch = line("1", "12", NOON + 9 * DAY, names=("MSG", "idem-a", "E2E-b"))
    found = grouped([batch], moves)
    assert classified(found) == [
        ("batch:1", "batch", "MATCHED"),
        ("contract:c", "none", "MISSING_AT_PROVIDER"),
    ]
    wrong = grouped([line("1", "11", names=("idem-a", "E2E-b"))], moves)
    (found_wrong,) = [group for group in wrong if group.rule == "batch"]
    assert (found_wrong.classification, found_wrong.difference) == ("AMOUNT", 1)
    assert found_wrong.keys == ("line:1", "payment:a", "payment:b")


def test_all_lines_that_name_a_transaction_belong_to_it() -> None:
    rows = [
        line("1", "100", contract="c"),
        line("2", "-1", names=("idem-1",), kind="NCHG"),
    ]
    found = one(rows, [move("c", "99", fee="1", idempotency="idem-1")])
    assert (found.anchor, found.classification, len(found.lines)) == ("contract:c", "MATCHED", 2)


@pytest.mark.parametrize(
    ("stated", "booked"),
    [
        (UUID.upper(), UUID),
        (UUID.replace("-", ""), UUID),
        (f"{UUID[:18]} {UUID[18:]}", UUID),
        (UUID[:16], UUID),
        ("contract 0d1f2a3b4c5d6e7f", "contract_0d1f2a3b4c5d6e7f8a9b"),
    ],
)
def test_a_name_is_known_as_banks_spell_it(stated: str, booked: str) -> None:
    moves = [move("c", "7", idempotency=booked), move("d", "7", idempotency="another-name")]
    found = grouped([line("1", "7", names=(stated,))], moves)
    assert classified(found)[1:] == [(f"idempotency:{booked}", "idempotency", "MATCHED")]


def test_the_beginning_of_two_names_is_the_name_of_neither() -> None:
    moves = [move("c", "7", idempotency=f"{UUID}-1"), move("d", "8", idempotency=f"{UUID}-2")]
    found = grouped([line("1", "9", names=(UUID,))], moves)
    assert kinds(found) == ["MISSING_AT_PROVIDER", "MISSING_AT_PROVIDER", "MISSING_IN_LEDGER"]


def test_a_short_name_needs_the_amount_as_well() -> None:
    moves = [move("c", "7", references=("12",))]
    assert one([line("1", "7", NOON + 9 * DAY, names=("12",))], moves).rule == "reference"
    assert kinds(grouped([line("1", "8", names=("12",))], moves)) == [
        "MISSING_AT_PROVIDER", "MISSING_IN_LEDGER",
    ]  # fmt: skip


def test_transactions_that_share_a_name_are_told_apart_by_sign_then_by_amount() -> None:
    moves = [
        move("out", "-100", kind="payout", idempotency="idem-1"),
        move("back", "95", NOON + DAY, references=("idem-1",)),
    ]
    rows = [line("1", "-100", names=("idem-1",)), line("2", "95", NOON + DAY, names=("idem-1",))]
    assert {g.keys for g in grouped(rows, moves)} == {
        ("line:1", "payout:out"), ("line:2", "payment:back"),
    }  # fmt: skip
    shop = [move(f"c{n}", str(n), references=("QR",)) for n in range(1, 5)]
    sold = [line(str(n), str(n), reference="QR") for n in range(1, 5)]
    assert kinds(grouped(sold, shop)) == ["MATCHED"] * 4
    assert kinds(grouped([*sold, line("5", "1", reference="QR")], shop)) == [
        "DUPLICATE_PROVIDER", *["MATCHED"] * 4,
    ]  # fmt: skip


def test_a_name_of_very_many_transactions_names_none() -> None:
    moves = [move(f"c{n}", str(n + 1), references=("ALL",)) for n in range(SHARED_MAX + 1)]
    found = grouped([line("1", "999", names=("ALL",))], moves)
    assert kinds(found) == ["MISSING_AT_PROVIDER"] * (SHARED_MAX + 1) + ["MISSING_IN_LEDGER"]
    assert "MATCHED" in kinds(grouped([line("1", "7", names=("ALL",))], moves))


@pytest.mark.parametrize(
    ("stated", "booked", "rules", "is_matched"),
    [
        ("2026-06-08T00:00+00:00", "2026-06-05T18:00+00:00", {}, True),  # Friday's on Monday
        ("2026-06-08T00:00+00:00", "2026-06-04T18:00+00:00", {}, False),  # not Thursday's
        ("2026-06-08T09:00+00:00", "2026-06-05T18:00+00:00", {}, True),
        ("2026-06-08T09:00+00:00", "2026-06-05T08:00+00:00", {}, False),
        ("2026-06-08T00:00+00:00", "2026-06-05T18:00+00:00", {"weekend": []}, False),
        ("2026-06-07T00:00+00:00", "2026-06-05T18:00+00:00", {}, True),  # booked on a Sunday
        ("2026-06-05T00:00+00:00", "2026-06-05T23:59+00:00", {"weekend": []}, True),
        ("2026-06-09T00:00+00:00", "2026-06-05T18:00+00:00", {"holidays": ["2026-06-08"]}, True),
        ("2026-06-09T00:00+00:00", "2026-06-05T18:00+00:00", {}, False),
    ],
)
def test_days_are_business_days(
    stated: str, booked: str, rules: dict[str, Any], is_matched: bool
) -> None:
    rows = [line("1", "7", NOON.fromisoformat(stated))]
    moves = [move("c", "7", NOON.fromisoformat(booked))]
    june = Period(NOON.fromisoformat("2026-06-01T00:00+00:00"),
                  NOON.fromisoformat("2026-07-01T00:00+00:00"))  # fmt: skip
    matching = Matching.of(june, rules_of({"calendar": rules}), rows, moves)
    matching.match()
    assert [g.classification for g in matching.groups] == (["MATCHED"] if is_matched else [])


def item(description: str, amount: str = "-20", kind: str = "", **more: Any) -> StatementItem:
    return line("1", amount, kind=kind, description=description, **more)


@pytest.mark.parametrize(
    ("row", "is_possible"),
    [
        (item("", kind="Account Fee"), False),
        (item("", kind="NCHG"), False),
        (item("", kind="ACMT-MDOP-CHRG"), False),
        (item("Account Fee"), False),
        (item("MONTHLY SERVICE CHARGE"), False),
        (item("COMMISSION ON REMITTANCE"), False),
        (item("Account maintenance June"), False),
        (item("KONTOFÜHRUNGSGEBÜHR 06/2026"), False),
        (item("Entgelt Buchungen"), False),
        (item("FRAIS DE TENUE DE COMPTE"), False),
        (item("Stamp duty"), False),
        (item("", kind="NINT"), False),
        (item("", kind="ACMT-MDOP-INTR"), False),
        (item("WITHHOLDING TAX ON INTEREST"), False),
        (item("COFFEE BEANS PTE LTD"), True),
        (item("supplier 12"), True),
    ],
)
def test_a_fee_row_never_matches_by_amount_what_is_no_fee(
    row: StatementItem, is_possible: bool
) -> None:
    found = grouped([row], [move("c", "-20", kind="payout")])
    expected = ["MATCHED"] if is_possible else ["MISSING_AT_PROVIDER", "MISSING_IN_LEDGER"]
    assert kinds(found) == expected


def test_a_payment_for_somebodys_fees_is_no_fee_where_it_is_named() -> None:
    rows = [item("Tuition fees", "-2000", names=("idem-1",))]
    found = one(rows, [move("c", "-2000", kind="payout", idempotency="idem-1")])
    assert found.classification == "MATCHED"


def test_a_nameless_line_may_be_the_amount_before_the_fee() -> None:
    moves = [move("c", "99", fee="1")]
    assert one([line("1", "99")], moves).classification == "MATCHED"
    with_row = one([line("1", "100"), line("2", "-1", kind="Fee")], moves)
    assert (with_row.classification, len(with_row.lines)) == ("MATCHED", 2)
    assert kinds(grouped([line("1", "100")], moves)) == ["FEE", "MATCHED"]
    assert kinds(grouped([line("1", "100"), line("2", "99")], moves)) == ["AMBIGUOUS"]


@pytest.mark.parametrize(
    ("stated", "booked", "days"),
    [
        ("PAYOUT-2026-0601-1", "PAYOUT-2026-0601-10", 10),
        ("PAYOUT-2026-0601-1", "PAYOUT-2026-0601-10", 0),
        ("INV-2026-11-2", "INV-2026-1-12", 10),
        ("INV-2026-11-2", "INV-2026-1-12", 0),
        ("INV-2026-112", "INV-2026-1-12", 10),
        ("PAYOUT-2026-06-1", "PAYOUT-2026-06-10", 10),
        ("E2E-123456", "E2E-999999", 0),
        ("E2E 123456", "e2e-99", 0),
    ],
)
@pytest.mark.parametrize("amount", ["7", "8"])
def test_two_numbers_of_a_series_are_not_the_same_thing(
    stated: str, booked: str, days: int, amount: str
) -> None:
    moves = [move("c", amount, NOON + days * DAY, references=(booked,))]
    found = grouped([line("1", "7", reference=stated)], moves)
    assert kinds(found) == ["MISSING_AT_PROVIDER", "MISSING_IN_LEDGER"]


@pytest.mark.parametrize(
    ("stated", "booked"),
    [
        ("PAYOUT-2026-0601", "PAYOUT-2026-0601-12"),
        ("inv 2026112", "INV-2026-1-12"),
        ("INV2026-1-12", "INV-2026-1-12"),
    ],
)
def test_a_number_of_a_series_that_banks_spell_otherwise_needs_amount_and_time(
    stated: str, booked: str
) -> None:
    rows = [line("1", "7", names=(stated,)), line("2", "7")]
    moves = [move("c", "7", references=(booked,)), move("d", "7")]
    assert kinds(grouped(rows, moves)) == ["MATCHED", "MATCHED"]


def test_a_short_reference_needs_the_amount_or_the_time() -> None:
    rows = [line("1", "-55", reference="1234")]
    late = [move("c", "-900", NOON + 12 * DAY, references=("1234",))]
    assert kinds(grouped(rows, late)) == ["MISSING_AT_PROVIDER", "MISSING_IN_LEDGER"]
    same_day = [move("c", "-900", references=("1234",))]
    assert kinds(grouped(rows, same_day)) == ["AMOUNT"]
    refunded = LedgerMovement(
        "payment",
        "c",
        ((NOON, Decimal(100)), (NOON + 12 * DAY, Decimal(-30))),
        references=("1234",),
    )
    parts = [
        line("1", "100", reference="1234"),
        line("2", "-30", NOON + 12 * DAY, reference="1234"),
    ]
    assert kinds(grouped(parts, [refunded])) == ["MATCHED"]


def days_of(numbers: str, hour: int = 0) -> list[datetime]:
    return [NOON.replace(day=int(number), hour=hour) for number in numbers.split()]


@pytest.mark.parametrize(
    ("stated", "booked", "expected"),
    [
        ("11 12 13", "11 12 13", {"MATCHED": 3}),
        ("11 12 13", "11 13", {"MATCHED": 2, "MISSING_IN_LEDGER": 1}),
        ("11 13", "11 12 13", {"MATCHED": 2, "MISSING_AT_PROVIDER": 1}),
        ("11 12 12 13", "11 12 12 13", {"MATCHED": 2, "AMBIGUOUS": 1}),
        ("11 12 12 13", "11 12 13", {"MATCHED": 2, "AMBIGUOUS": 1}),
        ("11 12 14", "11 13 14", {"MATCHED": 2, "AMBIGUOUS": 1}),
        ("11 11", "11 11", {"AMBIGUOUS": 1}),
    ],
)
@pytest.mark.parametrize("names", [{}, {"reference": "QR"}])
def test_equal_amounts_of_every_day_match_by_their_day(
    stated: str, booked: str, expected: dict[str, int], names: dict[str, Any]
) -> None:
    rows = [line(str(n), "10", at, **names) for n, at in enumerate(days_of(stated))]
    references = (names["reference"],) if names else ()
    moves = [move(str(n), "10", at, references=references)
             for n, at in enumerate(days_of(booked, 9))]  # fmt: skip
    found = grouped(rows, moves)
    if not names:
        assert Counter(kinds(found)) == expected
    for group in found if not names else ():
        days = {each.at.day for each in group.lines} | {m.legs[0][0].day for m in group.movements}
        assert group.classification != "MATCHED" or len(days) == 1
    if expected == {"MATCHED": 3}:
        assert kinds(found) == ["MATCHED"] * 3


@pytest.mark.parametrize(
    ("amount", "fee", "at", "expected"),
    [
        ("100", "-1", NOON, ["AMOUNT", "FEE"]),
        ("150", "-50", NOON, ["MATCHED"]),
        ("150", "-50", NOON.replace(hour=0), ["MATCHED"]),
        ("150", "-51", NOON, ["FEE", "MATCHED"]),
        ("100", "-20", NOON.replace(hour=0), ["MATCHED", "MISSING_IN_LEDGER"]),
        ("100", "-20", NOON + timedelta(hours=1), ["MATCHED", "MISSING_IN_LEDGER"]),
    ],
)
def test_a_nameless_fee_row_belongs_to_the_line_of_its_time(
    amount: str, fee: str, at: datetime, expected: list[str]
) -> None:
    begun = NOON if at.hour else at
    rows = [line("1", amount, begun, reference="INV-00001"), line("2", fee, at, kind="Fee")]
    moves = [move("c", "100", fee="50", references=("INV-00001",))]
    assert kinds(grouped(rows, moves)) == expected


def test_nameless_fee_rows_of_one_day_belong_to_the_lines_of_their_fee() -> None:
    rows = [line(f"{n}", f"{n}00", reference=f"INV-0000{n}") for n in (1, 2)]
    rows += [line(f"fee {n}", f"-{n}", kind="Fee") for n in (1, 2, 7)]
    moves = [move(f"c{n}", f"{n * 99}", fee=f"{n}", references=(f"INV-0000{n}",)) for n in (1, 2)]
    assert kinds(grouped(rows, moves)) == ["MATCHED", "MATCHED", "MISSING_IN_LEDGER"]
