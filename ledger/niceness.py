"""Who goes first where processors are short: answers to providers, then the books.

Linux shares processors out among sessions first (`autogroup`), and a niceness counts only within
one. So what steps back has a session of its own, which is told the niceness too; each process of
PostgreSQL has one anyway.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

NICENESS_MAX: Final = 19

FOLDING: Final = 5
"""Niceness of the projector: what it folds is waited for too."""

BEHIND: Final = 10
"""Niceness of all else that catches up: sealing, reconciling, rebuilding by hand, verifying."""


def step_back(niceness: int = BEHIND) -> None:
    """Let answers go before this process's work, in a session of its own from now on."""
    with suppress(PermissionError):  # it leads one already
        os.setsid()
    set_niceness(os.getpid(), os.nice(niceness))


def set_niceness(pid: int, niceness: int) -> None:
    """Give a process, and the session that it leads, a niceness. Raises OSError where it may not.

    The session's is left alone when the process does not lead it, or where there is none. Where
    Linux lets it, the process also takes a processor from nobody when it wakes (`SCHED_BATCH`).
    """
    wanted = min(niceness, NICENESS_MAX)
    os.setpriority(os.PRIO_PROCESS, pid, wanted)
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    if os.getsid(pid) == pid:
        with suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(wanted), encoding="ascii")
