"""The rules of `[sources.<name>.reconcile]`: windows, tolerances, groups, owners. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Final

from ledger.config.calendar import Calendar, calendar_of
from ledger.payload import plain, shown

BUCKETS: Final = (("0-1d", 2), ("2-3d", 4), ("4-7d", 8))
"""Ageing buckets: name and the number of days at which it ends; older ones are OLDEST."""

OLDEST: Final = ">7d"

POSTED_TYPES: Final = (
    "AMOUNT", "DUPLICATE_PROVIDER", "FEE", "MISSING_AT_PROVIDER", "MISSING_IN_LEDGER",
)  # fmt: skip
"""Types of break whose difference a rule may post; the others need a person."""

TOLERANCE: Final = "tolerance"
"""The name under which postings within the tolerance are shown beside those of the rules."""

_AMOUNT: Final = re.compile(r"\d{1,20}(\.\d{1,18})?", re.ASCII)
_ACCOUNT: Final = re.compile(r"(expenses|income|equity):[a-z_]{1,40}|suspense", re.ASCII)
_NAMES: Final = frozenset(
    {"settlement_hours", "match_hours", "tolerance", "difference_account", "owner", "owners",
     "groups", "rules", "stuck_hours", "utc_offset_hours", "time_zone", "calendar", "since"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GroupRule:
    """Transactions that the provider pays in one line: its row type, and their kinds.

    `by` is `reference` (they have the line's reference) or `day` (all of one day).
    """

    line: str
    kinds: tuple[str, ...]
    by: str


@dataclass(frozen=True, slots=True)
class PostingRule:
    """Differences that are posted without an operator's decision: those of some types below an
    amount, to an account."""

    name: str
    types: tuple[str, ...]
    below: Decimal
    """The first amount, of either sign, that the rule does not post any more."""
    account: str
    currency: str = ""
    """Only of this currency; "" for every one."""
    line: str = ""
    """Only where every line of the break has such a type or description: a pattern with `*` and
    `?`, case aside; "" for any break."""

    @property
    def parts(self) -> tuple[object, ...]:
        """What the digest of the rules contains of it."""
        below = plain(self.below)
        return self.name, self.types, below, self.account, self.currency, self.line


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules by which one source is reconciled."""

    settlement: timedelta = timedelta(hours=24)
    """How long before the cut-off something may still be in transit, in business time."""
    window: timedelta = timedelta(hours=24)
    """How far apart a line and a transaction may be to match by amount, in business time."""
    tolerance: Mapping[str, Decimal] = field(default_factory=dict)
    """Currency → the largest difference that is posted without a decision; nothing by default."""
    difference_account: str = "expenses:differences"
    owner: str = "operations"
    owners: Mapping[str, str] = field(default_factory=dict)
    """Type of break → the owner of such breaks, where it is not `owner`."""
    groups: tuple[GroupRule, ...] = ()
    rules: tuple[PostingRule, ...] = ()
    """What is posted without a decision; the first rule that fits a break counts."""
    stuck: timedelta = timedelta(hours=72)
    """How long a transaction may be pending."""
    calendar: Calendar = field(default_factory=Calendar)
    """The business days of settlement and window, and the time zone of days."""
    since: datetime | None = None
    """The beginning of reconciliation; by default that of the earliest statement."""

    def is_recent(self, at: datetime, cutoff: datetime) -> bool:
        """Tell whether what happened at a time may still be in transit at the cut-off."""
        business_time = self.calendar.business_time
        return business_time(at) >= business_time(cutoff) - self.settlement

    def owner_of(self, break_type: str) -> str:
        """Return the owner of breaks of a type."""
        return self.owners.get(break_type, self.owner)

    @property
    def zone(self) -> tzinfo:
        """The zone in which people see the times of the source."""
        return self.calendar.zone

    @property
    def sha256(self) -> str:
        """The digest of the rules, in hex."""
        parts = [
            f"settlement={self.settlement.total_seconds():.0f}",
            f"window={self.window.total_seconds():.0f}",
            f"tolerance={sorted((c, plain(a)) for c, a in self.tolerance.items())}",
            f"account={self.difference_account}",
            f"owners={self.owner}{sorted(self.owners.items())}",
            f"groups={[(g.line, g.kinds, g.by) for g in self.groups]}",
            f"rules={[rule.parts for rule in self.rules]}",
            f"calendar={self.calendar.text}",
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
        rules=_posting_rules(declared.get("rules", [])),
        stuck=_hours(declared, "stuck_hours", 72),
        calendar=calendar_of(declared),
        since=_since(declared.get("since")),
    )


def bucket_of(age: timedelta) -> str:
    """Return the ageing bucket of an age, by whole days."""
    return next((name for name, end in BUCKETS if age < timedelta(days=end)), OLDEST)


def _hours(declared: Mapping[str, Any], name: str, default: int) -> timedelta:
    value = declared.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 8784:
        raise ValueError(f"{name} is {shown(value)}, not a number of whole hours from 0 to 8784")
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


def _posting_rules(value: Any) -> tuple[PostingRule, ...]:
    if not isinstance(value, list):
        raise ValueError("rules is a list of tables: [[sources.<name>.reconcile.rules]]")
    rules = tuple(map(_posting_rule, value))
    names = [rule.name for rule in rules]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"two rules have the name {shown(repeated)}")
    return rules


def _posting_rule(value: Any) -> PostingRule:
    needed, optional = {"name", "type", "below", "account"}, {"currency", "line"}
    if not isinstance(value, dict) or not needed <= set(value) <= needed | optional:
        raise ValueError("a rule has name, type, below and account, and may have currency and line")
    types = value["type"] if isinstance(value["type"], list) else [value["type"]]
    unknown = [kind for kind in types if str(kind).upper() not in POSTED_TYPES]
    if unknown or not types:
        raise ValueError(
            f"a rule's type is {', '.join(map(shown, unknown)) or 'missing'}; it is of "
            f"{', '.join(POSTED_TYPES)}"
        )
    for name in ("name", "account", *optional & set(value)):
        if not isinstance(value[name], str) or not value[name].strip():
            raise ValueError(f"a rule's {name} is {shown(value[name])}, not a text")
    if value["name"].strip() == TOLERANCE:
        raise ValueError("a rule has another name than tolerance, which is the key of that name")
    if not _ACCOUNT.fullmatch(value["account"]):
        raise ValueError(f"account {value['account']!r} is none of expenses:…, equity:…")
    below = _amount(value["below"])
    if not below:
        raise ValueError(f"rule {value['name']} is below 0, so that it posts nothing")
    return PostingRule(
        value["name"].strip(), tuple(sorted({str(kind).upper() for kind in types})), below,
        value["account"], str(value.get("currency", "")).upper(), value.get("line", ""),
    )  # fmt: skip
