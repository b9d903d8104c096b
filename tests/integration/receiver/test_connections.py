"""Promise: open connections of one client never keep another client's callback out."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import orjson
import pytest

from ledger.runtime.addresses import network
from ledger.service.web import RECEIVER
from tests.conftest import Database, eventually
from tests.integration.receiver.test_receiver_limits import (
    SECONDS_MAX,
    Listening,
    connected,
    exchange,
    head,
    receiving,
    stalled,
    status,
)
from tests.integration.receiver.test_requests import answer, body, request

FAST_PATH: tuple[str, ...] = ()
AIOHTTP = ("TE: trailers",)
"""A field with which a request is left to aiohttp."""
paths = pytest.mark.parametrize("lines", [FAST_PATH, AIOHTTP], ids=["fast path", "aiohttp"])


@asynccontextmanager
async def opened(
    port: int, address: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection from an address of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def post(port: int, address: str, number: int, *lines: str) -> int:
    """Post a callback from an address; return the answer's status."""
    async with opened(port, address) as (reader, writer):
        writer.write(request(number, *lines))
        return (await answer(reader))[0]


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Tell whether the service closed a connection, in time."""
    async with asyncio.timeout(SECONDS_MAX):
        with suppress(ConnectionError):
            return await reader.read() == b""
    return True


@paths
@pytest.mark.parametrize("sent", [b"", b"POST /callbacks/str", head("X-Slow: 1")[:-2]])
async def test_idle_connections_of_one_address_keep_no_one_out(
    database: Database, lines: tuple[str, ...], sent: bytes
) -> None:
    limits = {"connections_max": 40, "connections_per_address_max": 20}
    async with receiving(database, **limits) as listening, AsyncExitStack() as stack:
        for _ in range(60):
            _, writer = await stack.enter_async_context(opened(listening.port, "127.0.0.2"))
            writer.write(sent)
        began = time.monotonic()
        for number in range(1, 31):
            assert await post(listening.port, "127.0.0.3", number, *lines) == 200
            assert await post(listening.port, "127.0.0.2", number, *lines) == 200
        assert time.monotonic() - began < SECONDS_MAX


async def test_the_idlest_connection_of_the_busiest_address_makes_room(database: Database) -> None:
    limits = {"connections_max": 6, "connections_per_address_max": 5}
    async with receiving(database, **limits) as listening, AsyncExitStack() as stack:

        async def open_from(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await stack.enter_async_context(opened(listening.port, address))
            writer.write(request(1))
            assert (await answer(reader))[0] == 200
            return reader, writer

        quiet = await open_from("127.0.0.2")
        busy = [await open_from("127.0.0.3") for _ in range(5)]
        busy[0][1].write(request(2))
        assert (await answer(busy[0][0]))[0] == 200
        await open_from("127.0.0.4")
        assert await is_closed(busy[1][0])
        for reader, writer in (quiet, busy[0], *busy[2:]):
            writer.write(request(3))
            assert (await answer(reader))[0] == 200


@paths
async def test_a_request_that_is_being_answered_is_never_cut_off(
    database: Database, lines: tuple[str, ...]
) -> None:
    async with receiving(database, connections_max=3) as listening, AsyncExitStack() as stack:
        readers = []
        async with stalled(database):
            for number in (1, 2, 3):
                place = opened(listening.port, f"127.0.0.{number + 1}")
                reader, writer = await stack.enter_async_context(place)
                writer.write(request(number, *lines))
                readers.append(reader)
            await eventually(lambda: _in_flight(listening, 3))
            assert status(await exchange(listening.port, head("Content-Length: 0"))) == 503
        assert [(await answer(reader))[0] for reader in readers] == [200] * 3


async def _in_flight(listening: Listening, count: int) -> bool:
    return listening.web.app[RECEIVER].in_flight == count


async def test_a_trusted_proxy_may_open_more_connections_than_others(database: Database) -> None:
    limits = {"connections_max": 40, "connections_per_address_max": 2}
    for proxies, kept in (((network("127.0.0.1"),), 5), ((), 2)):
        async with (
            receiving(database, trusted_proxies=proxies, **limits) as listening,
            AsyncExitStack() as stack,
        ):
            found = [
                (await stack.enter_async_context(connected(listening.port)))[0] for _ in range(5)
            ]
            for reader in found[: 5 - kept]:
                assert await is_closed(reader)
            for reader in found[5 - kept :]:
                assert not reader.at_eof()


@paths
async def test_a_connection_lives_between_requests_longer_than_a_head_may_take(
    database: Database, lines: tuple[str, ...]
) -> None:
    limits = {"header_seconds_max": 0.3, "keepalive_seconds_max": 1.2}
    async with receiving(database, **limits) as listening:
        async with connected(listening.port) as (reader, writer):
            for number in (1, 2):
                writer.write(request(number, *lines))
                assert (await answer(reader))[0] == 200
            began = time.monotonic()
            assert await is_closed(reader)
            assert 1.1 < time.monotonic() - began < 3
        async with connected(listening.port) as (reader, writer):
            writer.write(request(3, *lines))
            assert (await answer(reader))[0] == 200
            began = time.monotonic()
            writer.write(head("X-Slow: 1")[:-4])
            async with asyncio.timeout(SECONDS_MAX):
                await reader.read()
            assert time.monotonic() - began < 1.1


def test_idle_connections_outlive_those_of_load_balancers(database: Database) -> None:
    assert database.settings.keepalive_seconds_max == 75 > 60
    assert database.settings.header_seconds_max == 15
    assert database.settings.per_address_max == database.settings.connections_max // 4 == 500


@paths
@pytest.mark.parametrize("pause", [False, True])
async def test_a_client_that_ends_its_side_after_sending_gets_its_answers(
    database: Database, lines: tuple[str, ...], pause: bool
) -> None:
    async with receiving(database) as listening, connected(listening.port) as (reader, writer):
        if pause:
            async with stalled(database):
                writer.write(request(1, *lines))
                writer.write_eof()
                await eventually(lambda: _in_flight(listening, 1))
        else:
            writer.write(request(1, *lines) + request(2, *lines))
            writer.write_eof()
        for position in range(1, 2 if pause else 3):
            code, _, content = await answer(reader)
            assert (code, content["position"]) == (200, position)
        assert await is_closed(reader)


async def test_a_client_that_ends_its_side_within_a_request_is_let_go(database: Database) -> None:
    whole = request(1)
    async with receiving(database) as listening:
        for cut in (0, 7, 60, len(whole) - len(body(1)), len(whole) - 1):
            async with connected(listening.port) as (reader, writer):
                writer.write(whole[:cut])
                writer.write_eof()
                began = time.monotonic()
                assert await is_closed(reader)
                assert time.monotonic() - began < 2
        await eventually(lambda: _in_flight(listening, 0))
        assert await listening.count() == 0


PLAIN = ["utf-8", "identity", "", "UTF-8", "Identity", "identity, utf-8", "none"]
COMPRESSED = ["gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "identity, gzip", "gzip, utf-8"]


@pytest.mark.parametrize("coding", PLAIN)
async def test_an_encoding_that_does_not_compress_is_none(database: Database, coding: str) -> None:
    async with receiving(database) as listening:
        lines = (f"Content-Encoding: {coding}", "Connection: close")
        reply = await exchange(listening.port, request(1, *lines))
        assert (status(reply), b'"accepted"' in reply) == (200, True)


@pytest.mark.parametrize("coding", COMPRESSED)
async def test_a_compressed_body_is_415(database: Database, coding: str) -> None:
    sent = gzip.compress(body(1))
    lines = (f"Content-Encoding: {coding}", f"Content-Length: {len(sent)}", "Connection: close")
    async with receiving(database) as listening:
        assert status(await exchange(listening.port, head(*lines) + sent)) == 415
        assert await listening.count() == 0


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip,chunked", "deflate, gzip, chunked"])
async def test_a_transfer_coding_other_than_chunked_is_501(database: Database, coding: str) -> None:
    sent = gzip.compress(body(1))
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(sent), sent)
    lines = (f"Transfer-Encoding: {coding}", "Connection: close")
    async with receiving(database) as listening:
        assert status(await exchange(listening.port, head(*lines) + chunks)) == 501
        assert await listening.count() == 0
        await recorded(listening, 501)


async def recorded(listening: Listening, *answers: int) -> None:
    """Wait until exactly these refusals are recorded."""
    expected = [("refused", each) for each in answers]

    async def found() -> bool:
        return [row[:2] for row in await listening.deliveries()] == expected

    await eventually(found)


@pytest.mark.parametrize(
    "path",
    [
        "//callbacks/straitsx",
        "///callbacks/straitsx/paymentStatusUpdated",
        "/callbacks//straitsx",
        "//callbacks",
        "/Callbacks/straitsx",
        "/callback/straitsx",
        "//callbacks//straitsx/",
    ],
)
async def test_a_callback_to_nearly_the_right_path_is_recorded(
    database: Database, path: str
) -> None:
    async with receiving(database, role="all") as listening:
        reply = await exchange(listening.port, request(1, "Connection: close", path=path))
        assert status(reply) == 404
        assert orjson.loads(reply.partition(b"\r\n\r\n")[2])["status"] == "refused"
        await recorded(listening, 404)
        other = await exchange(listening.port, request(1, "Connection: close", path="/elsewhere"))
        assert status(other) == 404
