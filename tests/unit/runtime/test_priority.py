"""What steps back: its niceness, its session's, and that it takes a processor from nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.runtime import priority as niceness
from ledger.runtime.priority import (
    AGAIN_SECONDS,
    BEHIND,
    FOLDING,
    NICENESS_MAX,
    TRIES,
    tell_session,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="sessions are shared out by Linux alone")

STEPPED_BACK = """
import os
from contextlib import suppress
from pathlib import Path
from ledger.runtime.priority import lower_priority
told = lower_priority({niceness})
batch = os.sched_getscheduler(0) == os.SCHED_BATCH
allowed = False
with suppress(OSError):
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    allowed = True
group = Path("/proc/self/autogroup")
print(told, os.getsid(0) == os.getpid(), os.getpriority(os.PRIO_PROCESS, 0), batch == allowed,
      group.read_text().split()[-1] if group.exists() else None)
"""


def stepping_back(more: int, *, leads: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STEPPED_BACK.format(niceness=more)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=leads,
    )


def wanted(more: int) -> list[str]:
    nice = str(min(os.getpriority(os.PRIO_PROCESS, 0) + more, NICENESS_MAX))
    group = nice if Path("/proc/self/autogroup").exists() else "None"
    return ["True", "True", nice, "True", group]


@linux
@pytest.mark.parametrize("more", [FOLDING, BEHIND])
@pytest.mark.parametrize("leads", [False, True])
def test_who_steps_back_has_a_session_that_is_as_nice_as_itself(more: int, leads: bool) -> None:
    assert stepping_back(more, leads=leads).communicate()[0].split() == wanted(more)


@linux
def test_all_that_step_back_at_once_are_told() -> None:
    """Linux refuses all but one in 100 ms, unless who asks is its administrator."""
    several = [stepping_back(more) for more in (FOLDING, BEHIND, BEHIND)]
    said = [each.communicate()[0].split() for each in several]
    assert said == [wanted(more) for more in (FOLDING, BEHIND, BEHIND)]


def test_a_session_that_was_refused_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, slept = [False, False, True], list[float]()
    monkeypatch.setattr(niceness.os, "setsid", lambda: None)
    monkeypatch.setattr(niceness, "put_behind", lambda _pid, more: more)
    monkeypatch.setattr(niceness, "tell_session", lambda _pid, _nice: answers.pop(0))
    monkeypatch.setattr(niceness.time, "sleep", slept.append)
    assert niceness.lower_priority(BEHIND)
    assert answers == []
    assert len(slept) == 2
    assert min(slept) >= AGAIN_SECONDS
    answers += [False] * TRIES
    assert not niceness.lower_priority(BEHIND)


def test_being_told_too_soon_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise refusal

    monkeypatch.setattr(niceness.os, "getsid", lambda pid: pid)
    monkeypatch.setattr(niceness.Path, "write_text", refuse)
    refusal: OSError = BlockingIOError()
    assert not tell_session(1, BEHIND)
    refusal = PermissionError()
    assert tell_session(1, BEHIND)


def test_folding_steps_back_less_than_what_nobody_waits_for() -> None:
    assert 0 < FOLDING < BEHIND
