"""Reading: one snapshot per request, so every answer is true at one position of each source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg
from msgspec import UNSET, UnsetType

from ledger.books.balance_index import FOREVER
from ledger.database.errors import CONNECTION_LOST, UNKNOWN_NAMES
from ledger.errors import DatabaseUnavailable, InvalidRequest, NotCaughtUp, NotFound
from ledger.queries.params import (
    QueryParams,
    after,
    marked_after,
    positions_by_source,
    write_cursor,
)
from ledger.queries.schemas.money import AsOf

BARRIER_SECONDS_MAX: Final = 5.0
PAUSE_SECONDS_MIN: Final = 0.010
PAUSE_SECONDS_MAX: Final = 0.050
CONNECTION_SECONDS_MAX: Final = 4.0
SWAPS_MAX: Final = 3
"""How often a request starts again because the books were swapped meanwhile."""

# Optional filters are `$n IS NULL OR …`: only a plan made for the actual values drops them. Without
# statistics a log's name looks selective: bitmaps would read a whole index to narrow down by it
# what a good one has found already.
OPEN: Final = """
SELECT generation, version,
       set_config('search_path', 'books_' || generation || ', ledger', true),
       set_config('plan_cache_mode', 'force_custom_plan', true),
       set_config('enable_bitmapscan', 'off', true)
  FROM ledger.generations WHERE state = 'live'
"""
SELECT_PLACES: Final = """
SELECT h.source, h.position AS head, coalesce(c.position, 0) AS books,
       (SELECT count(*) FROM parked AS p WHERE p.source = h.source) AS parked
  FROM ledger.heads AS h LEFT JOIN checkpoints AS c ON c.source = h.source
 ORDER BY h.source COLLATE "C"
"""

SWAPPED: Final = (
    asyncpg.InvalidCachedStatementError,
    asyncpg.UndefinedTableError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.OutdatedSchemaCacheError,
)
"""What a request gets when its generation is dropped after its snapshot was taken."""

OLDER_BOOKS: Final = (
    "the books are being rebuilt for this version of the program, and those of the version before, "
    "which answer until then, lack what is requested; repeat it later (/v1/status)"
)

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
DatabaseRow: TypeAlias = Mapping[str, Any]
"""A database row: column → value."""
A = TypeVar("A")


class BooksBehind(NotCaughtUp):
    """The books have not reached the positions in the message; waiting a little may help."""


@dataclass(frozen=True, slots=True)
class SourcePlace:
    """The last positions of one source's log and books."""

    head: int
    books: int
    parked: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of the database: a read-only transaction and the positions it shows."""

    connection: Any
    generation: int
    places: Mapping[str, SourcePlace]
    as_of: AsOf | UnsetType = UNSET
    """Which earlier state is read; `places` are then those of that state."""
    version: str = ""
    """Which version of handlers and projections folded the books."""

    @property
    def books(self) -> str:
        """Which books answer: `<generation>/<version>`."""
        return f"{self.generation}/{self.version}"

    @property
    def effective_at(self) -> datetime:
        """The time up to which the provider may have dated what is read."""
        as_of = self.as_of
        at = None if isinstance(as_of, UnsetType) else as_of.effective_at
        return FOREVER if at is None else at

    @property
    def position(self) -> dict[str, int]:
        """The books' position per source."""
        return {source: place.books for source, place in self.places.items()}

    @property
    def head(self) -> dict[str, int]:
        """The log's position per source."""
        return {source: place.head for source, place in self.places.items()}

    @property
    def parked(self) -> int:
        """Events that are set aside, over all sources."""
        return sum(place.parked for place in self.places.values())

    def check(self, source: str) -> str:
        """Return `source` if it has a log. Raises NotFound, naming those that have one."""
        if source not in self.places:
            known = ", ".join(self.places) or "none"
            raise NotFound(f"there is no source {source!r}; the sources are: {known}")
        return source

    def sources(self, params: QueryParams) -> list[str]:
        """Return the sources that a page may show, in order."""
        requested = params.text("source")
        names = list(self.places) if requested is None else [self.check(requested)]
        first = params.cursor[0] if params.cursor else ""
        return [name for name in names if name >= str(first)]

    def positions(self, params: QueryParams, name: str) -> dict[str, int]:
        """Return the positions that a parameter names, by source; 0 for those it does not name.

        Raises NotFound for an unknown source, InvalidRequest for a bare position where several
        sources are requested, for a source that is not requested, and beyond the end of a log.
        """
        places = params.positions(name)
        if places is None:
            return {}
        for source in places if isinstance(places, Mapping) else ():
            self.check(source)
        requested = params.text("source")
        sources = list(self.places) if requested is None else [self.check(requested)]
        heads = {source: self.places[source].head for source in sources}
        named = positions_by_source(name, places, heads)
        for source, place in named.items():
            if place > heads[source]:
                raise InvalidRequest(
                    f"{name} {place} is beyond the log of {source}: it ends at {heads[source]}"
                )
        return dict.fromkeys(sources, 0) | named

    async def rows(self, statement: str, *values: Any) -> list[DatabaseRow]:
        """Fetch every row."""
        return list(await self.connection.fetch(statement, *values))

    async def row(self, statement: str, *values: Any) -> DatabaseRow | None:
        """Fetch the first row."""
        row: DatabaseRow | None = await self.connection.fetchrow(statement, *values)
        return row


@dataclass(frozen=True, slots=True)
class Listing:
    """A list: its statement takes $1 source, $2 rows, then the key, then the filters.

    `key` names the columns, within a source, that order the rows, with their types.
    """

    statement: str
    key: Mapping[str, type]
    mark: str = ""
    """What its cursors name, where an address lists in several orders."""
    together: str = ""
    """A column whose equal values one page shows whole, unless they are more than a page."""

    async def page(
        self,
        snapshot: Snapshot,
        params: QueryParams,
        *filters: Any,
        floors: Mapping[str, tuple[Any, ...]] | None = None,
    ) -> tuple[list[DatabaseRow], str | None]:
        """Fetch one page, source by source; return its rows and the next page's cursor.

        `floors` has the keys, by source, after which ascending rows begin. Every statement names
        one source, so that each is answered from an index.
        """
        rows: list[DatabaseRow] = []
        for source in snapshot.sources(params):
            start = self._start(params, source, (floors or {}).get(source))
            count = params.limit + 1 - len(rows)
            rows += await self.rows(snapshot, source, count, start, *filters)
            if len(rows) > params.limit:
                return self._cut(rows)
        return rows, None

    def cursor(self, row: DatabaseRow) -> str:
        """Return the cursor of the page after a row."""
        mark = [self.mark] if self.mark else []
        return write_cursor([row["source"], *mark, *(row[name] for name in self.key)])

    def _start(
        self, params: QueryParams, source: str, floor: tuple[Any, ...] | None
    ) -> Sequence[Any]:
        kinds = list(self.key.values())
        start = (
            marked_after(params, source, self.mark, kinds)
            if self.mark
            else after(params, source, kinds)
        )
        if floor is None:
            return start
        return floor if start[0] is None else max(floor, tuple(start))

    def _cut(self, rows: list[DatabaseRow]) -> tuple[list[DatabaseRow], str]:
        """Cut the row off that is beyond the page, and those that must be shown with it."""
        beyond = rows.pop()
        if self.together:
            place = (beyond["source"], beyond[self.together])
            kept = [row for row in rows if (row["source"], row[self.together]) != place]
            rows = kept or rows
        return rows, self.cursor(rows[-1])

    async def rows(
        self, snapshot: Snapshot, source: str, count: int, start: Sequence[Any], *filters: Any
    ) -> list[DatabaseRow]:
        """Fetch up to `count` rows of a source after the key `start`."""
        return await snapshot.rows(self.statement, source, count, *start, *filters)


@asynccontextmanager
async def open_snapshot(connection: Any) -> AsyncIterator[Snapshot]:
    """Open a snapshot for the length of a block. Raises NotCaughtUp when there are no books."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        live = await connection.fetchrow(OPEN)
        if live is None:
            raise NotCaughtUp("there are no books yet; the worker builds them when it starts")
        places = {
            row["source"]: SourcePlace(row["head"], row["books"], row["parked"])
            for row in await connection.fetch(SELECT_PLACES)
        }
        yield Snapshot(connection, live["generation"], places, version=live["version"])


async def read_consistent(
    pool: Pool,
    at_least: Mapping[str, int],
    read: Callable[[Snapshot], Awaitable[A]],
    seconds_max: float = BARRIER_SECONDS_MAX,
) -> A:
    """Run `read` in one snapshot whose books are at `at_least` or beyond.

    Waits up to `seconds_max` for them, and as long as `read` raises BooksBehind; then raises
    NotCaughtUp, also where books of an earlier version lack what is read. Raises NotFound for an
    unknown source, DatabaseUnavailable when the database does not answer.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds_max
    pause = PAUSE_SECONDS_MIN
    swaps = 0
    while True:
        try:
            async with (
                pool.acquire(timeout=CONNECTION_SECONDS_MAX) as connection,
                open_snapshot(connection) as snapshot,
            ):
                behind = _behind(snapshot, at_least)
                if not behind:
                    return await read(snapshot)
        except BooksBehind as error:
            behind = str(error)
        except SWAPPED as error:
            swaps += 1
            if swaps > SWAPS_MAX:
                if isinstance(error, UNKNOWN_NAMES):
                    raise NotCaughtUp(OLDER_BOOKS) from error
                raise DatabaseUnavailable(
                    "the books are being replaced; repeat the request"
                ) from error
            continue
        except UNKNOWN_NAMES as error:
            raise NotCaughtUp(OLDER_BOOKS) from error
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            raise DatabaseUnavailable("the database did not answer; repeat the request") from error
        if clock() + pause > deadline:
            raise NotCaughtUp(
                f"the books have not reached {behind} within {seconds_max:g} s; repeat the request"
            )
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, PAUSE_SECONDS_MAX)


def _behind(snapshot: Snapshot, at_least: Mapping[str, int]) -> str:
    """Name the positions that the books have not reached; "" when there are none."""
    missing = [
        f"{source}:{position}"
        for source, position in at_least.items()
        if snapshot.places[snapshot.check(source)].books < position
    ]
    return ",".join(missing)


def group_rows(
    rows: Sequence[DatabaseRow], *names: str
) -> dict[tuple[Any, ...], list[DatabaseRow]]:
    """Group rows by the values of some columns, keeping their order."""
    groups: dict[tuple[Any, ...], list[DatabaseRow]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups
