"""Rebuilding the books from the log: beside the live ones, compared with them, then swapped in.

Until the swap commits, every answer comes from the live books; whatever is killed before leaves
them as they are, and the next rebuild of the same version goes on where this one was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ledger.books import balance_index, fold_version
from ledger.books.compare import Difference
from ledger.books.generations import SELECT_LIVE, schema_of, try_swap, use_generation
from ledger.books.store import SELECT_CHECKPOINT
from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.errors import NoBooks, RebuildRunning
from ledger.eventlog.sources import terms_of
from ledger.model import SourceTerms
from ledger.rebuild.coordinator import (
    PROCESSES,
    BulkRebuild,
    OnProgress,
    build_generation,
    discard_generation,
)
from ledger.rebuild.plan import folded_positions, positions_of
from ledger.rebuild.second_generation import VERSION as VERIFY_VERSION
from ledger.rebuild.second_generation import SecondFold
from ledger.registry import Registry

VERSION: Final = "rebuild-"
"""How the version of a generation that is being rebuilt begins: no process takes it for books."""

LOCK: Final = 0x6C65_6467_6572
SECONDS_MAX: Final = 3600.0
SWAP_TRIES: Final = 20
BEHIND_SECONDS_MAX: Final = 10.0
"""How long live books may take to come as far as the previous ones, folded on a little longer."""

BEHIND_PAUSE_SECONDS: Final = 0.1
CATCH_UP: Final = "catch up"
INDEX_BALANCES: Final = "index balances"
COMPARE: Final = "compare"

TRY_LOCK: Final = "SELECT pg_try_advisory_lock($1)"
SELECT_UNFINISHED: Final = """
SELECT generation FROM ledger.generations
 WHERE state = 'building' AND (starts_with(version, $1) AND version <> $2
                              -- a day is longer than any verification takes
                           OR starts_with(version, $3) AND created_at < now() - interval '1 day')
"""
SELECT_PREVIOUS: Final = """
SELECT generation, version FROM ledger.generations WHERE state = 'previous'
 ORDER BY generation DESC LIMIT 1
"""
SELECT_SUPERSEDED: Final = """
SELECT generation FROM ledger.generations WHERE state = 'previous' AND generation <> $1
"""
UPDATE_VERSION: Final = "UPDATE ledger.generations SET version = $2 WHERE generation = $1"


@dataclass(frozen=True, slots=True)
class SourceComparison:
    """What was found about one source, at one position of both generations."""

    source: str
    position: int
    differences: Sequence[Difference]


@asynccontextmanager
async def exclusive_rebuild(dsn: str) -> AsyncIterator[Any]:
    """Hold the right to rebuild this database for the length of a block.

    Raises RebuildRunning when someone else has it. It ends with the process that holds it.
    """
    async with database.connected(
        dsn, seconds_max=SECONDS_MAX, idle_in_transaction_session_timeout="0"
    ) as connection:
        if not await connection.fetchval(TRY_LOCK, LOCK):
            raise RebuildRunning
        yield connection


@dataclass(slots=True)
class Rebuild:
    """One rebuild of all sources, which reports how far it is. Only one runs at a time."""

    dsn: str
    settings: Settings
    connection: Any
    registry: Registry
    processes: int = PROCESSES
    on_progress: OnProgress = lambda _stage, _done, _total: None
    terms: list[SourceTerms] = field(default_factory=list)
    live: int = 0
    live_version: str = ""
    version: str = ""
    generation: int = 0
    load: BulkRebuild | None = None

    async def build(self) -> None:
        """Fold the log beside the live books, as far as they are. Raises NoBooks without any."""
        await self._look()
        await self._forget_others()
        await self._make()
        if await self._ahead():
            # Other books became live since; these cannot be compared at a position of theirs.
            await self.drop()
            await self._make()
        await self._catch_up()

    async def compare(self) -> list[SourceComparison]:
        """Compare every table of every source with the live books, at one position each."""
        found = []
        for n, fold in enumerate(self._folds(self.generation)):
            self.on_progress(COMPARE, n, len(self.terms))
            position, differences = await fold.differences()
            found.append(SourceComparison(fold.terms.source, position, differences))
        self.on_progress(COMPARE, len(self.terms), len(self.terms))
        return found

    async def swap(self) -> None:
        """Make the rebuilt books the live ones; keep those that were, and none before them."""
        await index_balances(self.dsn, self.generation, self.terms, self.on_progress)
        await self._swap(self.generation)
        for row in await self.connection.fetch(SELECT_SUPERSEDED, self.live):
            await discard_generation(self.connection, self.settings, int(row["generation"]))

    async def drop(self) -> None:
        """Drop the rebuilt books."""
        await discard_generation(self.connection, self.settings, self.generation)

    async def look_back(self) -> None:
        """Take the previous books for the rebuilt ones, folded as far as the live ones are.

        Raises NoBooks when there are none that this version of the program folds.
        """
        await self._look()
        row = await self.connection.fetchrow(SELECT_PREVIOUS)
        if row is None:
            raise NoBooks("there are no previous books; a rebuild with --swap leaves some")
        if row["version"] != self.version:
            raise NoBooks(
                "the previous books were folded by another version of this program; "
                "run that version's `ledger rebuild --rollback`"
            )
        self.generation = int(row["generation"])
        await self._wait_for_live()
        await self._catch_up()

    async def _catch_up(self) -> None:
        """Fold what came to the live books since, telling of it as events of all sources."""
        mine = await positions_of(self.connection, self.generation)
        theirs = await folded_positions(self.connection, self.live)
        done, total = sum(mine.values()), sum(theirs.values())
        self.on_progress(CATCH_UP, 0, total - done)
        for fold in self._folds(self.generation):
            source = fold.terms.source

            def advance(position: int, source: str = source) -> None:
                mine[source] = position
                self.on_progress(CATCH_UP, sum(mine.values()) - done, total - done)

            await replace(fold, progress=advance).catch_up()

    async def _wait_for_live(self) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + BEHIND_SECONDS_MAX
        while ahead := await self._ahead():
            if clock() > deadline:
                raise NoBooks(
                    f"the previous books claim more events of {ahead[0]} than the live ones have "
                    "folded; see that `ledger serve` folds them, or use `ledger rebuild --swap`"
                )
            await asyncio.sleep(BEHIND_PAUSE_SECONDS)

    async def _ahead(self) -> list[str]:
        """Name the sources of which the generation has more events than the live books can."""
        mine = await positions_of(self.connection, self.generation)
        theirs = await folded_positions(self.connection, self.live)
        return [source for source, position in mine.items() if position > theirs.get(source, 0)]

    async def _look(self) -> None:
        self.terms = await terms_of(self.connection, self.settings)
        self.version = fold_version.current_version(self.terms)
        live = await self.connection.fetchrow(SELECT_LIVE)
        if live is None:
            raise NoBooks("there are no books yet; start `ledger serve`, which makes them")
        self.live, self.live_version = int(live["generation"]), live["version"]
        await self._check_terms()

    async def _check_terms(self) -> None:
        """Raise NoBooks when the live books have a source that could not be folded again."""
        live_positions = await positions_of(self.connection, self.live)
        lost = sorted(live_positions.keys() - {terms.source for terms in self.terms})
        if lost:
            raise NoBooks(
                f"{lost[0]} has books, but ledger.sources does not say any more what it is; "
                "start `ledger serve` with its settings, or restore that row, then try again"
            )

    async def _forget_others(self) -> None:
        """Drop what rebuilds of other versions left, and what a killed verification did."""
        rows = await self.connection.fetch(
            SELECT_UNFINISHED, VERSION, VERSION + self.version, VERIFY_VERSION
        )
        for row in rows:
            await discard_generation(self.connection, self.settings, int(row["generation"]))

    async def _make(self) -> None:
        targets = await folded_positions(self.connection, self.live)
        self.generation, self.load = await build_generation(
            self.dsn, self.settings, self.registry, VERSION + self.version, targets,
            processes=self.processes, on_progress=self.on_progress,
        )  # fmt: skip

    def _folds(self, generation: int) -> list[SecondFold]:
        return [
            SecondFold(
                self.dsn,
                self.settings,
                self.registry,
                terms,
                self.live,
                generation,
                is_one_version=self.live_version == self.version,
            )
            for terms in self.terms
        ]

    async def _swap(self, generation: int) -> None:
        """Hold the live books still, fold what is left, and swap, in one short transaction."""
        version = self.version
        for _ in range(SWAP_TRIES):
            done = {fold.terms.source: await fold.catch_up() for fold in self._folds(generation)}
            async with self.connection.transaction():
                await self.connection.execute(
                    f"LOCK TABLE {schema_of(self.live)}.checkpoints IN EXCLUSIVE MODE"
                )
                theirs = await folded_positions(self.connection, self.live)
                for fold in self._folds(generation):
                    source = fold.terms.source
                    await fold.fold_until(theirs.get(source, 0), done[source])
                live = await self.connection.fetchrow(SELECT_LIVE)
                if live is None or live["generation"] != self.live:
                    raise RebuildRunning("other books became live meanwhile; rebuild again")
                if await try_swap(self.connection, generation):
                    await self.connection.execute(UPDATE_VERSION, generation, version)
                    return
        raise RebuildRunning("a source was added all the time; rebuild again")


async def index_balances(
    dsn: str, generation: int, terms: Sequence[SourceTerms],
    on_progress: OnProgress = lambda _stage, _done, _total: None,
) -> None:  # fmt: skip
    """Make the balance index, which the live books' fold does as it goes."""
    async with balance_index.connected(dsn, seconds_max=SECONDS_MAX) as own:
        await use_generation(own, generation)
        for each in terms:
            position = await own.fetchval(SELECT_CHECKPOINT, each.source) or 0
            due = await balance_index.next_block_end(own, each.source)
            while due <= position:
                on_progress(INDEX_BALANCES, min(due, position), position)
                due = await balance_index.index_next_block(own, each.source)
