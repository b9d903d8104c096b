"""Failures as RFC 9457 documents: one table from error to HTTP status, one guard for handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import msgspec
import structlog
from aiohttp import web

from ledger.errors import (
    Conflicting,
    DatabaseUnavailable,
    FormatTooNarrow,
    InvalidRequest,
    LedgerError,
    MissingExtra,
    NotCaughtUp,
    NotFound,
    OtherAccount,
    Overloaded,
    Refused,
    StatementRefused,
    Unauthenticated,
)
from ledger.queries.schemas.log import Problem

LOGGER = structlog.get_logger(__name__)

PROBLEM_JSON: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = "1"
PRIVATE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Headers of every answer of the query API."""
PAGE_HEADERS: Final = {
    **PRIVATE,
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
}
"""Headers of every page."""

STATUSES: Final[dict[type[LedgerError], tuple[HTTPStatus, str]]] = {
    InvalidRequest: (HTTPStatus.BAD_REQUEST, "bad-question"),
    FormatTooNarrow: (HTTPStatus.BAD_REQUEST, "bad-question"),
    Unauthenticated: (HTTPStatus.UNAUTHORIZED, "unauthenticated"),
    Refused: (HTTPStatus.FORBIDDEN, "refused"),
    NotFound: (HTTPStatus.NOT_FOUND, "not-found"),
    Conflicting: (HTTPStatus.CONFLICT, "conflicting"),
    StatementRefused: (HTTPStatus.UNPROCESSABLE_ENTITY, "statement-refused"),
    OtherAccount: (HTTPStatus.UNPROCESSABLE_ENTITY, "statement-refused"),
    NotCaughtUp: (HTTPStatus.SERVICE_UNAVAILABLE, "not-yet"),
    DatabaseUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, "database-unavailable"),
    Overloaded: (HTTPStatus.SERVICE_UNAVAILABLE, "overloaded"),
    MissingExtra: (HTTPStatus.NOT_IMPLEMENTED, "not-installed"),
}

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guarded(handler: Handler) -> Handler:
    """Wrap a handler so that every failure is answered as a problem document.

    A wrapper of these handlers, not a middleware: the receiver's requests do not pay for it.
    """

    async def guard(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except LedgerError as error:
            return problem(error)
        except web.HTTPException as error:
            return _document(HTTPStatus(error.status), "http", error.reason)
        except Exception:
            LOGGER.exception("query_failed", path=request.path)
            return _document(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "unexpected",
                "this should not happen; the service's log has the details",
            )

    return guard


def problem(error: LedgerError, details: Mapping[str, Any] | None = None) -> web.Response:
    """Return the problem document of an expected failure; `details` are further members."""
    fallback = (HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected")
    status, name = STATUSES.get(type(error), fallback)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        LOGGER.warning("query_unavailable", problem=name, cause=type(error.__cause__).__name__)
    return _document(status, name, str(error), details)


def method_not_allowed(allowed: str) -> Handler:
    """Return a handler that answers 405 and names the methods that would do."""

    async def refuse(request: web.Request) -> web.Response:
        detail = f"{request.method} is not for this address; use {allowed}"
        response = _document(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", detail)
        response.headers["Allow"] = allowed
        return response

    return refuse


def _document(
    status: HTTPStatus, name: str, detail: str, details: Mapping[str, Any] | None = None
) -> web.Response:
    document = Problem(
        type=f"urn:callback-ledger:problem:{name}",
        title=status.phrase,
        status=status.value,
        detail=detail,
    )
    headers = dict(PRIVATE)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="callback-ledger"'
    return web.Response(
        status=status.value,
        body=msgspec.json.encode(msgspec.structs.asdict(document) | dict(details or {})),
        content_type=PROBLEM_JSON,
        headers=headers,
    )
