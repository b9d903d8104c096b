"""Returns, attributions, gaps and dates worked out by hand: fold and bookkeeper say the same."""

from __future__ import annotations

from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from ledger.model import Fact, OwnerRule, SourceTerms
from tests.property import naive
from tests.property.driver import STRAITSX, Books, attribute, money, received_at

AVAILABLE = "assets:wallet:available XSGD"
MERCHANT = "equity:merchant XSGD"
RULED = SourceTerms(
    "straitsx", "straitsx", owner_of=OwnerRule("idempotency_id", "^cust-(.+)-[0-9]+$")
)


def customer(name: str) -> str:
    return f"liabilities:customers:{name} XSGD"


def payout(amount: str = "153", status: str = "completed", /, **given: Any) -> Fact:
    known: dict[str, Any] = {"resource_id": "payout_1", "idempotency_id": "po-1"}
    known |= {"amount": Decimal(amount), "fees": Decimal(0)}
    return money("payout", status, 1, **{**known, **given})


def back(amount: str, *names: str, kind: str = "payment", **given: Any) -> Fact:
    """Return a completed incoming transaction whose remarks may name `names`, longest first."""
    known: dict[str, Any] = {"resource_id": f"return_{amount}", "amount": Decimal(amount)}
    known |= {"fees": Decimal(0), "details": {"returned_ids": [*(names or ("po-1",))]}}
    return money(kind, given.pop("status", "completed"), 60, **{**known, **given})


class Both:
    """The books of the fold, and those of the bookkeeper."""

    def __init__(self, *log: Fact, terms: SourceTerms = STRAITSX) -> None:
        self.books = Books(terms).report(*log, batches=[1] * len(log))
        self.accounts = naive.write(log, terms, received_at)
        for key, account in self.accounts.items():
            assert self.books.account(key) == account.summary(), key

    def balances(self) -> dict[str, str]:
        """Return debits minus credits of every account that is not empty."""
        return self.books.balances()

    def about(self, resource: str) -> tuple[set[str], set[str]]:
        """Return the flags and the issues of a transaction."""
        found = [self.accounts[key] for key in self.accounts if key[1] == resource]
        return found[0].flags, found[0].issues

    def returned(self, resource: str = "payout_1") -> tuple[Decimal | None, int]:
        """Return how much of a payout came back, and in how many transactions."""
        found = [self.accounts[key] for key in self.accounts if key[1] == resource]
        return found[0].returned, found[0].returns


def test_seventeen_returns_of_1_to_17_give_the_customer_153_in_both_orders() -> None:
    sent = payout(customer_id="customer_7")
    parts = [back(str(n)) for n in range(1, 18)]
    for log in ([sent, *parts], [*parts, sent], [*parts[:9], sent, *parts[9:]]):
        both = Both(*log)
        assert both.balances() == {}
        assert both.returned() == (Decimal(153), 17)
        assert both.about("payout_1") == ({"returned"}, set())


def test_small_returns_do_not_hide_a_large_one() -> None:
    sent = payout("5000", customer_id="customer_7")
    decoys = [back("0.01", resource_id=f"decoy_{n}") for n in range(16)]
    both = Both(*decoys, sent, back("5000"))
    assert both.balances() == {AVAILABLE: "0.16", customer("customer_7"): "-0.16"}
    assert both.returned() == (Decimal("5000.16"), 17)
    flags = {"returned", "return_exceeds_payout"}
    assert both.about("payout_1") == (flags, {"return_exceeds_payout"})


def test_whoever_a_return_names_keeps_it_until_an_operator_decides() -> None:
    returned, odd = back("153", customer_id="cust_B"), "return_customer_differs"
    for log in permutations([payout(customer_id="cust_A"), returned]):
        both = Both(*log)
        assert both.balances() == {customer("cust_A"): "153", customer("cust_B"): "-153"}
        assert both.about("return_153") == ({"return", odd}, {odd})
        decided = Both(*log, attribute(returned, "cust_A"))
        assert decided.balances() == {}
        assert decided.about("return_153") == ({"return", "attributed_by_decision"}, set())
        undone = Both(*log, attribute(returned, "cust_A"), attribute(returned, None))
        assert undone.balances() == both.balances()
        assert undone.about("return_153") == ({"return", "attribution_undone", odd}, {odd})


def test_a_return_that_is_attributed_is_no_exception_any_more() -> None:
    for log in ([back("153")], [payout("153", "failed"), back("153")],
                [payout(), back("153"), payout(resource_id="payout_2")]):  # fmt: skip
        assert Both(*log).about("return_153")[1] != set()
        both = Both(*log, attribute(back("153"), "cust_B"))
        assert both.about("return_153")[1] == set()
        assert both.balances()[customer("cust_B")] == "-153"


def test_a_return_that_names_the_payouts_customer_or_nobody_is_the_payouts_owners() -> None:
    for named in ("cust_A", None):
        for log in permutations([payout(customer_id="cust_A"), back("153", customer_id=named)]):
            both = Both(*log)
            assert both.balances() == {}
            assert both.about("return_153") == ({"return"}, set())


@pytest.mark.parametrize("kind", ["payout", "user_withdrawal", "fx_payout"])
@pytest.mark.parametrize("name", ["po-1", "out_1"])
def test_every_outgoing_kind_comes_back_by_either_id(kind: str, name: str) -> None:
    sent = money(
        kind, "completed", resource_id="out_1", idempotency_id="po-1", fees=Decimal(0),
        customer_id="cust_A", terms={},
    )  # fmt: skip
    for log in permutations([sent, back("100", name, kind="user_deposit")]):
        both = Both(*log)
        assert both.balances() == {}
        assert both.returned("out_1") == (Decimal(100), 1)
        assert both.accounts["user_deposit", "return_100"].return_of == name


def test_the_longest_known_id_is_the_one_that_is_brought_back() -> None:
    short = payout("1", idempotency_id="po", customer_id="cust_A")
    long = payout("2", idempotency_id="po 1", resource_id="payout_2", customer_id="cust_B")
    returned = back("2", "po 1 x", "po 1", "po")
    for log in permutations([short, long, returned]):
        both = Both(*log)
        assert both.balances() == {customer("cust_A"): "1", AVAILABLE: "-1"}
        assert both.returned("payout_2") == (Decimal(2), 1)
        assert both.returned("payout_1") == (None, 0)


def test_an_unknown_payout_is_an_exception_until_it_is_known() -> None:
    alone = Both(back("153", "po-1 thanks", "po-1"))
    assert alone.balances() == {AVAILABLE: "153", MERCHANT: "-153"}
    assert alone.about("return_153") == ({"return", "return_unmatched"}, {"return_unmatched"})
    assert alone.accounts["payment", "return_153"].return_of == "po-1"
    later = Both(back("153", "po-1 thanks", "po-1"), payout(customer_id="cust_A"))
    assert later.balances() == {}
    assert later.about("return_153") == ({"return"}, set())


def test_remarks_that_name_nothing_are_a_return_of_nothing() -> None:
    named_nothing = back("5", details={"returned_ids": []})
    assert Both(named_nothing).about("return_5")[1] == {"return_unmatched"}
    not_a_return = back("5", details={})
    assert Both(not_a_return).about("return_5") == (set(), set())


def test_two_payouts_with_one_id_leave_the_money_with_whom_the_return_names() -> None:
    one, two = payout(customer_id="cust_A"), payout(resource_id="payout_2", customer_id="cust_A")
    for named, account in ((None, MERCHANT), ("cust_B", customer("cust_B"))):
        both = Both(one, back("153", customer_id=named), two)
        expected = {AVAILABLE: "-153", customer("cust_A"): "306", account: "-153"}
        assert both.balances() == expected
        assert both.about("return_153") == ({"return", "return_ambiguous"}, {"return_ambiguous"})
        assert both.returned() == (None, 0)


def test_a_return_of_a_failed_payout_is_an_exception() -> None:
    sent = payout("153", "failed", customer_id="cust_A")
    for log in permutations([sent, back("153")]):
        both = Both(*log)
        assert both.balances() == {AVAILABLE: "153", customer("cust_A"): "-153"}
        assert both.about("return_153") == ({"return", "return_of_failed"}, {"return_of_failed"})


def test_only_what_is_completed_is_returned_and_only_its_own_currency_added_up() -> None:
    both = Both(
        payout(),
        back("1", status="pending"),
        back("2", status="failed"),
        back("3", currency="XUSD"),
        back("4"),
        back("4", status="refunded"),
        back("5"),
    )
    assert both.returned() == (Decimal(5), 2)
    for resource in ("return_3", "payout_1"):
        assert "return_currency_differs" in both.about(resource)[0]


def test_a_rule_names_the_owner_of_a_payout_and_of_what_comes_back() -> None:
    sent = payout(idempotency_id="cust-c_8-1")
    for log in permutations([sent, back("100", "cust-c_8-1")]):
        both = Both(*log, terms=RULED)
        assert both.balances() == {AVAILABLE: "-53", customer("c_8"): "53"}
        assert both.about("payout_1")[0] == {"attributed_by_rule", "returned"}
        assert both.about("return_100") == ({"partial_return", "return"}, set())


def test_a_decision_comes_before_the_provider_and_the_provider_before_the_rule() -> None:
    ruled = payout(idempotency_id="cust-c_8-1")
    named = payout(idempotency_id="cust-c_8-1", customer_id="c_1")
    decided, undone = attribute(ruled, "c_2"), attribute(ruled, None)
    for log, owner, flags in (
        ([ruled], "c_8", {"attributed_by_rule"}),
        ([named], "c_1", {"owner_rule_differs"}),
        ([named, decided], "c_2", {"attributed_by_decision"}),
        ([ruled, decided], "c_2", {"attributed_by_decision"}),
        ([ruled, decided, undone], "c_8", {"attributed_by_rule", "attribution_undone"}),
        ([decided, ruled], "c_8", {"attributed_by_rule"}),
    ):
        both = Both(*log, terms=RULED)
        assert both.balances() == {AVAILABLE: "-153", customer(owner): "153"}
        assert both.about("payout_1") == (flags, set())


def test_what_fills_a_gap_contradicts_nothing() -> None:
    without = payout("153", "pending", fees=None)
    told = payout("153", "completed", fees=Decimal(2), customer_id="cust_A")
    for log in permutations([without, told, payout("153", "completed", fees=None)]):
        both = Both(*log)
        assert both.balances() == {
            AVAILABLE: "-155", customer("cust_A"): "153", "expenses:fees XSGD": "2",
        }  # fmt: skip
        assert both.about("payout_1") == (set(), set())


def test_fees_of_a_pending_transaction_are_provisional() -> None:
    for log in permutations([payout("153", "pending", fees=Decimal(1)), payout(fees=Decimal(2))]):
        both = Both(*log)
        assert both.balances()["expenses:fees XSGD"] == "2"
        assert both.about("payout_1") == ({"fees_changed"}, set())
    held = Both(payout("153", "pending", fees=Decimal(1)))
    assert held.balances()["assets:wallet:held XSGD"] == "154"


def test_two_customers_or_two_fees_of_what_is_over_contradict_each_other() -> None:
    first = payout(customer_id="cust_A")
    for second in (
        payout(customer_id="cust_B"), payout(fees=Decimal(3)), payout("153", "failed"),
    ):  # fmt: skip
        assert Both(first, second).about("payout_1")[1] == {"conflict"}


def test_a_swap_whose_worth_is_told_later_is_exchanged_at_it() -> None:
    begun = money("swap", "pending", fees=Decimal(0), terms={"target_currency": "USDC"})
    done = money("swap", "completed", 5, fees=Decimal(0))
    for log in permutations([begun, done]):
        assert Both(*log).balances() == {
            AVAILABLE: "-100", "equity:conversion XSGD": "100",
            "assets:wallet:available USDC": "75.16", "equity:conversion USDC": "-75.16",
        }  # fmt: skip


def test_provisional_fees_are_those_that_were_stated_last_whatever_else_was_left_out() -> None:
    terms = {"to_amount": "9", "to_currency": "IDR"}
    stated = [
        money("fx_payout", "pending", minute, fees=fees and Decimal(fees), terms=named)
        for minute, fees, named in ((5, "1", terms), (9, None, {}), (1, "3", {}))
    ]
    for log in permutations(stated):
        both = Both(*log)
        assert both.balances() == {AVAILABLE: "-101", "assets:wallet:held XSGD": "101"}
        assert both.about("contract_1") == (set(), set())


@pytest.mark.parametrize("date_by", ["creation", "receipt"])
def test_a_creation_or_a_receipt_dates_only_what_has_no_time_of_its_own(date_by: str) -> None:
    terms = SourceTerms("straitsx", "straitsx", date_by=date_by)
    own = money("user_deposit", "completed", 9, fees=Decimal(0))
    without = money("user_deposit", "completed", 0, fees=Decimal(0), flags=("dated_by_creation",))
    for log in permutations([own, without]):
        both = Both(*log, terms=terms)
        assert both.about("contract_1") == (set(), set())
        assert {at for at, _, _ in both.accounts["user_deposit", "contract_1"].lines} == {
            own.effective_at
        }
    refunded = money("user_deposit", "refunded", 20, fees=Decimal(0))
    assert Both(without, refunded, terms=terms).about("contract_1")[0] == {f"dated_by_{date_by}"}
