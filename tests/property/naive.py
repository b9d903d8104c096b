"""The books as a bookkeeper writes them from a finished log: slow, plain, apart from the folds.

Reads every fact at once, in log order, and writes the posting table down again. Shares no code
with `projections/`: what both say alike is probably right.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Context, Decimal, localcontext
from typing import Any

from ledger.model import Fact, SourceTerms

Lines = dict[tuple[datetime, str, str], Decimal]
"""(effective time, account, currency) → amount, debits positive; nothing that is zero."""

Key = tuple[str, str]
"""(kind, resource)"""

INCOMING = ("payment", "user_deposit", "chain_deposit")
REFUNDABLE = ("payment", "user_deposit")
ONE_END = ("payout", "fx_payout", "user_withdrawal", "swap", "chain_withdrawal", "chain_deposit")
RETURNABLE = ("payout", "user_withdrawal", "fx_payout")
RULED = ("payout", "fx_payout")
LOWEST_FIRST = ("pending", "failed", "expired", "completed", "refunded")
KINDS = {*INCOMING, *ONE_END, "conversion"}
MERCHANT = "equity:merchant"


@dataclass(frozen=True)
class Telling:
    """One callback on a transaction."""

    fact: Fact
    position: int
    at: datetime
    """The provider's time, or ours."""


@dataclass
class Deal:
    """One transaction, and all that was said about it, in log order."""

    kind: str
    resource: str
    tellings: list[Telling] = field(default_factory=list)
    attributed: str | None = None
    """The customer that the last decision names."""
    is_undone: bool = False
    """Whether the last decision on whose it is takes an earlier one back."""
    kept: int | None = None
    """The position of the fact that an operator decided for."""
    kept_at: int = 0

    @property
    def facts(self) -> list[Fact]:
        """What was said, in log order."""
        return [telling.fact for telling in self.tellings]


@dataclass
class Account:
    """What the books say about one transaction."""

    status: str
    fees: Decimal | None = None
    lines: Lines = field(default_factory=lambda: defaultdict(Decimal))
    flags: set[str] = field(default_factory=set)
    issues: set[str] = field(default_factory=set)
    return_of: str | None = None
    returned: Decimal | None = None
    """How much of a payout came back; None when nothing did."""
    returns: int = 0
    customer: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return it as `driver.Books.account` reads it from what the program wrote."""
        if not self.status:
            return {"lines": self.lines}
        return {
            "status": self.status,
            "lines": self.lines,
            "fees": self.fees,
            "flags": self.flags,
            "issues": self.issues,
            "return_of": self.return_of,
            "returned": self.returned,
            "returns": self.returns,
            "customer": self.customer,
            "details": {name: self.details.get(name) for name in ("note", "remark")},
        }

    def move(self, at: datetime, debit: str, credit: str, currency: str, amount: Decimal) -> None:
        """Write a pair of lines."""
        self.lines[at, debit, currency] += amount
        self.lines[at, credit, currency] -= amount


@dataclass
class Return:
    """Where money that comes back came from."""

    named: str
    """The longest id of a transaction among those that its remarks may name, as the status that
    counts has them, or the next below; else the shortest of them, or nothing."""
    payouts: Sequence[Deal]


class Bookkeeper:
    """Knows the whole log of a source."""

    def __init__(
        self,
        log: Sequence[Fact],
        terms: SourceTerms,
        received_at: Callable[[int], datetime],
    ) -> None:
        self.terms = terms
        self.deals: dict[Key, Deal] = {}
        self.conversions: dict[Key, list[Fact]] = defaultdict(list)
        for position, fact in enumerate(log, 1):
            key = (fact.kind, fact.resource_id)
            if fact.kind == "decision":
                self._decide(fact, position)
            elif fact.kind == "conversion":
                self.conversions[key].append(fact)
            elif fact.kind in INCOMING or fact.kind in ONE_END:
                deal = self.deals.setdefault(key, Deal(*key))
                deal.tellings.append(self._telling(fact, position, received_at(position)))

    def _telling(self, fact: Fact, position: int, received_at: datetime) -> Telling:
        """Date a callback: by its receipt where it has no time and the source says so."""
        at = fact.effective_at or received_at
        if _is_by_creation(fact) and self.terms.date_by == "receipt":
            at = max(at, received_at)
        return Telling(fact, position, at)

    def _decide(self, fact: Fact, position: int) -> None:
        """Note a decision on a transaction that is known already."""
        said = fact.details
        deal = self.deals.get((said["kind"], said["resource"]))
        if deal is None:
            return
        if fact.status == "attribute":
            deal.attributed = said["customer_id"]
            deal.is_undone = deal.attributed is None
        elif fact.status == "keep":
            deal.kept, deal.kept_at = said["keep"], position

    def write(self) -> dict[Key, Account]:
        """Return the account of every transaction."""
        accounts = {key: self._account(deal) for key, deal in self.deals.items()}
        for key, deal in self.deals.items():
            if deal.kind in RETURNABLE:
                self._note_returns(deal, accounts[key], accounts)
        for key, facts in self.conversions.items():
            accounts[key] = Account(status="")
            _conversion(accounts[key], facts)
        for account in accounts.values():
            account.lines = {place: amount for place, amount in account.lines.items() if amount}
        return accounts

    def _account(self, deal: Deal) -> Account:
        counting, late = _counting(deal)
        facts = [telling.fact for telling in counting]
        account = Account(status=_status(deal.kind, facts))
        if late:
            account.issues.add("conflict_after_decision")
        if account.status == "conflict":
            account.issues.add("conflict")
            self._park(deal, counting, account)
        else:
            self._post(deal, counting, account)
            if deal.kept is not None:
                account.flags.add("decided")
        if len({f.idempotency_id for f in deal.facts} - {None}) > 1:
            account.flags.add("idempotency_id_changed")
        if deal.is_undone:
            account.flags.add("attribution_undone")
        account.customer = self._customer(deal)
        if deal.attributed is not None:
            account.flags.add("attributed_by_decision")
        elif self._ruled(deal) is not None and self._named(deal) is None:
            account.flags.add("attributed_by_rule")
        elif self._ruled(deal) not in (None, self._named(deal)):
            account.flags.add("owner_rule_differs")
        self._note_return(deal, account)
        return account

    def _park(self, deal: Deal, counting: Sequence[Telling], account: Account) -> None:
        first = counting[0].fact
        amount, currency = first.amount or Decimal(0), self._wallet(deal.kind, first.currency)
        others = {t.fact.fees for t in counting if t.fact.status != "pending"} - {None}
        account.fees = first.fees
        if account.fees is None and len(others) == 1:
            account.fees = others.pop()
        at = min(t.at for t in counting if _same_fact(t.fact, first))
        if deal.kind in INCOMING:
            account.move(at, "memo:incoming", "memo:incoming:contra", currency, amount)
        else:
            held = amount + (account.fees or 0)
            account.move(at, "assets:wallet:held", "assets:wallet:available", currency, held)

    def _post(self, deal: Deal, counting: Sequence[Telling], account: Account) -> None:
        facts = [telling.fact for telling in counting]
        when = {s: self._when(counting, s) for s in {f.status for f in facts}}
        account.fees = _fees(counting, account.status)
        account.details = _details([t for t in counting if t.fact.status == account.status])
        account.flags |= self._flags(counting, account, when)
        amount = facts[0].amount or Decimal(0)
        currency = self._wallet(deal.kind, facts[0].currency)
        owner = self._owner(deal)
        if deal.kind in INCOMING:
            _incoming(account, deal.kind, when, owner, currency, amount)
            return
        bought = _known_terms(facts)
        target = bought.get("target_currency") or bought.get("to_currency")
        worth = Decimal(bought.get("target_amount") or bought.get("to_amount") or 0)
        _outgoing(account, deal.kind, when, owner, currency, amount)
        if "completed" in when and "failed" not in when:
            _bought(
                account, deal.kind, when["completed"], owner, self._wallet(deal.kind, target), worth
            )

    def _when(self, counting: Sequence[Telling], status: str) -> datetime:
        """Return when a status was reached: the earliest of the times that callbacks give.

        The time of the creation, or of the receipt, is only for a status without one of its own.
        """
        tellings = [t for t in counting if t.fact.status == status]
        own = [telling.at for telling in tellings if not _is_by_creation(telling.fact)]
        earliest = min(own or [telling.at for telling in tellings])
        is_completed = any(t.fact.status == "completed" for t in counting)
        if status == "refunded" and not own and is_completed:
            return max(earliest, self._when(counting, "completed"))
        return earliest

    def _flags(
        self, counting: Sequence[Telling], account: Account, when: Mapping[str, datetime]
    ) -> set[str]:
        found = set()
        if account.fees is None:
            found.add("fees_unknown")
        pending = _fees([t for t in counting if t.fact.status == "pending"], "pending")
        if account.status != "pending" and pending not in (None, account.fees):
            found.add("fees_changed")
        final = {t.fact.fees for t in counting if t.fact.status != "pending"} - {None}
        if account.status != "pending" and account.fees is not None and not final:
            found.add("fees_provisional")
        if "completed" in when and "expired" in when:
            found.add("completed_after_expiry")
        if "completed" in when and "failed" in when and "refunded" not in when:
            found.add("completed_and_failed")
        if "completed" in when and "refunded" in when and account.fees:
            found.add("fee_refund_unknown")
        for status in {account.status, "completed"} & when.keys():
            tellings = [t.fact for t in counting if t.fact.status == status]
            if all(map(_is_by_creation, tellings)):
                found.add(f"dated_by_{self.terms.date_by}")
        return found

    def _owner(self, deal: Deal) -> str:
        customer = self._customer(deal)
        back = self._return(deal)
        if customer is None and back is not None and len(back.payouts) == 1:
            customer = self._customer(back.payouts[0])
        return f"liabilities:customers:{customer}" if customer else MERCHANT

    def _customer(self, deal: Deal) -> str | None:
        """Return who a transaction belongs to: as decided, else as named, else by the rule."""
        return deal.attributed or self._named(deal) or self._ruled(deal)

    def _named(self, deal: Deal) -> str | None:
        """Return the customer that the provider names; of several, the first."""
        counting, _ = _counting(deal)
        return next((t.fact.customer_id for t in counting if t.fact.customer_id), None)

    def _ruled(self, deal: Deal) -> str | None:
        rule = self.terms.owner_of
        if rule is None or deal.kind not in RULED:
            return None
        if rule.field == "idempotency_id":
            texts = sorted({f.idempotency_id for f in deal.facts if f.idempotency_id})
        else:
            texts = [str(f.details[rule.field]) for f in deal.facts if f.details.get(rule.field)]
        found = re.search(rule.match, texts[0]) if texts else None
        return found.group(1) if found else None

    def _return(self, deal: Deal) -> Return | None:
        """Return what an incoming transaction brings back; None when it says nothing of it."""
        counting, _ = _counting(deal)
        current = _status(deal.kind, [t.fact for t in counting])
        if current == "conflict":
            current = counting[0].fact.status
        names = None
        for status in [current, *reversed(LOWEST_FIRST)]:
            of_status = _details([t for t in counting if t.fact.status == status])
            names = of_status.get("returned_ids") if names is None else names
        if deal.kind not in REFUNDABLE or names is None:
            return None
        known = [name for name in names if any(_is_known_as(d, name) for d in self.deals.values())]
        longest = sorted(name for name in known if len(name) == max(map(len, known)))
        if not known:
            return Return(names[-1] if names else "", [])
        payouts = [
            other for other in self.deals.values() if any(_is_known_as(other, n) for n in longest)
        ]
        return Return(longest[0], payouts)

    def _note_return(self, deal: Deal, account: Account) -> None:
        """Note on a return what it brings back, and what is odd about it."""
        back = self._return(deal)
        if back is None:
            return
        account.return_of = back.named or None
        account.flags.add("return")
        odd = set()
        if not back.payouts:
            odd.add("return_unmatched")
        elif len(back.payouts) > 1:
            odd.add("return_ambiguous")
        else:
            odd |= self._oddities(deal, back.payouts[0])
            account.flags |= self._compared(deal, back.payouts[0])
        account.flags |= odd
        if deal.attributed is None:
            account.issues |= odd

    def _oddities(self, deal: Deal, payout: Deal) -> set[str]:
        found = set()
        named = self._named(deal)
        if deal.attributed is None and named is not None and named != self._customer(payout):
            found.add("return_customer_differs")
        counting, _ = _counting(payout)
        if _status(payout.kind, [t.fact for t in counting]) == "failed":
            found.add("return_of_failed")
        return found

    def _compared(self, deal: Deal, payout: Deal) -> set[str]:
        here, sent = _counting(deal)[0][0].fact, _counting(payout)[0][0].fact
        amount, whole = here.amount or Decimal(0), sent.amount or Decimal(0)
        if self._wallet(deal.kind, here.currency) != self._wallet(payout.kind, sent.currency):
            return {"return_currency_differs"}
        if amount < whole:
            return {"partial_return"}
        return {"return_exceeds_payout"} if amount > whole else set()

    def _note_returns(
        self, payout: Deal, account: Account, accounts: Mapping[Key, Account]
    ) -> None:
        """Note on a payout how often it came back, and how much in the currency of its wallet."""
        sent = _counting(payout)[0][0].fact
        for key, deal in self.deals.items():
            back = self._return(deal)
            if back is None or [p is payout for p in back.payouts] != [True]:
                continue
            if accounts[key].status != "completed":
                continue
            fact = _counting(deal)[0][0].fact
            account.flags.add("returned")
            account.returned = account.returned or Decimal(0)
            account.returns += 1
            if self._wallet(deal.kind, fact.currency) != self._wallet(payout.kind, sent.currency):
                account.flags.add("return_currency_differs")
            else:
                account.returned += fact.amount or Decimal(0)
        if account.returned is not None and account.returned > (sent.amount or Decimal(0)):
            account.flags.add("return_exceeds_payout")
            account.issues.add("return_exceeds_payout")

    def _wallet(self, kind: str, currency: str | None) -> str:
        return self.terms.wallets.get(f"{kind}.{(currency or '').lower()}", currency or "")


def write(
    log: Sequence[Fact], terms: SourceTerms, received_at: Callable[[int], datetime]
) -> dict[Key, Account]:
    """Return the account of every transaction of a log."""
    with localcontext(Context(prec=99)):
        return Bookkeeper(log, terms, received_at).write()


def _incoming(
    account: Account,
    kind: str,
    when: Mapping[str, datetime],
    owner: str,
    currency: str,
    amount: Decimal,
) -> None:
    over = {"refunded", "expired", *(["failed"] if kind == "chain_deposit" else [])}
    if "completed" in when:
        at = when["completed"]
        account.move(at, "assets:wallet:available", owner, currency, amount)
        if kind in REFUNDABLE:
            fees = account.fees or Decimal(0)
            account.move(at, "expenses:fees", "assets:wallet:available", currency, fees)
        if "refunded" in when:
            back = when["refunded"]
            account.move(back, owner, "assets:wallet:available", currency, amount)
    elif not over & when.keys():
        at = when["pending"] if "pending" in when else when["failed"]
        account.move(at, "memo:incoming", "memo:incoming:contra", currency, amount)


def _outgoing(
    account: Account,
    kind: str,
    when: Mapping[str, datetime],
    owner: str,
    currency: str,
    amount: Decimal,
) -> None:
    fees = account.fees or Decimal(0)
    if "failed" in when:
        return
    if "completed" not in when:
        at, held = when["pending"], amount + fees
        account.move(at, "assets:wallet:held", "assets:wallet:available", currency, held)
        return
    at = when["completed"]
    expense = "network_fees" if kind == "chain_withdrawal" else "fees"
    account.move(at, f"expenses:{expense}", "assets:wallet:available", currency, fees)
    via = "equity:conversion" if kind == "swap" and owner == MERCHANT else owner
    account.move(at, via, "assets:wallet:available", currency, amount)


def _bought(
    account: Account, kind: str, at: datetime, owner: str, currency: str, worth: Decimal
) -> None:
    if kind == "swap":
        via = "equity:conversion" if owner == MERCHANT else owner
        account.move(at, "assets:wallet:available", via, currency, worth)
    if kind == "fx_payout":
        account.move(at, "equity:conversion", "memo:beneficiary", currency, worth)


def _conversion(account: Account, stated: list[Fact]) -> None:
    for event in {f.details["event"] for f in stated}:
        last = max(
            (f for f in stated if f.details["event"] == event),
            key=lambda f: (f.effective_at, f.details["callback_id"]),
        )
        if last.status != "Success":
            continue
        at, points = last.effective_at, Decimal(str(last.details["reward_points"]))
        assert at is not None
        assert last.currency is not None
        member = f"liabilities:members:{last.details['member']}"
        revenue = last.amount or Decimal(0)
        account.move(at, "assets:receivable:gokart", "income:conversions", last.currency, revenue)
        account.move(at, "expenses:rewards", member, "PTS", points)


def _counting(deal: Deal) -> tuple[list[Telling], list[Telling]]:
    """Return what counts after an operator's decision, and what contradicted that afterwards."""
    kept = [t for t in deal.tellings if t.position == deal.kept]
    if not kept:
        return deal.tellings, []
    agreeing = [
        t for t in deal.tellings if _status(deal.kind, [kept[0].fact, t.fact]) != "conflict"
    ]
    late = [t for t in deal.tellings if t not in agreeing and t.position > deal.kept_at]
    return agreeing, late


def _status(kind: str, facts: Sequence[Fact]) -> str:
    """Return the highest status, or that the facts contradict each other.

    What one fact names and another does not contradicts nothing; neither do fees of `pending`.
    """
    stated = {f.status for f in facts}
    terms = {name for f in facts for name in f.terms}
    known: list[set[Any]] = [
        {f.amount for f in facts},
        {f.currency for f in facts},
        {f.customer_id for f in facts} - {None},
        {f.fees for f in facts if f.status != "pending"} - {None},
        *({f.terms.get(name) for f in facts} - {None} for name in terms),
    ]
    if kind in ONE_END and {"completed", "failed"} <= stated:
        return "conflict"
    if any(len(values) > 1 for values in known):
        return "conflict"
    return max(stated, key=LOWEST_FIRST.index)


def _fees(counting: Sequence[Telling], status: str) -> Decimal | None:
    """Return the fees of the status that counts, else of the highest other that knows them."""
    known = [t for t in counting if t.fact.fees is not None]
    if not known:
        return None
    best = max(
        known,
        key=lambda t: (
            t.fact.status == status, LOWEST_FIRST.index(t.fact.status), t.at, t.position
        ),
    )  # fmt: skip
    return best.fact.fees


def _details(tellings: Sequence[Telling]) -> dict[str, Any]:
    """Return the latest of all that the tellings of one status say; a value beats none."""
    found: dict[str, Any] = {}
    for telling in sorted(tellings, key=lambda t: (t.at, t.position)):
        for name, value in telling.fact.details.items():
            known = found.get(name)
            is_worse = value is None or (name == "transaction_hash" and value == "pending")
            if known is None or not is_worse:
                found[name] = value
    return found


def _known_terms(facts: Sequence[Fact]) -> dict[str, str]:
    return {name: value for f in facts for name, value in f.terms.items() if value is not None}


def _is_known_as(deal: Deal, name: str) -> bool:
    names = {deal.resource, *(f.idempotency_id for f in deal.facts)}
    return deal.kind in RETURNABLE and name in names


def _is_by_creation(fact: Fact) -> bool:
    return "dated_by_creation" in fact.flags


def _same_fact(one: Fact, other: Fact) -> bool:
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("status", "amount", "currency", "fees", "customer_id", "terms")
    )
