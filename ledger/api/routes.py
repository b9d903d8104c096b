"""The table of the query API: every address, what it takes and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Final

from ledger.api import endpoints
from ledger.api.endpoints import SnapshotRead
from ledger.api.exports import export_route
from ledger.api.routes_decisions import DECISIONS
from ledger.api.routes_reconciliation import RECONCILIATION
from ledger.api.routes_statements import STATEMENTS
from ledger.export.lists import ExportedList, exported_events, exported_list
from ledger.queries import customers, events, evidence, money, transactions, views
from ledger.queries.as_of import customers as as_of_customers
from ledger.queries.as_of import money as as_of_money
from ledger.queries.as_of import people as as_of_people
from ledger.queries.as_of import views as as_of_views
from ledger.queries.as_of.snapshot import with_as_of
from ledger.queries.params import Param, Route
from ledger.queries.schemas import evidence as evidence_schemas
from ledger.queries.schemas import log as log_schemas
from ledger.queries.schemas import money as money_schemas
from ledger.queries.schemas import views as view_schemas

SOURCE: Final = Param("source", "Only this source.")
CURRENCY: Final = Param(
    "currency",
    "Only this currency, or these, separated by commas; upper or lower case.",
    "currency",
    several=True,
)
ACCOUNT: Final = Param("account", "Only this account; `liabilities:*` is every one that starts so.")
CUSTOMER: Final = Param("customer_id", "Only what belongs to this customer.")
KIND: Final = Param("kind", "Only this kind.", "kind")
STATUS: Final = Param("status", "Only this status.", "status")
OF_KIND: Final = Param(
    "kind",
    "Which one, where several kinds share the id (409 otherwise).",
    "kind",
    table="transactions",
)
EFFECTIVE: Final = (
    Param("from", "Provider's time at or after this.", "time"),
    Param("to", "Provider's time before this.", "time"),
)
RECORDED: Final = (
    Param("from", "Recorded at or after this.", "time"),
    Param("to", "Recorded before this.", "time"),
)


SORT: Final = Param(
    "sort",
    "By the provider's time, `-` the latest first, over all sources; otherwise the newest of each "
    "source first.",
    "choice",
    tuple(transactions.SORTS),
)
CHANGED_AFTER: Final = Param(
    "changed_after",
    "Only what an event after this position changed, in the order of the last change: a feed to "
    "follow. A number for the one requested source, or `source:position[,…]`; other sources from "
    "their beginning.",
    "positions",
)
AFTER: Final = Param(
    "after",
    "Only lines of events after this position: a feed to follow. A number for the one requested "
    "source, or `source:position[,…]`; other sources from their beginning.",
    "positions",
)
AMOUNTS: Final = (
    Param("amount_min", "Only amounts of at least this.", "amount"),
    Param("amount_max", "Only amounts of at most this.", "amount"),
)
TOTALS: Final = Param(
    "totals",
    "`true` adds count and sum per currency of the whole list, with its filters.",
    "choice",
    ("true", "false"),
)


def _status_of(table: str, name: str = "status") -> Param:
    return Param(name, f"Only this {name.replace('_', ' ')}.", "status", table=table)


def _verification_of(table: str) -> Param:
    return _status_of(table, "verification_status")


FEED: Final = (
    "`changed_after` makes it a feed: follow `next` until it is null, then ask again with the "
    "highest `changed_position` seen, or the `position` of the last answer. A transaction that "
    "changes meanwhile comes again. When the header `Ledger-Books` changes, start again after 0: "
    "other books may read old events differently. Ids are opaque texts that may contain commas: a "
    "filter by id takes one value."
)

MONEY: Final = (
    Route(
        "/v1/wallets",
        "What each wallet holds",
        "money",
        money_schemas.Wallets,
        SnapshotRead(with_as_of(money.wallets, as_of_money.wallets)),
        (SOURCE, CURRENCY),
        is_dated=True,
    ),
    Route(
        "/v1/balances",
        "The balance of each account",
        "money",
        money_schemas.Balances,
        SnapshotRead(with_as_of(money.balances, as_of_money.balances)),
        (SOURCE, ACCOUNT, CURRENCY, Param("customer_id", "Only this customer's or member's.")),
        is_dated=True,
    ),
    Route(
        "/v1/entries",
        "Journal lines, in log order",
        "money",
        money_schemas.Entries,
        SnapshotRead(with_as_of(money.entries, as_of_money.entries)),
        (
            SOURCE,
            ACCOUNT,
            CURRENCY,
            Param("transaction", "Only of this transaction."),
            *EFFECTIVE,
            AFTER,
        ),
        is_dated=True,
    ),
    Route(
        "/v1/transactions",
        "Transactions, the newest first, by date, or as they change",
        "money",
        money_schemas.Transactions,
        SnapshotRead(with_as_of(transactions.transactions, as_of_money.transactions)),
        (
            SOURCE,
            Param(
                "kind",
                "Only this kind, or these, separated by commas.",
                "kind",
                table="transactions",
                several=True,
            ),
            Param(
                "status",
                "Only this status, or these, separated by commas; `unknown:…` comes last.",
                "status",
                table="transactions",
                several=True,
            ),
            CUSTOMER,
            CURRENCY,
            Param("idempotency_id", "Only with this idempotency ID."),
            Param(
                "flag",
                "Only with this flag, or one of these, separated by commas, e.g. "
                "`idempotency_id_reused`.",
                several=True,
            ),
            *EFFECTIVE,
            *AMOUNTS,
            SORT,
            CHANGED_AFTER,
            TOTALS,
        ),
        is_dated=True,
        about=FEED,
    ),
    Route(
        "/v1/transactions/{source}/{id}",
        "One transaction with its entries and events",
        "money",
        money_schemas.TransactionDetail,
        SnapshotRead(with_as_of(transactions.transaction, as_of_money.transaction)),
        (OF_KIND,),
        is_list=False,
        can_conflict=True,
        is_dated=True,
    ),
    Route(
        "/v1/transactions/{source}/{id}/attribute",
        "Decide whose a transaction is",
        "money",
        log_schemas.Resolution,
        endpoints.attribute_transaction,
        (OF_KIND,),
        is_list=False,
        method="POST",
        takes=log_schemas.Attribution,
        about="Moves it to the account of `customer_id`; null undoes that. The decision is an "
        "event of the log itself; the answer has its position. Of several the last applies, "
        "before the customer that the provider names and before the source's `owner_of`.",
    ),
)
PEOPLE: Final = (
    Route(
        "/v1/customers",
        "Customers and their verification",
        "people",
        money_schemas.Customers,
        SnapshotRead(with_as_of(customers.customers, as_of_customers.customers)),
        (SOURCE, _verification_of("customers")),
        is_dated=True,
    ),
    Route(
        "/v1/customers/{source}/{id}",
        "One customer with everything that names it",
        "people",
        money_schemas.CustomerDetail,
        SnapshotRead(with_as_of(customers.customer, as_of_customers.customer)),
        is_list=False,
        is_dated=True,
    ),
    Route(
        "/v1/bank_accounts",
        "Bank accounts and their verification",
        "people",
        money_schemas.BankAccounts,
        SnapshotRead(with_as_of(customers.bank_accounts, as_of_people.bank_accounts)),
        (SOURCE, CUSTOMER, _verification_of("bank_accounts")),
        is_dated=True,
    ),
    Route(
        "/v1/virtual_accounts",
        "Virtual accounts",
        "people",
        money_schemas.VirtualAccounts,
        SnapshotRead(with_as_of(customers.virtual_accounts, as_of_people.virtual_accounts)),
        (SOURCE, CUSTOMER, _status_of("virtual_accounts")),
        is_dated=True,
    ),
    Route(
        "/v1/limits",
        "Transaction limits",
        "people",
        money_schemas.Limits,
        SnapshotRead(with_as_of(customers.limits, as_of_people.limits)),
        (SOURCE, CUSTOMER),
        is_dated=True,
    ),
    Route(
        "/v1/limit_requests",
        "Requests to change limits",
        "people",
        money_schemas.LimitRequests,
        SnapshotRead(with_as_of(customers.limit_requests, as_of_people.limit_requests)),
        (SOURCE, CUSTOMER, _status_of("limit_requests")),
        is_dated=True,
    ),
    Route(
        "/v1/rfi",
        "Requests for information",
        "people",
        money_schemas.Rfis,
        SnapshotRead(with_as_of(customers.rfi, as_of_people.rfi)),
        (SOURCE, CUSTOMER, _status_of("rfi")),
        is_dated=True,
    ),
)
EVENT_BODY: Final = Route(
    "/v1/events/{source}/{position}/body",
    "An event's body, byte for byte as it arrived",
    "log",
    bytes,
    endpoints.event_body,
    is_list=False,
    content_types=("application/octet-stream",),
    headers=("Ledger-Event-Id",),
)
EVENTS: Final = Route(
    "/v1/events",
    "Events of the log, the newest first",
    "log",
    log_schemas.Events,
    SnapshotRead(events.events),
    (
        SOURCE,
        KIND,
        Param("resource_id", "Only of this resource."),
        STATUS,
        Param("verdict", "Only with this verdict.", "choice", ("accepted", "quarantined")),
        *RECORDED,
    ),
)
LOG: Final = (
    EVENTS,
    Route(
        "/v1/events/{source}/{position}",
        "One event's envelope and headers",
        "log",
        log_schemas.EventDetail,
        SnapshotRead(events.event),
        is_list=False,
    ),
    EVENT_BODY,
    Route(
        "/v1/deliveries",
        "Every request that reached the receiver, the newest first",
        "log",
        log_schemas.Deliveries,
        SnapshotRead(events.deliveries),
        (
            SOURCE,
            Param(
                "outcome",
                "Only with this outcome.",
                "choice",
                ("accepted", "quarantined", "duplicate", "refused", "failed"),
            ),
            Param(
                "event",
                "Only those of this event: its position, `source:position` or id; "
                "or only those to a URL with this event name.",
            ),
            *RECORDED,
        ),
        about="Requests to a URL that names no source stand under the source `unknown`.",
    ),
)
SIZE: Final = Param("size", "The checkpoint of this size; the latest when not given.", "position")
SEAL_NOTE: Final = Route(
    "/v1/seals/{source}/note",
    "A log's signed checkpoint as text, to keep elsewhere",
    "evidence",
    str,
    endpoints.seal_note,
    (SIZE,),
    is_list=False,
    content_types=("text/plain",),
    headers=("Ledger-Seal-Key",),
    about="The header `Ledger-Seal-Key` names the public key that signed.",
)
EVIDENCE: Final = (
    Route(
        "/v1/seals",
        "Signed checkpoints, the newest first",
        "evidence",
        evidence_schemas.Seals,
        SnapshotRead(evidence.list_seals),
        (SOURCE,),
    ),
    Route(
        "/v1/seals/{source}",
        "A log's signed checkpoint",
        "evidence",
        evidence_schemas.Seal,
        SnapshotRead(evidence.seal),
        (SIZE,),
        is_list=False,
    ),
    SEAL_NOTE,
    Route(
        "/v1/seals/{source}/consistency",
        "Proof that a later checkpoint continues an earlier one",
        "evidence",
        evidence_schemas.ConsistencyProof,
        SnapshotRead(evidence.consistency),
        (
            Param("from", "Size of the earlier checkpoint; must be given.", "position"),
            Param("to", "Size of the later one; the latest when not given.", "position"),
        ),
        is_list=False,
        can_conflict=True,
    ),
    Route(
        "/v1/events/{source}/{position}/proof",
        "Proof that a signed checkpoint covers an event",
        "evidence",
        evidence_schemas.InclusionProof,
        SnapshotRead(evidence.inclusion),
        (SIZE,),
        is_list=False,
        can_conflict=True,
    ),
)
RESOLVE: Final = Route(
    "/v1/exceptions/{id}/resolve",
    "Decide on an exception",
    "operations",
    log_schemas.Resolution,
    endpoints.resolve_exception,
    is_list=False,
    method="POST",
    takes=log_schemas.Decision,
    about="The decision is an event of the log itself; the answer has its position. Findings "
    "are acknowledged only.",
)
STATUS_ROUTE: Final = Route(
    "/v1/status",
    "How far each log and its books are",
    "operations",
    log_schemas.Status,
    endpoints.show_status,
    is_list=False,
)
EXCEPTIONS: Final = Route(
    "/v1/exceptions",
    "What an operator should look at, the newest first",
    "operations",
    log_schemas.Exceptions,
    endpoints.list_exceptions,
    (
        SOURCE,
        Param("reason", "Only with this reason."),
        KIND,
        Param("state", "Only in this state.", "choice", ("open", "cleared", "resolved")),
    ),
    about="By source: what its events opened, then findings, which no event opens: what looks "
    "incomplete by now (stuck pending, returned, drifted from its limit, money without a verified "
    "customer). A finding is open as long as it is true, or resolved once it "
    "was acknowledged; `/v1/reconciliation/findings` lists them with amounts, as of any moment.",
)
OPERATIONS: Final = (
    EXCEPTIONS,
    RESOLVE,
    STATUS_ROUTE,
)
VIEWS: Final = Route(
    "/v1/views",
    "Every view of the books, with its columns and filters",
    "views",
    view_schemas.Views,
    SnapshotRead(views.views),
    is_list=False,
    about="A view is a table of the books. `/v1/views/<table>` lists its rows as they are.",
)


def view_route(table: views.TableList) -> Route:
    """Return the address of one view, made from its declaration."""
    name = table.table.name
    historical = as_of_views.historical_read(table)
    limits = as_of_views.limits_of_as_of(table)
    return Route(
        f"/v1/views/{name}",
        f"Rows of the view {name}",
        "views",
        table.answer,
        SnapshotRead(with_as_of(table.read, historical) if historical else table.read),
        table.params,
        is_dated=historical is not None,
        about=f"Columns and filters are those that the projection declares. {limits}".strip(),
    )


EXPORTED: Final = ("balances", "customers", "entries", "transactions")
"""Lists that are exported as `/v1/<name>` answers them; every other table as its view does."""


@cache
def exported_lists() -> Mapping[str, ExportedList]:
    """Return everything that can be exported as a table, by name."""
    lists = {route.path.removeprefix("/v1/"): route for route in (*MONEY, *PEOPLE)}
    views_by_name = {name: view_route(table) for name, table in views.table_lists().items()}
    exported = {
        **{name: _exported(name, route, "rows") for name, route in views_by_name.items()},
        **{name: _exported(name, lists[name], name) for name in EXPORTED},
        "events": exported_events("events", replace(EVENTS, is_dated=True)),
    }
    return dict(sorted(exported.items()))


def _exported(name: str, route: Route, field: str) -> ExportedList:
    assert isinstance(route.endpoint, SnapshotRead), f"{route.path} is no list"
    return exported_list(name, route, route.endpoint.read, field)


@cache
def all_routes() -> tuple[Route, ...]:
    """Return every address of the query API. Raises RegistryError for a wrong declaration."""
    tables = views.table_lists().values()
    lists = (*MONEY, *PEOPLE, VIEWS, *map(view_route, tables))
    exports = map(export_route, exported_lists().values())
    reconciliation = (*STATEMENTS, *RECONCILIATION, *DECISIONS)
    return (*lists, *exports, *reconciliation, *LOG, *EVIDENCE, *OPERATIONS)
