"""Verify one log: dense, each event with its own body, in order of time, and as it was sealed.

Everything is computed again from the events: every leaf, tile and checkpoint. The first event that
does not fit is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import asyncpg

from ledger.database.errors import CONNECTION_LOST
from ledger.errors import Tampered
from ledger.eventlog.identity import check_identity
from ledger.evidence import leaf
from ledger.evidence.authenticity import Authenticity, Doubt, DoubtKind
from ledger.evidence.merkle import Frontier, Tile
from ledger.evidence.signed_note import Verifier
from ledger.evidence.store import SELECT_EVENTS
from ledger.verify.claims import Claim, OpenClaims
from ledger.verify.seals import SealsCheck

EVENTS_MAX: Final = 2_000
BYTES_MAX: Final = 32 * 1024 * 1024

_UNREADABLE: Final = (asyncpg.PostgresError, ValueError, OverflowError)
"""The errors of reading a damaged or absurd row."""


@dataclass(slots=True)
class DoubtfulEvents:
    """Doubtful events of one kind: the doubt about the first of them, and their number."""

    first: Doubt
    count: int = 0


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """What holds of a log."""

    events: int
    sealed: int
    checkpoints: int
    tiles: int
    signers: frozenset[str]
    claims: int
    untrusted_claims: int
    doubts: Mapping[DoubtKind, DoubtfulEvents] = field(default_factory=dict)
    """The events that may not have come through a receiver."""


@dataclass(slots=True)
class LogCheck:
    """Checks one log up to position `end`, with the seals up to size `sealed`."""

    connection: Any
    source: str
    end: int
    sealed: int
    trusted: Sequence[Verifier]
    claims: Sequence[Claim] = ()
    on_progress: Callable[[int], None] = lambda _events: None
    authenticity: Authenticity | None = None
    tree: Frontier = field(default_factory=Frontier)
    _seals: SealsCheck = field(init=False)
    _open_claims: OpenClaims = field(init=False)
    _doubts: dict[DoubtKind, DoubtfulEvents] = field(default_factory=dict)
    _recorded_at: datetime | None = None
    """Of the event before."""

    def __post_init__(self) -> None:
        self._seals = SealsCheck(self.connection, self.source, self.sealed, self.trusted)
        self._open_claims = OpenClaims(self.claims)

    async def run(self) -> VerifiedLog:
        """Check everything; raise Tampered at the first thing that does not fit."""
        self._check_claims()
        while self.tree.size < self.end:
            rows = await self._read()
            await self._seals.load(rows[-1]["position"])
            tiles, first_error = self._check_events(rows)
            await self._seals.check_tiles(tiles)
            if first_error is not None:
                raise first_error
            self.on_progress(self.tree.size)
        self._check_end()
        return VerifiedLog(
            self.end, min(self.sealed, self.end), self._seals.checkpoints, self._seals.tiles,
            frozenset(self._seals.signers), len(self.claims),
            sum(not claim.is_trusted for claim in self.claims), self._doubts,
        )  # fmt: skip

    async def _read(self) -> list[Any]:
        """Read the next events. Raises Tampered when they are missing or cannot be read."""
        done = self.tree.size
        count = min(EVENTS_MAX, self.end - done)
        try:
            rows = await self._fetch(done, count)
        except _UNREADABLE:
            rows = await self._read_singly(done, count)
        if not rows:
            raise Tampered("density", done + 1, f"event {done + 1} is missing")
        return rows

    async def _read_singly(self, done: int, count: int) -> list[Any]:
        """Read events one by one, up to the first that cannot be read."""
        rows: list[Any] = []
        for after in range(done, done + count):
            try:
                rows += await self._fetch(after, 1)
            except _UNREADABLE as error:
                if not rows:
                    message = f"event {after + 1} cannot be read: {error}"
                    raise Tampered("identity", after + 1, message) from error
                break
        return rows

    async def _fetch(self, done: int, count: int) -> list[Any]:
        try:
            rows: list[Any] = await self.connection.fetch(
                SELECT_EVENTS, self.source, done, count, BYTES_MAX
            )
        except CONNECTION_LOST as error:
            raise ConnectionError(f"the connection to the database was lost: {error}") from error
        return rows

    def _check_events(self, rows: Sequence[Any]) -> tuple[list[Tile], Tampered | None]:
        """Check events and add them to the tree; return completed tiles and the first error."""
        tiles: list[Tile] = []
        try:
            for row in rows:
                tiles += self._check_event(row)
        except Tampered as error:
            return tiles, error
        return tiles, None

    def _check_event(self, row: Any) -> list[Tile]:
        position = self.tree.size + 1
        if row["position"] != position:
            raise Tampered("density", position, f"event {position} is missing")
        check_identity(self.source, row)
        if self.authenticity is not None and (doubt := self.authenticity.doubt(row)):
            self._doubts.setdefault(doubt.kind, DoubtfulEvents(doubt)).count += 1
        self._check_order(position, row["recorded_at"])
        hashed = leaf.hash_of(row)
        self._seals.check_leaf(self.tree, hashed)
        tiles = self.tree.append(hashed)
        self._seals.check_checkpoint(self.tree)
        self._check_claims()
        return tiles

    def _check_order(self, position: int, recorded_at: datetime) -> None:
        if recorded_at.tzinfo is None:
            raise Tampered("order", position, f"event {position} has an infinite recorded_at")
        if self._recorded_at is not None and recorded_at < self._recorded_at:
            message = f"event {position} was recorded before the one before it"
            raise Tampered("order", position, message)
        self._recorded_at = recorded_at

    def _check_claims(self) -> None:
        claim = self._open_claims.contradiction(self.tree)
        if claim is not None:
            agreed = self._open_claims.agreed
            raise Tampered(
                "against",
                agreed + 1,
                f"the log's first {claim.size} events are not those that {claim.where} has signed; "
                f"up to {agreed} they agree: it was rewritten after that",
            )

    def _check_end(self) -> None:
        if self.sealed > self.end:
            message = (
                f"the log ends at {self.end}, but {self.sealed} events were sealed: it was cut"
            )
            raise Tampered("tail", self.end + 1, message)
        for claim in self._open_claims.beyond():
            message = f"the log ends at {self.end}, but {claim.where} signed {claim.size} events"
            raise Tampered("against", self.end + 1, message)
