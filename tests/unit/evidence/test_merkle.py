"""RFC 6962 trees: the vectors that Certificate Transparency logs are tested with, and tampering."""

from __future__ import annotations

from hashlib import sha256

import pytest

from ledger.evidence import merkle

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
AUDIT_PATH_0_OF_8 = [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
]
AUDIT_PATH_5_OF_8 = [
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]
CONSISTENCY_6_TO_8 = [
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]
HASHES = [merkle.leaf_hash(data) for data in LEAVES]


def node(height: int, index: int) -> bytes:
    return merkle.root_of(HASHES[index << height : (index + 1) << height])


def hexes(path: list[bytes]) -> list[str]:
    return [step.hex() for step in path]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert merkle.root_of(HASHES[:size]).hex() == ROOTS[size]


def test_audit_paths_are_those_of_certificate_transparency() -> None:
    assert hexes(merkle.inclusion_proof(0, 8, node)) == AUDIT_PATH_0_OF_8
    assert hexes(merkle.inclusion_proof(5, 8, node)) == AUDIT_PATH_5_OF_8
    assert hexes(merkle.inclusion_proof(2, 3, node)) == [ROOTS[2]]
    assert merkle.inclusion_proof(0, 1, node) == []


def test_consistency_proofs_are_those_of_certificate_transparency() -> None:
    assert hexes(merkle.consistency_proof(1, 8, node)) == AUDIT_PATH_0_OF_8
    assert hexes(merkle.consistency_proof(6, 8, node)) == CONSISTENCY_6_TO_8
    assert merkle.consistency_proof(8, 8, node) == []


def test_a_leaf_cannot_pass_for_a_node() -> None:
    pair = merkle.node_hash(HASHES[0], HASHES[1])
    assert merkle.leaf_hash(HASHES[0] + HASHES[1]) != pair
    assert sha256(HASHES[0] + HASHES[1]).digest() != pair


def test_no_other_leaf_place_size_path_or_root_passes_an_inclusion_proof() -> None:
    root = bytes.fromhex(ROOTS[8])
    path = merkle.inclusion_proof(5, 8, node)
    assert merkle.includes(HASHES[5], 5, 8, path, root)
    assert not merkle.includes(HASHES[4], 5, 8, path, root)
    assert not merkle.includes(HASHES[5], 4, 8, path, root)
    assert not merkle.includes(HASHES[5], 5, 5, path, root)
    assert not merkle.includes(HASHES[5], 5, 16, path, root)
    assert not merkle.includes(HASHES[5], 5, 8, path[:-1], root)
    assert not merkle.includes(HASHES[5], 5, 8, [*path, path[0]], root)
    assert not merkle.includes(HASHES[5], 5, 8, path, bytes.fromhex(ROOTS[7]))
    assert not merkle.includes(HASHES[5], -1, 8, path, root)


def test_no_other_sizes_roots_or_path_pass_a_consistency_proof() -> None:
    old, new = bytes.fromhex(ROOTS[6]), bytes.fromhex(ROOTS[8])
    path = merkle.consistency_proof(6, 8, node)
    assert merkle.extends(6, 8, old, new, path)
    assert not merkle.extends(6, 8, new, new, path)
    assert not merkle.extends(6, 8, old, old, path)
    assert not merkle.extends(5, 8, old, new, path)
    assert not merkle.extends(6, 8, old, new, path[1:])
    assert not merkle.extends(6, 8, old, new, [])
    assert not merkle.extends(6, 8, old, new, [*path, path[0]])
    assert not merkle.extends(8, 6, new, old, path)
    assert not merkle.extends(8, 8, new, new, path)
    assert merkle.extends(8, 8, new, new, [])


def test_a_proof_of_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="not in a tree"):
        merkle.inclusion_proof(8, 8, node)
    with pytest.raises(ValueError, match="cannot extend"):
        merkle.consistency_proof(9, 8, node)
    with pytest.raises(ValueError, match="complete tile"):
        merkle.Frontier.of_tails([[HASHES[0]] * 256])
