"""`ledger export --format`: tables and journals of one snapshot, page by page, as a file."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, Final

import asyncpg
from msgspec import UnsetType

from ledger.database import connection as database
from ledger.errors import DatabaseUnavailable, InvalidRequest, NotCaughtUp
from ledger.export.journals import DIALECTS, Dialect, day_after, groups
from ledger.export.lists import ExportedList, Query, TableExport, make_encoder
from ledger.export.tables import Row
from ledger.queries.params import LIMIT_MAX, QueryParams
from ledger.queries.snapshot import OLDER_BOOKS, SWAPPED, BooksBehind, Snapshot, open_snapshot
from ledger.runtime.files import HashedFile, replacing

SECONDS_MAX: Final = 600.0
SESSION: Final[dict[str, Any]] = {"idle_in_transaction_session_timeout": "0"}
"""The reader of our output may be slow."""

STDOUT: Final = "-"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, in which form, where to, and as of when (parameters of the query API)."""

    format: str
    what: str
    out: str
    params: Mapping[str, str]
    rows_max: int = LIMIT_MAX
    """Rows that are read at once."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The rows, position, size and hash of an export."""

    rows: int
    position: dict[str, int]
    bytes: int
    sha256: str
    warnings: list[str] = field(default_factory=list)
    """What the export leaves out because a clock was wrong."""


async def write(
    dsn: str, request: ExportRequest, lists: Mapping[str, ExportedList]
) -> ExportResult:
    """Export one of `lists` to a file or stdout.

    Raises InvalidRequest for what does not go together, or for a value that the format cannot hold.
    """
    if request.format in DIALECTS and request.what != "entries":
        raise InvalidRequest(f"{request.format} is a journal format: export it with --what entries")
    if request.what not in lists:
        raise InvalidRequest(
            f"there is nothing named {request.what!r} to export; there is: "
            f"{', '.join(sorted(lists))}"
        )
    exported = lists[request.what]
    query = list(request.params.items())
    with _open_output(request) as file:
        sink = HashedFile(file)
        async with _snapshot(dsn) as snapshot:
            then, params = await exported.select(snapshot, query)
            if request.format in DIALECTS:
                dialect = DIALECTS[request.format]()
                journal = Journal(then, query, params, dialect, sink, lists, request.rows_max)
                rows = await journal.write()
            else:
                encoder = await make_encoder(request.format, exported)
                table = TableExport(exported, then, query, encoder, request.rows_max)
                async for chunk in table.chunks():
                    sink.write(chunk)
                rows = table.rows
        source = params.text("source")
        position = {s: p for s, p in then.position.items() if source in (None, s)}
        as_of = then.as_of
        warnings = [] if isinstance(as_of, UnsetType) or not as_of.warnings else as_of.warnings
        return ExportResult(rows, position, sink.size, sink.sha256, list(warnings))


@contextmanager
def _open_output(request: ExportRequest) -> Iterator[BinaryIO]:
    if request.out == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with replacing(Path(request.out)) as file:
            yield file


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
    except asyncpg.UndefinedColumnError as error:
        raise NotCaughtUp(OLDER_BOOKS) from error
    except SWAPPED as error:
        raise DatabaseUnavailable("the books were replaced meanwhile; export again") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable(f"the database refused: {error}; export again") from error


@dataclass(slots=True)
class Journal:
    """Writes a journal: complete entries, then the balances that they must add up to."""

    snapshot: Snapshot
    query: Query
    params: QueryParams
    dialect: Dialect
    sink: HashedFile
    lists: Mapping[str, ExportedList]
    """Where `entries` and `balances` are read."""
    rows_max: int = LIMIT_MAX
    last: date | None = None

    async def write(self) -> int:
        """Write everything; return how many lines of the journal there were."""
        self._put(self.dialect.begin(f"callback-ledger, {self._title()}"))
        count = 0
        kept: list[Row] = []
        async for rows in self._pages("entries"):
            count += len(rows)
            kept += rows
            # A page may end within an event, whose lines balance only together.
            edge = (kept[-1]["source"], kept[-1]["position"]) if kept else None
            self._entries([row for row in kept if (row["source"], row["position"]) != edge])
            kept = [row for row in kept if (row["source"], row["position"]) == edge]
        self._entries(kept)
        await self._balances()
        return count

    def _pages(self, what: str) -> AsyncIterator[list[Row]]:
        return self.lists[what].pages(self.snapshot, self.query, self.rows_max)

    def _entries(self, rows: Sequence[Row]) -> None:
        for day, lines in groups(rows):
            self._put(self.dialect.entry(day, lines))
            self.last = day if self.last is None else max(self.last, day)

    async def _balances(self) -> None:
        day = day_after(self.last)
        if day is None:
            return
        async for rows in self._pages("balances"):
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
