"""`ledger verify`: computes everything again from the events and reports what holds.

Exit status: 0 everything was checked and holds, 1 something does not hold, 3 something could not be
checked, which is never reported as a pass.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ledger.books import schema_check
from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.errors import InvalidRequest, ServerNotFound, Tampered
from ledger.evidence import checkpoint_file
from ledger.evidence.keys import read_trusted, trusted_keys
from ledger.evidence.signed_note import Verifier
from ledger.evidence.store import SELECT_ENDS
from ledger.postgres.attach import database_dsn
from ledger.terminal.exit_status import sentence
from ledger.terminal.progress import Progress
from ledger.verify import evidence
from ledger.verify.books import LiveBooksCheck
from ledger.verify.claims import Claim, read_claims
from ledger.verify.log import LogCheck, VerifiedLog
from ledger.verify.outcome import CheckResult, Report, counted, print_results

SEAL_POLL_SECONDS: Final = 0.1
SECONDS_MAX: Final = 3600.0
KEEP: Final = "change nothing, find out who changed it, and restore it from a backup"

SELECT_SEALS_COUNT: Final = "SELECT count(*) FROM ledger.seals"


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What to verify, and against which evidence."""

    against: tuple[Path, ...] = ()
    """Files of checkpoints that were kept elsewhere."""
    trusted: Path | None = None
    """A list of trusted keys, instead of that of the data directory."""
    skip_books: bool = False
    json: bool = False
    seal_seconds_max: float = 3.0
    """How long to wait for the sealer, so that the end of a log in use is sealed too."""
    reconcile_seconds_max: float = 5.0
    """How long to wait for a reconciliation that is behind the books."""


def run(settings: Settings, options: VerifyOptions) -> int:
    """Verify and print the results; return the exit status."""
    with Progress.shown(quiet=options.json and not sys.stderr.isatty()) as progress:
        results = asyncio.run(Verification(settings, options, progress).examine())
    when_ok = "the log, its seals and the books are unchanged"
    return print_results(results, when_ok, json=options.json)


@dataclass(slots=True)
class Verification:
    """One verification of one database."""

    settings: Settings
    options: VerifyOptions
    progress: Progress
    trusted: list[Verifier] = field(default_factory=list)
    report: Report = field(default_factory=Report)
    _tampered: set[str] = field(default_factory=set)
    """The sources whose log does not hold."""

    async def examine(self) -> list[CheckResult]:
        """Check everything; what could not be checked is INCOMPLETE."""
        try:
            dsn = database_dsn(self.settings)
        except ServerNotFound as error:
            return [CheckResult("INCOMPLETE", "database", error.found, error.advice)]
        self._load_keys()
        claims = self._read_claims()
        try:
            async with database.connected(
                dsn, is_background=True, seconds_max=SECONDS_MAX
            ) as connection:
                await self._check_database(connection, dsn, claims)
        except Exception as error:  # noqa: BLE001 - the results until then are reported as well
            advice = "see that the database runs and that this role may read it; then verify again"
            self.report.add("INCOMPLETE", "database", sentence(error), advice)
        return self.report.results

    async def _check_database(
        self, connection: Any, dsn: str, claims: Mapping[str, list[Claim]]
    ) -> None:
        ends = await _ends(connection, self.options.seal_seconds_max)
        await self._check_logs(connection, ends, claims)
        await self._check_evidence(connection, ends, claims)
        if await self._check_schemas(dsn):
            check = LiveBooksCheck(
                connection, dsn, self.settings, self.progress, self.report, self._tampered,
                wait_seconds=self.options.reconcile_seconds_max,
            )  # fmt: skip
            sources = [row["source"] for row in ends]
            await check.run(sources, skip_fold=self.options.skip_books)

    def _load_keys(self) -> None:
        given = self.options.trusted
        data_dir = self.settings.data_dir
        self.trusted = read_trusted(given) if given else trusted_keys(data_dir)
        if not self.trusted and not evidence.has_evidence(data_dir):
            advice = "name a list of trusted keys with --trusted FILE (`ledger seal keys`)"
            self.report.add("INCOMPLETE", "keys", f"no key is trusted in {data_dir}", advice)

    def _read_claims(self) -> dict[str, list[Claim]]:
        """Read the checkpoints outside the database: those given, and this machine's own files."""
        own = sorted((self.settings.data_dir / checkpoint_file.FOLDER).glob("*.txt"))
        claims: dict[str, list[Claim]] = {}
        for path in (*self.options.against, *own):
            if path in self.options.against and not any(checkpoint_file.read(path)):
                raise InvalidRequest(f"{path} holds no signed checkpoint")
            for source, claim in read_claims(path, self.trusted, self.report):
                claims.setdefault(source, []).append(claim)
        return claims

    async def _check_evidence(
        self, connection: Any, ends: Sequence[Mapping[str, Any]],
        claims: Mapping[str, list[Claim]],
    ) -> None:  # fmt: skip
        """Compare the evidence outside the database with the database."""
        results = self.report.results
        sealed = await connection.fetchval(SELECT_SEALS_COUNT)
        results += evidence.check_keys(self.settings, sealed, self.options.trusted)
        results += await evidence.check_terms(connection, self.settings)
        folder = self.settings.data_dir / checkpoint_file.FOLDER
        for row in ends:
            source = row["source"]
            own = str(folder / f"{source}.txt")
            before = frozenset(c.size for c in claims.get(source, ()) if c.where == own)
            results += await evidence.check_file(
                connection, self.settings, source, row["sealed"], before
            )

    async def _check_schemas(self, dsn: str) -> bool:
        """Compare tables, functions and triggers with this program's; return whether the books
        may be read.
        """  # fmt: skip
        schemas = await schema_check.examine(dsn, self.settings)
        for message in schema_check.sentences((*schemas.log, *schemas.books)):
            self.report.add("fail", "schema", message, schema_check.ADVICE)
        if not schemas.log and not schemas.books and not schemas.not_compared:
            message = "tables, functions, triggers and policies are those that this program makes"
            self.report.add("ok", "schema", message)
        if schemas.not_compared:
            advice = "run `ledger serve` with these settings, or verify as the service's role"
            message = f"the tables of the books were not compared: {schemas.not_compared}"
            self.report.add("INCOMPLETE", "schema", message, advice)
        if not schemas.are_books_plain:
            message = "not read, because they hold more than this program's tables"
            advice = "correct what `schema` names, then verify again"
            self.report.add("INCOMPLETE", "books", message, advice)
        return schemas.are_books_plain

    async def _check_logs(
        self, connection: Any, ends: Sequence[Mapping[str, Any]],
        claims: Mapping[str, list[Claim]],
    ) -> None:  # fmt: skip
        for row in ends:
            await self._check_log(connection, row, claims.get(row["source"], []))
        for source in sorted(claims.keys() - {row["source"] for row in ends}):
            where = claims[source][0].where
            message = f"{where} has checkpoints of {source}, which has no log here"
            self._fail(source, Tampered("against", 1, message))

    async def _check_log(
        self, connection: Any, row: Mapping[str, Any], claims: Sequence[Claim]
    ) -> None:
        source, end = row["source"], row["end"]
        step = self.progress.step(f"{source}: log and seals", end)
        authenticity = await evidence.authenticity_of(connection, self.settings, source)
        check = LogCheck(
            connection, source, end, row["sealed"], self.trusted, claims, step.advance,
            authenticity,
        )  # fmt: skip
        try:
            if row["last"] > row["head"]:
                message = f"the log's head is {row['head']}, but there is an event {row['last']}"
                raise Tampered("head", row["head"] + 1, message)
            log = await check.run()
        except Tampered as error:
            self._fail(source, error)
            return
        finally:
            step.done()
        self._report_log(source, log)
        self.report.results += evidence.check_senders(source, authenticity, log)

    def _report_log(self, source: str, log: VerifiedLog) -> None:
        add, events = self.report.add, counted(log.events, "event")
        add("ok", "log", f"{events}, dense, in order of time, each with its own body", "", source)
        if log.checkpoints or not log.events:
            seals = f"{counted(log.checkpoints, 'checkpoint')} and {counted(log.tiles, 'tile')}"
            add("ok", "seals", f"{seals} are those of {counted(log.sealed, 'event')}", "", source)
        if log.sealed < log.events:
            message = f"events {log.sealed + 1} to {log.events} are not sealed yet"
            advice = "see that `ledger serve` or its projector role runs, and read its log"
            add("INCOMPLETE", "seals", message, advice, source)
        if log.claims:
            kept = f"{counted(log.claims, 'checkpoint')} kept outside the database"
            add("ok", "against", f"{kept}: no contradiction", "", source)
        if log.untrusted_claims and self.trusted:
            message = f"{log.untrusted_claims} of them are signed by no trusted key"
            advice = "add the key that signed to the list of trusted keys, if you trust it"
            add("INCOMPLETE", "against", message, advice, source)

    def _fail(self, source: str, error: Tampered) -> None:
        self._tampered.add(source)
        self.report.fail(error, KEEP, source)


async def _ends(connection: Any, wait_seconds: float) -> list[dict[str, Any]]:
    """Return where each log and its seals end, after waiting a moment for the sealer.

    `end` is how far to check: as far as is sealed when that covers what there was at the start.
    """
    first = {row["source"]: row["head"] for row in await connection.fetch(SELECT_ENDS)}
    deadline = asyncio.get_running_loop().time() + wait_seconds
    while True:
        rows = [dict(row) for row in await connection.fetch(SELECT_ENDS)]
        behind = [row for row in rows if row["sealed"] < first.get(row["source"], 0)]
        if not behind or asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(SEAL_POLL_SECONDS)
    for row in rows:
        row["end"] = min(max(row["sealed"], first.get(row["source"], 0)), row["head"])
    return rows
