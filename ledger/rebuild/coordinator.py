"""A bulk rebuild from beginning to end: tasks on a pool of executors, indexes, checkpoints.

Every step reads what is done and does the rest: run again after a SIGKILL, it goes on.
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

from ledger.books.generations import create_generation, use_generation
from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.errors import DatabaseUnavailable
from ledger.eventlog.sources import terms_of
from ledger.fold.change import StreamKey
from ledger.rebuild import sorted_files
from ledger.rebuild.plan import (
    DELETE_DONE,
    FOLD,
    FOLD_LINKED,
    SELECT_MOVING,
    SORT,
    UPDATE_LINKED,
    CannotBulkLoad,
    CannotResume,
    Plan,
    begin_load,
    build_indexes,
    drop_generation,
    finish_load,
    loaded_tables,
    read_done,
    read_plans,
    read_shared_links,
    tables_without_indexes,
    write_moved,
)
from ledger.rebuild.tasks import folder_of, moved_file, sorted_file
from ledger.rebuild.worker_process import (
    TASK_SECONDS_MAX,
    ExecutorStart,
    Task,
    TaskResult,
    peak_mib,
    run_task,
)
from ledger.registry import Registry

LOGGER = structlog.get_logger(__name__)

PROCESSES: Final = 2
FOLDER: Final = "rebuild"
LINKED_STREAMS: Final = 5_000
"""Streams that share links in one partition of them."""

INDEX: Final = "index"
INDEX_MEMORY: Final = "64MB"

OnProgress = Callable[[str, int, int], None]
"""(stage, done, of how many): events, or tables while indexes are made."""


class _Executor(Protocol):
    """Runs tasks: in this process, or in one of its own."""

    async def run(self, task: Task) -> TaskResult:
        """Run one task."""


@dataclass(frozen=True, slots=True)
class _LocalExecutor:
    """Runs tasks in this process: for logs that are not worth starting another."""

    start: ExecutorStart
    connection: Any

    async def run(self, task: Task) -> TaskResult:
        return await run_task(self.start, task, self.connection)


@dataclass(frozen=True, slots=True)
class _ProcessExecutor:
    """Runs tasks in a process of its own."""

    process: asyncio.subprocess.Process

    async def run(self, task: Task) -> TaskResult:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = b""
        with suppress(ConnectionError):
            self.process.stdin.write(msgspec.json.encode(task) + b"\n")
            line = await self.process.stdout.readline()
        if not line:
            return TaskResult(error="a process of the load has ended")
        return msgspec.json.decode(line, type=TaskResult)


@dataclass(slots=True)
class BulkRebuild:
    """Loads what is planned for one generation, and reports how far it is."""

    dsn: str
    settings: Settings
    registry: Registry
    generation: int
    processes: int = PROCESSES
    on_progress: OnProgress = lambda _stage, _done, _total: None
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

        Raises CannotBulkLoad when a row cannot be stored, CannotResume when files of what is done
        are lost, DatabaseUnavailable when interrupted.
        """
        async with database.connected(self.dsn, seconds_max=TASK_SECONDS_MAX) as connection:
            await use_generation(connection, self.generation)
            plans = await read_plans(connection)
            if not plans:
                return
            self.events = sum(plan.target for plan in plans)
            await self._forget_lost(connection, plans)
            async with self._executors(connection, plans) as executors:
                await self._stage(connection, executors, plans, SORT)
                for plan in plans:
                    if plan.linked is None:
                        await _relate(connection, plan)
                plans = await read_plans(connection)
                await self._stage(connection, executors, plans, FOLD)
                await self._stage(connection, executors, plans, FOLD_LINKED)
            self.peak_mib = round(sum(self._peaks.values()) + peak_mib(), 1)
            await self._index(connection)
            await finish_load(connection, self.registry)
            forget_files(self.settings, [plans[0].token])

    async def _forget_lost(self, connection: Any, plans: Sequence[Plan]) -> None:
        """Mark chunks whose files are lost as not sorted."""
        known = {plan.source: plan for plan in plans}
        for plan in plans:
            await self._check_moved(connection, plan)
        for source, stage, number in await read_done(connection):
            plan = known[source]
            lost = stage == SORT and not sorted_files.is_whole(
                sorted_file(self.root, plan, number), plan.partitions
            )
            if lost:
                await connection.execute(DELETE_DONE, source, stage, number)

    async def _check_moved(self, connection: Any, plan: Plan) -> None:
        """Raise CannotResume when a partition is folded, but events that it moved are lost."""
        done = await read_done(connection)
        for row in await connection.fetch(SELECT_MOVING, plan.source):
            path = moved_file(self.root, plan, row["partition"])
            folded = (plan.source, FOLD, row["partition"]) in done
            if folded and not sorted_files.is_whole(path, plan.linked or 1):
                raise CannotResume

    @asynccontextmanager
    async def _executors(
        self, connection: Any, plans: Sequence[Plan]
    ) -> AsyncIterator[Sequence[_Executor]]:
        terms = await terms_of(connection, self.settings)
        start = ExecutorStart(self.dsn, self.generation, str(self.root), terms)
        if all(plan.partitions == 1 for plan in plans) or self.processes < 1:
            async with database.connected(
                self.dsn, is_background=True, seconds_max=TASK_SECONDS_MAX, synchronous_commit="off"
            ) as own:
                yield [_LocalExecutor(start, own)]
            return
        started = [await _process(start) for _ in range(self.processes)]
        try:
            yield [_ProcessExecutor(process) for process in started]
        finally:
            for process in started:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _stage(
        self, connection: Any, executors: Sequence[_Executor], plans: Sequence[Plan], stage: str
    ) -> None:
        """Run the tasks of a stage that are not done, each on the next free executor."""
        done_before = await read_done(connection)
        waiting = [
            (task, size)
            for task, size in _tasks(plans, stage)
            if (task.source, task.stage, task.number) not in done_before
        ]
        total = sum(size for _, size in _tasks(plans, stage))
        done = total - sum(size for _, size in waiting)
        self.on_progress(stage, done, total)

        async def work(n: int, executor: _Executor) -> None:
            nonlocal done
            while waiting:
                task, size = waiting.pop(0)
                result = await executor.run(task)
                if result.error:
                    # The rest of the message may quote a callback.
                    kind = result.error.partition(":")[0]
                    LOGGER.warning("bulk_rebuild_interrupted", phase=stage, error=kind)
                    error_type = CannotBulkLoad if result.is_refused else DatabaseUnavailable
                    raise error_type(
                        f"the load was interrupted: {result.error}; run it again to go on"
                    )
                self._peaks[n] = result.peak_mib if isinstance(executor, _ProcessExecutor) else 0.0
                done += size
                self.on_progress(stage, done, total)

        try:
            async with asyncio.TaskGroup() as tasks:
                for n, executor in enumerate(executors):
                    tasks.create_task(work(n, executor))
        except* (CannotBulkLoad, DatabaseUnavailable) as group:
            raise group.exceptions[0] from None

    async def _index(self, connection: Any) -> None:
        """Make the indexes, two tables at a time."""
        waiting = await tables_without_indexes(connection, self.registry)
        total = len(loaded_tables(self.registry))

        async def work() -> None:
            async with database.connected(
                self.dsn, is_background=True, seconds_max=TASK_SECONDS_MAX,
                maintenance_work_mem=INDEX_MEMORY,
            ) as own:  # fmt: skip
                await use_generation(own, self.generation)
                while waiting:
                    self.on_progress(INDEX, total - len(waiting), total)
                    await build_indexes(own, self.registry, waiting.pop(0))

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(max(self.processes, 1), len(waiting))):
                    tasks.create_task(work())
        except* CannotBulkLoad as group:
            raise group.exceptions[0] from None
        self.on_progress(INDEX, total, total)


async def build_generation(
    dsn: str, settings: Settings, registry: Registry, version: str, targets: Mapping[str, int],
    *, processes: int = PROCESSES, on_progress: OnProgress = lambda _stage, _done, _total: None,
) -> tuple[int, BulkRebuild]:  # fmt: skip
    """Make a generation and load it up to `targets`, or go on with the one that was begun.

    It is left empty, for the ordinary fold, when the database refuses a row of it.
    """
    async with database.connected(dsn, seconds_max=300) as connection:
        generation = await begin_load(connection, registry, version, targets)
        load = BulkRebuild(dsn, settings, registry, generation, processes, on_progress)
        try:
            try:
                await load.run()
            except CannotResume:
                LOGGER.warning("bulk_rebuild_restarted", generation=generation)
                await discard_generation(connection, settings, generation)
                generation = await begin_load(connection, registry, version, targets)
                load = BulkRebuild(dsn, settings, registry, generation, processes, on_progress)
                await load.run()
        except CannotBulkLoad:
            LOGGER.warning("bulk_rebuild_abandoned", generation=generation)
            await discard_generation(connection, settings, generation)
            generation = await create_generation(connection, registry, version, "building")
        return generation, load


async def discard_generation(connection: Any, settings: Settings, generation: int) -> None:
    """Drop a generation, and the files of a load that did not end."""
    forget_files(settings, await drop_generation(connection, generation))


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


def _tasks(plans: Iterable[Plan], stage: str) -> Iterator[tuple[Task, int]]:
    """Yield the tasks of a stage, each with about how many events it handles."""
    for plan in plans:
        if stage == SORT:
            for number in range(plan.chunks):
                low, high = plan.bounds(number)
                yield Task(plan.source, stage, number), high - low
            continue
        partitions = plan.partitions if stage == FOLD else plan.linked or 0
        for number in range(partitions):
            share = plan.target // plan.partitions if stage == FOLD else LINKED_STREAMS
            yield Task(plan.source, stage, number), share


async def _process(start: ExecutorStart) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ledger.rebuild.worker_process",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(start) + b"\n")
    return process


async def _relate(connection: Any, plan: Plan) -> None:
    """Assign streams that share links, directly or through others, to one partition."""
    groups = Groups()
    partitions: dict[StreamKey, int] = {}
    latest: tuple[str, StreamKey] | None = None
    async for link, kind, resource, partition in read_shared_links(connection, plan.source):
        key = (kind, resource)
        partitions[key] = partition
        if latest is not None and latest[0] == link:
            groups.join(latest[1], key)
        latest = (link, key)
    targets = -(-len(partitions) // LINKED_STREAMS)
    moved = []
    for key, partition in partitions.items():
        kind, resource = groups.root(key)
        moved.append((partition, *key, crc32(f"{kind}/{resource}".encode()) % targets))
    async with connection.transaction():
        if await connection.execute(UPDATE_LINKED, plan.source, targets) == "UPDATE 1":
            await write_moved(connection, plan.source, moved)


@dataclass(frozen=True, slots=True)
class Groups:
    """Disjoint sets of streams (union-find): joined streams are in one group."""

    parents: dict[StreamKey, StreamKey] = field(default_factory=dict)

    def root(self, key: StreamKey) -> StreamKey:
        """Return the representative of the group of `key`."""
        while (parent := self.parents.get(key, key)) != key:
            above = self.parents.get(parent, parent)
            self.parents[key] = above
            key = above
        return key

    def join(self, one: StreamKey, other: StreamKey) -> None:
        """Put two, and all that belongs to them, into one group."""
        first, second = sorted((self.root(one), self.root(other)))
        self.parents[second] = first
