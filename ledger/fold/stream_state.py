"""What a stream's row keeps for the fold, and how it is written down."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from ledger.model import Leg, Received, Share, StreamProjection


class StreamState(msgspec.Struct, array_like=True):
    """What a stream's row keeps for the fold: its state, what it has posted, its issues.

    `shares` is what it counts towards others, `received` the sum of what others count towards it.
    """

    state: Any
    legs: Sequence[Leg]
    issues: Sequence[str]
    links: Sequence[str]
    shares: Sequence[Share] = ()
    received: Sequence[Received] = ()


@lru_cache(maxsize=64)
def decoder(projection: StreamProjection) -> msgspec.json.Decoder[StreamState]:
    """Return the decoder of the streams that `projection` folds."""
    shape = msgspec.defstruct(
        "StreamState",
        [
            ("state", projection.state),
            ("legs", list[Leg]),
            ("issues", list[str]),
            ("links", list[str]),
            ("shares", list[Share], msgspec.field(default_factory=list)),
            ("received", list[Received], msgspec.field(default_factory=list)),
        ],
        array_like=True,
    )
    return msgspec.json.Decoder(shape)


encode = msgspec.json.Encoder().encode
"""Encode a `StreamState` for its row."""
