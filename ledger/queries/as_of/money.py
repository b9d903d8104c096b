"""As-of for money: wallets, balances, journal entries and transactions as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from ledger.books import balance_index
from ledger.books.balance_index import SHARD_BITS
from ledger.errors import Conflicting, InvalidRequest, NotFound
from ledger.model import REVISED
from ledger.payload import plain
from ledger.queries.as_of.snapshot import STREAMS_AT_ONCE, bound, histories_then, page, rows_then
from ledger.queries.money import (
    UNPROVED,
    JournalLines,
    account_filters,
    line_floors,
    normal_side,
)
from ledger.queries.params import QueryParams
from ledger.queries.schemas.money import (
    Balance,
    Balances,
    Entries,
    Entry,
    Mention,
    Transaction,
    TransactionDetail,
    TransactionReturn,
    Transactions,
    Wallet,
    Wallets,
    from_row,
)
from ledger.queries.snapshot import DatabaseRow, Snapshot
from ledger.queries.transactions import (
    PRESENT_ONLY,
    RETURNS_MAX,
    REUSED,
    SELECT_KINDS_OF,
    SELECT_RETURNS_OF,
    decisions,
)

AVAILABLE: Final = "assets:wallet:available"
HELD: Final = "assets:wallet:held"
INCOMING: Final = "memo:incoming"

# Every account that was ever posted to has a balance now, and so has every wallet.
SELECT_CURRENCIES: Final = """
SELECT DISTINCT currency FROM balances
 WHERE source = $1 AND ($3::text IS NULL OR currency > $3)
   AND account IN ('assets:wallet:available', 'assets:wallet:held', 'memo:incoming')
   AND ($4::text[] IS NULL OR currency = ANY ($4))
 ORDER BY currency LIMIT $2
"""
SELECT_ACCOUNTS: Final = """
SELECT source, account, currency FROM balances
 WHERE source = $1 AND ($3::text IS NULL OR (account, currency) > ($3, $4::text))
   AND ($5::text IS NULL OR account = $5) AND ($6::text IS NULL OR account LIKE $6)
   AND ($7::text[] IS NULL OR currency = ANY ($7))
   AND ($8::text IS NULL
        OR account IN ('liabilities:customers:' || $8, 'liabilities:members:' || $8))
 ORDER BY account, currency LIMIT $2
"""
SELECT_ENTRIES_THEN: Final = """
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
   AND effective_at <= $11 AND position <= ($12::jsonb ->> $1)::bigint
   AND ($13::bigint IS NULL OR position <= $13)
 ORDER BY position, line LIMIT $2
"""
# $5 an account, $13 to $14 the shards of positions to read; otherwise as SELECT_LINES.
SELECT_LINES_THEN: Final = f"""
SELECT l.* FROM generate_series($13::bigint, $14::bigint) AS shards(shard)
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
          AND ($10::timestamptz IS NULL OR effective_at < $10)
          AND effective_at <= $11 AND position <= ($12::jsonb ->> $1)::bigint OFFSET 0) AS l
 ORDER BY l.position, l.line LIMIT $2
"""  # noqa: S608 - made of the constant SHARD_BITS
# A transaction without contradictions, which no operator attributed to a customer, had the same
# values then as now, if it was there.
SELECT_CANDIDATES: Final = f"""
(SELECT kind, id, first_position FROM transactions
  WHERE source = $1 AND ($3::bigint IS NULL OR first_position < $3) AND first_position <= $4
    AND ($5::text[] IS NULL OR kind = ANY ($5))
    AND ($6::text IS NULL OR customer_id = $6
         AND hashtextextended(customer_id, 0) = hashtextextended($6, 0))
    AND ($7::text[] IS NULL OR currency = ANY ($7))
    AND ($8::text IS NULL OR idempotency_id = $8
         AND hashtextextended(idempotency_id, 0) = hashtextextended($8, 0))
  ORDER BY first_position DESC LIMIT $2)
 UNION
(SELECT kind, id, first_position FROM transactions
  WHERE source = $1 AND ($3::bigint IS NULL OR first_position < $3) AND first_position <= $4
    AND ($5::text[] IS NULL OR kind = ANY ($5))
    AND (conflict IS NOT NULL OR flags &&
         '{{{REVISED}}}')
  ORDER BY first_position DESC LIMIT $2)
 ORDER BY first_position DESC LIMIT $2
"""  # noqa: S608 - made of the constant REVISED
SELECT_REUSED: Final = f"""
SELECT u.kind, u.id
  FROM unnest($2::text[], $3::text[], $4::text[]) AS u(kind, id, idempotency_id)
 WHERE EXISTS (
       SELECT FROM (
              SELECT o.id FROM transactions AS o
               WHERE o.source = $1 AND o.idempotency_id = u.idempotency_id AND o.kind = u.kind
                 AND hashtextextended(o.idempotency_id, 0) = hashtextextended(u.idempotency_id, 0)
               UNION
              SELECT o.id FROM transactions AS o
               WHERE o.source = $1 AND o.kind = u.kind
                 AND (o.conflict IS NOT NULL OR o.flags &&
                      '{{{REVISED}}}')
                 AND o.details -> 'idempotency_ids' ? u.idempotency_id) AS other
        WHERE other.id <> u.id AND u.idempotency_id = (
              SELECT min(h.idempotency_id COLLATE "C") FROM history AS h
               WHERE h.source = $1 AND h.kind = u.kind AND h.id = other.id
                 AND hashtextextended(h.id, 0) = hashtextextended(other.id, 0)
                 AND h.position <= $5 AND h.effective_at <= $6
                 AND h.status NOT LIKE 'unknown:%'))
"""  # noqa: S608 - made of the constant REVISED
SELECT_ENTRIES_OF_THEN: Final = """
SELECT source, position, line, kind, transaction, account, currency, amount, effective_at,
       recorded_at
  FROM entries
 WHERE source = $1 AND kind = $2 AND transaction = $3 AND effective_at <= $5
   AND position <= $4 AND position = ANY (journal_positions($1, $2, $3))
 ORDER BY position, line
"""
SELECT_EVENTS_OF_THEN: Final = """
SELECT position, encode(event_id, 'hex') AS event_id, kind, status, path_event, received_at,
       verdict, idempotency_key
  FROM ledger.events
 WHERE source = $1 AND position IN (
       SELECT h.position FROM history AS h
        WHERE h.source = $1 AND h.kind = $2 AND h.id = $3 AND h.position <= $4
          AND h.effective_at <= $5 AND hashtextextended(h.id, 0) = hashtextextended($3, 0)
        UNION
       SELECT e.position FROM parked AS p JOIN ledger.events AS e USING (source, position)
        WHERE p.source = $1 AND p.kind = $2 AND p.resource_id = $3 AND p.position <= $4
          AND hashtextextended(p.resource_id, 0) = hashtextextended($3, 0)
          AND coalesce(e.provider_at, e.received_at) <= $5)
 ORDER BY position
"""

ENTRIES_THEN: Final = JournalLines(
    SELECT_ENTRIES_THEN, {"position": int, "line": int}, within=SELECT_LINES_THEN
)


async def wallets(snapshot: Snapshot, params: QueryParams) -> Wallets:
    """Read what each wallet held, and what was announced for it."""
    currency = params.texts("currency")

    async def candidates(source: str, count: int, start: Sequence[Any]) -> Sequence[DatabaseRow]:
        return await snapshot.rows(SELECT_CURRENCIES, source, count, *start, currency)

    async def evaluate(source: str, rows: Sequence[DatabaseRow]) -> Sequence[DatabaseRow | None]:
        names = [row["currency"] for row in rows]
        every = [(account, name) for account in (AVAILABLE, HELD, INCOMING) for name in names]
        sums = await balance_index.sums(snapshot.connection, bound(snapshot, source), every)
        return [_wallet(source, name, sums) for name in names]

    rows, following = await page(snapshot, params, {"currency": str}, candidates, evaluate)
    return Wallets(
        wallets=[from_row(Wallet, row, reconciliation=UNPROVED) for row in rows],
        next=following,
        position=snapshot.position,
        parked=snapshot.parked,
        as_of=snapshot.as_of,
    )


def _wallet(source: str, currency: str, sums: balance_index.Sums) -> DatabaseRow | None:
    accounts = [sums[account, currency] for account in (AVAILABLE, HELD, INCOMING)]
    if not any(debits or credited for debits, credited in accounts):
        return None
    available, held, incoming = (debits - credited for debits, credited in accounts)
    return {
        "source": source,
        "currency": currency,
        "available": available,
        "held": held,
        "pending_in": incoming,
        "total": available + held,
    }


async def balances(snapshot: Snapshot, params: QueryParams) -> Balances:
    """Read what each account had been debited and credited."""
    filters = (
        *account_filters(params),
        params.texts("currency"),
        params.text("customer_id"),
    )

    async def candidates(source: str, count: int, start: Sequence[Any]) -> Sequence[DatabaseRow]:
        return await snapshot.rows(SELECT_ACCOUNTS, source, count, *start, *filters)

    async def evaluate(source: str, rows: Sequence[DatabaseRow]) -> Sequence[DatabaseRow | None]:
        every = [(row["account"], row["currency"]) for row in rows]
        sums = await balance_index.sums(snapshot.connection, bound(snapshot, source), every)
        return [_balance(row, *sums[account]) for row, account in zip(rows, every, strict=True)]

    key = {"account": str, "currency": str}
    rows, following = await page(snapshot, params, key, candidates, evaluate)
    return Balances(
        balances=[from_row(Balance, row) for row in rows],
        next=following,
        position=snapshot.position,
        parked=snapshot.parked,
        as_of=snapshot.as_of,
    )


async def balances_of(
    snapshot: Snapshot, source: str, customer_id: str, count: int
) -> list[Balance]:
    """Read what the first balances of a customer's own accounts were."""
    of_customer = (None, None, None, customer_id)
    rows = await snapshot.rows(SELECT_ACCOUNTS, source, count, None, None, *of_customer)
    every = [(row["account"], row["currency"]) for row in rows]
    sums = await balance_index.sums(snapshot.connection, bound(snapshot, source), every)
    made = [_balance(row, *sums[account]) for row, account in zip(rows, every, strict=True)]
    return [from_row(Balance, row) for row in made if row is not None]


def _balance(row: DatabaseRow, debits: Any, credited: Any) -> DatabaseRow | None:
    if not (debits or credited):
        return None
    side = normal_side(row["account"])
    balance = plain(debits - credited if side == "debit" else credited - debits)
    return {**row, "debits": debits, "credits": credited, "balance": balance, "normal": side}


async def entries(snapshot: Snapshot, params: QueryParams) -> Entries:
    """Read the journal lines that were there, in log order."""
    places = snapshot.position
    rows, following = await ENTRIES_THEN.page(
        snapshot,
        params,
        *account_filters(params),
        params.texts("currency"),
        params.text("transaction"),
        params.time("from"),
        params.time("to"),
        snapshot.effective_at,
        _json(places),
        floors=line_floors(snapshot, params),
    )
    return Entries(
        entries=[from_row(Entry, row) for row in rows],
        next=following,
        position=places,
        as_of=snapshot.as_of,
    )


def _json(places: Mapping[str, int]) -> str:
    return "{" + ",".join(f'"{source}":{place}' for source, place in places.items()) + "}"


async def transactions(snapshot: Snapshot, params: QueryParams) -> Transactions:
    """Read transactions as they were, each with its history until then.

    Raises InvalidRequest for what only lists of the present take.
    """
    _check_dated(params)
    filters = (
        params.texts("kind"),
        params.text("customer_id"),
        params.texts("currency"),
        params.text("idempotency_id"),
    )

    async def candidates(source: str, count: int, start: Sequence[Any]) -> Sequence[DatabaseRow]:
        place = snapshot.places[source].books
        return await snapshot.rows(SELECT_CANDIDATES, source, count, *start, place, *filters)

    async def evaluate(source: str, rows: Sequence[DatabaseRow]) -> Sequence[DatabaseRow | None]:
        made = await _transactions(snapshot, source, [(row["kind"], row["id"]) for row in rows])
        return [row if row is not None and _is_listed(row, params) else None for row in made]

    rows, following = await page(snapshot, params, {"first_position": int}, candidates, evaluate)
    steps = {}
    for source in snapshot.places:
        keys = [(row["kind"], row["id"]) for row in rows if row["source"] == source]
        steps[source] = await histories_then(snapshot, source, keys) if keys else {}
    listed = [
        from_row(Transaction, row, history=steps[row["source"]].get((row["kind"], row["id"]), []))
        for row in rows
    ]
    return Transactions(
        transactions=listed, next=following, position=snapshot.position, as_of=snapshot.as_of
    )


async def _transactions(
    snapshot: Snapshot, source: str, keys: Sequence[tuple[str, str]]
) -> list[dict[str, Any] | None]:
    made = await rows_then(snapshot, source, keys)
    named = [row for row in made if row is not None and row["idempotency_id"] is not None]
    columns = [[row[name] for row in named] for name in ("kind", "id", "idempotency_id")]
    place = snapshot.places[source].books, snapshot.effective_at
    sharing = await snapshot.rows(SELECT_REUSED, source, *columns, *place) if named else []
    reused = {(row["kind"], row["id"]) for row in sharing}
    for row in made:
        if row is not None:
            flags = list(row["flags"] or ())
            is_new = (row["kind"], row["id"]) in reused and REUSED not in flags
            row["flags"] = [*flags, REUSED] if is_new else flags
    return made


def _check_dated(params: QueryParams) -> None:
    for name in PRESENT_ONLY:
        if params.text(name) is not None:
            raise InvalidRequest(
                f"{name} answers for the present only; leave it out, or effective_at, recorded_at "
                "and position"
            )


def _is_listed(row: DatabaseRow, params: QueryParams) -> bool:
    """Return whether the row of a candidate matches the filters that its past may decide."""
    for name in ("customer_id", "idempotency_id"):
        requested = params.text(name)
        if requested is not None and row[name] != requested:
            return False
    for name in ("status", "currency"):
        values = params.texts(name)
        if values is not None and row[name] not in values:
            return False
    flags = params.texts("flag")
    return (
        (flags is None or not {*flags}.isdisjoint(row["flags"]))
        and _is_between(row["effective_at"], params.time("from"), params.time("to"))
        and _is_within(row["amount"], params.amount("amount_min"), params.amount("amount_max"))
    )


def _is_within(amount: Decimal | None, least: Decimal | None, greatest: Decimal | None) -> bool:
    if amount is None:
        return least is None and greatest is None
    return (least is None or amount >= least) and (greatest is None or amount <= greatest)


def _is_between(moment: datetime | None, first: datetime | None, end: datetime | None) -> bool:
    if moment is None:
        return first is None and end is None
    return (first is None or moment >= first) and (end is None or moment < end)


async def transaction(snapshot: Snapshot, params: QueryParams) -> TransactionDetail:
    """Read one transaction as it was, with the journal lines and events of then.

    Raises NotFound, or Conflicting when several kinds shared the id and none is named.
    """
    source, id_ = snapshot.check(params.need("source")), params.need("id")
    kind = params.text("kind")
    known = [row["kind"] for row in await snapshot.rows(SELECT_KINDS_OF, source, id_)]
    keys = [(name, id_) for name in known if kind in (None, name)]
    rows = [row for row in await _transactions(snapshot, source, keys) if row is not None]
    if not rows:
        of_kind = f" of kind {kind}" if kind else ""
        raise NotFound(f"source {source} had no transaction {id_!r}{of_kind} then")
    if len(rows) > 1:
        names = ", ".join(row["kind"] for row in rows)
        raise Conflicting(
            f"several transactions have the id {id_!r}; add ?kind= with one of: {names}"
        )
    stream = (rows[0]["kind"], id_)
    within = (snapshot.places[source].books, snapshot.effective_at)
    history = await histories_then(snapshot, source, [stream])
    lines = await snapshot.rows(SELECT_ENTRIES_OF_THEN, source, *stream, *within)
    events = await snapshot.rows(SELECT_EVENTS_OF_THEN, source, *stream, *within)
    return from_row(
        TransactionDetail,
        rows[0],
        history=history.get(stream, []),
        entries=[from_row(Entry, line) for line in lines],
        events=[from_row(Mention, event) for event in events],
        returns=await _returns(snapshot, source, stream),
        decisions=await decisions(snapshot, source, stream),
        position=snapshot.position,
        as_of=snapshot.as_of,
    )


async def _returns(
    snapshot: Snapshot, source: str, stream: tuple[str, str]
) -> list[TransactionReturn]:
    """Read what the first returns of a transaction were that counted then."""
    within = snapshot.places[source].books, snapshot.effective_at
    found = await snapshot.rows(SELECT_RETURNS_OF, source, *stream, *within, RETURNS_MAX)
    keys = [(row["kind"], row["id"]) for row in found]
    rows: list[dict[str, Any] | None] = []
    for first in range(0, len(keys), STREAMS_AT_ONCE):
        rows += await rows_then(snapshot, source, keys[first : first + STREAMS_AT_ONCE])
    return [from_row(TransactionReturn, row) for row in rows if row is not None]
