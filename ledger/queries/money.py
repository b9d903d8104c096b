"""Reading money: wallets, balances, journal entries and transactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ledger.books.balance_index import SHARD_BITS
from ledger.errors import Conflicting, NotFound
from ledger.payload import plain
from ledger.queries import reconciliation
from ledger.queries.params import QueryParams
from ledger.queries.schemas.money import (
    Balance,
    Balances,
    Entries,
    Entry,
    Mention,
    Reconciliation,
    Step,
    Transaction,
    TransactionDecision,
    TransactionDetail,
    Transactions,
    Wallet,
    Wallets,
    from_row,
)
from ledger.queries.snapshot import DatabaseRow, Listing, Snapshot, group_rows

REUSED: Final = "idempotency_id_reused"
"""The flag of transactions that share their idempotency ID with another of the same kind."""

SELECT_WALLETS: Final = """
SELECT source, currency,
       coalesce(sum(debits - credits) FILTER (WHERE account = 'assets:wallet:available'), 0)
           AS available,
       coalesce(sum(debits - credits) FILTER (WHERE account = 'assets:wallet:held'), 0) AS held,
       coalesce(sum(debits - credits) FILTER (WHERE account = 'memo:incoming'), 0) AS pending_in
  FROM balances
 WHERE source = $1 AND ($3::text IS NULL OR currency > $3)
   AND account IN ('assets:wallet:available', 'assets:wallet:held', 'memo:incoming')
   AND ($4::text IS NULL OR currency = $4)
 GROUP BY source, currency HAVING bool_or(debits <> 0 OR credits <> 0)
 ORDER BY currency LIMIT $2
"""
SELECT_BALANCES: Final = """
SELECT source, account, currency, debits, credits FROM balances
 WHERE source = $1 AND ($3::text IS NULL OR (account, currency) > ($3, $4::text))
   AND ($5::text IS NULL OR account = $5) AND ($6::text IS NULL OR account LIKE $6)
   AND ($7::text IS NULL OR currency = $7)
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
   AND ($7::text IS NULL OR currency = $7)
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
          AND ($7::text IS NULL OR currency = $7) AND ($8::text IS NULL OR transaction = $8)
          AND ($9::timestamptz IS NULL OR effective_at >= $9)
          AND ($10::timestamptz IS NULL OR effective_at < $10) OFFSET 0) AS l
 ORDER BY l.position, l.line LIMIT $2
"""  # noqa: S608 - made of the constant SHARD_BITS
SELECT_TRANSACTIONS: Final = """
SELECT t.source, t.kind, t.id, t.idempotency_id, t.status, t.amount, t.currency, t.fees,
       t.customer_id, t.effective_at, t.flags, t.conflict, t.return_of, t.details,
       t.first_position, reused.it AS reused
  FROM transactions AS t
 CROSS JOIN LATERAL (
       SELECT EXISTS (SELECT FROM transactions AS o
                       WHERE o.source = t.source AND o.idempotency_id = t.idempotency_id
                         AND hashtextextended(o.idempotency_id, 0)
                             = hashtextextended(t.idempotency_id, 0)
                         AND o.kind = t.kind AND o.id <> t.id) AS it) AS reused
 WHERE t.source = $1 AND ($3::bigint IS NULL OR t.first_position < $3)
   AND ($4::text IS NULL OR t.kind = $4) AND ($5::text IS NULL OR t.status = $5)
   AND ($6::text IS NULL
        OR t.customer_id = $6 AND hashtextextended(t.customer_id, 0) = hashtextextended($6, 0))
   AND ($7::text IS NULL OR t.currency = $7)
   AND ($8::text IS NULL
        OR t.idempotency_id = $8
           AND hashtextextended(t.idempotency_id, 0) = hashtextextended($8, 0))
   AND ($9::text IS NULL OR $9 = ANY (t.flags) OR $9 = 'idempotency_id_reused' AND reused.it)
   AND ($10::timestamptz IS NULL OR t.effective_at >= $10)
   AND ($11::timestamptz IS NULL OR t.effective_at < $11)
   AND ($12::text IS NULL OR t.id = $12 AND hashtextextended(t.id, 0) = hashtextextended($12, 0))
 ORDER BY t.first_position DESC LIMIT $2
"""
SELECT_KINDS_OF: Final = """
SELECT DISTINCT kind FROM transactions
 WHERE source = $1 AND id = $2 AND hashtextextended(id, 0) = hashtextextended($2, 0) ORDER BY kind
"""
SELECT_HISTORY: Final = """
SELECT h.kind, h.id, h.position, h.event_id, h.status, h.idempotency_id, h.effective_at,
       h.received_at, h.recorded_at
  FROM unnest($2::text[], $3::text[]) AS u(kind, id)
 CROSS JOIN LATERAL (
       SELECT * FROM history AS t
        WHERE t.source = $1 AND t.kind = u.kind AND t.id = u.id
          AND hashtextextended(t.id, 0) = hashtextextended(u.id, 0)
        ORDER BY t.position DESC LIMIT $4) AS h
 ORDER BY h.position
"""
SELECT_ENTRIES_OF: Final = """
SELECT source, position, line, kind, transaction, account, currency, amount, effective_at,
       recorded_at
  FROM entries
 WHERE source = $1 AND kind = $2 AND transaction = $3
   AND position = ANY (journal_positions($1, $2, $3))
 ORDER BY position, line
"""
SELECT_EVENTS_OF: Final = """
SELECT position, encode(event_id, 'hex') AS event_id, kind, status, path_event, received_at,
       verdict, idempotency_key
  FROM ledger.events
 WHERE source = $1 AND position IN (
       SELECT h.position FROM history AS h
        WHERE h.source = $1 AND h.kind = $2 AND h.id = $3
          AND hashtextextended(h.id, 0) = hashtextextended($3, 0)
        UNION
       SELECT p.position FROM parked AS p
        WHERE p.source = $1 AND p.kind = $2 AND p.resource_id = $3
          AND hashtextextended(p.resource_id, 0) = hashtextextended($3, 0))
 ORDER BY position
"""
SELECT_DECISIONS: Final = """
SELECT position, action, reason, customer_id, note, by, recorded_at FROM decisions
 WHERE source = $1 AND kind = $2 AND id = $3 AND hashtextextended(id, 0) = hashtextextended($3, 0)
   AND position <= $4
 ORDER BY position
"""


@dataclass(frozen=True, slots=True)
class JournalLines(Listing):
    """The list of journal lines.

    The first filter is the account; the statement's last one is a position. Lines of one account
    are read from the next few thousand positions first, where a busy account has a full page, and
    then shard by shard: `within` takes, after the filters, the first and the last shard to read,
    in steps that double.
    """

    within: str

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


HISTORY_MAX: Final = 1_000
"""How many of the last steps of a stream an answer has."""

_NO_TRANSACTION: Final = "source {} has no transaction {!r} of kind {}"
NEAR: Final = 2_000
LINES_MAX: Final = 2**31 - 1
UNPROVED: Final = Reconciliation()
WALLETS: Final = Listing(SELECT_WALLETS, {"currency": str})
BALANCES: Final = Listing(SELECT_BALANCES, {"account": str, "currency": str})
ENTRIES: Final = JournalLines(SELECT_ENTRIES, {"position": int, "line": int}, SELECT_LINES)
TRANSACTIONS: Final = Listing(SELECT_TRANSACTIONS, {"first_position": int})


async def wallets(snapshot: Snapshot, params: QueryParams) -> Wallets:
    """Read what each wallet holds, and what is announced for it."""
    rows, following = await WALLETS.page(snapshot, params, params.text("currency"))
    listed = []
    for (source,), group in group_rows(rows, "source").items():
        claims = await reconciliation.claims(snapshot, source)
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
        params.text("currency"),
        params.text("customer_id"),
    )
    listed = []
    for row in rows:
        side = normal_side(row["account"])
        balance = row["debits"] - row["credits"]
        listed.append(
            from_row(
                Balance,
                row,
                balance=plain(balance if side == "debit" else -balance),
                normal=side,
            )
        )
    return Balances(
        balances=listed, next=following, position=snapshot.position, parked=snapshot.parked
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


async def entries(snapshot: Snapshot, params: QueryParams) -> Entries:
    """Read journal lines in log order."""
    rows, following = await ENTRIES.page(
        snapshot,
        params,
        *account_filters(params),
        params.text("currency"),
        params.text("transaction"),
        params.time("from"),
        params.time("to"),
    )
    lines = [from_row(Entry, row) for row in rows]
    return Entries(entries=lines, next=following, position=snapshot.position)


async def transactions(snapshot: Snapshot, params: QueryParams) -> Transactions:
    """Read transactions, each with its history."""
    rows, following = await TRANSACTIONS.page(
        snapshot,
        params,
        params.text("kind"),
        params.text("status"),
        params.text("customer_id"),
        params.text("currency"),
        params.text("idempotency_id"),
        params.text("flag"),
        params.time("from"),
        params.time("to"),
        None,
    )
    listed: list[Transaction] = []
    for (source,), group in group_rows(rows, "source").items():
        steps = await histories(snapshot, source, [(row["kind"], row["id"]) for row in group])
        listed += [
            from_row(
                Transaction,
                row,
                flags=_flags(row),
                history=steps.get((row["kind"], row["id"]), []),
            )
            for row in group
        ]
    return Transactions(transactions=listed, next=following, position=snapshot.position)


def _flags(row: DatabaseRow) -> list[str]:
    flags = list(row["flags"] or ())
    return [*flags, REUSED] if row["reused"] and REUSED not in flags else flags


async def histories(
    snapshot: Snapshot, source: str, streams: Sequence[tuple[str, str]]
) -> dict[tuple[Any, ...], list[Step]]:
    """Read the last HISTORY_MAX steps of many streams of one source, by (kind, id), at once."""
    kinds, ids = [kind for kind, _ in streams], [id_ for _, id_ in streams]
    rows = await snapshot.rows(SELECT_HISTORY, source, kinds, ids, HISTORY_MAX)
    return {
        stream: [from_row(Step, row) for row in group]
        for stream, group in group_rows(rows, "kind", "id").items()
    }


async def transaction(snapshot: Snapshot, params: QueryParams) -> TransactionDetail:
    """Read one transaction with its journal lines and events.

    Raises NotFound, or Conflicting when several kinds share the id and none is named.
    """
    source, id_ = snapshot.check(params.need("source")), params.need("id")
    kind = params.text("kind") or await _only_kind(snapshot, source, id_)
    stream = (kind, id_)
    rows = await snapshot.rows(SELECT_TRANSACTIONS, source, 1, None, kind, *(None,) * 7, id_)
    if not rows:
        raise NotFound(_NO_TRANSACTION.format(source, id_, kind))
    history = await histories(snapshot, source, [stream])
    lines = await snapshot.rows(SELECT_ENTRIES_OF, source, *stream)
    events = await snapshot.rows(SELECT_EVENTS_OF, source, *stream)
    return from_row(
        TransactionDetail,
        rows[0],
        flags=_flags(rows[0]),
        history=history.get(stream, []),
        entries=[from_row(Entry, line) for line in lines],
        events=[from_row(Mention, event) for event in events],
        decisions=await decisions(snapshot, source, stream),
        position=snapshot.position,
    )


async def decisions(
    snapshot: Snapshot, source: str, stream: tuple[str, str]
) -> list[TransactionDecision]:
    """Read what operators decided about a transaction, by kind and id, up to the snapshot."""
    place = snapshot.places[source].books
    rows = await snapshot.rows(SELECT_DECISIONS, source, *stream, place)
    return [from_row(TransactionDecision, row) for row in rows]


async def kind_of(snapshot: Snapshot, source: str, id_: str, kind: str | None) -> str:
    """Return the kind of the transaction with an id: `kind`, or the only one that has the id.

    Raises NotFound, or Conflicting when several kinds share the id and none is named.
    """
    if kind is None:
        return await _only_kind(snapshot, source, id_)
    known = [row["kind"] for row in await snapshot.rows(SELECT_KINDS_OF, source, id_)]
    if kind not in known:
        raise NotFound(_NO_TRANSACTION.format(source, id_, kind))
    return kind


async def _only_kind(snapshot: Snapshot, source: str, id_: str) -> str:
    kinds = [row["kind"] for row in await snapshot.rows(SELECT_KINDS_OF, source, id_)]
    if not kinds:
        raise NotFound(
            f"source {source} has no transaction {id_!r}; /v1/exceptions lists what could not "
            "be read"
        )
    if len(kinds) > 1:
        raise Conflicting(
            f"several transactions have the id {id_!r}; add ?kind= with one of: {', '.join(kinds)}"
        )
    return str(kinds[0])
