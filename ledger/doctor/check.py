"""The result of one check: what was checked, its outcome, what was found, what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check, as `ledger doctor --json` prints it; `advice` may be empty."""

    verdict: Literal["ok", "warn", "fail"]
    name: str
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Check:
    """Return the result of a check that found no problem."""
    return Check("ok", name, found)


def warn(name: str, found: str, advice: str) -> Check:
    """Return a warning: it works, and something should be done about it."""
    return Check("warn", name, found, advice)


def fail(name: str, found: str, advice: str) -> Check:
    """Return a failure: something can lose, delay or falsify data."""
    return Check("fail", name, found, advice)
