"""Check the seals of a log against its events: checkpoints, leaves and tiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ledger.errors import BadNote, Tampered
from ledger.evidence.merkle import HASH_BYTES, TILE_HEIGHT, Frontier, Tile
from ledger.evidence.signed_note import Verifier, checkpoint_of, open_checkpoint

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


@dataclass(slots=True)
class SealsCheck:
    """Checks the seals of one log up to size `sealed`, while its events are read in order."""

    connection: Any
    source: str
    sealed: int
    trusted: Sequence[Verifier]
    checkpoints: int = 0
    """Checkpoints that hold."""
    tiles: int = 0
    """Tiles that hold."""
    signers: set[str] = field(default_factory=set)
    _loaded: int = 0
    """The size of the last checkpoint that was read."""
    _ahead: deque[Mapping[str, Any]] = field(default_factory=deque)
    """The checkpoints that were read and whose last event was not."""
    _is_next: bool = True
    """Whether the shape of the first checkpoint ahead was not checked yet."""

    async def load(self, position: int) -> None:
        """Read the checkpoints that cover events up to `position`."""
        while self._loaded < min(position, self.sealed):
            rows = await self.connection.fetch(
                SELECT_SEALS_AFTER, self.source, self._loaded, self.sealed, SEALS_MAX
            )
            if not rows:
                return
            self._loaded = rows[-1]["size"]
            self._ahead.extend(rows)

    def check_leaf(self, tree: Frontier, leaf: bytes) -> None:
        """Check the next event's leaf, before the tree has it. Raises Tampered."""
        if not self._ahead:
            return
        seal, position = self._ahead[0], tree.size + 1
        if self._is_next:
            _check_shape(seal, tree.size)
            self._is_next = False
        begin = (tree.size - seal["previous"]) * HASH_BYTES
        if leaf != seal["leaves"][begin : begin + HASH_BYTES]:
            raise Tampered("seals", position, f"event {position} is not what was sealed")

    def check_checkpoint(self, tree: Frontier) -> None:
        """Check the checkpoint that ends with the last event of the tree. Raises Tampered."""
        if self._ahead and self._ahead[0]["size"] == tree.size:
            self._check_signed(self._ahead.popleft(), tree)
            self._is_next = True

    async def check_tiles(self, tiles: Sequence[Tile]) -> None:
        """Check complete tiles under a checkpoint against the stored ones. Raises Tampered."""
        sealed = [t for t in tiles if (t.index + 1) << (TILE_HEIGHT * (t.level + 1)) <= self.sealed]
        levels, numbers = [t.level for t in sealed], [t.index for t in sealed]
        rows = await self.connection.fetch(SELECT_TILES, self.source, levels, numbers)
        stored = {(row["level"], row["tile"]): (row["hashes"], row["root"]) for row in rows}
        for tile in sealed:
            hashes = stored.get((tile.level, tile.index))
            if hashes != (tile.hashes, tile.root):
                what = "missing" if hashes is None else "not that of the events"
                first = (tile.index << (TILE_HEIGHT * (tile.level + 1))) + 1
                message = f"tile {tile.index} of level {tile.level} is {what}"
                raise Tampered("tiles", first, message)
        self.tiles += len(sealed)

    def _check_signed(self, seal: Mapping[str, Any], tree: Frontier) -> None:
        first = seal["previous"] + 1
        expected = checkpoint_of(self.source, tree.size, tree.root())
        named = f"the checkpoint of {tree.size} events"
        try:
            checkpoint, signers = open_checkpoint(seal["note"], self.trusted)
        except BadNote as error:
            raise Tampered("seals", first, f"{named} is not valid: {error}") from error
        if checkpoint != expected or seal["root"] != expected.root:
            raise Tampered("seals", first, f"{named} is not that of the events up to there")
        if self.trusted and not signers:
            message = f"{named} is not signed by a trusted key, but by {seal['vkey']}"
            raise Tampered("seals", first, message)
        if signers and seal["vkey"] not in map(str, signers):
            raise Tampered("seals", first, f"{named} names another key than the one that signed")
        self.signers.update(map(str, signers))
        self.checkpoints += 1


def _check_shape(seal: Mapping[str, Any], size: int) -> None:
    """Check that a checkpoint continues the one before it and has the leaves that it adds."""
    if seal["previous"] != size:
        raise Tampered(
            "seals",
            size + 1,
            f"the checkpoint of {seal['size']} events follows one of {seal['previous']}, but the "
            f"one before it has {size}: one is missing",
        )
    if len(seal["leaves"]) != HASH_BYTES * (seal["size"] - size):
        message = f"the checkpoint of {seal['size']} events has leaves missing"
        raise Tampered("seals", size + 1, message)
