"""Import a statement's file in a process of its own, with limits on memory and time.

A file comes from outside: a parser that it brings down takes no other part of the service with it.
`import_file` starts `python -m ledger.statements.import_process`, writes the task and the file to
it, and reads the result; it reports a process that ended without one as StatementRefused.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
from datetime import datetime
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import asyncpg
import msgspec
import structlog

from ledger import errors, registry
from ledger.config.source import Source
from ledger.config.statement_profile import StatementProfile
from ledger.database.errors import CONNECTION_LOST
from ledger.errors import DatabaseUnavailable, LedgerError, StatementRefused
from ledger.runtime import logs
from ledger.runtime.background import BACKGROUND_NICENESS
from ledger.runtime.decimals import configure_decimal
from ledger.statements.importer import (
    ALLOWED,
    IMPORT_SECONDS_MAX,
    TURN_SECONDS_MAX,
    ImportResult,
    Permission,
    add_statement,
    exclusive_import,
)
from ledger.statements.model import Reading
from ledger.statements.reader import read_statement

LOGGER = structlog.get_logger("ledger.statements.import_process")

UNKNOWN: Final = "the database did not answer, so the import may have failed; import the file again"
ONE_ARENA: Final = {"MALLOC_ARENA_MAX": "1"}
"""With several arenas, glibc searches them for minutes before it reports exhausted memory."""
MESSAGE_CHARACTERS_MAX: Final = 2_000
END_SECONDS_MAX: Final = 30.0
"""How long the process may take to start and to end, besides what it may take for its work."""


class ImportLimits(NamedTuple):
    """The limits of reading one file; `IMPORT_SECONDS_MAX` limits appending it."""

    memory_bytes_max: int = 2 * 1024**3
    """Address space. A million lines of MT940 need 1.4 GiB."""
    cpu_seconds_max: int = 120
    """A million entries of camt.053, the slowest format, take 60 s."""
    seconds_max: int = 600
    """By the clock: for what waits instead of working; a busy machine takes its time."""


DEFAULT: Final = ImportLimits()


class ImportOptions(msgspec.Struct, frozen=True):
    """How a file is to be read, as `Reading` has it, and what may happen then."""

    format: str | None = None
    currency: str | None = None
    account: str | None = None
    profile: StatementProfile = StatementProfile()
    window: tuple[datetime, datetime] | None = None
    json_format: str | None = None
    """The format that the provider declares for its JSON; `import_file` fills it in."""
    profiles: dict[str, StatementProfile] = {}
    """Those of the source; `import_file` fills them in."""
    time_zone: str | None = None
    """That of the source; `import_file` fills it in."""


class Task(msgspec.Struct, frozen=True):
    """The task of the process: the first line that it reads, before the file."""

    dsn: str
    source: str
    provider: str
    secrets: tuple[str, ...]
    """Those of the source; the first marks its events."""
    options: ImportOptions
    now: datetime
    permission: Permission
    accounts: dict[str, str]
    """Account → wallet, as the source declares it."""
    limits: ImportLimits


class Done(msgspec.Struct, frozen=True):
    """The answer of the process: the result, or the name and message of a LedgerError."""

    imported: ImportResult | None = None
    error: str = ""
    message: str = ""


def import_file(
    dsn: str,
    source: Source,
    body: bytes,
    options: ImportOptions,
    now: datetime,
    *,
    permission: Permission = ALLOWED,
    limits: ImportLimits = DEFAULT,
) -> ImportResult:
    """Read a statement's file and append it, in a process of its own; blocks until it has ended.

    Raises StatementRefused for a file that is malformed or exceeds the limits, and as
    `add_statement` and `exclusive_import`. Importing again is always safe.
    """
    declared = registry.load().providers[source.provider].statement_format
    profiles = dict(source.statements)
    zone = source.reconcile.zone
    options = msgspec.structs.replace(
        options,
        json_format=declared,
        profiles=profiles,
        time_zone=zone.key if isinstance(zone, ZoneInfo) else None,
    )
    task = Task(
        dsn, source.name, source.provider, source.secrets, options, now, permission,
        dict(source.accounts), limits,
    )  # fmt: skip
    # The pipe closes when this process ends in any way; the other one then ends too.
    reading, writing = os.pipe()
    try:
        with subprocess.Popen(  # noqa: S603 - this program itself
            [sys.executable, "-m", "ledger.statements.import_process", str(reading)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(reading,),
            env=os.environ | ONE_ARENA,
        ) as process:
            os.close(reading)
            try:
                answer, logged = process.communicate(
                    msgspec.json.encode(task) + b"\n" + body,
                    limits.seconds_max + TURN_SECONDS_MAX + IMPORT_SECONDS_MAX + END_SECONDS_MAX,
                )
            except BaseException:
                process.kill()
                raise
    except subprocess.TimeoutExpired as error:
        raise DatabaseUnavailable("the import took too long; import the file again") from error
    finally:
        os.close(writing)
    return _result(source.name, process.returncode, answer, logged, limits)


def _result(
    source: str, code: int, answer: bytes, logged: bytes, limits: ImportLimits
) -> ImportResult:
    """Return the result, or raise the error that the process answered or that its end means.

    What the process logged goes to our log, but not what a library wrote when it brought it down.
    """
    try:
        done = msgspec.json.decode(answer, type=Done)
    except msgspec.DecodeError as error:
        LOGGER.warning("import_process_ended", source=source, code=code)
        raise StatementRefused(_why_ended(code, limits)) from error
    sys.stderr.write(logged.decode("utf-8", "replace"))
    if done.imported is not None:
        return done.imported
    kind = getattr(errors, done.error, LedgerError)
    raise kind(done.message)


def _why_ended(code: int, limits: ImportLimits) -> str:
    """Describe an end without an answer."""
    match -code:
        case signal.SIGXCPU:
            what = f"takes more than {limits.cpu_seconds_max} s of processor time"
        case signal.SIGALRM:
            what = f"takes more than {limits.seconds_max} s"
        case signal.SIGABRT | signal.SIGKILL:  # how libraries and the system end what is too large
            what = f"takes more than {limits.memory_bytes_max >> 20} MiB of memory"
        case _:
            what = f"ended the process that read it ({_name_of_end(code)})"
    return f"reading the file {what}; split it by time, or export the statement again"


def _name_of_end(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"status {code}"


def main() -> None:
    """Read a task from standard input, do it and answer on standard output."""
    threading.Thread(target=_end_with_parent, args=(int(sys.argv[1]),), daemon=True).start()
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    logs.configure(os.environ.get("LEDGER_LOG_FORMAT"))
    configure_decimal()
    os.nice(BACKGROUND_NICENESS)
    done = asyncio.run(_done(task, sys.stdin.buffer.read()))
    sys.stdout.buffer.write(msgspec.json.encode(done))


def _end_with_parent(pipe: int) -> None:
    os.read(pipe, 1)
    os._exit(1)


async def _done(task: Task, body: bytes) -> Done:
    try:
        async with exclusive_import(task.dsn, task.source) as connection:
            statement = _limited(task, body)
            return Done(
                await add_statement(
                    connection,
                    task.source,
                    statement,
                    task.now,
                    task.permission,
                    Source(task.source, task.provider, task.secrets, accounts=task.accounts),
                )
            )
    except LedgerError as error:
        return Done(None, type(error).__name__, str(error)[:MESSAGE_CHARACTERS_MAX])
    except MemoryError:
        limit = f"{task.limits.memory_bytes_max >> 20} MiB of memory"
        reason = f"reading the file takes more than {limit}; split it by time"
        return Done(None, StatementRefused.__name__, reason)
    except (asyncpg.PostgresError, *CONNECTION_LOST) as error:
        LOGGER.warning("import_interrupted", source=task.source, error=type(error).__name__)
        return Done(None, DatabaseUnavailable.__name__, UNKNOWN)
    except Exception as error:
        LOGGER.exception("import_failed", source=task.source)
        return Done(None, LedgerError.__name__, f"the import failed ({type(error).__name__})")


def _limited(task: Task, body: bytes) -> Any:
    """Read the file within its limits; the system ends this process beyond those of time."""
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    limits = {
        resource.RLIMIT_AS: task.limits.memory_bytes_max,
        resource.RLIMIT_CPU: used + task.limits.cpu_seconds_max,
        resource.RLIMIT_CORE: 0,
    }
    before = {each: _lowered(each, value) for each, value in limits.items()}
    signal.alarm(task.limits.seconds_max)
    try:
        given = task.options
        how = Reading(
            given.format, given.currency, given.account, given.window, given.profile,
            given.profiles, given.time_zone, task.accounts,
        )  # fmt: skip
        return read_statement(body, how, json_format=given.json_format)
    finally:
        signal.alarm(0)
        for each, value in before.items():
            resource.setrlimit(each, value)


def _lowered(limit: int, value: int) -> tuple[int, int]:
    """Lower a soft limit unless it is lower already; return the limits as they were."""
    before = resource.getrlimit(limit)
    soft = value if before[0] == resource.RLIM_INFINITY else min(value, before[0])
    resource.setrlimit(limit, (soft, before[1]))
    return before


if __name__ == "__main__":
    main()
