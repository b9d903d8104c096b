"""Who goes first where processors are short: answers to providers, then the books.

Linux schedules a session as one (`autogroup`), and a niceness counts only within it. The service's
processes share a session; each of PostgreSQL's has one of its own, which is told the niceness too.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

NICENESS_MAX: Final = 19

FOLDING: Final = 2
"""Niceness of the projector: what it folds is waited for too."""

BEHIND: Final = 10
"""Niceness of all else that catches up: sealing, reconciling, rebuilding by hand, verifying."""


def step_back(niceness: int = BEHIND) -> None:
    """Let answers go before this process's work."""
    set_niceness(os.getpid(), os.nice(niceness))


def set_niceness(pid: int, niceness: int) -> None:
    """Give a process, and the session that it leads, a niceness. Raises OSError where it may not.

    The session's is left alone when the process does not lead it, or where there is none.
    """
    wanted = min(niceness, NICENESS_MAX)
    os.setpriority(os.PRIO_PROCESS, pid, wanted)
    if os.getsid(pid) == pid:
        with suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(wanted), encoding="ascii")
