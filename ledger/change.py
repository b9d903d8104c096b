"""What goes into a fold and comes out: translated events, streams, what a batch changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

from ledger.model import Fact, Record, StreamProjection, Trouble
from ledger.stored import Stored

StreamKey: TypeAlias = tuple[str, str]
"""(kind, resource id)"""

DECISION: Final = "decision"
PARKED: Final = "parked"


class Translated(Record, frozen=True):
    """An event of the log after translation: a fact, or the trouble that prevented one."""

    position: int
    event_id: str
    kind: str
    resource_id: str
    status: str
    received_at: datetime
    recorded_at: datetime
    fact: Fact | None
    trouble: Trouble | None = None


@dataclass(slots=True)
class Stream:
    """A stream during a batch. `row` is None until something in it changed."""

    key: StreamKey
    projection: StreamProjection
    stored: Stored
    first_position: int
    position: int
    is_new: bool
    row: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Park:
    """An event that waits because its stream's fold failed."""

    position: int
    key: StreamKey
    reason: str


@dataclass(slots=True)
class Change:
    """What a batch does to the books of one source, ready to be written."""

    streams: list[Stream]
    rows: dict[str, list[tuple[Any, ...]]]
    sums: dict[str, dict[tuple[Any, ...], list[Decimal]]]
    links: list[tuple[str, str, str]]
    parked: list[Park]


def decided(fact: Fact | None) -> tuple[str, str, str] | None:
    """Return (exception id, action, note) of an operator's decision; None for other facts."""
    if fact is None or fact.kind != DECISION:
        return None
    details = fact.details
    by = f"{details.get('by')}: " if details.get("by") else ""
    return str(details.get("exception")), fact.status, f"{by}{details.get('note') or ''}"


def own_troubles(event: Translated) -> list[tuple[str, str, Trouble]]:
    """Return the trouble of an event that belongs to no stream."""
    trouble = event.trouble
    if trouble is None and event.fact is not None and event.fact.kind != DECISION:
        trouble = Trouble("no_projection", f"nothing folds callbacks of kind {event.fact.kind}")
    return [] if trouble is None else [(event.kind, event.resource_id, trouble)]
