"""Law: a page of any list reads about as many rows as it shows, however many there are."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from ledger import registry
from ledger.books.generations import use_generation
from ledger.queries import customers as reads_people
from ledger.queries import exceptions as reads_exceptions
from ledger.queries import findings as reads_findings
from ledger.queries import money as reads_money
from ledger.queries import snapshot as reads
from ledger.queries import statements
from ledger.queries import status as reads_status
from ledger.queries import transactions as reads_transactions
from ledger.queries.as_of import customers as reads_people_then
from ledger.queries.as_of import people as reads_lists_then
from ledger.queries.as_of.views import StreamRows
from ledger.queries.kinds import kinds_of
from ledger.queries.transactions import FILTERS
from ledger.queries.views import table_lists
from tests.asking import first_generation
from tests.conftest import Database

MANY = 20_000
PAGE = 20
ROWS_MAX = 2_000
"""Rows that a page of PAGE may read, index look-ups and what is filtered out included."""

FILL = (
    """
INSERT INTO transactions (source, kind, id, status, amount, currency, idempotency_id, customer_id,
       effective_at, flags, details, first_position, position, state)
SELECT 'straitsx', (ARRAY['payment', 'payout'])[1 + n % 2], 'contract_' || n,
       (ARRAY['completed', 'pending'])[1 + n / 2 % 2], 10, 'XSGD', 'idem_' || n,
       'customer_' || CASE WHEN n % 2 = 0 THEN 0 ELSE n END,
       '2026-01-01Z'::timestamptz + n * interval '1 second', '{}',
       jsonb_build_object('virtual_account_id', 'va_' || n % 3, 'account_no', NULL), n, n, ''
  FROM generate_series(1, $1::int) AS n
""",
    """
INSERT INTO customers (source, kind, id, verification_status, updated_at, details, first_position,
       position, state)
SELECT 'straitsx', 'customer', 'customer_' || n,
       (ARRAY['verified', 'pending'])[1 + (n % 1000 = 0)::int], now(), '{}', n, n, ''
  FROM generate_series(1, $1::int) AS n
""",
    """
INSERT INTO virtual_accounts (source, kind, id, status, details, first_position, position, state)
SELECT 'straitsx', 'virtual_account', 'va_' || n, 'enabled',
       jsonb_build_object('account_no', '88' || n), n, n, ''
  FROM generate_series(1, $1::int) AS n
""",
    """
INSERT INTO limits (source, kind, id, customer_id, limits, used, first_position, position, state)
SELECT 'straitsx', 'limits', 'limits_' || n, 'customer_' || n, '{}', '{}', n, n, ''
  FROM generate_series(1, $1::int) AS n
""",
    """
INSERT INTO rfi (source, kind, id, customer_id, status, details, first_position, position, state)
SELECT 'straitsx', 'rfi', 'rfi_' || n, 'customer_' || n, 'sent', '{}', n, n, ''
  FROM generate_series(1, $1::int) AS n
""",
    """
INSERT INTO named_customers (source, kind, id, customer_id, position)
SELECT 'straitsx', 'rfi', 'rfi_' || n, 'customer_' || n, n
  FROM generate_series(1, $1::int) AS n
""",
    """
INSERT INTO findings (source, name, reason, kind, id, customer_id, currency, amount, since,
       position, detail)
SELECT 'straitsx', md5('finding ' || n), (ARRAY['limit_drift', 'unverified_money'])[1 + n % 2],
       (ARRAY['limits', 'customer'])[1 + n % 2], 'customer_' || n, 'customer_' || n, 'XSGD', 1,
       '2026-01-01Z'::timestamptz + n % 1000 * interval '1 second', n, ''
  FROM generate_series(1, $1::int) AS n
""",
    """
INSERT INTO exceptions (source, id, position, action, reason, detail, kind, resource_id, event_id,
       at)
SELECT 'straitsx', md5(n::text), n, action, 'conflict', '', 'payout', n::text, '', now()
  FROM generate_series(1, $1::int) AS n
 CROSS JOIN LATERAL unnest(CASE WHEN n > 10 THEN '{opened,resolved}' ELSE '{opened}' END::text[])
         AS action
""",
    """
INSERT INTO open_exceptions SELECT 'straitsx', md5(n::text), n, 'conflict', 'payout'
  FROM generate_series(1, 10) AS n WHERE n < $1::int
""",
    """
INSERT INTO statement_lines (source, kind, id, status, line, amount, currency, first_position,
       position, state)
SELECT 'straitsx.statements', 'statement_line', n::text, 'stated', 'line_' || n, 1, 'XSGD', n, n, ''
  FROM generate_series(1, $1::int) AS n
""",
    """
INSERT INTO returns (source, kind, id, position, line, return_kind, return_id, effective_at,
       currency, amount, count)
SELECT 'straitsx', 'payout', 'contract_' || (2 * n - 1), n, 1, 'payment', 'contract_' || 2 * n,
       '2026-01-01Z'::timestamptz + n * interval '1 second', 'XSGD', 1, 1
  FROM generate_series(1, $1::int / 2) AS n
""",
)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
S = "straitsx"


def finding(statement: str, **given: Any) -> tuple[str, tuple[Any, ...]]:
    """Return a question about findings: statement and arguments."""
    expected = {"since": None, "name": None, "reason": None, "state": None, "wanted": None}
    expected |= given
    kinds = sorted({"limits", "customer", *registry.load().money_kinds})
    return statement, (S, NOW, PAGE, *expected.values(), kinds)


MOMENT = datetime(2026, 1, 1, 1, tzinfo=UTC)


def transaction_lists() -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Return questions about transactions: every order, its first and a later page, filtered."""
    orders = {
        "newest": (reads_transactions.SELECT_TRANSACTIONS, (10_000,)),
        "changed": (reads_transactions.SELECT_CHANGED, (19_000, 19_000)),
        "earliest": (reads_transactions.SELECT_EARLIEST, (MOMENT, 0)),
        "latest": (reads_transactions.SELECT_LATEST, (MOMENT, 0)),
    }
    filters: dict[str, dict[str, Any]] = {
        "all": {},
        "two statuses": {"status": ["pending", "completed"]},
        "two kinds": {"kind": ["payment", "payout"], "currency": ["XSGD", "USD"]},
        "an amount": {"amount_min": Decimal(10), "amount_max": Decimal(10)},
    }
    lists = [
        (order, what, statement, start, given)
        for order, (statement, later) in orders.items()
        for what, given in filters.items()
        for start in ((None,) * len(later), later)
    ]
    kinds = kinds_of("transactions")
    for customer in ("customer_0", "customer_77"):
        given = {"kind": kinds, "customer_id": customer}
        for statement, starts in (
            (reads_transactions.SELECT_TRANSACTIONS, ((None,), (10_000,))),
            (reads_transactions.SELECT_CHANGED, ((0, 0), (19_000, 19_000))),
            (reads_transactions.SELECT_EARLIEST_OF, ((None, None), (MOMENT, 0))),
            (reads_transactions.SELECT_LATEST_OF, ((None, None), (MOMENT, 0))),
        ):
            lists += [(statement[-60:], customer, statement, start, given) for start in starts]
    return {
        f"transactions, {order} of {what}, after {start}": (
            statement, (S, PAGE, *start, *(given.get(name) for name in FILTERS)),
        )
        for order, what, statement, start, given in lists
    }  # fmt: skip


LATER = {"since": datetime(2026, 1, 1, 0, 10, tzinfo=UTC), "name": "8"}
QUESTIONS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "stuck": finding(reads_findings.SELECT_STUCK),
    "stuck, a later page": finding(reads_findings.SELECT_STUCK, **LATER),
    "stuck and open": finding(reads_findings.SELECT_STUCK, state="open"),
    "returns": finding(reads_findings.SELECT_RETURNS),
    "returns, a later page": finding(reads_findings.SELECT_RETURNS, **LATER),
    "returns of a payout": (
        reads_transactions.SELECT_RETURNS, (S, "payout", "contract_77", 10_000, NOW, 100),
    ),
    "drifts": finding(reads_findings.SELECT_KEPT, reason="limit_drift"),
    "drifts, a later page": finding(reads_findings.SELECT_KEPT, reason="limit_drift", **LATER),
    "unverified and open": finding(
        reads_findings.SELECT_KEPT, reason="unverified_money", state="open"
    ),
    "one by its name": finding(
        reads_findings.SELECT_KEPT, reason="unverified_money", wanted="c4ca4238a0b923820dcc509a6f"
    ),
    "exceptions": (reads_exceptions.SELECT_EXCEPTIONS, (S, PAGE, *(None,) * 6)),
    "exceptions of a reason that there is not": (
        reads_exceptions.SELECT_EXCEPTIONS, (S, PAGE, None, None, None, "unreadable", None, None),
    ),
    "exceptions of a kind that there is not": (
        reads_exceptions.SELECT_EXCEPTIONS, (S, PAGE, None, None, None, None, "swap", None),
    ),
    "open exceptions": (reads_exceptions.SELECT_OPEN, (S, PAGE, *(None,) * 4)),
    "status": (reads_status.SELECT_LAGS, ()),
    **transaction_lists(),
    "customers": (reads_people.SELECT_CUSTOMERS, (S, PAGE, *(None,) * 4)),
    **{
        f"customers known by anything, after {start}": (
            reads_people.SELECT_KNOWN, (S, PAGE, *start),
        )
        for start in ((None, None), ("customer", "customer_5"), ("customer", "customer_99"))
    },
    **{
        f"customers that were known, after {start}": (
            reads_people_then.SELECT_KNOWN_THEN, (S, PAGE, *start, 10_000),
        )
        for start in ((None, None), ("customer", "customer_5"))
    },
    "a busy customer that was named": (
        reads_people_then.SELECT_PAYING_THEN, (S, 10_000, "customer_0", 4),
    ),
    "balances of a customer": (
        reads_money.SELECT_BALANCES, (S, PAGE, None, None, None, None, None, "customer_0"),
    ),
    "customers of a rare status": (
        reads_people.SELECT_CUSTOMERS, (S, PAGE, None, None, None, "pending"),
    ),
    "one customer": (reads_people.SELECT_CUSTOMERS, (S, 1, None, None, "customer_77", None)),
    "virtual accounts of customers": (
        reads_people.SELECT_VIRTUAL_ACCOUNTS_OF, (S, ["customer_0", "customer_77"], PAGE),
    ),
    "limits of customers": (
        reads_people.SELECT_LIMITS_OF, (S, ["customer_0", "customer_77"], PAGE),
    ),
    "earlier customers": (
        reads_people_then.SELECT_CUSTOMERS_THEN, (S, PAGE, None, None, MANY, None),
    ),
    "customers at the beginning": (
        reads_people_then.SELECT_CUSTOMERS_THEN, (S, PAGE, None, None, 5, None),
    ),
    "earlier requests of a customer": (
        reads_lists_then.SELECT_NAMED_THEN, (S, PAGE, None, None, "customer_77", MANY, "rfi"),
    ),
    "earlier limits of a customer": (
        reads_lists_then.SELECT_LIMITS_THEN, (S, PAGE, None, None, "customer_77", MANY),
    ),
    "what named a customer": (
        reads_people_then.SELECT_RFI_THEN, (S, MANY, "customer_77", PAGE),
    ),
    **{
        f"streams of {name} after {after}": (
            StreamRows(table_lists()[name]).candidates, (S, PAGE, *after, None, None),
        )
        for name, after in (
            ("rfi", (None, None)), ("rfi", ("rfi", "rfi_5")), ("transactions", (10_000,)),
        )
    },
    "one statement line": (
        statements.SELECT_STATEMENT_LINES, (S, PAGE, None, None, None, "line_77", None, None, None),
    ),
    **{
        f"view of {name} after {after} with {filters}": (
            view.listing.statement, (S, PAGE, *after, *filters),
        )
        for name, after, filters in (
            ("transactions", (10_000,), (None, None)),
            ("transactions", (None,), (None, "contract_77")),
            ("customers", ("customer", "customer_5"), (None, None, None)),
            ("customers", (None, None), (None, None, "pending")),
            ("customers", ("customer", "customer_5"), (None, None, "pending")),
            ("customers", (None, None), ("customer", "customer_77", None)),
            ("exceptions", ("a", 5, "opened"), (None,)),
        )
        for view in (table_lists()[name],)
    },
}  # fmt: skip


def rows_read(plan: dict[str, Any]) -> int:
    """Add up what the nodes of a plan that read tables came across."""
    own = 0
    if "Relation Name" in plan:
        each = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        own = round(each * plan["Actual Loops"])
    return own + sum(rows_read(part) for part in plan.get("Plans", []))


@pytest.mark.timeout(300)
async def test_a_page_reads_no_more_than_it_needs(database: Database) -> None:
    generation = await first_generation(database)
    async with database.owner() as connection:
        await use_generation(connection, generation)
        for statement in FILL:
            await connection.execute(statement, MANY)
        await connection.execute("ANALYZE")
    found: dict[str, int] = {}
    async with database.service() as connection, reads.open_snapshot(connection):
        for name, (statement, given) in QUESTIONS.items():
            explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
            ((plan,),) = await connection.fetch(explained, *given)
            found[name] = rows_read(json.loads(plan)[0]["Plan"])
    assert {name: rows for name, rows in found.items() if rows > ROWS_MAX} == {}


async def test_a_busy_customers_lists_are_cut_and_say_so(database: Database) -> None:
    generation = await first_generation(database)
    async with database.owner() as connection:
        await use_generation(connection, generation)
        await connection.execute(
            "INSERT INTO limits (source, kind, id, customer_id, limits, used, first_position,"
            " position, state) SELECT 'straitsx', 'limits', 'limits_' || n, 'busy', '{}', '{}', n,"
            " n, '' FROM generate_series(1, 101) AS n"
        )
        await connection.execute(FILL[0], 12)
        await connection.execute(FILL[2], 3)
    async with database.service() as connection, reads.open_snapshot(connection) as snapshot:
        stated = await reads_people._belongings(snapshot, "straitsx", ["busy", "customer_0"])
    busy, other = stated["busy"], stated["customer_0"]
    assert (len(busy["limits"]), busy["cut"]) == (reads_people.LISTED_MAX, ["limits"])
    assert (len(other["limits"]), other["cut"]) == (0, [])
    accounts = [each.id for each in stated["customer_0"]["virtual_accounts"]]
    assert accounts == ["va_1", "va_2"]
