"""The tasks of a bulk load: sort a chunk of the log by stream, fold a partition of the streams.

A task reads what tasks before it wrote, writes its own rows, and records in the same transaction
that it is done. Running one twice, or in two processes at once, changes nothing.
"""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from ledger.books.projection_worker import log_handler_failure
from ledger.eventlog.reader import read_at, read_range
from ledger.fold.batch import Batch
from ledger.fold.change import ChangeSet, LoadedStream, StreamKey, TranslatedEvent
from ledger.fold.states import stream_of
from ledger.fold.translate import translate
from ledger.model import SourceTerms
from ledger.rebuild import sorted_files
from ledger.rebuild.plan import (
    FOLD,
    INSERT_DONE,
    SELECT_MOVED,
    SELECT_MOVING,
    SORT,
    CannotBulkLoad,
    Loader,
    Plan,
    write_links,
)
from ledger.registry import Registry

READ_EVENTS: Final = 500
"""Events fetched at a time: bodies are of any size up to the limit."""

PIECE_EVENTS: Final = 15_000
"""Events folded in one go; a partition is one piece unless its streams are very busy."""

LINKED_EVENTS_MAX: Final = 200_000
"""Events of one partition of linked streams that are held at once."""


@dataclass(slots=True)
class PartitionFold:
    """A partition of the log on its way through the fold, piece by piece."""

    terms: SourceTerms
    registry: Registry
    streams: dict[StreamKey, LoadedStream] = field(default_factory=dict)
    links: list[tuple[str, str, str]] = field(default_factory=list)
    parks: list[Any] = field(default_factory=list)
    events: int = 0

    def fold(self, events: Sequence[TranslatedEvent]) -> ChangeSet:
        """Fold the next events of the partition; return what they change."""
        known = self.registry
        batch = Batch(self.terms, known.streams, known.projections, events)
        if self.streams or self.parks:
            batch.known.follow(ChangeSet([*self.streams.values()], {}, {}, self.links, self.parks))
        batch.fold_states()
        change = batch.finish()
        for stream in change.streams:
            self.streams[stream.key] = stream
        self.links += change.links
        self.parks += change.parked
        self.events += len(events)
        return change


@dataclass(frozen=True, slots=True)
class TaskRunner:
    """Runs tasks of one generation's load through one connection."""

    connection: Any
    registry: Registry
    root: Path
    plans: Mapping[str, Plan]
    terms: Mapping[str, SourceTerms]

    async def run(self, source: str, stage: str, number: int) -> int:
        """Run one task; return how many events it handled.

        Raises CannotBulkLoad when a row cannot be stored.
        """
        plan = self.plans[source]
        if stage == SORT:
            events = await self._sort(plan, number)
        else:
            events = await self._fold(plan, stage, number)
        # Collects only what this task left: older objects do not change.
        gc.collect(0)
        return events

    async def _sort(self, plan: Plan, number: int) -> int:
        """Translate a chunk of the log and write it sorted by partition."""
        low, high = plan.bounds(number)
        writer = sorted_files.PartitionWriter(plan.partitions)
        links: set[tuple[int, str, str, str]] = set()
        streams, events = self.registry.streams, 0
        async for event in self._read(plan.source, low, high):
            key = stream_of(event, streams)
            partition = sorted_files.partition_of(key, event.position, plan.partitions)
            writer.add(partition, event)
            events += 1
            if plan.partitions > 1 and key is not None:
                links.update(
                    (partition, link, *key) for link in sorted_files.links_from(event, streams)
                )
        path = sorted_file(self.root, plan, number)
        _make_private(self.root, path.parent.parent)
        path.parent.mkdir(exist_ok=True)
        writer.write(path)
        async with self.connection.transaction():
            if await self._mark(plan, SORT, number, events):
                await write_links(self.connection, plan.source, links)
        return events

    async def _read(self, source: str, low: int, high: int) -> AsyncIterator[TranslatedEvent]:
        terms = self.terms[source]
        for start in range(low, high, READ_EVENTS):
            end = min(start + READ_EVENTS, high)
            for row in await read_range(self.connection, source, start, end):
                yield translate(self.registry.dispatch, terms, row, log_handler_failure)

    async def _fold(self, plan: Plan, stage: str, partition: int) -> int:
        """Fold a partition and write its rows; linked streams have partitions of their own."""
        terms = self.terms[plan.source]
        folding = PartitionFold(terms, self.registry)
        loader = Loader(self.connection, self.registry, plan.source)
        async with self.connection.transaction():
            if not await self._mark(plan, stage, partition, 0):
                return 0
            pieces = self._own(plan, partition) if stage == FOLD else self._linked(plan, partition)
            async for piece in pieces:
                await loader.rows(folding.fold(piece))
            parks = [(park.position, *park.key, park.reason) for park in folding.parks]
            await loader.streams(folding.streams.values(), folding.links, parks)
        return folding.events

    async def _mark(self, plan: Plan, stage: str, number: int, events: int) -> bool:
        """Record that a task is done; False when another process recorded it first."""
        status = await self.connection.execute(INSERT_DONE, plan.source, stage, number, events)
        return bool(status == "INSERT 0 1")

    async def _own(self, plan: Plan, partition: int) -> AsyncIterator[list[TranslatedEvent]]:
        """Yield the events of a partition, without those that are folded with their relations."""
        rows = await self.connection.fetch(SELECT_MOVED, plan.source, partition)
        moved = {(row["kind"], row["id"]): row["target"] for row in rows}
        writer = sorted_files.PartitionWriter(plan.linked or 1)
        piece: list[TranslatedEvent] = []
        for number in range(plan.chunks):
            events = await self._events(plan, sorted_file(self.root, plan, number), partition)
            piece += self._split(events, moved, writer) if moved else events
            if len(piece) >= PIECE_EVENTS:
                yield piece
                piece = []
        if piece:
            yield piece
        if moved:
            writer.write(moved_file(self.root, plan, partition))

    def _split(
        self, events: Iterable[TranslatedEvent], moved: Mapping[StreamKey, int],
        writer: sorted_files.PartitionWriter,
    ) -> list[TranslatedEvent]:  # fmt: skip
        stay = []
        for event in events:
            key = stream_of(event, self.registry.streams)
            if key is not None and key in moved:
                writer.add(moved[key], event)
            else:
                stay.append(event)
        return stay

    async def _linked(self, plan: Plan, partition: int) -> AsyncIterator[list[TranslatedEvent]]:
        """Yield the events of a partition of linked streams, from the files of many partitions."""
        events: list[TranslatedEvent] = []
        for row in await self.connection.fetch(SELECT_MOVING, plan.source):
            events += await self._events(
                plan, moved_file(self.root, plan, row["partition"]), partition
            )
            if len(events) > LINKED_EVENTS_MAX:
                raise CannotBulkLoad(f"more than {LINKED_EVENTS_MAX} events are linked together")
        events.sort(key=attrgetter("position"))
        while events:
            yield events[:PIECE_EVENTS]
            del events[:PIECE_EVENTS]  # only their streams are held on

    async def _events(self, plan: Plan, path: Path, partition: int) -> list[TranslatedEvent]:
        events, reread = sorted_files.read(path, partition)
        if not reread:
            return events
        rows = await read_at(self.connection, plan.source, reread)
        terms, dispatch = self.terms[plan.source], self.registry.dispatch
        events += [translate(dispatch, terms, row, log_handler_failure) for row in rows]
        return sorted(events, key=attrgetter("position"))


def _make_private(root: Path, own: Path) -> None:
    """Make the folder of sorted logs, and a load's own in it, for their owner alone: they quote
    callbacks. Raises PermissionError for one that others made.
    """  # fmt: skip
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = root.lstat()
    if root.is_symlink() or found.st_uid not in (os.geteuid(), root.parent.stat().st_uid):
        raise PermissionError(f"{root} belongs to someone else; take it away")
    own.mkdir(mode=0o700, exist_ok=True)


def folder_of(root: Path, token: str) -> Path:
    """Name the folder of a load's files.

    Its name is a hash: whatever the database says, it is a name below `root`, and only who knows
    the token of a load can name the folder of that load.
    """
    return root / sha256(token.encode()).hexdigest()[:32]


def sorted_file(root: Path, plan: Plan, number: int) -> Path:
    """Name the file of a chunk."""
    return folder_of(root, plan.token) / plan.source / f"chunk-{number:06}"


def moved_file(root: Path, plan: Plan, partition: int) -> Path:
    """Name the file of what a partition gave to the partitions of linked streams."""
    return folder_of(root, plan.token) / plan.source / f"moved-{partition:06}"
