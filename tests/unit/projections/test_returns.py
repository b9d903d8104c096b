"""What the bank sends back of a payout: an incoming transfer that names it in its remarks."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from ledger.model import Fact, OwnerRule, SourceTerms
from tests.property.driver import Books, attribute, money, one, stated

AVAILABLE = "assets:wallet:available"
OF_7 = "liabilities:customers:customer_7"
OF_8 = "liabilities:customers:customer_8"
MERCHANT = "equity:merchant"


def row_of(books: Books, kind: str, resource: str) -> Any:
    return books.rows[kind, resource]


def payout(**given: Any) -> Any:
    known: dict[str, Any] = {"resource_id": "payout_1", "idempotency_id": "idem-1"}
    return money(given.pop("kind", "payout"), "completed", 1, **{**known, **given})


def returning(status: str = "completed", ids: Sequence[str] = ("idem-1",), **given: Any) -> Any:
    known: dict[str, Any] = {"resource_id": "payment_1", "details": {"returned_ids": [*ids]}}
    kind = given.pop("kind", "payment")
    return money(kind, status, 60, **{**known, "fees": Decimal(0), **given})


@pytest.mark.parametrize("kind", ["payout", "user_withdrawal", "fx_payout"])
@pytest.mark.parametrize("by", ["payment", "user_deposit"])
def test_a_return_that_names_no_customer_is_the_payouts_owners(kind: str, by: str) -> None:
    facts = [payout(kind=kind, customer_id="customer_7"), returning(kind=by)]
    for order in permutations(facts):
        books = one(*order)
        row = row_of(books, by, "payment_1")
        assert (row["flags"], row["return_of"]) == (["return"], "idem-1")
        assert row["customer_id"] is None
        assert "returned_ids" not in row["details"]
        assert books.balance(OF_7, "XSGD") == 0
        assert books.balance(AVAILABLE, "XSGD") == -2
        sent = row_of(books, kind, "payout_1")
        assert (sent["status"], sent["flags"]) == ("completed", ["returned"])
        assert sent["details"] == {"returned_amount": "100", "return_count": 1}


def test_a_payout_is_named_by_its_own_id_too() -> None:
    sent = payout(kind="fx_payout", idempotency_id=None, customer_id="customer_7")
    books = one(returning(ids=["payout_1"]), sent)
    assert row_of(books, "payment", "payment_1")["return_of"] == "payout_1"
    assert books.balance(OF_7, "XSGD") == 0


def test_a_return_that_names_the_payouts_customer_is_that_customers() -> None:
    books = one(payout(customer_id="customer_7"), returning(customer_id="customer_7"))
    assert row_of(books, "payment", "payment_1")["flags"] == ["return"]
    assert books.balance(OF_7, "XSGD") == 0


@pytest.mark.parametrize("owner", [None, "customer_7"])
def test_a_return_that_names_another_customer_stays_with_that_one(owner: str | None) -> None:
    for order in permutations([payout(customer_id=owner), returning(customer_id="customer_8")]):
        books = one(*order)
        flags = row_of(books, "payment", "payment_1")["flags"]
        assert flags == ["return", "return_customer_differs"]
        assert books.issues(("payment", "payment_1")) == ["return_customer_differs"]
        assert books.balance(OF_8, "XSGD") == -100
        assert row_of(books, "payout", "payout_1")["details"]["returned_amount"] == "100"


def test_an_operator_decides_whose_return_it_is() -> None:
    sent, came = payout(customer_id="customer_7"), returning(customer_id="customer_8")
    books = one(sent, came, attribute(came, "customer_7"))
    row = row_of(books, "payment", "payment_1")
    assert (row["flags"], row["customer_id"]) == (
        ["attributed_by_decision", "return"],
        "customer_7",
    )
    assert books.issues(("payment", "payment_1")) == []
    assert (books.balance(OF_7, "XSGD"), books.balance(OF_8, "XSGD")) == (0, 0)
    books.report(attribute(came, None))
    assert books.issues(("payment", "payment_1")) == ["return_customer_differs"]
    assert books.balance(OF_8, "XSGD") == -100


@pytest.mark.parametrize("ids", [["idem-9"], []])
def test_a_return_of_nothing_that_is_known_is_an_exception(ids: list[str]) -> None:
    books = one(payout(), returning(ids=ids, customer_id="customer_8"))
    assert row_of(books, "payment", "payment_1")["flags"] == ["return", "return_unmatched"]
    assert row_of(books, "payment", "payment_1")["return_of"] == (ids[0] if ids else None)
    assert books.issues(("payment", "payment_1")) == ["return_unmatched"]
    assert books.balance(OF_8, "XSGD") == -100


def test_a_return_matches_its_payout_when_that_arrives() -> None:
    books = one(returning())
    assert books.balance(MERCHANT, "XSGD") == -100
    books.report(payout(customer_id="customer_7"))
    assert row_of(books, "payment", "payment_1")["flags"] == ["return"]
    assert books.issues(("payment", "payment_1")) == []
    assert (books.balance(MERCHANT, "XSGD"), books.balance(OF_7, "XSGD")) == (0, 0)


def test_the_longest_id_that_is_known_wins_whichever_came_first() -> None:
    facts = [
        payout(resource_id="p1", idempotency_id="po", customer_id="customer_7"),
        payout(resource_id="p2", idempotency_id="po 1", customer_id="customer_8"),
        returning(ids=["po 1 x", "po 1", "po"]),
    ]
    for order in permutations(facts):
        books = one(*order)
        assert row_of(books, "payment", "payment_1")["return_of"] == "po 1"
        assert (books.balance(OF_7, "XSGD"), books.balance(OF_8, "XSGD")) == (100, 0)
        assert "returned" not in row_of(books, "payout", "p1")["flags"]
        assert row_of(books, "payout", "p2")["details"]["return_count"] == 1


def test_remarks_that_name_two_transactions_alike_are_ambiguous() -> None:
    facts = [
        payout(resource_id="p1", idempotency_id="x1", customer_id="customer_7"),
        payout(resource_id="p2", idempotency_id="y1", customer_id="customer_8"),
        returning(ids=["x1", "y1"]),
    ]
    for order in permutations(facts):
        books = one(*order)
        assert books.issues(("payment", "payment_1")) == ["return_ambiguous"]
        assert books.balance(MERCHANT, "XSGD") == -100


def test_the_remarks_of_the_status_that_counts_are_read() -> None:
    facts = [
        payout(resource_id="p1", idempotency_id="x1", customer_id="customer_7"),
        payout(resource_id="p2", idempotency_id="y1", customer_id="customer_8"),
        returning("pending", ids=["x1"]),
        returning(ids=["y1"]),
    ]
    for order in permutations(facts):
        books = one(*order)
        assert row_of(books, "payment", "payment_1")["return_of"] == "y1"
        assert (books.balance(OF_7, "XSGD"), books.balance(OF_8, "XSGD")) == (100, 0)


@pytest.mark.parametrize(
    ("amount", "flags"),
    [("99.99", ["partial_return", "return"]), ("100.01", ["return", "return_exceeds_payout"])],
)
def test_a_return_of_another_amount_is_flagged(amount: str, flags: list[str]) -> None:
    books = one(payout(), returning(amount=Decimal(amount)))
    assert row_of(books, "payment", "payment_1")["flags"] == flags
    assert books.balance(MERCHANT, "XSGD") == 100 - Decimal(amount)


def test_a_return_in_another_wallets_currency_is_flagged() -> None:
    books = one(payout(), returning(currency="XUSD"))
    flags = row_of(books, "payment", "payment_1")["flags"]
    assert flags == ["return", "return_currency_differs"]
    sent = row_of(books, "payout", "payout_1")
    assert sent["flags"] == ["return_currency_differs", "returned"]
    assert sent["details"] == {"returned_amount": "0", "return_count": 1}


def test_currencies_of_a_return_are_compared_as_wallets() -> None:
    terms = SourceTerms("straitsx", "straitsx", wallets={"payout.sgd": "XSGD"})
    books = stated(payout(currency="SGD"), returning(), terms=terms)
    assert row_of(books, "payment", "payment_1")["flags"] == ["return"]
    assert books.balance(MERCHANT, "XSGD") == 0


def test_a_return_of_several_payouts_is_ambiguous_and_its_own_owners() -> None:
    sent = [payout(resource_id=f"payout_{n}", customer_id=f"customer_{n}") for n in range(4)]
    for order in permutations([*sent[:3], returning()]):
        books = one(*order, sent[3])
        assert row_of(books, "payment", "payment_1")["flags"] == ["return", "return_ambiguous"]
        assert books.issues(("payment", "payment_1")) == ["return_ambiguous"]
        assert books.balance(MERCHANT, "XSGD") == -100
        assert row_of(books, "payout", "payout_1")["flags"] == []


def test_a_return_of_a_failed_payout_is_an_exception() -> None:
    sent = money("payout", "failed", 1, resource_id="payout_1", idempotency_id="idem-1")
    for order in permutations([sent, returning()]):
        books = one(*order)
        assert row_of(books, "payment", "payment_1")["flags"] == ["return", "return_of_failed"]
        assert books.issues(("payment", "payment_1")) == ["return_of_failed"]


def test_a_return_of_a_payout_without_a_known_status_is_an_exception() -> None:
    sent = money("payout", "unknown:odd", 1, resource_id="payout_1")
    for order in permutations([sent, returning(ids=["payout_1"])]):
        books = one(*order)
        assert row_of(books, "payment", "payment_1")["flags"] == ["return", "return_of_unknown"]
        assert books.issues(("payment", "payment_1")) == ["return_of_unknown"]
    books.report(attribute(sent, "customer_7"))
    assert books.balance(OF_7, "XSGD") == -100
    assert row_of(books, "payout", "payout_1")["customer_id"] == "customer_7"


def test_a_name_that_drops_out_of_too_many_names_nothing_in_any_order() -> None:
    told = [payout(idempotency_id=name, customer_id="customer_7") for name in "bcdefghi"]
    last, came = payout(idempotency_id="a", customer_id="customer_7"), returning(ids=["i"])
    for log in ([*told, came, last], [*told, last, came], [came, *told, last]):
        books = one(*log)
        assert row_of(books, "payment", "payment_1")["flags"] == ["return", "return_unmatched"]
        assert books.balance(MERCHANT, "XSGD") == -100


def test_two_texts_that_the_rule_reads_in_one_status_are_ambiguous() -> None:
    rule = SourceTerms(
        "straitsx", "straitsx", owner_of=OwnerRule("external_reference", "^cust-(.+)-[0-9]+$")
    )
    facts = [
        payout(idempotency_id=None, details={"external_reference": f"cust-customer_{n}-1"})
        for n in (7, 8)
    ]
    for order in permutations(facts):
        row = row_of(one(*order, terms=rule), "payout", "payout_1")
        assert (row["customer_id"], row["flags"]) == (None, ["owner_ambiguous"])


def test_partial_returns_add_up_on_the_payout() -> None:
    books = one(
        payout(),
        returning(amount=Decimal("30.5")),
        returning(resource_id="payment_2", amount=Decimal("69.6")),
    )
    sent = row_of(books, "payout", "payout_1")
    assert sent["flags"] == ["return_exceeds_payout", "returned"]
    assert sent["details"] == {"returned_amount": "100.1", "return_count": 2}
    assert books.issues(("payout", "payout_1")) == ["return_exceeds_payout"]


def test_a_return_that_is_pending_or_refunded_returns_nothing() -> None:
    books = one(payout(), returning("pending"))
    assert row_of(books, "payout", "payout_1")["flags"] == []
    books.report(returning(), returning("refunded"))
    assert row_of(books, "payout", "payout_1")["flags"] == []
    assert books.balance(MERCHANT, "XSGD") == 100


def many(amounts: Sequence[Decimal]) -> list[Fact]:
    return [
        returning(resource_id=f"payment_{n}", amount=amount) for n, amount in enumerate(amounts)
    ]


@pytest.mark.parametrize("place", [0, 7, 17])
def test_any_number_of_returns_is_the_owners_wherever_the_payout_comes(place: int) -> None:
    returns = many([Decimal(n) for n in range(1, 18)])
    returns.insert(place, payout(customer_id="customer_7", amount=Decimal(200)))
    books = one(*returns)
    assert books.balance(OF_7, "XSGD") == 200 - 153
    assert books.balance(MERCHANT, "XSGD") == 0
    sent = row_of(books, "payout", "payout_1")
    assert sent["details"] == {"returned_amount": "153", "return_count": 17}


def test_decoys_do_not_hide_a_return() -> None:
    decoys = many([Decimal("0.01")] * 20)
    real = returning(resource_id="zzz", amount=Decimal(5000))
    books = one(*decoys, payout(customer_id="customer_7", amount=Decimal(5000)), real)
    assert row_of(books, "payment", "zzz")["flags"] == ["return"]
    sent = row_of(books, "payout", "payout_1")
    assert sent["details"] == {"returned_amount": "5000.2", "return_count": 21}
    assert books.balance(OF_7, "XSGD") == Decimal("-0.2")


def test_what_came_back_is_journalled_as_it_changes() -> None:
    books = one(returning(amount=Decimal(40)), payout(), returning("refunded", amount=Decimal(40)))
    rows = [
        (row[1], row[2], row[3], row[6], str(row[9]), row[10]) for row in books.tables["returns"]
    ]
    assert rows == [
        ("payout", "payout_1", 2, "payment_1", "40", 1),
        ("payout", "payout_1", 3, "payment_1", "-40", -1),
    ]


RULE = SourceTerms(
    "straitsx", "straitsx", owner_of=OwnerRule("idempotency_id", "^cust-(.+)-[0-9]+$")
)


def test_a_rule_names_the_customer_of_a_payout_and_of_what_comes_back() -> None:
    facts = [payout(idempotency_id="cust-customer_7-1"), returning(ids=["cust-customer_7-1"])]
    for order in permutations(facts):
        books = one(*order, terms=RULE)
        sent = row_of(books, "payout", "payout_1")
        assert sent["customer_id"] == "customer_7"
        assert sent["flags"] == ["attributed_by_rule", "returned"]
        assert books.balance(OF_7, "XSGD") == 0


def test_who_is_named_goes_before_the_rule_and_a_decision_before_both() -> None:
    sent = payout(idempotency_id="cust-customer_7-1", customer_id="customer_8")
    books = one(sent, terms=RULE)
    row = row_of(books, "payout", "payout_1")
    assert (row["customer_id"], row["flags"]) == ("customer_8", ["owner_rule_differs"])
    books.report(attribute(sent, "customer_9"))
    row = row_of(books, "payout", "payout_1")
    assert (row["customer_id"], row["flags"]) == ("customer_9", ["attributed_by_decision"])
    assert books.balance("liabilities:customers:customer_9", "XSGD") == 100
    books.report(attribute(sent, None))
    row = row_of(books, "payout", "payout_1")
    flags = ["attribution_undone", "owner_rule_differs"]
    assert (row["customer_id"], row["flags"]) == ("customer_8", flags)


def test_an_attribution_moves_what_came_back_too() -> None:
    sent = payout()
    books = one(*many([Decimal(1)] * 40), sent, attribute(sent, "customer_7"))
    assert books.balance(OF_7, "XSGD") == 60
    assert books.balance(MERCHANT, "XSGD") == 0
