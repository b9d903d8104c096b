"""A second fold of the log, in a generation of its own, to be compared with the live books.

The log is folded in bulk as far as the live books are and then by the ordinary fold up to a
position of theirs; both are compared in one snapshot.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from ledger.books.compare import Difference, compare, sharing
from ledger.books.fold_connections import fold_connections
from ledger.books.generations import SELECT_BUILDING, SELECT_LIVE, use_generation
from ledger.books.projection_worker import ProjectionWorker
from ledger.books.store import SELECT_CHECKPOINT
from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.database.errors import describe
from ledger.errors import DatabaseUnavailable
from ledger.model import SourceTerms
from ledger.rebuild.coordinator import OnProgress, build_generation, discard_generation
from ledger.rebuild.plan import folded_positions
from ledger.registry import Registry
from ledger.runtime.event_loop import first_failure, stop_if_cancelled

NEAR_EVENTS: Final = 2_000
"""How few events the last stretch has before the live books are held: those that come meanwhile
are all that is left to fold then."""

COMPARE_SECONDS_MAX: Final = 6 * 3600.0
VERSION: Final = "verify-"
"""How the version of a generation made to verify begins."""

LOCK_CHECKPOINT: Final = "SELECT position FROM checkpoints WHERE source = $1 FOR UPDATE"
TAKE_SNAPSHOT: Final = "SELECT count(*) FROM ledger.heads"


@asynccontextmanager
async def second_generation(
    dsn: str,
    settings: Settings,
    registry: Registry,
    sources: Iterable[str],
    on_progress: OnProgress,
) -> AsyncIterator[int]:
    """Fold these sources into books beside the live ones, as far as those are; drop them later."""
    version = VERSION + uuid.uuid4().hex
    async with database.connected(dsn, seconds_max=300) as connection:
        live = await connection.fetchrow(SELECT_LIVE)
        targets = await folded_positions(connection, int(live["generation"]))
        until = {source: targets.get(source, 0) for source in sources}
        try:
            made, _ = await build_generation(
                dsn, settings, registry, version, until, on_progress=on_progress
            )
            yield made
        finally:
            for row in await connection.fetch(SELECT_BUILDING, version):
                await discard_generation(connection, settings, int(row["generation"]))


@dataclass(frozen=True, slots=True)
class SecondFold:
    """A second fold of one source, to be compared with the live books."""

    dsn: str
    settings: Settings
    registry: Registry
    terms: SourceTerms
    live: int
    other: int
    progress: Callable[[int], None] = lambda _position: None
    is_one_version: bool = True
    """Whether one version of the program folded both."""

    async def differences(self) -> tuple[int, list[Difference]]:
        """Fold the log once more and compare; return the position compared at, and what differs.

        The live books stand still only while the last few events are folded.
        """
        async with (
            database.connected(self.dsn, seconds_max=COMPARE_SECONDS_MAX) as live,
            self._behind() as snapshot,
            self._behind() as beside,
        ):
            done = await self.catch_up()
            await use_generation(live, self.live)
            async with snapshot.transaction(isolation="repeatable_read", readonly=True):
                async with live.transaction():
                    position = await live.fetchval(LOCK_CHECKPOINT, self.terms.source)
                    await self.fold_until(int(position or 0), done)
                    await snapshot.fetchval(TAKE_SNAPSHOT)
                async with sharing(snapshot, [beside]) as both:
                    found = await compare(
                        both, self.live, self.other, self.terms.source,
                        is_one_version=self.is_one_version,
                    )  # fmt: skip
            return int(position or 0), found

    def _behind(self) -> AbstractAsyncContextManager[Any]:
        """Open a connection that may wait in its transaction for the other one's tables."""
        return database.connected(
            self.dsn, is_background=True, seconds_max=COMPARE_SECONDS_MAX,
            idle_in_transaction_session_timeout="0",
        )  # fmt: skip

    async def catch_up(self) -> int:
        """Fold until only a short way is left, while the live books go on; return how far."""
        done = -NEAR_EVENTS
        async with database.connected(self.dsn, seconds_max=COMPARE_SECONDS_MAX) as live:
            await use_generation(live, self.live)
            while True:
                position = int(await live.fetchval(SELECT_CHECKPOINT, self.terms.source) or 0)
                await self.fold_until(position, done)
                if position - done < NEAR_EVENTS:
                    return position
                done = position

    async def fold_until(self, position: int, done: int = -1) -> None:
        """Fold up to a position of the live books, with the ordinary fold, unless all is `done`.

        Raises DatabaseUnavailable when anything keeps it from there. The balance index is not
        made: it is not compared, and books that are to be kept get it later.
        """
        if position <= done:
            return
        try:
            async with fold_connections(self.dsn, self.other, is_background=True) as shared:
                folder = ProjectionWorker(
                    shared, self.settings, self.registry, self.terms,
                    until=position, on_batch=self.progress,
                )  # fmt: skip
                await folder.catch_up()
        except Exception as error:
            stop_if_cancelled()
            reason = describe(first_failure(error))
            raise DatabaseUnavailable(
                f"the second fold was interrupted: {reason}; run it again"
            ) from error
