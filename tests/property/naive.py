"""The books as a bookkeeper writes them from a finished log: slow, plain, apart from the folds.

Reads every fact at once, in log order, and writes the posting table down again. Shares no code
with `projections/`: what both say alike is probably right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal, localcontext

from ledger.model import Fact

Books = dict[tuple[datetime, str, str], Decimal]
"""(effective time, account, currency) → amount, debits positive; nothing that is zero."""

INCOMING = ("payment", "user_deposit", "chain_deposit")
REFUNDABLE = ("payment", "user_deposit")
ONE_END = ("payout", "fx_payout", "user_withdrawal", "swap", "chain_withdrawal", "chain_deposit")


@dataclass
class Deal:
    """One transaction, read through to its end."""

    kind: str
    when: dict[str, datetime]
    owner: str
    currency: str
    amount: Decimal
    fees: Decimal
    target_currency: str
    target_amount: Decimal


class Journal:
    """What is being written: pairs of lines."""

    def __init__(self) -> None:
        self.lines: Books = defaultdict(Decimal)

    def move(self, at: datetime, debit: str, credit: str, currency: str, amount: Decimal) -> None:
        self.lines[at, debit, currency] += amount
        self.lines[at, credit, currency] -= amount


def write(facts: Sequence[Fact], wallets: Mapping[str, str]) -> Books:
    """Return the books of a log."""
    with localcontext(Context(prec=99)):
        journal = Journal()
        streams: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        for fact in facts:
            streams[fact.kind, fact.resource_id].append(fact)
        for (kind, _), stated in streams.items():
            if kind == "conversion":
                _conversion(journal, stated)
            elif kind in INCOMING or kind in ONE_END:
                _money(journal, kind, stated, streams, wallets)
        return {place: amount for place, amount in journal.lines.items() if amount}


def _money(
    journal: Journal,
    kind: str,
    stated: list[Fact],
    streams: Mapping[tuple[str, str], list[Fact]],
    wallets: Mapping[str, str],
) -> None:
    first = stated[0]
    amount, currency = first.amount or Decimal(0), _wallet(kind, first.currency, wallets)
    fees = _fees(stated, first)
    if _contradict(kind, stated):
        at = min(f.effective_at for f in stated if _material(f) == _material(first))
        if kind in INCOMING:
            journal.move(at, "memo:incoming", "memo:incoming:contra", currency, amount)
        else:
            journal.move(
                at, "assets:wallet:held", "assets:wallet:available", currency, amount + fees
            )
        return
    when = {
        s: min(f.effective_at for f in stated if f.status == s) for s in {f.status for f in stated}
    }
    terms = first.terms
    deal = Deal(
        kind=kind,
        when=when,
        owner=_owner(kind, stated, streams),
        currency=currency,
        amount=amount,
        fees=fees,
        target_currency=_wallet(
            kind, terms.get("target_currency") or terms.get("to_currency"), wallets
        ),
        target_amount=Decimal(terms.get("target_amount") or terms.get("to_amount") or 0),
    )
    if kind in INCOMING:
        _incoming(journal, deal)
    else:
        _outgoing(journal, deal)


def _incoming(journal: Journal, deal: Deal) -> None:
    when, c = deal.when, deal.currency
    if "completed" in when:
        at = when["completed"]
        journal.move(at, "assets:wallet:available", deal.owner, c, deal.amount)
        if deal.kind in REFUNDABLE:
            journal.move(at, "expenses:fees", "assets:wallet:available", c, deal.fees)
        if "refunded" in when:
            back = when["refunded"]
            journal.move(back, deal.owner, "assets:wallet:available", c, deal.amount)
    elif not _is_over(deal):
        at = when["pending"] if "pending" in when else when["failed"]
        journal.move(at, "memo:incoming", "memo:incoming:contra", c, deal.amount)


def _is_over(deal: Deal) -> bool:
    over = {"refunded", "expired", *(["failed"] if deal.kind == "chain_deposit" else [])}
    return bool(over & deal.when.keys())


def _outgoing(journal: Journal, deal: Deal) -> None:
    when, c = deal.when, deal.currency
    if "failed" in when:
        return
    if "completed" not in when:
        held = deal.amount + deal.fees
        journal.move(when["pending"], "assets:wallet:held", "assets:wallet:available", c, held)
        return
    at = when["completed"]
    expense = "network_fees" if deal.kind == "chain_withdrawal" else "fees"
    journal.move(at, f"expenses:{expense}", "assets:wallet:available", c, deal.fees)
    if deal.kind == "swap":
        via = "equity:conversion" if deal.owner == "equity:merchant" else deal.owner
        bought, worth = deal.target_currency, deal.target_amount
        journal.move(at, via, "assets:wallet:available", c, deal.amount)
        journal.move(at, "assets:wallet:available", via, bought, worth)
        return
    journal.move(at, deal.owner, "assets:wallet:available", c, deal.amount)
    if deal.kind == "fx_payout":
        bought, worth = deal.target_currency, deal.target_amount
        journal.move(at, "equity:conversion", "memo:beneficiary", bought, worth)


def _conversion(journal: Journal, stated: list[Fact]) -> None:
    for event in {f.details["event"] for f in stated}:
        last = max(
            (f for f in stated if f.details["event"] == event),
            key=lambda f: (f.effective_at, f.details["callback_id"]),
        )
        if last.status != "Success":
            continue
        at, points = last.effective_at, Decimal(last.details["reward_points"])
        member = f"liabilities:members:{last.details['member']}"
        journal.move(
            at, "assets:receivable:gokart", "income:conversions", last.currency, last.amount
        )
        journal.move(at, "expenses:rewards", member, "PTS", points)


def _owner(kind: str, stated: list[Fact], streams: Mapping[tuple[str, str], list[Fact]]) -> str:
    customer = stated[0].customer_id
    returned = {f.details["return_of"] for f in stated if f.details.get("return_of")}
    if kind == "payment" and returned:
        sent = [
            facts
            for (other, _), facts in streams.items()
            if other == "payout" and returned & {f.idempotency_id for f in facts}
        ]
        if len(sent) == 1:
            customer = sent[0][0].customer_id
    return f"liabilities:customers:{customer}" if customer else "equity:merchant"


def _contradict(kind: str, stated: list[Fact]) -> bool:
    if kind in ONE_END and {"completed", "failed"} <= {f.status for f in stated}:
        return True
    same = {(f.amount, f.currency, f.customer_id, tuple(sorted(f.terms.items()))) for f in stated}
    return len(same) > 1 or len({f.fees for f in stated} - {None}) > 1


def _material(fact: Fact) -> object:
    terms = tuple(sorted(fact.terms.items()))
    return (fact.status, fact.amount, fact.currency, fact.fees, fact.customer_id, terms)


def _fees(stated: list[Fact], first: Fact) -> Decimal:
    known = {f.fees for f in stated if f.fees is not None}
    if first.fees is not None:
        return first.fees
    return known.pop() if len(known) == 1 else Decimal(0)


def _wallet(kind: str, currency: str | None, wallets: Mapping[str, str]) -> str:
    return wallets.get(f"{kind}.{(currency or '').lower()}", currency or "")
