"""`ledger export --audit`: one file with everything that is needed to check a log and its books.

The books of a pack are folded from its events while these are read, so that they are true at the
position that it names, wherever the live books are. A pack has only what the seals confirm, and is
not made when its fold parks other events than the live books.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg

from ledger import registry
from ledger.books import fold_version
from ledger.books.generations import SELECT_LIVE, schema_of
from ledger.config.settings import Settings
from ledger.config.source import LOG_NAME
from ledger.database import connection as database
from ledger.errors import (
    BadNote,
    BooksDisagree,
    CannotSeal,
    InvalidRequest,
    NotCaughtUp,
    Tampered,
)
from ledger.eventlog.identity import check_identity
from ledger.eventlog.sources import terms_of
from ledger.evidence import keys, leaf, merkle
from ledger.evidence.merkle import Frontier
from ledger.evidence.signed_note import Signer, Verifier, checkpoint_of, open_checkpoint
from ledger.evidence.store import SELECT_COVERING, SELECT_ENDS, events_after, load_nodes
from ledger.export.jsonl import event_line
from ledger.export.offline_fold import OfflineFold, OfflineStore
from ledger.export.pack_file import PackWriter, Parts
from ledger.export.pack_manifest import (
    ABOUT,
    ABOUT_NOTE,
    KEYS,
    Packed,
    about,
    about_text,
    books_folder,
    describe,
    events_folder,
    note_name,
)
from ledger.model import SourceTerms
from ledger.queries.params import read_positions
from ledger.runtime.files import HashedFile, replacing
from ledger.terminal.progress import Progress

SEAL_SECONDS_MAX: Final = 3.0
"""How long to wait for the sealer, so that the pack has what was in the log at the start."""

BOOKS_SECONDS_MAX: Final = 5.0
"""How long to wait for the live books, so that they can be compared with the pack's."""

SECONDS_MAX: Final = 600.0
EVENTS_MAX: Final = 2_000
BYTES_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PackRequest:
    """What to pack: these sources (none: all), each up to its position (none: all sealed)."""

    sources: tuple[str, ...] = ()
    positions: Mapping[str, int] = field(default_factory=dict)


def positions_of(text: str | None, sources: Sequence[str]) -> dict[str, int]:
    """Read positions: `straitsx:25,gokart:3`, or a number where one source is named.

    Raises InvalidRequest.
    """
    positions = read_positions("position", text)
    if isinstance(positions, int):
        if len(sources) != 1:
            raise InvalidRequest(
                f"position {positions} is of which source? write straitsx:{positions}"
            )
        return {sources[0]: positions}
    return positions


@dataclass(frozen=True, slots=True)
class PackResult:
    """The positions, keys, hash and size of a pack."""

    position: dict[str, int]
    unsealed: dict[str, int]
    """Events after that, by source, that no checkpoint covers yet."""
    keys: list[str]
    sha256: str
    bytes: int
    is_signed: bool
    """Whether the versions and terms in it are signed: the sealing key was there."""


@dataclass(frozen=True, slots=True)
class _Reach:
    """The last position of one source, and the checkpoint that covers it."""

    packed: Packed
    note: str
    vkey: str
    unsealed: int


async def write_file(
    settings: Settings, dsn: str, path: Path, request: PackRequest, *, quiet: bool
) -> PackResult:
    """Write a pack to a file, which appears when it is complete.

    Raises Tampered when log and seals differ, NotCaughtUp when nothing is sealed.
    """
    signer = _signer(settings.data_dir)
    with replacing(path) as file, Progress.shown(quiet=quiet) as progress:
        async with database.connected(dsn, seconds_max=SECONDS_MAX) as connection:
            hashed = HashedFile(file)
            export = PackExport(
                connection, settings, progress, PackWriter(hashed), path.parent, signer
            )
            reaches = await export.write(request)
    return PackResult(
        {each.packed.source: each.packed.position for each in reaches},
        {each.packed.source: each.unsealed for each in reaches if each.unsealed},
        _keys(reaches, signer),
        hashed.sha256,
        hashed.size,
        signer is not None,
    )


def _signer(data_dir: Path) -> Signer | None:
    """Return the key that signs what a pack is about; None where it is not at hand."""
    try:
        return keys.signing_key(data_dir)
    except (CannotSeal, BadNote, OSError):
        return None


@dataclass(frozen=True, slots=True)
class PackExport:
    """Writes one pack from a database."""

    connection: Any
    settings: Settings
    progress: Progress
    writer: PackWriter
    folder: Path
    """The folder for what the fold cannot keep in memory."""
    signer: Signer | None = None
    """Signs what the pack is about."""

    async def write(self, request: PackRequest) -> list[_Reach]:
        """Write everything; return the reach of each source."""
        known = await terms_of(self.connection, self.settings)
        terms = {each.source: each for each in known}
        for source in terms:
            if not LOG_NAME.fullmatch(source):
                # Names of a pack's members are made of it.
                message = f"{source[:80]!r} cannot be the name of a source; run `ledger verify`"
                raise Tampered("sources", None, message)
        reaches = [
            await self._reach(terms[row["source"]], row, request.positions.get(row["source"]))
            for row in await self._ends(request, terms)
        ]
        packs = [each.packed for each in reaches]
        version = fold_version.current_version([each.terms for each in packs])
        data = about(version, packs, is_signed=self.signer is not None)
        self.writer.add(ABOUT, data)
        if self.signer is not None:
            self.writer.add(ABOUT_NOTE, self.signer.sign(about_text(data)).encode())
        trusted = _keys(reaches, self.signer)
        self.writer.add(KEYS, "".join(f"{key}\n" for key in trusted).encode())
        for each in reaches:
            self.writer.add(note_name(each.packed.source), each.note.encode())
        for each in reaches:
            await self._write_source(each)
        self.writer.close()
        return reaches

    async def _ends(
        self, request: PackRequest, known: Mapping[str, SourceTerms]
    ) -> Sequence[Mapping[str, Any]]:
        """Return where the chosen logs and their seals end, after a moment for the sealer."""
        for source in (*request.sources, *request.positions):
            if source not in known:
                raise InvalidRequest(
                    f"there is no source {source!r}; there are: {', '.join(known)}"
                )
        chosen = set(request.sources) or set(known)
        if not chosen >= request.positions.keys():
            raise InvalidRequest("--position names a source that --source leaves out")
        clock = asyncio.get_running_loop().time
        heads: dict[str, int] | None = None
        deadline = clock() + SEAL_SECONDS_MAX
        while True:
            rows = [r for r in await self.connection.fetch(SELECT_ENDS) if r["source"] in chosen]
            heads = heads or {row["source"]: row["head"] for row in rows}
            due = {**heads, **request.positions}
            if clock() > deadline or all(row["sealed"] >= due[row["source"]] for row in rows):
                break
            await asyncio.sleep(0.1)
        ends = [row for row in rows if row["sealed"] or row["source"] in request.positions]
        if not ends:
            raise NotCaughtUp(
                "nothing is sealed yet; run `ledger serve`, which seals, and ask again"
            )
        return sorted(ends, key=lambda row: str(row["source"]))

    async def _reach(
        self, terms: SourceTerms, row: Mapping[str, Any], requested: int | None
    ) -> _Reach:
        source, position = terms.source, row["sealed"] if requested is None else requested
        if position < 1 or position > row["head"]:
            message = f"the log of {source} has positions 1 to {row['head']}, not {position}"
            raise InvalidRequest(f"{message}; name one of those")
        if position > row["sealed"]:
            raise NotCaughtUp(
                f"{source} is sealed up to {row['sealed']}, not {position}; see that `ledger "
                "serve` or its projector role runs, then ask again"
            )
        seal = await self.connection.fetchrow(SELECT_COVERING, source, position)
        path: Sequence[bytes] = ()
        if seal["size"] > position:
            prove = partial(merkle.consistency_proof, position, seal["size"])
            nodes = await load_nodes(self.connection, source, merkle.nodes_for(prove))
            path = prove(lambda height, index: nodes[height, index])
        unsealed = row["head"] - row["sealed"] if requested is None else 0
        return _Reach(
            describe(terms, position, seal["size"], path), seal["note"], seal["vkey"], unsealed
        )

    async def _write_source(self, reach: _Reach) -> None:
        source, end = reach.packed.source, reach.packed.position
        step = self.progress.step(f"{source}: packing", end)
        parts = Parts(self.writer.add)
        frontier = Frontier()
        with (
            tempfile.TemporaryDirectory(prefix=".ledger-pack-", dir=self.folder) as folder,
            OfflineStore(Path(folder) / "fold.sqlite") as store,
        ):
            emit = partial(_emit, parts, source)
            fold = OfflineFold(store, reach.packed.terms, registry.load(), emit)
            while frontier.size < end:
                rows = await self._events(source, frontier.size, end)
                for row, hashed in zip(rows, map(leaf.hash_of, rows), strict=True):
                    check_identity(source, row)
                    frontier.append(hashed)
                    parts.add(events_folder(source), event_line(row, hashed))
                fold.add(rows)
                step.advance(frontier.size)
            _check_root(reach, frontier.root())
            await self._check_parked(source, end, fold.parked_at)
            fold.finish()
        parts.finish()
        step.done()

    async def _events(self, source: str, done: int, end: int) -> list[Any]:
        count = min(EVENTS_MAX, end - done)
        rows = await events_after(self.connection, source, done, count, BYTES_MAX)
        if not rows:
            raise Tampered("density", done + 1, f"event {done + 1} of {source} is missing")
        return rows

    async def _check_parked(self, source: str, end: int, folded: set[int]) -> None:
        """Check that the live books, where there are any, park the same events up to `end`.

        Raises BooksDisagree, or NotCaughtUp when they do not get there in time.
        """
        try:
            live = await self._parked_live(source, end)
        except asyncpg.UndefinedTableError as error:
            raise NotCaughtUp("the live books are being replaced; export again") from error
        if live is None or live == folded:
            return
        first = min(live ^ folded)
        where, other = "the live books", "the fold for this pack"
        if first in folded:
            where, other = other, where
        raise BooksDisagree(
            f"event {first} of {source} is parked by {where}, not by {other}: a pack would "
            "have other sums than the books; run `ledger rebuild --swap`, then export again, "
            "and see `ledger exceptions --reason parked` for what stays parked"
        )

    async def _parked_live(self, source: str, end: int) -> set[int] | None:
        """Return which events up to `end` the live books park; None without live books."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + BOOKS_SECONDS_MAX
        while True:
            live = await self.connection.fetchrow(SELECT_LIVE)
            if live is None:
                return None
            schema = schema_of(live["generation"])
            place = await self.connection.fetchval(_place(schema), source) or 0
            if place >= end:
                rows = await self.connection.fetch(_parked(schema), source, end)
                return {row["position"] for row in rows}
            if clock() > deadline:
                raise NotCaughtUp(
                    f"the books of {source} are at {place}, the pack would end at {end}; see that "
                    "`ledger serve` or its projector role runs, then export again"
                )
            await asyncio.sleep(0.1)


def _place(schema: str) -> str:
    """Return the query of how far the books of a schema are."""
    return f"SELECT position FROM {schema}.checkpoints WHERE source = $1"  # noqa: S608


def _parked(schema: str) -> str:
    """Return the query of the events that the books of a schema park."""
    return f"SELECT position FROM {schema}.parked WHERE source = $1 AND position <= $2"  # noqa: S608


def _emit(parts: Parts, source: str, table: str, line: bytes) -> None:
    parts.add(books_folder(source, table), line)


def _check_root(reach: _Reach, root: bytes) -> None:
    """Check that the events packed are those that the checkpoint in the pack signed."""
    source, size = reach.packed.source, reach.packed.position
    checkpoint, signers = open_checkpoint(reach.note, [Verifier.parse(reach.vkey)])
    named = checkpoint_of(source, reach.packed.checkpoint, checkpoint.root)
    if checkpoint != named or not signers or not reach.packed.is_covered(root, checkpoint):
        message = f"the first {size} events of {source} are not those that were sealed"
        raise Tampered("seals", None, f"{message}; run `ledger verify`, which names the first")


def _keys(reaches: Sequence[_Reach], signer: Signer | None) -> list[str]:
    own = {str(signer.verifier)} if signer is not None else set()
    return sorted({each.vkey for each in reaches} | own)
