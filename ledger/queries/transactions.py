"""Reading transactions: lists in several orders, what they add up to, and one in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
from msgspec import UNSET, UnsetType

from ledger.errors import Conflicting, InvalidRequest, NotFound
from ledger.queries.kinds import kinds_of
from ledger.queries.params import POSITION_MAX, QueryParams, marked_after, write_cursor
from ledger.queries.schemas.money import (
    Entry,
    Mention,
    Step,
    Total,
    Transaction,
    TransactionDecision,
    TransactionDetail,
    TransactionReturn,
    Transactions,
    from_row,
)
from ledger.queries.snapshot import DatabaseRow, Listing, Snapshot, group_rows

REUSED: Final = "idempotency_id_reused"
"""The flag of transactions that share their idempotency ID with another of the same kind."""


def matching(first: int, kind_and_customer: str = "") -> str:
    """Write the transactions `t` that match the FILTERS, of which parameter `$first` is the first.

    `kind_and_customer` replaces the conditions on these two.
    """
    n = [f"${number}" for number in range(first, first + len(FILTERS))]
    named = (
        kind_and_customer
        or f"""
       ({n[0]}::text[] IS NULL OR t.kind = ANY ({n[0]}))
   AND ({n[2]}::text IS NULL
        OR t.customer_id = {n[2]}
           AND hashtextextended(t.customer_id, 0) = hashtextextended({n[2]}, 0))"""
    )
    return f"""
  FROM transactions AS t
 CROSS JOIN LATERAL (
       SELECT EXISTS (SELECT FROM transactions AS o
                       WHERE o.source = t.source AND o.idempotency_id = t.idempotency_id
                         AND hashtextextended(o.idempotency_id, 0)
                             = hashtextextended(t.idempotency_id, 0)
                         AND o.kind = t.kind AND o.id <> t.id) AS it) AS reused
 WHERE {named}
   AND ({n[1]}::text[] IS NULL OR t.status = ANY ({n[1]}))
   AND ({n[3]}::text[] IS NULL OR t.currency = ANY ({n[3]}))
   AND ({n[4]}::text IS NULL
        OR t.idempotency_id = {n[4]}
           AND hashtextextended(t.idempotency_id, 0) = hashtextextended({n[4]}, 0))
   AND ({n[5]}::text[] IS NULL
        OR t.flags && {n[5]} OR 'idempotency_id_reused' = ANY ({n[5]}) AND reused.it)
   AND ({n[6]}::timestamptz IS NULL OR t.effective_at >= {n[6]})
   AND ({n[7]}::timestamptz IS NULL OR t.effective_at < {n[7]})
   AND ({n[8]}::numeric IS NULL OR t.amount >= {n[8]})
   AND ({n[9]}::numeric IS NULL OR t.amount <= {n[9]})
   AND ({n[10]}::text IS NULL
        OR t.id = {n[10]} AND hashtextextended(t.id, 0) = hashtextextended({n[10]}, 0))
"""  # noqa: S608 - made of the numbers of parameters


FILTERS: Final = (
    "kind", "status", "customer_id", "currency", "idempotency_id", "flag", "from", "to",
    "amount_min", "amount_max", "id",
)  # fmt: skip
"""The filters of a list of transactions, in the order of the statements' parameters."""

COLUMNS: Final = """
       t.source, t.kind, t.id, t.idempotency_id, t.status, t.amount, t.currency, t.fees,
       t.customer_id, t.effective_at, t.flags, t.conflict, t.return_of, t.details,
       t.first_position, reused.it AS reused"""
# All take: $1 source, $2 rows, then the key of the last row seen, then the filters.
SELECT_TRANSACTIONS: Final = f"""
SELECT {COLUMNS} {matching(4)}
   AND t.source = $1 AND ($3::bigint IS NULL OR t.first_position < $3)
 ORDER BY t.first_position DESC LIMIT $2
"""
SELECT_CHANGED: Final = f"""
SELECT {COLUMNS}, t.position AS changed_position {matching(5)}
   AND t.source = $1
   AND ($3::bigint IS NULL OR (t.position, t.first_position) > ($3, $4::bigint))
 ORDER BY t.position, t.first_position LIMIT $2
"""
SELECT_EARLIEST: Final = f"""
SELECT {COLUMNS} {matching(5)}
   AND t.source = $1
   AND ($3::timestamptz IS NULL OR (t.effective_at, t.first_position) > ($3, $4::bigint))
 ORDER BY t.effective_at, t.first_position LIMIT $2
"""
SELECT_LATEST: Final = f"""
SELECT {COLUMNS} {matching(5)}
   AND t.source = $1
   AND ($3::timestamptz IS NULL OR (t.effective_at, t.first_position) < ($3, $4::bigint))
 ORDER BY t.effective_at DESC, t.first_position DESC LIMIT $2
"""
# Of one customer, $7: kind by kind, each a walk along an index of its own. `||` and coalesce keep
# the planner from other indexes, which look as good where all that is known are averages.
_OF_CUSTOMER: Final = matching(
    5,
    """t.kind = kinds.kind AND coalesce(t.customer_id, '') = $7
   AND hashtextextended(t.kind || coalesce(t.customer_id, ''), 0)
       = hashtextextended(kinds.kind || $7, 0)""",
)
SELECT_EARLIEST_OF: Final = f"""
SELECT l.* FROM unnest($5::text[]) AS kinds(kind)
 CROSS JOIN LATERAL (
       SELECT {COLUMNS} {_OF_CUSTOMER}
          AND t.source || '' = $1
          AND ($3::timestamptz IS NULL OR t.effective_at >= $3
               AND (t.effective_at, t.first_position + 0) > ($3, $4::bigint))
        ORDER BY t.effective_at, t.first_position LIMIT $2) AS l
 ORDER BY l.effective_at, l.first_position LIMIT $2
"""  # noqa: S608 - made of the constants above
SELECT_LATEST_OF: Final = f"""
SELECT l.* FROM unnest($5::text[]) AS kinds(kind)
 CROSS JOIN LATERAL (
       SELECT {COLUMNS} {_OF_CUSTOMER}
          AND t.source || '' = $1
          AND ($3::timestamptz IS NULL OR t.effective_at <= $3
               AND (t.effective_at, t.first_position + 0) < ($3, $4::bigint))
        ORDER BY t.effective_at DESC, t.first_position DESC LIMIT $2) AS l
 ORDER BY l.effective_at DESC, l.first_position DESC LIMIT $2
"""  # noqa: S608 - made of the constants above
# $1 sources, $2 the positions after which their transactions changed.
SELECT_TOTALS: Final = f"""
SELECT l.currency, count(*) AS count, sum(l.amount) AS sum
  FROM unnest($1::text[], $2::bigint[]) AS s(source, after)
 CROSS JOIN LATERAL (
       SELECT t.currency, t.amount {matching(3)}
          AND t.source = s.source AND (s.after IS NULL OR t.position > s.after)) AS l
 GROUP BY l.currency ORDER BY l.currency
"""  # noqa: S608 - made of the constants above
SET_SECONDS_MAX: Final = "SELECT set_config('statement_timeout', $1, true)"
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


# $2 $3 the transaction, $4 $5 what was known and dated until then, $6 rows.
SELECT_RETURNS_OF: Final = """
SELECT return_kind AS kind, return_id AS id, min(effective_at) AS since FROM returns
 WHERE source = $1 AND kind = $2 AND id = $3 AND hashtextextended(id, 0) = hashtextextended($3, 0)
   AND position <= $4 AND effective_at <= $5
 GROUP BY return_kind, return_id HAVING sum(count) > 0 ORDER BY since, kind, id LIMIT $6
"""
SELECT_RETURNS: Final = f"""
SELECT t.kind, t.id, t.status, t.amount, t.currency, t.effective_at
  FROM ({SELECT_RETURNS_OF}) AS r
 CROSS JOIN LATERAL (
       SELECT * FROM transactions AS o
        WHERE o.source = $1 AND o.kind = r.kind AND o.id = r.id
          AND hashtextextended(o.id, 0) = hashtextextended(r.id, 0) LIMIT 1) AS t
 ORDER BY r.since, r.kind, r.id
"""  # noqa: S608 - made of the constant above
SELECT_DECISIONS: Final = """
SELECT position, action, reason, customer_id, note, by, recorded_at FROM decisions
 WHERE source = $1 AND kind = $2 AND id = $3 AND hashtextextended(id, 0) = hashtextextended($3, 0)
   AND position <= $4
 ORDER BY position
"""

HISTORY_MAX: Final = 1_000
"""How many of the last steps of a stream an answer has."""

TOTALS_SECONDS_MAX: Final = 3.0
"""How long totals may take; then the request is refused, with what would make it cheaper."""

RETURNS_MAX: Final = 100
"""Returns that the answer of one transaction lists; `details` counts and adds up all of them."""

_NO_TRANSACTION: Final = "source {} has no transaction {!r} of kind {}"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NEWEST: Final = Listing(SELECT_TRANSACTIONS, {"first_position": int})
CHANGED: Final = Listing(
    SELECT_CHANGED,
    {"changed_position": int, "first_position": int},
    mark="changed",
    together="changed_position",
)
SORTS: Final = {
    "effective_at": (SELECT_EARLIEST, SELECT_EARLIEST_OF),
    "-effective_at": (SELECT_LATEST, SELECT_LATEST_OF),
}
"""Orders of the list by the provider's time → their statements: of all, and of one customer."""

PRESENT_ONLY: Final = ("changed_after", "sort", "totals")
"""What lists of the present take, and those of an earlier state do not."""


async def transactions(snapshot: Snapshot, params: QueryParams) -> Transactions:
    """Read transactions, each with its history.

    The newest first; with `sort` by date; with `changed_after` in the order of their last change.
    """
    changed_after = snapshot.positions(params, "changed_after")
    if params.text("sort"):
        if changed_after:
            raise InvalidRequest("changed_after lists in the order of changes; leave sort out")
        rows, following = await _by_date(snapshot, params)
    elif changed_after:
        floors = {source: (place, POSITION_MAX) for source, place in changed_after.items()}
        rows, following = await CHANGED.page(snapshot, params, *filters_of(params), floors=floors)
    else:
        rows, following = await NEWEST.page(snapshot, params, *filters_of(params))
    return Transactions(
        transactions=await _listed(snapshot, rows),
        next=following,
        position=snapshot.position,
        totals=await _totals(snapshot, params, changed_after),
    )


def filters_of(params: QueryParams) -> tuple[Any, ...]:
    """Return the arguments of the filters of a list, in the order of FILTERS."""
    return (
        params.texts("kind"),
        params.texts("status"),
        params.text("customer_id"),
        params.texts("currency"),
        params.text("idempotency_id"),
        params.texts("flag"),
        params.time("from"),
        params.time("to"),
        params.amount("amount_min"),
        params.amount("amount_max"),
        None,
    )


async def _listed(snapshot: Snapshot, rows: Sequence[DatabaseRow]) -> list[Transaction]:
    """Make the answer of rows of several sources, in their order."""
    steps: dict[tuple[str, ...], list[Step]] = {}
    for (source,), group in group_rows(rows, "source").items():
        read = await histories(snapshot, source, [(row["kind"], row["id"]) for row in group])
        steps |= {(source, *stream): history for stream, history in read.items()}
    return [
        from_row(
            Transaction,
            row,
            flags=_flags(row),
            history=steps.get((row["source"], row["kind"], row["id"]), []),
        )
        for row in rows
    ]


async def _by_date(snapshot: Snapshot, params: QueryParams) -> tuple[list[DatabaseRow], str | None]:
    """Fetch one page by date, of all requested sources together; and the next page's cursor.

    Equally old transactions are in the order of their sources and of their first positions.
    """
    sort = params.need("sort")
    statement, of_customer = SORTS[sort]
    filters = filters_of(params)
    if params.text("customer_id") is not None:
        statement, filters = of_customer, (filters[0] or kinds_of("transactions"), *filters[1:])
    requested = params.text("source")
    rows: list[DatabaseRow] = []
    for source in [snapshot.check(requested)] if requested else snapshot.places:
        start = _date_start(params, source, sort)
        rows += await snapshot.rows(statement, source, params.limit + 1, *start, *filters)
    rows.sort(
        key=lambda row: (row["effective_at"], row["source"], row["first_position"]),
        reverse=sort.startswith("-"),
    )
    if len(rows) <= params.limit:
        return rows, None
    rows = rows[: params.limit]
    last = rows[-1]
    microseconds = (last["effective_at"] - EPOCH) // timedelta(microseconds=1)
    return rows, write_cursor([last["source"], sort, microseconds, last["first_position"]])


def _date_start(params: QueryParams, source: str, sort: str) -> tuple[datetime | None, int | None]:
    """Return the key after which the rows of a source begin, by the cursor of any source."""
    if params.cursor is None:
        return None, None
    last = str(params.cursor[0])
    microseconds, position = marked_after(params, last, sort, [int, int])
    try:
        moment = EPOCH + timedelta(microseconds=int(microseconds or 0))
    except OverflowError as error:
        raise InvalidRequest("cursor is not one that this address gave") from error
    if source == last:
        return moment, int(position or 0)
    # At the moment of the cursor, rows of sources before its own are the smaller ones.
    return moment, POSITION_MAX if source < last else -1


async def _totals(
    snapshot: Snapshot, params: QueryParams, changed_after: Mapping[str, int]
) -> list[Total] | UnsetType:
    """Count and add up the whole list, if `totals` asks for it. Raises InvalidRequest."""
    if not params.is_true("totals"):
        return UNSET
    requested = params.text("source")
    sources = list(snapshot.places) if requested is None else [snapshot.check(requested)]
    rows = await bounded_rows(
        snapshot,
        TOTALS_SECONDS_MAX,
        SELECT_TOTALS,
        sources,
        [changed_after.get(source) for source in sources],
        *filters_of(params),
    )
    return [from_row(Total, row) for row in rows]


async def bounded_rows(
    snapshot: Snapshot, seconds_max: float, statement: str, *values: Any
) -> list[DatabaseRow]:
    """Fetch every row of a statement whose cost depends on the length of a list.

    Raises InvalidRequest when it takes longer than `seconds_max`.
    """
    await snapshot.rows(SET_SECONDS_MAX, f"{max(1, round(seconds_max * 1_000))}ms")
    try:
        rows = await snapshot.rows(statement, *values)
    except asyncpg.QueryCanceledError as error:
        raise InvalidRequest(
            f"totals: adding up this list takes longer than {seconds_max:g} s; narrow it, for "
            "example with from= and to= or with customer_id=, or leave totals out"
        ) from error
    await snapshot.rows(SET_SECONDS_MAX, "0")
    return rows


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
    rows = await snapshot.rows(SELECT_TRANSACTIONS, source, 1, None, [kind], *(None,) * 9, id_)
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
        returns=await _returns(snapshot, source, stream),
        decisions=await decisions(snapshot, source, stream),
        position=snapshot.position,
    )


async def _returns(
    snapshot: Snapshot, source: str, stream: tuple[str, str]
) -> list[TransactionReturn]:
    """Read the first RETURNS_MAX returns of a transaction, by kind and id."""
    within = snapshot.places[source].books, snapshot.effective_at
    rows = await snapshot.rows(SELECT_RETURNS, source, *stream, *within, RETURNS_MAX)
    return [from_row(TransactionReturn, row) for row in rows]


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
