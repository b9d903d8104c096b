"""The projector: reads the log behind the checkpoint, translates, folds, writes, again.

While PostgreSQL writes one batch, the next is read and translated. A ring wakes one that rests
within milliseconds; polling alone would do. Several may run: the checkpoint lets only one advance.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

import asyncpg
import orjson
import structlog

from ledger import books, cells, database
from ledger.errors import CannotBeTrue, LedgerError, Unreadable
from ledger.fold import Batch, Change, StreamKey, Translated
from ledger.metrics import FOLDED
from ledger.model import SourceTerms, Trouble, changed
from ledger.registry import Registry
from ledger.settings import Settings

LOGGER = structlog.get_logger("ledger.worker")

SELECT_SOURCES: Final = "SELECT source, provider, currency, wallets::text FROM ledger.sources"
SELECT_BATCH: Final = """
SELECT position, event_id, kind, resource_id, status, path_event, origin, reason, detail,
       body, received_at, recorded_at
  FROM (SELECT *, sum(octet_length(body)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS read
          FROM ledger.events
         WHERE source = $1 AND position > $2 AND position <= $2 + $3) AS behind
 WHERE read <= $4 OR position = $2 + 1
 ORDER BY position
"""

POLL_SECONDS: Final = 0.25
PACE_SECONDS: Final = 0.075
"""Small batches follow each other no faster than this: a steady trickle shares its commits."""
BREATH_EVENTS: Final = 50
"""After so many events the loop may run: what PostgreSQL is being sent must not wait."""

PAUSE_SECONDS_MIN: Final = 0.05
PAUSE_SECONDS_MAX: Final = 1.0
PLAIN_PLANS: Final = {
    "plan_cache_mode": "force_custom_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
}
"""Every look-up goes by a key whose order we know; statistics of a young table mislead."""
KEPT_PLANS: Final = PLAIN_PLANS | {"plan_cache_mode": "force_generic_plan"}
"""What writes can use one index only: it is planned once."""


_columns: Final = itemgetter(
    "position", "event_id", "kind", "resource_id", "status", "path_event", "origin", "reason",
    "detail", "body", "received_at", "recorded_at",
)  # fmt: skip


def translate(registry: Registry, terms: SourceTerms, row: Any) -> Translated:
    """Turn a stored event into a fact, or into the trouble that it is."""
    (position, event_id, kind, resource_id, status, path_event, origin, reason, detail, body,
     received_at, recorded_at) = _columns(row)  # fmt: skip
    fact = trouble = None
    if reason == "unsupported_encoding":
        trouble = Trouble(reason, detail or "")
    else:
        try:
            fact = registry.translate(terms, origin, path_event, body)
        except Unreadable as error:
            trouble = Trouble("unreadable", str(error))
        except CannotBeTrue as error:
            trouble = Trouble(error.reason, error.detail)
        except Exception as error:
            LOGGER.exception("handler_failed", source=terms.source, position=position)
            trouble = Trouble("handler_failed", f"{type(error).__name__}: {error}"[:500])
    return Translated(
        position, event_id.hex(), kind, resource_id, status, received_at, recorded_at, fact,
        trouble,
    )  # fmt: skip


@dataclass(slots=True)
class SourceFolder:
    """Folds one source into one generation."""

    dsn: str
    settings: Settings
    registry: Registry
    terms: SourceTerms
    generation: int
    rung: asyncio.Event
    catch_up_only: bool = False

    async def run(self) -> None:
        """Fold until cancelled, or until the head is reached when only catching up."""
        pause = PAUSE_SECONDS_MIN
        done = False
        while not done:
            try:
                await self._session()
                done = True
            except* (LedgerError, asyncpg.PostgresError, *database.LOST) as group:
                error = group.exceptions[0]
                # Its own words, unless they may quote a callback.
                said = str(error) if isinstance(error, LedgerError) else ""
                LOGGER.warning(
                    "fold_interrupted", source=self.terms.source, error=said or type(error).__name__
                )
            except* Exception:
                LOGGER.exception("fold_failed", source=self.terms.source)
            if not done:
                await asyncio.sleep(pause)
                pause = min(pause * 2, PAUSE_SECONDS_MAX)

    async def _session(self) -> None:
        """Fold through connections of its own, from the checkpoint that the books show."""
        async with (
            self._connected() as reading,
            self._connected(synchronous_commit="off", **KEPT_PLANS) as writing,
            self._connected(**PLAIN_PLANS) as looking,
            cells.connected(self.dsn, seconds_max=60, is_behind=True) as summing,
        ):
            if not await reading.fetchval(books.SELECT_EXISTS, self.generation):
                LOGGER.warning("generation_gone", generation=self.generation)
                return
            for connection in (reading, writing, looking, summing):
                await books.use_generation(connection, self.generation)
            own = books.Books(writing, self.registry, self.terms.source)
            position = await own.position()
            queue: asyncio.Queue[Sequence[Translated] | None] = asyncio.Queue(maxsize=1)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(reading, position, queue))
                pipe = Pipe(self, own, dataclasses.replace(own, connection=looking), position)
                pipe.parked = await own.parked()
                tasks.create_task(self._sum(summing, pipe))
                try:
                    while (events := await queue.get()) is not None:
                        await pipe.fold(events)
                    await pipe.settle()
                    pipe.is_settled = True
                    pipe.advanced.set()
                finally:
                    await pipe.abandon()

    def _connected(self, **session: str) -> AbstractAsyncContextManager[Any]:
        return database.connected(self.dsn, is_behind=self.catch_up_only, seconds_max=60, **session)

    async def _read(
        self, connection: Any, position: int, queue: asyncio.Queue[Sequence[Translated] | None]
    ) -> None:
        async for rows in self._batches(connection, position):
            events: list[Translated] = []
            for first in range(0, len(rows), BREATH_EVENTS):
                part = rows[first : first + BREATH_EVENTS]
                events += [translate(self.registry, self.terms, row) for row in part]
                await asyncio.sleep(0)
            await queue.put(events)
        await queue.put(None)

    async def _batches(self, connection: Any, position: int) -> AsyncIterator[list[Any]]:
        limits = (self.settings.fold_events_max, self.settings.fold_bytes_max)
        loop = asyncio.get_running_loop()
        while True:
            self.rung.clear()
            started = loop.time()
            rows = await connection.fetch(SELECT_BATCH, self.terms.source, position, *limits)
            if rows:
                position = rows[-1]["position"]
                yield rows
                if len(rows) < self.settings.fold_events_max:
                    await asyncio.sleep(started + PACE_SECONDS - loop.time())
            elif self.catch_up_only:
                return
            else:
                await _wait(self.rung, POLL_SECONDS)

    async def _sum(self, connection: Any, pipe: Pipe) -> None:
        """Sum every span of the journal that the books complete. Folding never waits for it."""
        source = self.terms.source
        due = await cells.due(connection, source)
        while not pipe.is_settled or pipe.position >= due:
            pipe.advanced.clear()
            if pipe.position < due:
                await pipe.advanced.wait()
                continue
            try:
                due = await cells.advance(connection, source)
            except (asyncpg.PostgresError, TimeoutError) as error:
                LOGGER.warning("span_not_summed", source=source, error=type(error).__name__)
                due = pipe.position + cells.SPAN


@dataclass(slots=True)
class Pipe:
    """Folds one batch while the one before it is being written."""

    folder: SourceFolder
    own: books.Books
    looking: books.Books
    """The same books through a connection that no write keeps busy."""
    position: int
    parked: set[StreamKey] = field(default_factory=set)
    advanced: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever `position` has moved, and at the end."""
    is_settled: bool = False
    """Set when nothing is left to fold."""
    _writing: asyncio.Task[None] | None = None
    _written: tuple[Sequence[Translated], Change] | None = None

    async def fold(self, events: Sequence[Translated]) -> None:
        """Fold `events` and start writing them, after the batch before them is written."""
        change, batch = await self._change(events, self._written[1] if self._written else None)
        if not await self.settle():
            change, batch = await self._change(events, None)
        self._written = (events, change)
        self._writing = asyncio.create_task(self._write(batch, events[-1].position))

    async def _write(self, batch: list[books.Write] | Exception, position: int) -> None:
        if isinstance(batch, Exception):
            raise batch
        await self.own.write(batch, self.position, position)

    async def settle(self) -> bool:
        """Wait for the batch that is being written; False when it had to be taken apart."""
        if self._writing is None or self._written is None:
            return True
        events, change = self._written
        writing, self._writing, self._written = self._writing, None, None
        try:
            await writing
        except Exception as error:
            if _may_pass(error):
                raise
            await self._isolate(events, error)
            return False
        self._advance(events, change)
        return True

    async def abandon(self) -> None:
        """Give up a write that is still under way; its transaction rolls back."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])
            self._writing = None

    def _advance(self, events: Sequence[Translated], change: Change) -> None:
        self.position = events[-1].position
        self.advanced.set()
        self.parked.update(park.key for park in change.parked)
        FOLDED.labels(self.own.source).inc(len(events))

    async def _change(
        self, events: Sequence[Translated], before: Change | None
    ) -> tuple[Change, list[books.Write] | Exception]:
        """Fold `events`; return what they change, written out, or why it cannot be written."""
        registry = self.folder.registry
        batch = Batch(
            self.folder.terms,
            registry.streams,
            registry.projections,
            events,
            parked=set(self.parked),
        )
        if before is not None:
            batch.follow(before)
        await self.looking.load(batch, batch.keys())
        await self.looking.load_related(batch, batch.fold_states())
        for _ in batch.view(BREATH_EVENTS):
            await asyncio.sleep(0)
        change = batch.finish()
        written = []
        try:
            for write in self.own.written(change):
                written.append(write)
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 - the event whose rows these are is set apart
            return change, error
        return change, written

    async def _isolate(self, events: Sequence[Translated], error: Exception) -> None:
        """Find the one event whose rows the database refuses, and list it instead."""
        if len(events) == 1 and events[0].fact is None:
            raise error
        if len(events) == 1:
            LOGGER.error("rows_refused", source=self.own.source, position=events[0].position)
            if events[0].trouble is not None:
                raise error
            trouble = Trouble("rows_refused", type(error).__name__)
            parts = [[changed(events[0], trouble=trouble)]]
        else:
            half = len(events) // 2
            parts = [list(events[:half]), list(events[half:])]
        for part in parts:
            await self.fold(part)
            await self.settle()


def _may_pass(error: Exception) -> bool:
    """Tell whether trying again may help: the database was lost, or someone else was in the way.

    An argument that cannot be encoded is an InterfaceError too, but no trying again helps it.
    """
    if isinstance(error, LedgerError | asyncpg.TransactionRollbackError):
        return True
    return isinstance(error, database.LOST) and not isinstance(error, ValueError | TypeError)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def load_terms(connection: Any) -> list[SourceTerms]:
    """Return what is configured about every source that has a log."""
    rows = await connection.fetch(SELECT_SOURCES)
    return [
        SourceTerms(row["source"], row["provider"], row["currency"], orjson.loads(row["wallets"]))
        for row in rows
    ]
