"""The journal: what turns the legs a transaction had into the legs it has. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeAlias

from ledger.errors import LedgerError
from ledger.model import Entry, Leg

PostedLeg: TypeAlias = tuple[datetime, str, str, Decimal]
"""(effective at, account, currency, amount): a leg as a stream's row keeps it."""

_ZERO: Final = Decimal(0)


class Unbalanced(LedgerError):
    """A posting rule produced legs that do not balance; the stream is parked."""


def check_balanced(legs: Iterable[Leg]) -> None:
    """Raise Unbalanced unless the legs of every currency and date sum to zero."""
    sums: dict[tuple[datetime, str], Decimal] = defaultdict(Decimal)
    for leg in legs:
        sums[leg.effective_at, leg.currency] += leg.amount
    for (moment, currency), rest in sums.items():
        if rest:
            raise Unbalanced(f"{currency} legs of {moment.isoformat()} leave {rest}")


def add_entries(
    entries: list[Entry],
    key: tuple[str, str],
    before: Sequence[PostedLeg],
    after: Sequence[Leg],
) -> None:
    """Append to `entries` what turns the legs `before` into the legs `after`."""
    old: dict[tuple[datetime, str, str], Decimal] = {}
    for moment, account, currency, amount in before:
        old[moment, account, currency] = old.get((moment, account, currency), _ZERO) + amount
    new: dict[tuple[datetime, str, str], Decimal] = {}
    for leg in after:
        place = (leg.effective_at, leg.account, leg.currency)
        new[place] = new.get(place, _ZERO) + leg.amount
    if old == new:
        return
    for place in sorted(old.keys() | new.keys()):
        was, now = old.get(place, _ZERO), new.get(place, _ZERO)
        if was == now:
            continue
        leg = Leg(place[0], place[1], place[2], now - was)
        debits = max(now, _ZERO) - max(was, _ZERO)
        credits_ = max(-now, _ZERO) - max(-was, _ZERO)
        entries.append(Entry(len(entries) + 1, key[0], key[1], leg, debits, credits_))
