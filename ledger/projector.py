"""The projector role: keeps the live generation at the log's head, makes a new one when needed.

A generation carries the version of the code that folded it. When this program's version is
another, the books are folded anew beside the live ones, compared with them and swapped in; until
then the live ones answer, at the position that they have.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import structlog

from ledger import books, database, registry
from ledger.bulk_load import Tell
from ledger.errors import LedgerError
from ledger.model import SourceTerms
from ledger.rebuild import Compared, Rebuild, alone
from ledger.settings import Settings
from ledger.worker import SourceFolder, load_terms

LOGGER = structlog.get_logger("ledger.projector")

LISTEN: Final = "ledger_log"
CHECK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.5


class OtherVersion(LedgerError):
    """Another version of the program made its books live; this one stands by."""


@dataclass(slots=True)
class Projector:
    """Folds every source of one database."""

    dsn: str
    settings: Settings
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once there are books to ask."""
    _served: set[str] = field(default_factory=set)
    """Versions that this process made live once: it never takes over from a newer one."""
    _rings: dict[str, asyncio.Event] = field(default_factory=dict)

    async def run(self) -> None:
        """Fold until cancelled, through every loss of the database."""
        while True:
            try:
                await self._session()
            except* (LedgerError, asyncpg.PostgresError, *database.LOST) as group:
                LOGGER.warning("projector_waits", error=type(group.exceptions[0]).__name__)
            await asyncio.sleep(RETRY_SECONDS)

    async def _session(self) -> None:
        async with database.connected(self.dsn, seconds_max=60) as connection:
            await connection.add_listener(LISTEN, self._ring)
            generation = await self._prepare(connection)
            await self._fold_live(connection, generation)

    async def _prepare(self, connection: Any) -> int:
        """Return the generation to fold into; make it, and swap it in, when the code changed."""
        version = registry.current_version(await load_terms(connection))
        live = await connection.fetchrow(books.SELECT_LIVE)
        if live is None:
            first = await books.create_generation(connection, registry.load(), version, "live")
            self.answering.set()
            return first
        self.answering.set()
        if live["version"] == version:
            self._served.add(version)
            return int(live["generation"])
        if version in self._served:
            raise OtherVersion
        generation = await self._renew(version)
        self._served.add(version)
        return generation

    async def _renew(self, version: str) -> int:
        """Fold the log anew beside the live books, compare, and swap; return the generation.

        Raises RebuildRunning while someone else does it.
        """
        async with alone(self.dsn) as connection:
            live = await connection.fetchrow(books.SELECT_LIVE)
            if live["version"] == version:
                return int(live["generation"])
            LOGGER.info("books_rebuild_started", generation=live["generation"], version=version)
            rebuild = Rebuild(self.dsn, self.settings, connection, registry.load(), tell=_tell())
            await rebuild.build()
            for found in await rebuild.compare():
                _summarize(found)
            await rebuild.swap()
            LOGGER.info("books_rebuild_swapped", generation=rebuild.generation, version=version)
            return rebuild.generation

    async def _fold_live(self, connection: Any, generation: int) -> None:
        """Fold all sources, and new ones as they appear, until another generation is live."""
        async with asyncio.TaskGroup() as tasks:
            folders: dict[str, tuple[SourceTerms, asyncio.Task[None]]] = {}
            while True:
                known = await load_terms(connection)
                for terms in known:
                    if terms.source not in folders:
                        folder = self._folder(terms, generation, catch_up_only=False)
                        folders[terms.source] = terms, tasks.create_task(folder.run())
                live = await connection.fetchrow(books.SELECT_LIVE)
                if live is None or live["generation"] != generation:
                    break
                if any(folders[terms.source][0] != terms for terms in known):
                    break
                await asyncio.sleep(CHECK_SECONDS)
            for _, task in folders.values():
                task.cancel()

    def _folder(self, terms: SourceTerms, generation: int, *, catch_up_only: bool) -> SourceFolder:
        ring = self._rings.setdefault(terms.source, asyncio.Event())
        return SourceFolder(
            self.dsn, self.settings, registry.load(), terms, generation, ring, catch_up_only
        )

    def _ring(self, *_: object) -> None:
        for ring in self._rings.values():
            ring.set()


def _tell() -> Tell:
    """Return what logs every stage of a rebuild once."""
    known: set[str] = set()

    def tell(stage: str, _done: int, total: int) -> None:
        if stage not in known:
            known.add(stage)
            LOGGER.info("books_rebuild_stage", phase=stage, events=total)

    return tell


def _summarize(found: Compared) -> None:
    """Log how many rows of which tables the other version of the program said otherwise."""
    tables = Counter(difference.table for difference in found.differences)
    LOGGER.info("books_rebuild_compared", source=found.source, position=found.position,
                state="different" if tables else "equal")  # fmt: skip
    for table, count in sorted(tables.items()):
        LOGGER.info("books_rebuild_differs", source=found.source, name=table, events=count)
