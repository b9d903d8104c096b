"""Law: who may not ask is refused, and what cannot be answered is a problem document."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from yarl import URL

from ledger.api.routes import all_routes
from tests.asking import Service, problem, serving
from tests.conftest import Database

GETS = [route.path for route in all_routes() if route.method == "GET"]
DATED = [route.path for route in all_routes() if route.is_dated]
UNSOURCED = ("/v1/status", "/v1/views")
"""Lists that take no source."""
RESOLVE = "/v1/exceptions/x/resolve"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


@pytest.fixture
async def guarded(database: Database) -> AsyncIterator[Service]:
    async with serving(database, api_tokens=("first", "sécond")) as running:
        yield running


def filled(path: str) -> str:
    """Put values into a path."""
    values = {"{source}": "straitsx", "{id}": "x", "{position}": "1", "{currency}": "XSGD",
              "{sha256}": "ab", "{format}": "csv"}  # fmt: skip
    for name, value in values.items():
        path = path.replace(name, value)
    return path


async def test_an_unknown_parameter_is_never_ignored(service: Service) -> None:
    for path in GETS:
        status, found = await service.refused(filled(path), no_such=1)
        assert (path, status) == (path, 400)
        assert found["type"] == "urn:callback-ledger:problem:bad-question"
        assert found["title"] == "Bad Request"
        assert "at_least" in found["detail"]


async def test_a_malformed_as_of_is_refused_and_named(service: Service) -> None:
    of_tables = [path for path in DATED if path.startswith(("/v1/views/", "/v1/exports/"))]
    assert len(DATED) - len(of_tables) == 12
    assert "/v1/exports/events.{format}" in of_tables
    for path in DATED:
        for name in ("effective_at", "recorded_at", "position"):
            for text in ("", "yesterday", "2024-03-31", "-1", "straitsx:", "straitsx:1,straitsx:2"):
                status, found = await service.refused(filled(path), **{name: text})
                assert (path, name, text, status) == (path, name, text, 400)
                assert name in found["detail"]


async def test_what_takes_no_as_of_refuses_one(service: Service) -> None:
    for path in (path for path in GETS if path not in DATED):
        for name in ("effective_at", "recorded_at", "position"):
            status, found = await service.refused(filled(path), **{name: "2024-03-31T00:00:00Z"})
            assert (path, name, status) == (path, name, 400)
            assert f"unknown parameter '{name}'" in found["detail"]


async def test_a_source_that_is_none_is_not_found(service: Service) -> None:
    for path in (path for path in GETS if "{" not in path and path not in UNSOURCED):
        status, found = await service.refused(path, source="straitx")
        assert (path, status) == (path, 404)
        assert found["detail"] == "there is no source 'straitx'; the sources are: gokart, straitsx"


async def test_what_is_not_there_is_a_problem_document(service: Service) -> None:
    here = ("/v1/transactions/straitsx/nothing", "/v1/transactions/nowhere/x", "/v1/nothing")
    for path in (*here, "/v1", "/v1/", "/v1/customers/nowhere/x", "/v1/events/nowhere/1"):
        status, found = await service.refused(path)
        assert (path, status) == (path, 404)
        assert found["type"] == "urn:callback-ledger:problem:not-found"


async def test_a_position_that_is_none_is_a_bad_question(service: Service) -> None:
    status, _ = await service.refused("/v1/events/straitsx/first")
    assert status == 400


async def test_other_methods_are_stated_which_would_do(service: Service) -> None:
    for path in ("/v1/wallets", "/v1/status", "/openapi.json", "/docs", "/"):
        async with service.client.delete(path) as response:
            status, _ = await problem(response)
            assert (path, status, response.headers["Allow"]) == (path, 405, "GET, HEAD")
    async with service.client.get(RESOLVE) as response:
        status, _ = await problem(response)
        assert (status, response.headers["Allow"]) == (405, "POST")


async def test_answers_are_private_and_name_their_position(service: Service) -> None:
    async with service.client.get("/v1/wallets") as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Ledger-Position"] == "gokart:0,straitsx:0"


async def test_pages_may_load_from_the_service_only(service: Service) -> None:
    for path in ("/", "/docs", "/docs/docs.js", "/docs/docs.css"):
        async with service.client.get(path) as response:
            assert response.status == 200
            assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")


async def test_the_openapi_document_is_served(service: Service) -> None:
    assert (await service.ask("/openapi.json"))["openapi"] == "3.1.0"


async def test_without_a_token_nothing_is_stated(guarded: Service) -> None:
    wrong = (None, "Bearer wrong", "Bearer ", "Bearer", "Basic first", "first", "Bearer firs")
    for path in ("/v1/wallets", "/v1/nothing", "/"):
        for value in wrong:
            headers = {} if value is None else {"Authorization": value}
            async with guarded.client.get(path, headers=headers) as response:
                status, _ = await problem(response)
                assert (path, value, status) == (path, value, 401)
                assert response.headers["WWW-Authenticate"] == 'Bearer realm="callback-ledger"'
    async with guarded.client.post(RESOLVE, json={"action": "acknowledge"}) as response:
        assert (await problem(response))[0] == 401


async def test_the_documentation_of_the_api_needs_no_token(guarded: Service) -> None:
    for path in ("/docs", "/docs/docs.js", "/openapi.json"):
        async with guarded.client.get(path) as response:
            assert response.status == 200


async def test_every_token_opens_under_any_name(guarded: Service) -> None:
    for token in ("first", "sécond"):
        headers = {"Authorization": f"Bearer {token}", "Host": "ledger.example"}
        async with guarded.client.get("/v1/wallets", headers=headers) as response:
            assert response.status == 200


async def test_callbacks_health_and_documentation_need_no_token(guarded: Service) -> None:
    for path in ("/healthz", "/metrics", "/openapi.json"):
        async with guarded.client.get(path) as response:
            assert response.status == 200
    assert (await guarded.post("straitsx", b"{}"))["position"] == 1


async def test_a_name_made_to_point_here_is_refused_where_no_token_is_set(
    service: Service,
) -> None:
    for host in ("attacker.example", "10.0.0.1:8080", "127.0.0.1.nip.io", "", "localhost.evil"):
        for method, path in (("GET", "/v1/wallets"), ("GET", "/"), ("POST", RESOLVE)):
            async with service.client.request(method, path, headers={"Host": host}) as response:
                status, found = await problem(response)
                assert (host, status) == (host, 403)
                assert "LEDGER_API_TOKENS" in found["detail"]


async def test_a_page_from_elsewhere_changes_nothing_where_no_token_is_set(
    service: Service,
) -> None:
    decision = {"action": "acknowledge"}
    for origin in ("https://attacker.example", "null", "http://10.0.0.1", ""):
        headers = {"Origin": origin}
        async with service.client.post(RESOLVE, headers=headers, json=decision) as response:
            status, _ = await problem(response)
            assert (origin, status) == (origin, 403)


async def test_loopback_names_are_let_in(service: Service) -> None:
    for host in ("localhost:8080", "127.0.0.1", "127.8.9.1", "[::1]:8080", "LOCALHOST"):
        async with service.client.get("/v1/wallets", headers={"Host": host}) as response:
            assert (host, response.status) == (host, 200)
    headers = {"Origin": "http://localhost:8080"}
    async with service.client.post(
        RESOLVE, headers=headers, json={"action": "acknowledge"}
    ) as response:
        assert (await problem(response))[0] == 404


async def test_no_bytes_in_a_question_are_an_error_of_ours(service: Service) -> None:
    for text in ("%00", "%ff%fe", "%ed%a0%80", "%27;--", "%25", "%F0%9F%92%A9", "%5C", "a%0Ab"):
        for path in (
            f"/v1/transactions/straitsx/{text}",
            f"/v1/customers/straitsx/{text}",
            f"/v1/balances?account={text}",
            f"/v1/balances?account={text}*",
            f"/v1/events?kind={text}&status={text}",
            f"/v1/exceptions?reason={text}",
            f"/v1/transactions?cursor={text}",
        ):
            async with service.client.get(URL(path, encoded=True)) as response:
                assert response.status in (200, 400, 404), (path, await response.text())
