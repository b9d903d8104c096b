"""The projection worker: reads a log behind its checkpoint, translates, folds and writes.

One `ProjectionWorker` per source takes turns with the others on a few shared connections. In a turn
it folds what the log holds beyond the checkpoint: while PostgreSQL writes one batch, the next is
read and folded. A turn ends when everything it folded is written, so a failed write is seen in the
turn that made it. Any failure ends the turn; the next one begins at the checkpoint.

Only what an event's own values cause (`is_data_error`) parks that event, after it
failed alone twice. Everything else is tried again until it works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from ledger.books import balance_index
from ledger.books.fold_connections import FoldConnections
from ledger.books.store import Books, Write
from ledger.config.settings import Settings
from ledger.database import conditions
from ledger.database.errors import EXPECTED, describe, is_data_error
from ledger.errors import CheckpointConflict, NotStorable
from ledger.eventlog.reader import read_at, read_next
from ledger.fold.batch import MENTIONING_MAX, Batch, TooManyRelated
from ledger.fold.change import (
    DECISION,
    REFUSED,
    ChangeSet,
    Park,
    StreamKey,
    TranslatedEvent,
    park_event,
)
from ledger.fold.translate import translate
from ledger.fold.views import ViewFailed
from ledger.model import RETRY, SourceTerms
from ledger.registry import Registry
from ledger.runtime.event_loop import Backoff, first_failure, stop_if_cancelled
from ledger.runtime.metrics import FOLD_FAILURES, FOLDED

LOGGER = structlog.get_logger(__name__)

YIELD_EVERY_EVENTS: Final = 50
"""After so many events the loop may run: what PostgreSQL is being sent must not wait."""
PAUSE_SECONDS_MIN: Final = 0.05
PAUSE_SECONDS_MAX: Final = 1.0
REPORT_FAILURES: Final = 3
"""Failures in a row from which on operators see a condition of the source."""
RETRYING: Final = "fold_retrying"


def log_handler_failure(source: str, position: int, error: Exception) -> None:
    """Log what a handler raised for an event, with its trace."""
    LOGGER.error("handler_failed", source=source, position=position, exc_info=error)


@dataclass(slots=True)
class ProjectionWorker:
    """Folds one source into one generation, in turns with others."""

    shared: FoldConnections
    settings: Settings
    registry: Registry
    terms: SourceTerms
    until: int | None = None
    """The position to fold up to, and not beyond; None is the end of the log."""
    interval_seconds_min: float = 0.075
    """Between the beginnings of turns of small batches: a steady trickle shares its commits."""
    turn_batches_max: int = 8
    """Batches of one turn."""
    crowded_events_max: int = 200
    """Events of one turn while other sources wait for theirs."""
    mentioning_max: int = MENTIONING_MAX
    """Streams that mention changed ones which are held together; an event of more is folded in
    pages of so many."""
    on_batch: Callable[[int], None] = lambda _position: None
    """Called with the last position of every batch that is read."""
    on_retry: Callable[[], None] = lambda: None
    """Called when an operator's decision to try parked events again is in the books."""
    head: int = 0
    """The end of the log as far as it is known here."""
    position: int = 0
    """The last position that this worker saw in the books."""
    _wakeup: asyncio.Event = field(default_factory=asyncio.Event)
    _advanced: asyncio.Event = field(default_factory=asyncio.Event)
    _pipe: WritePipeline | None = None
    _is_reported: bool = False

    def grow(self, head: int) -> None:
        """Learn how long the log is now."""
        if head > self.head:
            self.head = head
            self._wakeup.set()

    async def run(self) -> None:
        """Fold whatever `grow` announces until cancelled, through every failure."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._index_balances())
            tasks.create_task(self._keep_folding())

    async def catch_up(self) -> None:
        """Fold up to the end of the log, or `until`. Raises what kept it from there."""
        self.head = self.until or 0
        while await self._turn(None):
            pass

    async def _keep_folding(self) -> None:
        backoff = Backoff(PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX)
        clock = asyncio.get_running_loop().time
        while True:
            try:
                while self._pipe is not None and self._pipe.position >= self.head:
                    self._wakeup.clear()
                    await self._wakeup.wait()
                started = clock()
                async with self.shared.turns:
                    is_full = await self._turn(self.turn_batches_max)
                backoff.reset()
                await self._report_over()
                if not is_full:
                    await asyncio.sleep(started + self.interval_seconds_min - clock())
            except Exception as error:  # noqa: BLE001 - logged, counted, reported, tried again
                stop_if_cancelled()
                if isinstance(first_failure(error), CheckpointConflict):
                    await asyncio.sleep(PAUSE_SECONDS_MIN)  # the other one's books are read next
                    continue
                await self._failed(first_failure(error), backoff.failures + 1)
                await backoff.pause()

    async def _turn(self, batches_max: int | None) -> bool:
        """Fold up to so many batches and write them; return whether there may be more."""
        pipe = self._pipe or await self._opened()
        self._pipe = None  # whatever fails below, the next turn begins at the checkpoint
        queue: asyncio.Queue[Sequence[TranslatedEvent] | None] = asyncio.Queue(maxsize=1)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(pipe.position, queue, batches_max))
            try:
                while (events := await queue.get()) is not None:
                    await pipe.fold(events)
                await pipe.settle()
            finally:
                await pipe.abandon()
        self._pipe = pipe
        return reading.result()

    async def _opened(self) -> WritePipeline:
        """Begin at the checkpoint that the books show."""
        async with self.shared.writing.acquire() as connection:
            own = Books(connection, self.registry, self.terms.source)
            pipe = WritePipeline(self, await own.position())
            pipe.parked = await own.parked()
        self.advanced(pipe.position)
        return pipe

    async def _read(
        self,
        position: int,
        queue: asyncio.Queue[Sequence[TranslatedEvent] | None],
        batches_max: int | None,
    ) -> bool:
        """Queue translated batches, None after the last; return whether there may be more."""
        is_full, batches = True, 0
        events_max = self.settings.fold_events_max
        if batches_max is not None and self.shared.turns.locked():
            # Others wait for a turn: a short one, so that everybody's books move.
            batches_max, events_max = 1, min(events_max, self.crowded_events_max)
        while is_full and batches != batches_max:
            rows = await self._fetch(position, events_max)
            is_full = len(rows) > 0 and (batches_max is None or len(rows) >= events_max)
            if rows:
                position = rows[-1]["position"]
                self.on_batch(position)
                await queue.put(await self._translated(rows))
                batches += 1
        await queue.put(None)
        return is_full

    async def _fetch(self, position: int, events_max: int) -> list[Any]:
        if self.until is not None:
            events_max = min(events_max, self.until - position)
            if events_max <= 0:
                return []
        async with self.shared.reading.acquire() as connection:
            return await read_next(
                connection, self.terms.source, position,
                events_max=events_max, bytes_max=self.settings.fold_bytes_max,
            )  # fmt: skip

    async def _translated(self, rows: Sequence[Any]) -> list[TranslatedEvent]:
        events: list[TranslatedEvent] = []
        for first in range(0, len(rows), YIELD_EVERY_EVENTS):
            part = rows[first : first + YIELD_EVERY_EVENTS]
            events += [self.translated(row) for row in part]
            await asyncio.sleep(0)
        return events

    def translated(self, row: Any) -> TranslatedEvent:
        """Translate a row of the log; log what a handler raises."""
        return translate(self.registry.dispatch, self.terms, row, log_handler_failure)

    def advanced(self, position: int) -> None:
        """Learn that the books are at `position` now."""
        self.position = position
        self.head = max(self.head, position)
        self._advanced.set()

    async def _failed(self, error: BaseException, failures: int) -> None:
        """Log a failed turn, count it, and report one that goes on to operators."""
        source = self.terms.source
        FOLD_FAILURES.labels(source).inc()
        reason = describe(error)
        if isinstance(error, EXPECTED):
            LOGGER.warning("fold_interrupted", source=source, error=reason, tries=failures)
        else:
            LOGGER.error("fold_failed", source=source, error=reason, exc_info=error)
        if failures < REPORT_FAILURES:
            return
        with suppress(Exception):  # a database that is away keeps no conditions either
            async with self.shared.reading.acquire() as connection:
                detail = f"{failures} tries failed, the last with {reason}; trying again"
                await conditions.report(connection, source, RETRYING, detail)
                self._is_reported = True

    async def _report_over(self) -> None:
        if self._is_reported:
            async with self.shared.reading.acquire() as connection:
                await conditions.clear(connection, self.terms.source, RETRYING)
            self._is_reported = False
            LOGGER.info("fold_resumed", source=self.terms.source)

    async def _index_balances(self) -> None:
        """Index every block that the books complete. Folding never waits for it."""
        source, due = self.terms.source, 0
        while True:
            await self._advanced.wait()
            self._advanced.clear()
            if self.position < due:
                continue
            try:
                async with self.shared.summing.acquire() as connection:
                    while due <= self.position:
                        due = await balance_index.index_next_block(connection, source)
            except Exception as error:  # noqa: BLE001 - balances are right without, only slower
                stop_if_cancelled()
                LOGGER.warning("balance_index_failed", source=source, error=describe(error))
                due = self.position + balance_index.BLOCK_POSITIONS


@dataclass(slots=True)
class WritePipeline:
    """Folds one batch while the one before it is being written."""

    folder: ProjectionWorker
    position: int
    parked: set[StreamKey] = field(default_factory=set)
    _writing: asyncio.Task[None] | None = None
    _written: tuple[Sequence[TranslatedEvent], ChangeSet] | None = None

    async def fold(self, events: Sequence[TranslatedEvent]) -> None:
        """Fold `events` and start writing them, after the batch before them is written."""
        prepared = await self._judged(events, self._written[1] if self._written else None)
        if not await self.settle():
            prepared = await self._judged(events, None)
        if isinstance(prepared, Exception):
            await self._isolate(events, prepared)
            return
        change, batch = prepared
        self._written = (events, change)
        self._writing = asyncio.create_task(self._write(batch, events))

    async def settle(self) -> bool:
        """Wait for the batch that is being written; False when it had to be taken apart."""
        if self._writing is None or self._written is None:
            return True
        events, change = self._written
        writing, self._writing, self._written = self._writing, None, None
        try:
            await writing
        except Exception as error:
            if not is_data_error(error):
                raise
            await self._isolate(events, error)
            return False
        self._advance(events, change.parked)
        return True

    async def abandon(self) -> None:
        """Give up a write that is still under way; its transaction rolls back."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])
            self._writing = self._written = None

    async def _write(self, batch: Sequence[Write], events: Sequence[TranslatedEvent]) -> None:
        async with self._advancing(events) as own:
            await own.put(batch)

    @asynccontextmanager
    async def _advancing(self, events: Sequence[TranslatedEvent]) -> AsyncGenerator[Books, None]:
        """Move the checkpoint over `events` with what a block puts into the books."""
        if events[0].position != self.position + 1:
            raise CheckpointConflict  # the log is dense: what is skipped would never be folded
        async with self.folder.shared.writing.acquire() as connection:
            own = self._books(connection)
            async with own.advancing(self.position, events[-1].position):
                yield own

    def _books(self, connection: Any) -> Books:
        return Books(connection, self.folder.registry, self.folder.terms.source)

    def _advance(self, events: Sequence[TranslatedEvent], parked: Iterable[Park]) -> None:
        self.position = events[-1].position
        self.parked.update(park.key for park in parked)
        FOLDED.labels(self.folder.terms.source).inc(len(events))
        self.folder.advanced(self.position)
        if any(decides_to_retry(event) for event in events):
            self.folder.on_retry()

    async def _judged(
        self, events: Sequence[TranslatedEvent], before: ChangeSet | None
    ) -> tuple[ChangeSet, list[Write]] | Exception:
        """Prepare `events`; return the error that their own values cause, if any."""
        try:
            return await self._prepare(events, before)
        except Exception as error:
            if is_data_error(error) or isinstance(error, TooManyRelated):
                return error
            raise

    async def _prepare(
        self, events: Sequence[TranslatedEvent], before: ChangeSet | None
    ) -> tuple[ChangeSet, list[Write]]:
        """Fold `events`; return what they change, and the same as statements.

        Raises NotStorable, and TooManyRelated.
        """
        with _refusing():
            return await self._folded(events, before)

    async def _folded(
        self, events: Sequence[TranslatedEvent], before: ChangeSet | None
    ) -> tuple[ChangeSet, list[Write]]:
        batch = self._batch(events)
        if before is not None:
            batch.known.follow(before)
        async with self.folder.shared.looking.acquire() as connection:
            own = self._books(connection)
            for lookup in batch.lookups():
                await own.answer(batch, lookup)
        for _ in batch.view(YIELD_EVERY_EVENTS):
            await asyncio.sleep(0)
        change = batch.finish()
        written: list[Write] = []
        for write in self._books(None).written(change):
            written.append(write)
            await asyncio.sleep(0)
        return change, written

    def _batch(self, events: Sequence[TranslatedEvent]) -> Batch:
        registry = self.folder.registry
        return Batch(
            self.folder.terms,
            registry.streams,
            registry.projections,
            events,
            parked=self.parked,
            mentioning_max=self.folder.mentioning_max,
        )

    async def _pages(self, event: TranslatedEvent) -> AsyncGenerator[list[Write], None]:
        """Fold an event of too many related streams; yield what puts its pages, in their order."""
        batch = self._batch([event])
        async with self.folder.shared.looking.acquire() as connection:
            own = self._books(connection)
            for step in batch.pages():
                if isinstance(step, ChangeSet):
                    yield [*own.written(step)]
                else:
                    await own.answer(batch, step)

    async def put_pages(self, own: Books, event: TranslatedEvent) -> None:
        """Put an event of too many related streams into the tables, page by page.

        Raises ViewFailed, and NotStorable.
        """
        with _refusing():
            async with aclosing(self._pages(event)) as pages:
                async for page in pages:
                    await own.put(page)

    async def _isolate(self, events: Sequence[TranslatedEvent], error: Exception) -> None:
        """Fold a batch that failed half by half; park the event that fails alone twice.

        An event of too many related streams is thereby alone, too, and is folded in pages.
        """
        if len(events) > 1:
            half = len(events) // 2
            for part in (events[:half], events[half:]):
                again = await self._attempt(part)
                if again is not None:
                    await self._isolate(part, again)
            return
        again = await self._attempt(events)
        if again is not None and isinstance(error, TooManyRelated):
            again = await self._attempt(events)
        if again is None:
            return
        (event,) = events
        why = describe(again)
        source = self.folder.terms.source
        LOGGER.error(REFUSED, source=source, position=event.position, error=why)
        last = await self._attempt([park_event(event, why)])
        if last is not None:
            raise last from error

    async def _attempt(self, events: Sequence[TranslatedEvent]) -> Exception | None:
        """Fold and write `events` at once; return the error that their own values cause, if any."""
        try:
            change, batch = await self._prepare(events, None)
            await self._write(batch, events)
        except TooManyRelated as error:
            return error if len(events) > 1 else await self._attempt_in_pages(events[0])
        except Exception as error:
            if is_data_error(error):
                return error
            raise
        self._advance(events, change.parked)
        return None

    async def _attempt_in_pages(self, event: TranslatedEvent) -> Exception | None:
        """Fold and write an event in pages; return the error that its own values cause, if any."""
        try:
            async with self._advancing([event]) as own:
                await self.put_pages(own, event)
        except ViewFailed as failure:
            return await self._attempt([failure.event])
        except Exception as error:
            if is_data_error(error):
                return error
            raise
        self._advance([event], ())
        return None


@contextmanager
def _refusing() -> Iterator[None]:
    """Raise NotStorable for what events' own values cause outside of PostgreSQL.

    Folding raises where no stream can be parked, or a value is none of its column's type.
    """
    try:
        yield
    except EXPECTED:
        raise
    except Exception as error:
        raise NotStorable(f"{type(error).__name__}: {error}") from error


def decides_to_retry(event: TranslatedEvent) -> bool:
    """Tell whether an event is an operator's decision to try parked events again."""
    fact = event.fact
    return fact is not None and fact.kind == DECISION and fact.status == RETRY


async def would_fold(folder: ProjectionWorker, position: int) -> bool:
    """Tell whether the database takes the rows of a parked event now; nothing is kept."""
    async with folder.shared.reading.acquire() as connection:
        rows = await read_at(connection, folder.terms.source, [position])
    if not rows:
        return False
    event = folder.translated(rows[0])
    pipe = await folder._opened()
    fact = event.fact
    pipe.parked.clear()
    try:
        async with folder.shared.writing.acquire() as connection:
            own = Books(connection, folder.registry, folder.terms.source)
            async with own.trying():
                try:
                    change, batch = await pipe._prepare([event], None)
                    if fact is not None and change.parked:
                        return False
                    await own.put(batch)
                except TooManyRelated:
                    await pipe.put_pages(own, event)
    except ViewFailed:
        return False
    except Exception as error:
        if is_data_error(error):
            return False
        raise
    return True
