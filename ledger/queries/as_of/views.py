"""As-of for views: the rows of a table of the books as they were, by how its rows come about.

A stream's row is folded again from the facts that counted then. Rows made event by event never
change: those whose column `position` is beyond the state are left out. Balances are summed again
over the journal. Other tables keep nothing from which an earlier state could be made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

from ledger import registry
from ledger.books import balance_index
from ledger.books.balance_index import FOREVER, SHARD_BITS
from ledger.database.copy_format import array_of, arrays
from ledger.errors import InvalidRequest
from ledger.model import Table
from ledger.queries.as_of.snapshot import Read, bound, page, rows_then
from ledger.queries.params import QueryParams
from ledger.queries.snapshot import DatabaseRow, Snapshot
from ledger.queries.views import FRAMEWORK_ORDER, TableList, list_statement

BALANCES: Final = "balances"
"""The table of sums over the journal; the journal says what they were."""

# An account that was posted to has a row, even when its sums are zero again.
SELECT_POSTED_THEN: Final = f"""
SELECT u.account, u.currency FROM unnest($2::text[], $3::text[]) AS u(account, currency)
 WHERE EXISTS (
       SELECT FROM generate_series($4::bigint >> {SHARD_BITS}, 0, -1) AS shards(shard)
        CROSS JOIN LATERAL (
              SELECT FROM entries
               WHERE source || '' = $1 AND account = u.account AND currency = u.currency
                 AND (position >> {SHARD_BITS} << 32) + hashtext(account)
                     = (shard << 32) + hashtext(u.account)
                 AND effective_at > '-infinity' AND effective_at <= $5 AND position <= $4
               LIMIT 1) AS l)
"""  # noqa: S608 - made of the constant SHARD_BITS


def historical_read(listed: TableList) -> Read | None:
    """Return the read of a table's earlier states; None when the books keep none of it."""
    table = listed.table
    if any(stream.table.name == table.name for stream in registry.load().streams.values()):
        return StreamRows(listed).read
    if table.name == BALANCES:
        return partial(read_balances, listed)
    if _is_of_events(table) and listed.columns.get("position") == "bigint":
        return partial(read_events, listed)
    return None


def limits_of_as_of(listed: TableList) -> str:
    """Say in a sentence which as-of parameters a table's list refuses; "" when none."""
    if historical_read(listed) is None:
        return "It answers for the present only."
    if _is_of_events(listed.table) and not _is_dated(listed):
        return "Its rows are not dated by the provider: `effective_at` is refused."
    return ""


def _is_of_events(table: Table) -> bool:
    return table.mode == "append"


def _is_dated(listed: TableList) -> bool:
    return listed.columns.get("effective_at") == "timestamptz"


@dataclass(frozen=True)
class StreamRows:
    """The earlier rows of a table with one row per stream."""

    listed: TableList

    @cached_property
    def candidates(self) -> str:
        """The statement that finds streams by what never changes: their key."""
        table = self.listed.table
        filters = [self.listed.filters[name] for name in self.key_filters]
        kinds = {**table.columns, **FRAMEWORK_ORDER}
        return list_statement(table, ("kind", "id", "first_position"), kinds, filters)

    @cached_property
    def key_filters(self) -> tuple[str, ...]:
        """The filters whose columns are in the key."""
        return tuple(name for name in self.listed.filters if name in self.listed.table.key)

    @cached_property
    def as_stored(self) -> str:
        """The statement that makes rows of values as the table would have them, and filters them.

        Its parameters are the columns as arrays, then the filters.
        """
        columns = self.listed.columns
        slots = [
            f"${place}::text::{array_of(kind)}"
            for place, kind in enumerate(columns.values(), start=1)
        ]
        cast = [f"u.{name}::{kind} AS {name}" for name, kind in columns.items()]
        conditions = [
            filter_.condition(place)
            for place, filter_ in enumerate(self.listed.filters.values(), start=1 + len(columns))
        ]
        return (
            f"SELECT t.* FROM (SELECT {', '.join(cast)}, u.ordinality "  # noqa: S608
            f"FROM unnest({', '.join(slots)}) WITH ORDINALITY AS u({', '.join(columns)})) AS t "
            f"WHERE {' AND '.join(conditions) or 'true'}"
        )

    async def read(self, snapshot: Snapshot, params: QueryParams) -> Any:
        """Read one page of the rows as they were; filters are about the rows of then."""
        given = self.listed.filter_values(params)
        of_key = [given[name] for name in self.key_filters]

        async def candidates(
            source: str, count: int, start: Sequence[Any]
        ) -> Sequence[DatabaseRow]:
            rows = await snapshot.rows(self.candidates, source, count, *start, *of_key)
            if self.listed.table.order == ("first_position",):
                return _until(rows, "first_position", snapshot.places[source].books)
            return rows

        async def evaluate(
            source: str, rows: Sequence[DatabaseRow]
        ) -> Sequence[DatabaseRow | None]:
            place = snapshot.places[source].books
            keys = [(r["kind"], r["id"]) for r in rows if r["first_position"] <= place]
            made = [row for row in await rows_then(snapshot, source, keys) if row is not None]
            known = await self._stored(snapshot, made, given)
            return [known.get((row["kind"], row["id"])) for row in rows]

        key = self.listed.listing.key
        rows, following = await page(snapshot, params, key, candidates, evaluate)
        return self.listed.page_of(snapshot, rows, following)

    async def _stored(
        self, snapshot: Snapshot, rows: Sequence[Mapping[str, Any]], given: Mapping[str, Any]
    ) -> dict[tuple[str, str], DatabaseRow]:
        """Return rows as the table would return them, those that the filters allow, by stream."""
        if not rows:
            return {}
        columns = self.listed.columns
        values = arrays(
            tuple(columns.values()), [tuple(row[name] for name in columns) for row in rows]
        )
        stored = await snapshot.rows(self.as_stored, *values, *given.values())
        streams = [(row["kind"], row["id"]) for row in rows]
        return {streams[row["ordinality"] - 1]: row for row in stored}


async def read_events(listed: TableList, snapshot: Snapshot, params: QueryParams) -> Any:
    """Read one page of a table with rows of single events: those up to the position.

    Raises InvalidRequest for `effective_at` where the rows have no such time.
    """
    given = listed.filter_values(params).values()
    is_dated = _is_dated(listed)
    if snapshot.effective_at != FOREVER and not is_dated:
        raise InvalidRequest(
            f"the rows of {listed.table.name} are not dated by the provider: use recorded_at or "
            "position"
        )

    async def candidates(source: str, count: int, start: Sequence[Any]) -> Sequence[DatabaseRow]:
        rows = await listed.listing.rows(snapshot, source, count, start, *given)
        if listed.table.order[0] == "position":
            return _until(rows, "position", snapshot.places[source].books)
        return rows

    async def evaluate(source: str, rows: Sequence[DatabaseRow]) -> Sequence[DatabaseRow | None]:
        place = snapshot.places[source].books
        return [row if row["position"] <= place and is_before(row) else None for row in rows]

    def is_before(row: DatabaseRow) -> bool:
        moment = row["effective_at"] if is_dated else None
        return moment is None or moment <= snapshot.effective_at

    rows, following = await page(snapshot, params, listed.listing.key, candidates, evaluate)
    return listed.page_of(snapshot, rows, following)


def _until(rows: Sequence[DatabaseRow], column: str, place: int) -> Sequence[DatabaseRow]:
    """Return the rows up to a position; a list in the order of positions ends there."""
    return [row for row in rows if row[column] <= place]


async def read_balances(listed: TableList, snapshot: Snapshot, params: QueryParams) -> Any:
    """Read one page of the balances: sums over the journal lines that counted then."""
    given = listed.filter_values(params).values()

    async def candidates(source: str, count: int, start: Sequence[Any]) -> Sequence[DatabaseRow]:
        return await listed.listing.rows(snapshot, source, count, start, *given)

    async def evaluate(source: str, rows: Sequence[DatabaseRow]) -> Sequence[DatabaseRow | None]:
        accounts = [(row["account"], row["currency"]) for row in rows]
        within = bound(snapshot, source)
        sums = await balance_index.sums(snapshot.connection, within, accounts)
        empty = [account for account in accounts if not any(sums[account])]
        columns = [account for account, _ in empty], [currency for _, currency in empty]
        place = snapshot.places[source].books
        posted = await snapshot.rows(
            SELECT_POSTED_THEN, source, *columns, place, snapshot.effective_at
        )
        missing = {*empty} - {(row["account"], row["currency"]) for row in posted}
        return [
            None if account in missing else {**row, **_sums(*sums[account])}
            for row, account in zip(rows, accounts, strict=True)
        ]

    rows, following = await page(snapshot, params, listed.listing.key, candidates, evaluate)
    return listed.page_of(snapshot, rows, following)


def _sums(debits: Any, credited: Any) -> dict[str, Any]:
    return {"debits": debits, "credits": credited}
