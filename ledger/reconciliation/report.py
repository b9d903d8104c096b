"""Write a reconciliation as CSV and as a page to print. Pure: the same run, the same bytes."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from html import escape
from typing import Any, Final

JSON = Mapping[str, Any]

BREAK_FIELDS: Final = (
    "id", "type", "state", "difference", "gap", "at", "age_days", "bucket", "owner", "detail",
    "items", "action", "decided_by", "decided_at", "note",
)  # fmt: skip
SHEET: Final = (
    ("opening", "Statement: opening balance"),
    ("matched_in", "Matched lines, incoming"),
    ("matched_out", "Matched lines, outgoing"),
    ("fees", "Matched fees"),
    ("unmatched", "Lines without a match"),
    ("closing", "Statement: closing balance"),
    ("in_transit", "In transit"),
    ("breaks", "Open breaks"),
    ("residual", "Residual, not explained"),
    ("ledger", "Ledger: balance at the cut-off"),
)
"""The balance sheet from top to bottom: closing + in transit + breaks + residual = ledger."""

CONVENTION: Final = (
    "Closing balance of the statement + in transit + open breaks + residual = ledger balance. A "
    "difference is the ledger's amount minus the statement's, before any decision; the gap is what "
    "remains of it after postings."
)
"""The sign of every difference, for the reader of the page."""

STATES: Final[Mapping[str, str]] = {
    "RECONCILED": "Statement and ledger agree: every difference is zero or resolved.",
    "RECONCILED_WITH_TIMING": "Statement and ledger agree, apart from what is still in transit.",
    "BREAKS": "Statement and ledger differ; the open breaks below explain the whole difference.",
    "INCOMPLETE": "No conclusion is possible yet, for these reasons:",
}
"""What each state means."""

TYPES: Final[Mapping[str, str]] = {
    "TIMING": "in transit: too recent to count as missing on the other side",
    "MISSING_AT_PROVIDER": "in the ledger, but not on the statement",
    "MISSING_IN_LEDGER": "on the statement, but not in the ledger",
    "AMOUNT": "on both sides, with different amounts",
    "FEE": "on both sides, with different fees",
    "CURRENCY": "on both sides, in different currencies",
    "STATUS": "completed on one side only",
    "DIRECTION": "incoming on one side and outgoing on the other",
    "DUPLICATE_PROVIDER": "twice on the statement, once in the ledger",
    "DUPLICATE_INTERNAL": "twice in the ledger, once on the statement",
    "AMBIGUOUS": "several lines and transactions fit each other; an operator decides",
    "CONFLICT": "the callbacks about it contradict each other, so its money is held",
    "OPENING": "the ledger begins with another balance than the first statement",
}
"""What each type of break means."""

STYLE: Final = """
body{font:14px/1.45 system-ui,sans-serif;color:#1b1f24;max-width:60rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.05rem;margin:1.8rem 0 .4rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;
border-bottom:1px solid #d8dde3}
th{font-weight:600}td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
tr.sum td{font-weight:600;border-top:2px solid #1b1f24}
code{font:12px ui-monospace,monospace}code,td:nth-child(n+6):not(.n){overflow-wrap:anywhere}
td:nth-child(n+6):not(.n){min-width:8rem}td:nth-child(1){min-width:4.5rem;overflow-wrap:anywhere}
.state{display:inline-block;padding:.1rem .6rem;border:1px solid;border-radius:1rem;font-weight:600}
.RECONCILED,.RECONCILED_WITH_TIMING{color:#14632f}.BREAKS{color:#a4161a}.INCOMPLETE{color:#8a5a00}
@media print{body{margin:0;font-size:11px;max-width:none}tr{break-inside:avoid}@page{margin:15mm}}
"""
STYLE_HASH: Final = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
"""For the page's Content-Security-Policy: this style and nothing else."""


def csv_of(run: JSON, breaks: Sequence[JSON]) -> bytes:
    """Return the figures, one per row, then the breaks under a header of their own."""
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(("field", "value"))
    for name, value in _facts(run):
        rows.writerow((_cell(name), _cell(value)))
    for name, value in run["figures"].items():
        if name != "by_type":
            rows.writerow((name, "" if value is None else _cell(value)))
    rows.writerow(())
    rows.writerow(BREAK_FIELDS)
    for each in by_weight(breaks):
        rows.writerow([_cell(_text(each.get(name))) for name in BREAK_FIELDS])
    return out.getvalue().encode()


def html_of(run: JSON, breaks: Sequence[JSON]) -> bytes:
    """Return the page: result, balance sheet, open breaks, and the evidence."""
    figures = run["figures"]
    sums = figures["by_type"]
    title = f"{run['currency']} of {run['source']}, through {_text(run['through'])}"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        f"<title>Reconciliation: {escape(title)}</title><style>{STYLE}</style>",
        f"<h1>{escape(title)}</h1>",
        f'<p><span class="state {escape(run["state"])}">{escape(run["state"])}</span> '
        f"{STATES.get(run['state'], '')}</p>",
        *(f"<p>{escape(reason)}</p>" for reason in run["reasons"]),
        "<h2>Balance</h2>",
        _table(
            ("", run["currency"]),
            _with_amounts([(label,) for _, label in SHEET], [figures[name] for name, _ in SHEET]),
            numbers={1},
            sums={"Statement: closing balance", "Ledger: balance at the cut-off"},
        ),
        f"<p>{CONVENTION}</p>",
        "<h2>What is matched</h2>",
        _table(
            ("", "matched", "of", "percent"),
            [
                ("Lines", figures["lines_matched"], figures["lines"], figures["coverage_count"]),
                ("Transactions", figures["transactions_matched"], figures["transactions"], ""),
                ("Value", "", "", figures["coverage_value"]),
            ],
            numbers={1, 2, 3},
        ),
        "<h2>Open breaks by type and age</h2>",
        _table(
            ("type", "age", "owner", "count", "gap"),
            _with_amounts(
                [(t["type"], t["bucket"], t["owner"], t["count"]) for t in sums],
                [t["gap"] for t in sums],
            ),
            numbers={3, 4},
        ),
        "<h2>All breaks, in transit and resolved ones included</h2>",
        _break_table(by_weight(breaks)),
        _type_table(breaks),
        "<h2>Evidence</h2>",
        _table(("", ""), list(_facts(run))),
        "</html>\n",
    ]  # fmt: skip
    return "\n".join(parts).encode()


def _type_table(breaks: Sequence[JSON]) -> str:
    """Return what the types of the breaks mean."""
    types = sorted({each["type"] for each in breaks})
    if not types:
        return ""
    return _table(("type", "meaning"), [(name, TYPES.get(name, "")) for name in types])


def _break_table(breaks: Sequence[JSON]) -> str:
    """Return every break, with its difference and the gap that remains."""
    rows: list[tuple[Any, ...]] = [_break_row(each) for each in breaks]
    for name in ("difference", "gap"):
        rows = _with_amounts(rows, [each[name] for each in breaks])
    head = (
        "break", "type", "state", "age in days", "owner", "explanation", "decision",
        "difference", "gap",
    )  # fmt: skip
    return _table(head, rows, numbers={3, 7, 8})


def _facts(run: JSON) -> Iterable[tuple[str, str]]:
    """Yield the evidence of the result."""
    yield "source", run["source"]
    yield "currency", run["currency"]
    yield "state", run["state"]
    yield "from", _text(run["opened_at"])
    yield "through (cut-off, exclusive)", _text(run["through"])
    for source, position in run["positions"].items():
        yield f"position of {source}", str(position)
    for seal in run["seals"]:
        sealed = f"{seal['size']} events, root {seal['root']}" if seal["root"] else "not yet"
        yield f"seal of {seal['source']}", sealed
    for place, sha256 in enumerate(run["files"], 1):
        yield f"statement {place} (SHA-256)", sha256
    yield "differences and gaps", "books - statement"
    yield "rules (SHA-256)", run["rules_sha256"]
    yield "result (SHA-256)", run["sha256"]


def by_weight(breaks: Sequence[JSON]) -> list[JSON]:
    """Return breaks in the order of reading: open ones first, then by size."""
    return sorted(
        breaks, key=lambda b: (b["state"] != "OPEN", -abs(Decimal(b["difference"])), b["id"])
    )


def _with_amounts(
    rows: Iterable[tuple[Any, ...]], amounts: Sequence[str | None]
) -> list[tuple[Any, ...]]:
    """Add a last column: amounts in groups of thousands, with the same number of decimals."""
    places = max((len(amount.partition(".")[2]) for amount in amounts if amount), default=0)
    texts = ["not stated" if a is None else f"{Decimal(a):,.{places}f}" for a in amounts]
    return [(*row, text) for row, text in zip(rows, texts, strict=True)]


def _break_row(each: JSON) -> tuple[str, ...]:
    decided = f"{each['action']} by {each['decided_by']}: {each['note']}" if each["action"] else ""
    detail = f"{each['detail']} ({_text(each['items'])})" if each["items"] else each["detail"]
    return (
        each["id"], each["type"], each["state"], str(each["age_days"]), each["owner"],
        detail, decided,
    )  # fmt: skip


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    numbers: set[int] | None = None,
    sums: set[str] | None = None,
) -> str:
    if not rows:
        return "<p>none</p>"

    def cells(tag: str, row: Sequence[Any]) -> str:
        return "".join(
            f"<{tag}{' class=n' if place in (numbers or ()) else ''}>{escape(_text(cell))}</{tag}>"
            for place, cell in enumerate(row)
        )

    body = "\n".join(
        f"<tr{' class=sum' if sums and row[0] in sums else ''}>{cells('td', row)}</tr>"
        for row in rows
    )
    return f"<table><tr>{cells('th', head)}</tr>\n{body}</table>"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)


def _cell(value: Any) -> str:
    """Return a cell that no spreadsheet takes for a formula; amounts stay numbers."""
    text = _text(value)
    is_amount = text.removeprefix("-").replace(".", "", 1).isdigit()
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") and not is_amount else text
