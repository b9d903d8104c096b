"""Reading money: wallets, balances and journal entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ledger.books.balance_index import SHARD_BITS
from ledger.payload import plain
from ledger.queries.params import QueryParams
from ledger.queries.reconciliation import runs
from ledger.queries.schemas.money import (
    Balance,
    Balances,
    Entries,
    Entry,
    Reconciliation,
    Wallet,
    Wallets,
    from_row,
)
from ledger.queries.snapshot import DatabaseRow, Listing, Snapshot, group_rows

# Every currency that the wallet's accounts ever had, or that a statement is of.
SELECT_WALLETS: Final = """
SELECT $1::text AS source, w.currency,
       coalesce(sum(b.debits - b.credits) FILTER (WHERE b.account = 'assets:wallet:available'), 0)
           AS available,
       coalesce(sum(b.debits - b.credits) FILTER (WHERE b.account = 'assets:wallet:held'), 0)
           AS held,
       coalesce(sum(b.debits - b.credits) FILTER (WHERE b.account = 'memo:incoming'), 0)
           AS pending_in
  FROM (SELECT currency FROM balances
         WHERE source = $1 AND (debits <> 0 OR credits <> 0)
           AND account IN ('assets:wallet:available', 'assets:wallet:held', 'memo:incoming')
         UNION
        SELECT currency FROM statements
         WHERE source = $1 || '.statements' AND status = 'imported') AS w
  LEFT JOIN balances AS b
    ON b.source = $1 AND b.currency = w.currency
   AND b.account IN ('assets:wallet:available', 'assets:wallet:held', 'memo:incoming')
 WHERE ($3::text IS NULL OR w.currency > $3) AND ($4::text[] IS NULL OR w.currency = ANY ($4))
 GROUP BY w.currency ORDER BY w.currency LIMIT $2
"""
SELECT_BALANCES: Final = """
SELECT source, account, currency, debits, credits FROM balances
 WHERE source = $1 AND ($3::text IS NULL OR (account, currency) > ($3, $4::text))
   AND ($5::text IS NULL OR account = $5) AND ($6::text IS NULL OR account LIKE $6)
   AND ($7::text[] IS NULL OR currency = ANY ($7))
   AND ($8::text IS NULL
        OR account IN ('liabilities:customers:' || $8, 'liabilities:members:' || $8))
   AND (debits <> 0 OR credits <> 0)
 ORDER BY account, currency LIMIT $2
"""
SELECT_ENTRIES: Final = """
SELECT source, position, line, kind, transaction, account, currency, amount, effective_at,
       recorded_at
  FROM entries
 WHERE source = $1 AND ($3::bigint IS NULL OR (position, line) > ($3, $4::bigint))
   AND ($5::text IS NULL OR account = $5) AND ($6::text IS NULL OR account LIKE $6)
   AND ($7::text[] IS NULL OR currency = ANY ($7))
   AND ($8::text IS NULL OR transaction = $8
        AND position = ANY (journal_positions($1, NULL, $8)))
   AND ($9::timestamptz IS NULL OR effective_at >= $9)
   AND ($10::timestamptz IS NULL OR effective_at < $10)
   AND ($11::bigint IS NULL OR position <= $11)
 ORDER BY position, line LIMIT $2
"""
# $5 an account, $11 to $12 the shards of positions to read. The condition on effective_at is always
# true: with it the planner takes the index of accounts. OFFSET 0 keeps the subquery apart, so that
# each shard is one look-up in that index.
SELECT_LINES: Final = f"""
SELECT l.* FROM generate_series($11::bigint, $12::bigint) AS shards(shard)
 CROSS JOIN LATERAL (
       SELECT source, position, line, kind, transaction, account, currency, amount, effective_at,
              recorded_at
         FROM entries
        WHERE source = $1 AND account = $5
          AND (position >> {SHARD_BITS} << 32) + hashtext(account) = (shard << 32) + hashtext($5)
          AND effective_at > '-infinity'
          AND ($3::bigint IS NULL OR (position, line) > ($3, $4::bigint))
          AND $6::text IS NULL
          AND ($7::text[] IS NULL OR currency = ANY ($7)) AND ($8::text IS NULL OR transaction = $8)
          AND ($9::timestamptz IS NULL OR effective_at >= $9)
          AND ($10::timestamptz IS NULL OR effective_at < $10) OFFSET 0) AS l
 ORDER BY l.position, l.line LIMIT $2
"""  # noqa: S608 - made of the constant SHARD_BITS


@dataclass(frozen=True, slots=True)
class JournalLines(Listing):
    """The list of journal lines.

    The first filter is the account; the statement's last one is a position. Lines of one account
    are read from the next few thousand positions first, where a busy account has a full page, and
    then shard by shard: `within` takes, after the filters, the first and the last shard to read,
    in steps that double.
    """

    within: str = ""

    async def rows(
        self, snapshot: Snapshot, source: str, count: int, start: Sequence[Any], *filters: Any
    ) -> list[DatabaseRow]:
        """Fetch up to `count` lines after `start`."""
        if filters[0] is None:
            return await snapshot.rows(self.statement, source, count, *start, *filters, None)
        near = (start[0] or 0) + NEAR
        lines = await snapshot.rows(self.statement, source, count, *start, *filters, near)
        start = near, LINES_MAX
        first, width = near >> SHARD_BITS, 1
        while first <= snapshot.places[source].books >> SHARD_BITS and len(lines) < count:
            shards = first, first + width - 1
            lines += await snapshot.rows(
                self.within, source, count - len(lines), *start, *filters, *shards
            )
            first, width = first + width, width * 2
        return lines


NEAR: Final = 2_000
LINES_MAX: Final = 2**31 - 1
UNPROVED: Final = Reconciliation()
WALLETS: Final = Listing(SELECT_WALLETS, {"currency": str})
BALANCES: Final = Listing(SELECT_BALANCES, {"account": str, "currency": str})
ENTRIES: Final = JournalLines(SELECT_ENTRIES, {"position": int, "line": int}, within=SELECT_LINES)


async def wallets(snapshot: Snapshot, params: QueryParams) -> Wallets:
    """Read what each wallet holds, and what is announced for it."""
    rows, following = await WALLETS.page(snapshot, params, params.texts("currency"))
    listed = []
    for (source,), group in group_rows(rows, "source").items():
        claims = await runs.claims(snapshot, source)
        listed += [
            from_row(
                Wallet,
                row,
                total=plain(row["available"] + row["held"]),
                reconciliation=claims.get(row["currency"], UNPROVED),
            )
            for row in group
        ]
    return Wallets(
        wallets=listed, next=following, position=snapshot.position, parked=snapshot.parked
    )


async def balances(snapshot: Snapshot, params: QueryParams) -> Balances:
    """Read what each account has been debited and credited."""
    rows, following = await BALANCES.page(
        snapshot,
        params,
        *account_filters(params),
        params.texts("currency"),
        params.text("customer_id"),
    )
    return Balances(
        balances=[_balance(row) for row in rows],
        next=following,
        position=snapshot.position,
        parked=snapshot.parked,
    )


async def balances_of(
    snapshot: Snapshot, source: str, customer_id: str, count: int
) -> list[Balance]:
    """Read the first balances of a customer's own accounts, by account and currency."""
    of_customer = (None, None, None, customer_id)
    rows = await snapshot.rows(SELECT_BALANCES, source, count, None, None, *of_customer)
    return [_balance(row) for row in rows]


def _balance(row: DatabaseRow) -> Balance:
    side = normal_side(row["account"])
    balance = row["debits"] - row["credits"]
    return from_row(
        Balance, row, balance=plain(balance if side == "debit" else -balance), normal=side
    )


def normal_side(account: str) -> str:
    """Return the side on which an account grows: `debit` or `credit`."""
    if account in ("memo:incoming", "suspense") or account.startswith(("assets:", "expenses:")):
        return "debit"
    return "credit"


def account_filters(params: QueryParams) -> tuple[str | None, str | None]:
    """Return the requested account, or the LIKE pattern of a prefix (`liabilities:*`)."""
    account = params.text("account")
    if account is None or not account.endswith("*"):
        return account, None
    escaped = account[:-1].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return None, escaped + "%"


def line_floors(snapshot: Snapshot, params: QueryParams) -> dict[str, tuple[int, int]]:
    """Return the keys after which the lines of each source begin, by `after`."""
    places = snapshot.positions(params, "after")
    return {source: (place, LINES_MAX) for source, place in places.items()}


async def entries(snapshot: Snapshot, params: QueryParams) -> Entries:
    """Read journal lines in log order."""
    rows, following = await ENTRIES.page(
        snapshot,
        params,
        *account_filters(params),
        params.texts("currency"),
        params.text("transaction"),
        params.time("from"),
        params.time("to"),
        floors=line_floors(snapshot, params),
    )
    lines = [from_row(Entry, row) for row in rows]
    return Entries(entries=lines, next=following, position=snapshot.position)
