"""What a set of facts says about one transaction: status, flags, conflicts, decisions."""

from __future__ import annotations

from decimal import Decimal
from itertools import permutations
from typing import Any

import msgspec
import pytest

from handlers import straitsx_payout
from ledger.model import Decision, RecordedFact
from projections import factset
from tests.property.driver import Books, again, at, event_id, keep, money, one, stated

PAYOUT = straitsx_payout.MONEY_KIND
AVAILABLE = "assets:wallet:available"
HELD = "assets:wallet:held"
IN = ("payment", "user_deposit")
OUT = ("payout", "user_withdrawal", "fx_payout", "swap", "chain_withdrawal")


def row_of(books: Books, kind: str = "payment", resource: str = "contract_1") -> Any:
    return books.rows[kind, resource]


@pytest.mark.parametrize(
    ("statuses", "status", "flags"),
    [
        (("pending",), "pending", []),
        (("pending", "failed"), "failed", []),
        (("pending", "expired"), "expired", []),
        (("failed", "expired"), "expired", []),
        (("pending", "completed"), "completed", []),
        (("completed", "expired"), "completed", ["completed_after_expiry"]),
        (("completed", "failed"), "completed", ["completed_and_failed"]),
        (("completed", "refunded"), "refunded", []),
        (("completed", "failed", "refunded"), "refunded", []),
        (("pending", "failed", "refunded"), "refunded", []),
        (("refunded", "expired"), "refunded", []),
    ],
)
@pytest.mark.parametrize("kind", IN)
def test_incoming_money_takes_the_highest_status_whatever_the_order(
    kind: str, statuses: tuple[str, ...], status: str, flags: list[str]
) -> None:
    facts = [money(kind, name, n, fees=Decimal(0)) for n, name in enumerate(statuses)]
    for order in permutations(facts):
        row = row_of(one(*order), kind)
        assert (row["status"], row["flags"], row["conflict"]) == (status, flags, None)


def test_a_fee_kept_at_a_refund_is_flagged() -> None:
    books = one(money("payment", "completed", 1), money("payment", "refunded", 2))
    assert row_of(books)["flags"] == ["fee_refund_unknown"]
    assert row_of(one(money("payment", "refunded", 2)))["flags"] == []


@pytest.mark.parametrize("end", ["completed", "failed"])
@pytest.mark.parametrize("kind", [*OUT, "chain_deposit"])
def test_a_late_pending_never_regresses_what_has_ended(kind: str, end: str) -> None:
    done = one(money(kind, end, 5))
    late = one(money(kind, end, 5), money(kind, "pending", 9))
    assert late.rows == done.rows
    assert late.legs() == done.legs()


def test_completed_alone_equals_pending_then_completed_byte_for_byte() -> None:
    for kind in ("payment", *OUT, "chain_deposit"):
        alone = one(money(kind, "completed", 5))
        both = one(money(kind, "pending", 1), money(kind, "completed", 5))
        assert both.meaning() == alone.meaning()


def test_the_row_states_the_time_of_the_fact_that_gives_the_status() -> None:
    books = stated(money("payment", "completed", 7), money("payment", "pending", 30))
    assert row_of(books)["effective_at"] == at(7)


def test_a_restated_fact_keeps_its_earliest_time_and_its_latest_details() -> None:
    early = money("payment", "completed", 3, details={"note": "old"}, flags=("zero_amount",))
    late = money("payment", "completed", 9, details={"note": "new"})
    for order in permutations([early, late]):
        row = row_of(one(*order))
        assert row["effective_at"] == at(3)
        assert row["details"] == {"note": "new"}
        assert row["flags"] == []


def test_of_facts_of_one_time_the_later_in_the_log_gives_the_details() -> None:
    one_way = money("payment", "completed", 3, details={"note": "a"})
    other_way = money("payment", "completed", 3, details={"note": "b"})
    for order in permutations([one_way, other_way]):
        assert row_of(one(*order))["details"] == order[-1].details


def test_details_prefer_a_value_before_none_and_a_real_hash_before_pending() -> None:
    facts = [
        money("chain_withdrawal", "completed", 1, details={"transaction_hash": "0xab", "a": "x"}),
        money("chain_withdrawal", "completed", 2, details={"transaction_hash": "pending"}),
        money("chain_withdrawal", "completed", 3, details={"transaction_hash": None, "a": None}),
        money("chain_withdrawal", "completed", 0, details={"transaction_hash": "0xcd", "a": "y"}),
    ]
    for order in permutations(facts):
        details = row_of(one(*order), "chain_withdrawal")["details"]
        assert details == {"transaction_hash": "0xab", "a": "x"}


def test_the_handlers_flags_of_the_deciding_fact_are_shown() -> None:
    books = stated(money("chain_deposit", "completed", flags=("network_fees_on_deposit",)))
    assert row_of(books, "chain_deposit")["flags"] == ["network_fees_on_deposit"]


def test_the_same_amount_in_another_spelling_is_the_same_fact() -> None:
    books = one(
        money("payout", "pending", amount=Decimal("100.00")),
        money("payout", "completed", amount=Decimal(100), fees=Decimal("2.0")),
    )
    row = row_of(books, "payout")
    assert (row["status"], str(row["amount"]), str(row["fees"])) == ("completed", "100", "2")


def test_a_changed_idempotency_id_is_a_flag_and_no_conflict() -> None:
    facts = [
        money("payout", "pending", 1, idempotency_id="b"),
        money("payout", "completed", 2, idempotency_id="a"),
    ]
    for order in permutations(facts):
        row = row_of(one(*order), "payout")
        assert (row["status"], row["flags"]) == ("completed", ["idempotency_id_changed"])
        assert row["idempotency_id"] == "a"
        assert row["details"] == {"idempotency_ids": ["a", "b"]}


def test_an_unknown_status_moves_nothing_and_is_an_exception() -> None:
    books = one(money("payment", "unknown:On Hold", 4))
    row = row_of(books)
    assert (row["status"], row["amount"], row["effective_at"]) == ("unknown:On Hold", None, at(4))
    assert books.legs() == []
    assert books.issues(("payment", "contract_1")) == ["unknown_status"]


def test_an_unknown_status_does_not_hide_a_known_one() -> None:
    books = one(money("payment", "completed", 1), money("payment", "unknown:Frozen", 9))
    assert row_of(books)["status"] == "completed"
    assert books.balance(AVAILABLE, "XSGD") == 98
    assert books.issues(("payment", "contract_1")) == ["unknown_status"]
    assert [row[5] for row in books.tables["history"]] == ["completed", "unknown:Frozen"]


def test_a_status_of_another_kind_is_unknown() -> None:
    books = one(money("payout", "refunded"))
    assert books.issues(("payout", "contract_1")) == ["unknown_status"]


# conflicts


def test_completed_and_failed_of_outgoing_money_is_a_conflict_and_is_parked() -> None:
    for kind in OUT:
        for first, second in permutations(("completed", "failed")):
            books = one(money(kind, first, 3), money(kind, second, 8))
            row = row_of(books, kind)
            assert row["status"] == "conflict"
            assert row["effective_at"] == at(3)
            assert row["conflict"]["reason"] == "terminals_disagree"
            assert row["conflict"]["fields"] == ["status"]
            assert books.balances() == {f"{AVAILABLE} XSGD": "-102", f"{HELD} XSGD": "102"}
            assert {leg[0] for leg in books.legs()} == {at(3).isoformat()}


def test_a_conflict_lists_its_facts_in_log_order() -> None:
    first = money("fx_payout", "completed", 9)
    second = money("fx_payout", "failed", 3, customer_id="customer_7", fees=None)
    books = one(first, second)
    assert row_of(books, "fx_payout")["conflict"] == {
        "reason": "terminals_disagree",
        "fields": ["status"],
        "facts": [
            {
                "position": 1,
                "event_id": event_id(first),
                "status": "completed",
                "amount": "100",
                "currency": "XSGD",
                "fees": "2",
                "customer_id": None,
                "to_amount": "1583250",
                "to_currency": "IDR",
            },
            {
                "position": 2,
                "event_id": event_id(second),
                "status": "failed",
                "amount": "100",
                "currency": "XSGD",
                "fees": None,
                "customer_id": "customer_7",
                "to_amount": "1583250",
                "to_currency": "IDR",
            },
        ],
    }


def test_a_blockchain_deposit_both_completed_and_failed_is_only_announced() -> None:
    books = one(money("chain_deposit", "completed", 3), money("chain_deposit", "failed", 8))
    assert row_of(books, "chain_deposit")["status"] == "conflict"
    assert books.balances() == {"memo:incoming XSGD": "100", "memo:incoming:contra XSGD": "-100"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": Decimal(101)}, "amount"),
        ({"currency": "SGD"}, "currency"),
        ({"customer_id": "customer_7"}, "customer_id"),
        ({"terms": {"target_amount": "75", "target_currency": "USDC"}}, "target_amount"),
    ],
)
def test_other_material_is_a_conflict_and_the_first_fact_is_shown(
    change: dict[str, Any], field: str
) -> None:
    first = money("swap", "pending", 1, customer_id="customer_3")
    books = one(first, again(first, status="completed", **change))
    row = row_of(books, "swap")
    assert row["status"] == "conflict"
    assert row["conflict"]["reason"] == "material_differs"
    assert row["conflict"]["fields"] == [field]
    values = [fact[field] for fact in row["conflict"]["facts"]]
    (detail,) = [each[5] for each in books.tables["exceptions"]]
    places = "pending ({}) at 1, completed ({}) at 2; decide".format(*values)
    assert detail.startswith(f"the facts differ in {field}: {places}")
    assert (row["amount"], row["currency"], row["fees"]) == (100, "XSGD", 2)
    assert row["customer_id"] == "customer_3"
    assert books.balances() == {f"{AVAILABLE} XSGD": "-102", f"{HELD} XSGD": "102"}
    assert books.issues(("swap", "contract_1")) == ["conflict"]


def test_final_fees_that_differ_are_a_conflict() -> None:
    first = money("payment", "completed", 1)
    books = one(first, again(first, status="refunded", fees=Decimal(3)))
    assert row_of(books)["conflict"]["fields"] == ["fees"]


def test_what_a_fact_leaves_open_another_one_may_fill() -> None:
    named = {"target_amount": "75.16", "target_currency": "USDC"}
    facts = [
        money("swap", "pending", 1, fees=None, terms={"target_currency": "USDC"}),
        money("swap", "completed", 2, terms=named),
        money("swap", "completed", 3, terms=named, customer_id="customer_7", fees=None),
    ]
    for order in permutations(facts):
        books = one(*order)
        row = row_of(books, "swap")
        assert (row["status"], row["conflict"]) == ("completed", None)
        assert (row["customer_id"], row["fees"], row["flags"]) == ("customer_7", 2, [])
        assert row["effective_at"] == at(2)
        assert books.balance("liabilities:customers:customer_7", "USDC") == Decimal("-75.16")
        assert books.balance("equity:conversion", "USDC") == 0


@pytest.mark.parametrize("kind", OUT)
def test_the_fees_of_a_pending_transaction_are_provisional(kind: str) -> None:
    facts = [
        money(kind, "pending", 1, fees=Decimal(5)),
        money(kind, "pending", 2, fees=Decimal(7)),
        money(kind, "completed", 3, fees=Decimal(2)),
    ]
    for order in permutations(facts[:2]):
        books = one(*order)
        assert (row_of(books, kind)["fees"], row_of(books, kind)["flags"]) == (7, [])
        assert books.balance(HELD, "XSGD") == 107
    for order in permutations(facts):
        books = one(*order)
        row = row_of(books, kind)
        assert (row["status"], row["fees"], row["flags"]) == ("completed", 2, ["fees_changed"])
        assert books.balance(HELD, "XSGD") == 0


def test_fees_that_only_pending_knows_are_posted_and_flagged() -> None:
    books = one(money("payout", "pending", 1), money("payout", "completed", 2, fees=None))
    row = row_of(books, "payout")
    assert (row["fees"], row["flags"]) == (2, ["fees_provisional"])


def test_a_completion_is_dated_by_creation_only_where_no_callback_has_another_time() -> None:
    by_creation = money("user_deposit", "completed", 1, flags=("dated_by_creation",))
    row = row_of(one(by_creation), "user_deposit")
    assert (row["effective_at"], row["flags"]) == (at(1), ["dated_by_creation"])
    for order in permutations([by_creation, again(by_creation, effective_at=at(9), flags=())]):
        row = row_of(one(*order), "user_deposit")
        assert (row["effective_at"], row["flags"]) == (at(9), [])
    by_receipt = again(by_creation, effective_at=at(5), flags=("dated_by_receipt",))
    for order in permutations([by_receipt, again(by_creation, effective_at=at(9), flags=())]):
        row = row_of(one(*order), "user_deposit")
        assert (row["effective_at"], row["flags"]) == (at(9), [])
    named = again(by_creation, effective_at=at(9), flags=(), customer_id="customer_7")
    for order in permutations([by_creation, named]):
        row = row_of(one(*order), "user_deposit")
        assert (row["effective_at"], row["flags"]) == (at(9), [])


def test_a_refund_without_a_time_of_its_own_comes_after_the_completion() -> None:
    facts = [
        money("payment", "completed", 9),
        money("payment", "refunded", 1, flags=("dated_by_creation",)),
    ]
    for order in permutations(facts):
        books = one(*order)
        assert row_of(books)["effective_at"] == at(9)
        assert {moment for moment, *_ in books.legs()} == {at(9).isoformat()}


def test_a_contradicted_payment_is_only_announced() -> None:
    books = one(
        money("payment", "completed", 1),
        money("payment", "completed", 2, amount=50 + 0 * Decimal(1)),
    )
    assert row_of(books)["status"] == "conflict"
    assert books.balances() == {"memo:incoming XSGD": "100", "memo:incoming:contra XSGD": "-100"}


def test_fees_that_are_not_known_contradict_nothing() -> None:
    books = one(money("payout", "pending", 1, fees=None), money("payout", "completed", 2))
    row = row_of(books, "payout")
    assert (row["status"], row["fees"], row["flags"]) == ("completed", 2, [])


def test_a_conflict_stops_no_other_transaction() -> None:
    other = money("payout", "completed", resource_id="contract_2")
    books = one(money("payout", "completed"), money("payout", "failed"), other)
    assert row_of(books, "payout", "contract_2")["status"] == "completed"
    assert books.balance("equity:merchant", "XSGD") == 100


def test_facts_beyond_the_bound_are_counted_and_not_kept() -> None:
    facts = [
        money("payment", "completed", n, amount=Decimal(n + 1))
        for n in range(factset.FACTS_MAX + 3)
    ]
    books = stated(*facts)
    key = ("payment", "contract_1")
    state = msgspec.convert(books.stored(key).state, factset.FactSet)
    assert len(state.facts) == len(state.materials) == factset.FACTS_MAX
    assert state.dropped == 3
    assert books.issues(key) == ["too_many_facts", "conflict"]


def test_a_fact_stated_a_thousand_times_stays_small() -> None:
    books = stated(*[money("payment", "completed", n) for n in range(1000)])
    state = msgspec.convert(books.stored(("payment", "contract_1")).state, factset.FactSet)
    assert len(state.facts) == 1
    positions = state.facts[0].positions
    assert len(positions) == factset.POSITIONS_MAX
    assert (positions[0], positions[-1]) == (1, 1000)


def test_details_stated_again_and_again_replace_each_other() -> None:
    facts = [
        money("payment", "completed", n, details={"merchant_ref": f"ref {n}"}) for n in range(9)
    ]
    pending = money("payment", "pending", 0, details={"merchant_ref": "ref 0"})
    books = stated(pending, *facts)
    state = msgspec.convert(books.stored(("payment", "contract_1")).state, factset.FactSet)
    assert [stated["merchant_ref"] for stated in state.details] == ["ref 0", "ref 8"]
    assert books.rows["payment", "contract_1"]["details"] == {"merchant_ref": "ref 8"}


# decisions


def test_a_decision_lets_the_kept_end_stand() -> None:
    completed, failed = money("payout", "completed", 3), money("payout", "failed", 8)
    for position, status in ((1, "completed"), (2, "failed")):
        books = one(completed, failed, keep(completed, position))
        alone = one([completed, failed][position - 1])
        row = row_of(books, "payout")
        assert (row["status"], row["conflict"], row["flags"]) == (status, None, ["decided"])
        assert books.legs() == alone.legs()
        assert books.issues(("payout", "contract_1")) == []


def test_a_decision_drops_facts_of_other_material_only() -> None:
    books = one(
        money("payout", "pending", 1),
        money("payout", "completed", 2, amount=Decimal(90)),
        money("payout", "completed", 3),
    )
    books.report(keep(money("payout", "pending"), 2))
    row = row_of(books, "payout")
    assert (row["status"], row["amount"], row["effective_at"]) == ("completed", 90, at(2))
    assert books.balance(AVAILABLE, "XSGD") == -92


def test_keeping_what_is_not_an_end_does_not_choose_between_two_ends() -> None:
    books = one(
        money("payout", "pending", 1), money("payout", "completed", 2), money("payout", "failed", 3)
    )
    books.report(keep(money("payout", "pending"), 1))
    assert row_of(books, "payout")["status"] == "conflict"


def test_acknowledging_changes_no_money() -> None:
    books = one(money("payout", "completed"), money("payout", "failed"))
    before = (books.legs(), row_of(books, "payout"))
    books.report(keep(money("payout", "failed"), None))
    assert (books.legs(), row_of(books, "payout")) == before


def test_a_later_contradiction_of_a_decision_moves_nothing_and_is_an_exception() -> None:
    completed, failed = money("payout", "completed", 3), money("payout", "failed", 8)
    books = one(completed, failed, keep(completed, 1))
    before = books.legs()
    books.report(money("payout", "failed", 8, details={"failure_reason": "told again"}))
    assert books.legs() == before
    assert row_of(books, "payout")["status"] == "completed"
    assert books.issues(("payout", "contract_1")) == ["conflict_after_decision"]


def test_what_agrees_with_a_decision_later_still_counts() -> None:
    kept = money("payment", "completed", 3)
    books = one(kept, money("payment", "completed", 4, amount=Decimal(90)), keep(kept, 1))
    books.report(money("payment", "refunded", 9))
    assert row_of(books)["status"] == "refunded"
    assert books.balances() == {f"{AVAILABLE} XSGD": "-2", "expenses:fees XSGD": "2"}


def test_a_second_decision_replaces_the_first() -> None:
    completed, failed = money("payout", "completed", 3), money("payout", "failed", 8)
    books = one(completed, failed, keep(completed, 1), keep(completed, 2))
    assert row_of(books, "payout")["status"] == "failed"
    assert books.balances() == {}


def test_a_decision_on_no_event_of_the_stream_is_an_exception() -> None:
    completed = money("payout", "completed")
    books = one(completed, money("payout", "failed"), keep(completed, 99))
    assert row_of(books, "payout")["status"] == "conflict"
    assert books.issues(("payout", "contract_1")) == ["decision_not_applied", "conflict"]


def test_a_decision_may_name_any_telling_of_the_fact_it_keeps() -> None:
    completed = money("payout", "completed", 3)
    books = one(completed, money("payout", "failed", 8), again(completed, effective_at=at(9)))
    books.report(keep(completed, 3))
    assert row_of(books, "payout")["status"] == "completed"


def test_deciding_changes_a_copy_of_the_state() -> None:
    fact = money("payout", "completed")
    state = factset.fold(PAYOUT, None, RecordedFact(fact, 1, "e", at(0), at(0)))
    decided = factset.decide(state, Decision("conflict", 1, 2))
    assert (state.keep, decided.keep) == (None, 1)
