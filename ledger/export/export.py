"""`ledger export --format`: tables and journals of one snapshot, page by page.

The functions of the query API read the rows, in one transaction, so that a file has what `/v1`
answers at the same position.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import asyncpg
import msgspec
import orjson
from msgspec import UnsetType

from ledger.api.endpoints import Read, SnapshotRead
from ledger.api.routes import VIEWS, all_routes
from ledger.database import connection as database
from ledger.errors import DatabaseUnavailable, InvalidRequest, NotCaughtUp, Tampered
from ledger.evidence.store import events_after
from ledger.export.journals import DIALECTS, Dialect, day_after, groups
from ledger.export.jsonl import event_line
from ledger.export.tables import (
    EVENT_COLUMNS,
    Csv,
    DoesNotFit,
    ExportColumn,
    JsonLines,
    Parquet,
    Row,
    RowWriter,
    columns_of,
)
from ledger.queries.as_of.snapshot import earlier
from ledger.queries.params import LIMIT_MAX, QueryParams, Route, parse_params
from ledger.queries.snapshot import SWAPPED, BooksBehind, Snapshot, open_snapshot
from ledger.runtime.files import HashedFile, replacing

SECONDS_MAX: Final = 600.0
EVENTS_MAX: Final = 1_000
BYTES_MAX: Final = 16 * 1024 * 1024
SESSION: Final[dict[str, Any]] = {"idle_in_transaction_session_timeout": "0"}
"""The reader of our output may be slow."""

STDOUT: Final = "-"
EVENTS: Final = "events"
MakeWriter: TypeAlias = Callable[[HashedFile, Sequence[ExportColumn]], RowWriter]

WRITERS: Final[Mapping[str, MakeWriter]] = {
    "jsonl": JsonLines,
    "csv": Csv,
    "parquet": Parquet,
}
"""The table formats."""

LISTS: Final = ("entries", "balances", "transactions", "customers")
"""What is exported as `/v1/<what>` answers it; every other table as `/v1/views/<what>` does."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, in which form, where to, and as of when (parameters of the query API)."""

    format: str
    what: str
    out: str
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The rows, position, size and hash of an export."""

    rows: int
    position: dict[str, int]
    bytes: int
    sha256: str
    warnings: list[str] = field(default_factory=list)
    """What the export leaves out because a clock was wrong."""


async def write(dsn: str, request: ExportRequest) -> ExportResult:
    """Export to a file or stdout. Raises InvalidRequest for what does not go together."""
    if request.format in DIALECTS and request.what != "entries":
        raise InvalidRequest(f"{request.format} is a journal format: export it with --what entries")
    if request.what == EVENTS and "effective_at" in request.params:
        raise InvalidRequest(
            "events are not dated by the provider: use --recorded-at or --position"
        )
    texts: frozenset[str] = frozenset()
    while True:
        try:
            return await _write_once(dsn, request, texts)
        except DoesNotFit as error:
            texts |= {error.column}


async def _write_once(dsn: str, request: ExportRequest, texts: frozenset[str]) -> ExportResult:
    with _open_output(request) as file:
        sink = HashedFile(file)
        async with _snapshot(dsn) as snapshot:
            then, params = await _parse(snapshot, request)
            if request.format in DIALECTS:
                journal = Journal(then, params, DIALECTS[request.format](), sink)
                rows = await journal.write()
            else:
                rows = await _table(then, params, request, sink, texts)
        source = params.text("source")
        position = {s: p for s, p in then.position.items() if source in (None, s)}
        as_of = then.as_of
        warnings = [] if isinstance(as_of, UnsetType) or not as_of.warnings else as_of.warnings
        return ExportResult(rows, position, sink.size, sink.sha256, list(warnings))


@contextmanager
def _open_output(request: ExportRequest) -> Iterator[BinaryIO]:
    """Open the output. Parquet, which may have to be begun again, reaches stdout when complete."""
    if request.out != STDOUT:
        with replacing(Path(request.out)) as file:
            yield file
    elif request.format != "parquet":
        yield sys.stdout.buffer
    else:
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()


@asynccontextmanager
async def _snapshot(dsn: str) -> AsyncIterator[Snapshot]:
    try:
        async with (
            database.connected(dsn, seconds_max=SECONDS_MAX, **SESSION) as connection,
            open_snapshot(connection) as snapshot,
        ):
            yield snapshot
    except BooksBehind as error:
        raise NotCaughtUp(
            f"the books have not reached {error} yet; export again in a moment"
        ) from error
    except SWAPPED as error:
        raise DatabaseUnavailable("the books were replaced meanwhile; export again") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable(f"the database refused: {error}; export again") from error


async def _parse(snapshot: Snapshot, request: ExportRequest) -> tuple[Snapshot, QueryParams]:
    """Check the parameters; return the snapshot as of the time that they name."""
    route = _route("entries" if request.what == EVENTS else request.what)
    query = [*request.params.items(), ("limit", str(LIMIT_MAX))]
    params = parse_params(route, {}, query)
    source = params.text("source")
    if source is not None:
        snapshot.check(source)
    if params.as_of is None:
        return snapshot, params
    return await earlier(snapshot, params, params.as_of), params


def _route(what: str) -> Route:
    """Return the list that is exported. Raises InvalidRequest for an unknown one."""
    path = f"/v1/{what}" if what in LISTS else f"{VIEWS.path}/{what}"
    for route in all_routes():
        if route.path == path:
            return route
    views = [route.path.rpartition("/")[2] for route in all_routes() if route.tag == VIEWS.tag]
    known = sorted({EVENTS, *LISTS, *views} - {"views"})
    raise InvalidRequest(f"there is nothing named {what!r} to export; there is: {', '.join(known)}")


async def _pages(snapshot: Snapshot, params: QueryParams, what: str) -> AsyncIterator[list[Row]]:
    """Read every page of a list in the snapshot."""
    route = _route(what)
    read = _read_of(route)
    base, cursor = params, None
    while True:
        answer = await read(snapshot, base)
        yield [
            msgspec.to_builtins(row, builtin_types=(msgspec.Raw,))
            for row in getattr(answer, _rows_of(what))
        ]
        cursor = answer.next
        if cursor is None:
            return
        base = parse_params(route, {}, [*_query_of(params), ("cursor", cursor)])


def _query_of(params: QueryParams) -> list[tuple[str, str]]:
    """Return parameters as the query from which they were parsed."""
    query = [(name, str(value)) for name, value in params.values.items()]
    as_of = params.as_of
    if as_of is not None:
        if as_of.effective_at is not None:
            query.append(("effective_at", as_of.effective_at.isoformat()))
        if as_of.recorded_at is not None:
            query.append(("recorded_at", as_of.recorded_at.isoformat()))
        if as_of.position is not None:
            query.append(("position", str(as_of.position)))
        if as_of.positions:
            places = [f"{source}:{place}" for source, place in as_of.positions.items()]
            query.append(("position", ",".join(places)))
    return [*query, ("limit", str(params.limit))]


async def _table(
    snapshot: Snapshot, params: QueryParams, request: ExportRequest, sink: HashedFile,
    texts: frozenset[str],
) -> int:  # fmt: skip
    writers: dict[str, MakeWriter] = {**WRITERS, "parquet": partial(Parquet, texts=texts)}
    if request.what == EVENTS:
        columns: Sequence[ExportColumn] = EVENT_COLUMNS
        pages = _events(snapshot, params)
    else:
        columns = columns_of(_row_type(request.what))
        pages = _pages(snapshot, params, request.what)
    writer = writers[request.format](sink, columns)
    count = 0
    try:
        async for rows in pages:
            writer.write(rows)
            count += len(rows)
    finally:
        writer.close()
    return count


def _read_of(route: Route) -> Read:
    """Return the read behind a list."""
    endpoint = route.endpoint
    assert isinstance(endpoint, SnapshotRead), f"{route.path} is no list"
    return endpoint.read


def _rows_of(what: str) -> str:
    """Return the field of a list's answer that has its rows."""
    return what if what in LISTS else "rows"


def _row_type(what: str) -> type[Any]:
    """Return the type of a list's rows."""
    fields = {each.name: each.type for each in msgspec.structs.fields(_route(what).answer)}
    row: type[Any] = fields[_rows_of(what)].__args__[0]
    return row


async def _events(snapshot: Snapshot, params: QueryParams) -> AsyncIterator[list[Row]]:
    """Read the events, bodies included, up to the position that the parameters name."""
    for source in snapshot.sources(params):
        place = snapshot.places[source]
        end = place.head if params.as_of is None else place.books
        done = 0
        while done < end:
            count = min(EVENTS_MAX, end - done)
            rows = await events_after(snapshot.connection, source, done, count, BYTES_MAX)
            if not rows:
                raise Tampered("density", done + 1, f"event {done + 1} of {source} is missing")
            yield [orjson.loads(event_line(row)) for row in rows]
            done = rows[-1]["position"]


@dataclass(slots=True)
class Journal:
    """Writes a journal: complete entries, then the balances that they must add up to."""

    snapshot: Snapshot
    params: QueryParams
    dialect: Dialect
    sink: HashedFile
    last: date | None = None

    async def write(self) -> int:
        """Write everything; return how many lines of the journal there were."""
        self._put(self.dialect.begin(f"callback-ledger, {self._title()}"))
        count = 0
        kept: list[Row] = []
        async for rows in _pages(self.snapshot, self.params, "entries"):
            count += len(rows)
            kept += rows
            # A page may end within an event, whose lines balance only together.
            edge = (kept[-1]["source"], kept[-1]["position"]) if kept else None
            self._entries([row for row in kept if (row["source"], row["position"]) != edge])
            kept = [row for row in kept if (row["source"], row["position"]) == edge]
        self._entries(kept)
        await self._balances()
        return count

    def _entries(self, rows: Sequence[Row]) -> None:
        for day, lines in groups(rows):
            self._put(self.dialect.entry(day, lines))
            self.last = day if self.last is None else max(self.last, day)

    async def _balances(self) -> None:
        day = day_after(self.last)
        if day is None:
            return
        async for rows in _pages(self.snapshot, self.params, "balances"):
            for row in rows:
                amount = row["balance"]
                if row["normal"] == "credit":
                    amount = amount.removeprefix("-") if amount[0] == "-" else f"-{amount}"
                self._put(self.dialect.balance(day, row, "0" if amount == "-0" else amount))

    def _put(self, lines: Iterator[str]) -> None:
        self.sink.write("".join(f"{line}\n" for line in lines).encode())

    def _title(self) -> str:
        source = self.params.text("source")
        places = [f"{s}:{p}" for s, p in self.snapshot.position.items() if source in (None, s)]
        dated = self.params.as_of.effective_at if self.params.as_of else None
        return f"true at {','.join(places)}" + (f", dated up to {dated:%FT%TZ}" if dated else "")
