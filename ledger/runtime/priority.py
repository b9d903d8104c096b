"""Who goes first where processors are short: answers to providers, then the books.

Linux shares processors out among sessions first (`autogroup`), and a niceness counts only within
one. So what steps back has a session of its own, which is told the niceness too; each process of
PostgreSQL has one anyway.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import uniform
from typing import Final

NICENESS_MAX: Final = 19

FOLDING: Final = 5
"""Niceness of the projector: what it folds is waited for too."""

BEHIND: Final = 10
"""Niceness of all else that catches up: sealing, reconciling, rebuilding by hand, verifying."""

AGAIN_SECONDS: Final = 0.1
"""Linux lets only one session in so long be told, of all who are not its administrator."""

TRIES: Final = 20
"""How often a session is told before it keeps the niceness that it has."""


def lower_priority(niceness: int = BEHIND) -> bool:
    """Let answers go before this process's work, in a session of its own from now on.

    Blocks for three seconds at most. Returns False when its session was refused for as long.
    """
    with suppress(PermissionError):  # who leads a process group already cannot leave its session
        os.setsid()
    pid = os.getpid()
    wanted = put_behind(pid, niceness)
    for _ in range(TRIES):
        if tell_session(pid, wanted):
            return True
        time.sleep(again_seconds())
    return False


def put_behind(pid: int, niceness: int) -> int:
    """Add `niceness` to a process's own, and return the sum. Raises OSError where it may not.

    Where Linux lets it, the process also takes a processor from nobody when it wakes
    (`SCHED_BATCH`).
    """
    wanted = min(os.getpriority(os.PRIO_PROCESS, pid) + niceness, NICENESS_MAX)
    os.setpriority(os.PRIO_PROCESS, pid, wanted)
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    return wanted


def tell_session(pid: int, niceness: int) -> bool:
    """Give the session that a process leads a niceness; False says to try again.

    It is left alone when the process does not lead it, or where there is none.
    """
    if os.getsid(pid) != pid:
        return True
    try:
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness), encoding="ascii")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def again_seconds() -> float:
    """Return how long to wait before a session is told again; who waits too must not meet us."""
    return AGAIN_SECONDS * uniform(1.0, 1.5)  # noqa: S311 - no secret
