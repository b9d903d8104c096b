"""Sign checkpoints of each log, at most a second or a thousand events behind it.

The sealer reads committed events only; the receiver never waits for it. A checkpoint is signed only
when the tree computed again from tiles and events continues the last one, in the database and in
the checkpoint file; otherwise sealing of that source stops, and a condition reports why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
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
from ledger.evidence import checkpoint_file, keys
from ledger.evidence.authenticity import Authenticity
from ledger.evidence.merkle import Frontier
from ledger.evidence.signed_note import checkpoint_of
from ledger.evidence.store import (
    COUNT_AFTER,
    MARKS,
    SELECT_ANY,
    SELECT_ANY_SEAL,
    SELECT_LAST,
    SELECT_MARKED_SINCE,
    SELECT_NOTES,
    SELECT_SEAL,
    SELECT_SOURCES,
    Seal,
    insert_seal,
    leaves_after,
    load_frontier,
)
from ledger.runtime.background import in_thread
from ledger.runtime.event_loop import stop_if_cancelled
from ledger.runtime.metrics import SEALED

LOGGER = structlog.get_logger(__name__)

EVENTS_MAX: Final = 1_000
"""Events that one checkpoint adds at most."""

PAUSE_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 0.5
REFUSED_SECONDS: Final = 30.0
"""How long to wait before sealing is tried again for a source that was refused."""

REFUSED: Final = "seal_refused"
"""The condition of a source while its log is not sealed."""

NOTES_MAX: Final = 1_000


async def prepare(connection: Any, settings: Settings) -> None:
    """Create what the first start needs: the folder of checkpoints, and a key unless there is one.

    Only while every log is empty: beside any other log, a missing file is lost evidence.
    """
    if await connection.fetchval(SELECT_ANY):
        return
    keys.create_private_folder(settings.data_dir / checkpoint_file.FOLDER)
    if not keys.has_key(settings.data_dir):
        keys.create_first(settings.data_dir)


@dataclass(slots=True)
class SourceSealer:
    """Seals one log."""

    source: str
    settings: Settings
    frontier: Frontier | None = None
    """The sealed tree; None until it is read, and again after every error."""
    _authenticity: Authenticity | None = None

    async def step(self, connection: Any) -> int:
        """Sign one checkpoint if there is anything new; return how many events it added.

        Raises CannotSeal when the log does not continue what was sealed.
        """
        frontier, self.frontier = self.frontier or await self._resume(connection), None
        previous = frontier.size
        leaves = await leaves_after(
            connection, self.source, previous, EVENTS_MAX, self.settings.fold_bytes_max,
            self._check_senders,
        )  # fmt: skip
        if leaves:
            if not previous:
                await self._begin_file(connection)
            tiles = [tile for hashed in leaves for tile in frontier.append(hashed)]
            seal = self._sign(frontier, previous, b"".join(leaves))
            try:
                await insert_seal(connection, seal, tiles)
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

    def _sign(self, frontier: Frontier, previous: int, leaves: bytes) -> Seal:
        signer = keys.signing_key(self.settings.data_dir)
        root = frontier.root()
        note = signer.sign(checkpoint_of(self.source, frontier.size, root).text)
        return Seal(self.source, previous, frontier.size, root, note, str(signer.verifier), leaves)

    def _check_senders(self, rows: Sequence[Any]) -> None:
        """Raise CannotSeal for the first event whose sender knew no secret of the source.

        Events from before the marks are sealed: they cannot have one, and `verify` names them. A
        source without a secret accepts the events of every sender.
        """
        check = self._authenticity
        doubt = check.first_refused(rows) if check and check.has_secret else None
        if doubt is not None:
            raise CannotSeal(
                f"event {doubt.position} of {self.source} {doubt.reason}: it is not signed, nor is "
                "what comes after it; run `ledger verify`, which advises what to do"
            )

    async def _resume(self, connection: Any) -> Frontier:
        """Load the tree, and check that it continues the last checkpoint and the file."""
        last = await connection.fetchrow(SELECT_LAST, self.source)
        if last is None:
            frontier = Frontier()
        else:
            frontier = await load_frontier(
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
        since = await connection.fetchval(SELECT_MARKED_SINCE, MARKS)
        self._authenticity = Authenticity.of(self.settings, self.source, since)
        return frontier

    async def _complete_file(self, connection: Any, size: int) -> None:
        """Append the checkpoints that a crash kept from the file.

        Raises CannotSeal when it lacks more than those, or has checkpoints of another log.
        """
        path = checkpoint_file.path_of(self.settings.data_dir, self.source)
        if not size and not path.exists():
            return  # it is begun with the first checkpoint
        kept = await asyncio.to_thread(checkpoint_file.last, path)
        done = kept.size if kept else 0
        if not checkpoint_file.is_begun(path):
            late = await connection.fetchval(COUNT_AFTER, self.source, done)
            if not path.exists() or not path.stat().st_size:
                raise await self._lost(connection, path, "is gone or was emptied")
            if late > checkpoint_file.LATE_MAX:
                raise CannotSeal(checkpoint_file.lost(path, f"lacks {late} checkpoints"))
        if kept is not None:
            known = await connection.fetchrow(SELECT_SEAL, self.source, kept.size)
            if known is None or known["root"] != kept.root:
                raise CannotSeal(
                    f"{path} has a checkpoint of {kept.size} events that the database does not "
                    f"have (it ends at {size}): the log was restored from an older backup or "
                    "rewritten; run `ledger verify`; once you know why, `ledger seal begin-file "
                    f"{self.source}` keeps the file aside and begins another one"
                )
        while rows := await connection.fetch(SELECT_NOTES, self.source, done, NOTES_MAX):
            await self._keep([row["note"] for row in rows])
            done = rows[-1]["size"]

    async def _begin_file(self, connection: Any) -> None:
        """Begin the file of a new log. Raises CannotSeal when the folder of such files is gone."""
        path = checkpoint_file.path_of(self.settings.data_dir, self.source)
        if not path.parent.is_dir():
            raise await self._lost(connection, path, "is gone with its folder")
        with suppress(FileExistsError):
            await asyncio.to_thread(checkpoint_file.begin, path)

    async def _lost(self, connection: Any, path: Path, what: str) -> CannotSeal:
        """Return the error of a missing file, which is lost only if anything was ever signed."""
        if await connection.fetchval(SELECT_ANY_SEAL):
            return CannotSeal(checkpoint_file.lost(path, what))
        return CannotSeal(checkpoint_file.missing(path, what))

    async def _keep(self, notes: list[str]) -> None:
        path = checkpoint_file.path_of(self.settings.data_dir, self.source)
        await asyncio.to_thread(checkpoint_file.append, path, notes)


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
        for row in await connection.fetch(SELECT_SOURCES):
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
            where = error.filename or checkpoint_file.path_of(self.settings.data_dir, source)
            reason = f"{where}: {error.strerror or error}; correct it: sealing is tried again"
            await self._refuse(connection, source, reason)
            return 0
        if source in self._refused:
            await conditions.clear(connection, source, REFUSED)
            self._refused.discard(source)
        return done

    async def _refuse(self, connection: Any, source: str, why: str) -> None:
        """Report why a source is not sealed, and try it again later; the others are sealed."""
        LOGGER.error("seal_refused", source=source, error=why)
        self._rest_until[source] = asyncio.get_running_loop().time() + REFUSED_SECONDS
        self._refused.add(source)
        await conditions.report(connection, source, REFUSED, why)


@contextmanager
def sealing(dsn: str, settings: Settings) -> Iterator[Future[None]]:
    """Seal for the length of a block; yields what `in_thread` does."""
    with in_thread("sealer", Sealer(dsn, settings).run) as ended:
        yield ended
