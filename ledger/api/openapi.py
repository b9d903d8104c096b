"""The OpenAPI 3.1 document, made from the route table and the types that build the answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, get_args, get_origin

import msgspec

from ledger import __version__, registry
from ledger.api.exports import CONTENT_TYPES
from ledger.model import Provider
from ledger.queries.kinds import UNNAMED, kinds_of, statuses_of
from ledger.queries.params import (
    BOUND_PATTERN,
    LIMIT_DEFAULT,
    LIMIT_MAX,
    POSITION_MAX,
    POSITIONS_PATTERN,
    Param,
    Route,
)
from ledger.queries.schemas.log import NotReceived, Problem, Received
from ledger.signatures.schemes import SCHEMES

_REF: Final = "#/components/schemas/"
_IN_PATH: Final = re.compile(r"\{(\w+)\}")

TAGS: Final = (
    ("money", "Wallets, balances, journal entries, transactions."),
    ("people", "Customers, their accounts, limits and requests for information."),
    ("views", "Every table of the books, as its projection declares it."),
    ("exports", "Whole lists as files."),
    ("reconciliation", "Statements, matches, breaks, decisions, reports, findings."),
    ("log", "Events as they arrived, and every delivery."),
    ("evidence", "Signed checkpoints of each log, and proofs against them."),
    ("operations", "What needs an operator, and how the service is doing."),
    ("callbacks", "Where providers post."),
    ("service", "Health, metrics and documentation."),
)
ABOUT: Final = """\
Every answer is true at one position of each source's log, named in `position` and in the header
`Ledger-Position`; ask with `at_least=<source>:<position>` to wait for your own callback.
`Ledger-Books` names the generation of the books that answered, and the version that folded them.
Amounts are exact decimal strings. Unknown parameters are refused, never ignored.
"""
PROBLEMS: Final = {
    "400": "The request is malformed; `detail` names the parameter and what it accepts.",
    "401": "No valid token was sent.",
    "403": "Requests from this origin are not allowed.",
    "404": "Nothing has this name or id.",
    "409": "The request contradicts what is already recorded.",
    "422": "The statement is refused; `detail` names the line. Nothing of it was stored.",
    "501": "The format needs a package that is not installed; `detail` names the command.",
    "503": "The books or the database are not available yet; repeat the request after Retry-After.",
}
EVENT_PARAM: Final = {
    "name": "event",
    "in": "path",
    "required": True,
    "description": "The provider's event name; needed where the body does not identify its type.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
}


class ServiceRoute(NamedTuple):
    """An address of the service itself, which no route of the query API describes."""

    path: str
    summary: str
    content_type: str
    statuses: tuple[str, ...] = ("200",)
    is_open: bool = False
    """Whether it never needs a token."""


SERVICE: Final = (
    ServiceRoute("/healthz", "Whether the process lives", "text/plain", is_open=True),
    ServiceRoute(
        "/readyz",
        "Whether the service can do its work",
        "application/json",
        ("200", "503"),
        is_open=True,
    ),
    ServiceRoute(
        "/metrics", "Prometheus metrics", "text/plain", ("200", "401", "403"), is_open=True
    ),
    ServiceRoute("/openapi.json", "This document", "application/json", is_open=True),
    ServiceRoute("/docs", "This document as a page", "text/html"),
    ServiceRoute("/docs/docs.js", "The page's script", "text/javascript"),
    ServiceRoute("/docs/docs.css", "The page's style", "text/css"),
    ServiceRoute("/", "The console", "text/html"),
)


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI document of these routes, the receiver's and the service's own."""
    types = [route.answer for route in routes if issubclass(route.answer, msgspec.Struct)]
    types += [t for route in routes if (t := route.takes) is not None and t is not bytes]
    types += [Problem, Received, NotReceived]
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF + "{name}")
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    paths["/callbacks/{source}"] = {"post": _callback(has_event=False)}
    paths["/callbacks/{source}/{event}"] = {"post": _callback(has_event=True)}
    for service in SERVICE:
        paths[service.path] = {"get": _service(service)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "callback-ledger",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": about} for name, about in TAGS],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _security()},
    }


def _operation(route: Route) -> dict[str, Any]:
    operation = {
        "operationId": _name(route.method, route.path),
        "summary": route.summary,
        "tags": [route.tag],
        "security": [{registry.API_SCHEME: []}, {}],
        "parameters": [
            *(_path_param(name) for name in _IN_PATH.findall(route.path)),
            *(_query_param(param) for param in route.query),
        ],
        "responses": {"200": _answer(route), **_problems(route)},
    }
    if route.about:
        operation["description"] = route.about
    if route.takes is bytes:
        operation["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    elif route.takes is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _body_schema(route.takes)}},
        }
    return operation


def _body_schema(kind: Any) -> dict[str, Any]:
    """Return the schema of a request's body: of one object, or of a list of them."""
    if get_origin(kind) is list:
        return {"type": "array", "items": _ref(get_args(kind)[0])}
    return _ref(kind)


def _name(method: str, path: str) -> str:
    words = re.findall(r"\w+", path) or ["console"]
    return "_".join([method.lower(), *words])


def _ref(kind: type[Any]) -> dict[str, str]:
    return {"$ref": _REF + kind.__name__}


def _path_param(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _named_schema(name)}


def _named_schema(name: str) -> dict[str, Any]:
    if name == "position":
        return {"type": "integer", "minimum": 0, "maximum": POSITION_MAX}
    if name == "format":
        return {"type": "string", "enum": list(CONTENT_TYPES)}
    return {"type": "string", "minLength": 1}


def _query_param(param: Param) -> dict[str, Any]:
    return {
        "name": param.name,
        "in": "query",
        "description": param.about,
        "schema": _schema(param),
    }


def _schema(param: Param) -> dict[str, Any]:
    if param.several:
        return _several(param)
    match param.kind:
        case "position" if param.name == "limit":
            return {
                "type": "integer",
                "minimum": 1,
                "maximum": LIMIT_MAX,
                "default": LIMIT_DEFAULT,
            }
        case "position":
            return _named_schema("position")
        case "integer":
            return {"type": "integer", "minimum": -POSITION_MAX, "maximum": POSITION_MAX}
        case "time" | "kept_time":
            return {"type": "string", "format": "date-time"}
        case "positions":
            return {"type": "string", "pattern": POSITIONS_PATTERN}
        case "amount":
            return {"type": "string", "pattern": BOUND_PATTERN, "examples": ["1000.50"]}
        case "choice":
            return {"type": "string", "enum": list(param.choices)}
        case "kind":
            return {"type": "string", "enum": list(kinds_of(param.table))}
        case "status":
            return {"type": "string", "pattern": f"^({_status_pattern(param)})$"}
        case _:
            return {"type": "string"}


def _several(param: Param) -> dict[str, Any]:
    """Describe a text of one value or several, separated by commas."""
    match param.kind:
        case "kind":
            one = "|".join(kinds_of(param.table))
        case "status":
            one = _status_pattern(param)
        case _:
            one = "[^,]+"
    return {"type": "string", "pattern": f"^({one})(,({one}))*$"}


def _status_pattern(param: Param) -> str:
    return f"{'|'.join(statuses_of(param.table))}|{UNNAMED}.+"


def _answer(route: Route) -> dict[str, Any]:
    schema = {"schema": _ref(route.answer)} if route.answer not in (bytes, str) else {}
    return {
        "description": route.summary,
        "headers": {name: {"schema": {"type": "string"}} for name in route.headers},
        "content": dict.fromkeys(route.content_types, schema),
    }


def _problems(route: Route) -> dict[str, Any]:
    statuses = {"400", "401", "403", "404", "503"}
    if route.tag == "exports":
        statuses.add("501")
    if route.takes is bytes:
        statuses.add("422")
    elif route.method == "POST" or route.can_conflict:
        statuses.add("409")
    content = {"application/problem+json": {"schema": _ref(Problem)}}
    return {
        status: {"description": about, "content": content}
        for status, about in PROBLEMS.items()
        if status in statuses
    }


def _callback(*, has_event: bool) -> dict[str, Any]:
    refused = {"application/json": {"schema": _ref(NotReceived)}}
    descriptions = {
        "401": "Signature or token missing or wrong.",
        "403": "The address is not allowed.",
        "404": "There is no such source, or its provider documents no such event.",
        "413": "The body is too large.",
        "415": "The body is compressed.",
        "500": "Unexpected failure; nothing was stored.",
        "501": "A transfer coding other than chunked.",
        "503": "Not known to be stored; send it again after Retry-After.",
    }
    path = "/callbacks/{source}/{event}" if has_event else "/callbacks/{source}"
    return {
        "operationId": _name("post", path),
        "summary": "Receive a callback" + (" of a named event" if has_event else ""),
        "description": "2xx never precedes the commit. The same bytes again are a duplicate.",
        "tags": ["callbacks"],
        "security": [*({name: []} for name in registry.load().providers), {}],
        "parameters": [_path_param("source"), *([EVENT_PARAM] if has_event else [])],
        "requestBody": {"required": True, "content": {"application/json": {}}},
        "responses": {
            "200": {
                "description": "Durable: accepted, duplicate or quarantined.",
                "headers": {"Ledger-Position": {"schema": {"type": "string"}}},
                "content": {"application/json": {"schema": _ref(Received)}},
            },
            **{
                status: {"description": about, "content": refused}
                for status, about in descriptions.items()
            },
        },
    }


def _service(route: ServiceRoute) -> dict[str, Any]:
    answer = {"description": route.summary, "content": {route.content_type: {}}}
    return {
        "operationId": _name("get", route.path),
        "summary": route.summary,
        "tags": ["service"],
        "security": [{}] if route.is_open else [{registry.API_SCHEME: []}, {}],
        "responses": dict.fromkeys(route.statuses, answer),
    }


def _security() -> dict[str, Any]:
    return {
        registry.API_SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "One of LEDGER_API_TOKENS; not needed where none is set.",
        },
        **{name: _proof(provider) for name, provider in registry.load().providers.items()},
    }


def _proof(provider: Provider) -> dict[str, Any]:
    """Describe the header that holds the signature or token of a provider's callbacks."""
    scheme = SCHEMES[provider.scheme]
    return {
        "type": "apiKey",
        "in": "header",
        "name": scheme(provider.header, ()).headers[-1],
        "description": scheme.description,
    }
