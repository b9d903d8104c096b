"""Breaks and matches on a terminal: a list to read, and one break with both sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import tzinfo
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ledger.terminal import tables
from ledger.terminal.figures import (
    Decimals,
    break_time,
    line_time,
    local_time,
    zone_named,
)

JSON = Mapping[str, Any]

SIDE_BY_SIDE_MIN: Final = 100
"""Columns of the narrowest terminal on which both sides are beside each other."""
LISTED_MAX: Final = 2
"""Items of one side that a list shows; it counts the others."""


def break_rows(breaks: Sequence[JSON]) -> list[dict[str, Any]]:
    """Return breaks as rows of a table: both sides in words, the best candidate."""
    decimals = Decimals(_amounts(breaks))
    return [
        {
            **each,
            "wallet": f"{each['source']} {each['currency']}",
            **_sides(each, decimals),
            "shown_gap": f"{decimals.text(each['currency'], each['gap'])} {each['currency']}",
            "candidate": "; ".join(_candidate(one, each) for one in each["candidates"][:1]),
            "decision": f"{each['action']} by {each['decided_by']}" if each["action"] else "",
            "note": each["history"][-1]["note"] if each["history"] else each["note"],
        }
        for each in breaks
    ]


def show_breaks(document: JSON, out: Console) -> None:
    """Print a list of breaks, on a terminal a few lines each, else one row each; and totals."""
    rows = break_rows(document["breaks"])
    if not out.is_terminal or not rows:
        tables.show("breaks", {**document, "breaks": rows}, out)
    else:
        for row in rows:
            out.print(_block(row))
        tables.show_place(document, out)
    tables.show_zones(document["breaks"], out)
    if document["totals_by_type"]:
        sums = [{**each, "type": "all"} for each in document["totals"]]
        decimals = Decimals(_amounts(document["breaks"]))
        totals = [_total(each, decimals) for each in (*document["totals_by_type"], *sums)]
        out.print(tables.table("break_totals", totals, out))


def _total(each: JSON, decimals: Decimals) -> dict[str, Any]:
    """Return a total with as many decimals as the breaks above it have."""
    amounts = {
        name: decimals.text(each["currency"], each[name], grouped=False)
        for name in ("difference", "gap")
    }
    return {**each, **amounts}


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def show_matches(document: JSON, out: Console) -> None:
    """Print a list of matches, and what each rule matched."""
    tables.show("matches", {**document, "matches": match_rows(document["matches"])}, out)
    tables.show_zones(document["matches"], out)
    if document["totals"]:
        out.print(tables.table("rule_totals", document["totals"], out))


def _block(row: JSON) -> RenderableType:
    """Return one break of a list: what it is in the first line, then what is known of it."""
    head = Table.grid(padding=(0, 2, 0, 0))
    head.add_column(no_wrap=True, min_width=16)
    head.add_column(no_wrap=True, min_width=19)
    head.add_column(no_wrap=True, min_width=18, justify="right")
    head.add_column(no_wrap=True, min_width=8)
    head.add_column(no_wrap=True)
    head.add_row(
        Text(row["id"]), Text(row["type"], style="bold"), Text(row["shown_gap"], style="bold"),
        tables.styled(row["state"]), Text(_days(row["age_days"])),
    )  # fmt: skip
    about = Text(f"{row['wallet']}, {row['owner']}: {row['detail']}", style="dim")
    rest = Table.grid(padding=(0, 2, 0, 0))
    rest.add_column(no_wrap=True, style="dim")
    rest.add_column(overflow="fold")
    for title in ("statement", "books", "candidate", "decision", "note"):
        words = row[title]
        if words:
            rest.add_row(title, Text(tables.visible(words)))
    return Group(head, Padding(Group(about, rest), (0, 0, 1, 2)))


def match_rows(matches: Sequence[JSON]) -> list[dict[str, Any]]:
    """Return matches as rows of a table."""
    decimals = Decimals(_amounts(matches))
    return [
        {**each, "wallet": f"{each['source']} {each['currency']}", **_sides(each, decimals)}
        for each in matches
    ]


def show_break(each: JSON, out: Console) -> None:
    """Print one break: what it is, both sides, what may belong to it, what was decided."""
    zone = zone_named(each["time_zone"])
    decimals = Decimals(_amounts([each]))
    is_grouped = out.is_terminal

    def amount(value: str) -> str:
        return f"{decimals.text(each['currency'], value, grouped=is_grouped)} {each['currency']}"

    fields = {
        "break": each["id"],
        "type": each["type"],
        "state": each["state"],
        "wallet": f"{each['source']} {each['currency']}",
        "gap": f"{amount(each['gap'])} (books - statement)",
        "difference": f"{amount(each['difference'])} before any decision",
        "dated": f"{break_time(each, zone)} {each['time_zone']}",
        "age": f"{_days(each['age_days'])}, {each['bucket']}",
        "owner": each["owner"],
        "explanation": each["detail"],
    }
    tables.show_one(fields, out)
    lines = [_line(line, each, zone) for line in each["lines"]]
    moves = [_move(move, each, zone) for move in each["transactions"]]
    sides = (("statement", "lines", lines), ("books", "moves", moves))
    if not out.is_terminal:
        for title, layout, rows in sides:
            _show_part(title, layout, rows, out)
    elif out.width >= SIDE_BY_SIDE_MIN:
        out.print(_beside(sides, decimals, each["currency"]))
    else:
        for title, _, rows in sides:
            out.print(Text(f"\n{title}", style="bold"))
            out.print(_cards(rows, decimals, each["currency"]))
    candidates = [_dated(one, each, zone) for one in each["candidates"]]
    _show_part("may belong to it", "candidates", candidates, out)
    steps = [{**step, "at": local_time(step["at"], zone)} for step in each["history"]]
    _show_part("decisions and notes", "steps", steps, out)


def _show_part(title: str, layout: str, rows: Sequence[JSON], out: Console) -> None:
    out.print(Text(f"\n{title}", style="bold" if out.is_terminal else ""))
    out.print(tables.table(layout, rows, out) if rows else Text("none"))


def _beside(
    sides: Iterable[tuple[str, str, Sequence[JSON]]], decimals: Decimals, currency: str
) -> RenderableType:
    """Return both sides beside each other, item under item."""
    made = Table(box=None, pad_edge=False, padding=(1, 4, 0, 0), expand=True)
    cells: list[RenderableType] = []
    for title, _, rows in sides:
        made.add_column(title, ratio=1, header_style="bold", overflow="fold")
        cells.append(_cards(rows, decimals, currency))
    made.add_row(*cells)
    return made


def _cards(rows: Sequence[JSON], decimals: Decimals, currency: str) -> RenderableType:
    """Return items one under the other."""
    parts: list[RenderableType] = []
    for row in rows:
        parts += (
            [Text(""), _card(row, decimals, currency)]
            if parts
            else [_card(row, decimals, currency)]
        )
    return Group(*parts) if parts else Text("none", style="dim")


def _card(row: JSON, decimals: Decimals, currency: str) -> RenderableType:
    """Return one item downwards: its date and amount first."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True, style="dim")
    made.add_column(overflow="fold")
    names = ("effective_at", "amount", "fee", "status", "kind", "counterparty", "description",
             "customer_id", "references", "item")  # fmt: skip
    for name in names:
        value = row.get(name)
        if value in (None, "", []):
            continue
        is_amount = name in ("amount", "fee")
        words = decimals.text(currency, value) if is_amount else tables.text(value)
        style = "bold" if name == "amount" else ""
        title = {"effective_at": "date", "customer_id": "customer"}.get(name, name)
        made.add_row(title, Text(words, style=style))
    return made


def _line(line: JSON, each: JSON, zone: tzinfo) -> dict[str, Any]:
    return _dated({**line, "item": f"line:{line['line']}"}, each, zone)


def _move(move: JSON, each: JSON, zone: tzinfo) -> dict[str, Any]:
    fee = None if move["fee"] == "0" else move["fee"]
    return _dated({**move, "fee": fee, "item": f"{move['kind']}:{move['id']}"}, each, zone)


def _dated(item: JSON, each: JSON, zone: tzinfo) -> dict[str, Any]:
    at = _time(item, zone)
    return {**item, "effective_at": at, "currency": each["currency"]}


def _time(item: JSON, zone: tzinfo) -> str:
    """Return the time of a line, a transaction or a candidate: of a line perhaps the day alone."""
    is_line = "line" in item or item.get("side") == "statement"
    return (line_time if is_line else local_time)(item["effective_at"], zone)


def _amounts(rows: Iterable[JSON]) -> Iterable[tuple[str, str | None]]:
    for each in rows:
        sides = (*each["lines"], *each["transactions"], *each.get("candidates", ()))
        amounts = (each.get("gap"), each.get("difference"), *(side["amount"] for side in sides))
        yield from ((each["currency"], amount) for amount in amounts)


def _sides(each: JSON, decimals: Decimals) -> dict[str, str]:
    """Return both sides in words."""
    zone, currency = zone_named(each["time_zone"]), each["currency"]
    lines = [
        _words(line, decimals.text(currency, line["amount"]), zone, f"line:{line['line']}")
        for line in each["lines"]
    ]
    moves = [
        _words(move, decimals.text(currency, move["amount"]), zone, f"{move['kind']}:{move['id']}")
        for move in each["transactions"]
    ]
    return {"statement": _some(lines), "books": _some(moves)}


def _words(item: JSON, amount: str, zone: tzinfo, name: str) -> str:
    """Return an item in words: when, how much, who or what, its name."""
    who = item["counterparty"] or item.get("description") or item.get("status")
    words = (_time(item, zone)[:10], amount, who, name)
    return " ".join(word for word in words if word)


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - LISTED_MAX} more" if len(items) > LISTED_MAX else ""
    return "; ".join(items[:LISTED_MAX]) + more


def _candidate(one: JSON, each: JSON) -> str:
    more = len(each["candidates"]) - 1
    others = f" (+{more})" if more else ""
    return f"{one['item']}: {one['reason']}{others}"
