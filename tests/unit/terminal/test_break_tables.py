"""Breaks on a terminal: totals have the decimals of the list, ages are words."""

from __future__ import annotations

import io
from typing import Any

from ledger.terminal import tables
from ledger.terminal.breaks import show_break, show_breaks

BREAK: dict[str, Any] = {
    "id": "e8bc96d017a6250e", "source": "dbs", "currency": "SGD", "type": "MISSING_IN_LEDGER",
    "state": "OPEN", "difference": "-1.25", "gap": "-1.25", "at": "2026-06-25T16:00:00Z",
    "age_days": 1, "bucket": "0-1d", "owner": "finance", "detail": "not in the books",
    "action": None, "decided_by": None, "note": None, "time_zone": "Asia/Singapore",
    "lines": [
        {"line": "r1", "effective_at": "2026-06-25T16:00:00Z", "amount": "1.25", "kind": "TRF",
         "counterparty": "陈大文", "description": "Rent", "references": []},
    ],
    "transactions": [], "candidates": [], "history": [],
}  # fmt: skip


def shown(write: Any, document: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    write(document, tables.console(out))
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_totals_have_as_many_decimals_as_the_breaks_above_them() -> None:
    total = {"currency": "SGD", "count": 2, "difference": "-2.5", "gap": "-2.5"}
    document = {
        "breaks": [BREAK], "totals": [total],
        "totals_by_type": [{**total, "type": "MISSING_IN_LEDGER"}],
    }  # fmt: skip
    lines = shown(show_breaks, document)
    assert "times are in Asia/Singapore" in lines
    assert lines[-2:] == ["SGD MISSING_IN_LEDGER 2 -2.50 -2.50", "SGD all 2 -2.50 -2.50"]


def test_one_break_is_dated_by_the_day_of_its_line() -> None:
    lines = shown(show_break, BREAK)
    for words in ("dated 2026-06-26 Asia/Singapore", "age 1 day, 0-1d"):
        assert words in lines, words
