"""The settings of `[sources.<name>]`: one provider account, its log, how it is authenticated."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from ledger import registry
from ledger.config.conversion import convert_table
from ledger.config.owner_rule import read_owner_rule
from ledger.config.pull import Pull, read_pull
from ledger.config.reconciliation import Rules, rules_of
from ledger.config.statement_profile import StatementProfile, account_number, profile_of
from ledger.config.values import to_currency, to_networks, to_texts, to_truth
from ledger.errors import SettingsError
from ledger.model import OwnerRule, Provider, SourceTerms
from ledger.signatures.scheme import TOLERANCE_SECONDS, Scheme
from ledger.signatures.schemes import SCHEMES

PREFIX: Final = "LEDGER_"
SECRET_KEYS: Final = ("secrets", "secrets_retired", "pull")
"""Keys of a source whose values no message may quote."""
SOURCE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
EVENT_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A provider's event name, as it may be in a callback URL."""
LOG_NAME: Final = re.compile(SOURCE_NAME.pattern + r"(\.statements)?")
"""A source's log, or the log of its statements."""
PAYLOAD_CURRENCY: Final = re.compile(r"[a-z_]+\.[a-z]{2,12}")
"""Which currency of which kind a wallet is named for."""

T = TypeVar("T")
Position = Annotated[int, Meta(ge=0)]


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
    accounts: Mapping[str, str] = field(default_factory=dict)
    """Account, without blanks and in upper case → the wallet that its statements prove."""
    statements: Mapping[str, StatementProfile] = field(default_factory=dict)
    """Name → how such statement files are written."""
    pull: Pull | None = None
    weak_secrets: bool = False
    """Whether secrets under 128 bits are accepted wherever the service is reached from."""
    secrets_retired: tuple[str, ...] = ()
    """Secrets that authenticate nothing any more; `verify` checks what was signed with them."""
    unsigned_until: int = 0
    """The last position of the log that was taken before the source had a secret."""
    unsigned_statements_until: int = 0
    """The same of the log of the source's statements."""
    scheme: str = ""
    """The name of the signature scheme; "" = that of the provider."""
    tolerance_seconds: float = TOLERANCE_SECONDS
    """How far the signed time of a callback may be from ours, if its scheme signs one."""
    owner_of: OwnerRule | None = None
    """How its payouts name their customer."""
    date_by: str = "creation"
    """When a state without a time of its own was reached: `creation` or `receipt`."""
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
        return SourceTerms(
            self.name, self.provider, currency, dict(self.wallets), self.owner_of, self.date_by
        )


class SourceTable(msgspec.Struct, frozen=True):
    """The keys of a `[sources.<name>]` table, as they are written."""

    provider: str | None = None
    scheme: str | None = None
    header: str | None = None
    tolerance_seconds: Annotated[float, Meta(ge=1, le=86_400)] | None = None
    secrets: str | list[str] = []
    secrets_retired: str | list[str] = []
    weak_secrets: Any = False
    allow_ips: str | list[str] = []
    currency: Any = None
    wallets: dict[str, Any] = {}
    owner_of: dict[str, Any] | None = None
    date_by: Literal["creation", "receipt"] = "creation"
    unsigned_until: Position = 0
    unsigned_statements_until: Position = 0
    reconcile: dict[str, Any] = {}
    accounts: dict[str, Any] = {}
    statements: dict[str, Any] = {}
    pull: dict[str, Any] | None = None


def read_source(name: str, table: Any, environ: Mapping[str, str]) -> Source:
    """Read one source's table and variables. Raises SettingsError, naming the source."""
    if not SOURCE_NAME.fullmatch(name):
        raise SettingsError(f"source name {name!r}: use lower case letters, digits, - and _")
    known = SourceTable.__struct_fields__
    if not isinstance(table, dict) or set(table) - set(known):
        raise SettingsError(f"[sources.{name}] takes only {', '.join(sorted(known))}")
    try:
        keys = convert_table(table, SourceTable, SECRET_KEYS)
        return _source(name, keys, environ)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"[sources.{name}]: {error}") from error


def source_of_provider(provider: str, name: str | None = None) -> Source:
    """Return a source without a secret that no setting names. Raises SettingsError."""
    return read_source(name or provider, {"provider": provider}, {})


def default_sources() -> list[str]:
    """Return the sources that exist when no setting names any: those of some providers."""
    places = {
        name: provider.default_place
        for name, provider in registry.load().providers.items()
        if provider.default_place is not None
    }
    return sorted(places, key=lambda name: (places[name], name))


def secret_name(source: Source) -> str:
    """Name the variable that holds a source's secrets when no TOML file does."""
    return _variable("SECRET", source.name)


def variables(source: str) -> list[str]:
    """Name the environment variables that are about one source."""
    return [_variable(word, source) for word in ("SECRET", "SECRETS_RETIRED", "CURRENCY")]


def _variable(word: str, source: str) -> str:
    return f"{PREFIX}{word}_{source.upper().replace('-', '_')}"


def _source(name: str, table: SourceTable, environ: Mapping[str, str]) -> Source:
    provider = _provider(name, table.provider or name)
    scheme = _scheme(table.scheme or provider.scheme)
    secrets, retired, currency = map(environ.get, variables(name))
    _named("allow_ips", to_networks, table.allow_ips)
    source = Source(
        name=name,
        provider=provider.name,
        scheme=scheme.name,
        header=_header(scheme, table.header, provider),
        tolerance_seconds=_tolerance(scheme, table.tolerance_seconds),
        secrets=_secrets(name, secrets or table.secrets, environ),
        secrets_retired=_secrets(name, retired or table.secrets_retired, environ),
        weak_secrets=_named("weak_secrets", to_truth, table.weak_secrets),
        allow_ips=to_texts(table.allow_ips),
        currency=_currency(name, currency, table.currency),
        wallets=_wallets(table.wallets),
        owner_of=None if table.owner_of is None else read_owner_rule(table.owner_of),
        date_by=table.date_by,
        unsigned_until=table.unsigned_until,
        unsigned_statements_until=table.unsigned_statements_until,
        reconcile=rules_of(table.reconcile),
        accounts=_accounts(table.accounts),
        statements=_profiles(table.statements),
        pull=_pull(name, table.pull, provider, environ),
    )
    source.signatures()  # whether its secrets are of its scheme
    return source


def _provider(source: str, name: str) -> Provider:
    known = registry.load().providers
    if name not in known:
        raise ValueError(
            f"provider {name!r} is none of {', '.join(sorted(known))}; "
            f"name it under [sources.{source}] in the file that LEDGER_CONFIG names"
        )
    return known[name]


def _scheme(name: str) -> type[Scheme]:
    if name not in SCHEMES:
        raise ValueError(f"scheme {name!r} is none of {', '.join(SCHEMES)}")
    return SCHEMES[name]


def _header(scheme: type[Scheme], given: str | None, provider: Provider) -> str:
    if scheme.own_headers:
        if given is not None:
            raise ValueError(f"header: {scheme.name} has headers of its own; leave it out")
        return ""
    header = provider.header if given is None else given
    if not registry.HEADER_NAME.fullmatch(header):
        raise ValueError(f"header {header!r} cannot be the name of a header")
    return header


def _tolerance(scheme: type[Scheme], given: float | None) -> float:
    if given is None:
        return TOLERANCE_SECONDS
    if not scheme.signs_time:
        raise ValueError(f"tolerance_seconds: callbacks of {scheme.name} carry no signed time")
    return given


def _secrets(source: str, value: str | list[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is named as secrets; an absent key or [] means that there are none."""
    words = to_texts(value)
    if isinstance(value, str) and not words:
        raise ValueError("its secret is empty; leave it out to take unsigned callbacks")
    return tuple(_secret(source, word, environ) for word in words)


def _secret(source: str, text: str, environ: Mapping[str, str]) -> str:
    """Return a secret that is written out, or the one that `env:` or `file:` refers to."""
    place, _, rest = text.partition(":")
    if place == "env":
        value = environ.get(rest, "").strip()
    elif place == "file":
        try:
            value = Path(rest).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(f"secret of source {source}: {error}") from error
    else:
        value = text
    if not value:
        raise SettingsError(f"secret of source {source} is empty: set what {place}:{rest} names")
    return value


def _pull(
    source: str, table: dict[str, Any] | None, provider: Provider, environ: Mapping[str, str]
) -> Pull | None:
    if table is None:
        return None
    if provider.statement_api is None:
        raise ValueError(f"pull: statements of {provider.name} come as files only; import them")
    return read_pull(table, lambda text: _secret(source, text, environ))


def _currency(source: str, variable: str | None, key: Any) -> str | None:
    """Return a source's currency, from its variable before its key."""
    if variable:
        return _named(_variable("CURRENCY", source), to_currency, variable)
    return None if key is None else _named("currency", to_currency, key)


def _named(key: str, read: Callable[[Any], T], value: Any) -> T:
    """Read a value. Raises ValueError, which names its key."""
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def _wallets(table: Mapping[str, Any]) -> dict[str, str]:
    wallets: dict[str, str] = {}
    for key, value in _flat(table):
        name = _payload_currency(key)
        if name in wallets:
            raise ValueError(f"wallets: {name!r} is named twice")
        wallets[name] = _named(f"wallets: {key}", to_currency, value)
    return wallets


def _accounts(table: Mapping[str, Any]) -> dict[str, str]:
    """Return account → wallet. Several accounts of one wallet are names of one account."""
    accounts: dict[str, str] = {}
    for name, currency in table.items():
        account = account_number(name)
        if not account or account in accounts:
            raise ValueError(f"accounts: {name!r} is empty or named twice")
        accounts[account] = _named(f"accounts: {name}", to_currency, currency)
    return accounts


def _profiles(table: Mapping[str, Any]) -> dict[str, StatementProfile]:
    """Return the declared profiles of statement files."""
    profiles: dict[str, StatementProfile] = {}
    for name, declared in table.items():
        if not isinstance(declared, dict):
            raise ValueError(f"statements.{name} is not a table, as [sources.x.statements.{name}]")
        try:
            profiles[name] = profile_of(declared)
        except ValueError as error:
            raise ValueError(f"statements.{name}: {error}") from error
    return profiles


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Accept both `"payout.sgd" = "XSGD"` and the bare TOML spelling `payout.sgd = "XSGD"`."""
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, value))
    return pairs


def _payload_currency(key: str) -> str:
    name = key.lower()
    if not PAYLOAD_CURRENCY.fullmatch(name):
        raise ValueError(f'wallets: {key!r} is not like "payout.sgd"')
    kinds = registry.load().money_kinds
    if name.partition(".")[0] not in kinds:
        raise ValueError(f"wallets: {key!r} is for none of {', '.join(sorted(kinds))}")
    return name
