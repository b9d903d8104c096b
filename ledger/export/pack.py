"""`ledger export --audit`: everything a stranger needs to check a log and its books, in one file.

The books in a pack are folded from its events while they are read, so that they are true at
exactly the position that it names, whatever the live books have come to meanwhile. Nothing is
written that the seals do not confirm, and no pack is made whose fold sets other events apart than
the live books do.
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
from ledger.books import store as books
from ledger.config.settings import Settings
from ledger.config.source import LOG_NAME
from ledger.database import connection as database
from ledger.errors import BooksDisagree, InvalidRequest, NotCaughtUp, Tampered
from ledger.eventlog.identity import check_identity
from ledger.eventlog.sources import terms_of
from ledger.evidence import leaf, merkle
from ledger.evidence import store as seals
from ledger.evidence.merkle import Frontier
from ledger.evidence.signed_note import Verifier, checkpoint_of, open_checkpoint
from ledger.evidence.store import SELECT_ENDS
from ledger.export.jsonl import event_line
from ledger.export.offline_fold import OfflineFold, OfflineStore
from ledger.export.pack_file import PackWriter, Parts
from ledger.export.pack_manifest import (
    ABOUT,
    KEYS,
    Packed,
    about,
    books_folder,
    events_folder,
    note_name,
    packed,
)
from ledger.model import SourceTerms
from ledger.queries.params import read_positions
from ledger.runtime.files import HashedFile, replacing
from ledger.terminal.progress import Progress

SEAL_SECONDS_MAX: Final = 3.0
"""How long the sealer is waited for, so that what was in the log at the start is in the pack."""

BOOKS_SECONDS_MAX: Final = 5.0
"""How long the live books are waited for, so that they can be compared with the pack's."""

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

    Raises BadQuestion.
    """
    found = read_positions("position", text)
    if isinstance(found, int):
        if len(sources) != 1:
            raise InvalidRequest(f"position {found} is of which source? write straitsx:{found}")
        return {sources[0]: found}
    return found


@dataclass(frozen=True, slots=True)
class Packing:
    """What was packed."""

    position: dict[str, int]
    unsealed: dict[str, int]
    """Events after that, per source, which no checkpoint covers yet."""
    keys: list[str]
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class _Reach:
    """How far one source goes, and the checkpoint that covers it."""

    packed: Packed
    note: str
    vkey: str
    unsealed: int


async def write_file(
    settings: Settings, dsn: str, path: Path, wanted: PackRequest, *, quiet: bool
) -> Packing:
    """Write a pack to a file, which appears when it is whole.

    Raises Tampered when log and seals do not fit together, NotYet when nothing is sealed.
    """
    with replacing(path) as file, Progress.shown(quiet=quiet) as progress:
        async with database.connected(dsn, seconds_max=SECONDS_MAX) as connection:
            hashed = HashedFile(file)
            exporting = Exporting(connection, settings, progress, PackWriter(hashed), path.parent)
            reaches = await exporting.write(wanted)
    return Packing(
        {each.packed.source: each.packed.position for each in reaches},
        {each.packed.source: each.unsealed for each in reaches if each.unsealed},
        _keys(reaches),
        hashed.sha256,
        hashed.size,
    )


@dataclass(frozen=True, slots=True)
class Exporting:
    """One pack on its way out of a database."""

    connection: Any
    settings: Settings
    progress: Progress
    writer: PackWriter
    folder: Path
    """Where the fold may keep what does not fit into memory."""

    async def write(self, wanted: PackRequest) -> list[_Reach]:
        """Write everything; return how far each source goes."""
        known = await terms_of(self.connection, self.settings)
        terms = {each.source: each for each in known}
        for source in terms:
            if not LOG_NAME.fullmatch(source):
                # Names of a pack's members are made of it.
                told = f"{source[:80]!r} cannot be the name of a source; run `ledger verify`"
                raise Tampered("sources", None, told)
        reaches = [
            await self._reach(terms[row["source"]], row, wanted.positions.get(row["source"]))
            for row in await self._ends(wanted, terms)
        ]
        packs = [each.packed for each in reaches]
        version = fold_version.current_version([each.terms for each in packs])
        self.writer.add(ABOUT, about(version, packs))
        self.writer.add(KEYS, "".join(f"{key}\n" for key in _keys(reaches)).encode())
        for each in reaches:
            self.writer.add(note_name(each.packed.source), each.note.encode())
        for each in reaches:
            await self._write_source(each)
        self.writer.close()
        return reaches

    async def _ends(
        self, wanted: PackRequest, known: Mapping[str, SourceTerms]
    ) -> Sequence[Mapping[str, Any]]:
        """Return where the chosen logs and their seals end, after giving the sealer a moment."""
        for source in (*wanted.sources, *wanted.positions):
            if source not in known:
                raise InvalidRequest(
                    f"there is no source {source!r}; there are: {', '.join(known)}"
                )
        chosen = set(wanted.sources) or set(known)
        if not chosen >= wanted.positions.keys():
            raise InvalidRequest("--position names a source that --source leaves out")
        clock = asyncio.get_running_loop().time
        heads: dict[str, int] | None = None
        deadline = clock() + SEAL_SECONDS_MAX
        while True:
            rows = [r for r in await self.connection.fetch(SELECT_ENDS) if r["source"] in chosen]
            heads = heads or {row["source"]: row["head"] for row in rows}
            due = {**heads, **wanted.positions}
            if clock() > deadline or all(row["sealed"] >= due[row["source"]] for row in rows):
                break
            await asyncio.sleep(0.1)
        found = [row for row in rows if row["sealed"] or row["source"] in wanted.positions]
        if not found:
            raise NotCaughtUp(
                "nothing is sealed yet; run `ledger serve`, which seals, and ask again"
            )
        return sorted(found, key=lambda row: str(row["source"]))

    async def _reach(self, terms: SourceTerms, row: Mapping[str, Any], asked: int | None) -> _Reach:
        source, position = terms.source, row["sealed"] if asked is None else asked
        if position < 1 or position > row["head"]:
            told = f"the log of {source} has positions 1 to {row['head']}, not {position}"
            raise InvalidRequest(f"{told}; name one of those")
        if position > row["sealed"]:
            raise NotCaughtUp(
                f"{source} is sealed up to {row['sealed']}, not {position}; see that `ledger "
                "serve` or its projector role runs, then ask again"
            )
        seal = await self.connection.fetchrow(seals.SELECT_COVERING, source, position)
        path: Sequence[bytes] = ()
        if seal["size"] > position:
            prove = partial(merkle.consistency_proof, position, seal["size"])
            wanted = merkle.nodes_for(prove)
            nodes = await seals.load_nodes(self.connection, source, wanted)
            path = prove(lambda height, index: nodes[height, index])
        unsealed = row["head"] - row["sealed"] if asked is None else 0
        return _Reach(
            packed(terms, position, seal["size"], path), seal["note"], seal["vkey"], unsealed
        )

    async def _write_source(self, reach: _Reach) -> None:
        source, end = reach.packed.source, reach.packed.position
        step = self.progress.step(f"{source}: packing", end)
        parts = Parts(self.writer.add)
        frontier = Frontier()
        with (
            tempfile.TemporaryDirectory(prefix=".ledger-pack-", dir=self.folder) as folder,
            OfflineStore(Path(folder) / "fold.sqlite") as shelf,
        ):
            emit = partial(_emit, parts, source)
            fold = OfflineFold(shelf, reach.packed.terms, registry.load(), emit)
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
        wanted = min(EVENTS_MAX, end - done)
        rows = await seals.events_after(self.connection, source, done, wanted, BYTES_MAX)
        if not rows:
            raise Tampered("density", done + 1, f"event {done + 1} of {source} is missing")
        return rows

    async def _check_parked(self, source: str, end: int, folded: set[int]) -> None:
        """Check that the live books, where there are any, set the same events apart up to `end`.

        Raises BooksDisagree, or NotYet when they do not get there in time.
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
            f"event {first} of {source} is set apart (parked) by {where}, not by {other}: a pack "
            "would say other sums than the books; run `ledger rebuild --swap`, then export again, "
            "and see `ledger exceptions --reason parked` for what stays set apart"
        )

    async def _parked_live(self, source: str, end: int) -> set[int] | None:
        """Return which events up to `end` the live books set apart; None without live books."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + BOOKS_SECONDS_MAX
        while True:
            live = await self.connection.fetchrow(books.SELECT_LIVE)
            if live is None:
                return None
            schema = books.schema_of(live["generation"])
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
    """Write the look-up of how far the books of a schema are."""
    return f"SELECT position FROM {schema}.checkpoints WHERE source = $1"  # noqa: S608


def _parked(schema: str) -> str:
    """Write the look-up of the events that the books of a schema set apart."""
    return f"SELECT position FROM {schema}.parked WHERE source = $1 AND position <= $2"  # noqa: S608


def _emit(parts: Parts, source: str, table: str, line: bytes) -> None:
    parts.add(books_folder(source, table), line)


def _check_root(reach: _Reach, root: bytes) -> None:
    """Check that the events packed are those that the checkpoint in the pack signed."""
    source, size = reach.packed.source, reach.packed.position
    checkpoint, signers = open_checkpoint(reach.note, [Verifier.parse(reach.vkey)])
    named = checkpoint_of(source, reach.packed.checkpoint, checkpoint.root)
    if checkpoint != named or not signers or not reach.packed.is_covered(root, checkpoint):
        told = f"the first {size} events of {source} are not those that were sealed"
        raise Tampered("seals", None, f"{told}; run `ledger verify`, which names the first")


def _keys(reaches: Sequence[_Reach]) -> list[str]:
    return sorted({each.vkey for each in reaches})
