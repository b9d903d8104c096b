"""Reading what is not money: customers, their accounts, limits and requests for information."""

from __future__ import annotations

from typing import Any, Final

from ledger.answers import (
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
    Step,
    VirtualAccount,
    VirtualAccounts,
    build,
)
from ledger.errors import NotFound
from ledger.questions import Question
from ledger.reads import Listing, Row, Snapshot
from ledger.reads_money import histories

# Every list takes: $1 source, $2 rows, $3 $4 the key, $5 customer, $6 status.
SELECT_CUSTOMERS: Final = """
SELECT source, kind, id, verification_status, updated_at, rejection, details,
       details ->> 'registration_type' AS registration_type, details ->> 'country' AS country
  FROM customers
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND ($5::text IS NULL OR id = $5) AND ($6::text IS NULL OR verification_status = $6)
 ORDER BY kind, id LIMIT $2
"""
SELECT_BANK_ACCOUNTS: Final = """
SELECT source, kind, id, customer_id, verification_status, disabled, updated_at, details
  FROM bank_accounts
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND ($5::text IS NULL OR customer_id = $5) AND ($6::text IS NULL OR verification_status = $6)
 ORDER BY kind, id LIMIT $2
"""
SELECT_VIRTUAL_ACCOUNTS: Final = """
SELECT source, kind, id, customer_id, status, currency, reference_id, updated_at, flags, details
  FROM virtual_accounts
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND ($5::text IS NULL OR customer_id = $5) AND ($6::text IS NULL OR status = $6)
 ORDER BY kind, id LIMIT $2
"""
SELECT_LIMITS: Final = """
SELECT source, kind, id, customer_id, limits FROM limits
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND ($5::text IS NULL OR customer_id = $5) AND $6::text IS NULL
 ORDER BY kind, id LIMIT $2
"""
SELECT_LIMIT_REQUESTS: Final = """
SELECT source, kind, id, customer_id, status, updated_at, conflict FROM limit_requests
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND ($5::text IS NULL OR customer_id = $5) AND ($6::text IS NULL OR status = $6)
 ORDER BY kind, id LIMIT $2
"""
SELECT_RFI: Final = """
SELECT source, kind, id, customer_id, status, updated_at, expires_at, details FROM rfi
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND ($5::text IS NULL OR customer_id = $5) AND ($6::text IS NULL OR status = $6)
 ORDER BY kind, id LIMIT $2
"""
# A virtual account need not name its customer: the payments through it do.
SELECT_VIRTUAL_ACCOUNTS_OF: Final = """
WITH paid AS MATERIALIZED (
       SELECT DISTINCT details ->> 'virtual_account_id' AS account, details ->> 'account_no' AS no
         FROM transactions
        WHERE source = $1 AND customer_id = $2
          AND hashtextextended(customer_id, 0) = hashtextextended($2, 0))
SELECT source, kind, id, customer_id, status, currency, reference_id, updated_at, flags, details
  FROM virtual_accounts
 WHERE source = $1 AND (
       customer_id = $2 OR id IN (SELECT account FROM paid)
       OR details ->> 'account_no' IN (SELECT no FROM paid))
 ORDER BY kind, id
"""
HAS_TRANSACTIONS: Final = """
SELECT EXISTS (SELECT FROM transactions
                WHERE source = $1 AND customer_id = $2
                  AND hashtextextended(customer_id, 0) = hashtextextended($2, 0)) AS it
"""

_BY_ID: Final = {"kind": str, "id": str}
CUSTOMERS: Final = Listing(SELECT_CUSTOMERS, _BY_ID)
BANK_ACCOUNTS: Final = Listing(SELECT_BANK_ACCOUNTS, _BY_ID)
VIRTUAL_ACCOUNTS: Final = Listing(SELECT_VIRTUAL_ACCOUNTS, _BY_ID)
LIMITS: Final = Listing(SELECT_LIMITS, _BY_ID)
LIMIT_REQUESTS: Final = Listing(SELECT_LIMIT_REQUESTS, _BY_ID)
RFI: Final = Listing(SELECT_RFI, _BY_ID)

_EVERY_ROW: Final = (None, None, None)
"""$2 to $4 of a list that is read whole: no limit, no key."""


async def customers(snapshot: Snapshot, question: Question) -> Customers:
    """Read customers and their verification."""
    status = question.text("verification_status")
    rows, following = await CUSTOMERS.page(snapshot, question, None, status)
    found = [build(Customer, row, **await _all_of(snapshot, row)) for row in rows]
    return Customers(customers=found, next=following, position=snapshot.position)


async def bank_accounts(snapshot: Snapshot, question: Question) -> BankAccounts:
    """Read bank accounts and their verification."""
    wanted = question.text("customer_id"), question.text("verification_status")
    rows, following = await BANK_ACCOUNTS.page(snapshot, question, *wanted)
    found = [build(BankAccount, row) for row in rows]
    return BankAccounts(bank_accounts=found, next=following, position=snapshot.position)


async def virtual_accounts(snapshot: Snapshot, question: Question) -> VirtualAccounts:
    """Read virtual accounts."""
    wanted = question.text("customer_id"), question.text("status")
    rows, following = await VIRTUAL_ACCOUNTS.page(snapshot, question, *wanted)
    found = [build(VirtualAccount, row) for row in rows]
    return VirtualAccounts(virtual_accounts=found, next=following, position=snapshot.position)


async def limits(snapshot: Snapshot, question: Question) -> Limits:
    """Read transaction limits."""
    rows, following = await LIMITS.page(snapshot, question, question.text("customer_id"), None)
    found = [build(Limit, row) for row in rows]
    return Limits(limits=found, next=following, position=snapshot.position)


async def limit_requests(snapshot: Snapshot, question: Question) -> LimitRequests:
    """Read requests to change limits."""
    wanted = question.text("customer_id"), question.text("status")
    rows, following = await LIMIT_REQUESTS.page(snapshot, question, *wanted)
    found = [build(LimitRequest, row) for row in rows]
    return LimitRequests(limit_requests=found, next=following, position=snapshot.position)


async def rfi(snapshot: Snapshot, question: Question) -> Rfis:
    """Read requests for information."""
    wanted = question.text("customer_id"), question.text("status")
    rows, following = await RFI.page(snapshot, question, *wanted)
    return Rfis(rfi=[build(Rfi, row) for row in rows], next=following, position=snapshot.position)


async def customer(snapshot: Snapshot, question: Question) -> CustomerDetail:
    """Read one customer with everything that names it.

    A customer that only other callbacks name has no verification status. Raises NotFound when
    none does.
    """
    source, id_ = snapshot.check(question.need("source")), question.need("id")
    row = await snapshot.row(SELECT_CUSTOMERS, source, *_EVERY_ROW, id_, None)
    told = await _told(snapshot, source, id_)
    if row is None and not any(told.values()):
        has_any = await snapshot.row(HAS_TRANSACTIONS, source, id_)
        if has_any is None or not has_any["it"]:
            raise NotFound(f"source {source} knows no customer {id_!r}")
    if row is None:
        row = dict.fromkeys(_KNOWN) | {"source": source, "id": id_}
        return build(CustomerDetail, row, **told, history=[], position=snapshot.position)
    history = await _history(snapshot, row)
    return build(CustomerDetail, row, **told, history=history, position=snapshot.position)


_KNOWN: Final = (
    "verification_status", "updated_at", "rejection", "registration_type", "country", "details",
)  # fmt: skip
"""What only a customer's own callbacks tell."""


async def _all_of(snapshot: Snapshot, row: Row) -> dict[str, Any]:
    told = await _told(snapshot, row["source"], row["id"])
    return {**told, "history": await _history(snapshot, row)}


async def _history(snapshot: Snapshot, row: Row) -> list[Step]:
    stream = (row["kind"], row["id"])
    return (await histories(snapshot, row["source"], [stream])).get(stream, [])


async def _told(snapshot: Snapshot, source: str, id_: str) -> dict[str, list[Any]]:
    """Read everything that names a customer."""
    of = (source, *_EVERY_ROW, id_, None)
    limits = await snapshot.rows(SELECT_LIMITS, *of)
    requests = await snapshot.rows(SELECT_LIMIT_REQUESTS, *of)
    banks = await snapshot.rows(SELECT_BANK_ACCOUNTS, *of)
    accounts = await snapshot.rows(SELECT_VIRTUAL_ACCOUNTS_OF, source, id_)
    return {
        "limits": [build(LimitSet, row) for row in limits],
        "limit_requests": [build(LimitRequest, row) for row in requests],
        "rfi": [build(Rfi, row) for row in await snapshot.rows(SELECT_RFI, *of)],
        "bank_accounts": [build(BankAccount, row) for row in banks],
        "virtual_accounts": [build(VirtualAccount, row) for row in accounts],
    }
