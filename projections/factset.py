"""The set of facts that one money stream has reported, and what the set means.

Not a projection: `transactions` is made of this. Everything here depends on the set alone, never
on the order in which its members arrived, with two exceptions that are about the log itself:
which of two contradicting facts came first, and what came after an operator's decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from ledger.model import Decision, Fact, InvalidCallback, Issue, Record, RecordedFact, changed
from projections import unknown
from projections.postings import ZERO, exact

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
"""Kind → status → rank; the highest one reported is the state (StraitsX docs, transaction
status)."""

_ENDS: Final = frozenset({"completed", "failed"})
_MATERIAL: Final = ("amount", "currency", "fees", "customer_id")


class Material(Record, frozen=True, array_like=True):
    """What may not change within a stream."""

    amount: Decimal
    currency: str
    fees: Decimal | None
    customer_id: str | None
    terms: dict[str, str]


class StatedFact(Record, frozen=True, array_like=True):
    """One distinct fact, however often it was reported. Times and details merge by rule."""

    status: str
    material: int
    """Place of its material among those of the stream."""
    effective_at: datetime
    """The earliest of its times."""
    positions: list[int]
    event_id: str
    """The event at its first position."""
    details: int
    """Place of its details among those of the stream."""
    flags: list[str]
    latest: tuple[datetime, str] | None = None
    """(effective time, event id) of the telling that `details` and `flags` are from, unless that
    is the only one."""

    @property
    def order(self) -> tuple[datetime, str]:
        """What the last of several tellings is decided by."""
        return self.latest or (self.effective_at, self.event_id)


class FactSet(Record, frozen=True, array_like=True):
    """The state of a money stream: its distinct facts and the operator's decision on them.

    Facts of one stream mostly share their material and their details, which stand here once.
    """

    kind: str
    id: str
    facts: list[StatedFact] = []
    materials: list[Material] = []
    details: list[dict[str, Any]] = []
    idempotency_ids: list[str] = []
    unknown: dict[str, datetime] = {}
    """Unknown status → the earliest time it was reported."""
    dropped: int = 0
    """Facts beyond FACTS_MAX."""
    keep: int | None = None
    decided_at: int = 0
    """Position of the decision that named `keep`."""


class Case(Record, frozen=True):
    """What a set of facts means. With `differing` it is a conflict, represented by `stated`."""

    status: str
    stated: StatedFact
    """The fact that gives the status, or the first in the log in a conflict."""
    material: Material
    """What that fact says may not change."""
    facts: Sequence[StatedFact]
    """The facts that count, in log order."""
    times: Mapping[str, datetime]
    fees: Decimal | None
    differing: Sequence[str]
    flags: Sequence[str]
    issues: Sequence[Issue]


def fold(state: FactSet | None, seen: RecordedFact) -> FactSet:
    """Add a fact to the set. Raises InvalidCallback when a money fact has no amount or currency."""
    fact = seen.fact
    if fact.status not in RANKS[fact.kind]:
        state = state or FactSet(fact.kind, fact.resource_id)
        return changed(state, unknown=unknown.remember(state.unknown, seen))
    material, named = _material(fact), fact.idempotency_id
    if state is None:
        ids = [named] if named else []
        stated = [_stated(seen, 0, 0)]
        return FactSet(fact.kind, fact.resource_id, stated, [material], [{**fact.details}], ids)
    ids = state.idempotency_ids
    if named and named not in ids:
        ids = sorted([*ids, named])[:IDENTIFIERS_MAX]
    materials, which = _among(state.materials, material)
    details, place = _among(state.details, {**fact.details})
    facts = _with(state.facts, _stated(seen, which, place))
    if len(facts) > FACTS_MAX:
        return changed(state, dropped=state.dropped + 1)
    if len(facts) == len(state.facts):
        facts, details = _without_unused(facts, details)
    return FactSet(
        state.kind, state.id, facts, materials, details, ids, state.unknown, state.dropped,
        state.keep, state.decided_at,
    )  # fmt: skip


def _with(facts: list[StatedFact], stated: StatedFact) -> list[StatedFact]:
    """Return the facts with one more, or with the one that was reported again."""
    for place, known in enumerate(facts):
        if known.status == stated.status and known.material == stated.material:
            return [*facts[:place], _merged(known, stated), *facts[place + 1 :]]
    return [*facts, stated]


def _among(known: list[Any], new: Any) -> tuple[list[Any], int]:
    """Return the list with `new` in it, and its place there."""
    for place, each in enumerate(known):
        if each == new:
            return known, place
    return [*known, new], len(known)


def _without_unused(
    facts: list[StatedFact], details: list[dict[str, Any]]
) -> tuple[list[StatedFact], list[dict[str, Any]]]:
    """Drop details that no fact is described by any more."""
    used = sorted({stated.details for stated in facts})
    if len(used) == len(details):
        return facts, details
    places = {old: new for new, old in enumerate(used)}
    moved = [changed(stated, details=places[stated.details]) for stated in facts]
    return moved, [details[old] for old in used]


def decide(state: FactSet, decision: Decision) -> FactSet:
    """Let the facts that agree with the one at `keep` stand; without `keep` nothing changes."""
    if decision.keep is None or decision.position < state.decided_at:
        return state
    return changed(state, keep=decision.keep, decided_at=decision.position)


def classify(state: FactSet) -> Case | None:
    """Say what the set means; None when it holds no fact with a known status."""
    stated = state.facts
    if not stated:
        return None
    is_plain = state.keep is None and not (state.unknown or state.dropped)
    if is_plain and len(state.materials) == 1 and len(state.idempotency_ids) < 2:
        return _plain_case(state, stated)
    return _case(state)


def _plain_case(state: FactSet, facts: list[StatedFact]) -> Case:
    """Classify facts of one material without a decision, as `_case` would."""
    material, ranks, stated = state.materials[0], RANKS[state.kind], facts[0]
    times = {stated.status: stated.effective_at}
    for other in facts[1:]:
        times[other.status] = other.effective_at
        if ranks[other.status] > ranks[stated.status]:
            stated = other
    if ranks is _ONE_END and "failed" in times and "completed" in times:
        return _case(state)
    fees = material.fees
    flags: Sequence[str] = stated.flags
    if fees is None or (ranks is _INCOMING and len(facts) > 1):
        found = _anomalies(state.kind, times, fees)
        if fees is None:
            found.add("fees_unknown")
        if found:
            flags = sorted({*flags, *found})
    return Case(stated.status, stated, material, facts, times, fees, (), flags, ())


def _case(state: FactSet) -> Case:
    kept, facts, late = _counting(state)
    materials = [state.materials[stated.material] for stated in facts]
    differing = _differing(state.kind, facts, materials)
    issues = [
        *unknown.issues(state.unknown, RANKS[state.kind]),
        *_decision_issues(state, kept, late),
    ]
    known_fees = [material.fees for material in materials if material.fees is not None]
    flags = {"idempotency_id_changed"} if len(state.idempotency_ids) > 1 else set()
    times: dict[str, datetime] = {}
    for stated in facts:
        times[stated.status] = min(
            times.get(stated.status, stated.effective_at), stated.effective_at
        )
    if differing:
        issues.append(Issue("conflict", _contradiction(facts, differing)))
        first, status = facts[0], "conflict"
        fees = materials[0].fees
        if fees is None and known_fees and "fees" not in differing:
            fees = known_fees[0]
    else:
        status = max(times, key=RANKS[state.kind].__getitem__)
        first = max((t for t in facts if t.status == status), key=lambda t: t.order)
        fees = known_fees[0] if known_fees else None
        flags |= _anomalies(state.kind, times, fees)
        flags |= {"decided"} if kept is not None else set()
    flags |= {*first.flags} | ({"fees_unknown"} if fees is None else set())
    material = state.materials[first.material]
    return Case(status, first, material, facts, times, fees, differing, sorted(flags), issues)


def _material(fact: Fact) -> Material:
    amount, fees = fact.amount, fact.fees
    if amount is None or fact.currency is None:
        raise InvalidCallback("missing_amount", f"a {fact.kind} names no amount or no currency")
    return Material(
        _postable(fact, amount), fact.currency, None if fees is None else _postable(fact, fees),
        fact.customer_id, dict(sorted(fact.terms.items())) if fact.terms else {},
    )  # fmt: skip


def _postable(fact: Fact, amount: Decimal) -> Decimal:
    if not amount.is_finite() or amount < ZERO:
        raise InvalidCallback("bad_amount", f"a {fact.kind} of {amount} cannot be posted")
    return exact(amount)


def _stated(seen: RecordedFact, material: int, details: int) -> StatedFact:
    fact = seen.fact
    return StatedFact(
        fact.status, material, fact.effective_at or seen.received_at, [seen.position],
        seen.event_id, details, sorted(fact.flags) if fact.flags else [],
    )  # fmt: skip


def _merged(one: StatedFact, other: StatedFact) -> StatedFact:
    """Keep the earliest time, the latest details, and the first event of two tellings."""
    newer = max(one, other, key=lambda stated: stated.order)
    earlier = min(one, other, key=lambda stated: stated.positions[0])
    positions = sorted({*one.positions, *other.positions})
    if len(positions) > POSITIONS_MAX:
        positions = [*positions[: POSITIONS_MAX - 1], positions[-1]]
    return changed(
        newer,
        effective_at=min(one.effective_at, other.effective_at),
        positions=positions,
        event_id=earlier.event_id,
        latest=newer.order,
    )


def _counting(state: FactSet) -> tuple[StatedFact | None, list[StatedFact], list[StatedFact]]:
    """Return the kept fact, the facts that count, and those that contradict it afterwards."""
    facts = sorted(state.facts, key=lambda stated: stated.positions[0])
    if state.keep is None:
        return None, facts, []
    kept = next((stated for stated in facts if state.keep in stated.positions), None)
    if kept is None:
        return None, facts, []
    of = state.materials
    agreeing = [
        stated
        for stated in facts
        if not _differing(state.kind, [kept, stated], [of[kept.material], of[stated.material]])
    ]
    late = [t for t in facts if t not in agreeing and t.positions[-1] > state.decided_at]
    return kept, agreeing, late


def _differing(kind: str, facts: Sequence[StatedFact], materials: Sequence[Material]) -> list[str]:
    """Name the fields in which facts contradict each other: several ends, or other material.

    Fees that are not known contradict nothing.
    """
    if len(facts) == 1:
        return []
    found = []
    if RANKS[kind] is _ONE_END and {stated.status for stated in facts} >= _ENDS:
        found.append("status")
    for name in _MATERIAL:
        values = {getattr(material, name) for material in materials}
        if len(values - {None} if name == "fees" else values) > 1:
            found.append(name)
    if all(material.terms == materials[0].terms for material in materials):
        return found
    terms = sorted({name for material in materials for name in material.terms})
    return found + [
        name for name in terms if len({material.terms.get(name) for material in materials}) > 1
    ]


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


def _contradiction(facts: Sequence[StatedFact], differing: Sequence[str]) -> str:
    places = ", ".join(f"{stated.status} at {stated.positions[0]}" for stated in facts)
    return f"the facts differ in {', '.join(differing)}: {places}; decide which one to keep"


def _decision_issues(
    state: FactSet, kept: StatedFact | None, late: Sequence[StatedFact]
) -> list[Issue]:
    found = []
    if late:
        places = ", ".join(f"{stated.status} at {stated.positions[-1]}" for stated in late)
        found.append(Issue("conflict_after_decision", f"{places} contradict what was decided"))
    if state.keep is not None and kept is None:
        detail = f"no fact of this transaction stands at position {state.keep}; decide again"
        found.append(Issue("decision_not_applied", detail))
    if state.dropped:
        detail = f"{state.dropped} facts beyond the first {FACTS_MAX} were not looked at"
        found.append(Issue("too_many_facts", detail))
    return found


PROJECTIONS = ()
