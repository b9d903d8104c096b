"""Which handler a callback is for. The fold asks here, and the receiver before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ledger.callback_errors import InvalidCallback, MalformedBody
from ledger.model import Fact, Handler, Payload, SourceTerms, shown
from ledger.strict_form import ADVICE, UNSUPPORTED_ENCODING, is_form, parse_body

UNKNOWN: Final = "unknown"
EVENT_MISMATCH: Final = "event_mismatch"
OPERATOR: Final = "*"
"""The provider of what our own API wrote."""


class AmbiguousType(ValueError):
    """Two handlers of a provider claim the same body type."""


@dataclass(frozen=True, slots=True, eq=False)
class Dispatch:
    """All handlers by provider, and the choice of the one that a callback is for."""

    handlers: Mapping[str, tuple[Handler, ...]]
    typed: Mapping[tuple[str, str], Handler] = field(init=False)
    """(provider, body type) → the one handler that this type alone decides for"""
    events: Mapping[str, frozenset[str]] = field(init=False)
    """provider → the event names that it documents; empty when it documents none"""

    def __post_init__(self) -> None:
        """Raises AmbiguousType."""
        object.__setattr__(self, "typed", _typed(self.handlers))
        names = {
            provider: frozenset[str]().union(*(handler.events for handler in siblings))
            for provider, siblings in self.handlers.items()
        }
        object.__setattr__(self, "events", names)

    def translate(self, terms: SourceTerms, origin: str, path: str | None, body: bytes) -> Fact:
        """Translate a stored event into a fact.

        Raises MalformedBody, or InvalidCallback with the reason to list.
        """
        payload = Payload(parse_body(body), path)
        if origin == "operator":
            return self._operator(payload).translate(payload, terms)
        return self.handler_of(terms.provider, payload, body).translate(payload, terms)

    def _operator(self, payload: Payload) -> Handler:
        """Return the handler of an operator's decision: by its type, or the one without types."""
        typed = self.typed.get((OPERATOR, payload.type or ""))
        return typed or next(each for each in self.handlers[OPERATOR] if not each.types)

    def handler_of(self, provider: str, payload: Payload, body: bytes) -> Handler:
        """Choose the handler of a payload that was read from `body`, as `handler`.

        Raises InvalidCallback `unsupported_encoding` for a form that names no documented type.
        """
        if not is_form(body):
            return self.handler(provider, payload)
        if payload.type is None:
            raise InvalidCallback(UNSUPPORTED_ENCODING, ADVICE)
        try:
            return self.handler(provider, payload)
        except InvalidCallback as error:
            if error.reason == UNKNOWN:
                raise InvalidCallback(UNSUPPORTED_ENCODING, ADVICE) from error
            raise

    def handler(self, provider: str, payload: Payload) -> Handler:
        """Choose the handler by the URL's event name and the body; they must not disagree.

        Raises InvalidCallback `unknown` or `event_mismatch`.
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
        shared = {name for handler in known for name in handler.shared_types}
        types = ", ".join(sorted(shared.union(*(handler.types for handler in known))))
        detail = f"no handler understands the type {shown(payload.type)}, only {types}"
        raise InvalidCallback(UNKNOWN, detail)

    def depends_on_url(self, provider: str, payload: Payload) -> bool:
        """Return whether the event name in the URL may decide what a payload is."""
        typed = (provider, payload.type or "") in self.typed
        return not typed and bool(self.events.get(provider))

    def body_depends_on_url(self, provider: str, body: bytes) -> bool:
        """Return whether the event name in the URL may decide what a readable body is."""
        try:
            return self.depends_on_url(provider, Payload(parse_body(body)))
        except (MalformedBody, InvalidCallback):
            return False


def _typed(handlers: Mapping[str, tuple[Handler, ...]]) -> dict[tuple[str, str], Handler]:
    typed: dict[tuple[str, str], Handler] = {}
    for provider, siblings in handlers.items():
        for handler in siblings:
            for name in handler.types:
                if typed.setdefault((provider, name), handler) is not handler:
                    raise AmbiguousType(
                        f"two handlers of {provider} claim the type {name!r}; take it from one"
                    )
    return typed
