"""The vocabulary: the ledger's nouns, and (from `ledger.payload`) how a payload is read.

`handlers/` and `projections/` import this module and pure stdlib, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import compress
from typing import Any, Final

import msgspec

from ledger.callback_errors import InvalidCallback
from ledger.payload import (
    JSON,
    YEARS,
    Number,
    Payload,
    as_codes,
    as_currency,
    as_instant,
    as_money,
    as_note,
    as_text,
    inside,
    joined_id,
    plain,
    returned_ids,
    shown,
    stamp,
    total,
)

__all__ = [
    "ATTRIBUTE",
    "INCOMING",
    "JSON",
    "ONE_END",
    "REVISED",
    "YEARS",
    "Decision",
    "Entry",
    "Envelope",
    "Fact",
    "FoldResult",
    "Handler",
    "InvalidCallback",
    "Issue",
    "Leg",
    "MoneyKind",
    "MoneyProjection",
    "Number",
    "OwnerRule",
    "Payload",
    "Projection",
    "Provider",
    "Received",
    "Record",
    "RecordedFact",
    "Related",
    "Share",
    "SourceTerms",
    "StreamProjection",
    "Table",
    "View",
    "as_codes",
    "as_currency",
    "as_instant",
    "as_money",
    "as_note",
    "as_text",
    "changed",
    "flags",
    "identify",
    "inside",
    "joined_id",
    "plain",
    "returned_ids",
    "shown",
    "stamp",
    "total",
]


class Record(msgspec.Struct, frozen=True, gc=False):
    """The base of nouns that a fold makes by the million: immutable, by value, cheap to make.

    They hold no reference to what holds them, so the search for garbage cycles passes them by.
    """


changed = msgspec.structs.replace
"""Return a record with some fields changed, as `dataclasses.replace` does for dataclasses."""


class OwnerRule(Record, frozen=True):
    """How a source's payouts name their customer: in a text that we gave the provider."""

    field: str
    """Which text: `idempotency_id`, `external_reference` or `payout_invoice_id`."""
    match: str
    """A regular expression with one group, the customer's id, for `re.search` in the text.

    An empty group names no customer.
    """


@dataclass(frozen=True, slots=True)
class SourceTerms:
    """What the operator configured about one source that its facts and postings need."""

    source: str
    provider: str
    currency: str | None = None
    """The currency of a provider whose callbacks name none (GoKart's revenue)."""
    wallets: Mapping[str, str] = field(default_factory=dict)
    """`"<kind>.<currency, lower case>"` → the wallet's currency, upper case."""
    owner_of: OwnerRule | None = None
    """Whose money a payout is that names no customer; None = the merchant's."""
    date_by: str = "creation"
    """When a state without a time of its own was reached: `creation` or `receipt`."""


class Envelope(Record, frozen=True):
    """What the receiver needs to know of a callback to append it."""

    kind: str
    resource_id: str
    status: str
    """The ledger's word for the reported state; `unknown:<text>` for one no document names."""
    idempotency_id: str | None = None
    provider_at: datetime | None = None
    tail: str | None = None
    """What distinguishes this callback from others of its stream; None = the digest of the body."""
    is_dated_by_creation: bool = False
    """Whether `provider_at` is when the resource was created: the callback has no updated time."""

    def fact(
        self,
        *,
        customer_id: str | None = None,
        amount: Decimal | None = None,
        currency: str | None = None,
        fees: Decimal | None = None,
        terms: Mapping[str, str] | None = None,
        details: Mapping[str, JSON] | None = None,
        flags: tuple[str, ...] = (),
    ) -> Fact:
        """Return the fact of this callback: what it states, under the identity read already.

        Raises its flag `dated_by_creation` where a state after `pending` has no time of its own.
        """
        if self.is_dated_by_creation and self.status != "pending":
            flags = (*flags, "dated_by_creation")
        return Fact(
            self.kind, self.resource_id, self.status, self.provider_at, self.idempotency_id,
            customer_id, amount, currency, fees, terms or {}, details or {}, flags,
        )  # fmt: skip


def identify(payload: Payload, kind: str, status: str, *, dated: bool = False) -> Envelope:
    """Return the envelope of a callback that names its resource in `id` and its state.

    A stream has one callback per state, or, when `dated`, per state and updated time. A state
    that no document names is distinguished by the body. Raises InvalidCallback `missing_id`.
    """
    if payload.id is None:
        raise InvalidCallback("missing_id", "the callback has no id")
    get = payload.get
    updated = as_instant("updated_at", get("updated_at"))
    tail: str | None = status
    if status.startswith("unknown:"):
        tail = None
    elif dated:
        tail = f"{status}@{updated.isoformat() if updated else ''}"
    provider_at = updated or as_instant("created_at", get("created_at"))
    idempotency_id = as_text("idempotency_id", get("idempotency_id"))
    by_creation = updated is None and provider_at is not None
    return Envelope(kind, payload.id, status, idempotency_id, provider_at, tail, by_creation)


def flags(**raised: bool) -> tuple[str, ...]:
    """Return the names of the flags that are raised."""
    return tuple(compress(raised, raised.values())) if any(raised.values()) else ()


class Fact(Record, frozen=True):
    """What one callback states, in the ledger's words. Money is exact; absent is None, not zero.

    Material (immutable within a stream): amount, currency, fees once known, customer, terms.
    """

    kind: str
    resource_id: str
    status: str
    effective_at: datetime | None = None
    idempotency_id: str | None = None
    customer_id: str | None = None
    amount: Decimal | None = None
    currency: str | None = None
    fees: Decimal | None = None
    terms: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Further material facts as canonical texts (`target_amount`, `target_currency` …)."""
    details: Mapping[str, JSON] = msgspec.field(default_factory=dict)
    """Descriptive, JSON-able (str, int, bool, None, list, dict); may change within a stream."""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Handler:
    """One callback type of one provider, found by its presence in `handlers/` as `HANDLER`."""

    provider: str
    kind: str
    events: frozenset[str]
    """The provider's event names, as they may be in the callback URL."""
    matches: Callable[[Payload], bool]
    """Whether the body itself says that it is of this type."""
    envelope: Callable[[Payload], Envelope]
    """Raises InvalidCallback when the callback cannot be identified."""
    translate: Callable[[Payload, SourceTerms], Fact]
    """Raises InvalidCallback when what the callback says cannot be true."""
    types: frozenset[str] = frozenset()
    """Body types that alone say so: no other handler of the provider matches them."""
    shared_types: frozenset[str] = frozenset()
    """Body types of several handlers: where the body's shape does not decide, the URL does."""
    statuses: frozenset[str] | None = None
    """Statuses the documents name; None = any (kinds that carry no status)."""


INCOMING: Final[Mapping[str, int]] = {
    "pending": 1, "failed": 2, "expired": 3, "completed": 4, "refunded": 5,
}  # fmt: skip
"""The statuses of incoming bank transfers by rank: the highest one reported is the state (StraitsX
docs, transaction status)."""

ONE_END: Final[Mapping[str, int]] = {"pending": 1, "failed": 2, "completed": 2}
"""The statuses of what is completed or fails, by rank: two of the same rank exclude each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyKind:
    """A kind of transaction, found by its presence in a handler's file as `MONEY_KIND`.

    Several handlers may translate callbacks of one kind; the kind is declared beside one of them.
    """

    name: str
    ranks: Mapping[str, int]
    """Status → rank; the highest one reported is the state. Statuses of the highest rank exclude
    each other. The fees of `pending` are provisional."""
    postings: str
    """The posting rule, by its name in `projections/postings.py`."""
    is_announced: bool = False
    """Whether money comes in: what is uncertain about it is in memo accounts, not in a wallet."""
    brings_back: bool = False
    """Whether its remarks may name a transaction that it brings back (`returned_ids`)."""
    can_come_back: bool = False
    """Whether another transaction may bring its money back; not of a kind that itself does so."""
    has_owner_rule: bool = False
    """Whether a source's rule (`owner_of`) names its customer where the callback does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A sender of callbacks, found by its presence in `handlers/` as `PROVIDER`."""

    name: str
    """As `provider = "…"` of a source and `Handler.provider` name it."""
    scheme: str
    """The signature scheme of its callbacks, one of `ledger/signatures/`."""
    header: str = ""
    """The header that authenticates a callback; "" where the scheme prescribes its own."""
    default_currency: str | None = None
    """The currency assumed, with a warning, where its callbacks name none."""
    statement_format: str | None = None
    """The format of its statement files where their bytes show no more than JSON."""
    statement_api: str | None = None
    """The API that its statements are fetched from; None = they only come as files."""
    default_place: int | None = None
    """Where its source is among those that exist when no setting names any; None = nowhere."""


class RecordedFact(Record, frozen=True):
    """A fact with its place in the log."""

    fact: Fact
    position: int
    event_id: str
    received_at: datetime
    recorded_at: datetime

    @property
    def effective_at(self) -> datetime:
        """The provider's time, or ours where the provider gives none."""
        return self.fact.effective_at or self.received_at


REVISED: Final = (
    "decided,idempotency_id_changed,attributed_by_decision,attribution_undone,owner_ambiguous,"
    "owner_rule_differs"
)
"""The flags of transactions that may have had another customer or id before: a search in an
earlier state looks at all of them. As a PostgreSQL array without its braces."""

RETRY = "retry"
"""The decision to fold again what was parked: it changes no stream and closes nothing."""


ATTRIBUTE: Final = "attribute"
"""The decision that names the customer of a transaction, or takes that back."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An operator's decision about a stream, itself an event of the log.

    To keep: `keep` is the position of the event whose facts are kept; None only acknowledges. To
    attribute: `customer_id` is whose transaction it is; None takes earlier ones back.
    """

    reason: str
    keep: int | None
    position: int
    action: str = "keep"
    customer_id: str | None = None


class Leg(Record, frozen=True, order=True, array_like=True):
    """One dated side of a posting: amount > 0 debits the account, < 0 credits it."""

    effective_at: datetime
    account: str
    currency: str
    amount: Decimal


class Issue(Record, frozen=True):
    """Something an operator should look at; listed as an exception while it lasts."""

    reason: str
    detail: str


class Share(Record, frozen=True, order=True, array_like=True):
    """One dated amount that a stream counts towards another: a return towards its payout.

    What is taken back counts with the opposite sign at its own time, as legs do.
    """

    kind: str
    id: str
    """The stream that it counts towards."""
    effective_at: datetime
    currency: str
    amount: Decimal
    count: int


class Received(Record, frozen=True, array_like=True):
    """The sum of what other streams count towards one, in one currency."""

    currency: str
    count: int
    amount: Decimal


class Related(Record, frozen=True):
    """What a view may know of other streams; exact and bounded, however many there are."""

    mentioned: Mapping[str, Sequence[Any]] = msgspec.field(default_factory=dict)
    """Name that the stream mentions → the outlines of the streams that have it, two at most."""
    received: Sequence[Received] = ()
    """The sums of what others count towards the stream, by currency."""


class View(Record, frozen=True):
    """What a stream's facts mean: one row of its table, its dated legs, its issues."""

    row: Mapping[str, Any]
    legs: tuple[Leg, ...] = ()
    issues: tuple[Issue, ...] = ()
    shares: tuple[Share, ...] = ()
    """What it counts towards streams that it mentions; they do not depend on what it received."""
    customers: tuple[str, ...] = ()
    """Every customer that the stream has ever concerned: findings about them hang on it."""


class Entry(Record, frozen=True):
    """One journal line: what an event changed in the legs of one transaction."""

    line: int
    kind: str
    transaction: str
    leg: Leg
    debits: Decimal
    """By how much the account's debits grew (may be negative when a leg is withdrawn)."""
    credits: Decimal


class Page(Record, frozen=True):
    """Which part of an event's changes a result holds, where they are too many for one."""

    entries_before: int = 0
    """Journal lines of the event in the results before this one."""
    shares_before: int = 0
    is_last: bool = True
    """Only the last result makes the rows of the event itself: its history, its decision."""


WHOLE: Final = Page()


class FoldResult(Record, frozen=True):
    """What folding one event did; event-wise projections make their rows from it."""

    source: str
    position: int
    event_id: str
    kind: str
    resource_id: str
    status: str
    received_at: datetime
    recorded_at: datetime
    fact: Fact | None
    entries: Sequence[Entry] = ()
    shares: Sequence[tuple[str, str, Share]] = ()
    """(kind, resource id, change) of what streams count towards others."""
    opened: Sequence[tuple[str, str, Issue]] = ()
    """(kind, resource id, issue) of the issues that this event opened."""
    cleared: Sequence[tuple[str, str, str]] = ()
    """(kind, resource id, reason) of the issues that this event cleared."""
    decided: tuple[str, str, str] | None = None
    """(exception id, action, note) when this event is an operator's decision."""
    page: Page = WHOLE


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the books: its columns in order (name → PostgreSQL type), key and indexes.

    Every table starts with `source text`. `mode` says how rows meet those already there:
    `append` (never meets), `replace` (by key) or `sum` (adds every column outside the key).
    """

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    mode: str = "append"
    indexes: tuple[str, ...] = ()
    """Column lists, with optional INCLUDE columns and WHERE, each made an index."""

    hashed: bool = False
    """Whether rows are found by `hashtextextended(id, 0)`, in an index a third of the key's size;
    no list is ordered by the key, and what finds a row compares the key itself too."""

    filters: tuple[str, ...] = ()
    """Columns (text, bigint, int or boolean) that the view's list is filtered by, besides its key;
    each gets an index."""

    hidden: tuple[str, ...] = ()
    """Columns that no answer and no export of the view shows."""

    is_listed: bool = True
    """Whether the view is listed by the API and the CLI, and exported."""

    @property
    def order(self) -> tuple[str, ...]:
        """The columns in whose order the view's rows are listed, within a source."""
        return ("first_position",) if self.hashed else self.key[1:]


@dataclass(frozen=True, slots=True, eq=False)
class StreamProjection:
    """A view with one row per stream, found by presence in `projections/` as `PROJECTION`.

    `fold` adds a fact to a stream's state, `decide` an operator's decision; `view` says what the
    state means. `state` is a dataclass that JSON can carry. Streams are related by names: a return
    mentions its payout. Then a stream shows an outline of itself to those that mention it, and
    these count dated amounts towards it, whichever came first.
    """

    name: str
    kinds: frozenset[str]
    table: Table
    state: type[Any]
    fold: Callable[[Any, RecordedFact], Any]
    """(state or None, fact with its place) → new state; must not change its argument."""
    view: Callable[[Any, Related, SourceTerms], View]
    """(state, what is known of related streams, source's terms) → view."""
    decide: Callable[[Any, Decision], Any] | None = None
    names: Callable[[Any], tuple[str, ...]] | None = None
    """The names that other streams may mention this one by.

    Those of a state are among those of its facts, each folded alone. So are those that it mentions.
    """
    mentions: Callable[[Any], tuple[str, ...]] | None = None
    """The names that a state mentions."""
    outline: Callable[[Any, SourceTerms], Any] | None = None
    """What streams that mention this one see of it; compared by value. Needed with `names`."""


@dataclass(frozen=True, slots=True, eq=False)
class MoneyProjection:
    """Makes the projection of each declared kind of money, found as `PROJECTION`."""

    name: str
    table: Table
    rules: Mapping[str, frozenset[str]]
    """The posting rules that a kind may name → the statuses that each of them knows."""
    make: Callable[[MoneyKind], StreamProjection]


@dataclass(frozen=True, slots=True)
class Projection:
    """A view made event by event, found by presence in `projections/` as `PROJECTION`."""

    name: str
    table: Table
    rows: Callable[[FoldResult], Sequence[tuple[Any, ...]]]
