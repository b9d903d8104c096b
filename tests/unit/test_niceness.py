"""What steps back: its niceness, its session's, and that it takes a processor from nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.niceness import BEHIND, FOLDING

STEPPED_BACK = """
import os
from pathlib import Path
from ledger.niceness import step_back
step_back({niceness})
group = Path("/proc/self/autogroup")
print(os.getsid(0) == os.getpid(), os.getpriority(os.PRIO_PROCESS, 0),
      os.sched_getscheduler(0) == os.SCHED_BATCH,
      group.read_text().split()[-1] if group.exists() else None)
"""


@pytest.mark.parametrize("niceness", [FOLDING, BEHIND])
@pytest.mark.parametrize("leads", [False, True])
def test_who_steps_back_has_a_session_that_is_as_nice_as_itself(niceness: int, leads: bool) -> None:
    said = subprocess.run(
        [sys.executable, "-c", STEPPED_BACK.format(niceness=niceness)],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=leads,
    ).stdout.split()
    wanted = str(os.getpriority(os.PRIO_PROCESS, 0) + niceness)
    group = wanted if Path("/proc/self/autogroup").exists() else "None"
    assert said == ["True", wanted, "True", group]


def test_folding_steps_back_less_than_what_nobody_waits_for() -> None:
    assert 0 < FOLDING < BEHIND
