"""Law: a setting means what it says, or the service does not start; nothing is read leniently."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.errors import SettingsError
from ledger.settings import Settings, load

SOURCE = '[sources.straitsx]\nprovider = "straitsx"\n'


def loaded(folder: Path, text: str, **environ: str) -> Settings:
    """Return the settings of a TOML file and an environment."""
    path = folder / "ledger.toml"
    path.write_text(text, encoding="utf-8")
    return load({"LEDGER_CONFIG": str(path), **environ})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SOURCE + 'secrets = [""]', "empty"),
        (SOURCE + 'secrets = ["good", " "]', "empty"),
        (SOURCE + 'secrets = ["env:NOT_THERE"]', "env:NOT_THERE"),
        (SOURCE + 'header = "Two Words"', "header"),
        (SOURCE + 'header = ""', "header"),
        (SOURCE + "header = 5", "header"),
        (SOURCE + '[sources.straitsx.wallets]\npayout = "XSGD"', "payout.sgd"),
        (SOURCE + '[sources.straitsx.wallets]\n"payout.s gd" = "XSGD"', "payout.sgd"),
        (SOURCE + '[sources.straitsx.wallets]\n"payouts.sgd" = "XSGD"', "payout, swap"),
        (SOURCE + '[sources.straitsx.wallets]\n"customer.sgd" = "XSGD"', "is for none of"),
        ("port = 8081.5", "not a whole number"),
        ("receivers = true", "not a whole number"),
        ('sources = ["straitsx", ""]', "empty"),
        ("sources = 5", "expected texts"),
        ("api_tokens = [1]", "expected texts"),
    ],
)
def test_what_cannot_be_meant_refuses_to_start(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        loaded(tmp_path, text)


def test_an_empty_secret_never_opens_a_source(tmp_path: Path) -> None:
    for text in ('[""]', '""', '" , "', '["env:BLANK"]'):
        with pytest.raises(SettingsError, match="straitsx"):
            loaded(tmp_path, f"{SOURCE}secrets = {text}", BLANK="  ")
    for text in (",", " "):
        with pytest.raises(SettingsError, match="straitsx"):
            loaded(tmp_path, SOURCE + 'secrets = ["real"]', LEDGER_SECRET_STRAITSX=text)
    assert loaded(tmp_path, SOURCE + "secrets = []").sources["straitsx"].secrets == ()


@pytest.mark.parametrize("text", ['sources = "straitsx"', 'sources = ["straitsx"]'])
def test_the_file_names_sources_as_the_environment_does(tmp_path: Path, text: str) -> None:
    assert list(loaded(tmp_path, text).sources) == ["straitsx"]
    assert list(loaded(tmp_path, text, LEDGER_SOURCES="gokart").sources) == ["gokart"]
    assert list(load({}).sources) == ["straitsx", "gokart"]


def test_a_wallet_is_named_in_either_spelling(tmp_path: Path) -> None:
    for key in ('"payout.sgd"', "payout.sgd", '"PAYOUT.SGD"'):
        found = loaded(tmp_path, SOURCE + f'[sources.straitsx.wallets]\n{key} = "xsgd"')
        assert found.sources["straitsx"].wallets == {"payout.sgd": "XSGD"}


def test_commas_more_than_needed_do_no_harm() -> None:
    assert load({"LEDGER_API_TOKENS": "one, two,"}).api_tokens == ("one", "two")


def test_a_secret_is_the_same_wherever_it_is_kept(tmp_path: Path) -> None:
    kept = tmp_path / "secret"
    kept.write_text(" ss_1\n")
    text = f'{SOURCE}secrets = ["env:KEPT", "file:{kept}", " ss_1 "]'
    assert loaded(tmp_path, text, KEPT=" ss_1\n").sources["straitsx"].secrets == ("ss_1",) * 3


def test_a_payload_currency_has_one_wallet(tmp_path: Path) -> None:
    text = SOURCE + 'wallets = {"payout.SGD" = "XSGD", "payout.sgd" = "XUSD"}'
    with pytest.raises(SettingsError, match="named twice"):
        loaded(tmp_path, text)
