"""Law: the OpenAPI document tells of every route, and of none that is not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from openapi_spec_validator import validate

import ledger.api.console
from ledger.api.openapi import document
from ledger.api.routes import all_routes
from ledger.api.server import add_query_routes
from ledger.config.settings import load
from ledger.service.web import build

DOCUMENT = document(all_routes())
METHODS = {"GET", "POST"}


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    """Return (method, path) of every route, without catch-alls and what comes with GET."""
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method in METHODS
    }


def documented() -> set[tuple[str, str]]:
    """Return (method, path) of every operation of the document."""
    return {(m.upper(), path) for path, methods in DOCUMENT["paths"].items() for m in methods}


def operations() -> list[Mapping[str, Any]]:
    """Return every operation of the document."""
    return [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]


def test_the_document_is_valid_openapi_3_1() -> None:
    validate(msgspec.json.decode(msgspec.json.encode(DOCUMENT)))
    assert DOCUMENT["openapi"] == "3.1.0"


def test_every_route_of_the_query_api_is_documented() -> None:
    app = web.Application()
    add_query_routes(app)
    assert routes_of(app) - documented() == set()


def test_every_operation_is_a_route_of_the_whole_application() -> None:
    app = build(load({}), "postgresql:///nowhere", "all")
    callbacks = {("POST", path) for _, path in documented() if path.startswith("/callbacks/")}
    taken_by_any_method = {
        ("POST", route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method == "*"
    }
    assert callbacks <= taken_by_any_method
    assert documented() - callbacks == routes_of(app)


def test_the_paths_of_the_contract_are_documented() -> None:
    expected = {
        "/v1/wallets",
        "/v1/balances",
        "/v1/entries",
        "/v1/transactions",
        "/v1/transactions/{source}/{id}",
        "/v1/customers",
        "/v1/customers/{source}/{id}",
        "/v1/events",
        "/v1/events/{source}/{position}",
        "/v1/events/{source}/{position}/body",
        "/v1/deliveries",
        "/v1/exceptions",
        "/v1/exceptions/{id}/resolve",
        "/v1/transactions/{source}/{id}/attribute",
        "/v1/status",
        "/callbacks/{source}",
        "/callbacks/{source}/{event}",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/",
    }
    assert expected <= set(DOCUMENT["paths"])


def test_exports_are_documented_with_the_parameters_of_their_lists() -> None:
    operation = DOCUMENT["paths"]["/v1/exports/transactions.{format}"]["get"]
    listed = DOCUMENT["paths"]["/v1/transactions"]["get"]["parameters"]
    names = [param["name"] for param in operation["parameters"]]
    assert names[0] == "format"
    assert operation["parameters"][0]["schema"]["enum"] == ["csv", "jsonl", "parquet"]
    assert set(names[1:]) == {p["name"] for p in listed} - {"limit", "cursor", "totals"}
    answer = operation["responses"]["200"]
    assert set(answer["content"]) == {
        "text/csv", "application/x-ndjson", "application/vnd.apache.parquet",
    }  # fmt: skip
    assert {"Ledger-Position", "Content-Disposition"} <= set(answer["headers"])
    assert "501" in operation["responses"]
    assert "/v1/exports/limits.{format}" in DOCUMENT["paths"]


def test_operation_ids_are_unique() -> None:
    names = [operation["operationId"] for operation in operations()]
    assert len(names) == len(set(names))


def test_every_reference_resolves() -> None:
    text = msgspec.json.encode(DOCUMENT).decode()
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named == set(DOCUMENT["components"]["schemas"])


@pytest.mark.parametrize("path", ["/v1/wallets", "/v1/balances", "/v1/entries", "/v1/customers"])
def test_as_of_parameters_are_documented(path: str) -> None:
    operation = DOCUMENT["paths"][path]["get"]
    names = {param["name"] for param in operation["parameters"]}
    assert {"effective_at", "recorded_at", "position", "at_least", "limit", "cursor"} <= names
    assert "501" not in operation["responses"]
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    schema = DOCUMENT["components"]["schemas"][answer.rsplit("/", 1)[1]]
    assert "as_of" in schema["properties"]
    assert "as_of" not in schema["required"]


def test_amounts_are_described_as_exact_texts() -> None:
    amount = DOCUMENT["components"]["schemas"]["Balance"]["properties"]["balance"]
    assert amount["type"] == "string"
    assert amount["pattern"] == r"^-?\d+(\.\d+)?$"


@pytest.mark.parametrize("name", ["docs.html", "docs.js", "docs.css", "index.html"])
def test_the_pages_load_nothing_from_elsewhere(name: str) -> None:
    text = (Path(ledger.api.console.__file__).parent / name).read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert "<style" not in text
    assert " style=" not in text
    assert "innerHTML" not in text
