"""Finds handlers and projections by their presence, and says which handler a callback is for."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import handlers
import projections
from ledger.errors import InvalidCallback, MalformedBody, RegistryError
from ledger.model import (
    Envelope,
    Fact,
    Handler,
    Payload,
    Projection,
    Record,
    SourceTerms,
    StreamProjection,
    shown,
)
from ledger.strict_json import parse

UNKNOWN: Final = "unknown"
UNREADABLE: Final = "unreadable"
EVENT_MISMATCH: Final = "event_mismatch"
BY_URL: Final = "by_url"
"""Where the key of a callback has its kind, when only the event name in the URL told it."""
OPERATOR: Final = "*"
STATEMENT: Final = "statement"
"""The provider of logs that hold statements."""
MACHINE: Final = (
    "model.py",
    "payload.py",
    "strict_json.py",
    "registry.py",
    "fold/journal.py",
    "fold/stream_state.py",
    "fold/change.py",
    "fold/batch.py",
    "database/copy_format.py",
    "books/table_sql.py",
    "books/store.py",
    "books/balance_index.py",
    "books/findings.py",
    "books/projection_worker.py",
)
"""The modules of this package that books depend on."""


class ParsedCallback(Record, frozen=True):
    """What the receiver makes of a body: its envelope, and why it is quarantined, if it is."""

    envelope: Envelope
    reason: str | None = None
    detail: str | None = None
    is_by_url: bool = False
    """Whether the event name in the URL, which nobody signs, may have decided what it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Registry:
    """All handlers by provider, all projections, and the version that they make together."""

    handlers: Mapping[str, tuple[Handler, ...]]
    streams: Mapping[str, StreamProjection]
    """kind → the projection that folds its streams"""
    projections: tuple[Projection, ...]
    typed: Mapping[tuple[str, str], Handler] = field(init=False)
    """(provider, body type) → the one handler that this type alone decides for"""
    events: Mapping[str, frozenset[str]] = field(init=False)
    """provider → the event names that it documents; empty when it documents none"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "typed", _typed(self.handlers))
        names = {
            provider: frozenset[str]().union(*(handler.events for handler in siblings))
            for provider, siblings in self.handlers.items()
        }
        object.__setattr__(self, "events", names)

    @property
    def money_kinds(self) -> frozenset[str]:
        """The kinds of transactions: what moves a wallet."""
        found = [kind for kind, each in self.streams.items() if each.table.name == "transactions"]
        return frozenset(found)

    def read(self, provider: str, path_event: str | None, body: bytes) -> ParsedCallback:
        """Read a callback's envelope for appending. Never raises for what a body may hold."""
        try:
            payload = Payload(parse(body), path_event)
        except MalformedBody as error:
            return ParsedCallback(Envelope(UNREADABLE, "", UNREADABLE), UNREADABLE, str(error))
        except InvalidCallback as error:
            return ParsedCallback(Envelope(UNREADABLE, "", UNREADABLE), UNREADABLE, error.detail)
        try:
            envelope = self.handler(provider, payload).envelope(payload)
        except InvalidCallback as error:
            return ParsedCallback(Envelope(UNKNOWN, "", UNKNOWN), error.reason, error.detail)
        except Exception as error:  # noqa: BLE001 - a handler's bug must not cost a callback
            detail = f"reading the envelope raised {type(error).__name__}"
            return ParsedCallback(Envelope(UNKNOWN, "", UNKNOWN), "handler_failed", detail)
        is_by_url = self._is_by_url(provider, payload)
        if envelope.status.startswith("unknown:"):
            detail = self._unknown(provider, envelope)
            return ParsedCallback(envelope, "unknown_status", detail, is_by_url)
        return ParsedCallback(envelope, is_by_url=is_by_url)

    def is_by_url(self, provider: str, body: bytes) -> bool:
        """Tell whether a readable body leaves it to the URL's event name what it is."""
        try:
            return self._is_by_url(provider, Payload(parse(body)))
        except (MalformedBody, InvalidCallback):
            return False

    def _is_by_url(self, provider: str, payload: Payload) -> bool:
        typed = (provider, payload.type or "") in self.typed
        return not typed and bool(self.events.get(provider))

    def _unknown(self, provider: str, envelope: Envelope) -> str:
        known = next(h for h in self.handlers[provider] if h.kind == envelope.kind).statuses or ()
        told = shown(envelope.status.removeprefix("unknown:"))
        return f"no document names the status {told}, only {', '.join(sorted(known))}"

    def translate(self, terms: SourceTerms, origin: str, path: str | None, body: bytes) -> Fact:
        """Say in the ledger's words what a stored event means.

        Raises Unreadable, or CannotBeTrue with the reason to list.
        """
        payload = Payload(parse(body), path)
        if origin == "operator":
            return self._operator(payload).translate(payload, terms)
        return self.handler(terms.provider, payload).translate(payload, terms)

    def _operator(self, payload: Payload) -> Handler:
        """Return the handler of an operator's word: by its type, or the one that has none."""
        typed = self.typed.get((OPERATOR, payload.type or ""))
        return typed or next(each for each in self.handlers[OPERATOR] if not each.types)

    def handler(self, provider: str, payload: Payload) -> Handler:
        """Choose the handler by the URL's event name and the body; they must not disagree.

        Raises CannotBeTrue `unknown` or `event_mismatch`.
        """
        typed = self.typed.get((provider, payload.type or ""))
        event = payload.path_event
        if typed is not None and (event is None or event in typed.events):
            return typed
        known = self.handlers.get(provider, ())
        fits = [typed] if typed else [handler for handler in known if handler.matches(payload)]
        named = [handler for handler in known if event in handler.events] if event else []
        if named:
            for handler in named:
                if handler in fits:
                    return handler
            if fits:
                raise InvalidCallback(
                    EVENT_MISMATCH, f"posted to {shown(event)}, but the body is a {fits[0].kind}"
                )
            if payload.type is None and len(named) == 1:
                return named[0]
            for handler in named:
                if payload.type in handler.shared_types:
                    return handler
        if len(fits) == 1:
            return fits[0]
        if payload.type is None:
            raise InvalidCallback(UNKNOWN, "no handler understands a body without a type")
        types = ", ".join(sorted(name for given, name in self.typed if given == provider))
        told = f"no handler understands the type {shown(payload.type)}, only {types}"
        raise InvalidCallback(UNKNOWN, told)


def version_of(files: Iterable[Path]) -> str:
    """Digest source files by name and content: changed code is another version of the books."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: (file.parent.name, file.name)):
        digest.update(f"{file.parent.name}/{file.name}".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


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
    found: dict[str, list[Handler]] = {}
    for module in _modules(handlers):
        handler = getattr(module, "HANDLER", None)
        if not isinstance(handler, Handler):
            raise RegistryError(
                f"{_file(module)} declares no HANDLER; end it with HANDLER = Handler(…), spelt so"
            )
        siblings = found.setdefault(handler.provider, [])
        for other in siblings:
            if other.kind == handler.kind:
                raise RegistryError(
                    f"{_file(module)}: another file translates {handler.kind} of "
                    f"{handler.provider} already; rename its kind or take one of them away"
                )
        siblings.append(handler)
    streams: dict[str, StreamProjection] = {}
    events: list[Projection] = []
    for module in _modules(projections):
        for projection in _declared(module):
            if isinstance(projection, Projection):
                events.append(projection)
                continue
            for kind in projection.kinds:
                if kind in streams:
                    raise RegistryError(
                        f"{_file(module)}: {streams[kind].name} folds {kind} already; take the "
                        "kind from one of them"
                    )
                streams[kind] = projection
    _check_tables([*streams.values(), *events])
    by_provider = {name: tuple(each) for name, each in found.items()}
    return Registry(by_provider, streams, tuple(events))


def _typed(known: Mapping[str, tuple[Handler, ...]]) -> dict[tuple[str, str], Handler]:
    typed: dict[tuple[str, str], Handler] = {}
    for provider, siblings in known.items():
        for handler in siblings:
            for name in handler.types:
                if typed.setdefault((provider, name), handler) is not handler:
                    raise RegistryError(
                        f"two handlers of {provider} claim the type {name!r}; take it from one"
                    )
    return typed


@lru_cache(maxsize=1)
def _code_version() -> str:
    """Digest the code of the fold once: files that change later are not what this process runs."""
    modules = [*_modules(handlers), *_modules(projections)]
    files = [Path(module.__file__ or "") for module in modules]
    return version_of([*files, *(Path(__file__).parent / name for name in MACHINE)])


def current_version(terms: Iterable[SourceTerms]) -> str:
    """Digest what the books depend on besides the log: the code of the fold, the sources' terms."""
    code = _code_version()
    settings = "|".join(
        f"{t.source}:{t.provider}:{t.currency}:{sorted(t.wallets.items())}"
        for t in sorted(terms, key=lambda t: t.source)
        if t.provider != STATEMENT  # they come with the first import and have no terms
    )
    return hashlib.sha256(f"{code}|{settings}".encode()).hexdigest()[:16]


def _declared(module: ModuleType) -> list[Projection | StreamProjection]:
    one: Any = getattr(module, "PROJECTION", None)
    several: Any = getattr(module, "PROJECTIONS", None if one is None else (one,))
    if not isinstance(several, tuple) or not all(
        isinstance(each, Projection | StreamProjection) for each in several
    ):
        raise RegistryError(
            f"{_file(module)} declares no PROJECTION; end it with PROJECTION = …, PROJECTIONS = "
            "(…, …), or PROJECTIONS = () when it only serves others"
        )
    return list(several)


def _file(module: ModuleType) -> str:
    return f"{module.__name__.replace('.', '/')}.py"


def _check_tables(found: Iterable[Projection | StreamProjection]) -> None:
    tables: dict[str, Any] = {}
    for projection in found:
        table = projection.table
        if tables.setdefault(table.name, table) != table:
            raise RegistryError(
                f"two projections declare the table {table.name} differently; rename one"
            )
