"""Laws of the tree, against RFC 6962's recursive definition written down as it stands."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.evidence import merkle

SIZES = st.integers(1, 700)
MANY = [sha256(n.to_bytes(4)).digest() for n in range(70_000)]


def naive_root(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], is_whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if is_whole else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_subproof(m, leaves[:k], is_whole), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def node(height: int, index: int) -> bytes:
    return naive_root(MANY[index << height : (index + 1) << height])


@given(SIZES)
def test_growing_leaf_by_leaf_gives_the_defined_root(size: int) -> None:
    assert merkle.root_of(MANY[:size]) == naive_root(MANY[:size])


@given(SIZES, st.data())
def test_inclusion_proofs_are_the_defined_ones_and_hold(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_proof(index, size, node)
    assert path == naive_path(index, MANY[:size])
    assert merkle.includes(MANY[index], index, size, path, naive_root(MANY[:size]))


@given(SIZES, st.data())
def test_consistency_proofs_are_the_defined_ones_and_hold(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    path = merkle.consistency_proof(old, size, node)
    assert path == naive_subproof(old, MANY[:size], True)
    roots = naive_root(MANY[:old]), naive_root(MANY[:size])
    assert merkle.extends(old, size, *roots, path)


@given(SIZES, st.data())
def test_a_flipped_bit_anywhere_breaks_a_proof(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_proof(index, size, node)
    parts = [MANY[index], naive_root(MANY[:size]), *path]
    which = data.draw(st.integers(0, len(parts) - 1))
    bit = data.draw(st.integers(0, 255))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(changed)
    leaf, root, *rest = parts
    assert not merkle.includes(leaf, index, size, rest, root)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 70_000), st.integers(0, 600))
def test_a_frontier_made_of_tiles_goes_on_as_if_it_had_never_stopped(size: int, more: int) -> None:
    first, tiles = merkle.Frontier(), []
    for leaf in MANY[:size]:
        tiles += first.append(leaf)
    tails: list[list[bytes]] = [MANY[size // 256 * 256 : size]]
    while size >> 8 * len(tails):
        level = len(tails)
        roots = [t.root for t in tiles if t.level == level - 1]
        tails.append(roots[(size >> 8 * (level + 1)) * 256 :])
    again = merkle.Frontier.of_tails(tails)
    assert (again.size, again.root()) == (first.size, first.root())
    for leaf in (MANY * 2)[size : size + more]:
        assert first.append(leaf) == again.append(leaf)
    assert first.root() == again.root()


def test_tiles_hold_the_nodes_of_their_level() -> None:
    frontier = merkle.Frontier()
    tiles = [tile for leaf in MANY[:65_536] for tile in frontier.append(leaf)]
    assert [(t.level, t.index) for t in tiles] == [*((0, n) for n in range(256)), (1, 0)]
    assert tiles[3].hashes == b"".join(MANY[768:1024])
    assert tiles[3].root == naive_root(MANY[768:1024])
    assert tiles[-1].hashes == b"".join(t.root for t in tiles[:-1])
    assert tiles[-1].root == frontier.root() == naive_root(MANY[:65_536])


def test_what_a_proof_needs_is_known_beforehand() -> None:
    expected = merkle.nodes_for(lambda at: merkle.inclusion_proof(3, 7, at))
    assert expected == {(0, 2), (1, 0), (1, 2), (0, 6)}
