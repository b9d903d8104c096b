"""Reading what is not money: customers, their accounts, limits and requests for information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ledger import registry
from ledger.errors import NotFound
from ledger.eventlog.sources import load_terms
from ledger.model import ATTRIBUTE
from ledger.queries.money import balances_of
from ledger.queries.params import QueryParams
from ledger.queries.schemas.money import (
    Balance,
    BankAccount,
    BankAccounts,
    Customer,
    CustomerDetail,
    Customers,
    Limit,
    LimitRequest,
    LimitRequests,
    Limits,
    LimitSet,
    Rfi,
    Rfis,
    Schema,
    VirtualAccount,
    VirtualAccounts,
    from_row,
)
from ledger.queries.snapshot import Listing, Snapshot, group_rows
from ledger.queries.transactions import histories

# Every list takes: $1 source, $2 rows, $3 $4 the key, $5 customer, $6 status.
SELECT_CUSTOMERS: Final = """
SELECT source, kind, id, verification_status, updated_at, rejection, details,
       details ->> 'registration_type' AS registration_type, details ->> 'country' AS country
  FROM customers
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND ($5::text IS NULL OR kind = 'customer' AND id = $5)
   AND ($6::text IS NULL OR verification_status = $6
        AND hashtextextended(verification_status, 0) = hashtextextended($6, 0))
 ORDER BY kind, id LIMIT $2
"""


def paying(after: str) -> str:
    """Write the recursion `paying`: customers that transactions name, with ids after a term.

    Each step finds the next one in the index, however many transactions name it.
    """
    return f"""
WITH RECURSIVE paying AS (
       (SELECT customer_id AS id FROM transactions
         WHERE source = $1 AND customer_id > {after} ORDER BY customer_id LIMIT 1)
        UNION ALL
       SELECT n.id FROM paying AS p
        CROSS JOIN LATERAL (
              SELECT customer_id AS id FROM transactions
               WHERE source = $1 AND customer_id > p.id ORDER BY customer_id LIMIT 1) AS n)
"""  # noqa: S608 - made of the callers' constants


# Those with callbacks of their own and those that only money names, in one order.
SELECT_KNOWN: Final = f"""
{paying("coalesce($4::text, '')")}
SELECT $1 AS source, 'customer' AS kind, k.id, c.verification_status, c.updated_at, c.rejection,
       c.details, c.details ->> 'registration_type' AS registration_type,
       c.details ->> 'country' AS country
  FROM ((SELECT id FROM customers
          WHERE source = $1 AND kind = 'customer'
            AND ($3::text IS NULL OR (kind, id) > ($3, $4)) ORDER BY kind, id LIMIT $2)
         UNION
        (SELECT id FROM paying LIMIT $2)) AS k
  LEFT JOIN LATERAL (
       SELECT * FROM customers AS o
        WHERE o.source = $1 AND o.kind = 'customer' AND o.id = k.id OFFSET 0) AS c ON true
 ORDER BY k.id LIMIT $2
"""  # noqa: S608 - made of the constants above
SELECT_BANK_ACCOUNTS: Final = """
SELECT source, kind, id, customer_id, verification_status, disabled, updated_at, details
  FROM bank_accounts
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND ($5::text IS NULL OR customer_id = $5)
   AND ($6::text IS NULL OR verification_status = $6
        AND hashtextextended(verification_status, 0) = hashtextextended($6, 0))
 ORDER BY kind, id LIMIT $2
"""
SELECT_VIRTUAL_ACCOUNTS: Final = """
SELECT source, kind, id, customer_id, status, currency, reference_id, updated_at, flags, details
  FROM virtual_accounts
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND ($5::text IS NULL OR customer_id = $5)
   AND ($6::text IS NULL
        OR status = $6 AND hashtextextended(status, 0) = hashtextextended($6, 0))
 ORDER BY kind, id LIMIT $2
"""
SELECT_LIMITS: Final = """
SELECT source, kind, id, provider_id, customer_id, limits FROM limits
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND ($5::text IS NULL
        OR customer_id = $5 AND hashtextextended(customer_id, 0) = hashtextextended($5, 0))
   AND $6::text IS NULL
 ORDER BY kind, id LIMIT $2
"""
SELECT_LIMIT_REQUESTS: Final = """
SELECT source, kind, id, provider_id, customer_id, status, updated_at, conflict
  FROM limit_requests
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND ($5::text IS NULL OR customer_id = $5)
   AND ($6::text IS NULL
        OR status = $6 AND hashtextextended(status, 0) = hashtextextended($6, 0))
 ORDER BY kind, id LIMIT $2
"""
SELECT_RFI: Final = """
SELECT source, kind, id, customer_id, status, updated_at, expires_at, details FROM rfi
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND ($5::text IS NULL OR customer_id = $5)
   AND ($6::text IS NULL
        OR status = $6 AND hashtextextended(status, 0) = hashtextextended($6, 0))
 ORDER BY kind, id LIMIT $2
"""
# What belongs to many customers, $2, of each the first $3 rows; `of` is the customer.
SELECT_LIMITS_OF: Final = """
SELECT u.customer AS of, t.* FROM unnest($2::text[]) AS u(customer)
 CROSS JOIN LATERAL (SELECT source, kind, id, provider_id, customer_id, limits FROM limits
                      WHERE source = $1 AND customer_id = u.customer
                        AND hashtextextended(customer_id, 0) = hashtextextended(u.customer, 0)
                      ORDER BY kind, id LIMIT $3) AS t
"""
SELECT_LIMIT_REQUESTS_OF: Final = """
SELECT u.customer AS of, t.* FROM unnest($2::text[]) AS u(customer)
 CROSS JOIN LATERAL (SELECT source, kind, id, provider_id, customer_id, status, updated_at,
                            conflict
                       FROM limit_requests WHERE source = $1 AND customer_id = u.customer
                      ORDER BY kind, id LIMIT $3) AS t
"""
SELECT_RFI_OF: Final = """
SELECT u.customer AS of, t.* FROM unnest($2::text[]) AS u(customer)
 CROSS JOIN LATERAL (SELECT source, kind, id, customer_id, status, updated_at, expires_at, details
                       FROM rfi WHERE source = $1 AND customer_id = u.customer
                      ORDER BY kind, id LIMIT $3) AS t
"""
SELECT_BANK_ACCOUNTS_OF: Final = """
SELECT u.customer AS of, t.* FROM unnest($2::text[]) AS u(customer)
 CROSS JOIN LATERAL (SELECT source, kind, id, customer_id, verification_status, disabled,
                            updated_at, details
                       FROM bank_accounts WHERE source = $1 AND customer_id = u.customer
                      ORDER BY kind, id LIMIT $3) AS t
"""


# A virtual account need not name its customer: the payments through it do. The index has them by
# hashes of customer and account, so that each step of the recursion finds the next account of a
# busy customer. `source || ''` keeps the planner from walking an index that begins with the source.
def paid_through(customer: str) -> str:
    """Write the recursion `paid`: the accounts that payments of a customer, an SQL term, name."""
    return f"""
WITH RECURSIVE paid AS (
       (SELECT customer_id, hashtextextended(coalesce(details ->> 'virtual_account_id', '') || ' '
                   || coalesce(details ->> 'account_no', ''), 0) AS place,
               details ->> 'virtual_account_id' AS account, details ->> 'account_no' AS no
          FROM transactions
         WHERE source || '' = $1 AND customer_id = {customer}
           AND hashtextextended(customer_id, 0) = hashtextextended({customer}, 0)
           AND coalesce(details ->> 'virtual_account_id', details ->> 'account_no') IS NOT NULL
         ORDER BY hashtextextended(customer_id, 0), 2 LIMIT 1)
        UNION ALL
       SELECT n.* FROM paid AS p
        CROSS JOIN LATERAL (
              SELECT t.customer_id, hashtextextended(
                         coalesce(t.details ->> 'virtual_account_id', '') || ' '
                         || coalesce(t.details ->> 'account_no', ''), 0) AS place,
                     t.details ->> 'virtual_account_id', t.details ->> 'account_no'
                FROM transactions AS t
               WHERE t.source || '' = $1 AND t.customer_id = p.customer_id
                 AND hashtextextended(t.customer_id, 0) = hashtextextended(p.customer_id, 0)
                 AND coalesce(t.details ->> 'virtual_account_id', t.details ->> 'account_no')
                     IS NOT NULL
                 AND hashtextextended(coalesce(t.details ->> 'virtual_account_id', '') || ' '
                         || coalesce(t.details ->> 'account_no', ''), 0) > p.place
               ORDER BY hashtextextended(t.customer_id, 0), 2 LIMIT 1) AS n)
"""  # noqa: S608 - made of the callers' constants


SELECT_VIRTUAL_ACCOUNTS_OF: Final = f"""
SELECT u.customer AS of, t.* FROM unnest($2::text[]) AS u(customer)
 CROSS JOIN LATERAL (
       {paid_through("u.customer")}
       SELECT DISTINCT ON (v.kind, v.id) v.source, v.kind, v.id, v.customer_id, v.status,
              v.currency, v.reference_id, v.updated_at, v.flags, v.details::text AS details
         FROM (
              (SELECT * FROM virtual_accounts
                WHERE source = $1 AND customer_id = u.customer ORDER BY kind, id LIMIT $3)
               UNION ALL
              (SELECT a.* FROM (SELECT account FROM paid LIMIT $3) AS p
                 JOIN virtual_accounts AS a
                   ON a.source = $1 AND a.kind = 'virtual_account' AND a.id = p.account)
               UNION ALL
              (SELECT a.* FROM (SELECT no FROM paid LIMIT $3) AS p
                CROSS JOIN LATERAL (
                      SELECT * FROM virtual_accounts AS b
                       WHERE b.source = $1 AND b.details ->> 'account_no' = p.no
                         AND hashtextextended(b.details ->> 'account_no', 0)
                             = hashtextextended(p.no, 0) LIMIT $3) AS a)) AS v
        ORDER BY v.kind, v.id LIMIT $3) AS t
"""  # noqa: S608 - made of the constants above
HAS_TRANSACTIONS: Final = """
SELECT EXISTS (SELECT FROM transactions
                WHERE source = $1 AND customer_id = $2
                  AND hashtextextended(customer_id, 0) = hashtextextended($2, 0)) AS it
"""
# $3 kinds, $4 position, $5 the action. A decision on a payout that was not known yet does nothing.
HAS_ATTRIBUTED: Final = """
SELECT EXISTS (
       SELECT FROM decisions AS d
         JOIN transactions AS t ON t.source = d.source AND t.kind = d.kind AND t.id = d.id
          AND hashtextextended(t.id, 0) = hashtextextended(d.id, 0)
          AND t.first_position < d.position
        WHERE d.source = $1 AND d.customer_id = $2
          AND hashtextextended(d.customer_id, 0) = hashtextextended($2, 0)
          AND d.kind = ANY($3) AND d.position <= $4 AND d.action = $5
          AND NOT EXISTS (
              SELECT FROM decisions AS later
               WHERE later.source = d.source AND later.kind = d.kind AND later.id = d.id
                 AND hashtextextended(later.id, 0) = hashtextextended(d.id, 0)
                 AND later.position > d.position AND later.position <= $4
                 AND later.action = $5)) AS it
"""

_BY_ID: Final = {"kind": str, "id": str}
KNOWN: Final = Listing(SELECT_KNOWN, _BY_ID)
CUSTOMERS: Final = Listing(SELECT_CUSTOMERS, _BY_ID)
BANK_ACCOUNTS: Final = Listing(SELECT_BANK_ACCOUNTS, _BY_ID)
VIRTUAL_ACCOUNTS: Final = Listing(SELECT_VIRTUAL_ACCOUNTS, _BY_ID)
LIMITS: Final = Listing(SELECT_LIMITS, _BY_ID)
LIMIT_REQUESTS: Final = Listing(SELECT_LIMIT_REQUESTS, _BY_ID)
RFI: Final = Listing(SELECT_RFI, _BY_ID)

_FIRST: Final = (1, None, None)
"""$2 to $4 of a list of which the first row is read."""

LISTED_MAX: Final = 100
"""Entries of each list that a customer's answer holds."""


async def customers(snapshot: Snapshot, params: QueryParams) -> Customers:
    """Read customers and their verification; without a filter, also those only money names."""
    status = params.text("verification_status")
    if status is None:
        rows, following = await KNOWN.page(snapshot, params)
    else:
        rows, following = await CUSTOMERS.page(snapshot, params, None, status)
    listed: list[Customer] = []
    for (source,), group in group_rows(rows, "source").items():
        belongings = await _belongings(snapshot, source, [row["id"] for row in group])
        steps = await histories(snapshot, source, [(row["kind"], row["id"]) for row in group])
        listed += [
            from_row(
                Customer,
                row,
                **belongings[row["id"]],
                history=steps.get((row["kind"], row["id"]), []),
            )
            for row in group
        ]
    return Customers(customers=listed, next=following, position=snapshot.position)


async def bank_accounts(snapshot: Snapshot, params: QueryParams) -> BankAccounts:
    """Read bank accounts and their verification."""
    filters = params.text("customer_id"), params.text("verification_status")
    rows, following = await BANK_ACCOUNTS.page(snapshot, params, *filters)
    bank_accounts = [from_row(BankAccount, row) for row in rows]
    return BankAccounts(bank_accounts=bank_accounts, next=following, position=snapshot.position)


async def virtual_accounts(snapshot: Snapshot, params: QueryParams) -> VirtualAccounts:
    """Read virtual accounts."""
    filters = params.text("customer_id"), params.text("status")
    rows, following = await VIRTUAL_ACCOUNTS.page(snapshot, params, *filters)
    virtual_accounts = [from_row(VirtualAccount, row) for row in rows]
    return VirtualAccounts(
        virtual_accounts=virtual_accounts, next=following, position=snapshot.position
    )


async def limits(snapshot: Snapshot, params: QueryParams) -> Limits:
    """Read transaction limits."""
    rows, following = await LIMITS.page(snapshot, params, params.text("customer_id"), None)
    limits = [from_row(Limit, row) for row in rows]
    return Limits(limits=limits, next=following, position=snapshot.position)


async def limit_requests(snapshot: Snapshot, params: QueryParams) -> LimitRequests:
    """Read requests to change limits."""
    filters = params.text("customer_id"), params.text("status")
    rows, following = await LIMIT_REQUESTS.page(snapshot, params, *filters)
    limit_requests = [from_row(LimitRequest, row) for row in rows]
    return LimitRequests(limit_requests=limit_requests, next=following, position=snapshot.position)


async def rfi(snapshot: Snapshot, params: QueryParams) -> Rfis:
    """Read requests for information."""
    filters = params.text("customer_id"), params.text("status")
    rows, following = await RFI.page(snapshot, params, *filters)
    return Rfis(
        rfi=[from_row(Rfi, row) for row in rows], next=following, position=snapshot.position
    )


async def customer(snapshot: Snapshot, params: QueryParams) -> CustomerDetail:
    """Read one customer with everything that names it, and its balances.

    A customer that only other callbacks name has no verification status. Raises NotFound when
    none does.
    """
    source, id_ = snapshot.check(params.need("source")), params.need("id")
    row = await snapshot.row(SELECT_CUSTOMERS, source, *_FIRST, id_, None)
    belongings = (await _belongings(snapshot, source, [id_]))[id_]
    if row is None and not any(belongings.values()):
        has_any = await snapshot.row(HAS_TRANSACTIONS, source, id_)
        if has_any is None or not has_any["it"]:
            raise NotFound(f"source {source} knows no customer {id_!r}")
    stream = (CUSTOMER, id_)
    history = (await histories(snapshot, source, [stream])).get(stream, [])
    belongings |= cut_balances(
        await balances_of(snapshot, source, id_, LISTED_MAX + 1), belongings["cut"]
    )
    return from_row(
        CustomerDetail,
        row or unverified(source, id_),
        **belongings,
        history=history,
        notes=await notes(snapshot, source, id_),
        position=snapshot.position,
    )


CUSTOMER: Final = "customer"


def cut_balances(balances: list[Balance], cut: list[str]) -> dict[str, Any]:
    """Return the fields of an answer that hold a customer's balances, cut to LISTED_MAX."""
    more = ["balances"] if len(balances) > LISTED_MAX else []
    return {"balances": balances[:LISTED_MAX], "cut": [*cut, *more]}


def unverified(source: str, id_: str) -> dict[str, Any]:
    """Return the row of a customer without callbacks of its own."""
    return dict.fromkeys(_KNOWN) | {"source": source, "kind": CUSTOMER, "id": id_}


async def notes(snapshot: Snapshot, source: str, id_: str) -> list[str]:
    """Return what a customer's figures leave out, by its source's terms and the decisions then."""
    terms = next((t for t in await load_terms(snapshot.connection) if t.source == source), None)
    if terms is None or terms.owner_of is not None:
        return []
    handled = {handler.kind for handler in registry.load().handlers.get(terms.provider, ())}
    kinds = sorted(handled & OWNED_BY_RULE)
    if not kinds:
        return []
    position = snapshot.places[source].books
    decided = await snapshot.row(HAS_ATTRIBUTED, source, id_, kinds, position, ATTRIBUTE)
    return [] if decided and decided["it"] else [UNATTRIBUTED.format(source=source)]


OWNED_BY_RULE: Final = frozenset({"payout", "fx_payout"})
"""Kinds whose callbacks name no customer."""

UNATTRIBUTED: Final = (
    "payouts of {source} name no customer: those that are not attributed are the merchant's, and "
    "no customer's balance has them: declare owner_of for {source} in the settings, or attribute "
    "each payout with POST /v1/transactions/{source}/<id>/attribute (ledger transactions attribute)"
)
_KNOWN: Final = (
    "verification_status", "updated_at", "rejection", "registration_type", "country", "details",
)  # fmt: skip
"""What only a customer's own callbacks report."""


OWN: Final[Mapping[str, tuple[str, type[Schema]]]] = {
    "limits": (SELECT_LIMITS_OF, LimitSet),
    "limit_requests": (SELECT_LIMIT_REQUESTS_OF, LimitRequest),
    "rfi": (SELECT_RFI_OF, Rfi),
    "bank_accounts": (SELECT_BANK_ACCOUNTS_OF, BankAccount),
    "virtual_accounts": (SELECT_VIRTUAL_ACCOUNTS_OF, VirtualAccount),
}
"""List of a customer's answer → the statement that reads it for many, and what its rows are."""


async def _belongings(
    snapshot: Snapshot, source: str, customers: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Read the first entries of every list of some customers."""
    belongings: dict[str, dict[str, Any]] = {name: {"cut": []} for name in customers}
    for what, (statement, kind) in OWN.items():
        rows = await snapshot.rows(statement, source, list(customers), LISTED_MAX + 1)
        by_customer = group_rows(rows, "of")
        for name, lists in belongings.items():
            own = by_customer.get((name,), [])
            lists[what] = [from_row(kind, row) for row in own[:LISTED_MAX]]
            if len(own) > LISTED_MAX:
                lists["cut"].append(what)
    return belongings
