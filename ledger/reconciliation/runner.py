"""Reconcile each wallet that has a statement, whenever its books have moved.

A run reads everything in one snapshot and is true at the positions that it names: of the
callbacks' log and of the statements' log. Runs of a busy source are spaced by twenty times the
duration of one, so that they take a twentieth of a processor at most. An import and an operator's
decision do not wait: somebody does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, Final

import asyncpg
import structlog

from ledger import registry
from ledger.books.generations import SELECT_LIVE, schema_of, use_generation
from ledger.config.reconciliation import Rules
from ledger.config.settings import Settings
from ledger.database import conditions
from ledger.database import connection as database
from ledger.database.errors import (
    CONNECTION_LOST,
    EXPECTED,
    UNKNOWN_NAMES,
    describe,
    is_data_error,
)
from ledger.errors import DatabaseUnavailable
from ledger.eventlog.identity import source_of, statements_log
from ledger.payload import check_decimal_context
from ledger.reconciliation.loader import SourceReconciliation
from ledger.reconciliation.posting_rules import post_by_rules
from ledger.reconciliation.result import Result
from ledger.reconciliation.store import delete_missing, replace_result
from ledger.registry import STATEMENT
from ledger.runtime.event_loop import stop_if_cancelled

LOGGER = structlog.get_logger(__name__)

SELECT_LOGS: Final = "SELECT source FROM ledger.sources WHERE provider = $1 ORDER BY source"
NO_BITMAPS: Final = "SET LOCAL enable_bitmapscan = off"
SELECT_DECIDED: Final = "SELECT max(operator_position) FROM adjustments WHERE source = $1"
SELECT_POSITIONS: Final = """
SELECT h.position AS head, coalesce(c.position, 0) AS books
  FROM ledger.heads AS h LEFT JOIN checkpoints AS c ON c.source = h.source
 WHERE h.source = $1
"""

POLL_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 1.0
REST_FACTOR: Final = 20
RUN_SECONDS_MAX: Final = 600.0
FAILED: Final = "reconcile_failed"
"""The condition of a source while one of its wallets or all cannot be reconciled."""
ADVICE: Final = "withdraw the statement that causes it, or correct what it is about"
ERROR_CHARACTERS_MAX: Final = 200
FAILED_REST_SECONDS: Final = 30.0
"""The interval of retries after a failure while nothing new arrives."""


@dataclass(frozen=True, slots=True)
class Run:
    """The reconciliation of every wallet of a source, and at which positions it is true."""

    generation: int
    positions: dict[str, int]
    results: list[Result]
    failed: dict[str, Exception] = field(default_factory=dict)
    """Currency → why its wallet could not be reconciled."""
    posted: int = 0
    """Differences that were posted by declared rules."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far the books of a source were when it was reconciled."""

    generation: int
    callbacks: int
    statements: int
    decided: int
    """The position of the latest decision or note of an operator; 0 before the first."""

    def is_awaited_after(self, done: Place) -> bool:
        """Tell whether an operator waits for a run after the one at `done`.

        An import and a decision are awaited; callbacks come all the time.
        """
        return self.statements != done.statements or self.decided != done.decided


@dataclass(slots=True)
class Reconciler:
    """Reconciles every source of one database that has statements. Several may run."""

    dsn: str
    settings: Settings
    _done: dict[str, Place] = field(default_factory=dict)
    _rest_until: dict[str, float] = field(default_factory=dict)
    _posted: set[str] = field(default_factory=set)
    """Sources whose latest run posted differences: one run that reads them does not wait."""
    _failed: set[str] = field(default_factory=set)
    """Sources with a wallet that could not be reconciled."""
    _waiting: set[int] = field(default_factory=set)
    """Generations of an earlier version, which lack what a reconciliation reads."""

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
            except EXPECTED as error:
                stop_if_cancelled()
                LOGGER.warning("reconcile_interrupted", error=type(error).__name__)
            except Exception:
                stop_if_cancelled()
                LOGGER.exception("reconcile_failed")
            await asyncio.sleep(RETRY_SECONDS)

    async def round(self, connection: Any) -> None:
        """Reconcile each source whose books have moved since the last time.

        A source that fails stops no other; it has a condition until it is reconciled. Books of an
        earlier version are not reconciled: those of this version are being built.
        """
        live = await connection.fetchrow(SELECT_LIVE)
        if live is None or live["generation"] in self._waiting:
            return
        for row in await connection.fetch(SELECT_LOGS, STATEMENT):
            source = source_of(row["source"])
            try:
                await self._reconcile_if_moved(connection, live["generation"], source)
            except UNKNOWN_NAMES as error:
                if await connection.fetchrow(SELECT_LIVE) != live:
                    return  # the generation was dropped meanwhile
                LOGGER.info("reconcile_waits", generation=live["generation"], error=describe(error))
                self._waiting.add(live["generation"])
                return
            except Exception as error:
                stop_if_cancelled()
                if connection.is_closed():
                    raise
                is_passing = isinstance(error, EXPECTED)
                LOGGER.error(
                    "reconcile_failed", source=source, error=describe(error),
                    exc_info=not is_passing,
                )  # fmt: skip
                self._rest(source, RETRY_SECONDS)
                await self._report(connection, source, f"{reason_of(error)}; trying again")

    async def _reconcile_if_moved(self, connection: Any, generation: int, source: str) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        place = await self._positions(connection, generation, source)
        done = self._done.get(source)
        is_awaited = place is not None and done is not None and place.is_awaited_after(done)
        is_second = source in self._posted
        if clock() < self._rest_until.get(source, 0) and not (is_awaited or is_second):
            return
        if place is None or (place == done and source not in self._failed):
            return
        run = await self.reconcile(connection, source)
        self._done[source] = place
        self._posted.discard(source)
        if run is not None and run.posted and not is_second:
            self._posted.add(source)
        self._rest(source, REST_FACTOR * (clock() - began))
        if run is not None and run.failed:
            self._rest(source, FAILED_REST_SECONDS)
            reasons = "; ".join(f"{name}: {reason_of(why)}" for name, why in run.failed.items())
            await self._report(connection, source, f"{reasons}; {ADVICE}")
        elif source in self._failed or done is None:
            self._failed.discard(source)
            await conditions.clear(connection, source, FAILED)

    async def _report(self, connection: Any, source: str, reason: str) -> None:
        """Report the condition that a source could not be reconciled."""
        self._failed.add(source)
        await conditions.report(connection, source, FAILED, reason)

    def _rest(self, source: str, seconds: float) -> None:
        self._rest_until[source] = asyncio.get_running_loop().time() + seconds

    async def _positions(self, connection: Any, generation: int, source: str) -> Place | None:
        """Return what the books of a source and of its statements have come to.

        Returns None until the books have folded every statement.
        """
        await use_generation(connection, generation)
        statements = await connection.fetchrow(SELECT_POSITIONS, statements_log(source))
        callbacks = await connection.fetchrow(SELECT_POSITIONS, source)
        if statements is None or callbacks is None or statements["books"] < statements["head"]:
            return None
        decided = await connection.fetchval(SELECT_DECIDED, source) or 0
        return Place(generation, callbacks["books"], statements["books"], decided)

    async def reconcile(self, connection: Any, source: str) -> Run | None:
        """Reconcile every wallet of a source now and store the results; None without books.

        Differences that a declared rule or tolerance names are posted; the next run reads that.
        """
        rules = rules_for(self.settings, source)
        run = await reconcile_source(connection, source, rules)
        if run is None:
            return None
        kept = [*(result.currency for result in run.results), *run.failed]
        await delete_missing(connection, source, kept, run.positions, run.generation)
        for result in run.results:
            await replace_result(connection, result, run.positions, run.generation)
        await use_generation(connection, run.generation)
        terms = self.settings.sources.get(source)
        posted = [await post_by_rules(connection, each, rules, terms) for each in run.results]
        for currency, why in run.failed.items():
            LOGGER.error("wallet_failed", source=source, name=currency, exc_info=why)
        return replace(run, posted=sum(posted))


def rules_for(settings: Settings, source: str) -> Rules:
    """Return the declared rules of a source, or the defaults."""
    configured = settings.sources.get(source)
    return configured.reconcile if configured is not None else Rules()


async def reconcile_source(connection: Any, source: str, rules: Rules) -> Run | None:
    """Reconcile every wallet of a source in one snapshot of its own; store nothing."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await reconcile_snapshot(connection, source, rules)


async def reconcile_snapshot(connection: Any, source: str, rules: Rules) -> Run | None:
    """Reconcile every wallet of a source as the connection's transaction sees it.

    Returns None when there are no books. Changes the search_path of the transaction to the books'.
    """
    check_decimal_context()
    log = statements_log(source)
    live = await connection.fetchrow(SELECT_LIVE)
    if live is None:
        return None
    await connection.execute(f"SET LOCAL search_path = {schema_of(live['generation'])}, ledger")
    await connection.execute(NO_BITMAPS)
    positions = {}
    for name in (source, log):
        row = await connection.fetchrow(SELECT_POSITIONS, name)
        positions[name] = 0 if row is None else int(row["books"])
    reconciliation = SourceReconciliation(
        connection, registry.load(), source, log, rules, positions[source]
    )
    run = Run(live["generation"], positions, [])
    for currency in await reconciliation.currencies():
        try:
            async with connection.transaction():  # a savepoint: a failure aborts only this wallet
                result = await reconciliation.reconcile(currency)
        except Exception as error:
            if not _is_of_wallet(error):
                raise
            run.failed[currency] = error
        else:
            if result is not None:
                run.results.append(result)
    return run


def _is_of_wallet(error: Exception) -> bool:
    """Tell whether the data of a wallet causes an error, and not the state of the database."""
    passing = (DatabaseUnavailable, asyncpg.PostgresError, *CONNECTION_LOST)
    return not isinstance(error, passing) or is_data_error(error)


def reason_of(error: Exception) -> str:
    """Describe an error in at most ERROR_CHARACTERS_MAX characters."""
    if isinstance(error, asyncpg.PostgresError):
        return describe(error)
    return f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS_MAX]
