"""History, journal entries, balances and exceptions: what is written event by event."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from decimal import Decimal

from ledger.fold.journal import add_up
from ledger.model import RETRY, Entry, FoldResult, Issue, Leg, changed
from projections import balances, exceptions
from tests.property.driver import LATER, again, at, attribute, event_id, keep, money, one, word


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


OUTCOME = FoldResult(
    source="straitsx", position=7, event_id="ab" * 16, kind="unreadable", resource_id="",
    status="unreadable", received_at=at(1), recorded_at=at(2), fact=None,
)  # fmt: skip


def test_history_states_every_fact_in_log_order() -> None:
    first = money("payment", "completed", 5, idempotency_id="i1")
    second = money("payment", "pending", 3)
    books = one(first, second)
    received = [LATER + timedelta(seconds=n) for n in (1, 2)]
    assert books.tables["history"] == [
        ("straitsx", "payment", "contract_1", 1, event_id(first), "completed", "i1",
         at(5), received[0], received[0]),
        ("straitsx", "payment", "contract_1", 2, event_id(second), "pending", None,
         at(3), received[1], received[1]),
    ]  # fmt: skip


def test_history_takes_our_time_where_the_provider_gives_none() -> None:
    books = one(word("limits", "", None, details={"limits": {}}))
    assert books.tables["history"][0][7] == LATER + timedelta(seconds=1)


def test_decisions_are_no_history() -> None:
    fact = money("payout", "completed")
    books = one(fact, money("payout", "failed"), keep(fact, 1))
    assert [row[3] for row in books.tables["history"]] == [1, 2]


def test_the_journal_holds_what_each_event_changed() -> None:
    books = one(money("payout", "pending", 1), money("payout", "completed", 2))
    lines = [(r[1], r[2], r[5], str(r[7]), r[8]) for r in books.tables["entries"]]
    assert lines == [
        (1, 1, "assets:wallet:available", "-102", at(1)),
        (1, 2, "assets:wallet:held", "102", at(1)),
        (2, 1, "assets:wallet:available", "102", at(1)),
        (2, 2, "assets:wallet:held", "-102", at(1)),
        (2, 3, "assets:wallet:available", "-102", at(2)),
        (2, 4, "equity:merchant", "100", at(2)),
        (2, 5, "expenses:fees", "2", at(2)),
    ]
    assert {r[3:5] for r in books.tables["entries"]} == {("payout", "contract_1")}
    assert {r[6] for r in books.tables["entries"]} == {"XSGD"}


def test_a_repeated_fact_writes_nothing_into_the_journal() -> None:
    books = one(money("payout", "completed", 2), money("payout", "pending", 1))
    assert {row[1] for row in books.tables["entries"]} == {1}


def test_a_return_that_changes_its_payment_is_journalled_at_the_payouts_position() -> None:
    payment = money("payment", "completed", 9, resource_id="p", details={"returned_ids": ["i1"]},
                    fees=Decimal(0))  # fmt: skip
    payout = money("payout", "failed", 1, idempotency_id="i1", customer_id="customer_7")
    entries = one(payment, payout).tables["entries"]
    assert [(r[1], r[4], r[5], str(r[7])) for r in entries[2:]] == [
        (2, "p", "equity:merchant", "100"),
        (2, "p", "liabilities:customers:customer_7", "-100"),
    ]


def test_lines_at_an_event_that_is_not_the_transactions_own_leave_an_echo() -> None:
    payment = money("payment", "completed", 9, resource_id="p", details={"returned_ids": ["i1"]},
                    fees=Decimal(0))  # fmt: skip
    payout = money("payout", "failed", 1, idempotency_id="i1", customer_id="customer_7")
    assert one(payment, payout).tables["echoes"] == [("straitsx", "payment", "p", 2)]
    fact = money("payout", "completed")
    decided = one(fact, money("payout", "failed"), keep(fact, 1))
    assert decided.tables["echoes"] == [("straitsx", "payout", "contract_1", 3)]
    assert one(money("payout", "pending"), money("payout", "completed")).tables["echoes"] == []


def test_history_and_echoes_name_every_position_of_a_transactions_lines() -> None:
    payment = money("payment", "completed", 9, resource_id="p", details={"returned_ids": ["i1"]})
    payout = money("payout", "pending", 1, idempotency_id="i1", customer_id="customer_7")
    done = again(payout, status="completed")
    failed = again(payout, status="failed")
    books = one(payment, payout, done, failed, keep(done, 3), payment)
    stated = {(row[1], row[2], row[3]) for row in books.tables["history"]}
    stated |= {(row[1], row[2], row[3]) for row in books.tables["echoes"]}
    assert {(row[3], row[4], row[1]) for row in books.tables["entries"]} <= stated


def test_a_withdrawn_leg_leaves_debits_and_credits_as_if_it_had_never_been() -> None:
    both = one(money("payout", "pending", 1), money("payout", "completed", 2))
    alone = one(money("payout", "completed", 2))
    shown = {key: sums for key, sums in both.sums.items() if any(sums)}
    assert shown == alone.sums
    assert both.sums["assets:wallet:held", "XSGD"] == (0, 0)


def test_balances_add_up_the_lines_of_one_event() -> None:
    def entry(line: int, amount: int, debits: int, credited: int) -> Entry:
        leg = Leg(at(line), "equity:merchant", "XSGD", Decimal(amount))
        return Entry(line, "payment", "p", leg, Decimal(debits), Decimal(credited))

    outcome = changed(OUTCOME, entries=(entry(1, 5, 5, 0), entry(2, -3, 0, 3)))
    account = ("straitsx", "equity:merchant", "XSGD")
    assert add_up(balances.PROJECTION.rows(outcome), 3) == {account: [Decimal(5), Decimal(3)]}
    cancelled = changed(OUTCOME, entries=(entry(1, 5, 5, 0), entry(2, -5, -5, 0)))
    assert add_up(balances.PROJECTION.rows(cancelled), 3) == {account: [Decimal(0), Decimal(0)]}


def test_an_events_own_exception_is_named_by_its_position() -> None:
    issue = Issue("unreadable", "not JSON")
    outcome = changed(OUTCOME, opened=[("unreadable", "", issue)])
    assert exceptions.PROJECTION.rows(outcome) == [
        (
            "straitsx", digest("straitsx|7|unreadable"), 7, "opened", "unreadable", "not JSON",
            "unreadable", "", "ab" * 16, at(2), None,
        )
    ]  # fmt: skip


def test_a_streams_exception_is_named_by_stream_and_reason_and_ends_when_its_cause_does() -> None:
    fact = money("payout", "completed")
    books = one(fact, money("payout", "failed"), keep(fact, 1))
    name = digest("straitsx|payout|contract_1|conflict")
    opened, cleared, resolved = books.tables["exceptions"]
    assert opened[:5] == ("straitsx", name, 2, "opened", "conflict")
    assert "decide which one to keep" in opened[5]
    assert opened[6:8] == ("payout", "contract_1")
    assert cleared[:6] == ("straitsx", name, 3, "cleared", "conflict", "")
    assert resolved[1:] == (
        "0123456789abcdef", 3, "resolved", "conflict", "keep", "payout", "contract_1",
        event_id(keep(fact, 1)), LATER + timedelta(seconds=3), "ops: asked the provider",
    )  # fmt: skip


def test_a_lasting_exception_is_opened_once() -> None:
    books = one(
        money("payout", "completed"), money("payout", "failed"), money("payout", "pending", 9)
    )
    assert [row[3] for row in books.tables["exceptions"]] == ["opened"]


def test_a_parked_stream_is_one_exception_at_the_event_that_parked_it() -> None:
    books = one(money("payout", "completed", amount=None), money("payout", "completed"))
    (row,) = books.tables["exceptions"]
    assert row[1:5] == (digest("straitsx|1|parked"), 1, "opened", "parked")
    assert books.tables["history"] == []


def test_every_decision_on_a_stream_is_listed() -> None:
    fact = money("payout", "completed")
    books = one(fact, money("payout", "failed"), keep(fact, 1), keep(fact, None))
    stream = ("straitsx", "payout", "contract_1")
    assert books.tables["decisions"] == [
        (*stream, 3, "keep", "conflict", None, "asked the provider", "ops",
         LATER + timedelta(seconds=3)),
        (*stream, 4, "acknowledge", "conflict", None, "asked the provider", "ops",
         LATER + timedelta(seconds=4)),
    ]  # fmt: skip


def test_a_decision_to_retry_is_listed_and_resolves_nothing() -> None:
    fact = money("payout", "completed")
    retry = changed(keep(fact, None), status=RETRY)
    books = one(fact, retry)
    assert [row[4] for row in books.tables["decisions"]] == [RETRY]
    assert books.tables["exceptions"] == []


def test_attributions_are_listed_whether_or_not_the_stream_is_known_and_are_no_exceptions() -> None:
    fact = money("payout", "completed")
    books = one(attribute(fact, "cust_1"), fact, attribute(fact, "cust_2"), attribute(fact, None))
    assert [(row[3], row[4], row[6]) for row in books.tables["decisions"]] == [
        (1, "attribute", "cust_1"),
        (3, "attribute", "cust_2"),
        (4, "attribute", None),
    ]
    assert books.tables["exceptions"] == []
    assert [row[3] for row in books.tables["history"]] == [2]


def test_an_attribution_of_a_parked_stream_is_listed() -> None:
    parked = money("payout", "completed", amount=None)
    books = one(parked, attribute(parked, "cust_1"))
    assert [row[3:5] for row in books.tables["decisions"]] == [(2, "attribute")]
    assert [row[3] for row in books.tables["exceptions"]] == ["opened"]


def test_a_decision_on_what_has_no_stream_has_no_row() -> None:
    without = changed(keep(money("payout", "completed"), None), details={"exception": "00ff"})
    books = one(without)
    assert books.tables["decisions"] == []
    assert [row[3] for row in books.tables["exceptions"]] == ["resolved"]
