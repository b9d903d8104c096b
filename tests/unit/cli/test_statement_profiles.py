"""`ledger statement profile` lists the profiles of files and shows one as TOML."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from ledger.cli import main as cli
from ledger.config.statement_profile import profile_of

OWN = """
[sources.straitsx.statements.mybank]
effective_at = "Booking date"
amount = "Amount"
skip_where = { "Booking status" = ["Pending"] }
optional = ["names"]
names = ["Ref"]
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger.toml"
    path.write_text(OWN, encoding="utf-8")
    monkeypatch.setenv("LEDGER_CONFIG", str(path))
    return path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(["statement", "profile", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.usefixtures("config")
def test_own_profiles_are_listed_before_those_that_ship(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = printed(capsys).splitlines()
    assert " ".join(lines[1].split()) == (
        "mybank straitsx Booking date, Amount, (Ref), Booking status"
    )
    assert [line.split()[0] for line in lines[2:]] == [
        "dbs", "dbs-ideal", "ocbc", "uob", "wise", "paypal", "revolut", "revolut-business",
        "stripe-balance",
        "stripe-payouts",
        "stripe-payouts-report",
    ]  # fmt: skip
    assert "Withdrawals ({currency})" in printed(capsys)


@pytest.mark.usefixtures("config")
def test_a_profile_is_shown_as_the_table_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    own = printed(capsys, "mybank")
    assert own.startswith("[sources.straitsx.statements.mybank]\n")
    declared = tomllib.loads(OWN)["sources"]["straitsx"]["statements"]["mybank"]
    shown = tomllib.loads(own)["sources"]["straitsx"]["statements"]["mybank"]
    assert profile_of(shown) == profile_of(declared)
    shipped = printed(capsys, "ocbc", "--source", "straitsx")
    assert shipped.startswith("[sources.straitsx.statements.ocbc]\n")


@pytest.mark.usefixtures("config")
def test_profiles_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    profiles = json.loads(printed(capsys, "--json"))["profiles"]
    assert {each["name"]: each["of"] for each in profiles}["mybank"] == "straitsx"
    assert profiles[0]["settings"]["amount"] == "Amount"


@pytest.mark.usefixtures("config")
def test_an_unknown_profile_or_source_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["statement", "profile", "nobank"]) == 2
    assert "'nobank' is no profile" in capsys.readouterr().err
    assert cli.run(["statement", "profile", "--source", "x"]) == 2
    assert "'x' is no source" in capsys.readouterr().err
