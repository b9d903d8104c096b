"""What a set of facts about one transaction means: status, times, fees, flags, conflicts.

Not a projection: `transactions` is made of this and of `factset`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from ledger.model import Issue, MoneyKind, Record, plain
from projections import unknown
from projections.factset import (
    FACTS_MAX,
    NO_OWN_TIME,
    PROVISIONAL,
    FactSet,
    Material,
    StatedFact,
    has_own_time,
    preferred,
)


class Case(Record, frozen=True):
    """What a set of facts means. With `differing` it is a conflict, represented by `stated`."""

    status: str
    stated: StatedFact
    """The fact that gives the status, or the first in the log in a conflict."""
    amount: Decimal
    currency: str
    fees: Decimal | None
    customer_id: str | None
    """The customer that the provider names."""
    terms: Mapping[str, str]
    details: Mapping[str, Any]
    facts: Sequence[StatedFact]
    """The facts that count, in log order."""
    times: Mapping[str, datetime]
    differing: Sequence[str]
    flags: Sequence[str]
    issues: Sequence[Issue]


def classify(kind: MoneyKind, state: FactSet) -> Case | None:
    """Say what the set means; None when it holds no fact with a known status."""
    if not state.facts:
        return None
    is_plain = state.keep is None and not (state.unknown or state.dropped)
    if is_plain and len(state.materials) == 1 and len(state.idempotency_ids) < 2:
        return _plain_case(kind, state)
    return _case(kind, state)


def _plain_case(kind: MoneyKind, state: FactSet) -> Case:
    """Classify facts of one material without a decision, as `_case` would."""
    facts, material, ranks = state.facts, state.materials[0], kind.ranks
    stated = facts[0]
    times = {stated.status: stated.effective_at}
    for other in facts[1:]:
        if other.status in times or ranks[other.status] == ranks[stated.status]:
            return _case(kind, state)
        times[other.status] = other.effective_at
        if ranks[other.status] > ranks[stated.status]:
            stated = other
    if "refunded" in times:
        times = _times(facts)
    fees = stated.fees
    flags: Sequence[str] = stated.flags
    found: set[str] = set()
    if fees is None or len(facts) > 1:
        if fees is not None and all(t.fees == fees and not t.flags for t in facts):
            found = _anomalies(kind, times, fees)
        elif len(_final_fees(facts)) > 1:
            return _case(kind, state)
        else:
            fees = _fees(kind, facts)
            found = _flags(kind, facts, times, fees)
    if found:
        flags = sorted({*flags, *found})
    return Case(
        stated.status, stated, material.amount, material.currency, fees, material.customer_id,
        material.terms, state.details[stated.details], facts, times, (), flags, (),
    )  # fmt: skip


def _case(kind: MoneyKind, state: FactSet) -> Case:
    kept, facts, late = _counting(kind, state)
    materials = [state.materials[stated.material] for stated in facts]
    differing = _differing(kind, facts, materials)
    issues = [
        *unknown.issues(state.unknown, kind.ranks),
        *_decision_issues(state, kept, late),
    ]
    flags = {"idempotency_id_changed"} if len(state.idempotency_ids) > 1 else set()
    times = _times(facts)
    if differing:
        issues.append(Issue("conflict", _contradiction(facts, materials, differing)))
        first, status = facts[0], "conflict"
        fees = _first_fees(facts, differing)
        flags |= {"fees_unknown"} if fees is None else set()
    else:
        status = max(times, key=kind.ranks.__getitem__)
        first = max((t for t in facts if t.status == status), key=lambda t: t.order)
        fees = _fees(kind, facts)
        flags |= _flags(kind, facts, times, fees)
        flags |= {"decided"} if kept is not None else set()
    flags |= {flag for flag in first.flags if differing or flag not in NO_OWN_TIME}
    material = state.materials[first.material]
    return Case(
        status, first, material.amount, material.currency, fees,
        _first(each.customer_id for each in materials),
        _merged_terms(materials), _details(state, facts, first), facts, times, differing,
        sorted(flags), issues,
    )  # fmt: skip


def _first(values: Iterable[Any]) -> Any:
    """Return the first value that is known."""
    return next((value for value in values if value is not None), None)


def _merged_terms(materials: Sequence[Material]) -> Mapping[str, str]:
    """Return every term, the first in the log where several facts name it."""
    if len(materials) == 1:
        return materials[0].terms
    merged: dict[str, str] = {}
    for material in materials:
        merged = {**material.terms, **merged}
    return merged


def _details(state: FactSet, facts: Sequence[StatedFact], first: StatedFact) -> Mapping[str, Any]:
    """Return the details of a status, which several facts with different material may report."""
    same = [t for t in facts if t.status == first.status]
    if len(same) == 1:
        return state.details[first.details]
    return preferred([(t, state.details[t.details]) for t in same])[0]


def _times(facts: Sequence[StatedFact]) -> dict[str, datetime]:
    """Return the earliest time of every status; a creation or receipt only where no other is.

    A refund without a time of its own comes no earlier than the completion.
    """
    dated: dict[str, tuple[bool, datetime]] = {}
    for stated in facts:
        own = (not has_own_time(stated), stated.effective_at)
        dated[stated.status] = min(dated.get(stated.status, own), own)
    times = {status: moment for status, (_, moment) in dated.items()}
    if "completed" in times and "refunded" in times and dated["refunded"][0]:
        times["refunded"] = max(times["refunded"], times["completed"])
    return times


def _fees(kind: MoneyKind, facts: Sequence[StatedFact]) -> Decimal | None:
    """Return the fees of the status that counts, or of the next one below that knows them."""
    known = [t for t in facts if t.fees is not None]
    if not known:
        return None
    return max(known, key=lambda stated: (kind.ranks[stated.status], stated.fees_order)).fees


def _final_fees(facts: Sequence[StatedFact]) -> set[Decimal]:
    """Return the fees that are not provisional."""
    return {t.fees for t in facts if t.fees is not None and t.status != PROVISIONAL}


def _first_fees(facts: Sequence[StatedFact], differing: Sequence[str]) -> Decimal | None:
    """Return the fees that a conflict holds: of its first fact, or those that do not differ."""
    first: Decimal | None = facts[0].fees
    if first is not None or "fees" in differing:
        return first
    return next((stated.fees for stated in facts if stated.fees is not None), None)


def _counting(
    kind: MoneyKind, state: FactSet
) -> tuple[StatedFact | None, list[StatedFact], list[StatedFact]]:
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
        if not _differing(kind, [kept, stated], [of[kept.material], of[stated.material]])
    ]
    late = [t for t in facts if t not in agreeing and t.positions[-1] > state.decided_at]
    return kept, agreeing, late


def _differing(
    kind: MoneyKind, facts: Sequence[StatedFact], materials: Sequence[Material]
) -> list[str]:
    """Name the fields in which facts contradict each other: several ends, or other material.

    What a fact leaves open contradicts nothing: another one may fill the gap.
    """
    if len(facts) == 1:
        return []
    found = []
    last = max(kind.ranks.values())
    if len({stated.status for stated in facts if kind.ranks[stated.status] == last}) > 1:
        found.append("status")
    stated_values: dict[str, set[Any]] = {
        "amount": {material.amount for material in materials},
        "currency": {material.currency for material in materials},
        "fees": _final_fees(facts),
        "customer_id": {material.customer_id for material in materials},
    }
    found += [name for name, values in stated_values.items() if len(values - {None}) > 1]
    if all(material.terms == materials[0].terms for material in materials):
        return found
    terms = sorted({name for material in materials for name in material.terms})
    return found + [
        name
        for name in terms
        if len({material.terms[name] for material in materials if name in material.terms}) > 1
    ]


def _flags(
    kind: MoneyKind,
    facts: Sequence[StatedFact],
    times: Mapping[str, datetime],
    fees: Decimal | None,
) -> set[str]:
    """Flag what is unknown or unexplained about a transaction without a conflict."""
    found = _anomalies(kind, times, fees)
    if fees is None:
        found.add("fees_unknown")
    provisional = [t for t in facts if t.status == PROVISIONAL and t.fees is not None]
    if provisional and len(times) > 1:
        latest = max(provisional, key=lambda stated: stated.fees_order)
        if latest.fees != fees:
            found.add("fees_changed")
        elif all(stated.fees is None for stated in facts if stated.status != PROVISIONAL):
            found.add("fees_provisional")
    # What a status without effect is dated by concerns nothing.
    dating = {max(times, key=kind.ranks.__getitem__), "completed"}
    return found | _dating_flags([t for t in facts if t.status in dating])


def _dating_flags(facts: Sequence[StatedFact]) -> set[str]:
    """Return how statuses are dated that no callback gives a time of their own."""
    timed = {t.status for t in facts if has_own_time(t)}
    return {flag for t in facts if t.status not in timed for flag in t.flags if flag in NO_OWN_TIME}


def _anomalies(kind: MoneyKind, times: Mapping[str, datetime], fees: Decimal | None) -> set[str]:
    """Flag what no document explains about an incoming transaction that was completed."""
    if "refunded" not in kind.ranks or "completed" not in times:
        return set()
    found = {"completed_after_expiry"} if "expired" in times else set()
    if "failed" in times and "refunded" not in times:
        found.add("completed_and_failed")
    if "refunded" in times and fees:
        found.add("fee_refund_unknown")
    return found


def _contradiction(
    facts: Sequence[StatedFact], materials: Sequence[Material], differing: Sequence[str]
) -> str:
    places = ", ".join(
        f"{stated.status}{_values(stated, material, differing)} at {stated.positions[0]}"
        for stated, material in zip(facts, materials, strict=True)
    )
    return f"the facts differ in {', '.join(differing)}: {places}; decide which one to keep"


def _values(stated: StatedFact, material: Material, differing: Sequence[str]) -> str:
    """Name the values of a fact that differ from those of others, in brackets."""
    fees = None if stated.fees is None else plain(stated.fees)
    values = {
        "amount": plain(material.amount), "currency": material.currency, "fees": fees,
        "customer_id": material.customer_id, **material.terms,
    }  # fmt: skip
    shown = [values.get(name) or "unknown" for name in differing if name != "status"]
    return f" ({', '.join(shown)})" if shown else ""


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
