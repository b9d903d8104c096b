"""Reading evidence: checkpoints, and proofs from tiles; a proof that would not hold is refused."""

from __future__ import annotations

from base64 import b64encode
from functools import partial
from typing import Final

from ledger.errors import CannotSeal, Conflicting, InvalidRequest, NotCaughtUp, NotFound
from ledger.evidence import leaf, merkle
from ledger.evidence import store as seals
from ledger.evidence.merkle import NodeAt
from ledger.queries.params import QueryParams
from ledger.queries.schemas.evidence import ConsistencyProof, InclusionProof, Seal, Seals
from ledger.queries.snapshot import DatabaseRow, Listing, Snapshot

SELECT_SEALS: Final = """
SELECT source, size, root, note, vkey, signed_at FROM ledger.seals
 WHERE source = $1 AND ($3::bigint IS NULL OR size < $3) ORDER BY size DESC LIMIT $2
"""
SELECT_NEWEST: Final = """
SELECT source, size, root, note, vkey, signed_at FROM ledger.seals
 WHERE source = $1 ORDER BY size DESC LIMIT 1
"""
SELECT_ONE: Final = """
SELECT source, size, root, note, vkey, signed_at FROM ledger.seals WHERE source = $1 AND size = $2
"""
SELECT_EVENT: Final = "SELECT * FROM ledger.events WHERE source = $1 AND position = $2"

SEALS: Final = Listing(SELECT_SEALS, {"size": int})


async def list_seals(snapshot: Snapshot, params: QueryParams) -> Seals:
    """Read checkpoints, the newest first; the answer is true at the head of each log."""
    rows, following = await SEALS.page(snapshot, params)
    return Seals(seals=[_seal(row) for row in rows], next=following, position=snapshot.head)


async def seal(snapshot: Snapshot, params: QueryParams) -> Seal:
    """Read one checkpoint: the one of `size`, or the latest. Raises NotFound or NotCaughtUp."""
    return _seal(await _checkpoint(snapshot, params.need("source"), params.number("size")))


async def inclusion(snapshot: Snapshot, params: QueryParams) -> InclusionProof:
    """Prove that a checkpoint covers an event.

    Raises NotFound, NotCaughtUp when it is not sealed yet, Conflicting when it was changed since.
    """
    source, position = snapshot.check(params.need("source")), params.number("position") or 0
    event = await snapshot.row(SELECT_EVENT, source, position)
    if event is None:
        head = snapshot.places[source].head
        raise NotFound(f"source {source} has no event {position}; its log ends at {head}")
    row = await _checkpoint(snapshot, source, params.number("size"))
    size, index = row["size"], position - 1
    if position > size:
        if params.number("size") is not None:
            raise InvalidRequest(f"a checkpoint of {size} events cannot cover event {position}")
        raise NotCaughtUp(f"event {position} is not sealed yet; repeat the request in a second")
    data = leaf.encode(event)
    prove = partial(merkle.inclusion_proof, index, size)
    path = prove(await _nodes(snapshot, source, merkle.nodes_for(prove)))
    if not merkle.includes(merkle.leaf_hash(data), index, size, path, row["root"]):
        raise Conflicting(f"event {position} is not the one that was sealed; run `ledger verify`")
    return InclusionProof(
        source=source, position=position, index=index, leaf=_text(data),
        leaf_hash=_text(merkle.leaf_hash(data)), size=size, root=_text(row["root"]),
        path=[_text(step) for step in path], checkpoint=row["note"], vkey=row["vkey"],
    )  # fmt: skip


async def consistency(snapshot: Snapshot, params: QueryParams) -> ConsistencyProof:
    """Prove that one checkpoint continues another: `from` one size `to` another, or the latest.

    Raises InvalidRequest, NotFound, Conflicting when the tree does not continue.
    """
    source, old = snapshot.check(params.need("source")), params.number("from")
    if old is None:
        raise InvalidRequest("from is missing: the size of the earlier checkpoint")
    first = await _checkpoint(snapshot, source, old)
    last = await _checkpoint(snapshot, source, params.number("to"))
    new = last["size"]
    if old > new:
        raise InvalidRequest(f"from must not be larger than to, which is {new}")
    prove = partial(merkle.consistency_proof, old, new)
    path = prove(await _nodes(snapshot, source, merkle.nodes_for(prove)))
    if not merkle.extends(old, new, first["root"], last["root"], path):
        raise Conflicting(f"checkpoint {new} does not continue {old}; run `ledger verify`")
    return ConsistencyProof(
        source=source, from_=old, to=new, from_root=_text(first["root"]),
        to_root=_text(last["root"]), path=[_text(step) for step in path],
        from_checkpoint=first["note"], to_checkpoint=last["note"],
    )  # fmt: skip


async def _checkpoint(snapshot: Snapshot, source: str, size: int | None) -> DatabaseRow:
    snapshot.check(source)
    if size is None:
        row = await snapshot.row(SELECT_NEWEST, source)
        if row is None:
            raise NotCaughtUp(
                f"nothing of source {source} is sealed yet; repeat the request in a second"
            )
        return row
    row = await snapshot.row(SELECT_ONE, source, size)
    if row is None:
        raise NotFound(f"source {source} has no checkpoint of {size} events; see /v1/seals")
    return row


async def _nodes(snapshot: Snapshot, source: str, places: set[tuple[int, int]]) -> NodeAt:
    try:
        nodes = await seals.load_nodes(snapshot.connection, source, places)
    except CannotSeal as error:
        raise Conflicting(f"{error}; run `ledger verify`") from error
    return lambda height, index: nodes[height, index]


def _seal(row: DatabaseRow) -> Seal:
    return Seal(
        source=row["source"], size=row["size"], root=_text(row["root"]), note=row["note"],
        vkey=row["vkey"], signed_at=row["signed_at"],
    )  # fmt: skip


def _text(data: bytes) -> str:
    return b64encode(data).decode()
