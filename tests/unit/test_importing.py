"""Promise: importing does nothing; what a process needs is set up by a call at its start."""

from __future__ import annotations

import subprocess
import sys

IMPORT_ALL = """
import asyncio, decimal, gc, importlib, logging, os, pkgutil, signal, sys, threading

def state():
    root = logging.getLogger()
    return {
        "decimal": str((decimal.getcontext(), decimal.DefaultContext)),
        "logging": (root.level, list(root.handlers), list(root.filters)),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "event loop": type(asyncio.get_event_loop_policy()),
        "environment": dict(os.environ),
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "threads": threading.active_count(),
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "folder": os.getcwd(),
        "umask": (os.umask(0o022), os.umask(0o022)),
    }

before = state()
names = []
for package in ("ledger", "handlers", "projections"):
    found = importlib.import_module(package)
    names.append(package)
    for module in pkgutil.walk_packages(found.__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            names.append(module.name)
after = state()
changed = [name for name in before if before[name] != after[name]]
print(len(names), *changed)
"""


def test_importing_every_module_changes_nothing_in_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    count, *changed = ended.stdout.split()
    assert changed == []
    assert int(count) > 150
