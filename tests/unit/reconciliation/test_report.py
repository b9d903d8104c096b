"""The printed report is read by people: digits in groups, the largest break first."""

from __future__ import annotations

from typing import Any

from ledger.reconciliation.items import BREAK_TYPES, TIMING
from ledger.reconciliation.report import SHEET, TYPES, csv_of, html_of


def broken(id_: str, difference: str, state: str = "OPEN") -> dict[str, Any]:
    return {
        "id": id_, "type": "AMOUNT", "state": state, "difference": difference, "gap": "0",
        "at": "2026-06-01T00:00:00Z", "age_days": 1, "bucket": "0-1d", "owner": "finance",
        "detail": "=2+2", "items": [], "action": None, "decided_by": None, "decided_at": None,
        "note": None,
    }  # fmt: skip


RUN: dict[str, Any] = {
    "source": "straitsx", "currency": "XSGD", "state": "BREAKS", "reasons": [],
    "opened_at": "2026-06-01T00:00:00Z", "through": "2026-07-01T00:00:00Z",
    "positions": {"straitsx": 7}, "files": ["ab"], "rules_sha256": "cd", "sha256": "ef",
    "seals": [{"source": "straitsx", "size": 8, "root": "12"}],
    "figures": {name: "0" for name, _ in SHEET} | {
        "opening": "1234567.5", "closing": "-1000.000001", "lines": 3, "lines_matched": 2,
        "transactions": 2, "transactions_matched": 2, "coverage_count": "66.66",
        "coverage_value": "50", "by_type": [],
    },
}  # fmt: skip
BREAKS = [broken("a", "1"), broken("b", "900", "RESOLVED"), broken("c", "-20.5")]


def test_amounts_of_a_column_are_grouped_and_end_alike() -> None:
    page = html_of(RUN, BREAKS).decode()
    for amount in ("1,234,567.500000", "-1,000.000001", ">0.000000<", ">-20.5<", ">1.0<"):
        assert amount in page, amount


def test_open_breaks_come_first_and_the_largest_of_them_before_the_rest() -> None:
    page = html_of(RUN, BREAKS).decode()
    assert page.index("<td>c</td>") < page.index("<td>a</td>") < page.index("<td>b</td>")
    rows = csv_of(RUN, BREAKS).decode().splitlines()
    assert [each[0] for each in rows[-3:]] == ["c", "a", "b"]
    assert html_of(RUN, BREAKS) == html_of(RUN, BREAKS[::-1])


def test_a_spreadsheet_gets_exact_amounts_and_no_formulas() -> None:
    text = csv_of(RUN, BREAKS).decode()
    assert "opening,1234567.5\r\n" in text
    assert "'=2+2" in text


def test_the_page_explains_its_state_and_the_types_of_its_breaks() -> None:
    page = html_of(RUN, BREAKS).decode()
    assert "the open breaks below explain the whole difference" in page
    assert "<td>AMOUNT</td><td>on both sides, with different amounts</td>" in page
    assert {*BREAK_TYPES, TIMING} == {*TYPES}
