"""One process of a bulk load: `python -m ledger.rebuild.worker_process`, a line of JSON per number.

The first line says which generation; every other is a task and is answered with a line. It
ends when its input does, at once: the coordinator is gone, and runs this task again.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from ledger import registry
from ledger.books.generations import use_generation
from ledger.database import connection as database
from ledger.database.errors import CONNECTION_LOST, describe
from ledger.errors import LedgerError
from ledger.model import SourceTerms
from ledger.rebuild.plan import CannotBulkLoad, read_plans
from ledger.rebuild.tasks import TaskRunner
from ledger.runtime import logs
from ledger.runtime.background import BACKGROUND_NICENESS
from ledger.runtime.decimals import configure_decimal

TASK_SECONDS_MAX: Final = 6 * 3600.0
LOST_SECONDS: Final = 3.0
"""How long a number may go on without its connection: a COPY can wait for a dead one for ever."""


class ExecutorStart(msgspec.Struct, frozen=True):
    """Which generation is loaded, where its files are, and by which terms it is folded."""

    dsn: str
    generation: int
    root: str
    terms: list[SourceTerms]


class Task(msgspec.Struct, frozen=True):
    """One task: a number within a stage of a source."""

    source: str
    stage: str
    number: int


class TaskResult(msgspec.Struct, frozen=True):
    """The result of a task."""

    events: int = 0
    error: str = ""
    is_refused: bool = False
    """Whether a row cannot be stored, so that the ordinary fold must do it all."""
    peak_mib: float = 0.0


async def open_tasks(connection: Any, start: ExecutorStart) -> TaskRunner:
    """Make what does the tasks of a generation through a connection of its own."""
    await use_generation(connection, start.generation)
    plans = {plan.source: plan for plan in await read_plans(connection)}
    terms = {each.source: each for each in start.terms}
    return TaskRunner(connection, registry.load(), Path(start.root), plans, terms)


async def run_task(start: ExecutorStart, task: Task, connection: Any) -> TaskResult:
    """Run one task; return its result. The plan is read each time: it grows on the way."""
    try:
        runner = await open_tasks(connection, start)
        events = await _while_connected(
            connection, runner.run(task.source, task.stage, task.number)
        )
    except CannotBulkLoad as error:
        return TaskResult(error=str(error), is_refused=True)
    except (LedgerError, asyncpg.PostgresError, OSError, *CONNECTION_LOST) as error:
        if isinstance(error, asyncpg.PostgresError):
            return TaskResult(error=describe(error))  # its words may quote a callback
        return TaskResult(error=f"{type(error).__name__}: {error}")
    return TaskResult(events, peak_mib=peak_mib())


async def _while_connected(connection: Any, work: Coroutine[Any, Any, int]) -> int:
    """Do `work`; raise ConnectionError when it does not end after its connection has."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)

    def lost(_connection: Any) -> None:
        loop.call_later(LOST_SECONDS, task.cancel)

    connection.add_termination_listener(lost)
    try:
        return await task
    except asyncio.CancelledError:
        if connection.is_closed():
            raise ConnectionError("the database went away") from None
        raise
    finally:
        if not connection.is_closed():
            connection.remove_termination_listener(lost)


def peak_mib() -> float:
    """Return the most memory that this process has held, in MiB."""
    import resource

    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kibibytes / (1024 if sys.platform != "darwin" else 1024 * 1024), 1)


def _read(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[bytes]) -> None:
    """Hand on the lines of the input; end the process when it does."""
    for line in sys.stdin.buffer:
        loop.call_soon_threadsafe(lines.put_nowait, line)
    os._exit(0)


async def serve() -> None:
    """Answer tasks until the input ends."""
    start = msgspec.json.decode(sys.stdin.buffer.readline(), type=ExecutorStart)
    registry.load()
    gc.collect()
    gc.freeze()
    gc.disable()
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    reading = (asyncio.get_running_loop(), lines)
    threading.Thread(target=_read, args=reading, name="reader", daemon=True).start()
    async with database.connected(
        start.dsn, is_background=True, seconds_max=TASK_SECONDS_MAX, synchronous_commit="off",
    ) as connection:  # fmt: skip
        while True:
            task = msgspec.json.decode(await lines.get(), type=Task)
            result = await run_task(start, task, connection)
            sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
            sys.stdout.buffer.flush()


def main() -> None:
    """Run one process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(None)
    configure_decimal()
    os.nice(BACKGROUND_NICENESS)
    with suppress(BrokenPipeError):
        # Whoever gave the tasks is gone; what is done is noted in the database.
        asyncio.run(serve())


if __name__ == "__main__":
    main()
