"""Answers as tables for people: boxes and colours on a terminal, plain columns elsewhere.

What is too wide for a terminal is shown in a form that fits; no figure is ever cut short.
Text from callbacks is never trusted: control characters are shown, not obeyed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ledger.terminal.cells import is_amount
from ledger.terminal.figures import Decimals

PLAIN_WIDTH: Final = 10_000
CELL_MAX: Final = 200
SENTENCE_MIN: Final = 24
"""Narrowest column in which sentences are still readable over several lines."""
MARKS: Final = ">!~#"

STYLES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("ok", "completed", "verified", "approved", "enabled", "Success"), "green"),
    **dict.fromkeys(("accepted", "cleared", "resolved"), "green"),
    **dict.fromkeys(("warn", "pending", "Pending", "sent", "received", "duplicate"), "yellow"),
    **dict.fromkeys(("quarantined", "refunded", "expired", "INCOMPLETE"), "yellow"),
    **dict.fromkeys(("fail", "failed", "rejected", "Rejected", "disabled"), "red"),
    **dict.fromkeys(("refused", "conflict", "open"), "bold red"),
    **dict.fromkeys(("RECONCILED", "RECONCILED_WITH_TIMING", "RESOLVED"), "green"),
    **dict.fromkeys(("BREAKS", "OPEN"), "bold red"),
}
"""Status words → how a terminal shows them."""


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column: its title, the path of its value (`event.position`), its alignment."""

    title: str
    path: str
    right: bool = False
    whole: bool = False
    """Whether nothing of the value may be left out: identifiers that people copy."""
    sentence: bool = False
    """Whether the value may go over several lines."""
    amount: bool = False
    """Whether it is an amount: with as many decimals as the currency's longest in the table."""


def _columns(*specs: str) -> tuple[TableColumn, ...]:
    """Read columns from `path`, `path=title`; before it ">" aligns right, "!" keeps it whole,
    "~" lets it go over several lines, "#" makes it an amount.
    """
    found = []
    for spec in specs:
        path, _, title = spec.lstrip(MARKS).partition("=")
        marks = spec[: len(spec) - len(spec.lstrip(MARKS))]
        words = title or path.rpartition(".")[2].replace("_", " ")
        is_right = ">" in marks or "#" in marks
        column = TableColumn(words, path, is_right, "!" in marks, "~" in marks, "#" in marks)
        found.append(column)
    return tuple(found)


LAYOUTS: Final[Mapping[str, tuple[TableColumn, ...]]] = {
    "wallets": _columns("source", "currency", "#available", "#held", "#pending_in", "#total",
                        "reconciliation.state=reconciled",
                        "reconciliation.through=through", "#reconciliation.difference=difference",
                        ">reconciliation.breaks=breaks", "reconciliation.current=current"),
    "balances": _columns("source", "!account", "currency", "#debits", "#credits", "#balance",
                         "normal"),
    "transactions": _columns("source", "kind", "!id", "status", "#amount", "currency", "#fees",
                             "effective_at", "customer_id=customer", "flags"),
    "customers": _columns("source", "!id", "verification_status=verification", "updated_at",
                          "registration_type=type", "country", "rejection"),
    "events": _columns("source", ">position", "kind", "!resource_id=resource", "status",
                       "verdict", "reason", "received_at", ">body_bytes=bytes"),
    "deliveries": _columns("source", "at", "outcome", ">answer", ">position", "path_event=event",
                           "peer", "reason", ">body_bytes=bytes", ">count"),
    "exceptions": _columns("!id", "source", "reason", "state", "kind", "!resource_id=resource",
                           ">event.position=position", "~detail", "opened_at", "~note"),
    "changes": _columns("change", "date", "booked", "#amount", "#now_amount=amount now",
                        "fields=differs in", "~description", "reference", "!line"),
    "statements": _columns("source", "currency", "account", "format", "opened_at=from",
                           "closed_at=to", "#opening", "#closing", ">lines", ">position", "status",
                           "sha256"),
    "statement_lines": _columns("source", "!line", "row_kind=kind", "#amount", "currency",
                                "effective_at", "counterparty", "~description",
                                "contract_id=contract", "status", "matched_by", "match"),
    "profiles": _columns("!name", "of", "~columns"),
    "breaks": _columns("!id", "wallet", "type", "state", "#gap", ">age_days=days", "owner",
                       "~detail=explanation", "~statement", "~books", "~candidate=may belong to it",
                       "action=decision", "decided_by=by", "~note"),
    "break_totals": _columns("currency", "type", ">count", "#difference", "#gap"),
    "lines": _columns("!item", "effective_at=at", "#amount", "kind", "counterparty",
                      "!~description", "~references"),
    "moves": _columns("!item", "effective_at=at", "#amount", "#fee", "status", "counterparty",
                      "customer_id=customer", "~references"),
    "candidates": _columns("!item", "side", "effective_at=at", "#amount", "counterparty",
                           "~description", "~reason"),
    "steps": _columns("at", "action", "by", "~note", ">position"),
    "matches": _columns("wallet", "rule", "#amount", "~statement", "~books", "~anchor"),
    "rule_totals": _columns("source", "currency", "rule", ">count=matches", ">lines",
                            ">transactions", "#value"),
    "by_type": _columns("wallet", "type", "bucket=age", "owner", ">count", "#gap"),
    "reconciliations": _columns("source", "currency", "state", "through",
                                "#figures.closing=statement",
                                "#figures.ledger=ledger", "#figures.in_transit=in transit",
                                "#figures.breaks=breaks", ">figures.breaks_count=open",
                                "#figures.residual=residual", ">figures.coverage_count=lines %",
                                ">figures.coverage_value=value %"),
    "findings": _columns("source", "reason", "kind", "!id", "#amount", "currency", "since",
                         "~detail"),
    "sources": _columns("source", ">head", ">books_position=books", ">lag_events=lag",
                        ">lag_seconds=lag s", ">parked", ">exceptions"),
    "entries": _columns("source", ">position", ">line", "account", "currency", "#amount",
                        "effective_at", "recorded_at"),
    "history": _columns(">position", "status", "effective_at", "recorded_at", "!event_id=event"),
    "checks": _columns("verdict=", "name=check", "~found", "~advice=what to do next"),
    "evidence": _columns("verdict=", "source", "name=check", ">position=first bad", "~found",
                         "~advice=what to do next"),
    "differences": _columns("source", "table", "!key", "column", "~live", "~rebuilt",
                            "positions=events"),
    "settings": _columns("name=setting", "~value", "origin"),
    "answers": _columns(">count", "answer"),
    "decisions": _columns(">line", "!id", "action=decision", "outcome", "currency", "~postings",
                          ">position", "~reason"),
    "sums": _columns("source", "account", "currency", "#amount", ">count"),
    "rules": _columns("source", "name=rule", "declared", "types", ">below", "line", "account",
                      "currency", ">count", "#amount", ">reopened", "!breaks"),
    "obstacles": _columns("source", "currency", "reason", "~detail"),
    "closes": _columns("source", "currency", "period", "status", "state",
                       "#statement_balance=statement", "#ledger_balance=ledger",
                       "#in_transit=in transit", "#breaks=carried forward", "by", "at",
                       ">position", "changes.changed=changed since"),
    "reopened": _columns("source", "currency", "detail"),
    "later": _columns("source", ">position", "kind", "!id", "change", "#amount", "dated"),
    "roll_forward": _columns("source", "currency", "period", "state", "closed",
                             ">carried_in.count=in", "#carried_in.amount=carried in",
                             ">opened.count=new", "#opened.amount=opened", "#changed",
                             ">closed_by_decision.count=decided",
                             "#closed_by_decision.amount=by decision",
                             ">closed_by_match.count=matched", "#closed_by_match.amount=by match",
                             ">carried_out.count=out", "#carried_out.amount=carried out"),
    "rolled": _columns("source", "currency", "movement", "!id", "type", "#amount"),
    "totals": _columns("currency", ">count", "#sum"),
}  # fmt: skip
"""Name of a list → its columns; a list without a layout shows the fields of its first row."""


class _Console(Console):
    """A console whose reader may go away: what that means for the exit status is the caller's."""

    def on_broken_pipe(self) -> None:
        """Leave the exit status alone, which rich would make 1."""
        raise BrokenPipeError


def console(stream: TextIO | None = None) -> Console:
    """Return where tables go: as wide as the terminal, or unfolded when it is none."""
    stream = stream or sys.stdout
    if stream.isatty():
        return _Console(file=stream, highlight=False, emoji=False)
    return _Console(
        file=stream, width=PLAIN_WIDTH, no_color=True, highlight=False, emoji=False,
        force_terminal=False, legacy_windows=False,
    )  # fmt: skip


def table(name: str, rows: Sequence[Mapping[str, Any]], out: Console) -> RenderableType:
    """Lay `rows` out by the layout of `name`, in the first form that fits the terminal.

    Boxed; without the columns that are empty in every row; without the box; row by row.
    """
    columns = LAYOUTS.get(name) or tuple(_columns(*rows[0]) if rows else ())
    cells = _cells(columns, rows, grouped=out.is_terminal)
    if not out.is_terminal:
        return _lined_up(columns, cells, is_boxed=False)
    kept = [place for place in range(len(columns)) if any(row[place].plain for row in cells)]
    filled = [columns[place] for place in kept]
    filled_cells = [[row[place] for place in kept] for row in cells]
    for some, shown, is_boxed in (
        (columns, cells, True), (filled, filled_cells, True), (filled, filled_cells, False),
    ):  # fmt: skip
        if _width(some, shown, is_boxed=is_boxed) <= out.width:
            return _lined_up(some, shown, is_boxed=is_boxed, style="bold")
    titles = [column.title for column in filled]
    records = (_record(list(zip(titles, row, strict=True)), out) for row in filled_cells)
    return Group(*(part for record in records for part in (record, "")))


def _cells(
    columns: Sequence[TableColumn], rows: Sequence[Mapping[str, Any]], *, grouped: bool
) -> list[list[Text]]:
    """Return what each row shows in each column; thousands are grouped if `grouped`."""
    decimals = Decimals(
        (_currency(row), value)
        for row in rows
        for column in columns
        if column.amount and is_amount(value := _found(row, column))
    )
    return [
        [
            Text(decimals.text(_currency(row), value, grouped=grouped))
            if column.amount and is_amount(value := _found(row, column))
            else _value(row, column)
            for column in columns
        ]
        for row in rows
    ]


def _currency(row: Mapping[str, Any]) -> str:
    return str(row.get("currency"))


def _width(columns: Sequence[TableColumn], rows: Sequence[list[Text]], *, is_boxed: bool) -> int:
    """Return how many characters a table needs so that nothing in it is cut short."""
    total = 0
    for place, column in enumerate(columns):
        cells = [Text(column.title), *(row[place] for row in rows)]
        widest = max(cell.cell_len for cell in cells)
        total += min(widest, SENTENCE_MIN) if column.sentence else widest
    return total + (3 * len(columns) + 1 if is_boxed else 2 * (len(columns) - 1))


def _lined_up(
    columns: Sequence[TableColumn],
    rows: Sequence[list[Text]],
    *,
    is_boxed: bool,
    style: str = "",
) -> Table:
    made = Table(
        box=box.ROUNDED if is_boxed else None,
        header_style=style,
        pad_edge=is_boxed,
        padding=(0, 1) if is_boxed else (0, 2, 0, 0),
    )
    for column in columns:
        made.add_column(
            column.title, justify="right" if column.right else "left", overflow="fold",
            no_wrap=not column.sentence,
        )  # fmt: skip
    for row in rows:
        made.add_row(*row)
    return made


def _record(fields: Sequence[tuple[str, Text]], out: Console) -> Table:
    """Lay one object out downwards: a line for each field that has a value."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(no_wrap=True, style="bold" if out.is_terminal else "")
    made.add_column(overflow="fold")
    for name, value in fields:
        if value.plain:
            made.add_row(name, value)
    return made


def show(name: str, document: Mapping[str, Any], out: Console) -> None:
    """Print the list `name` of an answer, and at which position it is true."""
    rows = document.get(name)
    rows = rows if isinstance(rows, list) else []
    if rows:
        out.print(table(name, rows, out))
    else:
        out.print(Text(f"no {name.replace('_', ' ')}"))
    for warning in (document.get("as_of") or {}).get("warnings", []):
        line(out, f"warning: {warning}", "yellow")
    show_place(document, out)


def show_place(document: Mapping[str, Any], out: Console) -> None:
    """Print on a terminal at which position an answer is true, and how to see more of it."""
    if not out.is_terminal:
        return
    position = document.get("position")
    true_at = f"true at {text(position)}" if position else ""
    dated = (document.get("as_of") or {}).get("effective_at")
    true_at += f", dated up to {text(dated)}" if dated else ""
    more = "more: --all, or --cursor " + str(document["next"]) if document.get("next") else ""
    out.print(Text("   ".join(part for part in (true_at, more) if part), style="dim"))


def show_zones(rows: Iterable[Mapping[str, Any]], out: Console) -> None:
    """Print in which zone the times of rows are; of several, each with its sources."""
    sources: dict[str, set[str]] = {}
    for row in rows:
        sources.setdefault(row["time_zone"], set()).add(row["source"])
    zones = [f"{zone} ({', '.join(sorted(names))})" for zone, names in sorted(sources.items())]
    if zones:
        line(out, f"times are in {'; '.join(zones if len(zones) > 1 else sources)}", "dim")


def show_one(document: Mapping[str, Any], out: Console) -> None:
    """Print one object: its fields, then every list in it as a table of its own."""
    lists = {k: v for k, v in document.items() if isinstance(v, list) and v and _is_rows(v)}
    fields = [
        (name.replace("_", " "), styled(text(value)))
        for name, value in document.items()
        if name not in lists and value not in (None, [], {})
    ]
    out.print(_record(fields, out))
    for name, rows in lists.items():
        out.print(Text(f"\n{name.replace('_', ' ')}", style="bold" if out.is_terminal else ""))
        out.print(table(name, rows, out))


def line(out: Console, words: str, status: str = "") -> None:
    """Print one line of text, coloured by the status word it is about."""
    out.print(Text(visible(words), style=STYLES.get(status, status)), soft_wrap=True)


def _is_rows(value: list[Any]) -> bool:
    return all(isinstance(row, dict) for row in value)


def _found(row: Mapping[str, Any], column: TableColumn) -> Any:
    value: Any = row
    for name in column.path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _value(row: Mapping[str, Any], column: TableColumn) -> Text:
    shown = text(_found(row, column))
    if len(shown) > CELL_MAX and not column.whole:
        shown = shown[: CELL_MAX - 1] + "…"
    return styled(shown)


def styled(words: str) -> Text:
    """Return words in the colour of the status that they name."""
    return Text(words, style=STYLES.get(words, ""))


def text(value: Any) -> str:
    """Write a JSON value in one line; nothing for null, control characters spelled out."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str():
            return visible(value)
        case list():
            return ", ".join(text(item) for item in value)
        case dict() if all(isinstance(item, int) for item in value.values()):
            return " ".join(f"{visible(name)}:{item}" for name, item in value.items())
        case dict():
            return visible(json.dumps(value, ensure_ascii=False))
        case _:
            return str(value)


def visible(words: str) -> str:
    """Spell out what is not printable, so that no callback can move a terminal's cursor."""
    if words.isprintable():
        return words
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in words
    )
