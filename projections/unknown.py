"""Statuses that no document names: remembered, listed as an exception, never acted on.

Not a projection: every projection with statuses is made of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from ledger.model import Issue, RecordedFact, shown

UNKNOWN_MAX: Final = 8
"""Unknown statuses remembered of one stream, the first in the alphabet."""


def remember(unknown: Mapping[str, datetime], seen: RecordedFact) -> dict[str, datetime]:
    """Return `unknown` (status → earliest time it was reported) with one more report."""
    status = seen.fact.status
    earliest = min(unknown.get(status, seen.effective_at), seen.effective_at)
    return dict(sorted({**unknown, status: earliest}.items())[:UNKNOWN_MAX])


def issues(unknown: Mapping[str, datetime], known: Iterable[str]) -> tuple[Issue, ...]:
    """Return what an operator should hear about them; `known` are those that documents name."""
    if not unknown:
        return ()
    names = ", ".join(shown(name.removeprefix("unknown:")) for name in unknown)
    choices = ", ".join(sorted(known))
    detail = f"no document names the status {names}, only {choices}; it changes nothing"
    return (Issue("unknown_status", detail),)


PROJECTIONS = ()
