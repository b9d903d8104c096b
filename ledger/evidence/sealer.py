"""The sealer: signs what each log is, a second or a thousand events behind it.

It reads committed events only and never touches the receiving path. A checkpoint is signed only
when the tree recomputed from tiles and events continues the last one signed, in the database and
in the append-only file; otherwise sealing of that source stops and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import structlog

from ledger.config.settings import Settings
from ledger.database import conditions
from ledger.database import connection as database
from ledger.database.errors import EXPECTED
from ledger.errors import BadNote, CannotSeal
from ledger.evidence import checkpoint_file as sealfile
from ledger.evidence import keys
from ledger.evidence import store as seals
from ledger.evidence.authenticity import Authenticity
from ledger.evidence.merkle import Frontier
from ledger.evidence.signed_note import checkpoint_of
from ledger.runtime.background import in_thread
from ledger.runtime.event_loop import stop_if_cancelled
from ledger.runtime.metrics import SEALED

LOGGER = structlog.get_logger("ledger.seal")

EVENTS_MAX: Final = 1_000
"""Events that one checkpoint adds at most."""

PAUSE_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 0.5
REFUSED_SECONDS: Final = 30.0
"""How long a source rests whose log does not continue its seals."""

REFUSED: Final = "seal_refused"
"""The condition that lasts while a log is not sealed any more."""

NOTES_MAX: Final = 1_000


async def prepare(connection: Any, settings: Settings) -> None:
    """Make what the first start needs: the folder of checkpoints, and a key unless there is one.

    Only while every log is empty: beside a log that is not, what is gone is evidence lost.
    """
    if await connection.fetchval(seals.SELECT_ANY):
        return
    keys.private_folder(settings.data_dir / sealfile.FOLDER)
    if not keys.has_key(settings.data_dir):
        keys.first(settings.data_dir)


@dataclass(slots=True)
class SourceSealer:
    """Seals one log."""

    source: str
    settings: Settings
    frontier: Frontier | None = None
    """The sealed tree; None until it is read, and again whenever anything went wrong."""
    _authenticity: Authenticity | None = None

    async def step(self, connection: Any) -> int:
        """Sign one checkpoint if there is anything new; return how many events it added.

        Raises CannotSeal when the log does not continue what was sealed.
        """
        frontier, self.frontier = self.frontier or await self._resume(connection), None
        previous = frontier.size
        leaves = await seals.leaves_after(
            connection, self.source, previous, EVENTS_MAX, self.settings.fold_bytes_max,
            self._check_senders,
        )  # fmt: skip
        if leaves:
            if not previous:
                await self._begin_file(connection)
            tiles = [tile for hashed in leaves for tile in frontier.append(hashed)]
            seal = self._sign(frontier, previous, b"".join(leaves))
            try:
                await seals.write(connection, seal, tiles)
            except asyncpg.UniqueViolationError as error:
                if error.constraint_name == "tiles_pkey":
                    raise CannotSeal(
                        f"{self.source} has tiles that no checkpoint signed; run `ledger verify`"
                    ) from error
                return 0  # another sealer was first; its seal is read before the next step
            await self._keep([seal.note])
            SEALED.labels(self.source).inc(len(leaves))
        self.frontier = frontier
        return len(leaves)

    def _sign(self, frontier: Frontier, previous: int, leaves: bytes) -> seals.Seal:
        signer = keys.signing_key(self.settings.data_dir)
        root = frontier.root()
        note = signer.sign(checkpoint_of(self.source, frontier.size, root).text)
        return seals.Seal(
            self.source, previous, frontier.size, root, note, str(signer.verifier), leaves
        )

    def _check_senders(self, rows: Sequence[Any]) -> None:
        """Raise CannotSeal for the first event whose sender knew no secret of the source.

        What is from before the marks is signed: it cannot have one, and `verify` names it. A source
        without a secret takes events from anybody who can reach the service.
        """
        check = self._authenticity
        doubt = check.first_refused(rows) if check and check.has_secret else None
        if doubt is not None:
            raise CannotSeal(
                f"event {doubt.position} of {self.source} {doubt.reason}: it is not signed, nor is "
                "what comes after it; run `ledger verify`, which says what to do"
            )

    async def _resume(self, connection: Any) -> Frontier:
        """Rebuild the tree, and prove that it continues the last checkpoint and the file."""
        last = await connection.fetchrow(seals.SELECT_LAST, self.source)
        if last is None:
            frontier = Frontier()
        else:
            frontier = await seals.load_frontier(
                connection, self.source, last["size"], self.settings.fold_bytes_max
            )
            if frontier.root() != last["root"]:
                raise CannotSeal(
                    f"the log of {self.source} is not what its checkpoint of {last['size']} "
                    "events signed; run `ledger verify`"
                )
        await self._complete_file(connection, frontier.size)
        if frontier.size:
            keys.signing_key(self.settings.data_dir)
        since = await connection.fetchval(seals.SELECT_MARKED_SINCE, seals.MARKS)
        self._authenticity = Authenticity.of(self.settings, self.source, since)
        return frontier

    async def _complete_file(self, connection: Any, size: int) -> None:
        """Append what a crash kept from the file.

        Raises CannotSeal when it lacks more than that, or knows another log.
        """
        path = sealfile.path_of(self.settings.data_dir, self.source)
        if not size and not path.exists():
            return  # it is begun with the first checkpoint
        kept = await asyncio.to_thread(sealfile.last, path)
        done = kept.size if kept else 0
        if not sealfile.is_begun(path):
            late = await connection.fetchval(seals.COUNT_AFTER, self.source, done)
            if not path.exists() or not path.stat().st_size:
                raise await self._lost(connection, path, "is gone or was emptied")
            if late > sealfile.LATE_MAX:
                raise CannotSeal(sealfile.lost(path, f"lacks {late} checkpoints"))
        if kept is not None:
            known = await connection.fetchrow(seals.SELECT_SEAL, self.source, kept.size)
            if known is None or known["root"] != kept.root:
                raise CannotSeal(
                    f"{path} has a checkpoint of {kept.size} events that the database does not "
                    f"have (it ends at {size}): the log was restored from an older backup or "
                    "rewritten; run `ledger verify`; once you know why, `ledger seal begin-file "
                    f"{self.source}` keeps the file aside and begins another one"
                )
        while rows := await connection.fetch(seals.SELECT_NOTES, self.source, done, NOTES_MAX):
            await self._keep([row["note"] for row in rows])
            done = rows[-1]["size"]

    async def _begin_file(self, connection: Any) -> None:
        """Begin the file of a new log. Raises CannotSeal when the folder of such files is gone."""
        path = sealfile.path_of(self.settings.data_dir, self.source)
        if not path.parent.is_dir():
            raise await self._lost(connection, path, "is gone with its folder")
        with suppress(FileExistsError):
            await asyncio.to_thread(sealfile.begin, path)

    async def _lost(self, connection: Any, path: Path, what: str) -> CannotSeal:
        """Return the failure that a file is missing: a loss only if anything was ever signed."""
        if await connection.fetchval(seals.SELECT_ANY_SEAL):
            return CannotSeal(sealfile.lost(path, what))
        return CannotSeal(sealfile.missing(path, what))

    async def _keep(self, notes: list[str]) -> None:
        path = sealfile.path_of(self.settings.data_dir, self.source)
        await asyncio.to_thread(sealfile.append, path, notes)


@dataclass(slots=True)
class Sealer:
    """Seals every log of one database. Several may run: each checkpoint has one successor."""

    dsn: str
    settings: Settings
    _sealers: dict[str, SourceSealer] = field(default_factory=dict)
    _rest_until: dict[str, float] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Seal until cancelled, through every loss of the database."""
        while True:
            try:
                async with database.connected(
                    self.dsn, is_background=True, seconds_max=60
                ) as connection:
                    while True:
                        if await self.round(connection) < EVENTS_MAX:
                            await asyncio.sleep(PAUSE_SECONDS)
            except EXPECTED as error:
                stop_if_cancelled()
                LOGGER.warning("sealing_interrupted", error=str(error) or type(error).__name__)
            except Exception:
                stop_if_cancelled()
                LOGGER.exception("sealing_failed")
            self._sealers.clear()
            await asyncio.sleep(RETRY_SECONDS)

    async def round(self, connection: Any) -> int:
        """Do one step for every source; return the largest number of events that one sealed."""
        most = 0
        for row in await connection.fetch(seals.SELECT_SOURCES):
            most = max(most, await self._step(connection, row["source"]))
        return most

    async def _step(self, connection: Any, source: str) -> int:
        now = asyncio.get_running_loop().time()
        if now < self._rest_until.get(source, 0):
            return 0
        sealer = self._sealers.setdefault(source, SourceSealer(source, self.settings))
        try:
            done = await sealer.step(connection)
        except (CannotSeal, BadNote) as error:
            await self._refuse(connection, source, str(error))
            return 0
        except OSError as error:
            if connection.is_closed() or isinstance(error, ConnectionError | TimeoutError):
                raise
            where = error.filename or sealfile.path_of(self.settings.data_dir, source)
            told = f"{where}: {error.strerror or error}; correct it: sealing is tried again"
            await self._refuse(connection, source, told)
            return 0
        if source in self._refused:
            await conditions.clear(connection, source, REFUSED)
            self._refused.discard(source)
        return done

    async def _refuse(self, connection: Any, source: str, why: str) -> None:
        """Let a source rest, and say why; the others are sealed."""
        LOGGER.error("seal_refused", source=source, error=why)
        self._rest_until[source] = asyncio.get_running_loop().time() + REFUSED_SECONDS
        self._refused.add(source)
        await conditions.report(connection, source, REFUSED, why)


@contextmanager
def sealing(dsn: str, settings: Settings) -> Iterator[None]:
    """Seal for the length of a block."""
    with in_thread("sealer", Sealer(dsn, settings).run):
        yield
