"""The answers of the query API as types: each builds an answer and documents it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ledger.payload import plain

AMOUNT_PATTERN: Final = r"^-?\d+(\.\d+)?$"
"""What makes a text an amount: exports write such a column as exact decimals."""

Amount: TypeAlias = Annotated[
    str,
    Meta(
        pattern=AMOUNT_PATTERN,
        description="Exact decimal, without exponent or trailing zeros.",
        examples=["13304.95"],
    ),
]
Moment: TypeAlias = Annotated[datetime, Meta(description="RFC 3339, UTC.")]
Positions: TypeAlias = Annotated[
    dict[str, int],
    Meta(
        description="Source → log position at which the whole answer is true.",
        examples=[{"straitsx": 25}],
    ),
]
Cursor: TypeAlias = Annotated[
    str | None, Meta(description="Pass as `cursor` for the next page; null on the last one.")
]
Parked: TypeAlias = Annotated[
    int, Meta(description="Events set aside because folding them failed; not in these figures.")
]


class Schema(msgspec.Struct, frozen=True):
    """What every answer type shares: it is immutable."""

    read_from: ClassVar[Mapping[str, str]] = {}
    """Field → the column that it is read from, where that has another name."""


A = TypeVar("A", bound=Schema)


@lru_cache(maxsize=64)
def _json_fields(kind: type[Schema]) -> frozenset[str]:
    return frozenset(known.name for known in msgspec.structs.fields(kind) if _is_json(known.type))


def _is_json(kind: Any) -> bool:
    """Whether a field holds an object: as it is, or null, or with a description."""
    return kind == dict[str, Any] or any(_is_json(part) for part in get_args(kind))


def from_row(kind: type[A], row: Mapping[str, Any], **more: Any) -> A:
    """Make an answer from a database row, with exact amounts as text and jsonb as objects.

    Columns that the type does not name are left out; `more` adds or replaces fields.
    """
    values: dict[str, Any] = {}
    for name in kind.__struct_fields__:
        column = kind.read_from.get(name, name)
        if name in more:
            values[name] = more[name]
        elif column in row:
            value = row[column]
            if isinstance(value, Decimal):
                value = plain(value)
            elif isinstance(value, str) and name in _json_fields(kind):
                value = msgspec.json.decode(value)
            values[name] = value
    return kind(**values)


class AsOf(Schema, frozen=True):
    """Which earlier state an answer describes."""

    effective_at: Annotated[Moment | None, Meta(description="Nothing dated later is included.")]
    recorded_at: Annotated[Moment | None, Meta(description="Nothing recorded later is included.")]
    position: Annotated[
        dict[str, int], Meta(description="Source → the log position up to which it was known.")
    ]
    warnings: Annotated[
        list[str] | UnsetType,
        Meta(description="Present when a wrong clock makes the answer leave events out."),
    ] = UNSET


Earlier: TypeAlias = Annotated[
    AsOf | UnsetType, Meta(description="Present when an as-of parameter was given.")
]


class Reconciliation(Schema, frozen=True):
    """How far the provider's statements confirm a wallet's balance.

    An earlier state (as-of) is never confirmed: INCOMPLETE.
    """

    state: Annotated[
        str, Meta(description="RECONCILED, RECONCILED_WITH_TIMING, BREAKS or INCOMPLETE.")
    ] = "INCOMPLETE"
    through: Annotated[
        Moment | None, Meta(description="The cut-off, exclusive: later movements are not covered.")
    ] = None
    statement_balance: Amount | None = None
    difference: Annotated[
        Amount | None,
        Meta(description="Books - statement at the cut-off: what is in transit, and the breaks."),
    ] = None
    breaks: Annotated[int | None, Meta(description="Open ones.")] = None
    position: Annotated[
        dict[str, int] | UnsetType,
        Meta(description="Positions of both logs in the latest run; present when there is one."),
    ] = UNSET
    current: Annotated[
        bool | UnsetType,
        Meta(description="Whether these books are at that position; if not, a new run follows."),
    ] = UNSET


class Wallet(Schema, frozen=True):
    """One currency of one source."""

    source: str
    currency: str
    available: Amount
    held: Amount
    pending_in: Annotated[Amount, Meta(description="Announced, not credited yet.")]
    total: Annotated[Amount, Meta(description="available + held")]
    reconciliation: Reconciliation


class Wallets(Schema, frozen=True):
    """Wallets by source and currency: those with postings, and those with a statement."""

    wallets: list[Wallet]
    next: Cursor
    position: Positions
    parked: Parked
    as_of: Earlier = UNSET


class Balance(Schema, frozen=True):
    """One account in one currency."""

    source: str
    account: str
    currency: str
    debits: Amount
    credits: Amount
    balance: Annotated[Amount, Meta(description="In the account's normal direction.")]
    normal: Annotated[str, Meta(description="`debit` or `credit`.")]


class Balances(Schema, frozen=True):
    """Balances by source, account and currency."""

    balances: list[Balance]
    next: Cursor
    position: Positions
    parked: Parked
    as_of: Earlier = UNSET


class Entry(Schema, frozen=True):
    """One journal line."""

    source: str
    position: Annotated[int, Meta(description="Log position of the event that made it.")]
    line: int
    kind: str
    transaction: str
    account: str
    currency: str
    amount: Annotated[Amount, Meta(description="Greater than zero: debit.")]
    effective_at: Moment
    recorded_at: Moment


class Entries(Schema, frozen=True):
    """Journal lines by source, position and line."""

    entries: list[Entry]
    next: Cursor
    position: Positions
    as_of: Earlier = UNSET


class Step(Schema, frozen=True):
    """One event in the life of a transaction or customer."""

    position: int
    event_id: str
    status: str
    idempotency_id: str | None
    effective_at: Moment | None
    received_at: Moment
    recorded_at: Moment


class Transaction(Schema, frozen=True):
    """One money movement, by all its callbacks together."""

    source: str
    kind: str
    id: str
    idempotency_id: str | None
    status: str
    amount: Amount | None
    currency: str | None
    fees: Annotated[Amount | None, Meta(description="null: not reported yet.")]
    customer_id: str | None
    effective_at: Moment | None
    flags: list[str]
    conflict: Annotated[dict[str, Any] | None, Meta(description="What disagrees; money is held.")]
    return_of: Annotated[
        str | None, Meta(description="The id by which its remarks name what it brings back.")
    ]
    details: dict[str, Any] | None
    history: Annotated[list[Step], Meta(description="The last 1000 steps.")]
    changed_position: Annotated[
        int | UnsetType,
        Meta(
            description="Log position of the last event that changed it: its own, or one of "
            "another transaction, such as a return. Present with `changed_after`.",
            examples=[25],
        ),
    ] = UNSET


class Total(Schema, frozen=True):
    """What a whole list adds up to in one currency."""

    currency: Annotated[str | None, Meta(description="null: rows of which no amount is known.")]
    count: int
    sum: Annotated[Amount | None, Meta(description="null: no amount is known.")]


class Transactions(Schema, frozen=True):
    """Transactions by source, the newest first; or as `sort` or `changed_after` order them."""

    transactions: list[Transaction]
    next: Cursor
    position: Positions
    totals: Annotated[
        list[Total] | UnsetType,
        Meta(
            description="By currency, of every page together; present with `totals=true`.",
            examples=[[{"currency": "XSGD", "count": 12, "sum": "13304.95"}]],
        ),
    ] = UNSET
    as_of: Earlier = UNSET


class Mention(Schema, frozen=True):
    """The envelope of an event about a transaction."""

    position: int
    event_id: str
    kind: str
    status: str
    path_event: str | None
    received_at: Moment
    verdict: str
    idempotency_key: str


class TransactionDecision(Schema, frozen=True):
    """What an operator decided about a transaction; the last attribution applies."""

    position: Annotated[int, Meta(description="Of the decision's own event.")]
    action: Annotated[
        str,
        Meta(
            description="attribute: it belongs to `customer_id`, or to whom its facts name where "
            "that is null; keep, acknowledge, retry: about its exception `reason`."
        ),
    ]
    reason: str | None
    customer_id: str | None
    note: str | None
    by: str | None
    recorded_at: Moment


class TransactionReturn(Schema, frozen=True):
    """A transaction that brought money of another one back."""

    kind: str
    id: str
    status: str
    amount: Amount | None
    currency: str | None
    effective_at: Moment | None


class TransactionDetail(Transaction, frozen=True, kw_only=True):
    """A transaction with its journal lines, its events and the decisions about it."""

    entries: list[Entry]
    events: list[Mention]
    returns: Annotated[
        list[TransactionReturn],
        Meta(
            description="The first 100 that brought money of it back; `details.returned_amount` "
            "and `details.return_count` are about all of them."
        ),
    ]
    decisions: list[TransactionDecision]
    position: Positions
    as_of: Earlier = UNSET


class BankAccount(Schema, frozen=True):
    """One bank account and its verification."""

    source: str
    id: str
    customer_id: str | None
    verification_status: str | None
    disabled: bool | None
    updated_at: Moment | None
    details: dict[str, Any] | None


class BankAccounts(Schema, frozen=True):
    """Bank accounts by source and id."""

    bank_accounts: list[BankAccount]
    next: Cursor
    position: Positions
    as_of: Earlier = UNSET


class VirtualAccount(Schema, frozen=True):
    """One virtual account."""

    source: str
    id: str
    customer_id: str | None
    status: str | None
    currency: str | None
    reference_id: str | None
    updated_at: Moment | None
    flags: list[str] | None
    details: dict[str, Any] | None


class VirtualAccounts(Schema, frozen=True):
    """Virtual accounts by source and id."""

    virtual_accounts: list[VirtualAccount]
    next: Cursor
    position: Positions
    as_of: Earlier = UNSET


_PROVIDERS_ID: Final = {"id": "provider_id"}
"""The row's own id is of customer and id together: the provider uses one id for several."""


class Limit(Schema, frozen=True):
    """The transaction limits of one customer, as last reported."""

    read_from: ClassVar[Mapping[str, str]] = _PROVIDERS_ID

    source: str
    id: Annotated[str, Meta(description="The provider's; several customers may have the same.")]
    customer_id: str | None
    limits: dict[str, Any] | None


class Limits(Schema, frozen=True):
    """Limits by source and id."""

    limits: list[Limit]
    next: Cursor
    position: Positions
    as_of: Earlier = UNSET


class LimitSet(Schema, frozen=True):
    """Limits without their customer."""

    read_from: ClassVar[Mapping[str, str]] = _PROVIDERS_ID

    id: str
    limits: dict[str, Any] | None


class LimitRequest(Schema, frozen=True):
    """One request to change limits."""

    read_from: ClassVar[Mapping[str, str]] = _PROVIDERS_ID

    source: str
    id: Annotated[str, Meta(description="The provider's; several customers may have the same.")]
    customer_id: str | None
    status: str | None
    updated_at: Moment | None
    conflict: dict[str, Any] | None


class LimitRequests(Schema, frozen=True):
    """Limit requests by source and id."""

    limit_requests: list[LimitRequest]
    next: Cursor
    position: Positions
    as_of: Earlier = UNSET


class Rfi(Schema, frozen=True):
    """One request for information."""

    source: str
    id: str
    customer_id: str | None
    status: str | None
    updated_at: Moment | None
    expires_at: Moment | None
    details: dict[str, Any] | None


class Rfis(Schema, frozen=True):
    """Requests for information by source and id."""

    rfi: list[Rfi]
    next: Cursor
    position: Positions
    as_of: Earlier = UNSET


class Customer(Schema, frozen=True):
    """One customer, its verification, and everything that names it."""

    source: str
    id: str
    verification_status: Annotated[
        str | None, Meta(description="null: known from other callbacks only.")
    ]
    updated_at: Moment | None
    rejection: dict[str, Any] | None
    registration_type: str | None
    country: str | None
    details: dict[str, Any] | None
    history: Annotated[list[Step], Meta(description="The last 1000 steps.")]
    limits: list[LimitSet]
    limit_requests: list[LimitRequest]
    rfi: list[Rfi]
    bank_accounts: list[BankAccount]
    virtual_accounts: list[VirtualAccount]
    cut: Annotated[
        list[str],
        Meta(
            description="Which of these lists go on after their first 100 entries: "
            "`/v1/<list>?customer_id=` has them all."
        ),
    ]


class Customers(Schema, frozen=True):
    """Customers by source and id: those with callbacks of their own, and those that money names."""

    customers: list[Customer]
    next: Cursor
    position: Positions
    as_of: Earlier = UNSET


class CustomerDetail(Customer, frozen=True):
    """A customer with its balances, and the position at which this is true."""

    balances: Annotated[list[Balance], Meta(description="Of the customer's own accounts.")]
    notes: Annotated[
        list[str],
        Meta(
            description="What the figures leave out.",
            examples=[["payouts of straitsx name no customer: those that are not attributed …"]],
        ),
    ]
    position: Positions
    as_of: Earlier = UNSET
