"""Reports are read by people: digits in groups, the largest break first, both sides of it."""

from __future__ import annotations

import csv
import io
from typing import Any

from ledger.reconciliation.items import BREAK_TYPES, TIMING
from ledger.reconciliation.reports import overview
from ledger.reconciliation.reports.spreadsheet import COLUMNS, DECISION_COLUMNS, breaks_csv
from ledger.reconciliation.reports.wallet import SHEET, TYPES, csv_of, html_of


def broken(id_: str, difference: str, state: str = "OPEN") -> dict[str, Any]:
    return {
        "source": "straitsx", "currency": "XSGD", "time_zone": "Asia/Singapore",
        "id": id_, "type": "AMOUNT", "state": state, "difference": difference, "gap": "0",
        "at": "2026-06-01T00:00:00Z", "age_days": 1, "bucket": "0-1d", "owner": "finance",
        "detail": "=2+2", "items": [], "action": None, "decided_by": None, "decided_at": None,
        "note": None, "lines": [], "transactions": [], "candidates": [], "history": [],
    }  # fmt: skip


RUN: dict[str, Any] = {
    "source": "straitsx", "currency": "XSGD", "state": "BREAKS", "reasons": [],
    "opened_at": "2026-06-01T00:00:00Z", "through": "2026-07-01T00:00:00Z",
    "positions": {"straitsx": 7}, "time_zone": "Asia/Singapore", "files": ["ab"],
    "rules_sha256": "cd", "sha256": "ef",
    "seals": [{"source": "straitsx", "size": 8, "root": "12"}],
    "figures": {name: "0" for name, _ in SHEET} | {
        "opening": "1234567.5", "closing": "-1000.000001", "lines": 3, "lines_matched": 2,
        "transactions": 2, "transactions_matched": 2, "coverage_count": "66.66",
        "coverage_value": "50", "by_type": [], "by_rule": [], "difference": "0", "chain": "0",
    },
}  # fmt: skip
BREAKS = [broken("a", "1"), broken("b", "900", "RESOLVED"), broken("c", "-20.5")]
WHOLE: dict[str, Any] = broken("0123456789abcdef", "-20.5") | {
    "items": ["line:r1", "payout:p1"],
    "lines": [
        {"line": "r1", "effective_at": "2026-06-01T20:30:00Z", "amount": "1000",
         "booked_at": "2026-06-01T20:30:00Z", "kind": "TRF", "counterparty": "陈大文 <b>",
         "description": "=HYPERLINK(1)", "references": ["REF-1"],
         "href": "/v1/statement_lines?source=straitsx&line=r1"},
    ],
    "transactions": [
        {"kind": "payout", "id": "p1", "effective_at": "2026-06-01T20:31:00Z",
         "amount": "979.5", "fee": "0.5", "status": "completed", "customer_id": "c1",
         "counterparty": None, "references": ["idem"], "href": "javascript:alert(1)"},
    ],
    "candidates": [
        {"item": "payment:p2", "side": "books", "effective_at": "2026-06-02T00:00:00Z",
         "amount": "20.5", "counterparty": None, "description": None,
         "reason": "its amount is the difference of 20.5, same day"},
    ],
    "history": [
        {"action": "note", "by": "ann", "note": "asked <the> bank", "at": "2026-06-03T00:00:00Z",
         "position": 9},
    ],
}  # fmt: skip


def rows_of(body: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")))


def test_amounts_of_a_page_are_grouped_and_end_alike() -> None:
    page = html_of(RUN, BREAKS).decode()
    for amount in ("1,234,567.500000", "-1,000.000001", ">0.000000<", "difference -20.500000"):
        assert amount in page, amount


def test_open_breaks_come_first_and_the_largest_of_them_before_the_rest() -> None:
    page = html_of(RUN, BREAKS).decode()
    assert page.index(">c</code>") < page.index(">a</code>") < page.index(">b</code>")
    rows = csv_of(RUN, BREAKS).decode().splitlines()
    assert [each[0] for each in rows[-3:]] == ["c", "a", "b"]
    assert html_of(RUN, BREAKS) == html_of(RUN, BREAKS[::-1])


def test_a_spreadsheet_gets_exact_amounts_with_equal_decimals_and_no_formulas() -> None:
    text = csv_of(RUN, BREAKS).decode()
    assert "opening,1234567.500000\r\n" in text
    assert "'=2+2" in text


def test_the_page_explains_its_state_and_the_types_of_its_breaks() -> None:
    page = html_of(RUN, BREAKS).decode()
    assert "the open breaks below explain the whole difference" in page
    assert "<td class=t>AMOUNT</td><td>on both sides, with different amounts</td>" in page
    assert {*BREAK_TYPES, TIMING} == {*TYPES}


def test_a_figure_that_is_not_stated_is_never_shown_as_zero() -> None:
    run = RUN | {"figures": RUN["figures"] | {"opening": None, "closing": None}}
    page = html_of(run, []).decode()
    assert page.count("<td class=n>not stated</td>") == 2
    assert "opening,\r\n" in csv_of(run, []).decode()


def test_a_break_is_printed_with_both_sides_its_candidates_and_its_notes() -> None:
    page = html_of(RUN, [WHOLE]).decode()
    assert "陈大文 &lt;b&gt;" in page
    assert '<a href="/v1/statement_lines?source=straitsx&amp;line=r1">line:r1</a>' in page
    assert "payout, completed" in page
    assert "javascript:" not in page
    assert "its amount is the difference of 20.5, same day" in page
    assert "note by ann: asked &lt;the&gt; bank" in page


def test_times_are_in_the_declared_zone_which_is_named() -> None:
    page = html_of(RUN, [WHOLE]).decode()
    assert "2026-06-02 04:30" in page
    assert "Times are in Asia/Singapore" in page
    rows = rows_of(csv_of(RUN, [WHOLE]))
    assert ["from", "2026-06-01 08:00:00+08:00"] in rows
    assert ["time zone", "Asia/Singapore"] in rows


def test_a_line_of_a_day_has_no_time_anywhere() -> None:
    at = "2026-06-25T16:00:00Z"
    line = WHOLE["lines"][0] | {"effective_at": at, "booked_at": at}
    candidate = WHOLE["candidates"][0] | {"side": "statement", "effective_at": at}
    each = WHOLE | {"at": at, "lines": [line], "transactions": [], "candidates": [candidate]}
    texts = (breaks_csv([each]), csv_of(RUN, [each]), html_of(RUN, [each]))
    for text in (body.decode() for body in texts):
        assert "2026-06-26" in text
        assert "2026-06-26 00:00" not in text


def test_excel_reads_the_spreadsheet_of_breaks_as_utf_8_by_its_mark() -> None:
    assert breaks_csv([WHOLE]).startswith(b"\xef\xbb\xbfid,")
    assert not csv_of(RUN, BREAKS).startswith(b"\xef\xbb\xbf")


def test_a_row_of_the_spreadsheet_has_all_that_a_decision_needs() -> None:
    head, row = rows_of(breaks_csv([WHOLE]))
    assert head == list(COLUMNS)
    cells = dict(zip(head, row, strict=True))
    assert [cells[name] for name in DECISION_COLUMNS] == ["", "", "", ""]
    assert (cells["id"], cells["type"], cells["wallet"], cells["gap"], cells["difference"]) == (
        "0123456789abcdef", "AMOUNT", "straitsx XSGD", "0.0", "-20.5",
    )  # fmt: skip
    assert cells["statement"] == (
        "2026-06-02 04:30:00+08:00 1000.0 TRF 陈大文 <b> =HYPERLINK(1) [REF-1] line:r1"
    )
    assert cells["books"] == (
        "2026-06-02 04:31:00+08:00 979.5 (fee 0.5) completed c1 [idem] payout:p1"
    )
    assert cells["candidates"].startswith("payment:p2 (its amount is the difference of 20.5")
    assert cells["notes"] == "2026-06-03 08:00:00+08:00 note by ann: asked <the> bank"
    assert cells["items"] == "line:r1; payout:p1"
    assert cells["explanation"] == "'=2+2"


def test_all_wallets_are_on_one_page_also_those_without_a_statement() -> None:
    figures = RUN["figures"] | {
        "in_transit_count": 0, "breaks_count": 3, "ledger": "12345.5", "closing": None,
        "by_type": [{"type": "FEE", "bucket": ">7d", "count": 3, "owner": "finance", "gap": "3"}],
    }  # fmt: skip
    answer = {
        "reconciliations": [RUN | {"figures": figures, "reasons": ["<no> balance"]}],
        "without_statement": [{"source": "gokart", "currency": "USD", "total": "7.25"}],
    }
    page = overview.html_of(answer).decode()
    assert '<a href="/reconciliation/straitsx/XSGD">straitsx XSGD</a>' in page
    for text in ("not stated", "12,345.5", "2026-07-01 08:00", "Times are in Asia/Singapore",
                 "&lt;no&gt; balance", "gokart USD: no statement", "7.25", "&gt;7d"):  # fmt: skip
        assert text in page, text
    rows = rows_of(overview.csv_of(answer))
    first, second = (dict(zip(rows[0], row, strict=True)) for row in rows[1:3])
    assert (first["statement"], first["books"], first["breaks_count"]) == ("", "12345.5", "3")
    assert (second["state"], second["books"]) == ("INCOMPLETE", "7.25")
    assert rows[-1] == ["straitsx", "XSGD", "FEE", ">7d", "finance", "3", "3.0"]
