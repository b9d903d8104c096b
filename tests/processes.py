"""Which processes belong to a service's folder, whoever started them: read from /proc."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def of_folder(folder: Path) -> dict[int, str]:
    """Return the live processes whose environment names a folder or that work in it, by id.

    Children inherit the environment of the service; the processes of its PostgreSQL work in the
    folder of the database.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if _belongs(entry, str(folder)) and _state(entry) != "Z":
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(entry.name)] = words.decode("utf-8", "replace").strip()
    return found


def children(pid: int) -> list[int]:
    """Return the ids of a process's live children."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == pid and _state(entry) != "Z":
                    found.append(int(entry.name))
    return sorted(found)


def kill(pid: int) -> bool:
    """Kill a process at once; return whether there was one."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _belongs(entry: Path, folder: str) -> bool:
    where = str((entry / "cwd").readlink())
    if where == folder or where.startswith(folder + "/"):
        return True
    return f"={folder}/".encode() in (entry / "environ").read_bytes()


def _state(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0]
