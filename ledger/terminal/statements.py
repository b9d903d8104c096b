"""Statements on a terminal: files, lines, and what an import did, in the zone of their source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import tzinfo
from typing import Any, Final

from rich.console import Console

from ledger.terminal import tables
from ledger.terminal.figures import (
    Decimals,
    line_time,
    local_time,
    zone_named,
)

JSON = Mapping[str, Any]

PROBLEM_KEYS: Final = ("type", "title", "detail", "status")
"""Members of a refusal that are about the refusal, not about the import."""
TITLES: Final[Mapping[str, str]] = {"opened_at": "from", "closed_at": "to"}
NOT_STATED: Final = "not stated"


def show_statements(document: JSON, out: Console) -> None:
    """Print a list of imported statements."""
    files = document["statements"]
    rows = [_in_zone(each) for each in files]
    tables.show("statements", {**document, "statements": rows}, out)
    tables.show_zones(files, out)


def show_lines(document: JSON, out: Console) -> None:
    """Print a list of statement lines."""
    lines = document["statement_lines"]
    rows = [
        {**line, "effective_at": line_time(line["effective_at"], zone_named(line["time_zone"]))}
        for line in lines
    ]
    tables.show("statement_lines", {**document, "statement_lines": rows}, out)
    tables.show_zones(lines, out)


def show_import(document: JSON, out: Console) -> None:
    """Print what an import did or would do, its notes and, of a refusal, the reason."""
    is_refused = "title" in document
    hidden = {"notes", "source", *(PROBLEM_KEYS if is_refused else ())}
    hidden |= set() if document["position"] else {"position"}
    shown = {
        TITLES.get(name, name): value
        for name, value in _in_zone(document).items()
        if name not in hidden
    }
    decimals = Decimals(_amounts(document))
    for name in ("opening", "closing"):
        amount = decimals.text("", document[name], grouped=out.is_terminal)
        shown[name] = amount or NOT_STATED
    zone = zone_named(document["time_zone"])
    shown["changes"] = [_change(each, decimals, zone) for each in document["changes"]]
    tables.show_one(shown, out)
    for note in document["notes"]:
        tables.line(out, f"note: {note}")
    if is_refused:
        tables.line(out, document["detail"], "BREAKS")


def _in_zone(statement: JSON) -> dict[str, Any]:
    """Return a statement with the period in its zone."""
    zone = zone_named(statement["time_zone"])
    period = {name: local_time(statement[name], zone) for name in ("opened_at", "closed_at")}
    return {**statement, **period}


def _change(each: JSON, decimals: Decimals, zone: tzinfo) -> dict[str, Any]:
    """Return a changed line as a row: what it was, and what it is now where that differs."""
    amounts = {
        name: decimals.text("", each[name], grouped=False) for name in ("amount", "now_amount")
    }
    booked = [line_time(each[name], zone) for name in ("booked_at", "now_booked_at")]
    return {
        **each,
        **amounts,
        "date": _moved(*(line_time(each[n], zone) for n in ("effective_at", "now_effective_at"))),
        "booked": _moved(*booked) if all(booked) and booked[0] != booked[1] else "",
    }


def _moved(before: str, now: str) -> str:
    return f"{before} → {now}" if now and now != before else before


def _amounts(document: JSON) -> Iterable[tuple[str, str | None]]:
    for each in (document["opening"], document["closing"]):
        yield "", each
    for change in document["changes"]:
        yield "", change["amount"]
        yield "", change["now_amount"]
