"""Verify the live books: the journal balances, and everything is a fold of the log.

The log is folded once more into a generation of its own, up to a position of the live books; both
are compared in one snapshot. What is derived from the books, the reconciliation, is computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import asyncpg

from ledger import registry
from ledger.books import fold_version
from ledger.books.compare import Difference
from ledger.books.generations import SELECT_LIVE, schema_of
from ledger.books.store import SELECT_CHECKPOINT
from ledger.config.settings import Settings
from ledger.errors import LedgerError, Tampered
from ledger.eventlog.identity import source_of, statements_log
from ledger.eventlog.sources import terms_of
from ledger.model import SourceTerms
from ledger.rebuild.second_generation import SecondFold, second_generation
from ledger.reconciliation.runner import rules_for
from ledger.registry import STATEMENT
from ledger.terminal.exit_status import sentence
from ledger.terminal.progress import Progress, Stages
from ledger.verify.outcome import CheckResult, Report, counted
from ledger.verify.reconciliation import RunComparison, compare_source, reconciled_sources

LISTED_MAX: Final = 20
"""Differences of one source that are reported at most."""

KEEP: Final = "change nothing, find out who changed it, and restore it from a backup"
RECONCILE_AGAIN: Final = (
    "find out who changed it; `ledger serve` writes it again when it starts and with the source's "
    "next event; rows of a source without statements can be deleted"
)
REBUILD: Final = (
    "find out who changed it; `ledger rebuild --swap --accept-differences` replaces the books"
)

SELECT_HEAD: Final = "SELECT position FROM ledger.heads WHERE source = $1"
SELECT_UNBALANCED: Final = """
SELECT position, currency, trim_scale(sum(amount))::text AS excess FROM entries WHERE source = $1
 GROUP BY position, currency HAVING sum(amount) <> 0 ORDER BY position, currency LIMIT 1
"""
SELECT_WRONG_BALANCE: Final = """
SELECT account, currency, trim_scale(b.debits - b.credits)::text AS stored,
       trim_scale(e.amount)::text AS summed
  FROM (SELECT * FROM balances WHERE source = $1) AS b
  FULL JOIN (SELECT account, currency, sum(amount) AS amount FROM entries WHERE source = $1
              GROUP BY account, currency) AS e USING (account, currency)
 WHERE coalesce(b.debits - b.credits, 0) <> coalesce(e.amount, 0)
 ORDER BY account, currency LIMIT 1
"""
SELECT_COUNTS: Final = """
SELECT (SELECT count(*) FROM entries WHERE source = $1) AS entries,
       (SELECT count(*) FROM parked WHERE source = $1) AS parked
"""


@dataclass(frozen=True, slots=True)
class VerifiedJournal:
    """What holds of a source's journal."""

    position: int
    entries: int
    parked: int


async def check_journal(
    connection: Any, source: str, generation: int, head: int
) -> VerifiedJournal:
    """Check that the journal balances at every position and that balances are its sums.

    Raises Tampered.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await _use_books(connection, generation)
        position = int(await connection.fetchval(SELECT_CHECKPOINT, source) or 0)
        if position > head:
            message = f"the books are at {position}, but the log ends at {head}"
            raise Tampered("books", head + 1, message)
        row = await connection.fetchrow(SELECT_UNBALANCED, source)
        if row is not None:
            message = f"the entries of event {row['position']} are off by {row['excess']} "
            raise Tampered("journal", row["position"], message + row["currency"])
        row = await connection.fetchrow(SELECT_WRONG_BALANCE, source)
        if row is not None:
            message = (
                f"the balance of {row['account']} is {row['stored'] or 'missing'} "
                f"{row['currency']}, its entries add up to {row['summed'] or 'none'}"
            )
            raise Tampered("balances", None, message)
        counts = await connection.fetchrow(SELECT_COUNTS, source)
        return VerifiedJournal(position, counts["entries"], counts["parked"])


async def _use_books(connection: Any, generation: int) -> None:
    await connection.execute(f"SET LOCAL search_path = {schema_of(generation)}, ledger")


@dataclass(frozen=True, slots=True)
class LiveBooksCheck:
    """Checks the live books of every source."""

    connection: Any
    dsn: str
    settings: Settings
    progress: Progress
    report: Report
    tampered: set[str]
    """The sources whose log does not hold, so that their books cannot be compared with it."""
    wait_seconds: float
    """How long to wait for a reconciliation that is behind the books."""

    async def run(self, sources: Sequence[str], *, skip_fold: bool) -> None:
        """Check journal, tables and reconciliation; report what holds."""
        live = await self.connection.fetchrow(SELECT_LIVE)
        if live is None:
            advice = "start `ledger serve`, which builds them"
            self.report.add("INCOMPLETE", "books", "there are none yet", advice)
            return
        generation = int(live["generation"])
        for source in sources:
            await self._check_journal(source, generation)
        if skip_fold:
            self.report.add("INCOMPLETE", "books", "not folded again (--skip-books)")
            return
        terms = await terms_of(self.connection, self.settings)
        if live["version"] != fold_version.current_version(terms):
            message = "the live books were folded by another version of this program"
            advice = "run `ledger rebuild --swap`, or `ledger serve`, then verify again"
            self.report.add("INCOMPLETE", "books", message, advice)
            return
        for source in sorted({*sources} - {each.source for each in terms}):
            message = "not compared: ledger.sources does not describe the source any more"
            advice = "restore that row; then verify again"
            self.report.add("INCOMPLETE", "books", message, advice, source)
        await self._compare(generation, terms)

    async def _check_journal(self, source: str, generation: int) -> None:
        head = int(await self.connection.fetchval(SELECT_HEAD, source) or 0)
        try:
            journal = await check_journal(self.connection, source, generation, head)
        except Tampered as error:
            self.report.fail(error, KEEP, source)
            return
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
            damaged = Tampered("journal", None, f"the live books are damaged: {error}")
            self.report.fail(damaged, KEEP, source)
            return
        message = f"{journal.entries} entries balance at every position, balances are their sums"
        parked = f"; {journal.parked} events are parked" if journal.parked else ""
        self.report.add("ok", "journal", message + parked, "", source)

    async def _compare(self, generation: int, terms: Sequence[SourceTerms]) -> None:
        try:
            await self._compare_tables(generation, terms)
        except (LedgerError, asyncpg.PostgresError) as error:
            advice = "give this role CREATE on the database, or verify as the service's role"
            message = f"could not be folded again: {sentence(error)}"
            self.report.add("INCOMPLETE", "books", message, advice)
        try:
            await self._compare_reconciliations(terms)
        except asyncpg.PostgresError as error:
            advice = "give this role SELECT on ledger.recon_*, or verify as the service's role"
            message = f"could not be computed again: {error}"
            self.report.add("INCOMPLETE", "reconciliation", message, advice)

    async def _compare_tables(self, live: int, terms: Sequence[SourceTerms]) -> None:
        """Fold the log once more and compare every table."""
        handlers = registry.load()
        sound = [each.source for each in terms if each.source not in self.tampered]
        stages = Stages(self.progress)
        async with second_generation(
            self.dsn, self.settings, handlers, sound, stages.report
        ) as other:
            stages.done()
            for each in terms:
                if each.source in self.tampered:
                    message = "not compared with the log, which does not hold itself"
                    self.report.add("INCOMPLETE", "books", message, "", each.source)
                    continue
                step = self.progress.step(f"{each.source}: books", None)
                fold = SecondFold(
                    self.dsn, self.settings, handlers, each, live, other, step.advance
                )
                try:
                    position, differences = await fold.differences()
                finally:
                    step.done()
                if not differences:
                    message = f"every table is the fold of the log up to {position}"
                    self.report.add("ok", "books", message, "", each.source)
                self._add_differences("books", differences, REBUILD, each.source)

    async def _compare_reconciliations(self, terms: Sequence[SourceTerms]) -> None:
        """Reconcile once more and compare the stored results."""
        sources = {source_of(each.source) for each in terms if each.provider == STATEMENT}
        for source in sorted({*sources, *await reconciled_sources(self.connection)}):
            if {source, statements_log(source)} & self.tampered:
                message = "not reconciled again, because its log does not hold"
                self.report.add("INCOMPLETE", "reconciliation", message, "", source)
                continue
            step = self.progress.step(f"{source}: reconciliation", None)
            try:
                comparison = await compare_source(
                    self.connection, source, rules_for(self.settings, source), self.wait_seconds
                )
            finally:
                step.done()
            self._report_comparison(source, comparison)

    def _report_comparison(self, source: str, comparison: RunComparison) -> None:
        differences = comparison.differences
        self._add_differences("reconciliation", differences, RECONCILE_AGAIN, source)
        for message in comparison.behind:
            advice = "run `ledger serve` with these settings and verify again in a moment"
            self.report.add("INCOMPLETE", "reconciliation", message, advice, source)
        if not differences and not comparison.behind:
            wallets = counted(comparison.wallets, "wallet")
            message = f"{wallets} and {counted(comparison.breaks, 'break')} are the same again"
            self.report.add("ok", "reconciliation", message, "", source)

    def _add_differences(
        self, name: str, differences: Sequence[Difference], advice: str, source: str
    ) -> None:
        for difference in differences[:LISTED_MAX]:
            self.report.results.append(
                CheckResult("fail", name, str(difference), advice, source, None,
                            [asdict(difference)])
            )  # fmt: skip
