"""Whose money a transaction is, and which transaction a return brings back.

The customer of a transaction is the one that an operator attributed it to, else the one that the
provider names, else the one that the rule of the source finds in an identifier. A payout that the
bank sends back stays completed; its money returns as a new incoming transfer whose remarks contain
`RTN` and an id of the payout (StraitsX docs, payout FAQ). A return that names no customer belongs
to the customer of what it brings back; one that names another customer stays with that one, since
remarks are a text of the sender.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from ledger.model import (
    Issue,
    MoneyKind,
    Record,
    Related,
    Share,
    SourceTerms,
    changed,
    plain,
    total,
)
from projections.cases import Case, classify
from projections.factset import FactSet, Material
from projections.postings import ZERO, exact, wallet

NAMED_BY_ID: Final = "idempotency_id"
"""The field of an owner rule that is no detail of the facts."""


class Owner(Record, frozen=True):
    """The customer of a transaction; None: it is the merchant's. With flags that say why."""

    customer_id: str | None
    flags: tuple[str, ...] = ()
    is_decided: bool = False
    """Whether an operator decided."""
    by_rule: tuple[str, ...] = ()
    """Every customer that the rule finds."""


class Outline(Record, frozen=True, array_like=True):
    """What a return sees of the transaction that it names."""

    kind: str
    id: str
    names: tuple[str, ...]
    customer_id: str | None = None
    currency: str | None = None
    """The wallet's currency; None while no status is known."""
    amount: Decimal = ZERO
    is_failed: bool = False


class Return(Record, frozen=True):
    """What a return brings back, and whose money it is then."""

    name: str | None
    """The id that the remarks name: one that is known, else the shortest candidate."""
    outline: Outline | None = None
    """The one transaction that has that id."""
    flags: tuple[str, ...] = ()
    issues: tuple[Issue, ...] = ()

    @property
    def customer_id(self) -> str | None:
        """The customer of the transaction that it brings back."""
        return None if self.outline is None else self.outline.customer_id


NO_RETURN: Final = Return(None)
"""The remarks speak of no return."""


class CameBack(Record, frozen=True):
    """What others brought back of a transaction: what its row notes of it."""

    details: dict[str, Any] = {}
    flags: tuple[str, ...] = ()
    issues: tuple[Issue, ...] = ()


NOTHING_RECEIVED: Final = CameBack()


def owner_of(kind: MoneyKind, state: FactSet, named: str | None, terms: SourceTerms) -> Owner:
    """Return whose money a transaction is; `named` is the customer that the provider names."""
    by_rule: tuple[str, ...] = ()
    if terms.owner_of is not None and kind.has_owner_rule:
        by_rule = _owners_by_rule(state, terms.owner_of.field, terms.owner_of.match)
    if state.is_attributed:
        customer_id = state.attributed_to[-1]
        return Owner(customer_id, ("attributed_by_decision",), is_decided=True, by_rule=by_rule)
    flags = ("attribution_undone",) if state.attributed_at else ()
    if named is not None:
        if by_rule not in ((), (named,)):
            flags = ("owner_rule_differs", *flags)
        return Owner(named, flags, by_rule=by_rule)
    if len(by_rule) > 1:
        return Owner(None, ("owner_ambiguous", *flags), by_rule=by_rule)
    if by_rule:
        return Owner(by_rule[0], ("attributed_by_rule", *flags), by_rule=by_rule)
    return Owner(None, flags)


def _owners_by_rule(state: FactSet, name: str, match: str) -> tuple[str, ...]:
    """Return the customers that the rule finds in the identifiers of a transaction."""
    texts = state.idempotency_ids
    if name != NAMED_BY_ID:
        texts = state.references.get(name, []) if state.references else []
    found = [_pattern(match).search(text) for text in texts]
    return tuple(sorted({each[1] for each in found if each is not None and each[1]}))


@lru_cache(maxsize=64)
def _pattern(match: str) -> re.Pattern[str]:
    return re.compile(match)


def names(state: FactSet) -> tuple[str, ...]:
    """Return the ids that a return may name a transaction by."""
    return tuple(sorted({*state.idempotency_ids, state.id}))


def outline(kind: MoneyKind, state: FactSet, terms: SourceTerms) -> Outline:
    """Return what a return sees of a transaction that it names."""
    is_failed = False
    stated: Case | Material
    if len(state.materials) == 1 and all(t.status != "failed" for t in state.facts):
        stated = state.materials[0]  # whatever its facts mean
    else:
        case = classify(kind, state)
        if case is None:
            customer_id = state.attributed_to[-1] if state.is_attributed else None
            return Outline(kind.name, state.id, names(state), customer_id)
        stated, is_failed = case, case.status == "failed"
    owner = owner_of(kind, state, stated.customer_id, terms)
    currency = wallet(kind.name, stated.currency, terms)
    return Outline(
        kind.name, state.id, names(state), owner.customer_id, currency, stated.amount, is_failed
    )


def mentions(state: FactSet) -> tuple[str, ...]:
    """Return every id that the remarks of a transaction may name."""
    return tuple(sorted({name for details in state.details for name in _ids(details) or ()}))


def _ids(details: Mapping[str, Any]) -> list[str] | None:
    """Return what remarks may name, longest first; None when they speak of no return."""
    ids = details.get("returned_ids")
    return ids if isinstance(ids, list) else None


def returned_ids(kind: MoneyKind, state: FactSet, case: Case) -> list[str] | None:
    """Return what the remarks may name, longest first; None when they speak of no return.

    They are those of the status that counts, else of the next one below that has any.
    """
    if not any("returned_ids" in details for details in state.details):
        return None
    ids = _ids(case.details)
    if ids is not None:
        return ids
    by_rank = sorted(case.facts, key=lambda t: (kind.ranks[t.status], t.order), reverse=True)
    named = [_ids(state.details[stated.details]) for stated in by_rank]
    return next((each for each in named if each is not None), None)


def resolve(
    ids: Sequence[str], case: Case, owner: Owner, currency: str, related: Related
) -> Return:
    """Find what a transaction brings back: the longest of the ids it names that is known.

    It is no exception once an operator has decided whose money it is.
    """
    found = _brought_back(ids, case, owner, currency, related)
    return changed(found, issues=()) if owner.is_decided else found


def _brought_back(
    ids: Sequence[str], case: Case, owner: Owner, currency: str, related: Related
) -> Return:
    known = {name: each for name in ids if (each := _having(name, related))}
    if not known:
        detail = "the remarks speak of a return, but name no outgoing transaction that is known"
        issue = Issue("return_unmatched", detail)
        return Return(ids[-1] if ids else None, None, ("return", issue.reason), (issue,))
    longest = max(map(len, known))
    names = sorted(name for name in known if len(name) == longest)
    named = {(each.kind, each.id): each for name in names for each in known[name]}
    if len(named) == 1:
        return _of_one(case, owner, currency, names[0], *named.values())
    detail = (
        f"several outgoing transactions have the id {' or '.join(names)} that the remarks name; "
        "attribute it to the customer whose money it is"
    )
    issue = Issue("return_ambiguous", detail)
    return Return(names[0], None, ("return", issue.reason), (issue,))


def _having(name: str, related: Related) -> list[Outline]:
    """Return the transactions that have a name."""
    return [each for each in related.mentioned.get(name, ()) if name in each.names]


def _of_one(case: Case, owner: Owner, currency: str, name: str, outline: Outline) -> Return:
    flags, issues = ["return"], []
    brought = f"the {outline.kind} {outline.id}, which it brings back,"
    if outline.currency is None:
        detail = f"{brought} has no status that a document names"
        issues.append(Issue("return_of_unknown", detail))
    elif outline.currency != currency:
        flags.append("return_currency_differs")
    elif case.amount != outline.amount:
        flags.append("partial_return" if case.amount < outline.amount else "return_exceeds_payout")
    if outline.is_failed:
        issues.append(Issue("return_of_failed", f"{brought} failed"))
    if not owner.is_decided and owner.customer_id not in (None, outline.customer_id):
        whose = "another customer's" if outline.customer_id else "no customer's"
        detail = f"it names a customer, but {brought} is {whose}; decide whose money it is"
        issues.append(Issue("return_customer_differs", detail))
    flags += [issue.reason for issue in issues]
    return Return(name, outline, tuple(flags), tuple(issues))


def shares(case: Case, currency: str, returned: Return) -> tuple[Share, ...]:
    """Return what a return counts towards what it brings back: its amount, while it is ours."""
    outline, times = returned.outline, case.times
    if outline is None or case.status not in ("completed", "refunded") or "completed" not in times:
        return ()
    kind, id_, amount = outline.kind, outline.id, case.amount
    came = Share(kind, id_, times["completed"], currency, amount, 1)
    if case.status == "completed":
        return (came,)
    return (came, Share(kind, id_, times["refunded"], currency, amount.copy_negate(), -1))


def came_back(case: Case, currency: str, related: Related) -> CameBack:
    """Return what to note of a transaction of which returns brought something back."""
    received = [each for each in related.received if each.count > 0]
    if not received:
        return NOTHING_RECEIVED
    amount = exact(total(*(each.amount for each in received if each.currency == currency)))
    flags, issues = ["returned"], []
    if any(each.currency != currency for each in received):
        flags.append("return_currency_differs")
    if amount > case.amount:
        flags.append("return_exceeds_payout")
        detail = f"more came back than the {plain(case.amount)} {currency} that were paid"
        issues.append(Issue("return_exceeds_payout", detail))
    details = {
        "returned_amount": plain(amount),
        "return_count": sum(each.count for each in received),
    }
    return CameBack(details, tuple(flags), tuple(issues))


PROJECTIONS = ()
