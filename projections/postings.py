"""Where money streams meet the books: the table their rows share, and the posting rules.

The one module of `projections/` that others import; it holds no projection of its own. Every rule
states the *total* posting of a state as dated legs; the framework journals the differences. The
rules follow "StraitsX docs, transaction status" and the GoKart status articles; POSTINGS.md has
them as a table. Arithmetic is exact: nothing is ever rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

from ledger.model import (
    INCOMING as INCOMING_STATUSES,
)
from ledger.model import (
    ONE_END,
    REVISED,
    InvalidCallback,
    Leg,
    MoneyKind,
    Record,
    SourceTerms,
    Table,
)

Lines: TypeAlias = list[tuple[datetime, str, str, Decimal]]
"""(effective time, account, currency, signed amount), before they are added up."""

ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)

AVAILABLE: Final = "assets:wallet:available"
HELD: Final = "assets:wallet:held"
MERCHANT: Final = "equity:merchant"
CONVERSION: Final = "equity:conversion"
FEES: Final = "expenses:fees"
NETWORK_FEES: Final = "expenses:network_fees"
INCOMING: Final = "memo:incoming"
INCOMING_CONTRA: Final = "memo:incoming:contra"
BENEFICIARY: Final = "memo:beneficiary"
RECEIVABLE: Final = "assets:receivable:gokart"
INCOME: Final = "income:conversions"
REWARDS: Final = "expenses:rewards"
SUSPENSE: Final = "suspense"
POINTS: Final = "PTS"

NAMED_BY_PROVIDER: Final = (
    "coalesce(details ->> 'end_to_end_ref', details ->> 'transaction_hash',"
    " details ->> 'payout_invoice_id', details ->> 'quote_id')"
)
"""What the provider or a bank calls a transaction; a kind has at most one of these details."""

NAMED_BY_US: Final = "coalesce(details ->> 'external_reference', details ->> 'merchant_ref')"
"""What we call a transaction besides its idempotency id; a kind has at most one of these."""

TRANSACTIONS: Final = Table(
    name="transactions",
    columns={
        "source": "text",
        "kind": "text",
        "id": "text",
        "status": "text",
        "amount": "numeric",
        "currency": "text",
        "fees": "numeric",
        "idempotency_id": "text",
        "customer_id": "text",
        "effective_at": "timestamptz",
        "flags": "text[]",
        "conflict": "jsonb",
        "return_of": "text",
        "details": "jsonb",
    },
    key=("source", "kind", "id"),
    mode="replace",
    hashed=True,
    indexes=(
        "source, status",
        "source, position, first_position",
        "source, effective_at, first_position",
        "hashtextextended(customer_id, 0), source, first_position WHERE customer_id IS NOT NULL",
        "hashtextextended(customer_id, 0), source, position, first_position"
        " WHERE customer_id IS NOT NULL",
        "source, customer_id WHERE customer_id IS NOT NULL",
        "hashtextextended(kind || coalesce(customer_id, ''), 0), effective_at",
        "hashtextextended(idempotency_id, 0), source WHERE idempotency_id IS NOT NULL",
        f"hashtextextended({NAMED_BY_PROVIDER}, 0), source WHERE {NAMED_BY_PROVIDER} IS NOT NULL",
        f"hashtextextended({NAMED_BY_US}, 0), source WHERE {NAMED_BY_US} IS NOT NULL",
        "hashtextextended(customer_id, 0),"
        " hashtextextended(coalesce(details ->> 'virtual_account_id', '') || ' '"
        " || coalesce(details ->> 'account_no', ''), 0) WHERE customer_id IS NOT NULL"
        " AND coalesce(details ->> 'virtual_account_id', details ->> 'account_no') IS NOT NULL",
        "source, kind, effective_at WHERE status IN ('pending', 'Pending')",
        f"source, first_position WHERE conflict IS NOT NULL OR flags && '{{{REVISED}}}'",
    ),
)
"""One row per money stream; `transactions` and `conversions` both write it."""


class Movement(Record, frozen=True):
    """What the facts of one money stream mean, ready to be posted, in the wallets' currencies."""

    status: str
    times: Mapping[str, datetime]
    """Status → the effective time of the fact that reported it, for every fact that counts."""
    amount: Decimal
    fees: Decimal
    currency: str
    owner: str
    """The account of whom the money belongs to: a customer's liability or `equity:merchant`."""
    target_amount: Decimal = ZERO
    target_currency: str = ""
    """What the other side gets: the bought amount of a swap, the beneficiary's of an FX payout."""


def blank_row(unknown: Mapping[str, datetime]) -> dict[str, Any]:
    """Return the row of a stream of which only unknown statuses were reported, and when."""
    row: dict[str, Any] = {n: None for n in TRANSACTIONS.columns if n not in TRANSACTIONS.key}
    status, told_at = next(iter(unknown.items()), (None, None))
    return row | {"status": status, "effective_at": told_at, "flags": [], "details": {}}


def own(customer_id: str | None) -> str:
    """Return the account of a customer, or of the merchant where the callback names none."""
    return f"liabilities:customers:{customer_id}" if customer_id else MERCHANT


def wallet(kind: str, currency: str, terms: SourceTerms) -> str:
    """Return the currency of the wallet that a payload's currency moves."""
    if not terms.wallets:
        return currency
    return terms.wallets.get(f"{kind}.{currency.lower()}", currency)


def exact(value: Decimal) -> Decimal:
    """Return the one spelling of an amount: no trailing zeros, no exponent, no minus zero."""
    text = str(value)
    if "E" not in text and text != "-0" and ("." not in text or text[-1] != "0"):
        return value
    if value == value.to_integral_value():
        return value.quantize(_ONE) or ZERO
    return value.normalize()


def post(kind: MoneyKind, movement: Movement) -> tuple[Leg, ...]:
    """Return the dated legs of a state: balanced, added up, sorted, without zeros."""
    return settle(RULES[kind.postings](movement))


def park(kind: MoneyKind, movement: Movement, at: datetime) -> tuple[Leg, ...]:
    """Return the legs of a stream whose facts contradict each other.

    Outgoing money is held, incoming money only announced, until an operator decides.
    """
    if kind.is_announced:
        return settle(_announce(movement, at))
    return settle(_hold(movement, at))


def reward(
    at: datetime, *, revenue: Decimal, currency: str, points: Decimal, member: str | None
) -> Lines:
    """Return the lines of one successful conversion: revenue to us, points to the member."""
    credited = f"liabilities:members:{member}" if member else SUSPENSE
    return [
        *_move(at, RECEIVABLE, INCOME, currency, revenue),
        *_move(at, REWARDS, credited, POINTS, points),
    ]


def settle(lines: Sequence[tuple[datetime, str, str, Decimal]]) -> tuple[Leg, ...]:
    """Add lines up per time, account and currency; drop zeros; sort.

    The journal checks that the legs balance.
    """
    if len(lines) == 2 and lines[0][1] != lines[1][1]:
        return tuple([Leg(*line) for line in sorted(lines) if line[3]])
    sums: dict[tuple[datetime, str, str], Decimal] = {}
    for at, account, currency, amount in lines:
        if amount:
            place = (at, account, currency)
            sums[place] = exact(sums[place] + amount) if place in sums else amount
    return tuple([Leg(*place, amount) for place, amount in sorted(sums.items()) if amount])


def _move(at: datetime, debit: str, credit: str, currency: str, amount: Decimal) -> Lines:
    if not amount.is_finite() or amount < 0:
        raise InvalidCallback("bad_amount", f"{amount} cannot be posted to {debit}")
    return [(at, debit, currency, amount), (at, credit, currency, amount.copy_negate())]


def _announce(m: Movement, at: datetime) -> Lines:
    return _move(at, INCOMING, INCOMING_CONTRA, m.currency, m.amount)


def _hold(m: Movement, at: datetime) -> Lines:
    return _move(at, HELD, AVAILABLE, m.currency, exact(m.amount + m.fees))


def _incoming(m: Movement) -> Lines:
    """Payments and dashboard deposits: gross in, fee out; a refund takes the gross back."""
    match m.status:
        case "pending" | "failed":
            return _announce(m, m.times["pending" if "pending" in m.times else "failed"])
        case "completed":
            return _credited(m)
        case "refunded" if "completed" in m.times:
            back = _move(m.times["refunded"], m.owner, AVAILABLE, m.currency, m.amount)
            return _credited(m) + back
        case _:
            return []


def _credited(m: Movement) -> Lines:
    at = m.times["completed"]
    return [
        *_move(at, AVAILABLE, m.owner, m.currency, m.amount),
        *_move(at, FEES, AVAILABLE, m.currency, m.fees),
    ]


def _chain_deposit(m: Movement) -> Lines:
    """Tokens in: the network's fee is the sender's and is posted nowhere."""
    match m.status:
        case "pending":
            return _announce(m, m.times["pending"])
        case "completed":
            return _move(m.times["completed"], AVAILABLE, m.owner, m.currency, m.amount)
        case _:
            return []


def _outgoing(m: Movement, expense: str = FEES) -> Lines:
    """Money out: held while pending, gone with its fee when completed, untouched when failed."""
    match m.status:
        case "pending":
            return _hold(m, m.times["pending"])
        case "completed":
            at = m.times["completed"]
            return [
                *_move(at, m.owner, AVAILABLE, m.currency, m.amount),
                *_move(at, expense, AVAILABLE, m.currency, m.fees),
            ]
        case _:
            return []


def _chain_withdrawal(m: Movement) -> Lines:
    return _outgoing(m, NETWORK_FEES)


def _fx_payout(m: Movement) -> Lines:
    """As a payout from the source wallet; the beneficiary's currency is in memo accounts."""
    lines = _outgoing(m)
    if m.status == "completed":
        at = m.times["completed"]
        lines += _move(at, CONVERSION, BENEFICIARY, m.target_currency, m.target_amount)
    return lines


def _swap(m: Movement) -> Lines:
    """One wallet out with the fee, another in, through the trading account or the customer's."""
    if m.status != "completed":
        return _hold(m, m.times["pending"]) if m.status == "pending" else []
    at, between = m.times["completed"], CONVERSION if m.owner == MERCHANT else m.owner
    return [
        *_move(at, between, AVAILABLE, m.currency, m.amount),
        *_move(at, FEES, AVAILABLE, m.currency, m.fees),
        *_move(at, AVAILABLE, between, m.target_currency, m.target_amount),
    ]


RULES: Final[Mapping[str, Callable[[Movement], Lines]]] = {
    "incoming": _incoming,
    "chain_deposit": _chain_deposit,
    "outgoing": _outgoing,
    "chain_withdrawal": _chain_withdrawal,
    "fx_payout": _fx_payout,
    "swap": _swap,
}
"""The posting rules by name; a `MoneyKind` names its own."""

STATUSES: Final[Mapping[str, frozenset[str]]] = {
    rule: frozenset(INCOMING_STATUSES if rule == "incoming" else ONE_END) for rule in RULES
}
"""Posting rule → the statuses that it knows; any other would post nothing."""


PROJECTIONS = ()
