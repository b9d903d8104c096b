"""What is posted for every kind in every state, fees included."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ledger.fold.journal import Unbalanced, check_balanced
from ledger.model import SourceTerms
from projections.postings import exact, settle
from tests.property.driver import GOKART, at, money, one, stated, word

AVAILABLE = "assets:wallet:available"
HELD = "assets:wallet:held"
MERCHANT = "equity:merchant"
CUSTOMER = "liabilities:customers:customer_7"

ANNOUNCED = {"memo:incoming XSGD": "100", "memo:incoming:contra XSGD": "-100"}
CREDITED = {f"{AVAILABLE} XSGD": "98", f"{MERCHANT} XSGD": "-100", "expenses:fees XSGD": "2"}
ON_HOLD = {f"{AVAILABLE} XSGD": "-102", f"{HELD} XSGD": "102"}
PAID = {f"{AVAILABLE} XSGD": "-102", f"{MERCHANT} XSGD": "100", "expenses:fees XSGD": "2"}

IN = ("payment", "user_deposit")
OUT = ("payout", "user_withdrawal", "fx_payout", "swap", "chain_withdrawal")

RULES = [
    *[((kind, "pending"), ANNOUNCED) for kind in (*IN, "chain_deposit")],
    *[((kind, "failed"), ANNOUNCED) for kind in IN],
    *[((kind, "completed"), CREDITED) for kind in IN],
    *[((kind, "refunded"), {}) for kind in IN],
    *[((kind, "expired"), {}) for kind in IN],
    *[((kind, "pending"), ON_HOLD) for kind in OUT],
    *[((kind, "failed"), {}) for kind in (*OUT, "chain_deposit")],
    *[((kind, "completed"), PAID) for kind in ("payout", "user_withdrawal")],
    (
        ("fx_payout", "completed"),
        PAID | {"equity:conversion IDR": "1583250", "memo:beneficiary IDR": "-1583250"},
    ),
    (
        ("swap", "completed"),
        {
            f"{AVAILABLE} XSGD": "-102",
            "equity:conversion XSGD": "100",
            "expenses:fees XSGD": "2",
            f"{AVAILABLE} USDC": "75.16",
            "equity:conversion USDC": "-75.16",
        },
    ),
    (("chain_deposit", "completed"), {f"{AVAILABLE} XSGD": "100", f"{MERCHANT} XSGD": "-100"}),
    (
        ("chain_withdrawal", "completed"),
        {f"{AVAILABLE} XSGD": "-102", f"{MERCHANT} XSGD": "100", "expenses:network_fees XSGD": "2"},
    ),
]


@pytest.mark.parametrize(("case", "balances"), RULES, ids=lambda value: "-".join(value))
def test_every_state_of_every_kind_has_its_posting(
    case: tuple[str, str], balances: dict[str, str]
) -> None:
    kind, status = case
    assert stated(money(kind, status)).balances() == dict(sorted(balances.items()))


@pytest.mark.parametrize("kind", ["payment", "payout", "user_deposit", "chain_withdrawal"])
def test_money_of_a_named_customer_is_the_customers(kind: str) -> None:
    balances = stated(money(kind, "completed", customer_id="customer_7")).balances()
    sign = "-" if kind in {"payment", "user_deposit"} else ""
    assert balances[f"{CUSTOMER} XSGD"] == f"{sign}100"
    assert f"{MERCHANT} XSGD" not in balances


def test_a_customers_swap_goes_through_the_customers_account() -> None:
    assert stated(money("swap", "completed", customer_id="customer_7")).balances() == {
        f"{AVAILABLE} USDC": "75.16",
        f"{AVAILABLE} XSGD": "-102",
        "expenses:fees XSGD": "2",
        f"{CUSTOMER} USDC": "-75.16",
        f"{CUSTOMER} XSGD": "100",
    }


@pytest.mark.parametrize("kind", IN)
def test_a_refund_after_completion_takes_the_gross_back_and_keeps_the_fee(kind: str) -> None:
    books = stated(money(kind, "completed", 5), money(kind, "refunded", 9))
    assert books.balances() == {f"{AVAILABLE} XSGD": "-2", "expenses:fees XSGD": "2"}
    assert books.legs() == [
        (at(5).isoformat(), AVAILABLE, "XSGD", "98"),
        (at(5).isoformat(), MERCHANT, "XSGD", "-100"),
        (at(5).isoformat(), "expenses:fees", "XSGD", "2"),
        (at(9).isoformat(), AVAILABLE, "XSGD", "-100"),
        (at(9).isoformat(), MERCHANT, "XSGD", "100"),
    ]


@pytest.mark.parametrize("kind", IN)
def test_a_refund_without_completion_moves_nothing_once_it_is_known(kind: str) -> None:
    books = one(money(kind, "pending", 1), money(kind, "failed", 2), money(kind, "refunded", 3))
    assert books.balances() == {}
    assert books.legs() == []
    assert len(books.tables["entries"]) == 4, "announced, and taken back"


def test_a_hold_stands_at_the_time_of_pending_and_vanishes_with_the_outcome() -> None:
    books = one(money("payout", "pending", 3))
    assert books.legs() == [
        (at(3).isoformat(), AVAILABLE, "XSGD", "-102"),
        (at(3).isoformat(), HELD, "XSGD", "102"),
    ]
    books.report(money("payout", "completed", 8))
    assert {leg[0] for leg in books.legs()} == {at(8).isoformat()}
    assert books.balance(HELD, "XSGD") == 0


def test_a_failed_payout_releases_its_hold() -> None:
    assert one(money("payout", "pending", 1), money("payout", "failed", 2)).balances() == {}


def test_unknown_fees_post_nothing_and_are_flagged() -> None:
    books = stated(money("payout", "completed", fees=None))
    assert books.balances() == {f"{AVAILABLE} XSGD": "-100", f"{MERCHANT} XSGD": "100"}
    row = books.rows["payout", "contract_1"]
    assert (row["fees"], row["flags"]) == (None, ["fees_unknown"])


def test_fees_that_become_known_are_posted_at_the_time_of_completion() -> None:
    books = one(money("payout", "completed", 1, fees=None), money("payout", "completed", 4))
    assert books.balances() == PAID
    assert {leg[0] for leg in books.legs()} == {at(1).isoformat()}
    assert books.rows["payout", "contract_1"]["flags"] == []


def test_nothing_is_posted_for_an_amount_of_zero() -> None:
    assert stated(money("payment", "completed", amount=Decimal(0), fees=Decimal(0))).legs() == []


def test_the_configured_wallet_is_moved_and_named_in_the_details() -> None:
    terms = SourceTerms("straitsx", "straitsx", wallets={"payout.sgd": "XSGD"})
    books = stated(money("payout", "completed", currency="SGD"), terms=terms)
    assert books.balances() == PAID
    row = books.rows["payout", "contract_1"]
    assert (row["currency"], row["details"]) == ("SGD", {"wallet": "XSGD"})


def test_a_wallet_map_of_one_kind_leaves_the_others_alone() -> None:
    terms = SourceTerms("straitsx", "straitsx", wallets={"payout.sgd": "XSGD"})
    books = stated(money("payment", "completed", currency="SGD"), terms=terms)
    assert books.balance(AVAILABLE, "SGD") == 98
    assert books.rows["payment", "contract_1"]["details"] == {}


def test_both_sides_of_a_swap_move_their_configured_wallets() -> None:
    terms = SourceTerms("s", "straitsx", wallets={"swap.xsgd": "SGD", "swap.usdc": "USD"})
    books = stated(money("swap", "completed"), terms=terms)
    assert books.balance(AVAILABLE, "SGD") == -102
    assert books.balance(AVAILABLE, "USD") == Decimal("75.16")


def test_thirty_eight_digits_are_posted_without_rounding() -> None:
    amount = Decimal("99999999999999999999.999999999999999999")
    fees = Decimal("0.000000000000000001")
    books = one(
        money("payout", "pending", 1, amount=amount, fees=fees),
        money("payout", "completed", 2, amount=amount, fees=fees),
    )
    assert str(books.balance(MERCHANT, "XSGD")) == str(amount)
    assert books.balance("expenses:fees", "XSGD") == fees
    assert books.balance(AVAILABLE, "XSGD") == -(10**20)


def test_a_successful_conversion_earns_revenue_and_owes_points() -> None:
    details = {"reward_points": "45", "member": "m-1", "event": "", "callback_id": "c1"}
    fact = word("conversion", "Success", 1, amount=Decimal("60.5"), currency="USD", details=details)
    assert stated(fact, terms=GOKART).balances() == {
        "assets:receivable:gokart USD": "60.5",
        "expenses:rewards PTS": "45",
        "income:conversions USD": "-60.5",
        "liabilities:members:m-1 PTS": "-45",
    }


@pytest.mark.parametrize("status", ["Pending", "Rejected"])
def test_a_conversion_that_is_not_successful_moves_nothing(status: str) -> None:
    fact = word("conversion", status, 1, amount=Decimal(60), currency="USD")
    assert stated(fact, terms=GOKART).legs() == []


def test_points_without_a_member_wait_in_suspense() -> None:
    details = {"reward_points": "45", "member": None}
    fact = word("conversion", "Success", 1, amount=Decimal(0), currency="USD", details=details)
    assert stated(fact, terms=GOKART).balances() == {
        "expenses:rewards PTS": "45",
        "suspense PTS": "-45",
    }


def test_legs_that_do_not_balance_are_refused() -> None:
    with pytest.raises(Unbalanced, match="leave 1"):
        check_balanced(
            settle([(at(0), "a", "XSGD", Decimal(3)), (at(0), "b", "XSGD", Decimal(-2))])
        )


def test_legs_that_balance_only_across_days_are_refused() -> None:
    with pytest.raises(Unbalanced, match="leave"):
        check_balanced(
            settle([(at(0), "a", "XSGD", Decimal(3)), (at(1), "b", "XSGD", Decimal(-3))])
        )


@pytest.mark.parametrize(
    ("value", "spelled"),
    [("100.00", "100"), ("1E+3", "1000"), ("-0", "0"), ("0.10", "0.1"), ("0E-9", "0")],
)
def test_an_amount_has_one_spelling(value: str, spelled: str) -> None:
    assert str(exact(Decimal(value))) == spelled


@pytest.mark.parametrize("amount", ["-1", "NaN", "Infinity"])
def test_an_amount_that_cannot_be_posted_parks_its_stream(amount: str) -> None:
    books = stated(money("payment", "completed", amount=Decimal(amount)))
    assert books.parked == {("payment", "contract_1")}
    assert books.balances() == {}
