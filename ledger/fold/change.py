"""What goes into a fold and comes out: translated events, streams, what a batch changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias

from ledger.callback_errors import InvalidCallback
from ledger.fold.stream_state import StreamState
from ledger.model import ATTRIBUTE, YEARS, Fact, Issue, Record, StreamProjection, changed, stamp

StreamKey: TypeAlias = tuple[str, str]
"""(kind, resource id)"""

DECISION: Final = "decision"
PARKED: Final = "parked"
REFUSED: Final = "rows_refused"
"""The reason of an event that is parked because its rows cannot be stored."""
AHEAD_MAX: Final = timedelta(days=1)
"""How far after its arrival a callback may be dated: clocks differ, and so do days."""


class TranslatedEvent(Record, frozen=True):
    """An event of the log after translation: a fact, or the issue that prevented one."""

    position: int
    event_id: str
    kind: str
    resource_id: str
    status: str
    received_at: datetime
    recorded_at: datetime
    fact: Fact | None
    issue: Issue | None = None


@dataclass(slots=True)
class LoadedStream:
    """A stream during a batch. `row` is None until something in it changed."""

    key: StreamKey
    projection: StreamProjection
    stored: StreamState
    first_position: int
    position: int
    is_new: bool
    row: Mapping[str, Any] | None = None
    customers: tuple[str, ...] = ()
    """Every customer that it has ever concerned, once `row` is there."""


@dataclass(frozen=True, slots=True)
class Park:
    """An event that waits because its stream's fold failed."""

    position: int
    key: StreamKey
    reason: str


@dataclass(slots=True)
class ChangeSet:
    """What a batch does to the books of one source, ready to be written."""

    streams: list[LoadedStream]
    rows: dict[str, list[tuple[Any, ...]]]
    sums: dict[str, dict[tuple[Any, ...], list[Decimal]]]
    links: list[tuple[str, str, str]]
    parked: list[Park]


def in_time(fact: Fact, received_at: datetime) -> Fact:
    """Return the fact of a callback that arrived at `received_at`, when its date can be true.

    It reads no clock, so that every fold of the log decides alike. Raises InvalidCallback
    `time_out_of_range`.
    """
    moment = fact.effective_at
    if moment is None or (moment.year in YEARS and moment <= received_at + AHEAD_MAX):
        return fact
    raise InvalidCallback(
        "time_out_of_range",
        f"it is dated {stamp(moment)} and arrived at {stamp(received_at)}; a time lies in "
        f"{YEARS[0]} to {YEARS[-1]}, a day after the arrival at most",
    )


def park_event(event: TranslatedEvent, why: str) -> TranslatedEvent:
    """Return an event whose rows cannot be stored as one that parks its stream.

    Its fact names the stream. A decision parks no stream: it is listed by itself.
    """
    fact = event.fact
    if fact is not None and fact.kind == DECISION:
        fact = None
    return changed(event, fact=fact, issue=Issue(REFUSED, why))


def decided(fact: Fact | None) -> tuple[str, str, str] | None:
    """Return (exception id, action, note) of an operator's decision; None for other facts."""
    if fact is None or fact.kind != DECISION:
        return None
    details = fact.details
    by = f"{details.get('by')}: " if details.get("by") else ""
    return str(details.get("exception")), fact.status, f"{by}{details.get('note') or ''}"


def is_attribution(event: TranslatedEvent) -> bool:
    """Return whether an event is a decision on whose a transaction is."""
    fact = event.fact
    return fact is not None and fact.kind == DECISION and fact.status == ATTRIBUTE


def own_issues(event: TranslatedEvent) -> list[tuple[str, str, Issue]]:
    """Return the issue of an event that belongs to no stream."""
    issue = event.issue
    if issue is None and event.fact is not None and event.fact.kind != DECISION:
        issue = Issue("no_projection", f"nothing folds callbacks of kind {event.fact.kind}")
    return [] if issue is None else [(event.kind, event.resource_id, issue)]
