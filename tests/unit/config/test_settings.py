"""Law: a setting means what it says, or the service does not start; nothing is read leniently."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ledger import config
from ledger.config.settings import Settings, load
from ledger.config.source import SourceTable
from ledger.errors import SettingsError
from ledger.model import OwnerRule
from ledger.signatures.schemes import SCHEMES

SOURCE = '[sources.straitsx]\nprovider = "straitsx"\n'


PULL = (
    f"{SOURCE}[sources.straitsx.pull]\n"
    'url = "https://x"\nkey = "k"\ncurrencies = ["xsgd"]\nevery_seconds = 60\n'
)
OWNER = SOURCE + "owner_of = {{ field = '{}', match = '{}' }}\n"
WEBHOOKS = SOURCE + 'scheme = "standard-webhooks"\n'


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
        (SOURCE.replace('"straitsx"', '"acme"'), "'acme' is none of gokart, straitsx"),
        (SOURCE.replace('"straitsx"', "5"), "provider = 5 is not valid: expected a text"),
        (SOURCE + 'scheme = "md5"', "hmac-sha256-hex, static-token, standard-webhooks"),
        (SOURCE + "tolerance_seconds = 60", "hmac-sha256-hex carry no signed time"),
        (WEBHOOKS + "tolerance_seconds = 0", "tolerance_seconds"),
        (WEBHOOKS + "tolerance_seconds = true", "tolerance_seconds"),
        (WEBHOOKS + 'header = "X-Signature"', "headers of its own"),
        (WEBHOOKS + 'secrets = ["no base64!"]', "whsec_ and then base64"),
        ('[sources.gokart]\n[sources.gokart.pull]\nurl = "https://x"', "come as files only"),
        ("port = 8081.5", "LEDGER_PORT=8081.5 is not valid: expected a whole number"),
        ("receivers = true", "LEDGER_RECEIVERS=True is not valid: expected a whole number"),
        ('sources = ["straitsx", ""]', "empty"),
        ("sources = 5", "expected texts"),
        ("api_tokens = [1]", "expected texts"),
        ("port = 65536", "LEDGER_PORT=65536 is not valid: .* from 0 to 65535$"),
        ("receivers = 65", "LEDGER_RECEIVERS=65 is not valid: .* from 1 to 64$"),
        ("batch_events_max = 0", "LEDGER_BATCH_EVENTS_MAX=0 is not .* at least 1$"),
        ("answer_seconds_max = 0", "number, above 0 and below 86400$"),
        ("answer_seconds_max = true", "LEDGER_ANSWER_SECONDS_MAX=True is not valid"),
        ('log_format = "xml"', "LEDGER_LOG_FORMAT='xml' is not .* one of console, json$"),
        ('swap_changed_books = "perhaps"', "LEDGER_SWAP_CHANGED_BOOKS.*true or false"),
        (SOURCE + "unsigned_until = -1", "unsigned_until"),
        (SOURCE + "unsigned_until = true", "unsigned_until"),
        (SOURCE + 'currency = "S$"', r"currency: 'S\$' is not a currency"),
        (SOURCE + 'weak_secrets = "x"', "weak_secrets: expected true or false"),
        (SOURCE + 'wallets = {"payout.sgd" = "S$"}', r"payout.sgd: 'S\$' is not a currency"),
        (SOURCE + "wallets = 5", "wallets = 5 is not valid: expected a table"),
        (SOURCE + "owner_of = 5", "owner_of = 5 is not valid: expected a table"),
        (SOURCE + "owner_of = {}", "owner_of takes a field and a match, as { field = "),
        (OWNER.format("match", "(x)").replace("}", ", x = 1}"), "takes a field and a match"),
        (OWNER.format("customer_id", "(x)"), "'customer_id' is none of idempotency_id, external"),
        (OWNER.format("idempotency_id", ""), "owner_of.match is no text of 1 to 200 characters"),
        (OWNER.format("idempotency_id", "(" + "x" * 199 + ")"), "no text of 1 to 200 characters"),
        (OWNER.format("idempotency_id", "(x"), "no regular expression: missing \\)"),
        (OWNER.format("idempotency_id", "x{99999999999}(y)"), "is no regular expression"),
        (OWNER.format("idempotency_id", "x"), "0 groups; put exactly one around the customer"),
        (OWNER.format("idempotency_id", "(x)(y)"), "has 2 groups"),
        (OWNER.format("idempotency_id", "^(?:a+)+(b)$"), "repeats \\(\\?:a\\+\\), which may match"),
        (OWNER.format("idempotency_id", "a*a*(b)"), "takes up to .* steps, more than 4,000,000"),
        (SOURCE + 'date_by = "month"', "date_by = 'month' is not .* one of creation, receipt"),
        (SOURCE + "pull = 5", "pull is not valid: expected a table"),
        (SOURCE + "pull = {}", "pull lacks url, key, currencies, every_seconds"),
        (SOURCE + "pull = {speling = 1}", "pull takes only answer_seconds_max, attempts_max"),
        (PULL.replace('"https://x"', "5"), "pull.url = 5 is not valid: expected a text"),
        (PULL.replace('"https://x"', '"http://x"'), "only travel over https"),
        (PULL.replace('["xsgd"]', '["x d"]'), "pull.currencies: 'x d' is not a currency"),
        (PULL.replace('["xsgd"]', "[]"), "pull.currencies is empty"),
        (PULL.replace("60", "6"), "pull.every_seconds = 6 is .* from 60 to 2678400$"),
        (PULL + 'since = "x"', "pull.since = 'x' is not valid: expected a time with a zone"),
        (SOURCE + 'allow_ips = ["here"]', "'here' is neither an address"),
        (SOURCE + 'speling = "x"', "takes only accounts, allow_ips"),
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


def test_any_source_may_declare_another_scheme_than_its_providers(tmp_path: Path) -> None:
    text = WEBHOOKS + 'secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]\n'
    source = loaded(tmp_path, text).sources["straitsx"]
    assert source.signatures().headers == ("webhook-id", "webhook-timestamp", "webhook-signature")
    assert source.signatures().tolerance_seconds == 300
    source = loaded(tmp_path, text + "tolerance_seconds = 10").sources["straitsx"]
    assert source.signatures().tolerance_seconds == 10
    token = loaded(tmp_path, SOURCE + 'scheme = "static-token"').sources["straitsx"]
    assert token.signatures().headers == ("Xfers-Signature",)
    assert not token.scheme_type.is_self_proving


def test_the_guide_names_every_key_of_a_source_and_every_scheme() -> None:
    guide = (Path(config.__file__).parent / "GUIDE.md").read_text(encoding="utf-8")
    keys = {*SourceTable.__struct_fields__, *SCHEMES}
    assert [key for key in keys if f"`{key}`" not in guide] == []


def test_a_wallet_is_named_in_either_spelling(tmp_path: Path) -> None:
    for key in ('"payout.sgd"', "payout.sgd", '"PAYOUT.SGD"'):
        found = loaded(tmp_path, SOURCE + f'[sources.straitsx.wallets]\n{key} = "xsgd"')
        assert found.sources["straitsx"].wallets == {"payout.sgd": "XSGD"}


def test_a_source_declares_how_its_payouts_name_their_customer(tmp_path: Path) -> None:
    text = OWNER.format("idempotency_id", "^cust-(.+)-[0-9]+$") + 'date_by = "receipt"'
    terms = loaded(tmp_path, text).sources["straitsx"].terms
    assert terms.owner_of == OwnerRule("idempotency_id", "^cust-(.+)-[0-9]+$")
    assert terms.date_by == "receipt"
    terms = loaded(tmp_path, SOURCE).sources["straitsx"].terms
    assert (terms.owner_of, terms.date_by) == (None, "creation")


def test_the_environment_writes_numbers_paths_and_truths_as_texts() -> None:
    found = load(
        {
            "LEDGER_PORT": "0", "LEDGER_ANSWER_SECONDS_MAX": "2.5", "LEDGER_DATA_DIR": "here",
            "LEDGER_SWAP_CHANGED_BOOKS": "yes", "LEDGER_CONNECTIONS_PER_ADDRESS_MAX": "7",
            "LEDGER_LOG_FORMAT": "json", "LEDGER_PG_USER": "5", "LEDGER_RECEIVERS": "",
        }
    )  # fmt: skip
    assert (found.port, found.answer_seconds_max, found.data_dir) == (0, 2.5, Path("here"))
    assert (found.swap_changed_books, found.connections_per_address_max) == (True, 7)
    assert (found.log_format, found.pg_user, found.receivers) == ("json", "5", 1)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (" 8081 ", 8081), ("8080\n", 8080), ("67_108_864", 67_108_864), ("08080", 8080),
        ("+8081", 8081), ("1_0", 10),
    ],
)  # fmt: skip
def test_whole_numbers_are_read_as_python_reads_them(
    tmp_path: Path, text: str, number: int
) -> None:
    assert load({"LEDGER_BODY_BYTES_MAX": text}).body_bytes_max == number
    assert loaded(tmp_path, f"body_bytes_max = {json.dumps(text)}").body_bytes_max == number


@pytest.mark.parametrize(
    ("text", "number"), [(" 4.5 ", 4.5), (".5", 0.5), ("5.", 5.0), ("1_0", 10.0), ("2e1", 20.0)]
)
def test_numbers_are_read_as_python_reads_them(text: str, number: float) -> None:
    assert load({"LEDGER_ANSWER_SECONDS_MAX": text}).answer_seconds_max == number


def test_blanks_around_texts_are_cut() -> None:
    found = load({"LEDGER_LOG_FORMAT": "json\n", "LEDGER_SWAP_CHANGED_BOOKS": " yes "})
    assert (found.log_format, found.swap_changed_books) == ("json", True)


def test_the_file_may_write_weak_secrets_as_a_number(tmp_path: Path) -> None:
    assert loaded(tmp_path, SOURCE + "weak_secrets = 1").sources["straitsx"].weak_secrets


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("LEDGER_PORT", "abc", "a whole number from 0 to 65535"),
        ("LEDGER_PORT", "null", "a whole number from 0 to 65535"),
        ("LEDGER_PORT", "70000", "a whole number from 0 to 65535"),
        ("LEDGER_RECEIVERS", "2.0", "a whole number from 1 to 64"),
        ("LEDGER_CONNECTIONS_PER_ADDRESS_MAX", "null", "a whole number, at least 1"),
        ("LEDGER_CONNECTIONS_MAX", "true", "a whole number, at least 1"),
        ("LEDGER_ANSWER_SECONDS_MAX", "null", "a number, above 0 and below 86400"),
        ("LEDGER_ANSWER_SECONDS_MAX", "true", "a number, above 0 and below 86400"),
        ("LEDGER_ANSWER_SECONDS_MAX", "nan", "a number, above 0 and below 86400"),
        ("LEDGER_ANSWER_SECONDS_MAX", "inf", "a number, above 0 and below 86400"),
        ("LEDGER_LOG_FORMAT", "null", "one of console, json"),
        ("LEDGER_LOG_FORMAT", "xml", "one of console, json"),
        ("LEDGER_SWAP_CHANGED_BOOKS", "null", "true or false"),
    ],
)
def test_a_wrong_variable_is_refused_with_what_it_accepts(
    name: str, text: str, accepted: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load({name: text})
    assert str(caught.value) == f"{name}={text!r} is not valid: expected {accepted}"


def test_a_variable_of_blanks_is_refused() -> None:
    for name in ("LEDGER_METRICS_TOKEN", "LEDGER_PORT"):
        with pytest.raises(SettingsError, match=f"{name}.* is not valid: it holds only blanks"):
            load({name: "  "})


def test_a_wrong_currency_is_named_with_its_variable() -> None:
    with pytest.raises(SettingsError, match=r"LEDGER_CURRENCY_GOKART: 'U\$D' is not a currency"):
        load({"LEDGER_CURRENCY_GOKART": "U$D"})
    assert load({"LEDGER_CURRENCY_GOKART": "sgd\n"}).sources["gokart"].currency == "SGD"


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


STRONG = "0123456789abcdef0123456789abcdef"
SECRETS = {
    "LEDGER_API_TOKENS": STRONG,
    "LEDGER_SECRET_STRAITSX": f"ss_{STRONG}",
    "LEDGER_SECRET_GOKART": STRONG[::-1],
}
OPEN = {"LEDGER_HOST": "0.0.0.0"}
BEHIND = {"LEDGER_TRUSTED_PROXIES": "127.0.0.1"}
exposed = pytest.mark.parametrize("place", [OPEN, BEHIND])


@pytest.mark.parametrize("text", ["proxy.internal", "10.0.0.0/33", "10.0.0.1:443", "*"])
def test_a_trusted_proxy_is_an_address_or_a_block_of_them(text: str) -> None:
    with pytest.raises(SettingsError, match=f"LEDGER_TRUSTED_PROXIES.*{re.escape(text)}"):
        load({**SECRETS, "LEDGER_TRUSTED_PROXIES": f"10.0.0.0/8, {text}"})


def test_blocks_of_trusted_proxies_are_read_at_start() -> None:
    found = load({**SECRETS, "LEDGER_TRUSTED_PROXIES": "10.1.2.3/8, ::ffff:192.0.2.1, fd00::/8"})
    assert [str(each) for each in found.trusted_proxies] == [
        "10.0.0.0/8", "192.0.2.1/32", "fd00::/8",
    ]  # fmt: skip


@exposed
@pytest.mark.parametrize("missing", SECRETS)
def test_whom_others_reach_needs_every_secret(place: dict[str, str], missing: str) -> None:
    load({**SECRETS, **place})
    with pytest.raises(SettingsError, match=missing):
        load({**SECRETS, **place, missing: ""})


@exposed
@pytest.mark.parametrize("weak", [*SECRETS, "LEDGER_METRICS_TOKEN"])
def test_whom_others_reach_needs_secrets_that_are_hard_to_guess(
    place: dict[str, str], weak: str
) -> None:
    given = {**SECRETS, weak: "Tr0ub4dor&3"}
    with pytest.raises(SettingsError, match=r"at most 66 bits .* 128 are needed") as caught:
        load({**given, **place})
    assert "Tr0ub4dor" not in str(caught.value)
    load(given)


def test_a_source_whose_provider_issues_short_secrets_states_so(tmp_path: Path) -> None:
    short = {"LEDGER_HOST": "0.0.0.0", "LEDGER_API_TOKENS": STRONG, "LEDGER_CONFIG": "short.toml"}
    file = tmp_path / "short.toml"
    text = '[sources.straitsx]\nsecrets = ["ss_5572cf13d099"]\n'
    file.write_text(text)
    with pytest.raises(SettingsError, match="weak_secrets = true"):
        load(short | {"LEDGER_CONFIG": str(file)})
    file.write_text(text + "weak_secrets = true\n")
    (warning,) = load(short | {"LEDGER_CONFIG": str(file)}).warnings()
    assert "which weak_secrets allows" in warning
    assert "5572" not in warning


def test_equal_secrets_of_two_sources_are_a_warning() -> None:
    assert not [each for each in load(SECRETS).warnings() if "same secret" in each]
    same = {**SECRETS, "LEDGER_SECRET_GOKART": f"{STRONG[1:]}, ss_{STRONG}"}
    (warning,) = [each for each in load(same).warnings() if "same secret" in each]
    assert warning.startswith("sources straitsx, gokart have the same secret")
    assert STRONG not in warning


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:pa/ss@db/x",
        "postgresql://u:12/ss@db/x",
        "postgresql://u:12#ss@db/x",
        "postgresql://u:12?ss@db/x",
        "postgresql://u:pass",
        "host=db password=pass",
        "mysql://u:pass@db/x",
    ],
)
def test_a_database_url_that_would_be_misread_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(SettingsError, match="LEDGER_DATABASE_URL is no URL") as caught:
        load({"LEDGER_DATABASE_URL": url})
    assert "ss" not in str(caught.value).replace("password", "").replace("PASSWORD", "")


def test_no_message_quotes_a_token(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LEDGER_API_TOKENS") as caught:
        loaded(tmp_path, 'api_tokens = ["hush", 1]')
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        SOURCE + 'secrets = ["hush", 1]',
        SOURCE + 'secrets_retired = ["hush", 1]',
        SOURCE + 'pull = "hush"',
        PULL.replace('"k"', '["hush"]'),
    ],
)
def test_no_message_quotes_a_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"secrets|pull") as caught:
        loaded(tmp_path, text)
    assert "hush" not in str(caught.value)
