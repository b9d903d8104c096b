"""Access: with a token, or without one for programs on this machine where none is set."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from aiohttp import web

from ledger.config.settings import Settings
from ledger.errors import Refused, Unauthenticated
from ledger.runtime.addresses import is_forwarded


def check_may_ask(request: web.Request, settings: Settings) -> None:
    """Admit a request to the query API. Raises Unauthenticated or Refused."""
    if settings.api_tokens:
        check_token(request, settings.api_tokens)
    else:
        check_is_local(request)


def check_may_measure(request: web.Request, settings: Settings) -> None:
    """Admit a request for the metrics. Raises Unauthenticated or Refused.

    Off loopback it needs the token for metrics or one of the API; on loopback only where one for
    metrics is set.
    """
    own = settings.metrics_token
    if own or settings.is_exposed:
        check_token(request, (*settings.api_tokens, *([own] if own else [])))
    else:
        check_is_not_forwarded(request)


def check_token(request: web.Request, tokens: Iterable[str]) -> None:
    """Require one of the tokens as a bearer token. Raises Unauthenticated."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    sent = given.strip().encode("utf-8", "surrogateescape")
    # Every token is compared, so that the time taken does not reveal which one was close.
    matches = [hmac.compare_digest(token.encode(), sent) for token in tokens]
    if scheme.lower() != "bearer" or not any(matches):
        raise Unauthenticated


def check_is_not_forwarded(request: web.Request) -> None:
    """Refuse what a proxy on this machine forwards: its sender may be anywhere."""
    if is_forwarded(request.headers):
        raise Refused(
            "the request came through a proxy: set LEDGER_TRUSTED_PROXIES to the proxy's address, "
            "and LEDGER_API_TOKENS"
        )


def check_is_local(request: web.Request) -> None:
    """Refuse a web page elsewhere that reaches us by a name made to point at this machine."""
    check_is_not_forwarded(request)
    host = request.headers.get("Host")
    origin = request.headers.get("Origin")
    is_safe = request.method in ("GET", "HEAD")
    if host is not None and not _is_loopback("//" + host):
        raise Refused("without LEDGER_API_TOKENS only this machine may ask, by a loopback name")
    if not is_safe and origin is not None and not _is_loopback(origin):
        raise Refused("without LEDGER_API_TOKENS a page from elsewhere may not change anything")


def _is_loopback(url: str) -> bool:
    try:
        name = urlsplit(url).hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
