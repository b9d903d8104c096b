"""`ledger export --format`: tables and journals out of one snapshot, page by page.

The rows are those of the query API, read by the same functions in one transaction, so that a file
says what `/v1` answers at the same position.
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
from typing import Any, BinaryIO, Final

import asyncpg
import msgspec
import orjson
from msgspec import UnsetType

from ledger.api.routes import ROUTES
from ledger.database import connection as database
from ledger.errors import BadQuestion, DatabaseUnavailable, NotYet, Tampered
from ledger.evidence import store as seals
from ledger.export.journals import DIALECTS, Dialect, day_after, groups
from ledger.export.jsonl import event_line
from ledger.export.tables import (
    EVENT_COLUMNS,
    Column,
    Csv,
    DoesNotFit,
    JsonLines,
    Parquet,
    Row,
    RowWriter,
    columns_of,
)
from ledger.queries.as_of.snapshot import earlier
from ledger.queries.params import LIMIT_MAX, Question, Route, ask
from ledger.queries.snapshot import SWAPPED, Behind, Snapshot, opened
from ledger.runtime.files import HashedFile, replacing

SECONDS_MAX: Final = 600.0
EVENTS_MAX: Final = 1_000
BYTES_MAX: Final = 16 * 1024 * 1024
SESSION: Final[dict[str, Any]] = {"idle_in_transaction_session_timeout": "0"}
"""Whoever reads our output may be slow."""

STDOUT: Final = "-"
WHATS: Final = ("entries", "balances", "transactions", "customers", "events")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to export, in which form, where to, and as of when (parameters of the query API)."""

    format: str
    what: str
    out: str
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported."""

    rows: int
    position: dict[str, int]
    bytes: int
    sha256: str
    warnings: list[str] = field(default_factory=list)
    """What a clock that was wrong makes the export leave out."""


async def write(dsn: str, wanted: Wanted) -> Exported:
    """Export; return what came of it. Raises BadQuestion for what does not go together."""
    if wanted.format in DIALECTS and wanted.what != "entries":
        raise BadQuestion(f"{wanted.format} holds a journal: --what entries is what it can tell")
    if wanted.what == "events" and "effective_at" in wanted.params:
        raise BadQuestion("events are not dated by the provider: use --recorded-at or --position")
    texts: frozenset[str] = frozenset()
    while True:
        try:
            return await _write(dsn, wanted, texts)
        except DoesNotFit as error:
            texts |= {error.column}


async def _write(dsn: str, wanted: Wanted, texts: frozenset[str]) -> Exported:
    with _opened(wanted) as file:
        sink = HashedFile(file)
        async with _snapshot(dsn) as snapshot:
            then, question = await _question(snapshot, wanted)
            if wanted.format in DIALECTS:
                journal = Journal(then, question, DIALECTS[wanted.format](), sink)
                rows = await journal.write()
            else:
                rows = await _table(then, question, wanted, sink, texts)
        asked = question.text("source")
        position = {s: p for s, p in then.position.items() if asked in (None, s)}
        as_of = then.as_of
        said = [] if isinstance(as_of, UnsetType) or not as_of.warnings else as_of.warnings
        return Exported(rows, position, sink.size, sink.sha256, list(said))


@contextmanager
def _opened(wanted: Wanted) -> Iterator[BinaryIO]:
    """Open where the export goes. What may have to begin anew reaches stdout only when whole."""
    if wanted.out != STDOUT:
        with replacing(Path(wanted.out)) as file:
            yield file
    elif wanted.format != "parquet":
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
            opened(connection) as snapshot,
        ):
            yield snapshot
    except Behind as error:
        raise NotYet(f"the books have not reached {error} yet; export again in a moment") from error
    except SWAPPED as error:
        raise DatabaseUnavailable("the books were replaced meanwhile; export again") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable(f"the database refused: {error}; export again") from error


async def _question(snapshot: Snapshot, wanted: Wanted) -> tuple[Snapshot, Question]:
    """Check what is asked for; return the snapshot as it stood then."""
    route = _route("entries" if wanted.what == "events" else wanted.what)
    query = [*wanted.params.items(), ("limit", str(LIMIT_MAX))]
    question = ask(route, {}, query)
    source = question.text("source")
    if source is not None:
        snapshot.check(source)
    if question.as_of is None:
        return snapshot, question
    return await earlier(snapshot, question, question.as_of), question


def _route(what: str) -> Route:
    return next(route for route in ROUTES if route.path == f"/v1/{what}")


async def _pages(snapshot: Snapshot, question: Question, what: str) -> AsyncIterator[list[Row]]:
    """Read every page of a list in the snapshot."""
    route = _route(what)
    base, cursor = question, None
    while True:
        answer = await route.read(snapshot, base)
        yield [msgspec.to_builtins(row) for row in getattr(answer, what)]
        cursor = answer.next
        if cursor is None:
            return
        base = ask(route, {}, [*_texts(question), ("cursor", cursor)])


def _texts(question: Question) -> list[tuple[str, str]]:
    """Say a question in the words that it was asked in."""
    found = [(name, str(value)) for name, value in question.values.items()]
    as_of = question.as_of
    if as_of is not None:
        if as_of.effective_at is not None:
            found.append(("effective_at", as_of.effective_at.isoformat()))
        if as_of.recorded_at is not None:
            found.append(("recorded_at", as_of.recorded_at.isoformat()))
        if as_of.position is not None:
            found.append(("position", str(as_of.position)))
        if as_of.positions:
            places = [f"{source}:{place}" for source, place in as_of.positions.items()]
            found.append(("position", ",".join(places)))
    return [*found, ("limit", str(question.limit))]


async def _table(
    snapshot: Snapshot, question: Question, wanted: Wanted, sink: HashedFile,
    texts: frozenset[str],
) -> int:  # fmt: skip
    make: Mapping[str, Callable[[HashedFile, Sequence[Column]], RowWriter]] = {
        "jsonl": JsonLines,
        "csv": Csv,
        "parquet": partial(Parquet, texts=texts),
    }
    if wanted.what == "events":
        columns: Sequence[Column] = EVENT_COLUMNS
        pages = _events(snapshot, question)
    else:
        columns = columns_of(_row_type(wanted.what))
        pages = _pages(snapshot, question, wanted.what)
    writer = make[wanted.format](sink, columns)
    count = 0
    try:
        async for rows in pages:
            writer.write(rows)
            count += len(rows)
    finally:
        writer.close()
    return count


def _row_type(what: str) -> type[Any]:
    """Return the type of a list's rows."""
    fields = {each.name: each.type for each in msgspec.structs.fields(_route(what).answer)}
    found: type[Any] = fields[what].__args__[0]
    return found


async def _events(snapshot: Snapshot, question: Question) -> AsyncIterator[list[Row]]:
    """Read the log, bodies included, up to where the question says."""
    for source in snapshot.sources(question):
        place = snapshot.places[source]
        end = place.head if question.as_of is None else place.books
        done = 0
        while done < end:
            wanted = min(EVENTS_MAX, end - done)
            rows = await seals.events_after(snapshot.connection, source, done, wanted, BYTES_MAX)
            if not rows:
                raise Tampered("density", done + 1, f"event {done + 1} of {source} is missing")
            yield [orjson.loads(event_line(row)) for row in rows]
            done = rows[-1]["position"]


@dataclass(slots=True)
class Journal:
    """A journal on its way out: whole entries, then the balances that they must add up to."""

    snapshot: Snapshot
    question: Question
    dialect: Dialect
    sink: HashedFile
    last: date | None = None

    async def write(self) -> int:
        """Write everything; return how many lines of the journal there were."""
        self._put(self.dialect.begin(f"callback-ledger, {self._told()}"))
        count = 0
        kept: list[Row] = []
        async for rows in _pages(self.snapshot, self.question, "entries"):
            count += len(rows)
            kept += rows
            # A page may end within an event, whose lines balance together only.
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
        async for rows in _pages(self.snapshot, self.question, "balances"):
            for row in rows:
                amount = row["balance"]
                if row["normal"] == "credit":
                    amount = amount.removeprefix("-") if amount[0] == "-" else f"-{amount}"
                self._put(self.dialect.balance(day, row, "0" if amount == "-0" else amount))

    def _put(self, lines: Iterator[str]) -> None:
        self.sink.write("".join(f"{line}\n" for line in lines).encode())

    def _told(self) -> str:
        asked = self.question.text("source")
        places = [f"{s}:{p}" for s, p in self.snapshot.position.items() if asked in (None, s)]
        dated = self.question.as_of.effective_at if self.question.as_of else None
        return f"true at {','.join(places)}" + (f", dated up to {dated:%FT%TZ}" if dated else "")
