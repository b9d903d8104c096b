"""Law: the journals of a month with amounts of 38 digits are exact and pass their tools' checks."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from ledger.api.routes import exported_lists
from ledger.export import export
from ledger.export.journals import account
from ledger.simulator.month import month
from tests.asking import Service, payment, payout, serving
from tests.conftest import Database

SEED = 11
HLEDGER = shutil.which("hledger")

Balances = dict[tuple[str, str], Decimal]
"""(the tools' account, currency) → debits less credits"""

READ_BEANCOUNT = """
import json, sys
from beancount import loader
from beancount.core import data
entries, errors, _ = loader.load_file(sys.argv[1])
print(json.dumps({
    "errors": [error.message for error in errors],
    "postings": [
        (posting.account, posting.units.currency, str(posting.units.number))
        for entry in entries if isinstance(entry, data.Transaction) for posting in entry.postings
    ],
    "asserted": [
        (entry.account, entry.amount.currency)
        for entry in entries if isinstance(entry, data.Balance)
    ],
}))
"""
"""Run in a process of its own: there decimals have the 28 digits that beancount's users have."""


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        for event, body in month(SEED, 200, faults=False).callbacks:
            await running.post("straitsx", body, event or None)
        for number in range(1, 31):
            await running.post_json("straitsx", payment(number, **long_amounts(number)))
            sent = long_amounts(number, whole=5_000_000_000_000_000_000)
            await running.post_json("straitsx", payout(100 + number, status="completed", **sent))
        await running.fold()
        yield running


def long_amounts(number: int, whole: int = 90_000_000_000_000_000_000) -> dict[str, str]:
    """Return an amount and fees of up to 38 digits, whose decimals all differ."""
    day = f"2026-06-{number:02}T08:00:00Z"
    return {
        "amount": f"{whole + number}.{number * 12345678901234567 % 10**18:018}",
        "fees": f"{number}.{number * 98765432109876543 % 10**18:018}",
        "created_at": day,
        "updated_at": day,
        "customer_profile_id": f"c_{number % 3}",
    }


async def exported(service: Service, out: Path, format_: str) -> str:
    request = export.ExportRequest(format_, "entries", str(out), {})
    await export.write(service.database.service_dsn, request, exported_lists())
    return await asyncio.to_thread(out.read_text)


async def balances(service: Service) -> Balances:
    """Return the API's balances, under the names that the tools know; debits are positive."""
    found = {}
    for page in await service.pages("/v1/balances", "balances"):
        for row in page:
            sign = 1 if row["normal"] == "debit" else -1
            name = account(row["source"], row["account"])
            found[name, row["currency"]] = sign * Decimal(row["balance"])
    return found


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_beancount_reads_the_exact_amounts_and_every_assertion_holds(
    service: Service, tmp_path: Path
) -> None:
    pytest.importorskip("beancount", reason="beancount is not installed")
    path = tmp_path / "x.beancount"
    text = await exported(service, path, "beancount")
    read = json.loads(run(sys.executable, "-c", READ_BEANCOUNT, str(path)))
    assert read["errors"] == []
    sums: Balances = {}
    for name, currency, amount in read["postings"]:
        sums[name, currency] = sums.get((name, currency), Decimal(0)) + Decimal(amount)
    expected = await balances(service)
    assert {key: amount for key, amount in sums.items() if amount} == {
        key: amount for key, amount in expected.items() if amount
    }
    left_out = {
        (found[1], found[2])
        for found in re.finditer(r"^; \S+ balance (\S+)  \S+ (\S+)$", text, re.MULTILINE)
    }
    asserted = {tuple(each) for each in read["asserted"]}
    assert asserted | left_out == set(expected)
    assert not asserted & left_out
    assert {currency for _, currency in left_out} == {"XSGD"}
    assert ("Assets:Wallet:Available:Straitsx", "XSGD") in left_out
    assert len(asserted) > 10
    assert text.count("; not asserted: beancount computes with 28 digits") == len(left_out)


@pytest.mark.skipif(HLEDGER is None, reason="hledger is not installed")
async def test_hledger_strict_accepts_the_journal_and_computes_the_exact_balances(
    service: Service, tmp_path: Path
) -> None:
    path = tmp_path / "x.journal"
    await exported(service, path, "hledger")
    hledger: Sequence[str] = (str(HLEDGER), "-f", str(path))
    assert run(*hledger, "check", "--strict") == ""
    layout = ("--flat", "--no-total", "--layout=tidy", "--output-format=csv")
    found = {
        (row["account"], row["commodity"]): Decimal(row["value"])
        for row in csv.DictReader(io.StringIO(run(*hledger, "balance", *layout)))
        if row["commodity"] and Decimal(row["value"])
    }
    expected = await balances(service)
    assert found == {key: amount for key, amount in expected.items() if amount}
    assert max(len(str(amount)) for amount in found.values()) > 38
