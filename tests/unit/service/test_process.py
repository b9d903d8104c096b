"""A process whose work in a thread fails ends itself, so that the supervisor starts it again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from ledger.service.process import WORK_ENDED

SECONDS_MAX = 60.0
FAILING = """
from ledger.reconciliation.runner import Reconciler
from ledger.service import process

async def fail(self):
    raise ValueError("a text of a callback")

Reconciler.run = fail
process.main()
"""


def test_a_failure_of_background_work_is_logged_and_ends_the_process() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-c", FAILING, "evidence", str(theirs.fileno())],
            env={"PATH": os.environ["PATH"], "LEDGER_LOG_FORMAT": "json",
                 "LEDGER_DATABASE_URL": "postgresql://ledger@127.0.0.1:1/ledger"},
            pass_fds=[theirs.fileno()], capture_output=True, timeout=SECONDS_MAX, check=False,
        )  # fmt: skip
    printed = done.stderr.decode()
    assert done.returncode == WORK_ENDED, printed
    assert '"event":"background_work_failed"' in printed
    assert "a text of a callback" not in printed
    assert all(line.startswith("{") for line in printed.splitlines()), printed
