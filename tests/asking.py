"""A whole service over one test database: posts callbacks, folds them, asks the query API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import orjson
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from ledger import registry
from ledger.books import fold_version
from ledger.books.fold_connections import fold_connections
from ledger.books.generations import create_generation
from ledger.books.projection_worker import ProjectionWorker
from ledger.eventlog.sources import load_terms
from ledger.rebuild.swap import index_balances
from ledger.service import web as composition
from tests import samples
from tests.conftest import Database

Json = dict[str, Any]


@dataclass(slots=True)
class Service:
    """The composed application behind a client, and a fold that runs when it is told to."""

    database: Database
    client: TestClient[web.Request, web.Application]
    generation: int

    async def post(self, source: str, body: bytes, event: str | None = None) -> Json:
        """Post a callback; return what it was answered with, status 200."""
        path = f"/callbacks/{source}" + (f"/{event}" if event else "")
        async with self.client.post(path, data=body) as response:
            assert response.status == 200, await response.text()
            return orjson.loads(await response.read())

    async def post_json(self, source: str, body: Mapping[str, Any]) -> int:
        """Post a callback made from a mapping; return its position."""
        return int((await self.post(source, orjson.dumps(body)))["position"])

    async def post_samples(self, provider: str) -> None:
        """Post every sample of a provider, in order."""
        for name in samples.names(provider):
            event = "cpbaVerificationStatusUpdated" if "bank_account" in name else None
            await self.post(provider, samples.body(name), event)

    async def fold(self) -> None:
        """Bring the books of every source to the head of its log."""
        async with self.database.service() as connection:
            terms = await load_terms(connection)
        for each in terms:
            await fold_source(self.database, each, self.generation)

    async def ask(self, path: str, **params: Any) -> Json:
        """Ask a question that has an answer."""
        async with self.client.get(path, params=_texts(params)) as response:
            assert response.status == 200, await response.text()
            return orjson.loads(await response.read())

    async def refused(self, path: str, **params: Any) -> tuple[int, Json]:
        """Ask a question that has none; return status and problem document."""
        async with self.client.get(path, params=_texts(params)) as response:
            return await problem(response)

    async def pages(self, path: str, name: str, **params: Any) -> list[list[Json]]:
        """Follow every page of a list; return the rows of each."""
        found: list[list[Json]] = []
        cursor: str | None = None
        while True:
            more = {"cursor": cursor} if cursor else {}
            answer = await self.ask(path, **params, **more)
            found.append(answer[name])
            cursor = answer["next"]
            if cursor is None:
                return found


async def fold_source(
    database: Database, terms: Any, generation: int, until: int | None = None
) -> None:
    """Fold one source into one generation, up to the end of its log or `until`."""
    async with fold_connections(database.service_dsn, generation) as shared:
        folder = ProjectionWorker(shared, database.settings, registry.load(), terms)
        await folder.catch_up()
    await index_balances(database.service_dsn, generation, [terms])


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    return {name.rstrip("_"): str(value) for name, value in params.items()}


async def problem(response: ClientResponse) -> tuple[int, Json]:
    """Return a refusal's status and document, which must be a problem document."""
    assert response.content_type == "application/problem+json", await response.text()
    document = orjson.loads(await response.read())
    assert document["status"] == response.status
    return response.status, document


@asynccontextmanager
async def serving(
    database: Database,
    *,
    make_books: bool = True,
    role: str = "all",
    result_seconds: float = 0.0,
    **changes: Any,
) -> AsyncIterator[Service]:
    """Serve one database, its books empty, with changed settings."""
    settings = replace(database.settings, **changes)
    generation = await first_generation(database) if make_books else 0
    app = composition.build(settings, database.service_dsn, role, result_seconds)
    async with TestClient(TestServer(app)) as client:
        yield Service(database, client, generation)


async def first_generation(database: Database) -> int:
    """Make empty live books."""
    async with database.service() as connection:
        version = fold_version.current_version(await load_terms(connection))
        return await create_generation(connection, registry.load(), version, "live")


def payment(number: int, **changes: Any) -> Json:
    """Return a completed StraitsX payment of 10 XSGD, fee 0.5; changes replace fields."""
    body: Json = {
        "id": f"contract_{number:04}",
        "type": "Direct bank transfer",
        "idempotency_id": f"idem-{number:04}",
        "amount": "10.0",
        "fees": "0.5",
        "status": "completed",
        "currency": "xsgd",
        "created_at": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z",
        "updated_at": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z",
    }
    return body | changes


def payout(number: int, **changes: Any) -> Json:
    """Return a pending StraitsX payout of 20 XSGD, fee 1; changes replace fields."""
    body: Json = {
        "id": f"contract_{number:04}",
        "type": "Withdrawal on behalf",
        "idempotency_id": f"idem-{number:04}",
        "amount": "20.0",
        "fees": "1.0",
        "status": "pending",
        "account_no": "1234567890",
        "currency": "xsgd",
        "created_at": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z",
        "updated_at": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z",
    }
    return body | changes
