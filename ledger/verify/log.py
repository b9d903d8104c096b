"""Verifying one log: dense, each event with its body, in order of time, and as it was sealed.

Everything is recomputed from the events: every leaf, tile and checkpoint. The first event that
does not fit is named.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import asyncpg

from ledger.database.errors import CONNECTION_LOST
from ledger.errors import BadNote, Tampered
from ledger.eventlog.identity import check_identity
from ledger.evidence import leaf
from ledger.evidence import store as seals
from ledger.evidence.authenticity import Authenticity, Doubt, DoubtKind
from ledger.evidence.merkle import HASH_BYTES, TILE_HEIGHT, Frontier, Tile
from ledger.evidence.signed_note import Verifier, checkpoint_of, open_checkpoint

EVENTS_MAX: Final = 2_000
BYTES_MAX: Final = 32 * 1024 * 1024
SEALS_MAX: Final = 200

SELECT_SEALS_AFTER: Final = """
SELECT size, previous, root, note, vkey, leaves FROM ledger.seals
 WHERE source = $1 AND size > $2 AND size <= $3 ORDER BY size LIMIT $4
"""
SELECT_TILES: Final = """
SELECT t.level, t.tile, t.hashes, t.root
  FROM unnest($2::integer[], $3::bigint[]) AS u(level, tile)
  JOIN ledger.tiles AS t ON t.source = $1 AND t.level = u.level AND t.tile = u.tile
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a note kept outside the database says of a log: its first `size` events have `root`."""

    size: int
    root: bytes
    where: str
    is_trusted: bool


@dataclass(slots=True)
class Doubted:
    """Doubtful events of one kind: the first of them, and how many there are."""

    first: Doubt
    count: int = 0


@dataclass(frozen=True, slots=True)
class Proved:
    """What was found true of a log."""

    events: int
    sealed: int
    checkpoints: int
    tiles: int
    signers: frozenset[str]
    claims: int
    untrusted_claims: int
    doubts: Mapping[DoubtKind, Doubted] = field(default_factory=dict)
    """Events that nobody who knew a secret may have sent, by what is doubtful about them."""


@dataclass(slots=True)
class LogCheck:
    """Checks one log up to position `end`, with the seals up to size `sealed`."""

    connection: Any
    source: str
    end: int
    sealed: int
    trusted: Sequence[Verifier]
    claims: Sequence[Claim] = ()
    progress: Callable[[int], None] = lambda _events: None
    judge: Authenticity | None = None
    frontier: Frontier = field(default_factory=Frontier)
    _recorded_at: datetime | None = None
    _ahead: deque[Any] = field(default_factory=deque)
    _is_next: bool = True
    """Whether the first checkpoint ahead is still to be looked at."""
    _loaded: int = 0
    _checkpoints: int = 0
    _tiles: int = 0
    _signers: set[str] = field(default_factory=set)
    _agreed: int = 0
    _doubts: dict[DoubtKind, Doubted] = field(default_factory=dict)
    _open_claims: dict[int, list[Claim]] = field(default_factory=dict)

    async def run(self) -> Proved:
        """Check everything; raise Tampered at the first thing that does not fit."""
        for claim in self.claims:
            self._open_claims.setdefault(claim.size, []).append(claim)
        self._check_claims()
        while self.frontier.size < self.end:
            rows = await self._events()
            await self._load_seals(rows[-1]["position"])
            tiles, first = self._add(rows)
            await self._check_tiles(tiles)
            if first is not None:
                raise first
            self.progress(self.frontier.size)
        self._check_tail()
        return Proved(
            self.end, min(self.sealed, self.end), self._checkpoints, self._tiles,
            frozenset(self._signers), len(self.claims),
            sum(not claim.is_trusted for claim in self.claims), self._doubts,
        )  # fmt: skip

    async def _events(self) -> list[Any]:
        """Read the next events. Raises Tampered when they are missing or cannot be read."""
        done = self.frontier.size
        wanted = min(EVENTS_MAX, self.end - done)
        try:
            rows = await self._fetch(done, wanted)
        except _UNREADABLE:
            rows = await self._one_by_one(done, wanted)
        if not rows:
            raise Tampered("density", done + 1, f"event {done + 1} is missing")
        return rows

    async def _one_by_one(self, done: int, wanted: int) -> list[Any]:
        found: list[Any] = []
        for place in range(done, done + wanted):
            try:
                found += await self._fetch(place, 1)
            except _UNREADABLE as error:
                if not found:
                    told = f"event {place + 1} cannot be read: {error}"
                    raise Tampered("identity", place + 1, told) from error
                break
        return found

    async def _fetch(self, done: int, wanted: int) -> list[Any]:
        try:
            rows: list[Any] = await self.connection.fetch(
                seals.SELECT_EVENTS, self.source, done, wanted, BYTES_MAX
            )
        except CONNECTION_LOST as error:
            raise ConnectionError(f"the database went away: {error}") from error
        return rows

    def _add(self, rows: Sequence[Any]) -> tuple[list[Tile], Tampered | None]:
        """Add events to the tree; return the tiles completed, and the first bad event's trouble."""
        tiles: list[Tile] = []
        try:
            for row, hashed in zip(rows, map(leaf.hash_of, rows), strict=True):
                tiles += self._event(row, hashed)
        except Tampered as error:
            return tiles, error
        return tiles, None

    def _event(self, row: Any, hashed: bytes) -> list[Tile]:
        position = self.frontier.size + 1
        if row["position"] != position:
            raise Tampered("density", position, f"event {position} is missing")
        check_identity(self.source, row)
        if self.judge is not None and (doubt := self.judge.doubt(row)):
            self._doubts.setdefault(doubt.kind, Doubted(doubt)).count += 1
        self._check_order(position, row["recorded_at"])
        seal = self._ahead[0] if self._ahead else None
        if seal is not None:
            if self._is_next:
                self._check_shape(seal)
                self._is_next = False
            if hashed != _leaf_of(seal, position):
                raise Tampered("seals", position, f"event {position} is not what was sealed")
        tiles = self.frontier.append(hashed)
        if seal is not None and seal["size"] == position:
            self._checkpoint(self._ahead.popleft())
            self._is_next = True
        self._check_claims()
        return tiles

    def _check_order(self, position: int, recorded_at: datetime) -> None:
        if recorded_at.tzinfo is None:
            raise Tampered("order", position, f"event {position} was recorded at no time at all")
        if self._recorded_at is not None and recorded_at < self._recorded_at:
            told = f"event {position} was recorded before the one before it"
            raise Tampered("order", position, told)
        self._recorded_at = recorded_at

    async def _load_seals(self, position: int) -> None:
        """Have the checkpoints at hand that cover events up to `position`."""
        while self._loaded < min(position, self.sealed):
            rows = await self.connection.fetch(
                SELECT_SEALS_AFTER, self.source, self._loaded, self.sealed, SEALS_MAX
            )
            if not rows:
                return
            self._loaded = rows[-1]["size"]
            self._ahead.extend(rows)

    def _check_shape(self, seal: Mapping[str, Any]) -> None:
        """Check that a checkpoint continues the one before it and has the leaves it adds."""
        done = self.frontier.size
        if seal["previous"] != done:
            told = (
                f"the checkpoint of {seal['size']} events follows one of {seal['previous']}, "
                f"but the one before it has {done}: one is missing"
            )
            raise Tampered("seals", done + 1, told)
        if len(seal["leaves"]) != HASH_BYTES * (seal["size"] - seal["previous"]):
            told = f"the checkpoint of {seal['size']} events has leaves missing"
            raise Tampered("seals", done + 1, told)

    async def _check_tiles(self, tiles: Sequence[Tile]) -> None:
        """Check complete tiles under a checkpoint against those that were stored."""
        due = [t for t in tiles if (t.index + 1) << (TILE_HEIGHT * (t.level + 1)) <= self.sealed]
        levels, numbers = [t.level for t in due], [t.index for t in due]
        rows = await self.connection.fetch(SELECT_TILES, self.source, levels, numbers)
        kept = {(row["level"], row["tile"]): (row["hashes"], row["root"]) for row in rows}
        for tile in due:
            found = kept.get((tile.level, tile.index))
            if found != (tile.hashes, tile.root):
                what = "missing" if found is None else "not that of the events"
                first = (tile.index << (TILE_HEIGHT * (tile.level + 1))) + 1
                told = f"tile {tile.index} of level {tile.level} is {what}"
                raise Tampered("tiles", first, told)
        self._tiles += len(due)

    def _checkpoint(self, seal: Mapping[str, Any]) -> None:
        """Check a signed checkpoint against the tree recomputed from the events."""
        size, first = seal["size"], seal["previous"] + 1
        expected = checkpoint_of(self.source, size, self.frontier.root())
        named = f"the checkpoint of {size} events"
        try:
            checkpoint, signers = open_checkpoint(seal["note"], self.trusted)
        except BadNote as error:
            raise Tampered("seals", first, f"{named} is broken: {error}") from error
        if checkpoint != expected or seal["root"] != expected.root:
            raise Tampered("seals", first, f"{named} is not that of the events up to there")
        if self.trusted and not signers:
            told = f"{named} is not signed by a trusted key, but by {seal['vkey']}"
            raise Tampered("seals", first, told)
        if signers and seal["vkey"] not in map(str, signers):
            raise Tampered("seals", first, f"{named} names another key than the one that signed")
        self._signers.update(map(str, signers))
        self._checkpoints += 1

    def _check_claims(self) -> None:
        size = self.frontier.size
        for claim in self._open_claims.pop(size, ()):
            if claim.root != self.frontier.root():
                told = (
                    f"the log's first {size} events are not those that {claim.where} has signed; "
                    f"up to {self._agreed} they agree: it was rewritten after that"
                )
                raise Tampered("against", self._agreed + 1, told)
            self._agreed = size

    def _check_tail(self) -> None:
        if self.sealed > self.end:
            told = f"the log ends at {self.end}, but {self.sealed} events were sealed: it was cut"
            raise Tampered("tail", self.end + 1, told)
        for size, claims in sorted(self._open_claims.items()):
            told = f"the log ends at {self.end}, but {claims[0].where} signed {size} events"
            raise Tampered("against", self.end + 1, told)


_UNREADABLE: Final = (asyncpg.PostgresError, ValueError, OverflowError)
"""What reading a damaged or absurd row raises."""


def _leaf_of(seal: Mapping[str, Any], position: int) -> bytes:
    begin = (position - 1 - seal["previous"]) * HASH_BYTES
    leaves: bytes = seal["leaves"]
    return leaves[begin : begin + HASH_BYTES]
