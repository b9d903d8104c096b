"""Appending to the log by group commit: one appender per source, one round trip per batch.

Nothing here reads before it writes: the function in the database tells new from duplicate. An error
from the database means *unknown*: the receiver answers 503, and the provider's retry is recognised.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from time import monotonic
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec
import structlog

from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.database.connection import Pool
from ledger.database.errors import EXPECTED, describe, is_data_error, is_server_gone
from ledger.errors import DatabaseUnavailable, LedgerError, Overloaded
from ledger.eventlog.new_event import NewEvent
from ledger.runtime.event_loop import stop_if_cancelled

LOGGER = structlog.get_logger(__name__)

APPEND: Final = """
SELECT base, positions, fresh, event_ids FROM ledger.append(
    $1, $2::bytea[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[]::timestamptz[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[],
    $14::text[], $15::bytea[], $16::text[]::timestamptz[])
"""
"""Times go as texts (`time_texts`): asyncpg sends the earliest and the latest as infinity."""

SELECT_KNOWN: Final = """
SELECT position, path_event, kind, resource_id FROM ledger.events
 WHERE source = $1 AND position = ANY ($2::bigint[])
"""
NOTIFY: Final = "SELECT pg_notify('ledger_log', '')"
NOTIFY_SECONDS_MIN: Final = 0.05
"""Time between two notifications at least: a projector that has work looks by itself."""

CONNECTIONS_MAX: Final = 4
"""Connections that append in one process, shared by all its sources."""

COLUMNS: Final = (
    "event_id", "idempotency_key", "kind", "resource_id", "status", "idempotency_id",
    "provider_at", "path_event", "origin", "reason", "detail", "peer", "headers", "body",
    "received_at",
)  # fmt: skip
"""What APPEND takes of events, each as an array, in the order of its parameters from $2 on."""

_values: Final = attrgetter(*COLUMNS)
_TIMES: Final = (COLUMNS.index("provider_at"), COLUMNS.index("received_at"))


@dataclass(frozen=True, slots=True)
class Linger:
    """How long a batch waits for more events while they come fast.

    A commit costs receiver and database as much as ten events, so an appender whose last batch had
    `events_min` or more begins the next one `seconds` after it, unless `events_max` wait already,
    or nothing came for `quiet_seconds`: then senders are waiting for their answers.
    """

    seconds: float = 0.008
    quiet_seconds: float = 0.002
    events_min: int = 8
    events_max: int = 64


class AppendResult(msgspec.Struct, frozen=True, gc=False):
    """Where an event is in the log, and whether this delivery put it there."""

    position: int
    fresh: bool
    event_id: bytes
    """The id of the event there: not that of this delivery where another version read it."""
    is_same_resource: bool = True
    """Whether the event there came by the same event name, or has the same kind and resource."""


OnResult: TypeAlias = Callable[["AppendResult | LedgerError"], None]
"""Called once with the result, or with the error that leaves it unknown; must not raise."""


class _Waiting(msgspec.Struct):
    new_event: NewEvent
    entered: float
    on_result: OnResult


class AppendRefused(LedgerError):
    """The database refused this one callback; nothing was stored. See the service's log."""


@dataclass(slots=True)
class InFlightLimit:
    """How much may wait in this process, in events and bytes, over all sources."""

    events_max: int
    bytes_max: int
    events: int = 0
    bytes: int = 0

    def take(self, size: int) -> None:
        """Reserve room for one event. Raises Overloaded when there is none."""
        if self.events >= self.events_max or self.bytes + size > self.bytes_max:
            raise Overloaded
        self.events += 1
        self.bytes += size

    def give(self, size: int) -> None:
        """Return the room of one event."""
        self.events -= 1
        self.bytes -= size

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Reserve room for the length of a block. Raises Overloaded when there is none."""
        self.take(size)
        try:
            yield
        finally:
            self.give(size)


class Appender:
    """Appends the events of one source: collects them while a batch commits, then commits them."""

    def __init__(
        self,
        source: str,
        settings: Settings,
        in_flight: InFlightLimit,
        on_commit: Callable[[], None] = lambda: None,
        *,
        linger: Linger = Linger(),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.source = source
        self.in_flight = in_flight
        self._settings = settings
        self._on_commit = on_commit
        self._linger = linger
        self._sleep = sleep
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._is_lost = False
        self._due = 0.0
        self._is_asleep = False

    def append(self, new_event: NewEvent) -> asyncio.Future[AppendResult]:
        """Queue an event. Its future resolves after the commit, or fails with a LedgerError.

        Raises Overloaded, like `submit`.
        """
        done: asyncio.Future[AppendResult] = asyncio.get_running_loop().create_future()

        def resolve(result: AppendResult | LedgerError) -> None:
            if done.done():
                return
            if isinstance(result, LedgerError):
                done.set_exception(result)
            else:
                done.set_result(result)

        self.submit(new_event, resolve)
        return done

    def submit(self, new_event: NewEvent, on_result: OnResult) -> None:
        """Queue an event; `on_result` is called within `answer_seconds_max`, whatever happens.

        Raises Overloaded when the process may hold no more, or is stopping.
        """
        if self._stopping:
            raise Overloaded("the service is stopping; send the callback again")
        self.in_flight.take(len(new_event.body))
        self._queue.append(_Waiting(new_event, monotonic(), on_result))
        if self._is_asleep:
            self._wake.set()

    async def run(self, pool: Pool) -> None:
        """Commit batches through connections of `pool` until stopped and drained."""
        while True:
            while not self._queue:
                if self._stopping:
                    return
                self._wake.clear()
                self._is_asleep = True
                await self._wake.wait()
                self._is_asleep = False
            await self._wait_for_more()
            batch = self._take()
            is_busy = len(batch) >= self._linger.events_min
            self._due = monotonic() + self._linger.seconds if is_busy else 0.0
            await self._commit(pool, batch)
            stop_if_cancelled()

    async def _wait_for_more(self) -> None:
        """Let a batch grow, as Linger says."""
        known = 0
        while known < (count := len(self._queue)) < self._linger.events_max:
            left = self._due - monotonic()
            if left <= 0 or self._stopping:
                return
            known = count
            await self._sleep(min(left, self._linger.quiet_seconds))

    def stop(self) -> None:
        """Take nothing new; `run` returns when everything that was queued has its result."""
        self._stopping = True
        self._wake.set()

    def _take(self) -> list[_Waiting]:
        """Take the next batch; a second copy of an event in it is answered as a duplicate."""
        batch: list[_Waiting] = []
        size = 0
        while self._queue and len(batch) < self._settings.batch_events_max:
            size += len(self._queue[0].new_event.body)
            if batch and size > self._settings.batch_bytes_max:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _commit(self, pool: Pool, batch: list[_Waiting]) -> None:
        left = batch[0].entered + self._settings.answer_seconds_max - monotonic()
        try:
            async with asyncio.timeout(max(left, 0.05)):
                record, others = await self._append(pool, batch)
        except Exception as error:  # noqa: BLE001 - senders get an answer, whatever failed
            await self._fail(pool, batch, error)
        else:
            if self._is_lost:
                LOGGER.info("append_resumed", source=self.source)
            self._is_lost = False
            self._report(batch, record, others)
            self._on_commit()

    async def _append(self, pool: Pool, batch: list[_Waiting]) -> tuple[Any, set[int]]:
        """Append a batch; return the record of APPEND, and the places that `_others` returns."""
        values = columns([waiting.new_event for waiting in batch])
        async with pool.acquire() as connection:
            try:
                record: Any = await connection.fetchrow(APPEND, self.source, *values)
                if record["positions"] is not None and None in record["positions"]:
                    raise DatabaseUnavailable  # the append function raises first: its pair here
                return record, await self._others(connection, batch, record)
            except BaseException as error:
                if not is_data_error(error):
                    connection.terminate()  # whether the statement took effect is unknown
                raise

    async def _others(self, connection: Any, batch: list[_Waiting], record: Any) -> set[int]:
        """Return the places whose bytes are in the log as another resource, by another URL."""
        if record["positions"] is None:
            return set()
        duplicates = {
            n: record["positions"][n]
            for n, waiting in enumerate(batch)
            if waiting.new_event.is_by_url and not record["fresh"][n]
        }
        if not duplicates:
            return set()
        rows = await connection.fetch(SELECT_KNOWN, self.source, list(duplicates.values()))
        known = {row["position"]: row for row in rows}
        return {
            n
            for n, position in duplicates.items()
            if _is_other(known[position], batch[n].new_event)
        }

    def _report(self, batch: list[_Waiting], record: Any, others: set[int]) -> None:
        """Report to each of a batch where its event is."""
        positions = record["positions"]
        base = record["base"]
        for n, waiting in enumerate(batch):
            if positions is None:
                result = AppendResult(base + n + 1, fresh=True, event_id=waiting.new_event.event_id)
            else:
                result = AppendResult(
                    positions[n], fresh=record["fresh"][n], event_id=record["event_ids"][n],
                    is_same_resource=n not in others,
                )  # fmt: skip
            self._finish(waiting, result)

    def _finish(self, waiting: _Waiting, result: AppendResult | LedgerError) -> None:
        self.in_flight.give(len(waiting.new_event.body))
        waiting.on_result(result)

    async def _fail(self, pool: Pool, batch: list[_Waiting], error: Exception) -> None:
        """Fail what is waiting; an event that the database refuses fails alone."""
        if not is_data_error(error):
            await self._fail_all(pool, batch, error)
        elif len(batch) > 1:
            for waiting in batch:
                await self._commit(pool, [waiting])
        else:
            LOGGER.error("append_refused", source=self.source, error=describe(error))
            self._finish(batch[0], AppendRefused())

    async def _fail_all(self, pool: Pool, batch: list[_Waiting], error: BaseException) -> None:
        """Fail everything that waits: the database is away, and another deadline does not help."""
        if not self._is_lost:
            LOGGER.warning("append_unknown", source=self.source, error=describe(error))
        self._is_lost = True
        for waiting in [*batch, *self._queue]:
            self._finish(waiting, DatabaseUnavailable())
        self._queue.clear()
        if not isinstance(error, asyncpg.PostgresError) or is_server_gone(error):
            await pool.expire_connections()  # the others are of the same server


def _is_other(known: Any, posted: NewEvent) -> bool:
    """Tell whether an event with the same bytes is another resource than what was posted.

    By the same event name it is the same, even if another version of the program read it otherwise.
    """
    if known["path_event"] == posted.path_event:
        return False
    return (known["kind"], known["resource_id"]) != (posted.kind, posted.resource_id)


def columns(new_events: Sequence[NewEvent]) -> list[list[Any]]:
    """Return what APPEND takes of some events, one list per parameter from $2 on."""
    values = [list(column) for column in zip(*map(_values, new_events), strict=True)]
    for place in _TIMES:
        values[place] = time_texts(values[place])
    return values


def time_texts(times: Iterable[datetime | None]) -> list[str | None]:
    """Return times as APPEND takes them."""
    return [None if time is None else time.isoformat() for time in times]


def append_pool(dsn: str) -> AbstractAsyncContextManager[Pool]:
    """Share connections for appending for the length of a block; each is checked to be safe."""
    return database.pooled(dsn, size_max=CONNECTIONS_MAX, init=database.assert_safe)


@dataclass(slots=True)
class Log:
    """The appenders of one process, one for each configured source."""

    dsn: str
    settings: Settings
    appenders: dict[str, Appender] = field(default_factory=dict)
    in_flight: InFlightLimit = field(init=False)
    _committed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        settings = self.settings
        self.in_flight = InFlightLimit(settings.queue_events_max, settings.queue_bytes_max)
        for source in settings.sources:
            made = Appender(source, settings, self.in_flight, self._committed.set)
            self.appenders.setdefault(source, made)

    async def run(self) -> None:
        """Run every appender and the notifications until `stop`."""
        async with append_pool(self.dsn) as pool, asyncio.TaskGroup() as tasks:
            notifying = tasks.create_task(self._notify())
            running = [tasks.create_task(each.run(pool)) for each in self.appenders.values()]
            await asyncio.wait(running)
            notifying.cancel()

    def stop(self) -> None:
        """Drain and end every appender."""
        for appender in self.appenders.values():
            appender.stop()

    async def _notify(self) -> None:
        """Wake the projector after commits; a failure costs it one poll, so it is waited out."""
        connection: Any = None
        try:
            while True:
                await self._committed.wait()
                self._committed.clear()
                try:
                    if connection is None or connection.is_closed():
                        connection = await database.connect(self.dsn)
                    await connection.execute(NOTIFY)
                except EXPECTED:
                    stop_if_cancelled()
                    if connection is not None:
                        connection.terminate()
                await asyncio.sleep(NOTIFY_SECONDS_MIN)
        finally:
            if connection is not None:
                connection.terminate()
