"""Finds handlers and projections by their presence, and reads callbacks for appending."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from types import ModuleType
from typing import Any, Final

import handlers
import projections
from ledger.errors import InvalidCallback, MalformedBody, RegistryError
from ledger.fold.dispatch import OPERATOR, UNKNOWN, AmbiguousType, Dispatch
from ledger.model import (
    Envelope,
    Handler,
    MoneyKind,
    MoneyProjection,
    Payload,
    Projection,
    Provider,
    Record,
    StreamProjection,
    as_currency,
    shown,
)
from ledger.signatures.schemes import SCHEMES
from ledger.strict_form import parse_body

UNREADABLE: Final = "unreadable"
BY_URL: Final = "by_url"
"""Where the key of a callback has its kind, when only the event name in the URL decides it."""
STATEMENT: Final = "statement"
"""The provider of logs that hold statements."""
INTERNAL: Final = frozenset({OPERATOR, STATEMENT})
"""What handlers name as the provider of events that the service itself writes."""
PROVIDER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
API_SCHEME: Final = "token"
"""The name of the API's own tokens in its description, beside those of the providers."""
LISTS: Final = frozenset({"events", "views"})
"""Lists of the service itself, which an export would find instead of a table of that name."""
COLUMN_TYPES: Final = (
    "text", "text[]", "bigint", "int", "numeric", "boolean", "timestamptz", "jsonb", "bytea",
)  # fmt: skip
"""The PostgreSQL types that a column of a projection's table may have."""
HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


class WrongEnvelope(Exception):
    """A handler returned what is no envelope of its kind."""


class ParsedCallback(Record, frozen=True):
    """What the receiver makes of a body: its envelope, and why it is quarantined, if it is."""

    envelope: Envelope
    reason: str | None = None
    detail: str | None = None
    is_by_url: bool = False
    """Whether the event name in the URL, which no signature covers, may have decided what it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Registry:
    """All providers, their handlers and all projections."""

    providers: Mapping[str, Provider]
    handlers: Mapping[str, tuple[Handler, ...]]
    streams: Mapping[str, StreamProjection]
    """kind → the projection that folds its streams"""
    projections: tuple[Projection, ...]
    dispatch: Dispatch = field(init=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "dispatch", Dispatch(self.handlers))
        except AmbiguousType as error:
            raise RegistryError(str(error)) from error

    @property
    def money_kinds(self) -> frozenset[str]:
        """The kinds of transactions: what moves a wallet."""
        folded = self.streams.items()
        return frozenset(kind for kind, view in folded if view.table.name == "transactions")

    def read(self, provider: str, path_event: str | None, body: bytes) -> ParsedCallback:
        """Read a callback's envelope for appending. Raises for no body and no error of a handler.

        What a handler fails to read, or returns wrongly, has the reason `handler_failed`.
        """
        unreadable = Envelope(UNREADABLE, "", UNREADABLE)
        try:
            fields = parse_body(body)
        except MalformedBody as error:
            return ParsedCallback(unreadable, UNREADABLE, str(error))
        except InvalidCallback as error:
            return ParsedCallback(unreadable, error.reason, error.detail)
        try:
            payload = Payload(fields, path_event)
        except InvalidCallback as error:
            return ParsedCallback(unreadable, UNREADABLE, error.detail)
        try:
            return self._parsed(provider, payload, body)
        except InvalidCallback as error:
            return ParsedCallback(Envelope(UNKNOWN, "", UNKNOWN), error.reason, error.detail)
        except WrongEnvelope as error:
            detail = str(error)
        except Exception as error:  # noqa: BLE001 - a handler's bug must not cost a callback
            detail = f"reading the envelope raised {type(error).__name__}"
        return ParsedCallback(Envelope(UNKNOWN, "", UNKNOWN), "handler_failed", detail)

    def _parsed(self, provider: str, payload: Payload, body: bytes) -> ParsedCallback:
        handler = self.dispatch.handler_of(provider, payload, body)
        envelope = handler.envelope(payload)
        _check_envelope(handler, envelope)
        is_by_url = self.dispatch.depends_on_url(provider, payload)
        if envelope.status.startswith("unknown:"):
            detail = _unknown_status(handler, envelope)
            return ParsedCallback(envelope, "unknown_status", detail, is_by_url)
        return ParsedCallback(envelope, is_by_url=is_by_url)


def _check_envelope(handler: Handler, envelope: Any) -> None:
    """Check that an envelope can be stored, whatever the handler returned. Raises WrongEnvelope."""
    if not isinstance(envelope, Envelope):
        raise WrongEnvelope(f"the handler of {handler.kind} returned no Envelope")
    if envelope.kind != handler.kind:
        raise WrongEnvelope(f"the handler of {handler.kind} returned an envelope of another kind")
    for name in ("resource_id", "status", "idempotency_id", "tail"):
        value = getattr(envelope, name)
        is_absent = value is None and name in ("idempotency_id", "tail")
        if not is_absent and not isinstance(value, str):
            raise WrongEnvelope(f"the handler of {handler.kind} returned as {name} what is no text")
    moment: Any = envelope.provider_at
    if moment is not None and (not isinstance(moment, datetime) or moment.utcoffset() is None):
        raise WrongEnvelope(
            f"the handler of {handler.kind} returned as provider_at what is no time with a zone"
        )


def _unknown_status(handler: Handler, envelope: Envelope) -> str:
    status = shown(envelope.status.removeprefix("unknown:"))
    return (
        f"no document names the status {status}, only {', '.join(sorted(handler.statuses or ()))}"
    )


def _modules(package: ModuleType) -> list[ModuleType]:
    """Import every module of a package. Raises RegistryError naming the file that cannot be."""
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    return [_module(package, name) for name in names]


def _module(package: ModuleType, name: str) -> ModuleType:
    try:
        return importlib.import_module(f"{package.__name__}.{name}")
    except Exception as error:
        place = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise RegistryError(
            f"{package.__name__}/{name}.py cannot be loaded: {type(error).__name__}{place}: "
            f"{reason}; correct the file, or take it away"
        ) from error


@lru_cache(maxsize=1)
def load() -> Registry:
    """Import every handler and projection. Raises RegistryError naming a file that is wrong."""
    providers, by_provider = _callbacks(_modules(handlers))
    kinds = _kinds(_modules(handlers))
    streams: dict[str, StreamProjection] = {}
    events: list[Projection] = []
    for module in _modules(projections):
        for projection in _declared(module):
            match projection:
                case Projection():
                    events.append(projection)
                case StreamProjection():
                    _add_stream(streams, projection, module)
                case MoneyProjection():
                    for kind, file in kinds.values():
                        _check_rule(kind, projection, file)
                        _add_stream(streams, projection.make(kind), module)
    _check_tables([*streams.values(), *events])
    return Registry(providers, by_provider, streams, tuple(events))


def _add_stream(
    streams: dict[str, StreamProjection], projection: StreamProjection, module: ModuleType
) -> None:
    for kind in projection.kinds:
        if kind in streams:
            raise RegistryError(
                f"{_file(module)}: {streams[kind].name} folds {kind} already; take the "
                "kind from one of them"
            )
        streams[kind] = projection


def _kinds(modules: Iterable[ModuleType]) -> dict[str, tuple[MoneyKind, str]]:
    """Return the kinds of money that handlers' files declare, each with its file, by name."""
    found: dict[str, tuple[MoneyKind, str]] = {}
    for module in modules:
        kind: Any = getattr(module, "MONEY_KIND", None)
        if kind is None:
            continue
        if not isinstance(kind, MoneyKind):
            raise RegistryError(f"{_file(module)}: MONEY_KIND is no MoneyKind(…); make it one")
        if kind.name in found:
            raise RegistryError(
                f"{_file(module)}: the kind {kind.name} is declared by {found[kind.name][1]}; "
                "take one declaration away: handlers share a kind"
            )
        found[kind.name] = (kind, _file(module))
    return found


def _check_rule(kind: MoneyKind, projection: MoneyProjection, file: str) -> None:
    """Check what a kind declares. Raises RegistryError."""
    if kind.postings not in projection.rules:
        raise RegistryError(
            f"{file}: there is no posting rule {kind.postings!r}; use one of "
            f"{', '.join(sorted(projection.rules))}"
        )
    known = projection.rules[kind.postings]
    if not kind.ranks or not known.issuperset(kind.ranks):
        raise RegistryError(
            f"{file}: the statuses of the kind {kind.name} must be among those that the posting "
            f"rule {kind.postings} knows: {', '.join(sorted(known))}"
        )
    if kind.brings_back and kind.can_come_back:
        raise RegistryError(
            f"{file}: the kind {kind.name} cannot both bring money back and have it come back; "
            "choose one"
        )


def _callbacks(
    modules: Iterable[ModuleType],
) -> tuple[dict[str, Provider], dict[str, tuple[Handler, ...]]]:
    """Return what the modules declare: providers by name, and each provider's handlers."""
    providers: dict[str, Provider] = {}
    declared: dict[str, list[Handler]] = {}
    declared_in: dict[str, str] = {}
    files: dict[int, str] = {}
    for module in modules:
        provider, translated = _provider(module), _handlers(module)
        if provider is None and not translated:
            raise RegistryError(
                f"{_file(module)} declares no HANDLER and no PROVIDER; end it with "
                "HANDLER = Handler(…), HANDLERS = (…, …) or PROVIDER = Provider(…), spelt so"
            )
        if provider is not None:
            if provider.name in providers:
                raise RegistryError(
                    f"{_file(module)}: another file declares the provider {provider.name} "
                    "already; rename this one or take one of them away"
                )
            providers[provider.name] = provider
            declared_in[provider.name] = _file(module)
        for handler in translated:
            declared.setdefault(handler.provider, []).append(handler)
            files[id(handler)] = _file(module)
    _check_complete(declared_in, {name: files[id(own[0])] for name, own in declared.items()})
    return providers, {name: tuple(siblings) for name, siblings in declared.items()}


def _check_complete(provider_files: Mapping[str, str], handler_files: Mapping[str, str]) -> None:
    """Refuse handlers without a provider and providers without handlers. Raises RegistryError.

    Both map a provider's name to a file that declares it, or a handler of it.
    """
    for name, file in handler_files.items():
        if name not in provider_files and name not in INTERNAL:
            raise RegistryError(
                f"{file}: no file declares the provider {name}; add "
                f"PROVIDER = Provider(name={name!r}, …) to handlers/{name}.py, or correct the name"
            )
    for name, file in provider_files.items():
        if name not in handler_files:
            raise RegistryError(
                f"{file}: no file declares a handler of the provider {name}; add HANDLER = "
                "Handler(…) or HANDLERS = (…, …), spelt so, or take PROVIDER away"
            )


def _provider(module: ModuleType) -> Provider | None:
    """Return the provider that a module declares, if it does. Raises RegistryError."""
    declared: Any = getattr(module, "PROVIDER", None)
    if declared is None:
        return None
    if not isinstance(declared, Provider):
        raise RegistryError(f"{_file(module)}: PROVIDER is no Provider(…); make it one")
    problem = _problem(declared)
    if problem is not None:
        raise RegistryError(f"{_file(module)}: {problem}")
    return declared


def _problem(provider: Provider) -> str | None:
    """Return what is wrong with a declaration and how to correct it; None when nothing is."""
    if provider.name in INTERNAL | {API_SCHEME}:
        return f"the provider's name {provider.name!r} is the service's own; choose another"
    if not PROVIDER_NAME.fullmatch(provider.name):
        return f"the provider's name {provider.name!r} must be lower case letters, digits, - and _"
    scheme = SCHEMES.get(provider.scheme)
    if scheme is None:
        return f"there is no signature scheme {provider.scheme!r}; use one of {', '.join(SCHEMES)}"
    if scheme.own_headers and provider.header:
        return f"{scheme.name} has headers of its own; take away header={provider.header!r}"
    if not scheme.own_headers and not HEADER_NAME.fullmatch(provider.header):
        return f"header={provider.header!r} cannot be the name of a header; {scheme.name} needs one"
    return _currency_problem(provider.default_currency)


def _currency_problem(currency: Any) -> str | None:
    if currency is None or (isinstance(currency, str) and as_currency(currency) == currency):
        return None
    return (
        f"default_currency={currency!r} is not a currency; write 2 to 12 capitals and digits, a "
        "letter first, as SGD"
    )


def _handlers(module: ModuleType) -> tuple[Handler, ...]:
    """Return the handlers that a module declares. Raises RegistryError for anything else."""
    one: Any = getattr(module, "HANDLER", None)
    several: Any = getattr(module, "HANDLERS", () if one is None else (one,))
    if not isinstance(several, tuple) or not all(isinstance(each, Handler) for each in several):
        raise RegistryError(
            f"{_file(module)}: HANDLER must be a Handler(…), HANDLERS a tuple of them; correct it"
        )
    if one is not None and one not in several:
        raise RegistryError(f"{_file(module)} declares HANDLER and HANDLERS; keep one of them")
    return several


def _declared(module: ModuleType) -> list[Projection | StreamProjection | MoneyProjection]:
    one: Any = getattr(module, "PROJECTION", None)
    several: Any = getattr(module, "PROJECTIONS", None if one is None else (one,))
    if not isinstance(several, tuple) or not all(
        isinstance(each, Projection | StreamProjection | MoneyProjection) for each in several
    ):
        raise RegistryError(
            f"{_file(module)} declares no PROJECTION; end it with PROJECTION = …, PROJECTIONS = "
            "(…, …), or PROJECTIONS = () when it only serves others"
        )
    for projection in several:
        if projection.table.name in LISTS:
            raise RegistryError(
                f"{_file(module)}: the name of the table {projection.table.name} is the service's "
                "own; choose another"
            )
        for column, kind in projection.table.columns.items():
            if kind not in COLUMN_TYPES:
                raise RegistryError(
                    f"{_file(module)}: the column {column} cannot have the type {kind}; use one "
                    f"of {', '.join(COLUMN_TYPES)}"
                )
    return list(several)


def _file(module: ModuleType) -> str:
    return f"{module.__name__.replace('.', '/')}.py"


def _check_tables(declared: Iterable[Projection | StreamProjection]) -> None:
    tables: dict[str, Any] = {}
    for projection in declared:
        table = projection.table
        if tables.setdefault(table.name, table) != table:
            raise RegistryError(
                f"two projections declare the table {table.name} differently; rename one"
            )
