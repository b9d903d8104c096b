"""The connections that fold: shared by all sources of a generation, each kind for one purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from ledger.books import balance_index
from ledger.books.generations import schema_of
from ledger.database import connection as database
from ledger.database.connection import Pool

TURNS_MAX: Final = 3
"""Sources that fold at the same time; bounds memory and connections whatever their number."""
COMMAND_SECONDS_MAX: Final = 60.0

PLAIN_PLANS: Final = {
    "plan_cache_mode": "force_custom_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
}
"""Every look-up goes by a key whose order we know; statistics of a young table mislead."""
KEPT_PLANS: Final = PLAIN_PLANS | {"plan_cache_mode": "force_generic_plan"}
"""What writes can use one index only: it is planned once."""


@dataclass(frozen=True, slots=True)
class FoldConnections:
    """What all sources of one generation share; the number does not grow with the sources."""

    generation: int
    reading: Pool
    writing: Pool
    looking: Pool
    """For look-ups, while a write keeps its connection busy."""
    summing: Pool
    turns: asyncio.Semaphore


CONNECTIONS_MAX: Final = 3 * TURNS_MAX + 1
"""Connections of a `FoldConnections`."""


@asynccontextmanager
async def fold_connections(
    dsn: str, generation: int, *, is_background: bool = False
) -> AsyncIterator[FoldConnections]:
    """Share connections that fold into one generation for the length of a block."""
    path = {"search_path": f"{schema_of(generation)}, ledger"}

    def pooled(
        size: int, session: Mapping[str, str], *, is_background: bool = is_background
    ) -> AbstractAsyncContextManager[Pool]:
        return database.pooled(
            dsn, size_max=size, seconds_max=COMMAND_SECONDS_MAX, is_background=is_background,
            session={**path, **session},
        )  # fmt: skip

    async with (
        pooled(TURNS_MAX, {}) as reading,
        pooled(TURNS_MAX, {"synchronous_commit": "off", **KEPT_PLANS}) as writing,
        pooled(TURNS_MAX, PLAIN_PLANS) as looking,
        pooled(1, balance_index.INDEXING_SESSION, is_background=True) as summing,
    ):
        turns = asyncio.Semaphore(TURNS_MAX)
        yield FoldConnections(generation, reading, writing, looking, summing, turns)
