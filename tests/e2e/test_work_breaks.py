"""Breaks worked off from the command line: one by one, by a file, by declared rules."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.asking import payment
from tests.e2e.conftest import Serve
from tests.e2e.test_reconciliation import imported, ledger
from tests.service import Service, calling
from tests.statements import row, statement

TOML = """
[sources.straitsx]
provider = "straitsx"

[[sources.straitsx.reconcile.rules]]
name = "small fees"
type = "MISSING_IN_LEDGER"
line = "Fee"
below = "1"
account = "expenses:fees"
"""
NOON = "2026-01-10T12:00:00Z"


@pytest.fixture(scope="module")
def service(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(TOML) as running:
        rows = [
            row("r1", "contract_0001", "10", NOON),
            *(row(f"f{n}", None, f"-{n}.25", NOON, "Fee") for n in range(1, 5)),
            row("small", None, "-0.5", NOON, "Fee"),
        ]
        file = tmp_path_factory.mktemp("files") / "january.json"
        file.write_bytes(statement(rows))
        status, done, _ = imported(running, file)
        assert (status, done["new"]) == (0, 6)
        yield running


def opened(service: Service) -> dict[str, dict[str, Any]]:
    ledger(service, "reconcile")
    _, listed, _ = ledger(service, "reconcile", "breaks")
    return {each["anchor"]: each for each in listed["breaks"]}


def test_a_decision_is_in_the_result_when_its_answer_comes(service: Service) -> None:
    found = opened(service)["line:f4"]
    for action, state in (("write_off", "RESOLVED"), ("reopen", "OPEN"), ("post_fee", "RESOLVED")):
        status, done, reported = ledger(
            service, "reconcile", "decide", found["id"], action, "--by", "ann", "--note", "why"
        )
        assert (status, done["reconciled"], done["state"]) == (0, True, state), reported
        _, listed, _ = ledger(service, "reconcile", "breaks", "--type", found["type"])
        (shown,) = [each for each in listed["breaks"] if each["id"] == found["id"]]
        assert (shown["state"], shown["action"]) == (state, action)


def test_a_file_is_previewed_taken_with_yes_and_taken_once(
    service: Service, tmp_path: Path
) -> None:
    found = opened(service)
    out = io.StringIO()
    rows = csv.writer(out, delimiter=";", lineterminator="\r\n")
    rows.writerow(("id", "gap", "decision", "decision_account", "decision_note"))
    rows.writerow((found["line:f1"]["id"], "1,25", "Write off", "expenses:bank", "Gebühr für Juni"))
    rows.writerow((found["line:f2"]["id"], "2,25", "post_fee", "", ""))
    rows.writerow((found["line:f3"]["id"], "3,25", "", "", ""))
    rows.writerow((found["line:f1"]["id"], "1,25", "post_fee", "", ""))
    file = tmp_path / "breaks.csv"
    file.write_bytes(out.getvalue().encode("utf-8-sig"))
    command = ("reconcile", "decide", "--from", str(file), "--by", "ann", "--note", "June")

    status, text, reported = ledger(service, *command, json=False)
    assert (status, "2 planned, 1 refused, 1 without a decision" in text) == (1, True), text
    assert "nothing is done yet; --yes takes these decisions" in reported
    assert "1.25 expenses:bank" in text
    assert opened(service)["line:f1"]["state"] == "OPEN"

    status, done, _ = ledger(service, *command, "--yes")
    assert status == 1
    assert [(each["line"], each["outcome"]) for each in done["decisions"]] == [
        (2, "done"), (3, "done"), (5, "refused"),
    ]  # fmt: skip
    assert (done["without_decision"], done["reconciled"], done["dry_run"]) == (1, True, False)
    assert [(s["account"], s["amount"]) for s in done["sums"]] == [
        ("assets:wallet:available", "-3.5"), ("expenses:bank", "1.25"), ("expenses:fees", "2.25"),
    ]  # fmt: skip
    now = opened(service)
    assert [now[f"line:f{n}"]["state"] for n in (1, 2, 3)] == ["RESOLVED", "RESOLVED", "OPEN"]
    assert now["line:f1"]["note"] == "Gebühr für Juni"
    status, done, _ = ledger(service, *command, "--yes")
    assert [each["outcome"] for each in done["decisions"]] == ["unchanged", "unchanged", "refused"]
    status, _, reported = ledger(service, "reconcile", "decide", "--by", "ann")
    assert (status, "name a break" in reported) == (2, True)


async def test_a_declared_rule_posts_after_an_import_and_shows_it(service: Service) -> None:
    small = opened(service)["line:small"]
    status, shown, _ = ledger(service, "reconcile", "rules")
    (rule,) = shown["rules"]
    assert (status, rule["name"], rule["declared"]) == (0, "small fees", True)
    (posted,) = rule["posted"]
    assert (posted["count"], posted["amount"], posted["breaks"]) == (1, "0.5", [small["id"]])
    async with calling(service.url) as caller:
        listed = await caller.ask(posted["href"].partition("?")[0], rule="small fees")
        assert [each["id"] for each in listed["rows"]] == [small["id"]]
        await caller.report("straitsx", orjson.dumps(payment(1, fees="0.0", updated_at=NOON)))
    status, text, _ = ledger(service, "reconcile", "rules", json=False)
    assert "small fees" in text


def test_a_month_is_closed_from_the_command_line_and_its_changes_are_reported(
    service: Service,
) -> None:
    command = ("reconcile", "close", "2026-01", "--by", "ann")
    status, shown, _ = ledger(service, *command)
    assert status == 1
    names = [each["break_id"] for each in shown["obstacles"]]
    assert {each["reason"] for each in shown["obstacles"]} == {"open_break"}
    accept = [part for name in names for part in ("--accept", name)]
    status, shown, _ = ledger(service, *command, *accept, "--dry-run")
    assert (status, shown["closes"][0]["position"]) == (0, None)
    status, text, reported = ledger(service, *command, *accept, json=False)
    assert (status, "2026-01" in text, "closed" in text) == (0, True, True), reported
    status, text, _ = ledger(service, *command, json=False)
    assert (status, "is closed already, by ann" in text) == (1, True)
    assert ledger(service, "reconcile", "closes")[0] == 0
    status, rolled, _ = ledger(service, "reconcile", "roll-forward", "2026-01")
    (month,) = rolled["roll_forward"]
    assert (status, month["closed"], month["carried_out"]["count"]) == (0, True, len(names))
    assert ledger(service, "reconcile", "roll-forward", json=False)[0] == 0


async def test_what_is_recorded_for_a_closed_month_ends_the_list_of_closes_with_1(
    service: Service,
) -> None:
    async with calling(service.url) as caller:
        body = orjson.dumps(payment(77, fees="0.0", updated_at=NOON))
        position = (await caller.report("straitsx", body))["position"]
        await caller.ask("/v1/balances", at_least=f"straitsx:{position}")
    status, shown, _ = ledger(service, "reconcile", "closes")
    (close,) = shown["closes"]
    assert (status, close["changes"]["ledger"]) == (1, "10")
    status, text, _ = ledger(service, "reconcile", "closes", json=False)
    assert (status, "has changed since it was closed" in text) == (1, True)
    assert "contract_0077" in text
    status, _, _ = ledger(
        service, "reconcile", "reopen", "2026-01", "--by", "ann", "--note", "a late callback"
    )
    assert status == 0


def test_closes_and_months_are_verified_like_everything_else(service: Service) -> None:
    ledger(service, "reconcile")
    environ = {k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")}
    done = subprocess.run(
        [sys.executable, "-m", "ledger", "verify", "--json"],
        env=environ | {"LEDGER_DATA_DIR": str(service.data_dir), **service.environ},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    checks = orjson.loads(done.stdout)["checks"]
    assert {each["verdict"] for each in checks} == {"ok"}, checks


def test_the_doctor_knows_whose_statements_a_log_holds(service: Service) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")}
    done = subprocess.run(
        [sys.executable, "-m", "ledger", "doctor", "--json"],
        env=environ | {"LEDGER_DATA_DIR": str(service.data_dir), **service.environ},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    checks = orjson.loads(done.stdout)["checks"]
    (sources,) = [each for each in checks if each["name"] == "sources"]
    assert (sources["verdict"], sources["found"]) == ("ok", "straitsx: each has its log")
    assert "straitsx.statements" not in "".join(
        each["found"] for each in checks if each["verdict"] != "ok"
    )
