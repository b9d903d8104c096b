"""The reconcile step: after folds, behind them, each wallet that has a statement.

Everything of a run is read in one snapshot and is true at the positions that it names: of the
callbacks' log and of the statements'. Runs of a busy source are spaced by twenty times what one
takes, so that callbacks cost a twentieth of a processor at most; an import does not wait.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import structlog

from ledger import registry
from ledger.books import store as books
from ledger.config.reconciliation import Rules
from ledger.config.settings import Settings
from ledger.database import conditions
from ledger.database import connection as database
from ledger.errors import DatabaseUnavailable, LedgerError
from ledger.eventlog.identity import source_of, statements_log
from ledger.reconciliation import decisions as recon_decide
from ledger.reconciliation import store as recon_store
from ledger.reconciliation.loader import Pair
from ledger.reconciliation.result import Result
from ledger.registry import STATEMENT
from ledger.runtime.event_loop import stop_if_cancelled

LOGGER = structlog.get_logger("ledger.reconcile")

SELECT_LOGS: Final = "SELECT source FROM ledger.sources WHERE provider = $1 ORDER BY source"
NO_BITMAPS: Final = "SET LOCAL enable_bitmapscan = off"
SELECT_PLACE: Final = """
SELECT h.position AS head, coalesce(c.position, 0) AS books
  FROM ledger.heads AS h LEFT JOIN checkpoints AS c ON c.source = h.source
 WHERE h.source = $1
"""

POLL_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 1.0
REST_FACTOR: Final = 20
RUN_SECONDS_MAX: Final = 600.0
FAILED: Final = "reconcile_failed"
"""The condition of a source while one of its wallets, or all of it, cannot be reconciled."""
PASSING: Final = (LedgerError, asyncpg.PostgresError, *database.LOST)
"""What says enough by its name: its cause is not in this program."""
ADVICE: Final = "withdraw the statement that causes it, or correct what it is about"
ERROR_CHARACTERS_MAX: Final = 200
FAILED_REST_SECONDS: Final = 30.0
"""What failed is tried again so often while nothing new arrives."""


@dataclass(frozen=True, slots=True)
class Run:
    """The reconciliation of every wallet of a source, and at which positions it is true."""

    generation: int
    positions: dict[str, int]
    results: list[Result]
    failed: dict[str, Exception] = field(default_factory=dict)
    """Currency → why its wallet could not be reconciled."""


@dataclass(slots=True)
class Reconciler:
    """Reconciles every source of one database that has statements. Several may run."""

    dsn: str
    settings: Settings
    _done: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    _rest_until: dict[str, float] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)
    """Sources of which something could not be reconciled."""

    async def run(self) -> None:
        """Reconcile until cancelled, through every loss of the database."""
        while True:
            try:
                async with database.connected(
                    self.dsn, is_background=True, seconds_max=RUN_SECONDS_MAX
                ) as connection:
                    while True:
                        await self.round(connection)
                        await asyncio.sleep(POLL_SECONDS)
            except PASSING as error:
                stop_if_cancelled()
                LOGGER.warning("reconcile_interrupted", error=type(error).__name__)
            except Exception:
                stop_if_cancelled()
                LOGGER.exception("reconcile_failed")
            await asyncio.sleep(RETRY_SECONDS)

    async def round(self, connection: Any) -> None:
        """Reconcile each source whose books have moved since the last time.

        A source that fails stops no other; it is named as a condition until it is reconciled.
        """
        live = await connection.fetchrow(books.SELECT_LIVE)
        if live is None:
            return
        for row in await connection.fetch(SELECT_LOGS, STATEMENT):
            source = source_of(row["source"])
            try:
                await self._source(connection, live["generation"], source)
            except Exception as error:
                stop_if_cancelled()
                if connection.is_closed():
                    raise
                is_passing = isinstance(error, PASSING)
                LOGGER.error(
                    "reconcile_failed", source=source, error=database.describe(error),
                    exc_info=not is_passing,
                )  # fmt: skip
                self._rest(source, RETRY_SECONDS)
                await self._tell(connection, source, f"{reason_of(error)}; trying again")

    async def _source(self, connection: Any, generation: int, source: str) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        place = await self._place(connection, generation, source, statements_log(source))
        done = self._done.get(source)
        is_imported = place is not None and done is not None and place[2] != done[2]
        # Somebody waits for what was just imported; callbacks come all the time.
        if clock() < self._rest_until.get(source, 0) and not is_imported:
            return
        if place is None or (place == done and source not in self._failed):
            return
        run = await self.reconcile(connection, source)
        self._done[source] = place
        self._rest(source, REST_FACTOR * (clock() - began))
        if run is not None and run.failed:
            self._rest(source, FAILED_REST_SECONDS)
            told = "; ".join(f"{name}: {reason_of(why)}" for name, why in run.failed.items())
            await self._tell(connection, source, f"{told}; {ADVICE}")
        elif source in self._failed or done is None:
            self._failed.discard(source)
            await conditions.clear(connection, source, FAILED)

    async def _tell(self, connection: Any, source: str, told: str) -> None:
        """Name a source that could not be reconciled."""
        self._failed.add(source)
        await conditions.report(connection, source, FAILED, told)

    def _rest(self, source: str, seconds: float) -> None:
        self._rest_until[source] = asyncio.get_running_loop().time() + seconds

    async def _place(
        self, connection: Any, generation: int, source: str, log: str
    ) -> tuple[int, int, int] | None:
        """Return where the books of a source and of its statements are; None while they catch up
        with an import."""
        await books.use_generation(connection, generation)
        told = await connection.fetchrow(SELECT_PLACE, log)
        own = await connection.fetchrow(SELECT_PLACE, source)
        if told is None or own is None or told["books"] < told["head"]:
            return None
        return generation, own["books"], told["books"]

    async def reconcile(self, connection: Any, source: str) -> Run | None:
        """Reconcile every wallet of a source now and store it; None when there are no books.

        What a declared tolerance covers is posted; the next round finds it posted.
        """
        rules = rules_for(self.settings, source)
        run = await compute(connection, source, rules)
        if run is None:
            return None
        kept = [*(result.currency for result in run.results), *run.failed]
        await recon_store.forget(connection, source, kept, run.positions, run.generation)
        for result in run.results:
            await recon_store.write(connection, result, run.positions, run.generation)
            await recon_decide.post_tolerated(
                connection, result, rules, self.settings.sources.get(source)
            )
        for currency, why in run.failed.items():
            LOGGER.error("wallet_failed", source=source, name=currency, exc_info=why)
        return run


def rules_for(settings: Settings, source: str) -> Rules:
    """Return the declared rules of a source, or the defaults."""
    found = settings.sources.get(source)
    return found.reconcile if found is not None else Rules()


async def compute(connection: Any, source: str, rules: Rules) -> Run | None:
    """Reconcile every wallet of a source in one snapshot; nothing is written."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await computed(connection, source, rules)


async def computed(connection: Any, source: str, rules: Rules) -> Run | None:
    """Reconcile every wallet of a source as the connection's transaction sees it.

    Returns None when there are no books. The transaction's search_path is theirs afterwards.
    """
    log = statements_log(source)
    live = await connection.fetchrow(books.SELECT_LIVE)
    if live is None:
        return None
    await connection.execute(
        f"SET LOCAL search_path = {books.schema_of(live['generation'])}, ledger"
    )
    await connection.execute(NO_BITMAPS)
    positions = {}
    for name in (source, log):
        place = await connection.fetchrow(SELECT_PLACE, name)
        positions[name] = 0 if place is None else int(place["books"])
    pair = Pair(connection, registry.load(), source, log, rules, positions[source])
    run = Run(live["generation"], positions, [])
    for currency in await pair.currencies():
        try:
            async with connection.transaction():  # what fails is undone to here, and no further
                result = await pair.reconcile(currency)
        except Exception as error:
            if not _is_of_wallet(error):
                raise
            run.failed[currency] = error
        else:
            if result is not None:
                run.results.append(result)
    return run


def _is_of_wallet(error: Exception) -> bool:
    """Tell what a wallet's own figures cause from what the database does to all of them."""
    passing = (DatabaseUnavailable, asyncpg.PostgresError, *database.LOST)
    return not isinstance(error, passing) or database.is_data_error(error)


def reason_of(error: Exception) -> str:
    """Say what a failure is, bounded."""
    if isinstance(error, asyncpg.PostgresError):
        return database.describe(error)
    return f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS_MAX]
