"""As-of for people: customers, and what named one of them, as they were.

What belonged to a customer is looked for among all that ever named it: an account or a request
shows the customer that was named last. Limits and limit requests have their customer in their key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ledger.books.findings import OWNED
from ledger.errors import NotFound
from ledger.model import REVISED
from ledger.queries.as_of.money import balances_of
from ledger.queries.as_of.snapshot import STREAMS_AT_ONCE, histories_then, page, rows_then
from ledger.queries.customers import (
    LISTED_MAX,
    cut_balances,
    notes,
    paid_through,
    paying,
    unverified,
)
from ledger.queries.params import QueryParams
from ledger.queries.schemas.money import (
    BankAccount,
    Customer,
    CustomerDetail,
    Customers,
    LimitRequest,
    LimitSet,
    Rfi,
    Schema,
    VirtualAccount,
    from_row,
)
from ledger.queries.snapshot import DatabaseRow, Snapshot

SELECT_CUSTOMERS_THEN: Final = """
SELECT kind, id FROM customers
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text)) AND first_position <= $5
   AND ($6::text IS NULL OR kind = 'customer' AND id = $6)
 ORDER BY kind, id LIMIT $2
"""
# Who may be listed: customers with callbacks of their own, those that money names now, those whom
# an operator ever named, and those who ever had money. What they were then is looked at one by one.
SELECT_KNOWN_THEN: Final = f"""
{paying("coalesce($4::text, '')")},
     owning AS (
       (SELECT account FROM balances
         WHERE source = $1 AND account > '{OWNED}' || coalesce($4, '') ORDER BY account LIMIT 1)
        UNION ALL
       SELECT n.account FROM owning AS o
        CROSS JOIN LATERAL (
              SELECT account FROM balances
               WHERE source = $1 AND account > o.account ORDER BY account LIMIT 1) AS n
        WHERE o.account LIKE '{OWNED}%')
SELECT 'customer' AS kind, id
  FROM ((SELECT id FROM customers
          WHERE source = $1 AND kind = 'customer' AND first_position <= $5
            AND ($3::text IS NULL OR (kind, id) > ($3, $4)) ORDER BY kind, id LIMIT $2)
         UNION
        (SELECT id FROM paying LIMIT $2)
         UNION
        (SELECT substr(account, length('{OWNED}') + 1) FROM owning
          WHERE account LIKE '{OWNED}%' LIMIT $2)
         UNION
        (SELECT DISTINCT customer_id FROM decisions
          WHERE source = $1 AND customer_id > coalesce($4, '') AND position <= $5
          ORDER BY customer_id LIMIT $2)) AS k
 ORDER BY id LIMIT $2
"""  # noqa: S608 - made of the constants above
# $3 customer, $4 rows: transactions that name it now.
SELECT_PAYING_THEN: Final = """
SELECT kind, id FROM transactions
 WHERE source = $1 AND first_position <= $2 AND customer_id = $3
   AND hashtextextended(customer_id, 0) = hashtextextended($3, 0)
 ORDER BY first_position LIMIT $4
"""
# $1 source, $2 position, $3 customer, $4 rows
SELECT_LIMITS_THEN: Final = """
SELECT kind, id FROM limits
 WHERE source = $1 AND first_position <= $2 AND customer_id = $3
   AND hashtextextended(customer_id, 0) = hashtextextended($3, 0) ORDER BY kind, id LIMIT $4
"""
SELECT_LIMIT_REQUESTS_THEN: Final = """
SELECT kind, id FROM limit_requests
 WHERE source = $1 AND first_position <= $2 AND customer_id = $3 ORDER BY kind, id LIMIT $4
"""
SELECT_RFI_THEN: Final = """
SELECT DISTINCT kind, id FROM named_customers
 WHERE source = $1 AND kind = 'rfi' AND position <= $2 AND customer_id = $3
   AND hashtextextended(customer_id, 0) = hashtextextended($3, 0) ORDER BY kind, id LIMIT $4
"""
SELECT_BANK_ACCOUNTS_THEN: Final = """
SELECT DISTINCT kind, id FROM named_customers
 WHERE source = $1 AND kind = 'bank_account' AND position <= $2 AND customer_id = $3
   AND hashtextextended(customer_id, 0) = hashtextextended($3, 0) ORDER BY kind, id LIMIT $4
"""
# A virtual account need not name its customer: the payments through it do. Payments that once
# contradicted themselves may have named another one.
SELECT_VIRTUAL_ACCOUNTS_THEN: Final = f"""
WITH named AS MATERIALIZED (
       SELECT account, no FROM (
              {paid_through("$3")} SELECT account, no FROM paid LIMIT $4) AS p
        UNION
       SELECT details ->> 'virtual_account_id', details ->> 'account_no' FROM transactions
        WHERE source = $1 AND first_position <= $2
          AND (conflict IS NOT NULL OR flags &&
               '{{{REVISED}}}'))
SELECT DISTINCT kind, id FROM (
       (SELECT DISTINCT kind, id FROM named_customers
         WHERE source = $1 AND kind = 'virtual_account' AND position <= $2 AND customer_id = $3
           AND hashtextextended(customer_id, 0) = hashtextextended($3, 0)
         ORDER BY kind, id LIMIT $4)
        UNION ALL
       SELECT a.kind, a.id FROM named AS n
         JOIN virtual_accounts AS a
           ON a.source = $1 AND a.kind = 'virtual_account' AND a.id = n.account
        WHERE a.first_position <= $2
        UNION ALL
       SELECT a.kind, a.id FROM named AS n
         JOIN virtual_accounts AS a
           ON a.source = $1 AND a.details ->> 'account_no' = n.no
          AND hashtextextended(a.details ->> 'account_no', 0) = hashtextextended(n.no, 0)
        WHERE a.first_position <= $2) AS accounts
 ORDER BY kind, id LIMIT $4
"""  # noqa: S608 - made of the constants above
# $4 $5 a virtual account's id and number, or neither; $6 first position of the last row read.
SELECT_PAID_THEN: Final = f"""
(SELECT kind, id, first_position FROM transactions
  WHERE source = $1 AND first_position <= $2 AND first_position > $6
    AND customer_id = $3 AND hashtextextended(customer_id, 0) = hashtextextended($3, 0)
    AND ($4::text IS NULL OR details ->> 'virtual_account_id' = $4
         OR details ->> 'account_no' = $5)
  ORDER BY first_position LIMIT $7)
 UNION
(SELECT kind, id, first_position FROM transactions
  WHERE source = $1 AND first_position <= $2 AND first_position > $6
    AND (conflict IS NOT NULL OR flags &&
         '{{{REVISED}}}')
    AND ($4::text IS NULL OR details ->> 'virtual_account_id' = $4
         OR details ->> 'account_no' = $5)
  ORDER BY first_position LIMIT $7)
 ORDER BY first_position LIMIT $7
"""  # noqa: S608 - made of the constant REVISED


CANDIDATES_MAX: Final = 1_000
"""Streams of each list of a customer that are read at most; the list says that it is cut then."""


async def customers(snapshot: Snapshot, params: QueryParams) -> Customers:
    """Read customers and their verification as they were; without a filter, also those only money
    named.
    """
    status = params.text("verification_status")

    async def candidates(source: str, count: int, start: Sequence[Any]) -> Sequence[DatabaseRow]:
        place = snapshot.places[source].books
        if status is None:
            return await snapshot.rows(SELECT_KNOWN_THEN, source, count, *start, place)
        return await snapshot.rows(SELECT_CUSTOMERS_THEN, source, count, *start, place, None)

    async def evaluate(source: str, keys: Sequence[DatabaseRow]) -> Sequence[DatabaseRow | None]:
        made = await rows_then(snapshot, source, _keys(keys))
        if status is not None:
            return [
                row if row is not None and status == row["verification_status"] else None
                for row in made
            ]
        return [
            row
            if row is not None
            else unverified(source, key["id"])
            if await _was_named(snapshot, source, key["id"])
            else None
            for key, row in zip(keys, made, strict=True)
        ]

    rows, following = await page(snapshot, params, {"kind": str, "id": str}, candidates, evaluate)
    return Customers(
        customers=[
            from_row(Customer, row, **_described(row), **await _all_of(snapshot, row))
            for row in rows
        ],
        next=following,
        position=snapshot.position,
        as_of=snapshot.as_of,
    )


async def _was_named(snapshot: Snapshot, source: str, id_: str) -> bool:
    """Return whether money named the customer then: first by what names it now."""
    place = snapshot.places[source].books
    keys = await snapshot.rows(SELECT_PAYING_THEN, source, place, id_, FEW)
    rows = await rows_then(snapshot, source, _keys(keys))
    is_named = any(row is not None and row["customer_id"] == id_ for row in rows)
    return is_named or await _has_paid(snapshot, source, id_)


FEW: Final = 4
"""Transactions of a customer that are looked at first: nearly always one of them named it."""


def _keys(rows: Sequence[DatabaseRow]) -> list[tuple[str, str]]:
    return [(row["kind"], row["id"]) for row in rows]


def _described(row: DatabaseRow) -> dict[str, Any]:
    details = row["details"] or {}
    return {name: details.get(name) for name in ("registration_type", "country")}


async def customer(snapshot: Snapshot, params: QueryParams) -> CustomerDetail:
    """Read one customer with everything that named it then. Raises NotFound when nothing did."""
    source, id_ = snapshot.check(params.need("source")), params.need("id")
    place = snapshot.places[source].books
    keys = await snapshot.rows(SELECT_CUSTOMERS_THEN, source, None, None, None, place, id_)
    rows = [row for row in await rows_then(snapshot, source, _keys(keys)) if row is not None]
    belongings = await _belongings(snapshot, source, id_)
    if not rows and not any(belongings.values()) and not await _has_paid(snapshot, source, id_):
        raise NotFound(f"source {source} knew no customer {id_!r} then")
    row = {**rows[0], **_described(rows[0])} if rows else unverified(source, id_)
    stream = (row["kind"], id_)
    history = await histories_then(snapshot, source, [stream])
    belongings |= cut_balances(
        await balances_of(snapshot, source, id_, LISTED_MAX + 1), belongings["cut"]
    )
    return from_row(
        CustomerDetail,
        row,
        history=history.get(stream, []),
        notes=await notes(snapshot, source, id_),
        position=snapshot.position,
        as_of=snapshot.as_of,
        **belongings,
    )


async def _all_of(snapshot: Snapshot, row: DatabaseRow) -> dict[str, Any]:
    stream = (row["kind"], row["id"])
    history = await histories_then(snapshot, row["source"], [stream])
    belongings = await _belongings(snapshot, row["source"], row["id"])
    return {**belongings, "history": history.get(stream, [])}


async def _belongings(snapshot: Snapshot, source: str, id_: str) -> dict[str, Any]:
    lists: dict[str, Any] = {"cut": []}
    for what, (statement, kind) in OWN_THEN.items():
        place = snapshot.places[source].books
        keys = _keys(await snapshot.rows(statement, source, place, id_, CANDIDATES_MAX))
        through = kind is VirtualAccount
        rows = await _own_rows(snapshot, source, id_, keys, through_payments=through)
        lists[what] = [from_row(kind, row) for row in rows[:LISTED_MAX]]
        if len(rows) > LISTED_MAX or len(keys) == CANDIDATES_MAX:
            lists["cut"].append(what)
    return lists


OWN_THEN: Final[Mapping[str, tuple[str, type[Schema]]]] = {
    "limits": (SELECT_LIMITS_THEN, LimitSet),
    "limit_requests": (SELECT_LIMIT_REQUESTS_THEN, LimitRequest),
    "rfi": (SELECT_RFI_THEN, Rfi),
    "bank_accounts": (SELECT_BANK_ACCOUNTS_THEN, BankAccount),
    "virtual_accounts": (SELECT_VIRTUAL_ACCOUNTS_THEN, VirtualAccount),
}
"""List of a customer's answer → the statement that finds its streams, and what its rows are."""


async def _own_rows(
    snapshot: Snapshot,
    source: str,
    id_: str,
    keys: Sequence[tuple[str, str]],
    *,
    through_payments: bool,
) -> list[dict[str, Any]]:
    """Return the earlier rows of streams that were the customer's, up to LISTED_MAX + 1.

    With `through_payments` an account is also the customer's when its payments went through it.
    """
    own: list[dict[str, Any]] = []
    for first in range(0, len(keys), STREAMS_AT_ONCE):
        part = keys[first : first + STREAMS_AT_ONCE]
        own += [
            row
            for row in await rows_then(snapshot, source, part)
            if row is not None
            and (
                row["customer_id"] == id_
                or (through_payments and await _has_paid(snapshot, source, id_, row))
            )
        ]
        if len(own) > LISTED_MAX:
            break
    return own[: LISTED_MAX + 1]


async def _has_paid(
    snapshot: Snapshot, source: str, id_: str, account: Mapping[str, Any] | None = None
) -> bool:
    """Return whether a transaction named the customer then, and `account` if one is given."""
    number = (account["details"] or {}).get("account_no") if account else None
    within = (
        source,
        snapshot.places[source].books,
        id_,
        account["id"] if account else None,
        number,
    )
    last = 0
    while keys := await snapshot.rows(SELECT_PAID_THEN, *within, last, STREAMS_AT_ONCE):
        last = keys[-1]["first_position"]
        for row in await rows_then(snapshot, source, _keys(keys)):
            if row is not None and row["customer_id"] == id_ and _is_through(row, account):
                return True
    return False


def _is_through(row: Mapping[str, Any], account: Mapping[str, Any] | None) -> bool:
    if account is None:
        return True
    paid, about = row["details"] or {}, account["details"] or {}
    number = about.get("account_no")
    return paid.get("virtual_account_id") == account["id"] or (
        number is not None and paid.get("account_no") == number
    )
