"""Money is added exactly in every thread of a configured process, and nowhere else at all."""

from __future__ import annotations

import subprocess
import sys

CONFIGURED = """
import threading
from decimal import Decimal
from ledger.payload import check_decimal_context
from ledger.runtime.decimals import configure_decimal
configure_decimal()
large, small = Decimal(10) ** 20, Decimal(10) ** -18
sums = []
def add():
    check_decimal_context()
    sums.append(large + small)
add()
thread = threading.Thread(target=add)
thread.start()
thread.join()
print(*sums)
"""
NOT_CONFIGURED = """
from ledger.model import SourceTerms
from ledger.fold.batch import Batch
Batch(SourceTerms("straitsx", "straitsx"), {}, (), ())
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_every_thread_of_a_configured_process_adds_exactly() -> None:
    assert run(CONFIGURED).stdout.split() == ["100000000000000000000.000000000000000001"] * 2


def test_a_process_that_is_not_configured_folds_nothing() -> None:
    ended = run(NOT_CONFIGURED)
    assert ended.returncode == 1
    assert "call configure_decimal() at its start" in ended.stderr
