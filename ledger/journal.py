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
    for moment, _, currency, amount in legs:
        place = (moment, currency)
        sums[place] = sums[place] + amount if place in sums else amount
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
    if not before and not after:
        return
    old, new = _summed(before), _summed(after)
    if old == new:
        return
    kind, transaction = key
    line = len(entries)
    for place in sorted(old.keys() | new.keys()) if old else sorted(new):
        now = new.get(place, _ZERO)
        was = old.get(place, _ZERO)
        if was == now:
            continue
        debits = now if now > 0 else _ZERO
        credits_ = now.copy_negate() if now < 0 else _ZERO
        if was > 0:
            debits -= was
        elif was < 0:
            credits_ += was
        line += 1
        leg = Leg(*place, now - was if was else now)
        entries.append(Entry(line, kind, transaction, leg, debits, credits_))


def _summed(legs: Iterable[PostedLeg]) -> dict[tuple[datetime, str, str], Decimal]:
    sums: dict[tuple[datetime, str, str], Decimal] = {}
    for moment, account, currency, amount in legs:
        place = (moment, account, currency)
        sums[place] = sums[place] + amount if place in sums else amount
    return sums
