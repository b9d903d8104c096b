"""What can be exported as a table, and how it is read: page by page, in one snapshot.

A list of the query API is read by its own function with its own parameters, so that an export has
what the address answers at the same position.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec
import orjson

from ledger.errors import InvalidRequest, Tampered
from ledger.evidence.store import events_after
from ledger.export.jsonl import event_line
from ledger.export.tables import (
    ENCODERS,
    EVENT_COLUMNS,
    ExportColumn,
    Row,
    RowEncoder,
    columns_of,
)
from ledger.queries.as_of.snapshot import Read, earlier
from ledger.queries.params import LIMIT_MAX, QueryParams, Route, parse_params
from ledger.queries.snapshot import Snapshot

EVENTS_MAX: Final = 1_000
BYTES_MAX: Final = 16 * 1024 * 1024

Query: TypeAlias = Sequence[tuple[str, str]]
"""The parameters of a request, as they were given."""
Pages: TypeAlias = Callable[[Snapshot, Query, int], AsyncIterator[list[Row]]]
"""(snapshot, query, rows a page) → every page."""

SELECT_POSITION_BEFORE: Final = """
SELECT ledger.position_at($1, $2::timestamptz - interval '1 microsecond') AS position
"""


@dataclass(frozen=True, slots=True)
class ExportedList:
    """A table that can be exported."""

    name: str
    route: Route
    """The list's address: which parameters it takes."""
    columns: Sequence[ExportColumn]
    pages: Pages

    async def select(self, snapshot: Snapshot, query: Query) -> tuple[Snapshot, QueryParams]:
        """Check the parameters; return the snapshot as of the time that they name.

        Raises InvalidRequest, NotFound for an unknown source, BooksBehind.
        """
        params = parse_params(self.route, {}, query)
        source = params.text("source")
        if source is not None:
            snapshot.check(source)
        if params.as_of is None:
            return snapshot, params
        return await earlier(snapshot, params, params.as_of), params


def exported_list(name: str, route: Route, read: Read, field: str) -> ExportedList:
    """Return how a list of the query API is exported: `field` of its answer has its rows."""

    async def pages(snapshot: Snapshot, query: Query, rows_max: int) -> AsyncIterator[list[Row]]:
        cursor: str | None = None
        while True:
            paging = [("limit", str(rows_max)), *([] if cursor is None else [("cursor", cursor)])]
            answer = await read(snapshot, parse_params(route, {}, [*query, *paging]))
            yield [
                msgspec.to_builtins(row, builtin_types=(msgspec.Raw,))
                for row in getattr(answer, field)
            ]
            cursor = answer.next
            if cursor is None:
                return

    types = {known.name: known.type for known in msgspec.structs.fields(route.answer)}
    return ExportedList(name, route, columns_of(types[field].__args__[0]), pages)


def exported_events(name: str, route: Route) -> ExportedList:
    """Return how the log is exported: whole events, in log order, with their bodies in base64."""

    async def pages(snapshot: Snapshot, query: Query, rows_max: int) -> AsyncIterator[list[Row]]:
        params = parse_params(route, {}, query)
        if params.as_of is not None and params.as_of.effective_at is not None:
            raise InvalidRequest(
                "events are not dated by the provider: use recorded_at or position instead of "
                "effective_at"
            )
        for source in snapshot.sources(params):
            async for rows in _events(snapshot, source, params, min(rows_max, EVENTS_MAX)):
                yield rows

    return ExportedList(name, route, EVENT_COLUMNS, pages)


async def _events(
    snapshot: Snapshot, source: str, params: QueryParams, events_max: int
) -> AsyncIterator[list[Row]]:
    """Read the requested events of one source.

    The log is read through, and events that are not requested are left out afterwards.
    """
    done, end = await _range(snapshot, source, params)
    requested = {
        name: value
        for name in ("kind", "resource_id", "status", "verdict")
        if (value := params.text(name)) is not None
    }
    while done < end:
        count = min(events_max, end - done)
        events = await events_after(snapshot.connection, source, done, count, BYTES_MAX)
        if not events:
            raise Tampered("density", done + 1, f"event {done + 1} of {source} is missing")
        done = events[-1]["position"]
        yield [
            orjson.loads(event_line(event))
            for event in events
            if all(event[name] == value for name, value in requested.items())
        ]


async def _range(snapshot: Snapshot, source: str, params: QueryParams) -> tuple[int, int]:
    """Return after which position the requested events of a source begin, and the last one."""
    place = snapshot.places[source]
    done, end = 0, place.head if params.as_of is None else place.books
    begins_at, ends_at = params.time("from"), params.time("to")
    if begins_at is not None:
        row = await snapshot.row(SELECT_POSITION_BEFORE, source, begins_at)
        done = row["position"] if row else end
    if ends_at is not None:
        row = await snapshot.row(SELECT_POSITION_BEFORE, source, ends_at)
        end = min(end, row["position"] if row else 0)
    return done, end


@dataclass(slots=True)
class TableExport:
    """One export of a table; `rows` counts what was encoded so far."""

    exported: ExportedList
    snapshot: Snapshot
    query: Query
    encoder: RowEncoder
    rows_max: int = LIMIT_MAX
    """Rows of one page."""
    rows: int = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Read and encode page by page; the chunks together are the file.

        Raises InvalidRequest for a value that the format cannot hold.
        """
        yield self.encoder.begin()
        async for rows in self.exported.pages(self.snapshot, self.query, self.rows_max):
            # In a thread: the event loop has other requests to answer meanwhile.
            yield await asyncio.to_thread(self.encoder.encode, rows)
            self.rows += len(rows)
        yield await asyncio.to_thread(self.encoder.end)


async def make_encoder(format_: str, exported: ExportedList) -> RowEncoder:
    """Return the encoder of a table format. Raises MissingExtra."""
    # In a thread: pyarrow takes a while to import.
    return await asyncio.to_thread(ENCODERS[format_], exported.columns)
