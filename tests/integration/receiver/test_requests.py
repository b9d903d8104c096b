"""Promise: a callback is the same callback, however its bytes arrive."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import orjson
import pytest

from ledger.errors import DatabaseUnavailable
from ledger.eventlog.appender import AppendRefused, AppendResult
from ledger.eventlog.new_event import NewEvent
from ledger.runtime.addresses import network
from ledger.service.web import RECEIVER
from ledger.signatures.hmac_sha256_hex import sign
from tests.asking import payment
from tests.conftest import Database, eventually
from tests.integration.receiver.test_receiver_limits import (
    COUNT_EVENTS,
    Listening,
    connected,
    exchange,
    head,
    receiving,
    status,
)

BODY = orjson.dumps(payment(1))
PROXIES = (network("127.0.0.1"), network("192.0.2.8"))
LENGTH = f"Content-Length: {len(BODY)}"
SELECT_HEADERS = "SELECT headers, peer, path_event FROM ledger.events ORDER BY position"


def body(number: int) -> bytes:
    """Return a callback of its own."""
    return orjson.dumps(payment(number))


def request(number: int, *lines: str, path: str = "/callbacks/straitsx") -> bytes:
    """Write a whole request."""
    content = body(number)
    return head(f"Content-Length: {len(content)}", *lines, path=path) + content


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Read one answer: status, headers in lower case, content."""
    async with asyncio.timeout(5):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        content = orjson.loads(await reader.readexactly(int(fields["content-length"])))
    return int(lines[0].split(" ")[1]), fields, content


async def test_one_connection_posts_many_callbacks(database: Database) -> None:
    async with receiving(database) as listening, connected(listening.port) as (reader, writer):
        for number in (1, 2, 1):
            writer.write(request(number, "Content-Type: application/json"))
            code, fields, content = await answer(reader)
            assert (code, fields["content-type"]) == (200, "application/json")
            assert fields["ledger-position"] == f"straitsx:{number}"
            assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} gmt", fields["date"])
            assert content["position"] == number
        assert content["status"] == "duplicate"


async def test_pipelined_callbacks_are_answered_in_order(database: Database) -> None:
    async with receiving(database) as listening, connected(listening.port) as (reader, writer):
        writer.write(request(1))
        await asyncio.sleep(0)
        for number in range(2, 6):
            writer.write(request(number))
        for number in range(1, 6):
            _code, _fields, content = await answer(reader)
            assert content["position"] == number
        assert await listening.count() == 5


@pytest.mark.parametrize("cut", [1, 17, 40, len(request(1)) - len(BODY), len(request(1)) - 1])
async def test_a_callback_in_two_pieces_is_the_same_callback(database: Database, cut: int) -> None:
    async with receiving(database) as listening, connected(listening.port) as (reader, writer):
        whole = request(1)
        writer.write(whole[:cut])
        await writer.drain()
        await eventually(lambda: _true(has_received(listening)))
        writer.write(whole[cut:])
        code, _fields, content = await answer(reader)
        assert (code, content["status"]) == (200, "accepted")


def has_received(listening: Listening) -> bool:
    """Tell whether the service has bytes of a request that is not complete."""
    addresses = listening.web.connections.by_address.values()
    connections = [connection for here in addresses for connection in here]
    return any(each.is_answering or each.began_at is not None for each in connections)


async def _true(found: bool) -> bool:
    return found


@pytest.mark.parametrize(
    "line",
    [
        "Expect: 100-continue",
        "Connection: close",
        "Upgrade: websocket",
        "TE: trailers",
        "X-Blank:  two",
        "X-Empty:",
        "X-Tab: a\tb",
        "X-Latin: \xe9",
        "X_Name: 1",
    ],
)
async def test_unusual_header_fields_are_accepted(database: Database, line: str) -> None:
    async with receiving(database) as listening, connected(listening.port) as (reader, writer):
        writer.write(request(1, line))
        if line.startswith("Expect"):
            async with asyncio.timeout(5):
                assert b"100" in await reader.readuntil(b"\r\n\r\n")
        code, _fields, content = await answer(reader)
        assert (code, content["status"]) == (200, "accepted")


async def test_an_event_keeps_what_matters_of_its_request(database: Database) -> None:
    source = replace(database.settings.sources["straitsx"], secrets=("s",))
    limits = {"sources": {"straitsx": source}, "trusted_proxies": PROXIES}
    async with receiving(database, **limits) as listening:
        lines = (
            "Content-Type: application/json",
            "User-Agent: StraitsX",
            "X-Forwarded-For: 192.0.2.7, 192.0.2.8",
            f"Xfers-Signature: {sign('s', BODY)}",
        )
        async with connected(listening.port) as (reader, writer):
            writer.write(request(1, *lines, path="/callbacks/straitsx/paymentStatusUpdated"))
            assert (await answer(reader))[0] == 200
        async with database.service() as connection:
            row = await connection.fetchrow(SELECT_HEADERS)
        assert (row["peer"], row["path_event"]) == ("192.0.2.7", "paymentStatusUpdated")
        assert orjson.loads(row["headers"]) == {
            "Content-Type": "application/json",
            "User-Agent": "StraitsX",
            "Xfers-Signature": sign("s", BODY),
        }


async def test_a_sender_that_leaves_has_still_sent_its_callback(database: Database) -> None:
    async with receiving(database) as listening:
        for number in range(1, 4):
            async with connected(listening.port) as (_reader, writer):
                writer.write(request(number))
                await writer.drain()

        async def arrived() -> bool:
            return await listening.count() == 3

        await eventually(arrived)
        receiver = listening.web.app[RECEIVER]
        await eventually(lambda: _true(receiver.in_flight == 0))


class Failing:
    """An appender whose results are all the same error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def append(self, _new_event: NewEvent) -> AppendResult:
        """Fail."""
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "stated"),
    [
        (DatabaseUnavailable(), 503, "unavailable"),
        (AppendRefused(), 500, "error"),
    ],
)
async def test_a_callback_that_may_not_be_stored_is_never_answered_200(
    database: Database, error: Exception, code: int, stated: str
) -> None:
    async with receiving(database) as listening, connected(listening.port) as (reader, writer):
        appenders: dict[str, Any] = listening.web.app[RECEIVER].log.appenders
        working, appenders["straitsx"] = appenders["straitsx"], Failing(error)
        writer.write(request(1))
        answered, fields, content = await answer(reader)
        assert (answered, content["status"]) == (code, stated)
        assert ("retry-after" in fields) == (code == 503)
        appenders["straitsx"] = working
        writer.write(request(1))
        assert (await answer(reader))[2]["status"] == "accepted"

        async def recorded() -> bool:
            return [row[:2] for row in await listening.deliveries()] == [("failed", code)]

        await eventually(recorded)


async def test_a_connection_that_stays_silent_is_closed(database: Database) -> None:
    limits = {"header_seconds_max": 0.3, "keepalive_seconds_max": 0.3}
    async with receiving(database, **limits) as listening:
        assert await exchange(listening.port) == b""
        assert status(await exchange(listening.port, request(1))) == 200


async def test_a_stopping_service_answers_503_on_open_connections(database: Database) -> None:
    async with receiving(database) as listening, connected(listening.port) as (reader, writer):
        writer.write(request(1))
        assert (await answer(reader))[0] == 200
        listening.web.app[RECEIVER].stopping = True
        writer.write(request(2))
        code, fields, _content = await answer(reader)
        assert (code, fields["connection"]) == (503, "close")
        async with database.service() as connection:
            assert await connection.fetchval(COUNT_EVENTS) == 1
