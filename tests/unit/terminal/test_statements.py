"""Statements are shown in the zone of their source, which is named, and with equal decimals."""

from __future__ import annotations

import io
from typing import Any

from ledger.terminal import tables
from ledger.terminal.statements import show_import, show_lines, show_statements

FILE: dict[str, Any] = {
    "source": "dbs", "currency": "SGD", "account": "003-9", "format": "csv", "sha256": "ab",
    "opened_at": "2026-05-31T16:00:00Z", "closed_at": "2026-06-30T16:00:00Z", "opening": "90",
    "closing": "101.25", "lines": 2, "position": 3, "status": "imported", "by": None, "note": None,
    "time_zone": "Asia/Singapore",
}  # fmt: skip
LINE: dict[str, Any] = {
    "source": "dbs", "line": "r1", "row_kind": "TRF", "amount": "10", "currency": "SGD",
    "effective_at": "2026-06-25T16:00:00Z", "counterparty": "陈大文", "description": "Rent",
    "contract_id": None, "status": "stated", "matched_by": None, "match": None,
    "time_zone": "Asia/Singapore",
}  # fmt: skip
CHANGE: dict[str, Any] = {
    "change": "changed", "line": "r1", "effective_at": "2026-06-25T16:00:00Z", "amount": "10",
    "now_amount": "10.5", "now_effective_at": "2026-06-26T01:30:00Z", "description": "Rent",
    "now_description": "Rent", "reference": "", "file": "ab", "fields": ["amount", "effective_at"],
    "booked_at": "2026-06-25T16:00:00Z", "now_booked_at": "2026-06-26T16:00:00Z",
}  # fmt: skip
IMPORT: dict[str, Any] = {
    "status": "accepted", "source": "dbs.statements", "position": 4, "currency": "SGD",
    "account": "003-9", "format": "csv", "sha256": "ab", "opened_at": "2026-05-31T16:00:00Z",
    "closed_at": "2026-06-30T16:00:00Z", "opening": "90", "closing": "101.25", "lines": 2, "new": 1,
    "changed": 1, "unchanged": 0, "withdrawn": 0, "changes": [CHANGE], "notes": ["a note"],
    "time_zone": "Asia/Singapore",
}  # fmt: skip


def shown(write: Any, document: dict[str, Any]) -> str:
    out = io.StringIO()
    write(document, tables.console(out))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_statements_have_periods_of_their_zone_and_equal_decimals() -> None:
    text = shown(show_statements, {"statements": [FILE]})
    for words in ("2026-06-01 00:00", "2026-07-01 00:00", "90.00", "101.25"):
        assert words in text, words
    assert text.endswith("times are in Asia/Singapore")
    assert shown(show_statements, {"statements": []}) == "no statements"


def test_several_zones_are_named_with_their_sources() -> None:
    other = FILE | {"source": "wise", "time_zone": "Europe/London"}
    text = shown(show_statements, {"statements": [FILE, other, FILE]})
    assert "2026-06-01 00:00" in text
    assert "2026-05-31 17:00" in text
    assert text.endswith("times are in Asia/Singapore (dbs); Europe/London (wise)")


def test_lines_have_days_or_times_of_their_zone() -> None:
    timed = LINE | {"line": "r2", "amount": "1.25", "effective_at": "2026-06-25T16:30:05Z"}
    text = shown(show_lines, {"statement_lines": [LINE, timed]})
    first, second = text.splitlines()[1:3]
    assert "2026-06-26  " in first
    assert "10.00" in first
    assert "2026-06-26 00:30:05" in second
    assert text.endswith("times are in Asia/Singapore")


def test_an_import_states_its_period_in_the_zone_and_amounts_with_equal_decimals() -> None:
    text = shown(show_import, IMPORT)
    for words in (
        "2026-06-01 00:00", "2026-07-01 00:00", "90.00", "101.25", "10.50", "Asia/Singapore",
        "2026-06-26 → 2026-06-26 09:30", "2026-06-26 → 2026-06-27", "note: a note",
    ):  # fmt: skip
        assert words in text, words
    assert "2026-05-31" not in text


def test_an_import_that_is_refused_shows_what_it_would_change_and_why() -> None:
    problem = {"type": "urn:x", "title": "Conflict", "status": 409, "detail": "use --replace"}
    refused = {**IMPORT, **problem, "opening": None}
    text = shown(show_import, refused)
    assert text.endswith("use --replace")
    assert "not stated" in text
    assert "urn:x" not in text
