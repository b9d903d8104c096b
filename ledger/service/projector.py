"""The projector role: keeps the live generation at the log's head, makes a new one when needed.

A generation carries the version of the code that folded it. When this program's version is
another, the log is folded again beside the live books, compared with them and swapped in; until
then the live ones answer, at the position that they have.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from ledger import registry
from ledger.books import fold_version
from ledger.books.fold_connections import FoldConnections, fold_connections
from ledger.books.generations import SELECT_LIVE, create_generation, use_generation
from ledger.books.projection_worker import REPORT_FAILURES, ProjectionWorker, would_fold
from ledger.config.settings import Settings
from ledger.database import conditions
from ledger.database import connection as database
from ledger.database.errors import EXPECTED, describe
from ledger.errors import LedgerError
from ledger.eventlog.sources import terms_of
from ledger.fold.change import REFUSED
from ledger.model import SourceTerms
from ledger.rebuild.coordinator import OnProgress
from ledger.rebuild.swap import Rebuild, SourceComparison, exclusive_rebuild
from ledger.runtime.event_loop import Backoff, first_failure, stop_if_cancelled, wait_for

LOGGER = structlog.get_logger(__name__)

LISTEN: Final = "ledger_log"
CHECK_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.25
RETRY_SECONDS_MIN: Final = 0.5
RETRY_SECONDS_MAX: Final = 2.0
REPORT_SECONDS: Final = 30.0
RETRY_END_SECONDS_MAX: Final = 10.0
"""How long a retry that swapped the books may take to clear up, before it is cancelled."""
DIFFERENT: Final = "rebuilt_books_differ"
WAITING: Final = "projector_waits"

DERIVED: Final = ("open_exceptions", "findings")
"""Tables that follow from the others alone: nothing of their own explains their rows."""

SELECT_HEADS: Final = "SELECT source, position FROM ledger.heads"
SELECT_REFUSED: Final = """
SELECT source, position FROM parked WHERE starts_with(reason, $1)
 UNION
SELECT source, position FROM exceptions WHERE reason = $1 AND action = 'opened'
 ORDER BY 1, 2 LIMIT 1000
"""
SELECT_PARKED: Final = """
SELECT source, position FROM parked
 UNION
SELECT source, position FROM exceptions WHERE reason = 'rows_refused' AND action = 'opened'
"""


class OtherVersion(LedgerError):
    """Another version of the program made its books live; this one folds nothing."""


class BooksDiffer(LedgerError):
    """The rebuilt books differ from the live ones and are kept beside. See the message."""


@dataclass(slots=True)
class Projector:
    """Folds every source of one database."""

    dsn: str
    settings: Settings
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once there are books to query."""
    _served: set[str] = field(default_factory=set)
    """Versions that this process made live once: it never takes over from a newer one."""
    _log_grew: asyncio.Event = field(default_factory=asyncio.Event)
    _is_retry_due: bool = True
    """Whether parked events are to be tried again: at every start, and when decided."""
    _different: str = ""
    """Why rebuilt books wait for a decision, if they do."""
    _backoff: Backoff = field(default_factory=lambda: Backoff(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX))

    async def run(self) -> None:
        """Fold until cancelled, through every failure."""
        while True:
            try:
                await self._session()
            except Exception as error:  # noqa: BLE001 - logged, reported, tried again
                stop_if_cancelled()
                await self._failed(first_failure(error), self._backoff.failures + 1)
            await self._backoff.pause()

    async def _failed(self, error: BaseException, failures: int) -> None:
        reason = describe(error)
        if isinstance(error, EXPECTED):
            LOGGER.warning(WAITING, error=reason, tries=failures)
        else:
            LOGGER.error("projector_failed", error=reason, exc_info=error)
        if failures >= REPORT_FAILURES:
            await self._report(WAITING, f"{failures} tries failed, the last with {reason}")

    async def _report(self, name: str, detail: str | None) -> None:
        """Report a condition of the whole service, or clear it; a lost database keeps none."""
        with suppress(*EXPECTED):
            async with database.connected(self.dsn) as connection:
                if detail is None:
                    await conditions.clear(connection, "", name)
                else:
                    await conditions.report(connection, "", name, detail)

    async def _session(self) -> None:
        async with database.connected(self.dsn, seconds_max=60) as connection:
            await connection.add_listener(LISTEN, self._notified)
            try:
                generation = await self._prepare(connection)
            except BooksDiffer as error:
                await self._await_decision(connection, str(error))
                return
            self._backoff.reset()
            await conditions.clear(connection, "", WAITING)
            if not self._different:
                await conditions.clear(connection, "", DIFFERENT)
            await self._fold_live(connection, generation)

    async def _prepare(self, connection: Any) -> int:
        """Return the generation to fold into; make it, and swap it in, when the code changed.

        Raises BooksDiffer when the books of the changed code are not the live ones.
        """
        version = fold_version.current_version(await terms_of(connection, self.settings))
        live = await connection.fetchrow(SELECT_LIVE)
        if live is None:
            first = await create_generation(connection, registry.load(), version, "live")
            self._is_retry_due = False
            self._served.add(version)
            self.answering.set()
            return first
        self.answering.set()
        if live["version"] != version:
            if version in self._served:
                raise OtherVersion
            generation = await self._renew(version)
            self._is_retry_due = False
        else:
            generation = int(live["generation"])
        self._served.add(version)
        return generation

    async def _retry(self, generation: int) -> None:
        """Fold the log again beside the live books if the database takes now what it refused."""
        try:
            async with database.connected(self.dsn, seconds_max=60) as connection:
                if not await self._would_fold_now(connection, generation):
                    return
                version = fold_version.current_version(await terms_of(connection, self.settings))
            await self._renew(version, is_retry=True)
            self._different = ""
        except BooksDiffer as error:
            LOGGER.error(DIFFERENT, error=str(error))
            self._different = str(error)
        except Exception as error:  # noqa: BLE001 - the live books go on; the next start tries again
            stop_if_cancelled()
            LOGGER.warning("retry_failed", error=describe(first_failure(error)))

    async def _would_fold_now(self, connection: Any, generation: int) -> bool:
        """Tell whether the database takes any event now whose rows it refused before."""
        await use_generation(connection, generation)
        rows = await connection.fetch(SELECT_REFUSED, REFUSED)
        if not rows:
            return False
        terms = {terms.source: terms for terms in await terms_of(connection, self.settings)}
        async with fold_connections(self.dsn, generation, is_background=True) as shared:
            for row in rows:
                if row["source"] in terms:
                    folder = self._folder(shared, terms[row["source"]])
                    if await would_fold(folder, row["position"]):
                        LOGGER.info("refused_events_retried", source=row["source"])
                        return True
        LOGGER.warning("rows_still_refused", events=len(rows))
        return False

    async def _renew(self, version: str, *, is_retry: bool = False) -> int:
        """Fold the log beside the live books, compare, and swap; return the live generation.

        Books that differ in rows that both have are swapped only when they hold events again that
        were parked, or when the settings accept the changes of another version; and never when
        they park an event that the live books contain. Raises BooksDiffer otherwise, and
        RebuildRunning while another process rebuilds.
        """
        async with exclusive_rebuild(self.dsn) as connection:
            live = await connection.fetchrow(SELECT_LIVE)
            is_changed = live["version"] != version
            if not is_changed and not is_retry:
                return int(live["generation"])
            LOGGER.info("books_rebuild_started", generation=live["generation"], version=version)
            rebuild = Rebuild(
                self.dsn, self.settings, connection, registry.load(), on_progress=_log_stages()
            )
            await rebuild.build()
            compared = await rebuild.compare()
            differing = sum([_summarize(found) for found in compared])
            parked = await parked_positions(connection, rebuild.live)
            now_parked = await parked_positions(connection, rebuild.generation)
            if is_changed:
                is_accepted = self.settings.swap_changed_books
            else:
                is_accepted = all(_is_explained(found, parked - now_parked) for found in compared)
            if differing and not (is_accepted and now_parked <= parked):
                raise BooksDiffer(
                    f"the rebuilt books differ from the live ones in {differing} rows or more, and "
                    f"{len(now_parked - parked)} more events are parked; the live books stay as "
                    "they are until you compare them with `ledger rebuild` and decide with "
                    "`ledger rebuild --swap --accept-differences`"
                )
            await rebuild.swap()
            LOGGER.info("books_rebuild_swapped", generation=rebuild.generation, version=version)
            return rebuild.generation

    async def _await_decision(self, connection: Any, detail: str) -> None:
        """Wait until other books are live, reporting meanwhile why these do not move.

        This program does not fold the live books: another version made them.
        """
        LOGGER.error(DIFFERENT, error=detail)
        live = await connection.fetchrow(SELECT_LIVE)
        clock = asyncio.get_running_loop().time
        reported = float("-inf")
        while True:
            if clock() - reported > REPORT_SECONDS:
                await conditions.report(connection, "", DIFFERENT, detail)
                reported = clock()
            now = await connection.fetchrow(SELECT_LIVE)
            if now is None or now["generation"] != live["generation"]:
                await conditions.clear(connection, "", DIFFERENT)
                return
            await asyncio.sleep(CHECK_SECONDS)

    async def _fold_live(self, connection: Any, generation: int) -> None:
        """Fold all sources, and new ones as they appear, until another generation is live."""
        clock = asyncio.get_running_loop().time
        checked = reported = float("-inf")
        retrying: asyncio.Task[None] | None = None
        async with (
            fold_connections(self.dsn, generation) as shared,
            asyncio.TaskGroup() as tasks,
        ):
            folders: dict[str, ProjectionWorker] = {}
            running: list[asyncio.Task[None]] = []
            while True:
                if clock() - checked >= CHECK_SECONDS:
                    known = await terms_of(connection, self.settings)
                    if not await self._is_current(connection, generation, known, folders):
                        break
                    checked = clock()
                    for terms in known:
                        if terms.source not in folders:
                            folder = folders[terms.source] = self._folder(shared, terms)
                            running.append(tasks.create_task(folder.run()))
                if self._is_retry_due and (retrying is None or retrying.done()):
                    self._is_retry_due = False
                    retrying = tasks.create_task(self._retry(generation))
                if self._different and clock() - reported > REPORT_SECONDS:
                    await conditions.report(connection, "", DIFFERENT, self._different)
                    reported = clock()
                self._log_grew.clear()
                for row in await connection.fetch(SELECT_HEADS):
                    if row["source"] in folders:
                        folders[row["source"]].grow(row["position"])
                await wait_for(self._log_grew, POLL_SECONDS)
            if retrying is not None:
                await asyncio.wait([retrying], timeout=RETRY_END_SECONDS_MAX)
                running.append(retrying)
            for task in running:
                task.cancel()

    async def _is_current(
        self,
        connection: Any,
        generation: int,
        known: Sequence[SourceTerms],
        folders: Mapping[str, ProjectionWorker],
    ) -> bool:
        """Tell whether this generation is live and the sources' terms are those folded by."""
        live = await connection.fetchrow(SELECT_LIVE)
        if live is None or live["generation"] != generation:
            return False
        return all(
            folders[terms.source].terms == terms for terms in known if terms.source in folders
        )

    def _folder(self, shared: FoldConnections, terms: SourceTerms) -> ProjectionWorker:
        return ProjectionWorker(
            shared, self.settings, registry.load(), terms, on_retry=self._retry_decided
        )

    def _retry_decided(self) -> None:
        self._is_retry_due = True
        self._log_grew.set()

    def _notified(self, *_: object) -> None:
        self._log_grew.set()


async def parked_positions(connection: Any, generation: int) -> set[tuple[str, int]]:
    """Return (source, position) of every event that a generation has parked."""
    await use_generation(connection, generation)
    rows = await connection.fetch(SELECT_PARKED)
    return {(row["source"], row["position"]) for row in rows}


def _log_stages() -> OnProgress:
    """Return a callback that logs every stage of a rebuild once."""
    known: set[str] = set()

    def on_progress(stage: str, _done: int, total: int) -> None:
        if stage not in known:
            known.add(stage)
            LOGGER.info("books_rebuild_stage", phase=stage, events=total)

    return on_progress


def _is_explained(found: SourceComparison, freed: set[tuple[str, int]]) -> bool:
    """Tell whether events that were parked and are folded now explain every difference."""
    positions = {position for source, position in freed if source == found.source}
    return all(
        not difference.key
        or difference.table in DERIVED
        or positions.intersection(difference.positions)
        for difference in found.differences
    )


def _summarize(found: SourceComparison) -> int:
    """Log how many rows of which tables differ in the rebuilt books; return how many.

    A table or column that only one side has is no difference: it is what a version adds or drops.
    """
    shared = [difference for difference in found.differences if difference.key]
    tables = Counter(difference.table for difference in shared)
    LOGGER.info("books_rebuild_compared", source=found.source, position=found.position,
                state="different" if tables else "equal")  # fmt: skip
    for table, count in sorted(tables.items()):
        LOGGER.info("books_rebuild_differs", source=found.source, name=table, events=count)
    return len(shared)
