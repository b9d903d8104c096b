"""A bulk load from beginning to end: units shared out over processes, indexes, checkpoints.

Every step looks at what is done and does the rest: run again after a SIGKILL, it goes on.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from zlib import crc32

import msgspec
import structlog

from ledger.books import store as books
from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.errors import DatabaseUnavailable
from ledger.eventlog.sources import terms_of
from ledger.fold.change import StreamKey
from ledger.rebuild import plan as bulk
from ledger.rebuild import sorted_files as shuffle
from ledger.rebuild.plan import FOLD, FOLD_LINKED, SORT, Plan
from ledger.rebuild.tasks import folder_of, moved_file, sorted_file
from ledger.rebuild.worker_process import (
    UNIT_SECONDS_MAX,
    ExecutorStart,
    Task,
    TaskResult,
    answer,
    peak_mib,
)
from ledger.registry import Registry

LOGGER = structlog.get_logger("ledger.bulk_load")

PROCESSES: Final = 2
FOLDER: Final = "rebuild"
LINKED_STREAMS: Final = 5_000
"""Streams that share links in one part of them."""

INDEX: Final = "index"
INDEX_MEMORY: Final = "64MB"

Tell = Callable[[str, int, int], None]
"""(stage, done, of how many): events, or tables while indexes are made."""


class _Member(Protocol):
    """Who does units: this process, or one of its own."""

    async def do(self, job: Task) -> TaskResult:
        """Do one unit."""


@dataclass(frozen=True, slots=True)
class _Here:
    """Does units in this process: for logs that are not worth starting another."""

    start: ExecutorStart
    connection: Any

    async def do(self, job: Task) -> TaskResult:
        return await answer(self.start, job, self.connection)


@dataclass(frozen=True, slots=True)
class _There:
    """A process that does units."""

    process: asyncio.subprocess.Process

    async def do(self, job: Task) -> TaskResult:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = b""
        with suppress(ConnectionError):
            self.process.stdin.write(msgspec.json.encode(job) + b"\n")
            line = await self.process.stdout.readline()
        if not line:
            return TaskResult(error="a process of the load has ended")
        return msgspec.json.decode(line, type=TaskResult)


@dataclass(slots=True)
class BulkRebuild:
    """Loads what is planned for one generation; `tell` hears how far it is."""

    dsn: str
    settings: Settings
    registry: Registry
    generation: int
    processes: int = PROCESSES
    tell: Tell = lambda _stage, _done, _total: None
    events: int = 0
    peak_mib: float = 0.0
    """The greatest sum of what the processes held at their peaks."""
    _peaks: dict[int, float] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Where the sorted log is kept on the way."""
        return root_of(self.settings)

    async def run(self) -> None:
        """Load, or go on loading; return when the generation is books at the planned positions.

        Raises CannotBulkLoad when a row cannot be stored, CannotGoOn when files of the part that
        is done are lost, DatabaseUnavailable when interrupted.
        """
        async with database.connected(self.dsn, seconds_max=UNIT_SECONDS_MAX) as connection:
            await books.use_generation(connection, self.generation)
            plans = await bulk.plans(connection)
            if not plans:
                return
            self.events = sum(plan.target for plan in plans)
            await self._forget_lost(connection, plans)
            async with self._crew(connection, plans) as crew:
                await self._stage(connection, crew, plans, SORT)
                for plan in plans:
                    if plan.linked is None:
                        await _relate(connection, plan)
                plans = await bulk.plans(connection)
                await self._stage(connection, crew, plans, FOLD)
                await self._stage(connection, crew, plans, FOLD_LINKED)
            self.peak_mib = round(sum(self._peaks.values()) + peak_mib(), 1)
            await self._index(connection)
            await bulk.finish(connection, self.registry)
            forget_files(self.settings, [plans[0].token])

    async def _forget_lost(self, connection: Any, plans: Sequence[Plan]) -> None:
        """Let chunks be sorted again whose files are not there any more."""
        known = {plan.source: plan for plan in plans}
        for plan in plans:
            await self._check_moved(connection, plan)
        for source, stage, unit in await bulk.done(connection):
            plan = known[source]
            lost = stage == SORT and not shuffle.whole(
                sorted_file(self.root, plan, unit), plan.parts
            )
            if lost:
                await connection.execute(bulk.DELETE_DONE, source, stage, unit)

    async def _check_moved(self, connection: Any, plan: Plan) -> None:
        """Raise CannotGoOn when a part is folded and what it gave to others is lost."""
        done = await bulk.done(connection)
        for row in await connection.fetch(bulk.SELECT_MOVING, plan.source):
            path = moved_file(self.root, plan, row["part"])
            folded = (plan.source, FOLD, row["part"]) in done
            if folded and not shuffle.whole(path, plan.linked or 1):
                raise bulk.CannotGoOn

    @asynccontextmanager
    async def _crew(
        self, connection: Any, plans: Sequence[Plan]
    ) -> AsyncIterator[Sequence[_Member]]:
        terms = await terms_of(connection, self.settings)
        start = ExecutorStart(self.dsn, self.generation, str(self.root), terms)
        if all(plan.parts == 1 for plan in plans) or self.processes < 1:
            async with database.connected(
                self.dsn, is_background=True, seconds_max=UNIT_SECONDS_MAX, synchronous_commit="off"
            ) as own:
                yield [_Here(start, own)]
            return
        started = [await _process(start) for _ in range(self.processes)]
        try:
            yield [_There(process) for process in started]
        finally:
            for process in started:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _stage(
        self, connection: Any, crew: Sequence[_Member], plans: Sequence[Plan], stage: str
    ) -> None:
        """Do the units of a stage that are not done, by whoever is free."""
        known = await bulk.done(connection)
        waiting = [
            (job, size)
            for job, size in _jobs(plans, stage)
            if (job.source, job.stage, job.unit) not in known
        ]
        total = sum(size for _, size in _jobs(plans, stage))
        done = total - sum(size for _, size in waiting)
        self.tell(stage, done, total)

        async def work(n: int, member: _Member) -> None:
            nonlocal done
            while waiting:
                job, size = waiting.pop(0)
                said = await member.do(job)
                if said.error:
                    # Its words may quote a callback.
                    kind = said.error.partition(":")[0]
                    LOGGER.warning("bulk_load_interrupted", phase=stage, error=kind)
                    wrong = bulk.CannotBulkLoad if said.refused else DatabaseUnavailable
                    raise wrong(f"the load was interrupted: {said.error}; run it again to go on")
                self._peaks[n] = said.peak_mib if isinstance(member, _There) else 0.0
                done += size
                self.tell(stage, done, total)

        try:
            async with asyncio.TaskGroup() as tasks:
                for n, member in enumerate(crew):
                    tasks.create_task(work(n, member))
        except* (bulk.CannotBulkLoad, DatabaseUnavailable) as group:
            raise group.exceptions[0] from None

    async def _index(self, connection: Any) -> None:
        """Make the indexes, two tables at a time."""
        waiting = await bulk.unindexed(connection, self.registry)
        total = len(bulk.loaded_tables(self.registry))

        async def work() -> None:
            async with database.connected(
                self.dsn, is_background=True, seconds_max=UNIT_SECONDS_MAX,
                maintenance_work_mem=INDEX_MEMORY,
            ) as own:  # fmt: skip
                await books.use_generation(own, self.generation)
                while waiting:
                    self.tell(INDEX, total - len(waiting), total)
                    await bulk.index(own, self.registry, waiting.pop(0))

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(max(self.processes, 1), len(waiting))):
                    tasks.create_task(work())
        except* bulk.CannotBulkLoad as group:
            raise group.exceptions[0] from None
        self.tell(INDEX, total, total)


async def make(
    dsn: str, settings: Settings, registry: Registry, version: str, targets: Mapping[str, int],
    *, processes: int = PROCESSES, tell: Tell = lambda _stage, _done, _total: None,
) -> tuple[int, BulkRebuild]:  # fmt: skip
    """Make a generation and load it up to `targets`, or go on with the one that was begun.

    It is left empty, for the ordinary fold, when the database refuses a row of it.
    """
    async with database.connected(dsn, seconds_max=300) as connection:
        generation = await bulk.begin(connection, registry, version, targets)
        load = BulkRebuild(dsn, settings, registry, generation, processes, tell)
        try:
            try:
                await load.run()
            except bulk.CannotGoOn:
                LOGGER.warning("bulk_load_begins_anew", generation=generation)
                await discard(connection, settings, generation)
                generation = await bulk.begin(connection, registry, version, targets)
                load = BulkRebuild(dsn, settings, registry, generation, processes, tell)
                await load.run()
        except bulk.CannotBulkLoad:
            LOGGER.warning("bulk_load_given_up", generation=generation)
            await discard(connection, settings, generation)
            generation = await books.create_generation(connection, registry, version, "building")
        return generation, load


async def discard(connection: Any, settings: Settings, generation: int) -> None:
    """Drop a generation, and the files of a load that did not end."""
    forget_files(settings, await bulk.drop(connection, generation))


def forget_files(settings: Settings, tokens: Iterable[str]) -> None:
    """Delete the files of loads, each in a folder of its own that is named after its token."""
    root = root_of(settings)
    if not root.is_symlink():
        for token in tokens:
            shutil.rmtree(folder_of(root, token), ignore_errors=True)


def root_of(settings: Settings) -> Path:
    """Return where sorted logs are kept on the way."""
    if settings.data_dir.is_dir():
        return settings.data_dir / FOLDER
    return Path(tempfile.gettempdir()) / "callback-ledger-rebuild"


def _jobs(plans: Iterable[Plan], stage: str) -> Iterator[tuple[Task, int]]:
    """Yield the units of a stage, each with the events that it is about, roughly."""
    for plan in plans:
        if stage == SORT:
            for unit in range(plan.chunks):
                low, high = plan.bounds(unit)
                yield Task(plan.source, stage, unit), high - low
            continue
        parts = plan.parts if stage == FOLD else plan.linked or 0
        for unit in range(parts):
            share = plan.target // plan.parts if stage == FOLD else LINKED_STREAMS
            yield Task(plan.source, stage, unit), share


async def _process(start: ExecutorStart) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ledger.rebuild.worker_process",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(start) + b"\n")
    return process


async def _relate(connection: Any, plan: Plan) -> None:
    """Send streams that share links, directly or through others, to one part together."""
    groups = Groups()
    parts: dict[StreamKey, int] = {}
    latest: tuple[str, StreamKey] | None = None
    async for link, kind, resource, part in bulk.shared(connection, plan.source):
        key = (kind, resource)
        parts[key] = part
        if latest is not None and latest[0] == link:
            groups.join(latest[1], key)
        latest = (link, key)
    targets = -(-len(parts) // LINKED_STREAMS)
    moved = []
    for key, part in parts.items():
        kind, resource = groups.root(key)
        moved.append((part, *key, crc32(f"{kind}/{resource}".encode()) % targets))
    async with connection.transaction():
        if await connection.execute(bulk.UPDATE_LINKED, plan.source, targets) == "UPDATE 1":
            await bulk.write_moved(connection, plan.source, moved)


@dataclass(frozen=True, slots=True)
class Groups:
    """What belongs together when each pair that was joined does."""

    parents: dict[StreamKey, StreamKey] = field(default_factory=dict)

    def root(self, key: StreamKey) -> StreamKey:
        """Return the one that stands for the group of `key`."""
        while (parent := self.parents.get(key, key)) != key:
            above = self.parents.get(parent, parent)
            self.parents[key] = above
            key = above
        return key

    def join(self, one: StreamKey, other: StreamKey) -> None:
        """Put two, and all that belongs to them, into one group."""
        first, second = sorted((self.root(one), self.root(other)))
        self.parents[second] = first
