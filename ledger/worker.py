"""The projector: reads the log behind the checkpoint, translates, folds, writes, again.

While PostgreSQL writes one batch, the next is read and translated. A ring wakes it within
milliseconds; polling alone would do. Several may run: the checkpoint lets only one advance.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import orjson
import structlog

from ledger import books, database
from ledger.errors import CannotBeTrue, LedgerError, Unreadable
from ledger.fold import Batch, Change, Translated
from ledger.metrics import FOLDED
from ledger.model import SourceTerms, Trouble
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
PAUSE_SECONDS_MIN: Final = 0.05
PAUSE_SECONDS_MAX: Final = 1.0
PLAIN_PLANS: Final = {
    "plan_cache_mode": "force_custom_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
}
"""Every look-up goes by a key whose order we know; statistics of a young table mislead."""


def translate(registry: Registry, terms: SourceTerms, row: Any) -> Translated:
    """Turn a stored event into a fact, or into the trouble that it is."""
    fact = trouble = None
    if row["reason"] == "unsupported_encoding":
        trouble = Trouble(row["reason"], row["detail"] or "")
    else:
        try:
            fact = registry.translate(terms, row["origin"], row["path_event"], row["body"])
        except Unreadable as error:
            trouble = Trouble("unreadable", str(error))
        except CannotBeTrue as error:
            trouble = Trouble(error.reason, error.detail)
        except Exception as error:
            LOGGER.exception("handler_failed", source=terms.source, position=row["position"])
            trouble = Trouble("handler_failed", f"{type(error).__name__}: {error}"[:500])
    return Translated(
        row["position"],
        row["event_id"].hex(),
        row["kind"],
        row["resource_id"],
        row["status"],
        row["received_at"],
        row["recorded_at"],
        fact,
        trouble,
    )


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
                LOGGER.warning(
                    "fold_interrupted", source=self.terms.source, error=type(error).__name__
                )
            if not done:
                await asyncio.sleep(pause)
                pause = min(pause * 2, PAUSE_SECONDS_MAX)

    async def _session(self) -> None:
        """Fold through one pair of connections, from the checkpoint the books show."""
        async with (
            database.connected(self.dsn, seconds_max=60) as reading,
            database.connected(
                self.dsn, seconds_max=60, synchronous_commit="off", **PLAIN_PLANS
            ) as writing,
        ):
            await books.use_generation(writing, self.generation)
            own = books.Books(writing, self.registry, self.terms.source)
            position = await own.position()
            parked = await own.parked()
            queue: asyncio.Queue[Sequence[Translated] | None] = asyncio.Queue(maxsize=1)
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(reading, position, queue))
                while (events := await queue.get()) is not None:
                    await self._fold(own, parked, position, events)
                    position = events[-1].position
                await reader

    async def _read(
        self, connection: Any, position: int, queue: asyncio.Queue[Sequence[Translated] | None]
    ) -> None:
        async for rows in self._batches(connection, position):
            await queue.put([translate(self.registry, self.terms, row) for row in rows])
        await queue.put(None)

    async def _batches(self, connection: Any, position: int) -> AsyncIterator[list[Any]]:
        limits = (self.settings.fold_events_max, self.settings.fold_bytes_max)
        while True:
            self.rung.clear()
            rows = await connection.fetch(SELECT_BATCH, self.terms.source, position, *limits)
            if rows:
                position = rows[-1]["position"]
                yield rows
            elif self.catch_up_only:
                return
            else:
                await _wait(self.rung, POLL_SECONDS)

    async def _fold(
        self,
        own: books.Books,
        parked: set[tuple[str, str]],
        position: int,
        events: Sequence[Translated],
    ) -> None:
        change = await self._change(own, parked, events)
        try:
            await own.write(change, position, events[-1].position)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            await self._isolate(own, parked, position, events, error)
        else:
            parked.update(park.key for park in change.parked)
            FOLDED.labels(self.terms.source).inc(len(events))

    async def _change(
        self, own: books.Books, parked: set[tuple[str, str]], events: Sequence[Translated]
    ) -> Change:
        batch = Batch(
            self.terms,
            self.registry.streams,
            self.registry.projections,
            events,
            parked=set(parked),
        )
        await own.load(batch, batch.keys())
        await own.load_related(batch, batch.fold_states())
        return batch.finish()

    async def _isolate(
        self,
        own: books.Books,
        parked: set[tuple[str, str]],
        position: int,
        events: Sequence[Translated],
        error: Exception,
    ) -> None:
        """Find the one event whose rows the database refuses, and list it instead."""
        if len(events) > 1:
            half = len(events) // 2
            await self._fold(own, parked, position, events[:half])
            await self._fold(own, parked, events[half - 1].position, events[half:])
            return
        event = events[0]
        if event.fact is None:
            raise error
        LOGGER.error("rows_refused", source=self.terms.source, position=event.position)
        trouble = Trouble("rows_refused", f"{type(error).__name__}: {error}"[:300])
        refused = Translated(
            event.position, event.event_id, event.kind, event.resource_id, event.status,
            event.received_at, event.recorded_at, None, trouble,
        )  # fmt: skip
        await self._fold(own, parked, position, [refused])


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
