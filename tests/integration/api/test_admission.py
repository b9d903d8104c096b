"""Promise: strangers learn nothing from a service that other machines reach."""

from __future__ import annotations

import pytest

from ledger.runtime.addresses import network
from tests.conftest import Database
from tests.integration.receiver.test_receiver_limits import receiving
from tests.service import calling

EXPOSED = {"trusted_proxies": (network("192.0.2.1"),)}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_metrics_need_a_token_where_others_reach_the_service(database: Database) -> None:
    limits = {**EXPOSED, "api_tokens": ("api",), "metrics_token": "own"}
    async with receiving(database, **limits) as listening, calling(listening.url) as caller:
        for headers in ({}, bearer("other"), bearer("ap"), {"Authorization": "own"}):
            reply = await caller.request("GET", "/metrics", headers=headers)
            assert (reply.status, b"ledger_" in reply.body) == (401, False)
            assert reply.headers["WWW-Authenticate"].startswith("Bearer")
        for token in ("api", "own"):
            reply = await caller.request("GET", "/metrics", headers=bearer(token))
            assert (reply.status, b"ledger_" in reply.body) == (200, True)


async def test_metrics_are_open_on_loopback_unless_they_have_a_token(database: Database) -> None:
    for limits, code in (({}, 200), ({"metrics_token": "own"}, 401)):
        async with receiving(database, **limits) as listening, calling(listening.url) as caller:
            assert (await caller.request("GET", "/metrics")).status == code


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://u:secret@127.0.0.1:1/x", "the database does not answer"),
        ("postgresql://u:secret@/x?host=/nowhere", "the database does not answer"),
        ("{dsn}nowhere", "the database refuses the service; its log says why"),
    ],
)
async def test_readiness_states_strangers_nothing_of_the_database(
    database: Database, url: str, reason: str
) -> None:
    elsewhere = database.settings.database_url or ""
    dsn = url.replace("{dsn}", elsewhere)
    async with receiving(database, dsn=dsn) as listening, calling(listening.url) as caller:
        reply = await caller.request("GET", "/readyz")
        assert reply.status == 503
        assert reply.json == {"status": "not ready", "reason": reason}
