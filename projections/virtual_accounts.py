"""Virtual accounts: pending, enabled or disabled for ever (their numbers are not reused)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from ledger.model import RecordedFact, Related, SourceTerms, StreamProjection, Table, View
from projections import unknown

RANKS: Final[Mapping[str, int]] = {"pending": 1, "enabled": 2, "disabled": 3}
"""Status → rank; the highest reported is the state (StraitsX docs, customer profile statuses)."""

_NO_TIME: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AccountState:
    """What was last reported of an account in one status, and when it first and last was."""

    first_at: datetime | None
    last_at: datetime | None
    first_position: int
    last_position: int
    customer_id: str | None
    """As the latest by the provider's time, then by position, has it; so are `flags`."""
    details: dict[str, Any]
    """The latest value of each field that has one."""
    flags: list[str]


@dataclass(frozen=True, slots=True)
class VirtualAccount:
    """The state: the last word in each status."""

    said: dict[str, AccountState] = field(default_factory=dict)
    """Status → what was reported in it. Stored under this name."""
    unknown: dict[str, datetime] = field(default_factory=dict)


def fold(state: VirtualAccount | None, seen: RecordedFact) -> VirtualAccount:
    """Merge a fact into what was reported in its status."""
    state = state or VirtualAccount()
    fact = seen.fact
    if fact.status not in RANKS:
        return replace(state, unknown=unknown.remember(state.unknown, seen))
    at, before = fact.effective_at, state.said.get(fact.status)
    new = AccountState(
        first_at=at,
        last_at=at,
        first_position=seen.position,
        last_position=seen.position,
        customer_id=fact.customer_id,
        details={name: value for name, value in fact.details.items() if value is not None},
        flags=sorted(fact.flags),
    )
    reported = new if before is None else _merged(before, new)
    return replace(state, said={**state.said, fact.status: reported})


def view(state: VirtualAccount, related: Related, terms: SourceTerms) -> View:
    """Return the row of a virtual account; nothing is posted."""
    by_time = sorted(state.said.values(), key=_order)
    details = {
        name: value for reported in by_time for name, value in sorted(reported.details.items())
    }
    owners = [reported.customer_id for reported in by_time if reported.customer_id]
    status = max(state.said, key=RANKS.__getitem__, default=None)
    row = {
        "customer_id": owners[-1] if owners else None,
        "status": status or next(iter(state.unknown)),
        "currency": details.pop("currency", None),
        "reference_id": details.pop("reference_id", None),
        "updated_at": state.said[status].last_at if status else None,
        "flags": _flags(state, status),
        "details": details,
    }
    return View(row, (), unknown.issues(state.unknown, RANKS))


def _flags(state: VirtualAccount, status: str | None) -> list[str]:
    own = state.said[status].flags if status else []
    return sorted({*own, *(("enabled_after_disabled",) if _came_back(state.said) else ())})


def _order(state: AccountState) -> tuple[datetime, int]:
    return (state.last_at or _NO_TIME, state.last_position)


def _merged(one: AccountState, other: AccountState) -> AccountState:
    times = [at for state in (one, other) for at in (state.first_at, state.last_at) if at]
    older, newer = sorted((one, other), key=_order)
    return replace(
        newer,
        customer_id=newer.customer_id or older.customer_id,
        details={**older.details, **newer.details},
        first_at=min(times, default=None),
        last_at=max(times, default=None),
        first_position=min(one.first_position, other.first_position),
        last_position=max(one.last_position, other.last_position),
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
