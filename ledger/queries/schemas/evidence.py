"""The answers about evidence: signed checkpoints and Merkle proofs."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from ledger.queries.schemas.money import Cursor, Moment, Positions, Schema

Hash: TypeAlias = Annotated[str, Meta(description="SHA-256, base64 as in the note.")]
Note: TypeAlias = Annotated[str, Meta(description="Signed checkpoint (C2SP tlog-checkpoint).")]
Path: TypeAlias = Annotated[list[str], Meta(description="Hashes from the leaf up, base64.")]
Key: TypeAlias = Annotated[
    str, Meta(description="Public key that signed. Trust one from another channel, not this one.")
]


class Seal(Schema, frozen=True):
    """A signed checkpoint of one log: the root over its first `size` events."""

    source: str
    size: int
    root: Hash
    note: Note
    vkey: Key
    signed_at: Moment


class Seals(Schema, frozen=True):
    """Checkpoints by source, the newest first; `position` is the head of the log here."""

    seals: list[Seal]
    next: Cursor
    position: Positions


class InclusionProof(Schema, frozen=True):
    """Proves that a checkpoint covers an event: from its leaf, `path` leads to `root`."""

    source: str
    position: int
    index: Annotated[int, Meta(description="Place among the leaves: position - 1.")]
    leaf: Annotated[
        str, Meta(description="The event's bytes as sealed, base64; the body by its SHA-256.")
    ]
    leaf_hash: Hash
    size: int
    root: Hash
    path: Path
    checkpoint: Note
    vkey: Key


class ConsistencyProof(Schema, frozen=True):
    """Proves that the log of the later checkpoint begins with that of the earlier one."""

    source: str
    from_: Annotated[int, Meta(description="Size of the earlier checkpoint.")] = msgspec.field(
        name="from"
    )
    to: Annotated[int, Meta(description="Size of the later checkpoint.")]
    from_root: Hash
    to_root: Hash
    path: Path
    from_checkpoint: Note
    to_checkpoint: Note
