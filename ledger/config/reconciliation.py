"""What `[sources.<name>.reconcile]` says: windows, tolerances, groups, owners. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from ledger.payload import plain, shown

BUCKETS: Final = (("0-1d", 2), ("2-3d", 4), ("4-7d", 8))
"""Ageing buckets: name and the number of days below which it ends; older is `>7d`."""

OLDEST: Final = ">7d"

_AMOUNT: Final = re.compile(r"\d{1,20}(\.\d{1,18})?", re.ASCII)
_ACCOUNT: Final = re.compile(r"(expenses|income|equity):[a-z_]{1,40}|suspense", re.ASCII)
_NAMES: Final = frozenset(
    {"settlement_hours", "match_hours", "tolerance", "difference_account", "owner", "owners",
     "groups", "stuck_hours", "utc_offset_hours", "since"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GroupRule:
    """Several transactions that the provider pays in one line: which, and by what they go together.

    `by` is `reference` (the line's reference is theirs) or `day` (all of one day).
    """

    line: str
    kinds: tuple[str, ...]
    by: str


@dataclass(frozen=True, slots=True)
class Rules:
    """How one source is reconciled."""

    settlement: timedelta = timedelta(hours=24)
    """For how long before the cut-off something may still be on its way."""
    window: timedelta = timedelta(hours=24)
    """How far apart a line and a transaction may be that only their amount connects."""
    tolerance: Mapping[str, Decimal] = field(default_factory=dict)
    """Currency → the difference that is posted without asking; none when not declared."""
    difference_account: str = "expenses:differences"
    owner: str = "operations"
    owners: Mapping[str, str] = field(default_factory=dict)
    """Type of break → who looks after it."""
    groups: tuple[GroupRule, ...] = ()
    stuck: timedelta = timedelta(hours=72)
    """How long a transaction may be pending."""
    utc_offset: timedelta = timedelta(0)
    """What a day is for groups by day: how far its midnight is ahead of UTC's."""
    since: datetime | None = None
    """Where reconciling begins; without it, where the earliest statement does."""

    def owner_of(self, break_type: str) -> str:
        """Return who looks after breaks of a type."""
        return self.owners.get(break_type, self.owner)

    @property
    def sha256(self) -> str:
        """Digest all of the rules."""
        parts = [
            f"settlement={self.settlement.total_seconds():.0f}",
            f"window={self.window.total_seconds():.0f}",
            f"tolerance={sorted((c, plain(a)) for c, a in self.tolerance.items())}",
            f"account={self.difference_account}",
            f"owners={self.owner}{sorted(self.owners.items())}",
            f"groups={[(g.line, g.kinds, g.by) for g in self.groups]}",
            f"offset={self.utc_offset.total_seconds():.0f}",
            f"since={self.since.astimezone(UTC).isoformat() if self.since else None}",
        ]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()


def rules_of(declared: Mapping[str, Any]) -> Rules:
    """Read a `[sources.<name>.reconcile]` table. Raises ValueError, naming what is wrong."""
    unknown = set(declared) - _NAMES
    if unknown:
        raise ValueError(f"reconcile takes only {', '.join(sorted(_NAMES))}")
    account = str(declared.get("difference_account", "expenses:differences"))
    if not _ACCOUNT.fullmatch(account):
        raise ValueError(f"difference_account {account!r} is none of expenses:…, equity:…")
    return Rules(
        settlement=_hours(declared, "settlement_hours", 24),
        window=_hours(declared, "match_hours", 24),
        tolerance={str(c).upper(): _amount(a) for c, a in _table(declared, "tolerance").items()},
        difference_account=account,
        owner=str(declared.get("owner", "operations")),
        owners={str(t).upper(): str(o) for t, o in _table(declared, "owners").items()},
        groups=tuple(_group(group) for group in declared.get("groups", ())),
        stuck=_hours(declared, "stuck_hours", 72),
        utc_offset=_hours(declared, "utc_offset_hours", 0, least=-14),
        since=_since(declared.get("since")),
    )


def bucket_of(age: timedelta) -> str:
    """Return the ageing bucket of an age, by whole days."""
    return next((name for name, end in BUCKETS if age < timedelta(days=end)), OLDEST)


def _hours(declared: Mapping[str, Any], name: str, default: int, least: int = 0) -> timedelta:
    value = declared.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 8784:
        raise ValueError(
            f"{name} is {shown(value)}, not a number of whole hours from {least} to 8784"
        )
    return timedelta(hours=value)


def _since(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = value
    if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
        raise ValueError("since is a time with a zone, as 2026-06-01T00:00:00Z")
    return moment


def _table(declared: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = declared.get(name, {})
    if not isinstance(value, dict):
        raise ValueError(f"{name} is a table")
    return value


def _amount(value: Any) -> Decimal:
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value):
        raise ValueError(f'a tolerance is a decimal amount in quotes, like "0.01", not {value!r}')
    return Decimal(value)


def _group(value: Any) -> GroupRule:
    if not isinstance(value, dict) or set(value) != {"line", "kinds", "by"}:
        raise ValueError("a group has line, kinds and by")
    if value["by"] not in ("day", "reference"):
        raise ValueError(f"by is {shown(value['by'])}, neither day nor reference")
    return GroupRule(str(value["line"]), tuple(str(k) for k in value["kinds"]), value["by"])
