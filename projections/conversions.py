"""GoKart conversions, in the table of the transactions: revenue for us, points for the member.

A conversion may have several events, and the status of each may go in circles (Success →
Rejected → Success, GoKart status articles): the last by time of sending is what holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

from ledger.model import (
    Fact,
    InvalidCallback,
    Issue,
    Leg,
    RecordedFact,
    Related,
    SourceTerms,
    StreamProjection,
    View,
    as_money,
    plain,
    stamp,
    total,
)
from projections import unknown
from projections.postings import TRANSACTIONS, ZERO, blank_row, exact, reward, settle, wallet

STATUSES: Final = frozenset({"Pending", "Success", "Rejected"})

EVENTS_MAX: Final = 64
"""Events of one conversion that are kept; further ones move nothing and are an exception."""


Order: TypeAlias = tuple[datetime, str, int]
"""(time of sending, id of the callback, position): what the last word is decided by."""

GAPS: Final = {"revenue": "revenue_unknown", "points": "points_unknown", "member": ""}
"""Fields that a callback may leave open, with the flags that say so: what an earlier one states
fills the gap."""


@dataclass(frozen=True, slots=True)
class Last:
    """The last word on one event of a conversion."""

    status: str
    sent_at: datetime
    callback_id: str
    position: int
    revenue: Decimal | None
    """None where the provider does not state it: then only points are posted."""
    currency: str
    points: Decimal | None
    """None where the provider does not state them: then only revenue is posted."""
    member: str | None
    idempotency_id: str | None
    flags: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    earlier: dict[str, Order] = field(default_factory=dict)
    """Field of GAPS → the order of the callback that it is from, unless that is the last."""

    @property
    def order(self) -> Order:
        """What the last word is decided by."""
        return (self.sent_at, self.callback_id, self.position)


@dataclass(frozen=True, slots=True)
class Conversion:
    """The state of a conversion: the last word on each of its events."""

    events: dict[str, Last] = field(default_factory=dict)
    unknown: dict[str, datetime] = field(default_factory=dict)
    dropped: int = 0


def fold(state: Conversion | None, seen: RecordedFact) -> Conversion:
    """Keep a fact when it is the last of its event.

    Raises InvalidCallback when it names no currency, or neither revenue nor points.
    """
    state = state or Conversion()
    fact = seen.fact
    if fact.status not in STATUSES:
        return replace(state, unknown=unknown.remember(state.unknown, seen))
    name = _text(fact, "event") or ""
    reported, before = _last(seen), state.events.get(name)
    if before is None and len(state.events) >= EVENTS_MAX:
        return replace(state, dropped=state.dropped + 1)
    last = reported if before is None else _last_of(before, reported)
    return replace(state, events=dict(sorted({**state.events, name: last}.items())))


def _last_of(one: Last, other: Last) -> Last:
    """Return the last word of two, with what only the earlier one states."""
    newer, older = (one, other) if one.order > other.order else (other, one)
    filled: dict[str, Any] = {}
    earlier: dict[str, Order] = {}
    for name in GAPS:
        stated = [
            (each.earlier.get(name, each.order), getattr(each, name))
            for each in (newer, older)
            if getattr(each, name) is not None
        ]
        if stated:
            order, filled[name] = max(stated, key=lambda pair: pair[0])
            if order != newer.order:
                earlier[name] = order
    flags = [flag for flag in newer.flags if flag not in {GAPS[name] for name in filled}]
    return replace(newer, **filled, flags=flags, earlier=earlier)


def view(state: Conversion, related: Related, terms: SourceTerms) -> View:
    """Return the row over all events, and the legs of those that succeeded."""
    row = blank_row(state.unknown)
    if not state.events:
        return View(row, (), _issues(state))
    last = max(state.events.values(), key=lambda reported: reported.order)
    row |= {
        "status": last.status,
        "amount": _revenue(state),
        "currency": last.currency,
        "idempotency_id": last.idempotency_id,
        "effective_at": last.sent_at,
        "flags": sorted({flag for reported in state.events.values() for flag in reported.flags}),
        "details": _details(state, last),
    }
    return View(row, _legs(state, terms), _issues(state))


def _revenue(state: Conversion) -> Decimal | None:
    """Return the revenue that is known of all events; None when it is of none."""
    return _sum(event.revenue for event in state.events.values())


def _sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """Add the amounts that are known; None when none is."""
    known = [amount for amount in amounts if amount is not None]
    return exact(total(*known)) if known else None


def _text_of(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)


def _details(state: Conversion, last: Last) -> dict[str, Any]:
    return {
        **last.details,
        "member": last.member,
        "reward_points": _text_of(_sum(reported.points for reported in state.events.values())),
        "events": {
            name: {
                "status": reported.status,
                "revenue": _text_of(reported.revenue),
                "reward_points": _text_of(reported.points),
                "sent_at": stamp(reported.sent_at),
            }
            for name, reported in state.events.items()
        },
    }


def _legs(state: Conversion, terms: SourceTerms) -> tuple[Leg, ...]:
    lines = [
        line
        for reported in state.events.values()
        if reported.status == "Success"
        for line in reward(
            reported.sent_at,
            revenue=reported.revenue or ZERO,
            currency=wallet("conversion", reported.currency, terms),
            points=reported.points or ZERO,
            member=reported.member,
        )
    ]
    return settle(lines)


def _last(seen: RecordedFact) -> Last:
    fact = seen.fact
    points = as_money("reward_points", fact.details.get("reward_points"))
    if fact.currency is None or (fact.amount is None and points is None):
        detail = "a conversion names no currency, or neither revenue nor points"
        raise InvalidCallback("missing_amount", detail)
    return Last(
        status=fact.status,
        sent_at=seen.effective_at,
        callback_id=_text(fact, "callback_id") or "",
        position=seen.position,
        revenue=None if fact.amount is None else exact(fact.amount),
        currency=fact.currency,
        points=None if points is None else exact(points),
        member=_text(fact, "member"),
        idempotency_id=fact.idempotency_id,
        flags=sorted(fact.flags),
        details=dict(fact.details),
    )


def _text(fact: Fact, name: str) -> str | None:
    value = fact.details.get(name)
    return value if isinstance(value, str) else None


def _issues(state: Conversion) -> tuple[Issue, ...]:
    found = unknown.issues(state.unknown, STATUSES)
    if not state.dropped:
        return found
    detail = f"{state.dropped} callbacks on events beyond the first {EVENTS_MAX} moved nothing"
    return (*found, Issue("too_many_events", detail))


PROJECTION = StreamProjection(
    name="conversions",
    kinds=frozenset({"conversion"}),
    table=TRANSACTIONS,
    state=Conversion,
    fold=fold,
    view=view,
)
