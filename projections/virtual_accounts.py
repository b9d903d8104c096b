"""Virtual accounts: pending, enabled or disabled for ever (their numbers are not reused)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from ledger.model import RecordedFact, Related, SourceTerms, StreamProjection, Table, View
from projections import unknown
from projections.latest import Field, later, later_of_each

RANKS: Final[Mapping[str, int]] = {"pending": 1, "enabled": 2, "disabled": 3}
"""Status → rank; the highest reported is the state (StraitsX docs, customer profile statuses)."""


@dataclass(frozen=True, slots=True)
class AccountState:
    """When one status of an account was reported, first and last."""

    first_at: datetime | None
    last_at: datetime | None
    first_position: int
    last_position: int
    flags: Field
    """As the last of its reports has them."""


@dataclass(frozen=True, slots=True)
class VirtualAccount:
    """The state: every status that was reported, and what is known of the account."""

    statuses: dict[str, AccountState] = field(default_factory=dict)
    customer: Field | None = None
    details: dict[str, Field] = field(default_factory=dict)
    unknown: dict[str, datetime] = field(default_factory=dict)


def fold(state: VirtualAccount | None, seen: RecordedFact) -> VirtualAccount:
    """Take over what a fact states, unless a later one states it."""
    state = state or VirtualAccount()
    fact = seen.fact
    if fact.status not in RANKS:
        return replace(state, unknown=unknown.remember(state.unknown, seen))

    def stated(value: Any) -> Field:
        return Field(value, 0, fact.effective_at, seen.position)

    at, position = fact.effective_at, seen.position
    new = AccountState(at, at, position, position, stated(sorted(fact.flags)))
    before = state.statuses.get(fact.status)
    reported = new if before is None else _merged(before, new)
    details = {name: stated(value) for name, value in fact.details.items() if value is not None}
    return VirtualAccount(
        statuses={**state.statuses, fact.status: reported},
        customer=later(state.customer, stated(fact.customer_id)),
        details=later_of_each(state.details, details),
        unknown=state.unknown,
    )


def view(state: VirtualAccount, related: Related, terms: SourceTerms) -> View:
    """Return the row of a virtual account; nothing is posted."""
    details = {name: known.value for name, known in sorted(state.details.items())}
    status = max(state.statuses, key=RANKS.__getitem__, default=None)
    row = {
        "customer_id": state.customer.value if state.customer else None,
        "status": status or next(iter(state.unknown)),
        "currency": details.pop("currency", None),
        "reference_id": details.pop("reference_id", None),
        "updated_at": state.statuses[status].last_at if status else None,
        "flags": _flags(state, status),
        "details": details,
    }
    return View(row, (), unknown.issues(state.unknown, RANKS))


def _flags(state: VirtualAccount, status: str | None) -> list[str]:
    own = state.statuses[status].flags.value if status else []
    return sorted({*own, *(("enabled_after_disabled",) if _came_back(state.statuses) else ())})


def _merged(one: AccountState, other: AccountState) -> AccountState:
    times = [at for state in (one, other) for at in (state.first_at, state.last_at) if at]
    return AccountState(
        first_at=min(times, default=None),
        last_at=max(times, default=None),
        first_position=min(one.first_position, other.first_position),
        last_position=max(one.last_position, other.last_position),
        flags=max(one.flags, other.flags, key=lambda flags: flags.order),
    )


def _came_back(statuses: Mapping[str, AccountState]) -> bool:
    """Tell whether it was enabled after it was disabled; by our order where no time is given."""
    enabled, disabled = statuses.get("enabled"), statuses.get("disabled")
    if enabled is None or disabled is None:
        return False
    if enabled.last_at is not None and disabled.first_at is not None:
        return enabled.last_at > disabled.first_at
    return enabled.last_position > disabled.first_position


PROJECTION = StreamProjection(
    name="virtual_accounts",
    kinds=frozenset({"virtual_account"}),
    table=Table(
        name="virtual_accounts",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "customer_id": "text",
            "status": "text",
            "currency": "text",
            "reference_id": "text",
            "updated_at": "timestamptz",
            "flags": "text[]",
            "details": "jsonb",
        },
        key=("source", "kind", "id"),
        mode="replace",
        indexes=(
            "source, customer_id WHERE customer_id IS NOT NULL",
            "hashtextextended(details ->> 'account_no', 0), source",
        ),
        filters=("status",),
    ),
    state=VirtualAccount,
    fold=fold,
    view=view,
)
