"""Statuses that no document names: remembered, listed as an exception, never acted on.

Not a projection: every projection with statuses is made of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from ledger.model import Seen, Trouble

UNKNOWN_MAX: Final = 8
"""Unknown statuses remembered of one stream, the first in the alphabet."""


def remember(unknown: Mapping[str, datetime], seen: Seen) -> dict[str, datetime]:
    """Return `unknown` (status → earliest time it was told) with one more telling."""
    status = seen.fact.status
    earliest = min(unknown.get(status, seen.effective_at), seen.effective_at)
    return dict(sorted({**unknown, status: earliest}.items())[:UNKNOWN_MAX])


def troubles(unknown: Mapping[str, datetime]) -> tuple[Trouble, ...]:
    """Return what an operator should hear about them."""
    if not unknown:
        return ()
    names = ", ".join(unknown)
    return (Trouble("unknown_status", f"no document names the status {names}; it changes nothing"),)


PROJECTIONS = ()
