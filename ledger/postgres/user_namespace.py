"""Run a program in a user namespace of its own, where root appears as an ordinary account.

A program of its own (`python -I -S postgres_userns.py UID GID PROGRAM ARGUMENT…`), because code
between fork and exec is unsafe in a process with threads. Imports nothing of the ledger.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

CLONE_NEWUSER: Final = 0x10000000
REFUSED: Final = 125
"""Exit status when the kernel refuses the namespace, as env(1) and the like use it."""


def enter(uid: int, gid: int) -> None:
    """Move this process to a new user namespace that maps `uid`:`gid` to its present ids.

    Raises OSError if the kernel or a container's policy refuses.
    """
    outside_uid, outside_gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {outside_uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {outside_gid} 1")


def main(arguments: list[str]) -> None:
    """Enter the namespace and become the program. Exit with REFUSED if that is not allowed."""
    uid, gid, *argv = arguments
    try:
        enter(int(uid), int(gid))
        os.execv(argv[0], argv)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"no user namespace: {error}\n")
        sys.exit(REFUSED)


if __name__ == "__main__":
    main(sys.argv[1:])
