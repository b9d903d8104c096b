"""Finds handlers and projections by their presence, and reads callbacks for appending."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType
from typing import Any, Final

import handlers
import projections
from ledger.errors import InvalidCallback, MalformedBody, RegistryError
from ledger.fold.dispatch import UNKNOWN, AmbiguousType, Dispatch
from ledger.model import (
    Envelope,
    Handler,
    Payload,
    Projection,
    Record,
    StreamProjection,
    shown,
)
from ledger.strict_json import parse

UNREADABLE: Final = "unreadable"
BY_URL: Final = "by_url"
"""Where the key of a callback has its kind, when only the event name in the URL told it."""
STATEMENT: Final = "statement"
"""The provider of logs that hold statements."""


class ParsedCallback(Record, frozen=True):
    """What the receiver makes of a body: its envelope, and why it is quarantined, if it is."""

    envelope: Envelope
    reason: str | None = None
    detail: str | None = None
    is_by_url: bool = False
    """Whether the event name in the URL, which nobody signs, may have decided what it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Registry:
    """All handlers by provider and all projections."""

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
            envelope = self.dispatch.handler(provider, payload).envelope(payload)
        except InvalidCallback as error:
            return ParsedCallback(Envelope(UNKNOWN, "", UNKNOWN), error.reason, error.detail)
        except Exception as error:  # noqa: BLE001 - a handler's bug must not cost a callback
            detail = f"reading the envelope raised {type(error).__name__}"
            return ParsedCallback(Envelope(UNKNOWN, "", UNKNOWN), "handler_failed", detail)
        is_by_url = self.dispatch.depends_on_url(provider, payload)
        if envelope.status.startswith("unknown:"):
            detail = self._unknown(provider, envelope)
            return ParsedCallback(envelope, "unknown_status", detail, is_by_url)
        return ParsedCallback(envelope, is_by_url=is_by_url)

    def _unknown(self, provider: str, envelope: Envelope) -> str:
        known = next(h for h in self.handlers[provider] if h.kind == envelope.kind).statuses or ()
        told = shown(envelope.status.removeprefix("unknown:"))
        return f"no document names the status {told}, only {', '.join(sorted(known))}"


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
