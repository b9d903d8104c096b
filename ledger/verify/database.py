"""`ledger verify`: recomputes everything from the events and says what holds.

Exit status: 0 everything was checked and holds, 1 something does not, 3 something could not be
checked, which is never reported as a pass.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg

from ledger import registry
from ledger.books import fold_version, schema_check
from ledger.books import store as books
from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.errors import BadNote, InvalidRequest, LedgerError, ServerNotFound, Tampered
from ledger.eventlog.identity import source_of, statements_log
from ledger.eventlog.sources import terms_of
from ledger.evidence import checkpoint_file as sealfile
from ledger.evidence.keys import read_trusted, trusted_keys
from ledger.evidence.signed_note import Verifier, open_checkpoint
from ledger.evidence.store import SELECT_ENDS
from ledger.model import SourceTerms
from ledger.postgres.attach import database_dsn
from ledger.rebuild.second_generation import SecondFold, second_generation
from ledger.reconciliation.runner import rules_for
from ledger.registry import STATEMENT
from ledger.terminal import exit_status as exits
from ledger.terminal.progress import Progress, Stages
from ledger.verify import evidence as verify_evidence
from ledger.verify.books import check_journal
from ledger.verify.log import Claim, LogCheck, Proved
from ledger.verify.outcome import Checked, Verdict, tell
from ledger.verify.reconciliation import RunComparison, compare_source, reconciled_sources

SEAL_SECONDS_MAX: Final = 3.0
"""How long the sealer is waited for, so that a log that is being written can be whole."""

SECONDS_MAX: Final = 3600.0
LISTED_MAX: Final = 20
MEND: Final = (
    "find out who changed it; `ledger serve` writes it anew when it starts, and with the source's "
    "next event; rows of a source without statements can be deleted"
)
REPAIR: Final = (
    "find out who changed it; `ledger rebuild --swap --accept-differences` puts it right"
)


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What to verify against what."""

    against: tuple[Path, ...] = ()
    trusted: Path | None = None
    skip_books: bool = False
    json: bool = False


def run(settings: Settings, options: VerifyOptions) -> int:
    """Verify and print what was found; return the exit status."""
    with Progress.shown(quiet=options.json and not sys.stderr.isatty()) as progress:
        found = asyncio.run(Verification(settings, options, progress).examine())
    return tell(found, "log, seals and books are what they were", json=options.json)


@dataclass(slots=True)
class Verification:
    """One run: the keys, the claims and the database that it is about."""

    settings: Settings
    options: VerifyOptions
    progress: Progress
    trusted: list[Verifier] = field(default_factory=list)
    found: list[Checked] = field(default_factory=list)
    _bad: set[str] = field(default_factory=set)

    async def examine(self) -> list[Checked]:
        """Check everything; what could not be checked is INCOMPLETE."""
        try:
            dsn = database_dsn(self.settings)
        except ServerNotFound as error:
            return [Checked("INCOMPLETE", "database", error.found, error.advice)]
        self._load_keys()
        claims = self._read_claims()
        try:
            async with database.connected(
                dsn, is_background=True, seconds_max=SECONDS_MAX
            ) as connection:
                ends = await _ends(connection)
                await self._check_logs(connection, ends, claims)
                await self._check_evidence(connection, ends, claims)
                if await self._check_schemas(dsn):
                    await self._check_books(connection, dsn, ends)
        except Exception as error:  # noqa: BLE001 - what was found before it is told as well
            advice = "see that the database runs and that this role may read it; then ask again"
            self._add("INCOMPLETE", "database", exits.sentence(error), advice)
        return self.found

    def _load_keys(self) -> None:
        given = self.options.trusted
        data_dir = self.settings.data_dir
        self.trusted = read_trusted(given) if given else trusted_keys(data_dir)
        if not self.trusted and not verify_evidence.is_here(data_dir):
            advice = "name a list of trusted keys with --trusted FILE (`ledger seal keys`)"
            self._add("INCOMPLETE", "keys", f"no key is trusted in {data_dir}", advice)

    def _read_claims(self) -> dict[str, list[Claim]]:
        """Read the notes kept outside the database: those given, and this machine's own files."""
        own = sorted((self.settings.data_dir / sealfile.FOLDER).glob("*.txt"))
        claims: dict[str, list[Claim]] = {}
        for path in (*self.options.against, *own):
            notes = list(sealfile.read(path))
            if not notes and path in self.options.against:
                raise InvalidRequest(f"{path} holds no signed checkpoint")
            for note in notes:
                self._claim(note, path, claims)
        return claims

    def _claim(self, note: str, path: Path, claims: dict[str, list[Claim]]) -> None:
        try:
            checkpoint, signers = open_checkpoint(note, self.trusted)
        except BadNote as error:
            told, advice = f"{path}: {error}", "take an untouched copy of the file"
            self._add("fail", "against", told, advice)
            return
        if checkpoint.source:
            claim = Claim(checkpoint.size, checkpoint.root, str(path), bool(signers))
            claims.setdefault(checkpoint.source, []).append(claim)

    async def _check_evidence(
        self, connection: Any, ends: Sequence[Mapping[str, Any]],
        claims: Mapping[str, list[Claim]],
    ) -> None:  # fmt: skip
        """Check what is kept outside the database against what the database says."""
        sealed = await connection.fetchval(SELECT_SIGNED)
        self.found += verify_evidence.check_keys(self.settings, sealed, self.options.trusted)
        self.found += await verify_evidence.check_terms(connection, self.settings)
        folder = self.settings.data_dir / sealfile.FOLDER
        for row in ends:
            source = row["source"]
            own = str(folder / f"{source}.txt")
            before = frozenset(c.size for c in claims.get(source, ()) if c.where == own)
            self.found += await verify_evidence.check_file(
                connection, self.settings, source, row["sealed"], before
            )

    async def _check_schemas(self, dsn: str) -> bool:
        """Check that tables, functions and triggers are this program's; False: read no books."""
        found = await schema_check.examine(dsn, self.settings)
        for told in schema_check.sentences((*found.log, *found.books)):
            self._add("fail", "schema", told, schema_check.ADVICE)
        if not found.log and not found.books and not found.not_compared:
            told = "tables, functions, triggers and policies are those that this program makes"
            self._add("ok", "schema", told)
        if found.not_compared:
            advice = "run `ledger serve` with these settings, or verify as the service's role"
            told = f"the books' tables were not compared: {found.not_compared}"
            self._add("INCOMPLETE", "schema", told, advice)
        if not found.are_books_plain:
            told = "not read, because they hold more than this program's tables"
            self._add("INCOMPLETE", "books", told, "mend what `schema` names, then verify again")
        return found.are_books_plain

    async def _check_logs(
        self, connection: Any, ends: Sequence[Mapping[str, Any]],
        claims: Mapping[str, list[Claim]],
    ) -> None:  # fmt: skip
        for row in ends:
            await self._check_log(connection, row, claims.get(row["source"], []))
        for source in sorted(claims.keys() - {row["source"] for row in ends}):
            told = f"{claims[source][0].where} has checkpoints of {source}, which has no log here"
            self._fail(source, Tampered("against", 1, told))

    async def _check_log(
        self, connection: Any, row: Mapping[str, Any], claims: Sequence[Claim]
    ) -> None:
        source, end = row["source"], row["end"]
        step = self.progress.step(f"{source}: log and seals", end)
        judge = await verify_evidence.judge(connection, self.settings, source)
        check = LogCheck(
            connection, source, end, row["sealed"], self.trusted, claims, step.advance, judge
        )
        try:
            if row["last"] > row["head"]:
                told = f"the head says {row['head']}, but there is an event {row['last']}"
                raise Tampered("head", row["head"] + 1, told)
            proved = await check.run()
        except Tampered as error:
            self._fail(source, error)
            return
        finally:
            step.done()
        self._tell_log(source, proved)
        self.found += verify_evidence.check_senders(source, judge, proved)

    def _tell_log(self, source: str, proved: Proved) -> None:
        told = f"{_some(proved.events, 'event')}, dense, in order of time, each with its own body"
        self._add("ok", "log", told, source=source)
        if proved.checkpoints or not proved.events:
            notes, tiles = _some(proved.checkpoints, "checkpoint"), _some(proved.tiles, "tile")
            told = f"{notes} and {tiles} are those of {_some(proved.sealed, 'event')}"
            self._add("ok", "seals", told, source=source)
        if proved.sealed < proved.events:
            told = f"events {proved.sealed + 1} to {proved.events} are not sealed yet"
            advice = "see that `ledger serve` or its projector role runs, and its log"
            self._add("INCOMPLETE", "seals", told, advice, source)
        if proved.claims:
            told = (
                f"{_some(proved.claims, 'checkpoint')} kept outside the database: no contradiction"
            )
            self._add("ok", "against", told, source=source)
        if proved.untrusted_claims and self.trusted:
            told = f"{proved.untrusted_claims} of them are signed by no trusted key"
            advice = "add the key that signed to the list of trusted keys, if you trust it"
            self._add("INCOMPLETE", "against", told, advice, source)

    async def _check_books(
        self, connection: Any, dsn: str, ends: Sequence[Mapping[str, Any]]
    ) -> None:
        live = await connection.fetchrow(books.SELECT_LIVE)
        if live is None:
            advice = "start `ledger serve`, which builds them"
            self._add("INCOMPLETE", "books", "there are none yet", advice)
            return
        generation = int(live["generation"])
        for row in ends:
            await self._check_journal(connection, row["source"], generation)
        if self.options.skip_books:
            self._add("INCOMPLETE", "books", "not folded again (--skip-books)")
            return
        terms = await terms_of(connection, self.settings)
        if live["version"] != fold_version.current_version(terms):
            told = "the live books were folded by another version of this program"
            advice = "run `ledger rebuild --swap`, or `ledger serve`, then verify again"
            self._add("INCOMPLETE", "books", told, advice)
            return
        for source in sorted({row["source"] for row in ends} - {each.source for each in terms}):
            told = "not compared: ledger.sources does not say any more what it is"
            self._add("INCOMPLETE", "books", told, "restore that row; then verify again", source)
        try:
            await self._fold_again(dsn, generation, terms)
        except (LedgerError, asyncpg.PostgresError) as error:
            advice = "give this role CREATE on the database, or verify as the service's role"
            told = f"could not be folded again: {exits.sentence(error)}"
            self._add("INCOMPLETE", "books", told, advice)
        try:
            await self._check_results(connection, terms)
        except asyncpg.PostgresError as error:
            advice = "give this role SELECT on ledger.recon_*, or verify as the service's role"
            told = f"what was reconciled could not be found again: {error}"
            self._add("INCOMPLETE", "reconciliation", told, advice)

    async def _check_results(self, connection: Any, terms: Sequence[SourceTerms]) -> None:
        """Reconcile again, and compare with what is stored of it."""
        stated = {source_of(each.source) for each in terms if each.provider == STATEMENT}
        for source in sorted({*stated, *await reconciled_sources(connection)}):
            if {source, statements_log(source)} & self._bad:
                told = "not reconciled again: its log is not what it was itself"
                self._add("INCOMPLETE", "reconciliation", told, source=source)
                continue
            step = self.progress.step(f"{source}: reconciliation", None)
            try:
                found = await compare_source(connection, source, rules_for(self.settings, source))
            finally:
                step.done()
            self._tell_results(source, found)

    def _tell_results(self, source: str, found: RunComparison) -> None:
        for difference in found.differences[:LISTED_MAX]:
            self.found.append(
                Checked("fail", "reconciliation", str(difference), MEND, source, None,
                        [asdict(difference)])
            )  # fmt: skip
        for told in found.behind:
            advice = "run `ledger serve` with these settings and ask again in a moment"
            self._add("INCOMPLETE", "reconciliation", told, advice, source)
        if not found.differences and not found.behind:
            told = (
                f"{_some(found.wallets, 'wallet')} and {_some(found.breaks, 'break')} found again"
            )
            self._add("ok", "reconciliation", told, source=source)

    async def _check_journal(self, connection: Any, source: str, generation: int) -> None:
        head = int(await connection.fetchval(SELECT_HEAD, source) or 0)
        try:
            found = await check_journal(connection, source, generation, head)
        except Tampered as error:
            self._fail(source, error)
            return
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
            self._fail(source, Tampered("journal", None, f"the live books are damaged: {error}"))
            return
        told = f"{found.entries} entries balance at every position, balances are their sums"
        parked = f"; {found.parked} events are parked" if found.parked else ""
        self._add("ok", "journal", told + parked, source=source)

    async def _fold_again(self, dsn: str, live: int, terms: Sequence[SourceTerms]) -> None:
        known = registry.load()
        sound = [each.source for each in terms if each.source not in self._bad]
        stages = Stages(self.progress)
        async with second_generation(dsn, self.settings, known, sound, stages.tell) as other:
            stages.done()
            for each in terms:
                if each.source in self._bad:
                    told = "not compared with the log, which is not what it was itself"
                    self._add("INCOMPLETE", "books", told, source=each.source)
                    continue
                step = self.progress.step(f"{each.source}: books", None)
                fold = SecondFold(dsn, self.settings, known, each, live, other, step.advance)
                try:
                    position, found = await fold.differences()
                finally:
                    step.done()
                if not found:
                    told = f"every table is the fold of the log up to {position}"
                    self._add("ok", "books", told, source=each.source)
                for difference in found[:LISTED_MAX]:
                    advice = REPAIR
                    self.found.append(
                        Checked("fail", "books", str(difference), advice, each.source, None,
                                [asdict(difference)])
                    )  # fmt: skip

    def _fail(self, source: str, error: Tampered) -> None:
        if error.check not in ("journal", "balances", "books"):
            self._bad.add(source)
        advice = "keep everything as it is, find out who changed it; restore it from a backup"
        self.found.append(Checked("fail", error.check, str(error), advice, source, error.position))

    def _add(
        self, verdict: Verdict, name: str, found: str, advice: str = "", source: str = ""
    ) -> None:
        self.found.append(Checked(verdict, name, found, advice, source))


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


SELECT_SIGNED: Final = "SELECT count(*) FROM ledger.seals"
SELECT_HEAD: Final = "SELECT position FROM ledger.heads WHERE source = $1"


async def _ends(connection: Any) -> list[dict[str, Any]]:
    """Return where each log and its seals end, after giving the sealer a moment to come along.

    `end` is how far to check: as far as is sealed when that covers what there was at the start.
    """
    first = {row["source"]: row["head"] for row in await connection.fetch(SELECT_ENDS)}
    deadline = asyncio.get_running_loop().time() + SEAL_SECONDS_MAX
    while True:
        rows = [dict(row) for row in await connection.fetch(SELECT_ENDS)]
        behind = [row for row in rows if row["sealed"] < first.get(row["source"], 0)]
        if not behind or asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.1)
    for row in rows:
        wanted = first.get(row["source"], 0)
        row["end"] = min(max(row["sealed"], wanted), row["head"])
    return rows
