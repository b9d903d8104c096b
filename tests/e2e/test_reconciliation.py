"""From a statement's file to a reconciled balance, with the commands that users type."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.asking import payment
from tests.e2e.conftest import Serve
from tests.service import Service, calling
from tests.statements import row, statement

TOML = """
[sources.straitsx]
provider = "straitsx"

[sources.straitsx.reconcile]
tolerance = { XSGD = "0.00001" }
owners = { MISSING_IN_LEDGER = "finance" }
"""
NOON = "2026-01-10T12:00:00Z"
PERIOD = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-02-01T00:00:00Z")


@pytest.fixture(scope="module")
def service(serve: Serve) -> Iterator[Service]:
    with serve(TOML) as running:
        yield running


def ledger(service: Service, *arguments: str, json: bool = True) -> tuple[int, Any, str]:
    """Run a command against the service; return exit status, what it printed and its errors."""
    done = subprocess.run(
        [sys.executable, "-m", "ledger", *arguments, "--url", service.url,
         *(["--json"] if json else [])],
        env={k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    reported = orjson.loads(done.stdout) if json and done.stdout else done.stdout.decode()
    return done.returncode, reported, done.stderr.decode()


def imported(service: Service, file: Path, *more: str) -> tuple[int, Any, str]:
    return ledger(
        service, "statement", "import", str(file), "--source", "straitsx", "--currency", "XSGD",
        *PERIOD, *more,
    )  # fmt: skip


async def test_a_file_becomes_a_claim_a_report_and_after_a_decision_a_reconciled_balance(
    service: Service, tmp_path: Path
) -> None:
    async with calling(service.url) as caller:
        at = {"created_at": NOON, "updated_at": NOON}
        for body in (payment(1, **at), payment(2, fees="0.0", **at)):
            await caller.report("straitsx", orjson.dumps(body))
        assert ledger(service, "reconcile")[0] == 3
        rows = [
            row("r1", "contract_0001", "10.00", NOON),
            row("r2", "contract_0001", "-0.5", NOON, "Fee"),
            row("r3", "contract_0002", "10.000001", NOON),
            row("r4", "contract_0099", "3", NOON),
        ]
        file = tmp_path / "january.json"
        file.write_bytes(statement(rows))
        status, done, _ = imported(service, file)
        assert (status, done["status"], done["new"]) == (0, "accepted", 4)
        assert imported(service, file)[1]["status"] == "duplicate"

        status, stated, _ = ledger(service, "reconcile", "--source", "straitsx")
        (run,) = stated["reconciliations"]
        assert (status, run["state"], run["figures"]["residual"]) == (1, "BREAKS", "0")
        _, breaks, _ = ledger(service, "reconcile", "breaks", "--type", "MISSING_IN_LEDGER")
        (found,) = breaks["breaks"]
        assert (found["items"], found["owner"]) == (["line:r4"], "finance")
        looked_at(service, found["id"], tmp_path)
        status, _, reported = ledger(service, "reconcile", "decide", found["id"], "write_off",
                                 "--by", "ann", "--note", "interest of the bank",
                                 "--account", "income:interest")  # fmt: skip
        assert (status, reported) == (0, "")

        pages = [tmp_path / "one.html", tmp_path / "two.html"]
        for page in pages:
            status, stated, reported = ledger(
                service, "reconcile", "--source", "straitsx", "--currency", "xsgd", "--html",
                str(page),
            )  # fmt: skip
            assert (status, reported) == (0, ""), stated
        assert b"RECONCILED" in pages[0].read_bytes()
        (claim,) = (await caller.ask("/v1/wallets"))["wallets"]
        assert claim["reconciliation"] == {
            "state": "RECONCILED", "through": "2026-02-01T00:00:00Z",
            "statement_balance": "22.500001", "difference": "0", "breaks": 0, "current": True,
            "position": claim["reconciliation"]["position"],
        }  # fmt: skip
        assert claim["total"] == "22.500001"
        status, text, _ = ledger(service, "wallets", json=False)
        assert "RECONCILED" in text
        status, rows_of, _ = ledger(
            service, "reconcile", "--source", "straitsx", "--currency", "XSGD", "--csv", "-",
            json=False,
        )  # fmt: skip
        assert status == 0
        assert "residual,0.000000" in rows_of


def looked_at(service: Service, break_id: str, folder: Path) -> None:
    """Look at breaks and matches in every way that the command line has."""
    for command in (["break", break_id], ["breaks", break_id], ["breaks", "--id", break_id]):
        _, whole, _ = ledger(service, "reconcile", *command)
        assert [line["line"] for line in whole["lines"]] == ["r4"]
    status, text, _ = ledger(service, "reconcile", "break", break_id, json=False)
    assert status == 0
    assert "the books have no such transaction" in text
    assert "line:r4" in text
    _, text, reported = ledger(service, "reconcile", "breaks", "--sort", "-age", json=False)
    assert "line:r4" in text
    assert "MISSING_IN_LEDGER" in text
    assert reported == ""
    sheet = folder / "breaks.csv"
    _, text, _ = ledger(service, "reconcile", "breaks", "--csv", "--state", "OPEN", json=False)
    for written in (["--csv", "-"], ["--csv", str(sheet)], [f"--csv={sheet}"]):
        status, out, _ = ledger(
            service, "reconcile", "breaks", *written, "--state", "OPEN", json=False
        )
        assert status == 0
        assert (out or sheet.read_text()).splitlines() == text.splitlines()
    (first, *_) = csv.DictReader(io.StringIO(sheet.read_text("utf-8-sig")))
    assert (first["id"], first["decision"], first["wallet"]) == (break_id, "", "straitsx XSGD")
    _, matched, _ = ledger(service, "reconcile", "matches", "--rule", "contract")
    assert [each["anchor"] for each in matched["matches"]] == ["contract:contract_0001"]
    _, text, _ = ledger(service, "reconcile", "matches", json=False)
    assert "payment:contract_0001" in text
    page = folder / "all.html"
    ledger(service, "reconcile", "--html", str(page))
    assert b"Reconciliation of all wallets" in page.read_bytes()


def test_a_file_that_does_not_add_up_is_refused_by_its_line(
    service: Service, tmp_path: Path
) -> None:
    file = tmp_path / "broken.json"
    body = statement([row("a", "c", "10", NOON), row("b", "d", "5", NOON)])
    file.write_bytes(body.replace(b'"ledgerBalance":15', b'"ledgerBalance":14'))
    status, _, reported = imported(service, file)
    assert status == 2
    assert "line 2" in reported


def test_the_log_of_statements_is_verified_like_every_other(service: Service) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")}
    done = subprocess.run(
        [sys.executable, "-m", "ledger", "verify", "--json"],
        env=environ | {"LEDGER_DATA_DIR": str(service.data_dir), **service.environ},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    checks = orjson.loads(done.stdout)["checks"]
    named = [each for each in checks if each["source"] == "straitsx.statements"]
    assert named
    assert "reconciliation" in {each["name"] for each in checks if each["source"] == "straitsx"}
    assert {each["verdict"] for each in checks} == {"ok"}, checks


def test_asking_for_a_wallet_without_a_statement_is_answered_at_once(service: Service) -> None:
    began = time.monotonic()
    status, stated, reported = ledger(service, "reconcile", "--currency", "XUSD")
    assert (status, stated["reconciliations"], reported) == (3, [], "")
    assert time.monotonic() - began < 30
