"""Write one wallet's reconciliation as CSV and as a page to print. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from decimal import Decimal
from html import escape
from typing import Any, Final

from ledger.reconciliation.reports import page
from ledger.reconciliation.reports.months import (
    HEADINGS,
    month_amounts,
    month_rows,
    month_section,
)
from ledger.reconciliation.reports.page import Markup, html, link, plain_text, state_mark, table
from ledger.reconciliation.reports.spreadsheet import amounts_of
from ledger.terminal.cells import write_cell
from ledger.terminal.figures import (
    Decimals,
    break_dated,
    break_time,
    dated,
    line_time,
    local_time,
    zone_named,
)

CANDIDATE_WORDS_MAX: Final = 100
"""Characters of a candidate's counterparty and description; its own break has them whole."""

JSON = Mapping[str, Any]
Amount = Callable[[str | None], str]
"""Writes an amount of the wallet's currency."""

BREAK_FIELDS: Final = (
    "id", "type", "state", "difference", "gap", "at", "age_days", "bucket", "owner", "detail",
    "items", "action", "decided_by", "decided_at", "note",
)  # fmt: skip
BREAK_AMOUNTS: Final = ("difference", "gap")
SIDE_ROWS_MAX: Final = 20
"""Lines or transactions of one break that the page lists; it counts the others."""
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


def csv_of(run: JSON, breaks: Sequence[JSON], months: Sequence[JSON] = ()) -> bytes:
    """Return the figures, one per row, then breaks and months under headers of their own."""
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(("field", "value"))
    zone, currency = zone_named(run["time_zone"]), run["currency"]
    decimals = Decimals([*_amounts(run, breaks), *month_amounts(months)])
    amounts = {name for name, _ in SHEET} | {"difference", "chain"}
    for name, value in _facts(run, lambda moment: dated(moment, zone)):
        rows.writerow((write_cell(name), write_cell(value)))
    for name, value in run["figures"].items():
        if name in amounts:
            rows.writerow((name, decimals.text(currency, value, grouped=False)))
        elif not isinstance(value, list):
            rows.writerow((name, write_cell(plain_text(value))))
    for rule in run["figures"]["by_rule"]:
        rows.writerow((write_cell(f"matches by {rule['rule']}"), rule["count"]))
    rows.writerow(())
    rows.writerow(BREAK_FIELDS)
    for each in by_weight(breaks):
        texts = {**each, "at": break_dated(each, zone)}
        texts["decided_at"] = dated(each["decided_at"], zone)
        texts |= {
            name: decimals.text(currency, each[name], grouped=False) for name in BREAK_AMOUNTS
        }
        rows.writerow([write_cell(plain_text(texts.get(name))) for name in BREAK_FIELDS])
    if months:
        rows.writerows(((), HEADINGS))
        rows.writerows(
            month_rows(months, lambda value: decimals.text(currency, value, grouped=False))
        )
    return out.getvalue().encode()


def html_of(run: JSON, breaks: Sequence[JSON], months: Sequence[JSON] = ()) -> bytes:
    """Return the page: result, balance sheet, what is matched, breaks, months, evidence."""
    figures, currency = run["figures"], run["currency"]
    zone = zone_named(run["time_zone"])
    decimals = Decimals([*_amounts(run, breaks), *month_amounts(months)])

    def amount(value: str | None) -> str:
        return page.NOT_STATED if value is None else decimals.text(currency, value)

    title = f"{currency} of {run['source']}, through {local_time(run['through'], zone)}"
    parts = [
        f"<p>{link('/reconciliation', 'All wallets')}</p>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{state_mark(run['state'])} {STATES.get(run['state'], '')}</p>",
        *(f"<p>{escape(reason)}</p>" for reason in run["reasons"]),
        *(f"<p>{escape(month['detail'])}</p>" for month in run.get("changed_months", ())),
        f'<p class=soft>Times are in {escape(run["time_zone"])}; the period ends before the time '
        "above.</p>",
        "<h2>Balance</h2>",
        table(
            ("", currency),
            [(label, amount(figures[name])) for name, label in SHEET],
            numbers={1},
            sums={"Statement: closing balance", "Ledger: balance at the cut-off"},
            style="narrow",
        ),
        f"<p class=soft>{CONVENTION}</p>",
        "<h2>What is matched</h2>",
        _matched_table(figures, amount),
        "<h2>Open breaks by type and age</h2>",
        table(
            ("type", "age", "owner", "count", "gap"),
            [
                (each["type"], each["bucket"], each["owner"], each["count"], amount(each["gap"]))
                for each in sorted(figures["by_type"], key=lambda each: -abs(Decimal(each["gap"])))
            ],
            numbers={3, 4},
            whole={1},
        ),
        f"<h2>All breaks, in transit and resolved ones included ({len(breaks)})</h2>",
        *(_section(each, amount, zone) for each in by_weight(breaks)),
        *([] if breaks else ["<p>none</p>"]),
        _type_table(breaks),
        *month_section(months, amount),
        "<h2>Evidence</h2>",
        table(("", ""), list(_facts(run, lambda moment: local_time(moment, zone))), whole={0}),
    ]  # fmt: skip
    return page.document(f"Reconciliation: {title}", parts)


def _amounts(run: JSON, breaks: Sequence[JSON]) -> Iterator[tuple[str, str | None]]:
    """Yield every amount of the page: all are in one currency."""
    figures = run["figures"]
    for name in (*(name for name, _ in SHEET), "difference", "chain"):
        yield run["currency"], figures.get(name)
    for group in (figures["by_type"], figures["by_rule"]):
        yield from ((run["currency"], each.get("gap") or each.get("value")) for each in group)
    yield from amounts_of(breaks)


def _matched_table(figures: JSON, amount: Amount) -> str:
    counts = table(
        ("", "matched", "of", "percent"),
        [
            ("Lines", figures["lines_matched"], figures["lines"], figures["coverage_count"]),
            ("Transactions", figures["transactions_matched"], figures["transactions"], ""),
            ("Value", "", "", figures["coverage_value"]),
        ],
        numbers={1, 2, 3},
        style="narrow",
    )
    rules = [
        (each["rule"], each["count"], each["lines"], each["transactions"], amount(each["value"]))
        for each in figures["by_rule"]
    ]
    if not rules:
        return counts
    head = ("rule", "matches", "lines", "transactions", "value of the lines")
    return f"{counts}\n<p></p>{table(head, rows=rules, numbers={1, 2, 3, 4}, style='narrow')}"


def _section(each: JSON, amount: Amount, zone: tzinfo) -> str:
    """Return one break: what it is, both sides, what may belong to it, what was decided."""
    days = "today" if not each["age_days"] else f"{each['age_days']} days old"
    days = "1 day old" if each["age_days"] == 1 else days
    facts = (
        Markup(f"<code>{html(each['id'])}</code>"), days, f"owner {each['owner']}",
        f"difference {amount(each['difference'])}", f"dated {break_time(each, zone)}",
    )  # fmt: skip
    parts = [
        f"<h3>{escape(each['type'])} {state_mark(each['state'])}"
        f"<span class=n>{escape(amount(each['gap']))}</span></h3>",
        f"<p>{escape(each['detail'])}</p>",
        f"<p class=soft>{' · '.join(map(html, facts))}</p>",
        "<div class=sides>",
        f"<div><h4>Statement</h4>{_lines_table(each['lines'], amount, zone)}</div>",
        f"<div><h4>Books</h4>{_transactions_table(each['transactions'], amount, zone)}</div>",
        "</div>",
        _list("May belong to it", [_candidate(one, amount, zone) for one in each["candidates"]]),
        _list("Decisions and notes", [_step(step, zone) for step in each["history"]]),
    ]
    return f'<section id="{escape(each["id"])}">{"".join(parts)}</section>'


def _lines_table(lines: Sequence[JSON], amount: Amount, zone: tzinfo) -> str:
    rows = [
        (
            line_time(line["effective_at"], zone),
            _described(
                line["kind"], line["counterparty"], line["description"], line["references"],
                link(line["href"], f"line:{line['line']}"),
            ),
            amount(line["amount"]),
        )
        for line in lines
    ]  # fmt: skip
    return _side(rows, "no line")


def _transactions_table(transactions: Sequence[JSON], amount: Amount, zone: tzinfo) -> str:
    rows = [
        (
            local_time(move["effective_at"], zone),
            _described(
                f"{move['kind']}, {move['status']}", move["counterparty"],
                f"fee {amount(move['fee'])}" if move["fee"] not in (None, "0") else None,
                move["references"], link(move["href"], f"{move['kind']}:{move['id']}"),
            ),
            "" if move["amount"] is None else amount(move["amount"]),
        )
        for move in transactions
    ]  # fmt: skip
    return _side(rows, "no transaction")


def _side(rows: Sequence[tuple[Any, ...]], nothing: str) -> str:
    if not rows:
        return f"<p class=soft>{nothing}</p>"
    more = len(rows) - SIDE_ROWS_MAX
    note = f"<p class=more>and {more} more</p>" if more > 0 else ""
    return table(("", "", ""), rows[:SIDE_ROWS_MAX], whole={0}, numbers={2}) + note


def _described(
    kind: str, counterparty: str | None, words: str | None, references: Sequence[str], item: str
) -> Markup:
    """Return what is known of an item: who, what, by which names."""
    who = f"<b>{escape(counterparty)}</b>" if counterparty else ""
    names = f"<span class=soft>{escape(', '.join(references))}</span>" if references else ""
    kind = " · ".join(part for part in (escape(kind), names) if part)
    parts = (who, escape(words or ""), kind, html(item))
    return Markup("<br>".join(part for part in parts if part))


def _candidate(one: JSON, amount: Amount, zone: tzinfo) -> Markup:
    who = ", ".join(filter(None, (one["counterparty"], one["description"])))
    if len(who) > CANDIDATE_WORDS_MAX:
        who = f"{who[: CANDIDATE_WORDS_MAX - 1]}…"
    write = line_time if one["side"] == "statement" else local_time
    words = f"{write(one['effective_at'], zone)} {who}".strip()
    return Markup(
        f"<b>{escape(one['reason'])}</b>: {escape(amount(one['amount']))}, {escape(words)} "
        f"<code>{escape(one['item'])}</code>"
    )


def _step(step: JSON, zone: tzinfo) -> Markup:
    by = f" by {step['by']}" if step["by"] else ""
    who = f"{local_time(step['at'], zone)} {step['action']}{by}"
    return Markup(f"{escape(who)}: {escape(step['note'] or '')}")


def _list(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    return f"<h4>{title}</h4><ul>{''.join(f'<li>{html(item)}</li>' for item in items)}</ul>"


def _type_table(breaks: Sequence[JSON]) -> str:
    """Return what the types of the breaks mean."""
    types = sorted({each["type"] for each in breaks})
    if not types:
        return ""
    return table(("type", "meaning"), [(name, TYPES.get(name, "")) for name in types], whole={0})


def _facts(run: JSON, time: Callable[[str | None], str]) -> Iterable[tuple[str, str]]:
    """Yield the evidence of the result."""
    yield "source", run["source"]
    yield "currency", run["currency"]
    yield "state", run["state"]
    yield "time zone", run["time_zone"]
    yield "from", time(run["opened_at"])
    yield "through (cut-off, exclusive)", time(run["through"])
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
    """Return breaks in the order of reading: open ones first, in transit after them, then by size.

    Resolved ones are the last.
    """
    return sorted(
        breaks,
        key=lambda b: (
            b["state"] != "OPEN", b["type"] == "TIMING", -abs(Decimal(b["difference"])), b["id"],
        ),
    )  # fmt: skip
