"""The journal: what turns the legs a transaction had into the legs it has. Pure."""

from __future__ import annotations

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
    sums: dict[tuple[datetime, str], Decimal] = {}
    for leg in legs:
        place = (leg.effective_at, leg.currency)
        sums[place] = sums[place] + leg.amount if place in sums else leg.amount
    for (moment, currency), rest in sums.items():
        if rest:
            raise Unbalanced(f"{currency} legs of {moment.isoformat()} leave {rest}")


def add_entries(
    entries: list[Entry],
    key: tuple[str, str],
    before: Sequence[PostedLeg],
    after: Sequence[Leg],
) -> None:
    """Append to `entries` what turns the legs `before` into the legs `after`.

    `key` is the transaction's (kind, id). Debits and credits are the changes of the positive and
    the negative parts, so their sums over a journal do not depend on the order of events.
    """
    old = _summed(before)
    new = _summed((leg.effective_at, leg.account, leg.currency, leg.amount) for leg in after)
    if old == new:
        return
    kind, transaction = key
    for place in sorted(old.keys() | new.keys()) if old else sorted(new):
        was, now = old.get(place, _ZERO), new.get(place, _ZERO)
        if was == now:
            continue
        debits = (now if now > 0 else _ZERO) - (was if was > 0 else _ZERO)
        credits_ = (-now if now < 0 else _ZERO) - (-was if was < 0 else _ZERO)
        leg = Leg(*place, now - was)
        entries.append(Entry(len(entries) + 1, kind, transaction, leg, debits, credits_))


def _summed(legs: Iterable[PostedLeg]) -> dict[tuple[datetime, str, str], Decimal]:
    sums: dict[tuple[datetime, str, str], Decimal] = {}
    for moment, account, currency, amount in legs:
        place = (moment, account, currency)
        sums[place] = sums[place] + amount if place in sums else amount
    return sums
