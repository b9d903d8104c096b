"""Write breaks as a spreadsheet that a person fills in, and read its cells back. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from typing import Any, Final

from ledger.terminal.cells import write_cell
from ledger.terminal.figures import Decimals, break_dated, dated, line_dated, zone_named

JSON = Mapping[str, Any]

DECISION_COLUMNS: Final = ("decision", "decision_account", "decision_note", "decision_items")
"""What a person fills in: an action, where it posts, why, and the items that a match joins."""

COLUMNS: Final = (
    "id", "type", "wallet", "state", "age_days", "at", "owner", "gap", "difference", "explanation",
    "statement", "books", "candidates", "notes", "items", *DECISION_COLUMNS,
)  # fmt: skip


def breaks_csv(breaks: Sequence[JSON]) -> bytes:
    """Return breaks as CSV, one per row, with empty columns for decisions.

    It begins with a byte order mark, without which Excel does not read it as UTF-8.
    """
    decimals = Decimals(amounts_of(breaks))
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(COLUMNS)
    for each in breaks:
        row = _row(each, decimals)
        rows.writerow([write_cell(str(row.get(name, ""))) for name in COLUMNS])
    return out.getvalue().encode("utf-8-sig")


def amounts_of(breaks: Iterable[JSON]) -> Iterator[tuple[str, str | None]]:
    """Yield every amount of breaks, each with its currency."""
    for each in breaks:
        sides = (*each["lines"], *each["transactions"], *each["candidates"])
        amounts = [each["difference"], each["gap"], *(side["amount"] for side in sides)]
        yield from ((each["currency"], amount) for amount in amounts)


def _row(each: JSON, decimals: Decimals) -> dict[str, Any]:
    zone = zone_named(each["time_zone"])
    currency = each["currency"]

    def amount(value: str | None) -> str:
        return decimals.text(currency, value, grouped=False)

    return {
        "id": each["id"],
        "type": each["type"],
        "wallet": f"{each['source']} {currency}",
        "state": each["state"],
        "age_days": each["age_days"],
        "at": break_dated(each, zone),
        "owner": each["owner"],
        "gap": amount(each["gap"]),
        "difference": amount(each["difference"]),
        "explanation": each["detail"],
        "statement": "\n".join(
            _words(
                line_dated(line["effective_at"], zone), amount(line["amount"]), line["kind"],
                line["counterparty"], line["description"], _names(line["references"]),
                f"line:{line['line']}",
            )
            for line in each["lines"]
        ),
        "books": "\n".join(
            _words(
                dated(move["effective_at"], zone), amount(move["amount"]),
                f"(fee {amount(move['fee'])})" if move["fee"] not in (None, "0") else "",
                move["status"], move["counterparty"], move["customer_id"],
                _names(move["references"]), f"{move['kind']}:{move['id']}",
            )
            for move in each["transactions"]
        ),
        "candidates": "\n".join(_candidate(one, amount(one["amount"]), zone)
                                for one in each["candidates"]),
        "notes": "\n".join(
            _words(dated(step["at"], zone), f"{step['action']} by {step['by']}:", step["note"])
            for step in each["history"]
        ),
        "items": "; ".join(each["items"]),
    }  # fmt: skip


def _candidate(one: JSON, amount: str, zone: tzinfo) -> str:
    write = line_dated if one["side"] == "statement" else dated
    at = write(one["effective_at"], zone)
    words = _words(at, amount, one["counterparty"], one["description"])
    return f"{one['item']} ({one['reason']}): {words}"


def _names(names: Sequence[str]) -> str:
    return f"[{', '.join(names)}]" if names else ""


def _words(*words: str | None) -> str:
    return " ".join(word for word in words if word)
