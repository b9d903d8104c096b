"""A line that a newer file states again keeps its name, however it is written there."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from ledger.statements.changes import changed_line, renamed
from ledger.statements.events import content
from ledger.statements.model import StatementLine

NOON = datetime(2026, 6, 5, 12, tzinfo=UTC)


def line(amount: str = "10", **fields: Any) -> StatementLine:
    stated = {"id": "", "number": 1, "kind": "", "currency": "EUR", "effective_at": NOON} | fields
    return StatementLine(amount=Decimal(amount), name="h:new", **stated)


def known(name: str, amount: str = "10", **fields: Any) -> dict[str, Any]:
    body = {"id": f"EUR:{name}", "line": name, "amount": amount, "sha256": "f" * 64,
            "effective_at": NOON.isoformat()}  # fmt: skip
    return body | fields


def names(lines: list[StatementLine], *bodies: dict[str, Any]) -> list[str]:
    return [each.name for each in renamed(lines, bodies)[0]]


def test_an_equal_line_takes_the_known_name() -> None:
    assert names(
        [line(id="A1")], known("h:x", provider_id="B2"), known("h:y", provider_id="A1")
    ) == ["h:y"]


def test_a_name_that_was_the_id_is_known_by_it() -> None:
    assert names([line(id="A1")], known("A1")) == ["A1"]


def test_a_reader_that_reads_more_by_now_finds_the_line() -> None:
    assert names([line(reference="E2E-1")], known("h:x")) == ["h:x"]


def test_a_reference_that_is_one_of_several_names_by_now_finds_the_line() -> None:
    assert names([line(reference="E2E-1", names=("REF7",))], known("h:x", reference="REF7")) == [
        "h:x"
    ]


def test_names_that_contradict_are_of_two_lines() -> None:
    assert names([line(reference="E2E-1")], known("h:x", reference="E2E-2")) == ["h:new"]
    assert names([line(id="A1")], known("h:x", provider_id="A2")) == ["h:new"]


def test_a_corrected_amount_is_found_by_the_id_only() -> None:
    assert names([line("12", id="A1")], known("h:x", provider_id="A1")) == ["h:x"]
    assert names([line("12")], known("h:x")) == ["h:new"]


def test_a_known_line_is_taken_once() -> None:
    result, taken = renamed([line(), line()], [known("h:x")])
    assert sorted(each.name for each in result) == ["h:new", "h:x"]
    assert taken == {"EUR:h:x"}


def test_a_change_shows_both_statements_of_a_line() -> None:
    change = changed_line(known("h:x", reference="R", description="rent"), line("12"))
    assert (change.change, change.amount, change.now_amount) == ("changed", "10", "12")
    assert (change.reference, change.description, change.now_description) == ("R", "rent", "")
    assert changed_line(known("h:x")).change == "withdrawn"


def test_what_a_line_does_not_state_is_not_in_its_content() -> None:
    stated = orjson.loads(content(line()))
    assert set(stated) == {"line", "amount", "currency", "effective_at"}


def test_thousands_of_one_day_and_amount_are_paired_by_their_names() -> None:
    count = 4_000
    lines = [line(reference=f"E2E-{n}") for n in range(count)]
    others = [known(f"h:{n}", reference=f"other-{n}") for n in range(count)]
    same = [known(f"h:{n}", reference=f"E2E-{n}") for n in range(count)]
    result, taken = renamed(lines, others)
    assert (taken, {each.name for each in result}) == (set(), {"h:new"})
    result, _ = renamed(lines, reversed(same))
    assert [each.name for each in result] == [f"h:{n}" for n in range(count)]
