"""Settings: environment first, then the TOML file named by LEDGER_CONFIG, then defaults.

Every limit of the program has its name and its default here; GUIDE.md lists them (a test
compares). Unknown `LEDGER_*` variables and unknown TOML keys refuse to start.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints

from msgspec import Meta

from ledger.config.conversion import convert, convert_text
from ledger.config.reconciliation import Rules
from ledger.config.source import (
    PREFIX,
    Source,
    default_sources,
    read_source,
    secret_name,
    variables,
)
from ledger.config.values import to_networks, to_texts, to_truth
from ledger.errors import SettingsError
from ledger.runtime.addresses import Network
from ledger.runtime.secrets import SECRET_BITS_MIN, STRONGER, is_database_url, is_weak, secret_bits

SECRET_SETTINGS: Final = frozenset(("api_tokens", "metrics_token", "database_url"))
"""Settings whose values no message may quote."""


Limit = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, lt=86_400)]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured. Times are seconds, sizes bytes, unless named so."""

    database_url: str | None = field(default=None, repr=False)
    data_dir: Path = Path("ledger-data")
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    receivers: Annotated[int, Meta(ge=1, le=64)] = 1
    body_bytes_max: Limit = 262_144
    statement_bytes_max: Limit = 67_108_864
    api_tokens: tuple[str, ...] = field(default=(), repr=False)
    metrics_token: str | None = field(default=None, repr=False)
    log_format: Literal["console", "json"] | None = None
    pg_bin: str | None = None
    pg_user: str | None = None
    trusted_proxies: tuple[Network, ...] = ()
    connections_max: Limit = 2_000
    connections_per_address_max: Limit | None = None
    queue_events_max: Limit = 10_000
    queue_bytes_max: Limit = 64 * 1024 * 1024
    batch_events_max: Limit = 500
    batch_bytes_max: Limit = 8 * 1024 * 1024
    answer_seconds_max: Seconds = 4.5
    body_seconds_max: Seconds = 10.0
    header_seconds_max: Seconds = 15.0
    keepalive_seconds_max: Seconds = 75.0
    drain_seconds_max: Seconds = 10.0
    fold_events_max: Limit = 1_000
    fold_bytes_max: Limit = 16 * 1024 * 1024
    swap_changed_books: bool = False
    refused_per_second_max: Limit = 50
    refused_rows_max: Limit = 100_000
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
        """Return what is allowed but deserves a warning at start and on /v1/status."""
        warnings = _shared_secrets(self.sources.values())
        for source in self.sources.values():
            if not source.secrets:
                warnings.append(
                    f"source {source.name} has no secret: unsigned callbacks are accepted, because "
                    f"the service is reachable from this machine only; set {secret_name(source)}"
                )
            if source.weak_secrets and any(map(is_weak, source.secrets)):
                warnings.append(
                    f"source {source.name} has a secret under {SECRET_BITS_MIN} bits, which "
                    "weak_secrets allows: ask the provider for a longer one, and set allow_ips"
                )
            if not source.currency and source.default_currency:
                warnings.append(
                    f"source {source.name} has no currency: {source.terms.currency} is assumed; "
                    f"set currency under [sources.{source.name}]"
                )
        return warnings


_TYPES: Final = get_type_hints(Settings, include_extras=True)
_READERS: Final[Mapping[Any, Callable[[Any], Any]]] = {
    bool: to_truth,
    Path: Path,
    tuple[str, ...]: to_texts,
    tuple[Network, ...]: to_networks,
}
"""Types with a notation of their own; `conversion` reads the others."""


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
    per_source = {variable for name in sources for variable in variables(name)}
    for name in environ:
        if name.startswith(PREFIX) and name not in known and name not in per_source:
            raise SettingsError(
                f"unknown environment variable {name}; remove it or see the settings table in "
                "README.md (a secret needs its source in LEDGER_SOURCES or the TOML file)"
            )
    settings = Settings(**{k: _read(k, v) for k, v in values.items()}, sources=sources)
    _check(settings)
    return settings


def _read_file(name: str | None) -> dict[str, Any]:
    if not name:
        return {}
    try:
        return tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"LEDGER_CONFIG={name} cannot be read: {error}") from error


def _read(name: str, value: Any) -> Any:
    """Return a setting's value; a text, as the environment has it, may be a number."""
    kind = _TYPES[name]
    reader = _READERS.get(kind)
    try:
        if reader is not None:
            return reader(value)
        return convert_text(value, kind) if isinstance(value, str) else convert(value, kind)
    except (TypeError, ValueError) as error:
        given = "" if name in SECRET_SETTINGS else f"={value!r}"
        raise SettingsError(f"{PREFIX}{name.upper()}{given} is not valid: {error}") from error


def _sources(raw: Any, environ: Mapping[str, str]) -> dict[str, Source]:
    """Read every source; `raw` is `sources` of the file: their tables, or only their names."""
    is_named = raw is not None or PREFIX + "SOURCES" in environ
    named = environ.get(PREFIX + "SOURCES", default_sources() if raw is None else raw)
    if not isinstance(named, dict):
        try:
            names = to_texts(named)
        except ValueError as error:
            raise SettingsError(f"sources={named!r} is not valid: {error}") from error
        table = raw if isinstance(raw, dict) else {}
        named = {name: table.get(name, {"provider": name}) for name in names}
    if not named:
        raise SettingsError("no sources: set LEDGER_SOURCES or add [sources.<name>] to the file")
    sources = {name: read_source(name, table, environ) for name, table in named.items()}
    assumed = {name for name in sources if not (is_named or any(map(environ.get, variables(name))))}
    return {name: replace(each, is_assumed=name in assumed) for name, each in sources.items()}


def _check(settings: Settings) -> None:
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
