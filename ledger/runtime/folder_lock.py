"""One service per data folder: a lock that ends with the process that holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ledger.errors import DataFolderTaken, SettingsError

if os.name == "posix":
    import fcntl

LOCK_FILE: Final = "service.lock"
PID_BYTES_MAX: Final = 32


@contextmanager
def locked_folder(data_dir: Path) -> Iterator[None]:
    """Lock a data folder for the length of a block; it is created when there is none.

    Raises DataFolderTaken, which names the process that holds the lock, and SettingsError.
    """
    path = data_dir / LOCK_FILE
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise SettingsError(f"LEDGER_DATA_DIR={data_dir} cannot be used: {error}") from error
    try:
        _lock(descriptor, data_dir)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, data_dir: Path) -> None:
    if os.name != "posix":
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, PID_BYTES_MAX, 0).decode("ascii", "replace").strip()
        raise DataFolderTaken(
            f"a service runs on the data folder {data_dir.absolute()} already: process "
            f"{holder or '(unknown)'}; stop that one, or give this one a LEDGER_DATA_DIR of its own"
        ) from error
