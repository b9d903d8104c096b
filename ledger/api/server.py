"""The query API over HTTP: who may ask, what is asked, and the answer with its position."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, TypeAlias

import msgspec
from aiohttp import web

from ledger.api import openapi
from ledger.api.admission import check_may_ask
from ledger.api.problems import PRIVATE, Handler, guarded, method_not_allowed
from ledger.api.routes import EVENT_BODY, EXCEPTIONS, RESOLVE, SEAL_NOTE, STATUS_ROUTE, all_routes
from ledger.config.settings import Settings
from ledger.errors import InvalidRequest, NotFound
from ledger.queries import events as reads_log
from ledger.queries import evidence as reads_seals
from ledger.queries import exceptions as reads_exceptions
from ledger.queries import status as reads_status
from ledger.queries.params import Route, decoded, parse_params
from ledger.queries.schemas.evidence import Seal
from ledger.queries.schemas.log import Decision, Resolution
from ledger.queries.snapshot import Pool, Snapshot, read_consistent

DECISION_BYTES_MAX: Final = 16_384
BODY_SECONDS_MAX: Final = 10.0
PAGE_HEADERS: Final = {
    **PRIVATE,
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
}
PAGES: Final[Mapping[str, tuple[str, str]]] = {
    "/": ("index.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/docs/docs.js": ("docs.js", "text/javascript"),
    "/docs/docs.css": ("docs.css", "text/css"),
}

_IN_PATH: Final = re.compile(r"\{(\w+)\}")

Decide: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[Mapping[str, Any]]]
"""(source, decision) → position, event_id and status of the operator's event."""


@dataclass(frozen=True, slots=True)
class QueryState:
    """What the query API answers from. The pool's connections have a command timeout."""

    pool: Pool
    settings: Settings


QUERY: Final = web.AppKey("QUERY", QueryState)
DECIDE: Final[web.AppKey[Decide]] = web.AppKey("DECIDE")


def add_query_routes(
    app: web.Application, special: Mapping[tuple[str, str], Handler] | None = None
) -> None:
    """Register /v1/*, /openapi.json, /docs and /. The app provides QUERY and DECIDE.

    `special` answers some addresses, by method and path, in ways of its own.
    """
    known = {**_SPECIAL, **(special or {})}
    by_path: dict[str, dict[str, Handler]] = {}
    for route in all_routes():
        handler = known.get((route.method, route.path)) or _answering(route)
        by_path.setdefault(route.path, {})[route.method] = _admitted(handler)
    for path, handlers in by_path.items():
        _add(app, path, handlers)
    for path in ("/v1", "/v1/{rest:.*}"):
        app.router.add_route("*", path, guarded(_admitted(_nowhere)))
    for path, (name, content_type) in PAGES.items():
        page = _page(name, content_type)
        # What describes the API tells nothing of what is in it.
        _add(app, path, {"GET": page if path.startswith("/docs") else _admitted(page)})
    _add(app, "/openapi.json", {"GET": _openapi()})


def _add(app: web.Application, path: str, handlers: Mapping[str, Handler]) -> None:
    # Without a pattern of their own, ids with braces in them would not be found.
    resource = app.router.add_resource(_IN_PATH.sub(r"{\1:[^/]+}", path))
    found = dict(handlers)
    if "GET" in found:
        found["HEAD"] = found["GET"]
    allowed = sorted(found)
    for method in allowed:
        resource.add_route(method, guarded(found[method]))
    resource.add_route("*", method_not_allowed(", ".join(allowed)))


def _admitted(handler: Handler) -> Handler:
    """Wrap a handler so that only those who may ask reach it."""

    async def admit(request: web.Request) -> web.StreamResponse:
        check_may_ask(request, request.app[QUERY].settings)
        return await handler(request)

    return admit


def _answering(route: Route) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        params = parse_params(route, request.match_info, request.query.items())

        async def read(snapshot: Snapshot) -> web.Response:
            found = await route.read(snapshot, params)
            position = snapshot.position if params.as_of is None else found.position
            return answered(found, position, snapshot.books)

        return await read_consistent(request.app[QUERY].pool, params.at_least, read)

    return answer


def answered(
    answer: msgspec.Struct, position: Mapping[str, int], books: str | None = None
) -> web.Response:
    """Return an answer as JSON, with headers that name where it is true and from which books."""
    headers = {**PRIVATE, "Ledger-Position": _written(position)}
    if books is not None:
        headers["Ledger-Books"] = books
    return web.Response(
        body=msgspec.json.encode(answer), content_type="application/json", headers=headers
    )


def _written(position: Mapping[str, int]) -> str:
    return ",".join(f"{source}:{place}" for source, place in position.items())


async def _status(request: web.Request) -> web.Response:
    state = request.app[QUERY]
    params = parse_params(STATUS_ROUTE, request.match_info, request.query.items())

    async def read(snapshot: Snapshot) -> web.Response:
        found = await reads_status.status(snapshot, state.settings.warnings())
        return answered(found, found.position, snapshot.books)

    return await read_consistent(state.pool, params.at_least, read)


async def _exceptions(request: web.Request) -> web.Response:
    state = request.app[QUERY]
    params = parse_params(EXCEPTIONS, request.match_info, request.query.items())

    async def read(snapshot: Snapshot) -> web.Response:
        found = await reads_exceptions.exceptions(snapshot, params, state.settings.rules)
        return answered(found, found.position, snapshot.books)

    return await read_consistent(state.pool, params.at_least, read)


async def _event_body(request: web.Request) -> web.Response:
    params = parse_params(EVENT_BODY, request.match_info, request.query.items())

    async def read(snapshot: Snapshot) -> tuple[str, bytes]:
        return await reads_log.body(snapshot, params)

    event_id, body = await read_consistent(request.app[QUERY].pool, params.at_least, read)
    name = f"{params.text('source')}-{params.number('position')}.bin"
    return web.Response(
        body=body,
        content_type="application/octet-stream",
        headers={
            **PRIVATE,
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Security-Policy": "sandbox",
            "Ledger-Event-Id": event_id,
        },
    )


async def _seal_note(request: web.Request) -> web.Response:
    params = parse_params(SEAL_NOTE, request.match_info, request.query.items())

    async def read(snapshot: Snapshot) -> Seal:
        return await reads_seals.seal(snapshot, params)

    found = await read_consistent(request.app[QUERY].pool, params.at_least, read)
    headers = {**PRIVATE, "Ledger-Seal-Key": found.vkey}
    return web.Response(text=found.note, content_type="text/plain", headers=headers)


async def _resolve(request: web.Request) -> web.Response:
    params = parse_params(RESOLVE, request.match_info, request.query.items())
    decision = await _decision(request)
    rules = request.app[QUERY].settings.rules

    async def read(snapshot: Snapshot) -> tuple[str, dict[str, Any], str]:
        source, about = await reads_exceptions.decision(
            snapshot, params.need("id"), decision.action, decision.keep, rules
        )
        return source, about, snapshot.books

    source, about, books = await read_consistent(request.app[QUERY].pool, {}, read)
    told = {k: v for k, v in msgspec.structs.asdict(decision).items() if v is not None}
    done = await request.app[DECIDE](source, {**about, **told})
    answer = msgspec.convert(done, Resolution)
    return answered(answer, {source: answer.position}, books)


async def _decision(request: web.Request) -> Decision:
    if request.content_type != "application/json":
        raise InvalidRequest("send the decision as JSON, with Content-Type: application/json")
    if (request.content_length or 0) > DECISION_BYTES_MAX:
        raise InvalidRequest(f"a decision has at most {DECISION_BYTES_MAX} bytes")
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            raw = await request.read()
    except TimeoutError as error:
        raise InvalidRequest("the decision took too long to arrive") from error
    decision = decoded(raw, Decision, "the decision")
    if (decision.action == "keep") != (decision.keep is not None):
        raise InvalidRequest('"keep" takes the position of an event, with the action "keep" only')
    return decision


async def _nowhere(request: web.Request) -> web.StreamResponse:
    raise NotFound(f"there is no {request.path}; /openapi.json lists what there is")


def _page(name: str, content_type: str) -> Handler:
    body = resources.files("ledger.api.console").joinpath(name).read_bytes()

    async def page(request: web.Request) -> web.Response:
        return web.Response(
            body=body, content_type=content_type, charset="utf-8", headers=PAGE_HEADERS
        )

    return page


def _openapi() -> Handler:
    body = msgspec.json.encode(openapi.document(all_routes()))

    async def describe(request: web.Request) -> web.Response:
        headers = {"X-Content-Type-Options": "nosniff"}
        return web.Response(body=body, content_type="application/json", headers=headers)

    return describe


_SPECIAL: Final[Mapping[tuple[str, str], Handler]] = {
    ("GET", STATUS_ROUTE.path): _status,
    ("GET", EXCEPTIONS.path): _exceptions,
    ("GET", EVENT_BODY.path): _event_body,
    ("GET", SEAL_NOTE.path): _seal_note,
    ("POST", RESOLVE.path): _resolve,
}
"""Addresses whose answer is not simply what their reading gives."""
