"""Law: a table says everything on a terminal of any width; no figure is ever cut short."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import pytest

from ledger.terminal import tables

STYLE = re.compile(r"\x1b\[[0-9;]*m")
WALLET = {
    "source": "straitsx",
    "currency": "XSGD",
    "available": "-139517.57",
    "held": "93750.97",
    "pending_in": "30606.27",
    "total": "-45766.6",
    "reconciliation": {"state": "INCOMPLETE", "through": None},
}
EXCEPTION = {
    "id": "7b194f06dcfe1849",
    "source": "straitsx",
    "reason": "conflict",
    "state": "open",
    "kind": "user_withdrawal",
    "resource_id": "contract_939ab028483477beb62853d8b556531a",
    "event": {"position": 92},
    "detail": "the facts differ in amount: pending at 77, completed at 92; decide which to keep",
    "opened_at": "2026-11-28T18:23:19.439562Z",
}


class Terminal(io.StringIO):
    """A stream that is a terminal; its width comes from COLUMNS."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def shown(
    monkeypatch: pytest.MonkeyPatch, width: int, name: str, *rows: Mapping[str, Any]
) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    tables.show(name, {name: list(rows)}, tables.console(stream))
    words = STYLE.sub("", stream.getvalue())
    return [line.rstrip() for line in words.splitlines() if line.strip()]


@pytest.mark.parametrize("width", [200, 90, 80, 60, 40])
def test_a_wallet_is_shown_whole(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = shown(monkeypatch, width, "wallets", WALLET)
    stated = " ".join(lines).split()
    for word in ("straitsx", "XSGD", "-139,517.57", "93,750.97", "-45,766.60", "INCOMPLETE"):
        assert word in stated
    assert max(map(len, lines)) <= width


def test_decimals_are_alike_within_a_currency_and_thousands_are_grouped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = WALLET | {"currency": "XIDR", "available": "12000", "held": "0", "total": "12000"}
    other |= {"pending_in": None}
    lines = shown(monkeypatch, 80, "wallets", WALLET, other)
    assert lines[1].split()[2:6] == ["-139,517.57", "93,750.97", "30,606.27", "-45,766.60"]
    assert lines[2].split()[2:5] == ["12,000", "0", "12,000"]
    stream = io.StringIO()
    tables.show("wallets", {"wallets": [WALLET, other]}, tables.console(stream))
    plain = stream.getvalue().splitlines()
    assert plain[1].split()[2:6] == ["-139517.57", "93750.97", "30606.27", "-45766.60"]


def test_the_form_follows_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = shown(monkeypatch, 200, "wallets", WALLET)
    assert wide[0].startswith("╭")
    assert "through" in wide[1]
    narrow = shown(monkeypatch, 80, "wallets", WALLET)
    assert "through" not in narrow[0]
    assert narrow[1].split()[:2] == ["straitsx", "XSGD"]
    assert shown(monkeypatch, 40, "wallets", WALLET)[0].split() == ["source", "straitsx"]


def test_sentences_go_over_lines_and_identifiers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, 80, "exceptions", EXCEPTION)
    assert f"resource   {EXCEPTION['resource_id']}" in lines
    assert " ".join(str(EXCEPTION["detail"]).split()) in " ".join(" ".join(lines).split())
    checks = {"verdict": "warn", "name": "settings", "found": "a " * 60, "advice": "do " * 30}
    assert shown(monkeypatch, 80, "checks", checks)[0].startswith("╭")


@pytest.mark.parametrize("width", [200, 120, 80, 60])
def test_a_difference_is_no_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    row = {
        "source": "straitsx",
        "table": "transactions",
        "key": "payment contract_939ab028483477beb62853d8b556531a",
        "column": "details.returned_amount",
        "live": "(none)",
        "rebuilt": "the customer has -4000 XSGD and is of unknown verification,…",
        "positions": "7 9 12 …",
    }
    lines = shown(monkeypatch, width, "differences", row)
    assert max(map(len, lines)) <= width
