"""The journal: what turns the legs a transaction had into the legs it has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

from ledger.errors import LedgerError
from ledger.model import Entry, Leg

PostedLeg: TypeAlias = tuple[datetime, str, str, Decimal]
"""(effective at, account, currency, amount): a leg as a stream's row keeps it."""

_ZERO: Final = Decimal(0)
_leg: Final = Leg._make


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
    kind, transaction = key
    line = len(entries)
    changes = (
        _changes(before, after) if before else [(leg, _ZERO, leg[3]) for leg in after if leg[3]]
    )
    for leg, was, now in changes:
        debits = now if now > 0 else _ZERO
        credits_ = now.copy_negate() if now < 0 else _ZERO
        if was > 0:
            debits -= was
        elif was < 0:
            credits_ += was
        line += 1
        entries.append(Entry(line, kind, transaction, leg, debits, credits_))


def _changes(
    before: Sequence[PostedLeg], after: Sequence[Leg]
) -> list[tuple[Leg, Decimal, Decimal]]:
    """Return (leg to add, amount before, amount after) of every place whose amount changes."""
    old, new = _summed(before), _summed(after)
    if old == new:
        return []
    found = []
    for place in sorted({**old, **new}):
        was, now = old.get(place, _ZERO), new.get(place, _ZERO)
        if was != now:
            found.append((_leg((*place, now - was)), was, now))
    return found


def _summed(legs: Iterable[PostedLeg]) -> dict[tuple[datetime, str, str], Decimal]:
    sums: dict[tuple[datetime, str, str], Decimal] = {}
    for moment, account, currency, amount in legs:
        place = (moment, account, currency)
        sums[place] = sums[place] + amount if place in sums else amount
    return sums


def add_up(
    rows: Iterable[tuple[Any, ...]], key_length: int
) -> dict[tuple[Any, ...], list[Decimal]]:
    """Add up the amounts behind the first `key_length` columns of rows, by those columns."""
    sums: dict[tuple[Any, ...], list[Decimal]] = {}
    for row in rows:
        key = row[:key_length]
        known = sums.get(key)
        if known is None:
            sums[key] = list(row[key_length:])
        else:
            for place, amount in enumerate(row[key_length:]):
                if amount:
                    known[place] += amount
    return sums
