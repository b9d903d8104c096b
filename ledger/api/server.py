"""The query API over HTTP: its addresses, access to them, and the pages about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import Final

import msgspec
from aiohttp import web

from ledger.api import openapi
from ledger.api.admission import check_may_ask
from ledger.api.endpoints import QUERY
from ledger.api.problems import PAGE_HEADERS, Handler, guarded, method_not_allowed
from ledger.api.routes import all_routes
from ledger.errors import NotFound
from ledger.queries.params import Route, parse_params

PAGES: Final[Mapping[str, tuple[str, str]]] = {
    "/": ("index.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/docs/docs.js": ("docs.js", "text/javascript"),
    "/docs/docs.css": ("docs.css", "text/css"),
}

_IN_PATH: Final = re.compile(r"\{(\w+)\}")


def add_query_routes(app: web.Application) -> None:
    """Register /v1/*, /reconciliation/*, /openapi.json, /docs and /.

    The app provides the keys of `ledger.api.endpoints` and `ledger.api.reconciliation`.
    """
    by_path: dict[str, dict[str, Handler]] = {}
    for route in all_routes():
        by_path.setdefault(route.path, {})[route.method] = _admitted(_handler(route))
    for path, handlers in by_path.items():
        _add(app, path, handlers)
    for path in ("/v1", "/v1/{rest:.*}"):
        app.router.add_route("*", path, guarded(_admitted(_nowhere)))
    for path, (name, content_type) in PAGES.items():
        page = _page(name, content_type)
        # The description of the API contains none of its data.
        _add(app, path, {"GET": page if path.startswith("/docs") else _admitted(page)})
    _add(app, "/openapi.json", {"GET": _openapi()})


def _add(app: web.Application, path: str, handlers: Mapping[str, Handler]) -> None:
    # Without a pattern of their own, ids with braces in them would not be found.
    resource = app.router.add_resource(_IN_PATH.sub(r"{\1:[^/]+}", path))
    by_method = dict(handlers)
    if "GET" in by_method:
        by_method["HEAD"] = by_method["GET"]
    allowed = sorted(by_method)
    for method in allowed:
        resource.add_route(method, guarded(by_method[method]))
    resource.add_route("*", method_not_allowed(", ".join(allowed)))


def _handler(route: Route) -> Handler:
    """Return a handler that checks a request against its route and hands it to the endpoint."""

    async def handle(request: web.Request) -> web.StreamResponse:
        params = parse_params(route, request.match_info, request.query.items())
        response: web.StreamResponse = await route.endpoint(request, params)
        return response

    return handle


def _admitted(handler: Handler) -> Handler:
    """Wrap a handler so that only requests with access reach it."""

    async def admit(request: web.Request) -> web.StreamResponse:
        check_may_ask(request, request.app[QUERY].settings)
        return await handler(request)

    return admit


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
