"""One finding of the doctor: what was looked at, what was found, what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found. `advice` is empty when there is nothing to do."""

    verdict: Literal["ok", "warn", "fail"]
    name: str
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Check:
    """Report that all is well."""
    return Check("ok", name, found)


def warn(name: str, found: str, advice: str) -> Check:
    """Report something that works but deserves a word."""
    return Check("warn", name, found, advice)


def fail(name: str, found: str, advice: str) -> Check:
    """Report something that can lose, delay or falsify."""
    return Check("fail", name, found, advice)
