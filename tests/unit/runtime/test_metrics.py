"""Metrics: what one process counted becomes a Prometheus histogram of all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families as families

COUNT = """
from ledger.runtime.metrics import RequestCounters
tally = RequestCounters()
for seconds in (0.0004, 0.002, 0.002, 0.3, 9.0):
    tally.count("straitsx", "accepted", 200, seconds)
tally.flush()
tally.flush()
"""
RENDER = "import sys; from ledger.runtime.metrics import render; sys.stdout.buffer.write(render())"


def python(program: str, folder: Path) -> str:
    """Run a program in a process that shares the metrics in `folder`."""
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, check=True, timeout=60
    )
    return done.stdout.decode()


def test_the_times_of_all_processes_are_one_histogram(tmp_path: Path) -> None:
    for _ in range(2):
        python(COUNT, tmp_path)
    found = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in families(python(RENDER, tmp_path))
        for sample in family.samples
    }
    name = "ledger_callback_seconds"
    assert [found[f"{name}_bucket", le] for le in ("0.001", "0.0025", "0.25", "0.5", "+Inf")] == [
        2, 6, 6, 8, 10,
    ]  # fmt: skip
    assert found[f"{name}_count", None] == 10
    assert round(found[f"{name}_sum", None], 4) == 18.6088
    assert found["ledger_callbacks_total", None] == 10
