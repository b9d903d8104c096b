"""The event log: append by group commit, one round trip per batch, one lane per source.

Nothing here reads before it writes: the database's unique key tells new from duplicate. An error
from the database means *unknown*; the caller answers 503 and the provider's retry meets the key.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec
import structlog

from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.database.connection import Pool
from ledger.errors import DatabaseUnavailable, LedgerError, Overloaded
from ledger.runtime.event_loop import stop_if_cancelled

LOGGER = structlog.get_logger("ledger.log")

APPEND: Final = """
SELECT base, positions, fresh FROM ledger.append(
    $1, $2::bytea[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::timestamptz[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[],
    $14::text[], $15::bytea[], $16::timestamptz[])
"""
_REPEATED: Final = (4, 6, 9, 10, 11, 12, 13)
"""Parameters of APPEND that mostly say the same of every event of a batch."""

_FILLED: Final = (
    "CASE cardinality(${0}::text[]) WHEN 1 "
    "THEN array_fill((${0}::text[])[1], ARRAY[cardinality($2::bytea[])]) ELSE ${0}::text[] END"
)


def _append_batch() -> str:
    """Return APPEND for what `_once` and `_moments` say of columns."""
    found = APPEND.replace("::timestamptz[]", "::text::timestamptz[]")
    for place in _REPEATED:
        found = found.replace(f"${place}::text[]", _FILLED.format(place))
    return found


APPEND_BATCH: Final = _append_batch()
SELECT_KNOWN: Final = """
SELECT position, kind, resource_id FROM ledger.events
 WHERE source = $1 AND position = ANY ($2::bigint[])
"""
RING: Final = "SELECT pg_notify('ledger_log', '')"
RING_PACE_SECONDS: Final = 0.05
"""Rings follow each other no faster than this: a projector that has work looks by itself."""

CONNECTIONS_MAX: Final = 4
"""Connections that append in one process, shared by all its sources."""

PACE_SECONDS: Final = 0.008
"""Batches of a busy lane begin no faster than this after each other while callbacks keep coming: a
commit costs receiver and database as much as ten callbacks."""

QUIET_SECONDS: Final = 0.002
"""When nothing came for so long, nobody is waited for: senders may be waiting for their answers."""

PACED_EVENTS: Final = range(8, 64)
"""A lane is busy when its last batch had at least so many callbacks, and waits for no more than
so many."""

_encode: Final = msgspec.json.Encoder().encode


class NewEvent(msgspec.Struct, gc=False):
    """One authentic callback on its way into the log."""

    event_id: bytes
    idempotency_key: str
    kind: str
    resource_id: str
    status: str
    idempotency_id: str | None
    provider_at: datetime | None
    path_event: str | None
    origin: str
    reason: str | None
    detail: str | None
    peer: str
    headers: str
    body: bytes
    received_at: datetime
    is_by_url: bool = False
    """Whether its event id says nothing of its kind and resource: the URL told them."""


class AppendResult(msgspec.Struct, frozen=True, gc=False):
    """Where a callback is in the log, and whether this delivery put it there."""

    position: int
    fresh: bool
    is_alike: bool = True
    """Whether the event there is of the kind and the resource that this delivery is of."""


Tell: TypeAlias = Callable[["AppendResult | LedgerError"], None]
"""Is called once with where the callback is, or with why nobody knows; must not raise."""


class _Waiting(msgspec.Struct):
    new_event: NewEvent
    entered: float
    tell: Tell


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
        """Reserve room. Raises Overloaded when there is none."""
        if self.events >= self.events_max or self.bytes + size > self.bytes_max:
            raise Overloaded
        self.events += 1
        self.bytes += size

    def give(self, size: int) -> None:
        """Return the room of one callback."""
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
    """The appender of one source: collects what arrives while a batch commits, then commits it."""

    def __init__(
        self,
        source: str,
        settings: Settings,
        budget: InFlightLimit,
        ring: Callable[[], None],
    ) -> None:
        self.source = source
        self._settings = settings
        self._budget = budget
        self._ring = ring
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._is_lost = False
        self._due = 0.0
        self._is_asleep = False

    def append(self, new_event: NewEvent) -> asyncio.Future[AppendResult]:
        """Queue a callback. Its future resolves after the commit, or fails with a LedgerError.

        Raises Overloaded, like `submit`.
        """
        done: asyncio.Future[AppendResult] = asyncio.get_running_loop().create_future()

        def tell(result: AppendResult | LedgerError) -> None:
            if done.done():
                return
            if isinstance(result, LedgerError):
                done.set_exception(result)
            else:
                done.set_result(result)

        self.submit(new_event, tell)
        return done

    def submit(self, new_event: NewEvent, tell: Tell) -> None:
        """Queue a callback; `tell` hears of it within `answer_seconds_max`, whatever happens.

        Raises Overloaded when the process's budget is used up.
        """
        if self._stopping:
            raise Overloaded("the service is stopping; send the callback again")
        self._budget.take(len(new_event.body))
        self._queue.append(_Waiting(new_event, monotonic(), tell))
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
            await self._pace()
            batch = self._take()
            is_busy = len(batch) >= PACED_EVENTS.start
            self._due = monotonic() + PACE_SECONDS if is_busy else 0.0
            await self._commit(pool, batch)
            stop_if_cancelled()

    async def _pace(self) -> None:
        """Let a batch grow while the one before it is young, when callbacks come fast."""
        known = 0
        while (count := len(self._queue)) > known and count < PACED_EVENTS.stop:
            left = self._due - monotonic()
            if left <= 0 or self._stopping:
                return
            known = count
            await asyncio.sleep(min(left, QUIET_SECONDS))

    def stop(self) -> None:
        """Take nothing new; `run` returns when all that was queued is settled."""
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
        except Exception as error:  # noqa: BLE001 - whoever waits must be told, whatever failed
            await self._failed(pool, batch, error)
        else:
            if self._is_lost:
                LOGGER.info("append_resumed", source=self.source)
            self._is_lost = False
            self._settle(batch, record, others)
            self._ring()

    async def _append(self, pool: Pool, batch: list[_Waiting]) -> tuple[Any, set[int]]:
        """Append a batch; return where its events are, and the places `_others` names."""
        columns = self._columns([waiting.new_event for waiting in batch])
        async with pool.acquire() as connection:
            try:
                record: Any = await connection.fetchrow(APPEND_BATCH, self.source, *columns)
                if record["positions"] is not None and None in record["positions"]:
                    raise DatabaseUnavailable  # the append function raises first: its pair here
                return record, await self._others(connection, batch, record)
            except BaseException as error:
                if not database.is_data_error(error):
                    connection.terminate()  # what became of the statement is not known
                raise

    def _columns(self, rows: list[NewEvent]) -> tuple[Any, ...]:
        return (
            [row.event_id for row in rows],
            [row.idempotency_key for row in rows],
            _once([row.kind for row in rows]),
            [row.resource_id for row in rows],
            _once([row.status for row in rows]),
            [row.idempotency_id for row in rows],
            _moments([row.provider_at for row in rows]),
            _once([row.path_event for row in rows]),
            _once([row.origin for row in rows]),
            _once([row.reason for row in rows]),
            _once([row.detail for row in rows]),
            _once([row.peer for row in rows]),
            [row.headers for row in rows],
            [row.body for row in rows],
            _moments([row.received_at for row in rows]),
        )

    async def _others(self, connection: Any, batch: list[_Waiting], record: Any) -> set[int]:
        """Return the places in the batch whose bytes are known as another kind or resource."""
        if record["positions"] is None:
            return set()
        asked = {
            n: record["positions"][n]
            for n, waiting in enumerate(batch)
            if waiting.new_event.is_by_url and not record["fresh"][n]
        }
        if not asked:
            return set()
        rows = await connection.fetch(SELECT_KNOWN, self.source, list(asked.values()))
        known = {position: (kind, resource_id) for position, kind, resource_id in rows}
        told = {n: (batch[n].new_event.kind, batch[n].new_event.resource_id) for n in asked}
        return {n for n, position in asked.items() if known.get(position) != told[n]}

    def _settle(self, batch: list[_Waiting], record: Any, others: set[int]) -> None:
        positions = record["positions"]
        base = record["base"]
        for n, waiting in enumerate(batch):
            if positions is None:
                result = AppendResult(base + n + 1, fresh=True)
            else:
                fresh = record["fresh"][n]
                result = AppendResult(positions[n], fresh=fresh, is_alike=n not in others)
            self._finish(waiting, result)

    def _finish(self, waiting: _Waiting, result: AppendResult | LedgerError) -> None:
        self._budget.give(len(waiting.new_event.body))
        waiting.tell(result)

    async def _fail_all(self, pool: Pool, batch: list[_Waiting], error: BaseException) -> None:
        """The database is away: whoever waits is told now, not after another deadline."""
        if not self._is_lost:
            LOGGER.warning("append_unknown", source=self.source, error=database.describe(error))
        self._is_lost = True
        for waiting in [*batch, *self._queue]:
            self._finish(waiting, DatabaseUnavailable())
        self._queue.clear()
        if not isinstance(error, asyncpg.PostgresError) or database.is_server_gone(error):
            await pool.expire_connections()  # the others are of the same server

    async def _failed(self, pool: Pool, batch: list[_Waiting], error: Exception) -> None:
        """A callback that the database refuses must not take its neighbours down with it."""
        if not database.is_data_error(error):
            await self._fail_all(pool, batch, error)
        elif len(batch) > 1:
            for waiting in batch:
                await self._commit(pool, [waiting])
        else:
            LOGGER.error("append_refused", source=self.source, error=database.describe(error))
            self._finish(batch[0], AppendRefused())


def _once(texts: list[str | None]) -> list[str | None]:
    """Say once what is said of every event; the driver writes each text of an array on its own."""
    return texts[:1] if texts.count(texts[0]) == len(texts) else texts


def _moments(moments: list[datetime | None]) -> str:
    """Write times as the text of an array, which takes the driver a fifth of writing datetimes.

    An array of times in JSON differs from PostgreSQL's in its brackets alone.
    """
    return f"{{{_encode(moments)[1:-1].decode()}}}"


def append_pool(dsn: str) -> AbstractAsyncContextManager[Pool]:
    """Share connections for appending for the length of a block; each is checked to be safe."""
    return database.pooled(dsn, size_max=CONNECTIONS_MAX, init=database.assert_safe)


@dataclass(slots=True)
class Log:
    """All lanes of one process."""

    dsn: str
    settings: Settings
    lanes: dict[str, Appender] = field(default_factory=dict)
    _rung: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False

    def __post_init__(self) -> None:
        budget = InFlightLimit(self.settings.queue_events_max, self.settings.queue_bytes_max)
        for source in self.settings.sources:
            self.lanes[source] = Appender(source, self.settings, budget, self._rung.set)

    async def run(self) -> None:
        """Run every lane and the bell until `stop`."""
        async with append_pool(self.dsn) as pool, asyncio.TaskGroup() as tasks:
            bell = tasks.create_task(self._ring())
            lanes = [tasks.create_task(lane.run(pool)) for lane in self.lanes.values()]
            await asyncio.wait(lanes)
            bell.cancel()

    def stop(self) -> None:
        """Drain and end every lane."""
        for lane in self.lanes.values():
            lane.stop()

    async def _ring(self) -> None:
        """Wake the projector; a lost ring costs it one poll, so failures are only waited out."""
        connection: Any = None
        try:
            while True:
                await self._rung.wait()
                self._rung.clear()
                try:
                    if connection is None or connection.is_closed():
                        connection = await database.connect(self.dsn)
                    await connection.execute(RING)
                except (LedgerError, asyncpg.PostgresError, *database.LOST):
                    stop_if_cancelled()
                    if connection is not None:
                        connection.terminate()
                await asyncio.sleep(RING_PACE_SECONDS)
        finally:
            if connection is not None:
                connection.terminate()
