"""The journal: what turns the legs a transaction had into the legs it has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from ledger.callback_errors import LedgerError
from ledger.model import Entry, Leg, Received, Share, plain

_ZERO: Final = Decimal(0)


class Unbalanced(LedgerError):
    """A posting rule produced legs that do not balance; the stream is parked."""


def check_balanced(legs: Sequence[Leg]) -> None:
    """Raise Unbalanced unless the legs of every currency and date sum to zero."""
    rest = _ZERO
    moment, currency = legs[0].effective_at, legs[0].currency
    for leg in legs:
        if leg.effective_at is not moment or leg.currency != currency:
            _check_each(legs)
            return
        rest += leg.amount
    if rest:
        _check_each(legs)


def _check_each(legs: Sequence[Leg]) -> None:
    sums: dict[tuple[datetime, str], Decimal] = {}
    for leg in legs:
        place = (leg.effective_at, leg.currency)
        sums[place] = sums.get(place, _ZERO) + leg.amount
    for (moment, currency), rest in sums.items():
        if rest:
            raise Unbalanced(f"{currency} legs of {moment.isoformat()} leave {rest}")


def add_entries(
    entries: list[Entry], key: tuple[str, str], before: Sequence[Leg], after: Sequence[Leg]
) -> None:
    """Append to `entries` what turns the legs `before` into the legs `after`.

    `key` is the transaction's (kind, id). Debits and credits are the changes of the positive and
    the negative parts, so their sums over a journal do not depend on the order of events.
    """
    kind, transaction = key
    if not before:
        _add(entries, kind, transaction, after)
    elif not after or before[-1].effective_at < after[0].effective_at:
        _withdraw(entries, kind, transaction, before)
        _add(entries, kind, transaction, after)
    else:
        _change(entries, kind, transaction, before, after)


def _add(entries: list[Entry], kind: str, transaction: str, legs: Sequence[Leg]) -> None:
    line = len(entries)
    for leg in legs:
        amount = leg.amount
        if amount:
            line += 1
            if amount.is_signed():
                entry = Entry(line, kind, transaction, leg, _ZERO, amount.copy_negate())
            else:
                entry = Entry(line, kind, transaction, leg, amount, _ZERO)
            entries.append(entry)


def _withdraw(entries: list[Entry], kind: str, transaction: str, legs: Sequence[Leg]) -> None:
    line = len(entries)
    for leg in legs:
        was = leg.amount
        line += 1
        gone = Leg(leg.effective_at, leg.account, leg.currency, was.copy_negate())
        if was.is_signed():
            entries.append(Entry(line, kind, transaction, gone, _ZERO, was))
        else:
            entries.append(Entry(line, kind, transaction, gone, gone.amount, _ZERO))


def _change(
    entries: list[Entry], kind: str, transaction: str, before: Sequence[Leg], after: Sequence[Leg]
) -> None:
    old, new = _summed(before), _summed(after)
    line = len(entries)
    for place in sorted({**old, **new}):
        was, now = old.get(place, _ZERO), new.get(place, _ZERO)
        if was == now:
            continue
        debits = (now if now > 0 else _ZERO) - (was if was > 0 else _ZERO)
        credits_ = (-now if now < 0 else _ZERO) - (-was if was < 0 else _ZERO)
        line += 1
        leg = Leg(*place, now - was)
        entries.append(Entry(line, kind, transaction, leg, debits, credits_))


def _summed(legs: Iterable[Leg]) -> dict[tuple[datetime, str, str], Decimal]:
    sums: dict[tuple[datetime, str, str], Decimal] = {}
    for leg in legs:
        place = (leg.effective_at, leg.account, leg.currency)
        sums[place] = sums[place] + leg.amount if place in sums else leg.amount
    return sums


def share_changes(before: Sequence[Share], after: Sequence[Share]) -> list[Share]:
    """Return what turns the shares `before` into the shares `after`."""
    if [*before] == [*after]:
        return []
    sums: dict[tuple[str, str, datetime, str], tuple[Decimal, int]] = {}
    for shares, sign in ((before, -1), (after, 1)):
        for share in shares:
            place = (share.kind, share.id, share.effective_at, share.currency)
            amount, count = sums.get(place, (_ZERO, 0))
            change = share.amount if sign > 0 else share.amount.copy_negate()
            sums[place] = (amount + change, count + sign * share.count)
    return [
        Share(*place, amount, count)
        for place, (amount, count) in sorted(sums.items())
        if amount or count
    ]


def add_shares(received: Sequence[Received], changes: Iterable[Share | Received]) -> list[Received]:
    """Return what a stream has received after `changes`, by currency, without what is nothing."""
    sums = {each.currency: (each.count, each.amount) for each in received}
    for share in changes:
        count, amount = sums.get(share.currency, (0, _ZERO))
        sums[share.currency] = (count + share.count, amount + share.amount)
    return [
        Received(currency, count, Decimal(plain(amount)))
        for currency, (count, amount) in sorted(sums.items())
        if count or amount
    ]


def add_up(
    rows: Iterable[tuple[Any, ...]], key_length: int
) -> dict[tuple[Any, ...], list[Decimal]]:
    """Add up the amounts behind the first `key_length` columns of rows, by those columns."""
    sums: dict[tuple[Any, ...], list[Decimal]] = {}
    for row in rows:
        key = row[:key_length]
        known = sums.get(key)
        if known is None:
            sums[key] = [*row[key_length:]]
        else:
            place = key_length
            for amount in known:
                if row[place]:
                    known[place - key_length] = amount + row[place]
                place += 1
    return sums
