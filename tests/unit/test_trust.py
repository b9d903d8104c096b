"""The table of what is proved names tests that exist, and says something in every cell."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRUST = (ROOT / "ledger" / "TRUST.md").read_text("utf-8")


def test_every_test_that_the_table_names_exists() -> None:
    sources = "".join(path.read_text("utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    known = set(re.findall(r"def (test_\w+)", sources))
    named = set(re.findall(r"`(test_\w+)`", TRUST))
    assert len(named) > 15
    assert named <= known


def test_every_cell_states_something() -> None:
    rows = [line.strip("|").split("|") for line in TRUST.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {6}
    assert all(cell.strip() for row in rows[2:] for cell in row)
