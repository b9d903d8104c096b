"""What every projection promises the framework: its table, its row's columns, its state."""

from __future__ import annotations

import ast
import copy
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

import projections
from ledger import registry
from ledger.model import Fact, Projection, RecordedFact, Related, StreamProjection, View
from tests.property.driver import GOKART, STRAITSX, at, event_id, money, word

FOLDER = Path(projections.__file__).parent
PARTS = {"cases", "factset", "latest", "ownership", "postings", "unknown", "verification"}

COLUMNS = {
    "transactions": "source kind id status amount currency fees idempotency_id customer_id "
    "effective_at flags conflict return_of details",
    "customers": "source kind id verification_status updated_at rejection details",
    "bank_accounts": "source kind id customer_id verification_status disabled updated_at details",
    "virtual_accounts": "source kind id customer_id status currency reference_id updated_at flags "
    "details",
    "limits": "source kind id provider_id customer_id limits used",
    "limit_requests": "source kind id provider_id customer_id status updated_at conflict",
    "rfi": "source kind id customer_id status updated_at expires_at details",
    "statements": "source kind id status currency account format sha256 opened_at closed_at "
    "claimed_from opening closing lines by note",
    "statement_parts": "source kind id file part parts",
    "statement_lines": "source kind id status line row_kind amount currency effective_at "
    "booked_at account provider_id contract_id idempotency_id reference balance description "
    "counterparty names file number versions",
    "adjustments": "source kind id action currency anchor break_type items by note decided_at "
    "decided_position operator_position difference account rule break_items effective_at words",
    "closes": "source kind id status currency period begin_at end_at reconciled "
    "statement_balance ledger_balance in_transit breaks accepted open lines books_position "
    "statements_position sha256 rules_sha256 previous by note decided_at decided_position words",
    "history": "source kind id position event_id status idempotency_id effective_at received_at "
    "recorded_at",
    "entries": "source position line kind transaction account currency amount effective_at "
    "recorded_at debits",
    "echoes": "source kind id position",
    "decisions": "source kind id position action reason customer_id note by recorded_at",
    "balances": "source account currency debits credits",
    "exceptions": "source id position action reason detail kind resource_id event_id at note",
    "named_customers": "source kind id customer_id position",
    "returns": "source kind id position line return_kind return_id effective_at currency amount "
    "count",
}
MODES = {
    "history": "append", "entries": "append", "echoes": "append", "balances": "sum",
    "exceptions": "append", "decisions": "append", "named_customers": "append",
    "returns": "append",
}  # fmt: skip

CONVERSION = {
    "event": "install",
    "callback_id": "c1",
    "reward_points": "45",
    "member": "m-1",
}
FACTS: dict[str, list[Fact]] = {
    **{
        kind: [money(kind, "pending", 1), money(kind, "completed", 2), money(kind, "failed", 3),
               money(kind, "unknown:odd", 4)]
        for kind in ("payment", "user_deposit", "payout", "fx_payout", "user_withdrawal", "swap",
                     "chain_deposit", "chain_withdrawal")
    },
    "conversion": [
        word("conversion", "Success", 1, amount=Decimal(60), currency="USD", details=CONVERSION),
        word("conversion", "unknown:odd", 2, amount=Decimal(60), currency="USD"),
    ],
    "customer": [word("customer", "rejected", 1, details={"rejection": {"summary": "policy"}}),
                 word("customer", "unknown:odd", 2)],
    "bank_account": [word("bank_account", "verified", 1, details={"disabled": False}),
                     word("bank_account", "unknown:odd", 2)],
    "virtual_account": [word("virtual_account", "enabled", 1, details={"currency": "USD"}),
                        word("virtual_account", "unknown:odd", 2)],
    "limits": [word("limits", "", None, details={"limits": {"a_limit": "1", "b_limit": None}})],
    "limits_request": [word("limits_request", "approved", 1), word("limits_request", "rejected", 2),
                       word("limits_request", "unknown:odd", 3)],
    "statement": [word("statement", "imported", 1, currency="XSGD", details={
        "opened_at": at(0).isoformat(), "closed_at": at(9).isoformat(), "opening": "0",
        "closing": "5", "lines": 1, "sha256": "f" * 64, "format": "csv"})],
    "statement_part": [word("statement_part", "kept", 1, details={
        "sha256": "ab", "part": 1, "parts": 2})],
    "statement_line": [
        word("statement_line", "stated", 1, amount=Decimal(5), currency="XSGD",
             details={"line": "1", "balance": "5", "number": 1, "sha256": "f" * 64}),
        word("statement_line", "withdrawn", 2, amount=Decimal(5), currency="XSGD",
             details={"line": "1", "sha256": "e" * 64})],
    "adjustment": [
        word("adjustment", "write_off", 1, currency="XSGD", details={
            "anchor": "line:1", "items": ["line:1"], "by": "ann", "note": "small",
            "legs": [["assets:wallet:available", "1"], ["suspense", "-1"]]}),
        word("adjustment", "note", 2, currency="XSGD", details={"by": "bob", "note": "seen"})],
    "close": [
        word("close", "closed", 1, currency="XSGD", details={
            "period": "2026-06", "begin": at(0).isoformat(), "end": at(9).isoformat(),
            "state": "RECONCILED", "statement_balance": "5", "ledger_balance": "5",
            "in_transit": "0", "breaks": "0", "open": [], "accepted": ["b"], "lines": 1,
            "position": 3, "statements_position": 4, "sha256": "f" * 64, "rules_sha256": "e",
            "previous": None, "by": "ann", "note": ""}),
        word("close", "reopened", 2, currency="XSGD", details={"by": "bob", "note": "late"})],
    "rfi": [word("rfi", "sent", 1, details={"expires_at": at(9).isoformat()}),
            word("rfi", "unknown:odd", 2)],
}  # fmt: skip


def seen(fact: Fact, position: int) -> RecordedFact:
    return RecordedFact(fact, position, event_id(fact), at(100 + position), at(100 + position))


def views_of(projection: StreamProjection, facts: list[Fact]) -> list[tuple[Any, View]]:
    """Fold facts one by one; return every state with its view."""
    terms = GOKART if facts[0].kind == "conversion" else STRAITSX
    state, found = None, []
    for position, fact in enumerate(facts, 1):
        state = projection.fold(state, seen(fact, position))
        found.append((state, projection.view(state, Related(), terms)))
    return found


def tables() -> dict[str, Any]:
    found = registry.load()
    return {p.table.name: p.table for p in (*found.streams.values(), *found.projections)}


def test_the_tables_are_those_that_the_queries_read() -> None:
    assert {name: " ".join(table.columns) for name, table in tables().items()} == COLUMNS


def test_keys_are_columns_that_begin_with_the_source() -> None:
    for name, table in tables().items():
        assert table.key[0] == "source" == next(iter(table.columns))
        assert set(table.key) <= set(table.columns)
        assert table.mode == MODES.get(name, "replace")


def test_every_kind_of_callback_has_a_projection() -> None:
    found = registry.load()
    translated = {h.kind for each in found.handlers.values() for h in each} - {"decision"}
    assert set(found.streams) == translated == set(FACTS)


@pytest.mark.parametrize("kind", FACTS)
def test_a_row_has_exactly_the_columns_that_the_framework_does_not_fill(kind: str) -> None:
    projection = registry.load().streams[kind]
    expected = set(projection.table.columns) - {"source", "kind", "id"}
    unknown_only = [fact for fact in FACTS[kind] if fact.status.startswith("unknown:")]
    for facts in (FACTS[kind], unknown_only):
        for _, view in views_of(projection, facts) if facts else ():
            assert set(view.row) == expected


@pytest.mark.parametrize("kind", FACTS)
def test_a_row_can_be_written_as_its_columns_types(kind: str) -> None:
    projection = registry.load().streams[kind]
    types = {"text": str, "numeric": Decimal, "boolean": bool, "text[]": list, "bigint": int}
    for _, view in views_of(projection, FACTS[kind]):
        for name, value in view.row.items():
            declared = projection.table.columns[name]
            if declared == "jsonb":
                assert orjson.loads(orjson.dumps(value)) == value
            elif declared == "timestamptz":
                assert value is None or value.tzinfo is not None
            elif value is not None:
                assert isinstance(value, types[declared])


@pytest.mark.parametrize("kind", FACTS)
def test_a_state_means_the_same_after_a_way_through_json(kind: str) -> None:
    projection = registry.load().streams[kind]
    for state, view in views_of(projection, FACTS[kind]):
        raw = msgspec.json.encode(state)
        back = msgspec.json.decode(raw, type=projection.state)
        assert msgspec.json.encode(back) == raw
        terms = GOKART if kind == "conversion" else STRAITSX
        assert projection.view(back, Related(), terms) == view


@pytest.mark.parametrize("kind", FACTS)
def test_folding_and_viewing_change_no_state(kind: str) -> None:
    projection = registry.load().streams[kind]
    for state, _ in views_of(projection, FACTS[kind]):
        before = copy.deepcopy(state)
        projection.fold(state, seen(FACTS[kind][0], 9))
        projection.view(state, Related(), STRAITSX)
        assert state == before


@pytest.mark.parametrize("kind", ["customer", "bank_account", "virtual_account", "limits",
                                  "limits_request", "rfi"])  # fmt: skip
def test_what_is_not_money_posts_nothing(kind: str) -> None:
    for _, view in views_of(registry.load().streams[kind], FACTS[kind]):
        assert view.legs == ()


def test_projections_import_the_vocabulary_their_parts_and_pure_stdlib_only() -> None:
    pure = {
        "__future__",
        "collections",
        "dataclasses",
        "datetime",
        "decimal",
        "functools",
        "hashlib",
        "re",
        "typing",
    }
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= pure
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                names = {alias.name for alias in node.names}
                allowed = (
                    module.split(".")[0] in pure
                    or module == "ledger.model"
                    or (module == "projections" and names <= PARTS)
                    or module.removeprefix("projections.") in PARTS
                )
                assert allowed, f"{path.name} imports {module}"


def test_parts_hold_no_projection_and_all_others_hold_one() -> None:
    for path in FOLDER.glob("*.py"):
        declares = "PROJECTION = " in path.read_text()
        assert declares == (path.stem not in {*PARTS, "__init__"}), path.name


def test_every_projection_is_found_by_its_presence() -> None:
    found = registry.load()
    streams = {p.name for p in found.streams.values()}
    assert all(isinstance(p, Projection) for p in found.projections)
    assert streams | {p.name for p in found.projections} == {
        path.stem for path in FOLDER.glob("*.py") if path.stem not in {*PARTS, "__init__"}
    }
