"""What the machine is and what its processes use, from /proc; elsewhere figures are missing."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import aiohttp
import asyncpg

from ledger.runtime.event_loop import runner

PROC: Final = Path("/proc")
SYNCS: Final = 200
SYNC_BYTES: Final = 8_192


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that `share` (0..1) of all do not exceed; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    rank = max(1, -int(-share * len(ordered) // 1))
    return ordered[min(rank, len(ordered)) - 1]


def describe(folder: Path) -> dict[str, Any]:
    """Return what the figures depend on; `fdatasync_us` is the disk's under `folder`."""
    return {
        "cpu": _line(PROC / "cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_mib": kibibytes(_line(PROC / "meminfo", "MemTotal")),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "event_loop": runner().__module__.partition(".")[0],
        "aiohttp": aiohttp.__version__,
        "asyncpg": asyncpg.__version__,
        "fdatasync_us": round(sync_seconds(folder) * 1e6, 1),
    }  # fmt: skip


def sync_seconds(folder: Path) -> float:
    """Return the median time of writing 8 KiB durably to a file in `folder`."""
    sync = getattr(os, "fdatasync", os.fsync)
    path = folder / "sync.bin"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(os.urandom(SYNC_BYTES))
            started = time.perf_counter()
            sync(file.fileno())
            times.append(time.perf_counter() - started)
    path.unlink()
    return median(times)


@dataclass(frozen=True, slots=True)
class Process:
    """A process that stays the same one: its id, and when it began."""

    pid: int
    began: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Take hold of a running process; None if there is none."""
        fields = _stat(pid)
        return cls(pid, fields[19]) if fields else None

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        fields = _stat(self.pid)
        return bool(fields) and fields[19] == self.began and fields[0] != "Z"

    def memory(self, name: str) -> float | None:
        """Return VmRSS (now) or VmHWM (its peak) in MiB."""
        return kibibytes(_line(PROC / str(self.pid) / "status", name))

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far, with that of its children that have ended."""
        fields = _stat(self.pid)
        ticks = sum(int(field) for field in fields[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def children(self) -> list[Process]:
        """Return its running children."""
        found = []
        for pid in (int(name) for name in os.listdir(PROC) if name.isdigit()):
            fields = _stat(pid)  # not by glob, which fails when a process ends meanwhile
            if fields and int(fields[1]) == self.pid:
                found.append(Process(pid, fields[19]))
        return found

    def arguments(self) -> list[str]:
        """Return its command line."""
        try:
            return (PROC / str(self.pid) / "cmdline").read_text("utf-8", "replace").split("\0")
        except OSError:
            return []


class ProcessUsage(NamedTuple):
    """CPU seconds since the machine started."""

    busy: float
    """Used by everything on it."""
    withheld: float
    """Wanted, and given to other machines by the host that this one runs on."""


def machine_used() -> ProcessUsage:
    """Return what all processors were used for so far; zeros where the system does not tell."""
    line = _line(PROC / "stat", "cpu ", after=" ")
    if line is None:
        return ProcessUsage(0.0, 0.0)
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, line.split()[:8])
    tick = os.sysconf("SC_CLK_TCK")
    return ProcessUsage((user + nice + system + irq + softirq) / tick, steal / tick)


def disturbance(
    before: ProcessUsage, after: ProcessUsage, ours: float, seconds: float
) -> dict[str, float]:
    """Return the cores that disturbed a measurement, of which `ours` is the CPU time."""
    others = after.busy - before.busy - ours
    return {
        "others_cores": round(max(0.0, others / seconds), 2),
        "withheld_cores": round((after.withheld - before.withheld) / seconds, 2),
    }


def tree_cpu_seconds(root: Process) -> float:
    """Return the CPU time of a process and all its children, ended ones included."""
    return root.cpu_seconds() + sum(child.cpu_seconds() for child in root.children())


def tree_peak(root: Process) -> float | None:
    """Return the greatest VmHWM in MiB among a process and its children."""
    peaks = [process.memory("VmHWM") for process in (root, *root.children())]
    return max((peak for peak in peaks if peak is not None), default=None)


def kibibytes(text: str | None) -> float | None:
    """Turn `1234 kB` into MiB."""
    return round(int(text.split()[0]) / 1024, 1) if text else None


def _stat(pid: int) -> list[str]:
    """Return /proc/PID/stat from the state on; [] without such a process."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _line(path: Path, name: str, after: str = ":") -> str | None:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    found = (line.partition(after)[2].strip() for line in lines if line.startswith(name))
    return next(found, None)
