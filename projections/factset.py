"""The set of facts that one money stream has told, and what the set says.

Not a projection: `transactions` is made of this. Everything here depends on the set alone, never
on the order in which its members arrived, with two exceptions that are about the log itself:
which of two contradicting facts came first, and what came after an operator's decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from ledger.model import CannotBeTrue, Decision, Fact, Record, Seen, Trouble, changed
from projections import unknown
from projections.postings import exact

FACTS_MAX: Final = 64
"""Distinct facts kept of one stream; without a contradiction there are at most ten."""

POSITIONS_MAX: Final = 16
"""Log positions remembered of one fact: the first fifteen and the last."""

IDENTIFIERS_MAX: Final = 8
"""Idempotency ids remembered of one stream, the smallest ones."""

_INCOMING: Final = {"pending": 1, "failed": 2, "expired": 3, "completed": 4, "refunded": 5}
_ONE_END: Final = {"pending": 1, "failed": 2, "completed": 2}

RANKS: Final[Mapping[str, Mapping[str, int]]] = {
    "payment": _INCOMING,
    "user_deposit": _INCOMING,
    "payout": _ONE_END,
    "fx_payout": _ONE_END,
    "user_withdrawal": _ONE_END,
    "swap": _ONE_END,
    "chain_deposit": _ONE_END,
    "chain_withdrawal": _ONE_END,
}
"""Kind → status → rank; the highest rank told is the state (StraitsX docs, transaction status)."""

_ENDS: Final = frozenset({"completed", "failed"})
_MATERIAL: Final = ("amount", "currency", "fees", "customer_id")


class Told(Record, frozen=True):
    """One distinct fact, however often it was told. Times and details merge by rule."""

    status: str
    amount: Decimal
    currency: str
    fees: Decimal | None
    customer_id: str | None
    terms: dict[str, str]
    effective_at: datetime
    """The earliest of its times."""
    positions: list[int]
    event_id: str
    """The event at its first position."""
    latest: tuple[datetime, str]
    """(effective time, event id) of the telling that `details` and `flags` are from."""
    details: dict[str, Any] = {}
    flags: list[str] = []


class Stream(Record, frozen=True):
    """The state of a money stream: its distinct facts and the operator's decision on them."""

    kind: str
    id: str
    facts: list[Told] = []
    idempotency_ids: list[str] = []
    unknown: dict[str, datetime] = {}
    """Unknown status → the earliest time it was told."""
    dropped: int = 0
    """Facts beyond FACTS_MAX."""
    keep: int | None = None
    decided_at: int = 0
    """Position of the decision that named `keep`."""


class Case(Record, frozen=True):
    """What a set of facts says. With `differing` it is a conflict, and `first` stands for it."""

    status: str
    told: Told
    """The fact that gives the status, or the first in the log in a conflict."""
    facts: Sequence[Told]
    """The facts that count, in log order."""
    times: Mapping[str, datetime]
    fees: Decimal | None
    differing: Sequence[str]
    flags: Sequence[str]
    troubles: Sequence[Trouble]


def fold(state: Stream | None, seen: Seen) -> Stream:
    """Add a fact to the set. Raises CannotBeTrue when a money fact has no amount or currency."""
    fact = seen.fact
    if state is None:
        state = Stream(fact.kind, fact.resource_id)
    if fact.status not in RANKS[fact.kind]:
        return changed(state, unknown=unknown.remember(state.unknown, seen))
    told = _told(seen)
    ids = state.idempotency_ids
    if fact.idempotency_id and fact.idempotency_id not in ids:
        ids = sorted([*ids, fact.idempotency_id])[:IDENTIFIERS_MAX]
    for place, known_fact in enumerate(state.facts):
        if _same(known_fact, told):
            facts = [*state.facts]
            facts[place] = _merged(known_fact, told)
            return changed(state, facts=facts, idempotency_ids=ids)
    if len(state.facts) >= FACTS_MAX:
        return changed(state, dropped=state.dropped + 1)
    return changed(state, facts=[*state.facts, told], idempotency_ids=ids)


def decide(state: Stream, decision: Decision) -> Stream:
    """Let the facts that agree with the one at `keep` stand; without `keep` nothing changes."""
    if decision.keep is None or decision.position < state.decided_at:
        return state
    return changed(state, keep=decision.keep, decided_at=decision.position)


def judge(state: Stream) -> Case | None:
    """Say what the set means; None when it holds no fact with a known status."""
    if not state.facts:
        return None
    kept, facts, late = _counting(state)
    differing = _differing(state.kind, facts)
    troubles = [*unknown.troubles(state.unknown), *_decision_troubles(state, kept, late)]
    known_fees = [told.fees for told in facts if told.fees is not None]
    flags = {"idempotency_id_changed"} if len(state.idempotency_ids) > 1 else set()
    times: dict[str, datetime] = {}
    for told in facts:
        times[told.status] = min(times.get(told.status, told.effective_at), told.effective_at)
    if differing:
        troubles.append(Trouble("conflict", _contradiction(facts, differing)))
        first, status = facts[0], "conflict"
        fees = first.fees
        if fees is None and known_fees and "fees" not in differing:
            fees = known_fees[0]
    else:
        status = max(times, key=RANKS[state.kind].__getitem__)
        first = max((t for t in facts if t.status == status), key=lambda t: t.latest)
        fees = known_fees[0] if known_fees else None
        flags |= _anomalies(state.kind, times, fees)
        flags |= {"decided"} if kept is not None else set()
    flags |= {*first.flags} | ({"fees_unknown"} if fees is None else set())
    return Case(status, first, facts, times, fees, differing, sorted(flags), troubles)


def _told(seen: Seen) -> Told:
    fact = seen.fact
    if fact.amount is None or fact.currency is None:
        raise CannotBeTrue("missing_amount", f"a {fact.kind} names no amount or no currency")
    _check_sign(fact)
    return Told(
        status=fact.status,
        amount=exact(fact.amount),
        currency=fact.currency,
        fees=None if fact.fees is None else exact(fact.fees),
        customer_id=fact.customer_id,
        terms=dict(sorted(fact.terms.items())),
        effective_at=seen.effective_at,
        positions=[seen.position],
        event_id=seen.event_id,
        latest=(seen.effective_at, seen.event_id),
        details=dict(fact.details),
        flags=sorted(fact.flags),
    )


def _check_sign(fact: Fact) -> None:
    for amount in (fact.amount, fact.fees):
        if amount is not None and not (amount.is_finite() and amount >= 0):
            raise CannotBeTrue("bad_amount", f"a {fact.kind} of {amount} cannot be posted")


def _same(one: Told, other: Told) -> bool:
    return one.status == other.status and (
        (one.amount, one.currency, one.fees, one.customer_id, one.terms)
        == (other.amount, other.currency, other.fees, other.customer_id, other.terms)
    )


def _merged(one: Told, other: Told) -> Told:
    """Keep the earliest time, the latest details, and the first event of two tellings."""
    newer = max(one, other, key=lambda told: told.latest)
    earlier = min(one, other, key=lambda told: told.positions[0])
    positions = sorted({*one.positions, *other.positions})
    if len(positions) > POSITIONS_MAX:
        positions = [*positions[: POSITIONS_MAX - 1], positions[-1]]
    return changed(
        newer,
        effective_at=min(one.effective_at, other.effective_at),
        positions=positions,
        event_id=earlier.event_id,
    )


def _counting(state: Stream) -> tuple[Told | None, list[Told], list[Told]]:
    """Return the kept fact, the facts that count, and those that contradict it afterwards."""
    facts = sorted(state.facts, key=lambda told: told.positions[0])
    if state.keep is None:
        return None, facts, []
    kept = next((told for told in facts if state.keep in told.positions), None)
    if kept is None:
        return None, facts, []
    agreeing = [told for told in facts if not _differing(state.kind, [kept, told])]
    late = [t for t in facts if t not in agreeing and t.positions[-1] > state.decided_at]
    return kept, agreeing, late


def _differing(kind: str, facts: Sequence[Told]) -> list[str]:
    """Name the fields in which facts contradict each other: several ends, or other material.

    Fees that are not known contradict nothing.
    """
    if len(facts) == 1:
        return []
    found = []
    if RANKS[kind] is _ONE_END and {told.status for told in facts} >= _ENDS:
        found.append("status")
    for name in _MATERIAL:
        values = {getattr(told, name) for told in facts}
        if len(values - {None} if name == "fees" else values) > 1:
            found.append(name)
    if all(told.terms == facts[0].terms for told in facts):
        return found
    terms = sorted({name for told in facts for name in told.terms})
    return found + [name for name in terms if len({told.terms.get(name) for told in facts}) > 1]


def _anomalies(kind: str, times: Mapping[str, datetime], fees: Decimal | None) -> set[str]:
    """Flag what no document explains about an incoming transaction that was completed."""
    if RANKS[kind] is not _INCOMING or "completed" not in times:
        return set()
    found = {"completed_after_expiry"} if "expired" in times else set()
    if "failed" in times and "refunded" not in times:
        found.add("completed_and_failed")
    if "refunded" in times and fees:
        found.add("fee_refund_unknown")
    return found


def _contradiction(facts: Sequence[Told], differing: Sequence[str]) -> str:
    places = ", ".join(f"{told.status} at {told.positions[0]}" for told in facts)
    return f"the facts differ in {', '.join(differing)}: {places}; decide which one to keep"


def _decision_troubles(state: Stream, kept: Told | None, late: Sequence[Told]) -> list[Trouble]:
    found = []
    if late:
        places = ", ".join(f"{told.status} at {told.positions[-1]}" for told in late)
        found.append(Trouble("conflict_after_decision", f"{places} contradict what was decided"))
    if state.keep is not None and kept is None:
        detail = f"no fact of this transaction stands at position {state.keep}; decide again"
        found.append(Trouble("decision_not_applied", detail))
    if state.dropped:
        detail = f"{state.dropped} facts beyond the first {FACTS_MAX} were not looked at"
        found.append(Trouble("too_many_facts", detail))
    return found
