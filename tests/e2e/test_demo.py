"""`ledger demo` shows sound books of every kind of callback and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from decimal import Decimal
from pathlib import Path

from ledger.simulator.simulate import SCRIPTS


async def test_the_demo_finishes_balances_and_leaves_nothing(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name[:7] != "LEDGER_"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ledger", "demo", "--json", env=environ | {"TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 200)
    assert process.returncode == 0, err.decode()
    shown = json.loads(out)
    assert shown["sent"]["accepted"] > 100
    assert shown["sent"]["quarantined"] == 2
    assert shown["sent"]["duplicate"] > 20
    assert set(shown["sums"]) >= {"XSGD", "XUSD", "USD", "USDC", "PTS", "IDR"}
    assert set(shown["sums"].values()) == {"0"}
    kinds = {row["kind"] for row in shown["transactions"]["transactions"]}
    money = {
        kind
        for kind, script in SCRIPTS.items()
        if script.body.__module__ == "ledger.simulator.money"
    }
    assert kinds == money
    for wallet in shown["wallets"]["wallets"]:
        total = Decimal(wallet["available"]) + Decimal(wallet["held"])
        assert Decimal(wallet["total"]) == total
    assert {row["verification_status"] for row in shown["customers"]["customers"]} == {
        "verified", "rejected", None,
    }  # fmt: skip
    reasons = {row["reason"] for row in shown["exceptions"]["exceptions"]}
    assert reasons == {
        "conflict", "unreadable", "stuck_pending", "payout_returned", "unverified_money",
        "limit_drift",
    }  # fmt: skip
    assert [name for name in os.listdir(tmp_path) if name.startswith("ledger-demo-")] == []
