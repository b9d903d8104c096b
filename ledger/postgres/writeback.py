"""Lets the disk begin early with what the embedded server has written to its files.

The kernel keeps written pages for half a minute and then writes all of them at once; a commit that
comes meanwhile waits for its turn (measured: 250 ms behind 120 MB). So those files are begun with
several times a second, while there is little. Nothing hangs on it: what is durable, and when, is
between PostgreSQL and its fsync.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

LOGGER = structlog.get_logger("ledger.postgres")

PERIOD_SECONDS: Final = 0.2
SCAN_SECONDS: Final = 5.0
"""How often all files are looked at; in between only those that are written to."""

QUIET_SECONDS: Final = 10.0
"""A file that was not written to for so long is not looked at until the next scan."""

_TEMPORARY: Final = "pgsql_tmp"
"""Where queries spill: mostly gone before the kernel would write it."""

_WRITE: Final = 2
"""SYNC_FILE_RANGE_WRITE: begin, and neither wait nor take the report of a failed write, which is
for PostgreSQL to have."""


def beginner() -> Callable[[int], object] | None:
    """Return what has the kernel begin to write a file; None where it has no such call."""
    try:
        call = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError, TypeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return lambda fd: call(fd, 0, 0, _WRITE)


@dataclass(slots=True)
class Writeback:
    """The files of one server's databases, and when each was last written to."""

    pgdata: Path
    begin: Callable[[int], object]
    _known: dict[str, int] = field(default_factory=dict)
    _busy: dict[str, float] = field(default_factory=dict)
    """Files that are written to, and until when they are looked at."""
    _scan_due: float = 0.0

    def once(self, now: float) -> list[str]:
        """Begin with every file that was written to since the last time; return their paths.

        A file seen for the first time may be an old one; it is only remembered.
        """
        paths = list(self._busy)
        if now >= self._scan_due:
            self._scan_due = now + SCAN_SECONDS
            paths = list(self._files())
            self._known = {path: self._known[path] for path in paths if path in self._known}
        found = []
        for path in paths:
            try:
                written = os.stat(path).st_mtime_ns
                before = self._known.get(path)
                self._known[path] = written
                if before not in (None, written):
                    self._busy[path] = now + QUIET_SECONDS
                    self._begin(path)
                    found.append(path)
                elif now > self._busy.get(path, now):
                    del self._busy[path]
            except OSError:
                self._busy.pop(path, None)  # dropped by the server, or not for us to read
        return found

    @property
    def is_idle(self) -> bool:
        """Whether no file is written to."""
        return not self._busy

    def _files(self) -> Iterator[str]:
        base = self.pgdata / "base"
        for database in _names(base):
            if database != _TEMPORARY:
                yield from (f"{base}/{database}/{name}" for name in _names(base / database))

    def _begin(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.begin(fd)
        finally:
            os.close(fd)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []  # a database that is being dropped, or a server being made


async def write_back(pgdata: Path) -> None:
    """Have the kernel write the files of a server on `pgdata` early. Runs until cancelled.

    It never raises: the service does without it.
    """
    begin = beginner()
    try:
        if begin is not None:
            files = Writeback(pgdata, begin)
            while True:
                await asyncio.to_thread(files.once, time.monotonic())
                await asyncio.sleep(SCAN_SECONDS if files.is_idle else PERIOD_SECONDS)
    except Exception as error:  # noqa: BLE001 - no thread, no memory: not a reason to stop
        LOGGER.warning("write_back_given_up", error=type(error).__name__)
    await asyncio.Event().wait()
