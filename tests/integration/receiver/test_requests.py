"""Promise: the fast path and aiohttp give the same answers, however the bytes arrive."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest

from ledger.errors import DatabaseUnavailable, LedgerError
from ledger.eventlog.appender import AppendRefused, AppendResult, OnResult
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


def is_handed_over(listening: Listening) -> bool:
    """Tell whether aiohttp has a connection."""
    assert listening.web.runner.server is not None
    return bool(listening.web.runner.server.connections)


async def test_many_callbacks_of_one_connection_take_the_fast_path(database: Database) -> None:
    async with receiving(database) as listening, connected(listening.port) as (reader, writer):
        for number in (1, 2, 1):
            writer.write(request(number, "Content-Type: application/json"))
            code, fields, content = await answer(reader)
            assert (code, fields["content-type"]) == (200, "application/json")
            assert fields["ledger-position"] == f"straitsx:{number}"
            assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} gmt", fields["date"])
            assert content["position"] == number
        assert content["status"] == "duplicate"
        assert not is_handed_over(listening)


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
        await eventually(lambda: _true(is_handed_over(listening)))
        writer.write(whole[cut:])
        code, _fields, content = await answer(reader)
        assert (code, content["status"]) == (200, "accepted")


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


async def test_both_paths_keep_the_same_of_a_request(database: Database) -> None:
    source = replace(database.settings.sources["straitsx"], secrets=("s",))
    lines = (
        "Content-Type: application/json",
        "User-Agent: StraitsX",
        "X-Forwarded-For: 192.0.2.7, 192.0.2.8",
    )
    limits = {"sources": {"straitsx": source}, "trusted_proxies": PROXIES}
    async with receiving(database, **limits) as listening:
        path = "/callbacks/straitsx/paymentStatusUpdated"
        for number, more in ((1, ()), (2, ("TE: trailers",))):
            signature = f"Xfers-Signature: {sign('s', body(number))}"
            async with connected(listening.port) as (reader, writer):
                writer.write(request(number, *lines, signature, *more, path=path))
                assert (await answer(reader))[0] == 200
                assert is_handed_over(listening) == bool(more)
        async with database.service() as connection:
            rows = await connection.fetch(SELECT_HEADERS)
        assert len(rows) == 2
        for number, row in zip((1, 2), rows, strict=True):
            assert (row["peer"], row["path_event"]) == ("192.0.2.7", "paymentStatusUpdated")
            assert orjson.loads(row["headers"]) == {
                "Content-Type": "application/json",
                "User-Agent": "StraitsX",
                "Xfers-Signature": sign("s", body(number)),
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

    def __init__(self, error: LedgerError) -> None:
        self.error = error

    async def append(self, _new_event: NewEvent) -> AppendResult:
        """Fail."""
        raise self.error

    def submit(self, _new_event: NewEvent, on_result: OnResult) -> None:
        """Fail after a while."""
        asyncio.get_running_loop().call_soon(on_result, self.error)


@pytest.mark.parametrize(
    ("error", "code", "stated"),
    [
        (DatabaseUnavailable(), 503, "unavailable"),
        (AppendRefused(), 500, "error"),
    ],
)
@pytest.mark.parametrize("lines", [(), ("TE: trailers",)], ids=["fast path", "aiohttp"])
async def test_a_callback_that_may_not_be_stored_is_never_answered_200(
    database: Database, error: LedgerError, code: int, stated: str, lines: tuple[str, ...]
) -> None:
    async with receiving(database) as listening, connected(listening.port) as (reader, writer):
        appenders: dict[str, Any] = listening.web.app[RECEIVER].log.appenders
        working, appenders["straitsx"] = appenders["straitsx"], Failing(error)
        writer.write(request(1, *lines))
        answered, fields, content = await answer(reader)
        assert (answered, content["status"]) == (code, stated)
        assert ("retry-after" in fields) == (code == 503)
        appenders["straitsx"] = working
        writer.write(request(1, *lines))
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


class BrokenRegistry:
    """A registry whose handlers fail in a way that nothing foresees."""

    def __init__(self, dispatch: Any) -> None:
        self.dispatch = dispatch

    def read(self, *_: Any) -> Any:
        raise RuntimeError("a defect")


async def test_a_defect_is_answered_500_and_recorded(database: Database) -> None:
    async with receiving(database) as listening:
        receiver = listening.web.app[RECEIVER]
        receiver.registry = cast(Any, BrokenRegistry(receiver.registry.dispatch))
        async with connected(listening.port) as (reader, writer):
            writer.write(request(1))
            code, _, content = await answer(reader)
        assert (code, content["status"]) == (500, "error")

        async def recorded() -> Any:
            async with database.service() as connection:
                return await connection.fetch("SELECT answer FROM ledger.deliveries")

        rows = await eventually(recorded)
    assert [row["answer"] for row in rows] == [500]


@pytest.mark.parametrize("header", ["User-Agent", "content-type", "X-Callback-Token"])
async def test_a_token_is_never_stored_whatever_its_header_is_called(
    database: Database, header: str
) -> None:
    token = "a-token-of-the-provider-0123456789"
    source = replace(database.settings.sources["gokart"], header=header, secrets=(token,))
    async with receiving(database, sources={"gokart": source}) as listening:
        async with connected(listening.port) as (reader, writer):
            writer.write(request(1, f"{header}: {token}", path="/callbacks/gokart"))
            code, _, _content = await answer(reader)
        assert code == 200
        async with database.service() as connection:
            (row,) = await connection.fetch("SELECT * FROM ledger.events")
    assert token not in str(dict(row))
