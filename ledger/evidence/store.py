"""SQL of the evidence: events to seal, stored tiles and checkpoints, and the nodes of proofs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ledger.errors import CannotSeal
from ledger.evidence import leaf
from ledger.evidence.merkle import HASH_BYTES, TILE_HASHES, TILE_HEIGHT, Frontier, Tile, root_of

# A log is a name that has events, seals, a head or terms: each of these may have been deleted.
SELECT_ENDS: Final = """
WITH RECURSIVE with_events AS (
       (SELECT source FROM ledger.events ORDER BY source LIMIT 1)
        UNION ALL
       SELECT (SELECT e.source FROM ledger.events AS e WHERE e.source > w.source
                ORDER BY e.source LIMIT 1)
         FROM with_events AS w WHERE w.source IS NOT NULL),
     logs AS (
       SELECT source FROM with_events WHERE source IS NOT NULL
        UNION SELECT source FROM ledger.heads
        UNION SELECT source FROM ledger.sources
        UNION SELECT source FROM ledger.seals)
SELECT l.source, coalesce(h.position, 0) AS head,
       coalesce((SELECT e.position FROM ledger.events AS e WHERE e.source = l.source
                  ORDER BY e.position DESC LIMIT 1), 0) AS last,
       coalesce((SELECT s.size FROM ledger.seals AS s WHERE s.source = l.source
                  ORDER BY s.size DESC LIMIT 1), 0) AS sealed
  FROM logs AS l LEFT JOIN ledger.heads AS h USING (source) ORDER BY l.source
"""
SELECT_SOURCES: Final = "SELECT source FROM ledger.heads ORDER BY source"
# A batch ends before its bodies exceed $4 bytes, but has one event at least.
_NEXT: Final = """
  FROM (SELECT *, sum(octet_length(body)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS read,
               row_number() OVER (ORDER BY position) AS n
          FROM ledger.events
         WHERE source = $1 AND position > $2 AND position <= $2 + $3) AS next
 WHERE read <= $4 OR n = 1
 ORDER BY position
"""
SELECT_EVENTS: Final = "SELECT " + ", ".join(leaf.COLUMNS) + _NEXT

SELECT_LAST: Final = """
SELECT size, previous, root, note, vkey FROM ledger.seals
 WHERE source = $1 ORDER BY size DESC LIMIT 1
"""
SELECT_SEAL: Final = """
SELECT size, previous, root, note, vkey, signed_at FROM ledger.seals
 WHERE source = $1 AND size = $2
"""
SELECT_COVERING: Final = """
SELECT size, root, note, vkey FROM ledger.seals
 WHERE source = $1 AND size >= $2 ORDER BY size LIMIT 1
"""
SELECT_NOTES: Final = """
SELECT size, note FROM ledger.seals WHERE source = $1 AND size > $2 ORDER BY size LIMIT $3
"""
SELECT_MARKED_SINCE: Final = "SELECT applied_at FROM ledger.migrations WHERE name = $1"
MARKS: Final = "0008_sources_and_marks.sql"
"""The migration that came with the version that marks events which no provider signs."""

COUNT_AFTER: Final = "SELECT count(*) FROM ledger.seals WHERE source = $1 AND size > $2"
SELECT_ANY: Final = """
SELECT EXISTS (SELECT FROM ledger.events) OR EXISTS (SELECT FROM ledger.seals)
    OR EXISTS (SELECT FROM ledger.heads WHERE position > 0)
"""
SELECT_ANY_SEAL: Final = "SELECT EXISTS (SELECT FROM ledger.seals)"
SELECT_TILE_ROOTS: Final = """
SELECT tile, root FROM ledger.tiles
 WHERE source = $1 AND level = $2 AND tile >= $3 AND tile < $4 ORDER BY tile
"""
SELECT_TILES: Final = """
SELECT t.level, t.tile, t.hashes FROM unnest($2::integer[], $3::bigint[]) AS u(level, tile)
  JOIN ledger.tiles AS t ON t.source = $1 AND t.level = u.level AND t.tile = u.tile
"""
SELECT_TAIL_LEAVES: Final = """
SELECT previous, leaves FROM ledger.seals
 WHERE source = $1 AND size > $2 AND previous < $3 ORDER BY size
"""
INSERT_TILES: Final = """
INSERT INTO ledger.tiles (source, level, tile, hashes, root)
SELECT $1, * FROM unnest($2::integer[], $3::bigint[], $4::bytea[], $5::bytea[])
"""
INSERT_SEAL: Final = """
INSERT INTO ledger.seals (source, size, previous, root, note, vkey, leaves)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""


@dataclass(frozen=True, slots=True)
class Seal:
    """A checkpoint about to be written: what it adds to the one before."""

    source: str
    previous: int
    size: int
    root: bytes
    note: str
    vkey: str
    leaves: bytes


async def events_after(
    connection: Any, source: str, position: int, events_max: int, bytes_max: int
) -> list[Any]:
    """Read the next events, whole. Raises CannotSeal when one is missing or cannot be read."""
    try:
        rows = await connection.fetch(SELECT_EVENTS, source, position, events_max, bytes_max)
    except (ValueError, OverflowError) as error:
        raise CannotSeal(
            f"source {source} has an event after {position} that cannot be read: {error}"
        ) from error
    return _dense(source, position, rows)


async def leaves_after(
    connection: Any, source: str, position: int, events_max: int, bytes_max: int,
    check: Callable[[list[Any]], None] = lambda _rows: None,
) -> list[bytes]:  # fmt: skip
    """Hash the next events, after `check` has looked at them.

    Raises CannotSeal when one is missing or cannot be read.
    """
    rows = await events_after(connection, source, position, events_max, bytes_max)
    check(rows)
    return [leaf.hash_of(row) for row in rows]


def _dense(source: str, position: int, rows: list[Any]) -> list[Any]:
    for expected, row in enumerate(rows, position + 1):
        if row["position"] != expected:
            raise CannotSeal(f"source {source} has no event {expected}, but {row['position']}")
    return rows


async def load_frontier(connection: Any, source: str, size: int, bytes_max: int) -> Frontier:
    """Rebuild the tree over the first `size` events: complete tiles as stored, the rest from
    the events themselves. Raises CannotSeal when they are not all there.
    """  # fmt: skip
    tails: list[list[bytes]] = [[]]
    position = size - size % TILE_HASHES
    while position < size:
        leaves = await leaves_after(connection, source, position, size - position, bytes_max)
        if not leaves:
            raise CannotSeal(f"source {source} ends at {position}, before its seal of {size}")
        tails[0] += leaves
        position += len(leaves)
    level = 1
    while size >> (TILE_HEIGHT * level):
        end = size >> (TILE_HEIGHT * level)
        begin = end - end % TILE_HASHES
        roots = await connection.fetch(SELECT_TILE_ROOTS, source, level - 1, begin, end)
        if len(roots) != end - begin:
            raise CannotSeal(f"source {source} lacks tiles of level {level - 1}")
        tails.append([row["root"] for row in roots])
        level += 1
    return Frontier.of_tails(tails)


async def insert_seal(connection: Any, seal: Seal, tiles: Sequence[Tile]) -> None:
    """Insert a checkpoint and the tiles that it completes, all or nothing.

    Raises asyncpg.UniqueViolationError when another sealer continued `previous` first.
    """
    async with connection.transaction():
        await connection.execute(
            INSERT_SEAL, seal.source, seal.size, seal.previous, seal.root, seal.note, seal.vkey,
            seal.leaves,
        )  # fmt: skip
        if tiles:
            columns = zip(*((t.level, t.index, t.hashes, t.root) for t in tiles), strict=True)
            await connection.execute(INSERT_TILES, seal.source, *map(list, columns))


async def load_nodes(
    connection: Any, source: str, nodes: Collection[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    """Read complete nodes (height, index) from tiles, and from the leaves of seals beyond them.

    Raises CannotSeal when seals lack them.
    """
    ranges = {node: _tile_range(*node) for node in nodes}
    places = {(level, first // TILE_HASHES) for level, first, _ in ranges.values()}
    levels, numbers = [p[0] for p in places], [p[1] for p in places]
    rows = await connection.fetch(SELECT_TILES, source, levels, numbers)
    hashes = {(row["level"], row["tile"]): row["hashes"] for row in rows}
    for place in places - hashes.keys():
        hashes[place] = await _incomplete(connection, source, *place)
    result: dict[tuple[int, int], bytes] = {}
    for node, (level, first, count) in ranges.items():
        place = level, first // TILE_HASHES
        begin = first % TILE_HASHES * HASH_BYTES
        run = hashes[place][begin : begin + count * HASH_BYTES]
        if len(run) != count * HASH_BYTES:
            raise CannotSeal(f"the seals of {source} lack a part of tile {place}")
        result[node] = root_of(split(run))
    return result


def _tile_range(height: int, index: int) -> tuple[int, int, int]:
    """Return the tile level, the first hash and the number of hashes under a node."""
    level, within = divmod(height, TILE_HEIGHT)
    return level, index << within, 1 << within


async def _incomplete(connection: Any, source: str, level: int, tile: int) -> bytes:
    """Return as much of a tile as is sealed, from position `tile · 256` on."""
    begin = tile * TILE_HASHES
    if level:
        rows = await connection.fetch(
            SELECT_TILE_ROOTS, source, level - 1, begin, begin + TILE_HASHES
        )
        return b"".join(row["root"] for row in rows)
    leaves = b""
    rows = await connection.fetch(SELECT_TAIL_LEAVES, source, begin, begin + TILE_HASHES)
    for row in rows:
        skipped = max(begin - row["previous"], 0)
        leaves += row["leaves"][skipped * HASH_BYTES :]
    return leaves


def split(run: bytes) -> list[bytes]:
    """Return the hashes of a run."""
    return [run[n : n + HASH_BYTES] for n in range(0, len(run), HASH_BYTES)]
