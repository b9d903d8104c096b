"""Settings: environment first, then the TOML file named by LEDGER_CONFIG, then defaults.

Every limit of the program has its name and its default here; README.md lists them (a test
compares). Unknown `LEDGER_*` variables and unknown TOML keys refuse to start.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from ledger import registry
from ledger.config.pull import Pull, read_pull
from ledger.config.reconciliation import Rules, rules_of
from ledger.errors import SettingsError
from ledger.model import Provider, SourceTerms
from ledger.runtime.addresses import Network, network
from ledger.runtime.secrets import SECRET_BITS_MIN, STRONGER, is_database_url, is_weak, secret_bits
from ledger.signatures.scheme import TOLERANCE_SECONDS, Scheme
from ledger.signatures.schemes import SCHEMES

PREFIX: Final = "LEDGER_"
SOURCE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
EVENT_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A provider\'s event name, as it may stand in a callback URL."""
LOG_NAME: Final = re.compile(SOURCE_NAME.pattern + r"(\.statements)?")
"""A source's log, or the log of its statements."""
PAYLOAD_CURRENCY: Final = re.compile(r"[a-z_]+\.[a-z]{2,12}")
"""Which currency of which kind a wallet is named for."""

SECRET_SETTINGS: Final = frozenset(("api_tokens", "metrics_token", "database_url"))
"""Settings whose values no message may quote."""


@dataclass(frozen=True, slots=True)
class Source:
    """One provider account: its URL segment, its log, how its callbacks are authenticated."""

    name: str
    provider: str
    secrets: tuple[str, ...] = ()
    header: str = ""
    """The header that authenticates a callback; "" where the scheme prescribes its own."""
    allow_ips: tuple[str, ...] = ()
    currency: str | None = None
    wallets: Mapping[str, str] = field(default_factory=dict)
    reconcile: Rules = field(default_factory=Rules)
    pull: Pull | None = None
    weak_secrets: bool = False
    """Whether secrets under 128 bits are taken wherever the service is reached from."""
    secrets_retired: tuple[str, ...] = ()
    """Secrets that authenticate nothing any more; `verify` checks what they signed with them."""
    unsigned_until: int = 0
    """The last position of the log that was taken before the source had a secret."""
    unsigned_statements_until: int = 0
    """The same of the log of the source's statements."""
    scheme: str = ""
    """The name of the signature scheme; "" = that of the provider."""
    tolerance_seconds: float = TOLERANCE_SECONDS
    """How far the signed time of a callback may be from ours, if its scheme signs one."""
    is_assumed: bool = False
    """Whether no setting names the source, which is there because every service has it."""

    def __repr__(self) -> str:
        return f"Source({self.name!r}, provider={self.provider!r}, secrets={len(self.secrets)})"

    @property
    def scheme_type(self) -> type[Scheme]:
        """The signature scheme by which callbacks of this source are authenticated."""
        return SCHEMES[self.scheme or registry.load().providers[self.provider].scheme]

    def signatures(self, secrets: Sequence[str] | None = None) -> Scheme:
        """Return the scheme with this source's header, and its secrets or those given."""
        given = self.secrets if secrets is None else secrets
        return self.scheme_type(self.header, given, self.tolerance_seconds)

    @property
    def default_currency(self) -> str | None:
        """The currency that is assumed where neither callbacks nor settings name one."""
        provider = registry.load().providers.get(self.provider)
        return provider.default_currency if provider else None

    @property
    def terms(self) -> SourceTerms:
        """What facts and postings of this source need to know."""
        currency = self.currency or self.default_currency
        return SourceTerms(self.name, self.provider, currency, dict(self.wallets))


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured. Times are seconds, sizes bytes, unless named so."""

    database_url: str | None = field(default=None, repr=False)
    data_dir: Path = Path("ledger-data")
    host: str = "127.0.0.1"
    port: int = 8080
    receivers: int = 1
    body_bytes_max: int = 262_144
    statement_bytes_max: int = 67_108_864
    api_tokens: tuple[str, ...] = field(default=(), repr=False)
    metrics_token: str | None = field(default=None, repr=False)
    log_format: str | None = None
    pg_bin: str | None = None
    pg_user: str | None = None
    trusted_proxies: tuple[Network, ...] = ()
    connections_max: int = 2_000
    connections_per_address_max: int | None = None
    queue_events_max: int = 10_000
    queue_bytes_max: int = 64 * 1024 * 1024
    batch_events_max: int = 500
    batch_bytes_max: int = 8 * 1024 * 1024
    answer_seconds_max: float = 4.5
    body_seconds_max: float = 10.0
    header_seconds_max: float = 15.0
    keepalive_seconds_max: float = 75.0
    drain_seconds_max: float = 10.0
    fold_events_max: int = 1_000
    fold_bytes_max: int = 16 * 1024 * 1024
    swap_changed_books: bool = False
    refused_per_second_max: int = 50
    refused_rows_max: int = 100_000
    url: str | None = None
    sources: Mapping[str, Source] = field(default_factory=dict)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_exposed(self) -> bool:
        """Whether others than this machine's own programs reach the service, or may."""
        return not self.on_loopback or bool(self.trusted_proxies)

    @property
    def per_address_max(self) -> int:
        """Open connections from one address: a quarter of all unless set otherwise."""
        return self.connections_per_address_max or max(1, self.connections_max // 4)

    @property
    def rules(self) -> dict[str, Rules]:
        """By which rules each source is reconciled and looked over."""
        return {name: source.reconcile for name, source in self.sources.items()}

    def warnings(self) -> list[str]:
        """Return what is allowed but deserves a word at start and on /v1/status."""
        found = _shared_secrets(self.sources.values())
        for source in self.sources.values():
            if not source.secrets:
                found.append(
                    f"source {source.name} has no secret: unsigned callbacks are accepted, because "
                    f"the service is reachable from this machine only; set {secret_name(source)}"
                )
            if source.weak_secrets and any(map(is_weak, source.secrets)):
                found.append(
                    f"source {source.name} has a secret under {SECRET_BITS_MIN} bits, which "
                    "weak_secrets allows: ask the provider for a longer one, and set allow_ips"
                )
            if not source.currency and source.default_currency:
                found.append(
                    f"source {source.name} has no currency: {source.terms.currency} is assumed; "
                    f"set currency under [sources.{source.name}]"
                )
        return found


def _shared_secrets(sources: Iterable[Source]) -> list[str]:
    """Name the sources that share a secret: who knows it for one can write for all of them."""
    holders: dict[str, list[str]] = {}
    for source in sources:
        for secret in dict.fromkeys(source.secrets):
            holders.setdefault(secret, []).append(source.name)
    groups = dict.fromkeys(tuple(names) for names in holders.values() if len(names) > 1)
    return [
        f"sources {', '.join(names)} have the same secret: a callback signed for one of them is "
        "authentic for the others; give each a secret of its own"
        for names in groups
    ]


def source_of_provider(provider: str, name: str | None = None) -> Source:
    """Return a source without a secret that no setting names. Raises SettingsError."""
    return _source(name or provider, {"provider": provider}, {})


def secret_name(source: Source) -> str:
    """Name the variable that holds a source's secrets when no TOML file does."""
    return f"{PREFIX}SECRET_{source.name.upper().replace('-', '_')}"


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings. Raises SettingsError, naming the setting, for anything not understood."""
    table = _read_file(environ.get(PREFIX + "CONFIG"))
    raw_sources = table.pop("sources", None)
    names = {f.name for f in fields(Settings)} - {"sources"}
    known = {PREFIX + name.upper() for name in names} | {PREFIX + "CONFIG", PREFIX + "SOURCES"}
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.removeprefix(PREFIX).lower()
        if name not in names:
            raise SettingsError(f"unknown setting {key!r} in {environ.get(PREFIX + 'CONFIG')}")
        values[name] = value
    for name in names:
        text = environ.get(PREFIX + name.upper())
        if text is not None and text != "":
            values[name] = text
    sources = _sources(raw_sources, environ)
    per_source = {variable for name in sources for variable in _variables(name)}
    for name in environ:
        if name.startswith(PREFIX) and name not in known and name not in per_source:
            raise SettingsError(
                f"unknown environment variable {name}; remove it or see the settings table in "
                "README.md (a secret needs its source in LEDGER_SOURCES or the TOML file)"
            )
    settings = Settings(**{k: _coerce(k, v) for k, v in values.items()}, sources=sources)
    _check(settings)
    return settings


def _read_file(name: str | None) -> dict[str, Any]:
    if not name:
        return {}
    try:
        return tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"LEDGER_CONFIG={name} cannot be read: {error}") from error


def _coerce(name: str, value: Any) -> Any:
    kind = next(f.type for f in fields(Settings) if f.name == name)
    try:
        match kind:
            case "int" | "int | None":
                if isinstance(value, bool | float):
                    raise ValueError("not a whole number")
                number = int(value)
                if number < 0:
                    raise ValueError("negative")
                return number
            case "bool":
                return _truth(value)
            case "float":
                seconds = float(value)
                if not 0 < seconds < 86_400:
                    raise ValueError("out of range")
                return seconds
            case "Path":
                return Path(value)
            case "tuple[str, ...]":
                return _words(value)
            case "tuple[Network, ...]":
                return tuple(network(word) for word in _words(value))
            case _:
                return str(value)
    except (TypeError, ValueError) as error:
        given = "" if name in SECRET_SETTINGS else f"={value!r}"
        raise SettingsError(f"{PREFIX}{name.upper()}{given} is not valid: {error}") from error


def _truth(value: Any) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in known:
        raise ValueError("expected true or false")
    return known[str(value).lower()]


def _coerce_words(name: str, value: Any) -> tuple[str, ...]:
    try:
        return _words(value)
    except ValueError as error:
        raise SettingsError(f"{name}={value!r} is not valid: {error}") from error


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [word for word in value.split(",") if word.strip()]
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise ValueError("expected texts")
    words = tuple(word.strip() for word in value)
    if "" in words:
        raise ValueError("a text is empty; leave it out")
    return words


def _sources(raw: Any, environ: Mapping[str, str]) -> dict[str, Source]:
    is_named = raw is not None or PREFIX + "SOURCES" in environ
    named = environ.get(PREFIX + "SOURCES", _default_sources() if raw is None else raw)
    if not isinstance(named, dict):
        names = _coerce_words("sources", named)
        table = raw if isinstance(raw, dict) else {}
        raw = {name: table.get(name, {"provider": name}) for name in names}
    if not isinstance(raw, dict) or not raw:
        raise SettingsError("no sources: set LEDGER_SOURCES or add [sources.<name>] to the file")
    found = {name: _source(name, body, environ) for name, body in raw.items()}
    assumed = {name for name in found if not (is_named or any(map(environ.get, _variables(name))))}
    return {name: replace(each, is_assumed=name in assumed) for name, each in found.items()}


def _default_sources() -> list[str]:
    """Return the sources that there are when nothing names any: those of some providers."""
    places = {
        name: provider.default_place
        for name, provider in registry.load().providers.items()
        if provider.default_place is not None
    }
    return sorted(places, key=lambda name: (places[name], name))


def _variables(source: str) -> list[str]:
    """Name the variables that are about one source."""
    words = "SECRET", "SECRETS_RETIRED", "CURRENCY"
    return [f"{PREFIX}{word}_{source.upper().replace('-', '_')}" for word in words]


def _source(name: str, body: Any, environ: Mapping[str, str]) -> Source:
    if not SOURCE_NAME.fullmatch(name):
        raise SettingsError(f"source name {name!r}: use lower case letters, digits, - and _")
    allowed = {f.name for f in fields(Source)} - {"name", "is_assumed"}
    if not isinstance(body, dict) or set(body) - allowed:
        raise SettingsError(f"[sources.{name}] takes only {', '.join(sorted(allowed))}")
    provider = _provider(name, body.get("provider", name))
    suffix = name.upper().replace("-", "_")
    try:
        given = environ.get(f"{PREFIX}SECRET_{suffix}") or body.get("secrets", ())
        retired = environ.get(f"{PREFIX}SECRETS_RETIRED_{suffix}") or body.get(
            "secrets_retired", ()
        )
        scheme = _scheme(body.get("scheme", provider.scheme))
        source = Source(
            name=name,
            provider=provider.name,
            scheme=scheme.name,
            tolerance_seconds=_tolerance(scheme, body),
            secrets=tuple(_secret(name, text, environ) for text in _secrets(given)),
            secrets_retired=tuple(_secret(name, text, environ) for text in _secrets(retired)),
            unsigned_until=_position(body.get("unsigned_until", 0)),
            unsigned_statements_until=_position(body.get("unsigned_statements_until", 0)),
            weak_secrets=_truth(body.get("weak_secrets", False)),
            header=_header(scheme, body, provider),
            allow_ips=_words(body.get("allow_ips", ())),
            currency=_currency(environ.get(f"{PREFIX}CURRENCY_{suffix}") or body.get("currency")),
            wallets=_wallets(body.get("wallets", {})),
            reconcile=rules_of(dict(body.get("reconcile", {}))),
            pull=_pull(name, body, provider, environ),
        )  # fmt: skip
        for block in source.allow_ips:
            network(block)
        source.signatures()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"[sources.{name}]: {error}") from error
    return source


def _provider(source: str, name: Any) -> Provider:
    known = registry.load().providers
    if not isinstance(name, str) or name not in known:
        raise SettingsError(
            f"source {source!r}: provider {name!r} is none of {', '.join(sorted(known))}; "
            f"name it under [sources.{source}] in the file that LEDGER_CONFIG names"
        )
    return known[name]


def _scheme(name: Any) -> type[Scheme]:
    if not isinstance(name, str) or name not in SCHEMES:
        raise ValueError(f"scheme {name!r} is none of {', '.join(SCHEMES)}")
    return SCHEMES[name]


def _tolerance(scheme: type[Scheme], body: Mapping[str, Any]) -> float:
    if "tolerance_seconds" not in body:
        return TOLERANCE_SECONDS
    value = body["tolerance_seconds"]
    if not scheme.signs_time:
        raise ValueError(f"tolerance_seconds: callbacks of {scheme.name} carry no signed time")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 86_400:
        raise ValueError("tolerance_seconds: expected seconds from 1 to 86400")
    return float(value)


def _header(scheme: type[Scheme], body: Mapping[str, Any], provider: Provider) -> str:
    if scheme.own_headers:
        if "header" in body:
            raise ValueError(f"header: {scheme.name} has headers of its own; leave it out")
        return ""
    value = body.get("header", provider.header)
    if not isinstance(value, str) or not registry.HEADER_NAME.fullmatch(value):
        raise ValueError(f"header {value!r} cannot be the name of a header")
    return value


def _pull(
    name: str, body: Mapping[str, Any], provider: Provider, environ: Mapping[str, str]
) -> Pull | None:
    table = body.get("pull")
    if table is None:
        return None
    if provider.statement_api is None:
        raise ValueError(f"pull: statements of {provider.name} come as files only; import them")
    return read_pull(table, lambda text: _secret(name, text, environ))


def _flat(table: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Accept both `"payout.sgd" = "XSGD"` and the bare TOML spelling `payout.sgd = "XSGD"`."""
    pairs: list[tuple[str, Any]] = []
    for key, value in dict(table).items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, value))
    return pairs


def _wallets(table: Any) -> dict[str, str]:
    wallets: dict[str, str] = {}
    for key, value in _flat(table):
        name = _payload_currency(key)
        if name in wallets:
            raise ValueError(f"wallets: {name!r} is named twice")
        wallets[name] = _currency(value) or ""
    return wallets


def _payload_currency(key: str) -> str:
    name = key.lower()
    if not PAYLOAD_CURRENCY.fullmatch(name):
        raise ValueError(f'wallets: {key!r} is not like "payout.sgd"')
    kinds = registry.load().money_kinds
    if name.partition(".")[0] not in kinds:
        raise ValueError(f"wallets: {key!r} is for none of {', '.join(sorted(kinds))}")
    return name


def _position(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a position of a log")
    return value


def _currency(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z]{2,12}", value):
        raise ValueError(f"{value!r} is not a currency")
    return value.upper()


def _secrets(value: Any) -> tuple[str, ...]:
    """Return what is named as secrets; only an absent key or [] says that there are none."""
    words = _words(value)
    if isinstance(value, str) and not words:
        raise ValueError("its secret is empty; leave it out to take unsigned callbacks")
    return words


def _secret(source: str, text: str, environ: Mapping[str, str]) -> str:
    scheme, _, rest = text.partition(":")
    if scheme == "env":
        value = environ.get(rest, "").strip()
    elif scheme == "file":
        try:
            value = Path(rest).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(f"secret of source {source}: {error}") from error
    else:
        value = text
    if not value:
        raise SettingsError(f"secret of source {source} is empty: set what {scheme}:{rest} names")
    return value


def _check(settings: Settings) -> None:
    if settings.port > 65_535:
        raise SettingsError(f"LEDGER_PORT={settings.port} is not a port")
    if not 1 <= settings.receivers <= 64:
        raise SettingsError(
            f"LEDGER_RECEIVERS is {settings.receivers}; it must be between 1 and 64"
        )
    if settings.log_format not in (None, "console", "json"):
        raise SettingsError(
            f"LEDGER_LOG_FORMAT is {settings.log_format!r}; it must be console or json"
        )
    for name in (f.name for f in fields(Settings) if f.name.endswith("_max")):
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise SettingsError(f"{PREFIX}{name.upper()} must be at least 1")
    if settings.database_url and not is_database_url(settings.database_url):
        raise SettingsError(
            "LEDGER_DATABASE_URL is no URL of a PostgreSQL database: begin it with postgresql:// "
            "and write special characters of the password URL-encoded, as %40, %2F, %3F or %23"
        )
    if settings.is_exposed:
        _check_exposed(settings)


def _check_exposed(settings: Settings) -> None:
    """Refuse what may be open, or easily guessed, on this machine only. Raises SettingsError."""
    if settings.on_loopback:
        why = "LEDGER_TRUSTED_PROXIES passes on what other machines send"
        otherwise = "remove LEDGER_TRUSTED_PROXIES"
    else:
        why = f"LEDGER_HOST={settings.host} can be reached from other machines"
        otherwise = "bind to 127.0.0.1"
    if not settings.api_tokens:
        raise SettingsError(f"{why}: set LEDGER_API_TOKENS, or {otherwise}")
    for source in settings.sources.values():
        if not source.secrets:
            raise SettingsError(
                f"source {source.name} has no secret and {why}: set {secret_name(source)}, "
                f"or {otherwise}"
            )
    for name, secret in _strong_secrets(settings):
        if is_weak(secret):
            raise SettingsError(
                f"{name} has at most {secret_bits(secret)} bits and {why}: {SECRET_BITS_MIN} are "
                f"needed; {STRONGER} (a provider that issues no longer ones: weak_secrets = true "
                "under [sources.<name>])"
            )


def _strong_secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield every secret and token that must be strong, under the name of where it is set."""
    for token in settings.api_tokens:
        yield "a token of LEDGER_API_TOKENS", token
    if settings.metrics_token:
        yield "LEDGER_METRICS_TOKEN", settings.metrics_token
    for source in settings.sources.values():
        for secret in () if source.weak_secrets else source.secrets:
            yield f"a secret of source {source.name}", secret
