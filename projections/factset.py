"""The set of facts that one money stream has reported; what the set means is in `cases`.

Not a projection: `transactions` is made of this. Everything here depends on the set alone, never
on the order in which its members arrived, with two exceptions that are about the log itself:
which of two contradicting facts came first, and what came after an operator's decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

from ledger.model import (
    Decision,
    Fact,
    InvalidCallback,
    MoneyKind,
    Record,
    RecordedFact,
    changed,
)
from projections import unknown
from projections.postings import ZERO, exact

FACTS_MAX: Final = 64
"""Distinct facts kept of one stream; without a contradiction there are at most forty."""

POSITIONS_MAX: Final = 16
"""Log positions remembered of one fact: the first fifteen and the last."""

IDENTIFIERS_MAX: Final = 8
"""Idempotency ids remembered of one stream, the smallest ones."""

ATTRIBUTED_MAX: Final = 8
"""Customers remembered to whom operators attributed one stream, the last ones."""

PROVISIONAL: Final = "pending"
"""The status whose fees are provisional: those of the status that counts are posted."""

REFERENCES: Final = ("external_reference", "payout_invoice_id")
"""Details in which a source's rule may look for the customer: all that were reported count."""

REFERENCES_MAX: Final = 8
"""Values of each that are remembered, the smallest ones."""

NO_OWN_TIME: Final = frozenset({"dated_by_creation", "dated_by_receipt"})
"""The flags of a fact whose status has no time of its own."""

FEES: Final = ""
"""The fees among details, where callbacks are merged: provisional ones may differ."""

Order: TypeAlias = tuple[datetime, int]
"""(provider's time, position): what the later of two callbacks is decided by."""


class Material(Record, frozen=True, array_like=True):
    """What may not change within a stream; fees may, while they are provisional."""

    amount: Decimal
    currency: str
    customer_id: str | None
    terms: dict[str, str]


class StatedFact(Record, frozen=True, array_like=True):
    """One distinct fact, however often it was reported. Times and details merge by rule."""

    status: str
    material: int
    """Place of its material among those of the stream."""
    effective_at: datetime
    """The earliest of its times; a creation or receipt only where no callback has another."""
    positions: list[int]
    event_id: str
    """The event at its first position."""
    details: int
    """Place of its details among those of the stream."""
    flags: list[str]
    """Those of the latest callback."""
    fees: Decimal | None = None
    latest: Order | None = None
    """The order of the latest callback, unless there is only one."""
    earlier: dict[str, Order] | None = None
    """Detail → the order of the callback that it is from, unless that is the latest."""

    @property
    def order(self) -> Order:
        """The place of its latest callback among those of one status."""
        return self.latest or (self.effective_at, self.positions[0])

    @property
    def fees_order(self) -> Order:
        """The place of the callback that its fees are from."""
        return self.order_of(FEES)

    def order_of(self, name: str) -> Order:
        """Return the place of the callback that a detail is from."""
        return self.order if self.earlier is None else self.earlier.get(name, self.order)


class FactSet(Record, frozen=True, array_like=True):
    """The state of a money stream: its distinct facts and the operators' decisions on them.

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
    attributed_at: int = 0
    """Position of the last decision whose money it is; 0 = none."""
    attributed_to: tuple[str, ...] = ()
    """The customers named by such decisions; the last one holds unless it was undone."""
    is_attributed: bool = False
    """Whether such a decision is in force."""
    references: dict[str, list[str]] | None = None
    """REFERENCES → the values reported."""


def fold(kind: MoneyKind, state: FactSet | None, seen: RecordedFact) -> FactSet:
    """Add a fact to the set. Raises InvalidCallback when a money fact has no amount or currency."""
    fact = seen.fact
    if fact.status not in kind.ranks:
        state = state or FactSet(fact.kind, fact.resource_id)
        return changed(state, unknown=unknown.remember(state.unknown, seen))
    material, named = _material(fact), fact.idempotency_id
    if state is None:
        ids = [named] if named else []
        stated = [_stated(seen, 0, 0)]
        references = _references(None, fact) if kind.has_owner_rule else None
        return FactSet(
            fact.kind, fact.resource_id, stated, [material], [{**fact.details}], ids,
            references=references,
        )  # fmt: skip
    ids = state.idempotency_ids
    if named and named not in ids:
        ids = sorted([*ids, named])[:IDENTIFIERS_MAX]
    materials, which = _among(state.materials, material)
    facts, details = _with(state, _stated(seen, which, -1), {**fact.details})
    if len(facts) > FACTS_MAX:
        return changed(state, dropped=state.dropped + 1)
    references = _references(state.references, fact) if kind.has_owner_rule else None
    return FactSet(
        state.kind, state.id, facts, materials, details, ids, state.unknown, state.dropped,
        state.keep, state.decided_at, state.attributed_at, state.attributed_to,
        state.is_attributed, references,
    )  # fmt: skip


def _references(known: dict[str, list[str]] | None, fact: Fact) -> dict[str, list[str]] | None:
    """Return the references with those of one fact more; None while there are none."""
    for name in REFERENCES:
        text = fact.details.get(name)
        others = known.get(name, []) if known else []
        if isinstance(text, str) and text not in others:
            known = {**(known or {}), name: sorted([*others, text])[:REFERENCES_MAX]}
    return known


def _with(
    state: FactSet, stated: StatedFact, details: dict[str, Any]
) -> tuple[list[StatedFact], list[dict[str, Any]]]:
    """Return the facts with one more, or with the one that was reported again, and all details."""
    facts = state.facts
    for place, known in enumerate(facts):
        if _is_same(known, stated):
            merged, details = _merged(known, state.details[known.details], stated, details)
            listed, which = _among(state.details, details)
            merged = changed(merged, details=which)
            return _without_unused([*facts[:place], merged, *facts[place + 1 :]], listed)
    listed, which = _among(state.details, details)
    return [*facts, changed(stated, details=which)], listed


def _is_same(known: StatedFact, new: StatedFact) -> bool:
    """Tell whether two callbacks report one fact: one status, material and final fees."""
    return (
        known.status == new.status
        and known.material == new.material
        and (known.status == PROVISIONAL or known.fees == new.fees)
    )


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
    """Apply an operator's decision: which fact is kept, or whose money it is.

    With `keep` the facts that agree with the one at that position count; without it nothing
    changes. An attribution without a customer takes the one before back.
    """
    if decision.action == "attribute":
        return _attribute(state, decision)
    if decision.keep is None or decision.position < state.decided_at:
        return state
    return changed(state, keep=decision.keep, decided_at=decision.position)


def _attribute(state: FactSet, decision: Decision) -> FactSet:
    if decision.position < state.attributed_at:
        return state
    customers = state.attributed_to
    named = decision.customer_id
    if named is not None:
        others = [each for each in customers if each != named]
        customers = (*others, named)[-ATTRIBUTED_MAX:]
    return changed(
        state, attributed_at=decision.position, attributed_to=customers,
        is_attributed=named is not None,
    )  # fmt: skip


def _material(fact: Fact) -> Material:
    amount = fact.amount
    if amount is None or fact.currency is None:
        raise InvalidCallback("missing_amount", f"a {fact.kind} names no amount or no currency")
    terms = dict(sorted(fact.terms.items())) if fact.terms else {}
    return Material(_postable(fact, amount), fact.currency, fact.customer_id, terms)


def _postable(fact: Fact, amount: Decimal) -> Decimal:
    if not amount.is_finite() or amount < ZERO:
        raise InvalidCallback("bad_amount", f"a {fact.kind} of {amount} cannot be posted")
    return exact(amount)


def _stated(seen: RecordedFact, material: int, details: int) -> StatedFact:
    fact = seen.fact
    fees = None if fact.fees is None else _postable(fact, fact.fees)
    return StatedFact(
        fact.status, material, fact.effective_at or seen.received_at, [seen.position],
        seen.event_id, details, sorted(fact.flags) if fact.flags else [], fees,
    )  # fmt: skip


def _merged(
    known: StatedFact, known_details: dict[str, Any], new: StatedFact, new_details: dict[str, Any]
) -> tuple[StatedFact, dict[str, Any]]:
    """Merge two callbacks of one fact: the earliest time, the latest details, the first event."""
    is_newer = new.order > known.order
    details, orders = preferred(
        [(known, {**known_details, FEES: known.fees}), (new, {**new_details, FEES: new.fees})]
    )
    fees = details.pop(FEES)
    latest = max(known.order, new.order)
    earlier = {name: order for name, order in orders.items() if order != latest} or None
    first = known if known.positions[0] < new.positions[0] else new
    positions = sorted({*known.positions, *new.positions})
    if len(positions) > POSITIONS_MAX:
        positions = [*positions[: POSITIONS_MAX - 1], positions[-1]]
    moment, flags = _dated(known, new, new.flags if is_newer else known.flags)
    merged = StatedFact(
        known.status, known.material, moment, positions, first.event_id, known.details, flags,
        fees, latest, earlier,
    )  # fmt: skip
    return merged, details


def preferred(
    reported: Sequence[tuple[StatedFact, Mapping[str, Any]]],
) -> tuple[dict[str, Any], dict[str, Order]]:
    """Choose details one by one: a value before none, a real hash before `pending`, the later.

    Return them, and of each the order of the callback that it is from.
    """
    details: dict[str, Any] = {}
    orders: dict[str, Order] = {}
    for stated, values in reported:
        for name, value in values.items():
            order = stated.order_of(name)
            before = (_weight(name, details.get(name)), orders.get(name, order))
            if name not in details or (_weight(name, value), order) > before:
                details[name], orders[name] = value, order
    return details, orders


def _weight(name: str, value: Any) -> int:
    if value is None:
        return 0
    return 1 if name == "transaction_hash" and value == "pending" else 2


def _dated(one: StatedFact, other: StatedFact, flags: list[str]) -> tuple[datetime, list[str]]:
    """Return the time of two callbacks of one fact, and the flags as they are right for it."""
    if has_own_time(one) == has_own_time(other):
        return min(one.effective_at, other.effective_at), flags
    dated = one if has_own_time(one) else other
    return dated.effective_at, [flag for flag in flags if flag not in NO_OWN_TIME]


def has_own_time(stated: StatedFact) -> bool:
    """Tell whether a callback gives the time of the status itself."""
    return NO_OWN_TIME.isdisjoint(stated.flags)


PROJECTIONS = ()
