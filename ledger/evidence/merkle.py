"""RFC 6962 Merkle trees: roots, growth, inclusion and consistency proofs and their checks. Pure.

A node is (height, index): the complete subtree over leaves [index·2^height, (index+1)·2^height).
Complete nodes never change, so they are stored in tiles of 256 hashes; other nodes are computed on
demand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, TypeAlias

HASH_BYTES: Final = 32
TILE_HEIGHT: Final = 8
TILE_HASHES: Final = 1 << TILE_HEIGHT
EMPTY_ROOT: Final = sha256().digest()
LEAF: Final = b"\x00"
"""What is hashed before the data of a leaf."""


NodeAt: TypeAlias = Callable[[int, int], bytes]
"""(height, index) → hash of that complete node."""


def leaf_hash(data: bytes) -> bytes:
    """Hash a leaf: SHA-256 of 0x00 and its data (RFC 6962 §2.1)."""
    return sha256(LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash an inner node: SHA-256 of 0x01 and its two children (RFC 6962 §2.1)."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Tile:
    """The 256 nodes at height `8·level` from `index·256` on, and the root over them."""

    level: int
    index: int
    hashes: bytes
    root: bytes


@dataclass(slots=True)
class Frontier:
    """A growing tree, as far as it is needed to add leaves, complete tiles and compute the root."""

    size: int = 0
    peaks: list[bytes] = field(default_factory=list)
    """Roots of the complete subtrees, the biggest first: one for each bit of `size`."""
    tails: list[list[bytes]] = field(default_factory=lambda: [[]])
    """Per tile level, the hashes of the tile that is not complete yet."""

    @classmethod
    def of_tails(cls, tails: Iterable[Sequence[bytes]]) -> Frontier:
        """Rebuild a frontier from the incomplete tile of each level, level 0 first."""
        tree = cls(tails=[list(tail) for tail in tails] or [[]])
        for level in reversed(range(len(tree.tails))):
            tail = tree.tails[level]
            if len(tail) >= TILE_HASHES:
                raise ValueError(f"level {level} has a complete tile among its tails")
            tree.size += len(tail) << (TILE_HEIGHT * level)
            begin = 0
            for height in reversed(range(TILE_HEIGHT)):
                if len(tail) >> height & 1:
                    tree.peaks.append(root_of(tail[begin : begin + (1 << height)]))
                    begin += 1 << height
        return tree

    def append(self, leaf: bytes) -> list[Tile]:
        """Add a leaf's hash; return the tiles that it completes (mostly none)."""
        self.tails[0].append(leaf)
        done: list[Tile] = []
        rest, height, peak = self.size, 0, leaf
        while rest & 1:
            peak = node_hash(self.peaks.pop(), peak)
            rest >>= 1
            height += 1
            if height % TILE_HEIGHT == 0:
                done.append(self._cut(height // TILE_HEIGHT - 1, peak))
        self.peaks.append(peak)
        self.size += 1
        return done

    def _cut(self, level: int, root: bytes) -> Tile:
        tail = self.tails[level]
        tile = Tile(level, self.size >> (TILE_HEIGHT * (level + 1)), b"".join(tail), root)
        tail.clear()
        if level + 1 == len(self.tails):
            self.tails.append([])
        self.tails[level + 1].append(root)
        return tile

    def root(self) -> bytes:
        """Return the tree's root; SHA-256 of nothing for an empty tree."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def hash_of(begin: int, end: int, node: NodeAt) -> bytes:
    """Hash the subtree over leaves [begin, end), begin being where a subtree of a tree begins."""
    width = end - begin
    if width & (width - 1) == 0:
        height = width.bit_length() - 1
        return node(height, begin >> height)
    split = begin + _split(width)
    return node_hash(hash_of(begin, split, node), hash_of(split, end, node))


def _split(width: int) -> int:
    """Return the largest power of two smaller than `width`."""
    return 1 << ((width - 1).bit_length() - 1)


def inclusion_proof(index: int, size: int, node: NodeAt) -> list[bytes]:
    """Return the audit path of leaf `index` (from 0) in the tree of `size` leaves (§2.1.1)."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        split = begin + _split(end - begin)
        if index < split:
            path.append(hash_of(split, end, node))
            end = split
        else:
            path.append(hash_of(begin, split, node))
            begin = split
    return path[::-1]


def consistency_proof(old: int, new: int, node: NodeAt) -> list[bytes]:
    """Return the proof that the tree of `new` leaves extends the tree of `old` (§2.1.2)."""
    if not 0 < old <= new:
        raise ValueError(f"a tree of {new} cannot extend a tree of {old}")
    path: list[bytes] = []
    begin, end = 0, new
    while end != old:
        split = begin + _split(end - begin)
        if old <= split:
            path.append(hash_of(split, end, node))
            end = split
        else:
            path.append(hash_of(begin, split, node))
            begin = split
    if begin > 0:
        path.append(hash_of(begin, end, node))
    return path[::-1]


def includes(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Check that the tree of `size` with `root` has `leaf` at `index` (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, node = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            node = node_hash(step, node)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            node = node_hash(node, step)
        at >>= 1
        last >>= 1
    return last == 0 and node == root


def extends(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Check that the tree of `new` leaves begins with the tree of `old` (RFC 9162 §2.1.4.2)."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not path and old_root == new_root
    steps = list(path)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at >>= 1
        last >>= 1
    before = after = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            before, after = node_hash(step, before), node_hash(step, after)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            after = node_hash(after, step)
        at >>= 1
        last >>= 1
    return last == 0 and before == old_root and after == new_root


def nodes_for(prove: Callable[[NodeAt], object]) -> set[tuple[int, int]]:
    """Return the complete nodes that `prove` reads, so that they can be loaded beforehand."""
    nodes: set[tuple[int, int]] = set()

    def record(height: int, index: int) -> bytes:
        nodes.add((height, index))
        return EMPTY_ROOT

    prove(record)
    return nodes
