"""A payout that the bank sends back: a new payment that names the payout in its remarks."""

from __future__ import annotations

from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from ledger.model import RecordedFact, SourceTerms
from projections import factset, transactions
from tests.property.driver import Books, at, money, one, stated

AVAILABLE = "assets:wallet:available"


def row_of(books: Books, kind: str, resource: str) -> Any:
    return books.rows[kind, resource]


def payout(**given: Any) -> Any:
    known: dict[str, Any] = {"resource_id": "payout_1", "idempotency_id": "idem-1"}
    return money("payout", "completed", 1, **{**known, **given})


def returning(status: str = "completed", **given: Any) -> Any:
    known: dict[str, Any] = {"resource_id": "payment_1", "details": {"return_of": "idem-1"}}
    return money("payment", status, 60, **{**known, "fees": Decimal(0), **given})


def test_a_return_credits_the_payouts_owner_whichever_came_first() -> None:
    facts = [payout(customer_id="customer_7"), returning(customer_id="customer_8")]
    for order in permutations(facts):
        books = one(*order)
        row = row_of(books, "payment", "payment_1")
        assert (row["flags"], row["return_of"]) == (["return"], "idem-1")
        assert row["customer_id"] == "customer_8"
        assert books.balances() == {f"{AVAILABLE} XSGD": "-2", "expenses:fees XSGD": "2"}
        sent = row_of(books, "payout", "payout_1")
        assert (sent["status"], sent["flags"]) == ("completed", ["returned"])
        assert sent["details"] == {"returns": ["payment_1"], "returned_amount": "100"}


def test_a_return_of_the_merchants_payout_is_the_merchants() -> None:
    books = one(payout(), returning(customer_id="customer_8"))
    assert books.balance("equity:merchant", "XSGD") == 0
    assert books.balance("liabilities:customers:customer_8", "XSGD") == 0


def test_a_return_of_no_known_payout_is_flagged_and_its_own_owners() -> None:
    books = one(returning(customer_id="customer_8"))
    assert row_of(books, "payment", "payment_1")["flags"] == ["return", "return_unmatched"]
    assert books.balance("liabilities:customers:customer_8", "XSGD") == -100


def test_a_return_matches_its_payout_when_that_arrives() -> None:
    books = one(returning(customer_id="customer_8"))
    books.report(payout(customer_id="customer_7"))
    assert row_of(books, "payment", "payment_1")["flags"] == ["return"]
    assert books.balance("liabilities:customers:customer_8", "XSGD") == 0
    assert books.balance("liabilities:customers:customer_7", "XSGD") == 0


@pytest.mark.parametrize(
    ("amount", "flags"),
    [("99.99", ["partial_return", "return"]), ("100.01", ["return", "return_exceeds_payout"])],
)
def test_a_return_of_another_amount_is_flagged(amount: str, flags: list[str]) -> None:
    books = one(payout(), returning(amount=Decimal(amount)))
    assert row_of(books, "payment", "payment_1")["flags"] == flags
    assert books.balance("equity:merchant", "XSGD") == 100 - Decimal(amount)


def test_a_return_in_another_wallets_currency_is_flagged() -> None:
    books = one(payout(), returning(currency="XUSD"))
    flags = row_of(books, "payment", "payment_1")["flags"]
    assert flags == ["return", "return_currency_differs"]
    assert row_of(books, "payout", "payout_1")["details"]["returned_amount"] == "0"


def test_currencies_of_a_return_are_compared_as_wallets() -> None:
    terms = SourceTerms("straitsx", "straitsx", wallets={"payout.sgd": "XSGD"})
    books = stated(payout(currency="SGD"), returning(), terms=terms)
    assert row_of(books, "payment", "payment_1")["flags"] == ["return"]
    assert books.balance("equity:merchant", "XSGD") == 0


def test_a_return_of_two_payouts_is_ambiguous_and_its_own_owners() -> None:
    twin = payout(resource_id="payout_2", customer_id="customer_9")
    books = one(payout(customer_id="customer_7"), returning(), twin)
    assert row_of(books, "payment", "payment_1")["flags"] == ["return", "return_ambiguous"]
    assert books.balance("equity:merchant", "XSGD") == -100
    for name in ("payout_1", "payout_2"):
        assert row_of(books, "payout", name)["flags"] == ["return_ambiguous"]


def test_partial_returns_add_up_on_the_payout() -> None:
    books = one(
        payout(),
        returning(amount=Decimal("30.5")),
        returning(resource_id="payment_2", amount=Decimal("69.6")),
    )
    sent = row_of(books, "payout", "payout_1")
    assert sent["flags"] == ["return_exceeds_payout", "returned"]
    assert sent["details"] == {"returns": ["payment_1", "payment_2"], "returned_amount": "100.1"}


def test_a_return_that_is_pending_or_refunded_returns_nothing() -> None:
    books = one(payout(), returning("pending"))
    assert row_of(books, "payout", "payout_1")["flags"] == []
    books.report(returning(), returning("refunded"))
    assert row_of(books, "payout", "payout_1")["flags"] == []
    assert books.balance("equity:merchant", "XSGD") == 100


def test_only_payouts_and_payments_are_linked() -> None:
    fact = money("user_withdrawal", "completed", idempotency_id="idem-1", resource_id="w")
    books = one(fact, returning())
    assert row_of(books, "payment", "payment_1")["flags"] == ["return", "return_unmatched"]
    assert set(books.links) == {"payout:idem-1"}


def test_a_payout_given_as_related_to_itself_is_no_twin() -> None:
    states = {}
    for position, fact in enumerate((payout(), returning()), 1):
        states[fact.kind] = factset.fold(None, RecordedFact(fact, position, "e", at(0), at(0)))
    related = [states["payment"], states["payout"], states["payment"]]
    row = transactions.PROJECTION.view(states["payout"], related, SourceTerms("s", "p")).row
    assert row["flags"] == ["returned"]
