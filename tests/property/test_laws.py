"""The laws of the books, on the real fold, for whatever a provider may send."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from os import environ
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import registry
from ledger.fold.states import links_of
from ledger.model import Fact, RecordedFact, SourceTerms, changed, total
from tests.property import naive
from tests.property.driver import STRAITSX, Books, at, keep, money, received_at
from tests.property.other_folds import in_pages, lines_of, offline, rebuilt
from tests.property.stories import (
    MONEY_KINDS,
    PAID_OUT,
    REFUNDABLE,
    all_terms,
    any_logs,
    attributions,
    batchings,
    contradictions,
    placed,
    returns,
    stories,
    terms,
    transactions,
    troubled_stories,
)

law = settings(
    max_examples=int(environ.get("LAW_EXAMPLES", "150")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
ENDED = {"completed", "refunded", "expired"}


def _resource(stream: list[Fact]) -> str:
    return stream[0].resource_id


def fold(facts: Iterable[Fact], source: SourceTerms = STRAITSX, batches: Any = ()) -> Books:
    return Books(source).report(*facts, batches=batches)


@law
@given(stories(), terms, batchings, st.data())
def test_any_order_and_duplication_and_batching_means_the_same_byte_for_byte(
    facts: list[Fact], source: SourceTerms, batches: list[int], data: st.DataObject
) -> None:
    _same_in_any_order(facts, source, batches, data)


@law
@given(returns(), terms, batchings, st.data())
def test_any_number_of_returns_means_the_same_in_any_order(
    streams: list[list[Fact]], source: SourceTerms, batches: list[int], data: st.DataObject
) -> None:
    facts = [fact for stream in streams for fact in stream]
    if facts:
        _same_in_any_order(facts, source, batches, data)


def _same_in_any_order(
    facts: list[Fact], source: SourceTerms, batches: list[int], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(facts), max_size=4), label="duplicates")
    decisions = data.draw(attributions(facts), label="decisions")
    first = data.draw(placed(facts, decisions), label="log")
    other = data.draw(placed(facts + again, decisions), label="other log")
    assert fold(other, source, batches).meaning() == fold(first, source).meaning()


@law
@given(any_logs(), terms, batchings)
def test_entries_balance_at_every_position_and_on_every_date(
    facts: list[Fact], source: SourceTerms, batches: list[int]
) -> None:
    books = fold(facts, source, batches)
    sums: dict[Any, list[Decimal]] = defaultdict(list)
    dated: dict[Any, list[Decimal]] = defaultdict(list)
    for _, position, _, _, _, _, currency, amount, effective_at, *_ in books.tables["entries"]:
        assert amount != 0
        sums[position, effective_at, currency].append(amount)
        dated[effective_at, currency].append(amount)
    assert not any(total(*amounts) for amounts in (*sums.values(), *dated.values()))


@law
@given(any_logs(), terms, batchings)
def test_the_journal_knows_the_debits_and_credits_of_every_balance(
    facts: list[Fact], source: SourceTerms, batches: list[int]
) -> None:
    books = fold(facts, source, batches)
    sums: dict[Any, tuple[Decimal, Decimal]] = defaultdict(lambda: (Decimal(0), Decimal(0)))
    for *_, account, currency, amount, _, _, debits in books.tables["entries"]:
        known = sums[account, currency]
        credited = total(debits, amount.copy_negate())
        sums[account, currency] = (total(known[0], debits), total(known[1], credited))
    assert {k: v for k, v in sums.items() if any(v)} == {
        k: v for k, v in books.sums.items() if any(v)
    }


@law
@given(any_logs(), terms, batchings)
def test_balances_and_legs_are_the_sums_of_the_journal(
    facts: list[Fact], source: SourceTerms, batches: list[int]
) -> None:
    books = fold(facts, source, batches)
    journal: dict[Any, list[Decimal]] = defaultdict(list)
    lines: dict[Any, list[Decimal]] = defaultdict(list)
    for _, _, _, kind, name, account, currency, amount, moment, *_ in books.tables["entries"]:
        journal[account, currency].append(amount)
        lines[kind, name, moment, account, currency].append(amount)
    assert _added(journal) == {
        key: books.balance(*key) for key in books.sums if books.balance(*key)
    }
    legs = {
        (*key, leg.effective_at, leg.account, leg.currency): leg.amount
        for key in books.saved
        for leg in books.stored(key).legs
    }
    assert _added(lines) == legs
    assert all(debits >= 0 and credited >= 0 for debits, credited in books.sums.values())


@law
@given(any_logs(), all_terms, batchings, st.data())
def test_a_rebuild_equals_the_live_books_byte_for_byte(
    facts: list[Fact], source: SourceTerms, batches: list[int], data: st.DataObject
) -> None:
    facts = _decided(facts, data)
    live = fold(facts, source, [1] * len(facts))
    assert fold(facts, source, batches).everything() == live.everything()
    assert fold(facts, source).everything() == live.everything()


@law
@given(any_logs(), all_terms, batchings, st.data())
def test_a_rebuild_of_related_streams_by_themselves_equals_the_live_books_byte_for_byte(
    facts: list[Fact], source: SourceTerms, batches: list[int], data: st.DataObject
) -> None:
    log = _decided(facts, data)
    assert rebuilt(log, source, batches).everything() == fold(log, source).everything()


@law
@given(returns(), all_terms, batchings, st.integers(1, 4), st.data())
def test_related_streams_in_pages_of_any_size_give_the_live_books_byte_for_byte(
    streams: list[list[Fact]],
    source: SourceTerms,
    batches: list[int],
    page: int,
    data: st.DataObject,
) -> None:
    facts = [fact for stream in streams for fact in stream]
    behind = sorted(facts, key=lambda fact: fact.kind in PAID_OUT)
    log = [*behind, *data.draw(attributions(facts), label="decisions")]
    books = fold(log, source)
    assert in_pages(log, source, batches, page).everything() == books.everything()
    live = lines_of(books)
    with TemporaryDirectory() as folder:
        written = offline(log, source, batches, Path(folder) / "fold.sqlite", page)
    assert {table: written[table] for table in live} == live


@law
@given(any_logs(), all_terms, batchings, st.data())
def test_a_fold_without_a_database_writes_the_lines_of_the_live_books(
    facts: list[Fact], source: SourceTerms, batches: list[int], data: st.DataObject
) -> None:
    log = _decided(facts, data)
    live = lines_of(fold(log, source))
    with TemporaryDirectory() as folder:
        written = offline(log, source, batches, Path(folder) / "fold.sqlite")
    assert {table: written[table] for table in live} == live


@law
@given(stories(), all_terms, st.data())
def test_the_books_equal_those_of_a_bookkeeper_who_sees_the_whole_log(
    facts: list[Fact], source: SourceTerms, data: st.DataObject
) -> None:
    log = data.draw(placed(facts, data.draw(attributions(facts))), label="log")
    _same_books(fold(log, source), log)


@law
@given(troubled_stories(), all_terms)
def test_the_bookkeeper_agrees_also_where_facts_contradict_each_other(
    facts: list[Fact], source: SourceTerms
) -> None:
    _same_books(fold(facts, source), facts)


@law
@given(troubled_stories(), all_terms, st.data())
def test_the_bookkeeper_agrees_on_what_an_operator_kept(
    facts: list[Fact], source: SourceTerms, data: st.DataObject
) -> None:
    log = _decided(facts, data)
    _same_books(fold(log, source), log)


@law
@given(returns(), all_terms, batchings, st.data())
def test_the_bookkeeper_agrees_on_returns_at_every_position(
    streams: list[list[Fact]], source: SourceTerms, batches: list[int], data: st.DataObject
) -> None:
    facts = [fact for stream in streams for fact in stream]
    log = data.draw(placed(facts, data.draw(attributions(facts))), label="log")
    books = Books(source)
    for size in [*batches, len(log)]:
        books.report(*log[books.head : books.head + size])
        _same_books(books, log[: books.head])


def _decided(facts: list[Fact], data: st.DataObject) -> list[Fact]:
    """Draw up to two decisions to keep one of the facts, at the end of the log."""
    places = [n for n, fact in enumerate(facts, 1) if fact.kind in MONEY_KINDS]
    drawn = st.lists(st.sampled_from(places), max_size=2) if places else st.just([])
    return [*facts, *(keep(facts[n - 1], n) for n in data.draw(drawn, label="keep"))]


def _same_books(books: Books, log: list[Fact]) -> None:
    assert books.parked == set()
    expected = naive.write(log, books.terms, received_at)
    for key, account in expected.items():
        assert books.account(key) == account.summary(), key
    assert {key for key in books.saved if key[0] in naive.KINDS} == set(expected)


@law
@given(st.lists(transactions(), max_size=4, unique_by=_resource), terms, st.data())
def test_a_late_pending_changes_nothing_and_completed_alone_states_it_all(
    streams: list[list[Fact]], source: SourceTerms, data: st.DataObject
) -> None:
    facts = [fact for stream in streams for fact in stream]
    late = []
    bare: dict[str, Any] = {"fees": None, "details": {}, "flags": ()}
    for stream in streams:
        stated = {fact.status for fact in stream}
        base = next((fact for fact in stream if fact.status in ENDED | {"failed"}), stream[0])
        if stated & ENDED or (base.kind not in REFUNDABLE and "failed" in stated):
            moment = at(data.draw(st.integers(0, 20_000), label="late"))
            late.append(changed(base, status="pending", effective_at=moment, **bare))
        if base.kind in REFUNDABLE and "refunded" in stated:
            late.append(changed(base, status="failed", effective_at=at(30_000), details={}))
    before = [fact for fact in facts if fact not in late]
    assert fold(before + late, source).meaning() == fold(before, source).meaning()
    assert fold(late + before, source).meaning() == fold(before, source).meaning()


@law
@given(contradictions(), stories(), terms, batchings)
def test_a_contradiction_parks_its_money_and_stops_nothing_else(
    pair: list[Fact], others: list[Fact], source: SourceTerms, batches: list[int]
) -> None:
    pair = [changed(fact, idempotency_id=None, details={}) for fact in pair]
    first = pair[0]
    key = (first.kind, first.resource_id)
    books = fold([*pair, *others], source, batches)
    alone = fold(others, source)
    assert books.rows[key]["status"] == "conflict"
    assert books.issues(key) == ["conflict"]
    assert _exceptions(books, key) == [("opened", "conflict")]
    currency = source.wallets.get(f"{first.kind}.{first.currency.lower()}", first.currency)
    if first.kind in {"payment", "user_deposit", "chain_deposit"}:
        where, amount = "memo:incoming", first.amount
    else:
        where, amount = "assets:wallet:held", total(first.amount, first.fees)
    parked = {(account, c): Decimal(a) for _, account, c, a in books.legs(key)}
    assert parked.get((where, currency), Decimal(0)) == amount
    assert len(parked) == (2 if amount else 0)
    assert {k: v for k, v in books.rows.items() if k != key} == alone.rows
    assert [leg for k in sorted(alone.saved) for leg in books.legs(k)] == alone.legs()


@law
@given(contradictions(), st.integers(0, 1), terms)
def test_a_decision_makes_the_books_of_the_facts_that_it_keeps(
    pair: list[Fact], which: int, source: SourceTerms
) -> None:
    pair = [changed(fact, idempotency_id=None, details={}) for fact in pair]
    kept = pair[which]
    key = (kept.kind, kept.resource_id)
    books = fold([*pair, keep(kept, which + 1)], source)
    alone = fold([kept], source)
    assert books.rows[key]["status"] == kept.status
    assert "decided" in books.rows[key]["flags"]
    assert books.legs(key) == alone.legs(key)
    assert books.issues(key) == []
    actions = [action for action, _ in _exceptions(books, key)]
    assert actions == ["opened", "cleared", "resolved"]


def _exceptions(books: Books, key: tuple[str, str]) -> list[tuple[str, str]]:
    """Return (action, reason) of what was opened, cleared and resolved of a stream."""
    return [(row[3], row[4]) for row in books.tables["exceptions"] if row[6:8] == key]


@law
@given(stories(), batchings, st.data())
def test_a_fold_that_raises_parks_its_stream_and_only_that(
    facts: list[Fact], batches: list[int], data: st.DataObject
) -> None:
    poison = money("swap", "completed", resource_id="poisoned", amount=None)
    after = money("swap", "completed", 5, resource_id="poisoned")
    place = data.draw(st.integers(0, len(facts)), label="place")
    log = [*facts[:place], poison, *facts[place:], after]
    books, healthy = fold(log, batches=batches), fold(facts)
    assert books.parked == {("swap", "poisoned")}
    assert books.rows == healthy.rows
    assert books.legs() == healthy.legs()
    assert books.sums == healthy.sums
    assert _exceptions(books, ("swap", "poisoned")) == [("opened", "parked")]


def _added(lines: dict[Any, list[Decimal]]) -> dict[Any, Decimal]:
    """Return what does not add up to zero."""
    return {place: total(*amounts) for place, amounts in lines.items() if total(*amounts)}


@law
@given(troubled_stories())
def test_the_names_of_a_state_are_among_those_of_its_facts_each_folded_alone(
    facts: list[Fact],
) -> None:
    streams = registry.load().streams
    states: dict[Any, Any] = {}
    alone: dict[Any, set[str]] = defaultdict(set)
    for position, fact in enumerate(facts, 1):
        projection = streams.get(fact.kind)
        if projection is None:
            continue
        key = (fact.kind, fact.resource_id)
        seen = RecordedFact(fact, position, f"{position:032x}", at(0), at(0))
        states[key] = projection.fold(states.get(key), seen)
        alone[key].update(links_of(projection, projection.fold(None, seen)))
        assert set(links_of(projection, states[key])) <= alone[key]
