"""Promise: whatever a client does to one connection, the others are served and nothing is lost."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

from ledger.config.settings import Settings
from ledger.eventlog.appender import AppendRefused, Log
from ledger.eventlog.new_event import NewEvent
from ledger.receiver.connections import HEAD_BYTES_MAX
from ledger.runtime.addresses import network
from ledger.service.web import RECEIVER, Web
from ledger.signatures.hmac_sha256_hex import sign
from tests.asking import payment
from tests.conftest import Database, eventually
from tests.integration.eventlog.test_append import MOMENT
from tests.service import Caller, calling

GOOD = orjson.dumps(payment(1))
SECONDS_MAX = 5.0
COUNT_EVENTS = "SELECT count(*) FROM ledger.events"
SELECT_DELIVERIES = "SELECT outcome, answer, peer, body_bytes FROM ledger.deliveries ORDER BY id"


@dataclass(frozen=True, slots=True)
class Listening:
    """A receiver on a port of its own."""

    url: str
    port: int
    web: Web
    database: Database

    async def count(self) -> int:
        """Return how many events the log has."""
        async with self.database.service() as connection:
            return int(await connection.fetchval(COUNT_EVENTS))

    async def deliveries(self) -> list[tuple[Any, ...]]:
        """Return what was recorded beside the log."""
        async with self.database.service() as connection:
            return [tuple(row) for row in await connection.fetch(SELECT_DELIVERIES)]


@asynccontextmanager
async def receiving(
    database: Database, role: str = "receiver", dsn: str | None = None, **limits: Any
) -> AsyncIterator[Listening]:
    """Run a receiver with other limits than the usual ones."""
    settings: Settings = replace(database.settings, **limits)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    web = await Web.start(settings, dsn or database.service_dsn, role, sock)
    try:
        yield Listening(f"http://127.0.0.1:{port}", port, web, database)
    finally:
        await web.stop()


@asynccontextmanager
async def connected(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a raw connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def exchange(port: int, *parts: bytes, pace: float = 0) -> bytes:
    """Send bytes, part by part, and return everything answered until the connection closes."""
    async with connected(port) as (reader, writer), asyncio.timeout(SECONDS_MAX):
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                if pace:
                    await asyncio.sleep(pace)
            return await reader.read()
        except ConnectionError:
            return b""


def head(*lines: str, path: str = "/callbacks/straitsx") -> bytes:
    """Write a POST's request line and headers."""
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode("latin-1")


def status(answer: bytes) -> int:
    """Read the status of the first answer; 0 when there is none."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


async def check_serves(listening: Listening, number: int = 1) -> None:
    """An ordinary callback is still taken."""
    async with calling(listening.url) as caller:
        reported = await caller.report("straitsx", orjson.dumps(payment(number)))
        assert reported["status"] in ("accepted", "duplicate")


@pytest.mark.parametrize("sent", [b"", b"POST /callb", head("X-Slow: 1")[:-4]])
async def test_slow_headers_are_cut_off_dripping_or_not(database: Database, sent: bytes) -> None:
    async with receiving(database, header_seconds_max=0.4) as listening:
        began = time.monotonic()
        answer = await exchange(listening.port, sent)
        assert time.monotonic() - began < 2
        assert status(answer) in (0, 400, 408)
        began = time.monotonic()
        drip = [sent, *(b"X"[:1] for _ in range(30))]
        answer = await exchange(listening.port, *drip, pace=0.1)
        assert time.monotonic() - began < 3.5
        assert status(answer) in (0, 400, 408)
        await check_serves(listening)


async def test_a_slow_body_is_503_and_the_connection_closes(database: Database) -> None:
    async with receiving(database, body_seconds_max=0.4) as listening:
        for drip in ([GOOD[:10]], [GOOD[n : n + 1] for n in range(20)]):
            began = time.monotonic()
            first = head(f"Content-Length: {len(GOOD)}")
            answer = await exchange(listening.port, first, *drip, pace=0.05)
            assert time.monotonic() - began < 3
            assert status(answer) == 503, answer
            assert b"Retry-After: " in answer
            assert b"connection: close" in answer.lower()
        await check_serves(listening)
        assert await listening.count() == 1


@pytest.mark.parametrize(
    "lines",
    [
        ["X-Big: " + "x" * 9_000],
        [f"X-{n}: 1" for n in range(200)],
        ["X-\x00: 1"],
        ["X Y: 1"],
        ["X-Note : 1"],
        ["X-Note"],
        [": 1"],
    ],
    ids=[
        "9 KB",
        "200 headers",
        "NUL",
        "blank in name",
        "blank before colon",
        "no colon",
        "no name",
    ],
)
async def test_headers_that_are_none_are_400(database: Database, lines: list[str]) -> None:
    async with receiving(database) as listening:
        request = head(*lines, f"Content-Length: {len(GOOD)}", "Connection: close") + GOOD
        assert status(await exchange(listening.port, request)) == 400
        assert await listening.count() == 0
        await check_serves(listening)


@pytest.mark.parametrize("size", [1_000, 100_000], ids=["in pieces", "at once"])
@pytest.mark.parametrize("before", [b"", b"\r\n\r\n"], ids=["plain", "after empty lines"])
async def test_a_head_of_many_large_headers_is_431(
    database: Database, size: int, before: bytes
) -> None:
    lines = [f"X-{n}: " + "x" * 4_000 for n in range(17)]
    request = head(*lines, f"Content-Length: {len(GOOD)}")
    sent = before + request[: HEAD_BYTES_MAX + 1]  # no more, so that its end is an orderly one
    async with receiving(database) as listening:
        async with connected(listening.port) as (reader, writer), asyncio.timeout(SECONDS_MAX):
            for start in range(0, len(sent), size):
                writer.write(sent[start : start + size])
                await writer.drain()
            assert status(await reader.read()) == 431
        assert await listening.count() == 0
        await check_serves(listening)


@pytest.mark.parametrize("size", [1_000, 200_000], ids=["in pieces", "at once"])
async def test_a_large_head_and_a_large_body_within_their_limits_are_taken(
    database: Database, size: int
) -> None:
    lines = [f"X-{n}: " + "x" * 4_000 for n in range(16)]
    body = orjson.dumps(payment(1) | {"note": "y" * 100_000})
    sent = head(*lines, f"Content-Length: {len(body)}") + body
    async with (
        receiving(database) as listening,
        connected(listening.port) as (reader, writer),
        asyncio.timeout(SECONDS_MAX),
    ):
        for _ in range(2):
            for start in range(0, len(sent), size):
                writer.write(sent[start : start + size])
                await writer.drain()
            answer = await reader.readuntil(b"\r\n\r\n")
            assert status(answer) == 200, answer
            length = re.search(rb"(?i)content-length: (\d+)", answer)
            assert length is not None
            await reader.readexactly(int(length[1]))


async def test_the_rest_of_the_body_of_a_refused_request_is_not_taken_for_a_head(
    database: Database,
) -> None:
    async with (
        receiving(database) as listening,
        connected(listening.port) as (reader, writer),
        asyncio.timeout(SECONDS_MAX),
    ):
        writer.write(head("Content-Length: 200000", path="/callbacks/elsewhere"))
        assert status(await reader.readuntil(b"\r\n\r\n")) == 404
        for _ in range(20):
            writer.write(b"x" * 10_000)
            await writer.drain()
        writer.write(head("Content-Length: 0", "Connection: close", path="/callbacks/elsewhere"))
        assert b" 431 " not in await reader.read()


async def test_an_overlong_url_is_400(database: Database) -> None:
    async with receiving(database) as listening:
        request = head("Content-Length: 0", path="/callbacks/" + "x" * 9_000)
        assert status(await exchange(listening.port, request)) == 400


INNER = head("Content-Length: 2", "Connection: close") + b"{}"
SMUGGLING = {
    "CL and TE": head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + INNER,
    "TE and CL": head("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n" + INNER,
    "two CL": head("Content-Length: 0", "Content-Length: 2") + INNER,
    "two equal CL": head("Content-Length: 2", "Content-Length: 2") + b"{}" + INNER,
    "CL list": head("Content-Length: 2, 2") + b"{}" + INNER,
    "CL with sign": head("Content-Length: +2") + b"{}" + INNER,
    "negative CL": head("Content-Length: -1") + INNER,
    "hexadecimal CL": head("Content-Length: 0x2") + b"{}" + INNER,
    "CL with underscore": head("Content-Length: 0_2") + b"{}" + INNER,
    "CL before a blank": head("Content-Length : 2") + b"{}" + INNER,
    "folded CL": head("Content-Length:", " 2") + b"{}" + INNER,
    "TE xchunked": head("Transfer-Encoding: xchunked") + b"0\r\n\r\n" + INNER,
    "TE chunked twice": head("Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n" + INNER,
    "TE then identity": head("Transfer-Encoding: chunked, identity") + b"0\r\n\r\n" + INNER,
    "two TE": head("Transfer-Encoding: chunked", "Transfer-Encoding: x") + b"0\r\n\r\n" + INNER,
    "bare LF": head("Content-Length: 2").replace(b"\r\n", b"\n") + b"{}",
    "bare CR": head("X-Note: 1\rContent-Length: 2") + b"{}" + INNER,
    "chunk with sign": head("Transfer-Encoding: chunked") + b"+2\r\n{}\r\n0\r\n\r\n" + INNER,
    "chunk with bare LF": head("Transfer-Encoding: chunked") + b"2\n{}\r\n0\r\n\r\n" + INNER,
    "chunk too long": head("Transfer-Encoding: chunked") + b"1\r\n{}\r\n0\r\n\r\n" + INNER,
}


@pytest.mark.parametrize("name", SMUGGLING)
async def test_a_request_that_two_servers_read_differently_is_400(
    database: Database, name: str
) -> None:
    async with receiving(database, body_seconds_max=1) as listening:
        answer = await exchange(listening.port, SMUGGLING[name])
        assert status(answer) == 400, answer
        assert len(re.findall(rb"^HTTP/1\.", answer, re.MULTILINE)) == 1
        assert await listening.count() == 0
        await check_serves(listening)


async def test_a_client_that_leaves_early_harms_no_one(database: Database) -> None:
    request = head(f"Content-Length: {len(GOOD)}") + GOOD
    async with receiving(database) as listening:
        for length in range(0, len(request) + 1, 29):
            async with connected(listening.port) as (_, writer):
                writer.write(request[:length])
                await writer.drain()
        async with connected(listening.port) as (_, writer):
            writer.write(request)
            await writer.drain()

        async def kept() -> bool:
            return await listening.count() == 1

        await eventually(kept)
        await check_serves(listening)
        assert await listening.count() == 1
        assert listening.web.app[RECEIVER].in_flight == 0


@asynccontextmanager
async def stalled(database: Database) -> AsyncIterator[None]:
    """Keep the log's head locked, so that no batch commits, for the length of a block."""
    async with database.owner() as owner, owner.transaction():
        await owner.execute("SELECT FROM ledger.heads FOR UPDATE")
        yield


@pytest.mark.parametrize("limit", [{"queue_events_max": 5}, {"queue_bytes_max": 5 * len(GOOD)}])
async def test_a_full_queue_is_503_at_once_and_what_waits_is_taken(
    database: Database, limit: dict[str, int]
) -> None:
    async with receiving(database, **limit) as listening, calling(listening.url) as caller:
        async with stalled(database):
            waiting = [
                asyncio.create_task(caller.post("straitsx", orjson.dumps(payment(n))))
                for n in range(1, 6)
            ]
            log = listening.web.app[RECEIVER].log
            in_flight = log.in_flight
            await eventually(lambda: _holds(in_flight, 5))
            began = time.monotonic()
            reply = await caller.post("straitsx", orjson.dumps(payment(6)))
            assert time.monotonic() - began < 1
            assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
            assert reply.json["status"] == "unavailable"
        replies = await asyncio.gather(*waiting)
        assert {reply.status for reply in replies} == {200}
        assert sorted(reply.json["position"] for reply in replies) == [1, 2, 3, 4, 5]
        assert (in_flight.events, in_flight.bytes) == (0, 0)
        await check_serves(listening, 6)


async def _holds(in_flight: Any, events: int) -> bool:
    return bool(in_flight.events == events)


async def test_a_log_that_stalls_is_503_in_time_and_the_resend_is_taken_once(
    database: Database,
) -> None:
    async with receiving(database, answer_seconds_max=0.5) as listening:
        async with calling(listening.url) as caller:
            async with stalled(database):
                began = time.monotonic()
                replies = await asyncio.gather(
                    *(caller.post("straitsx", orjson.dumps(payment(n))) for n in range(1, 4))
                )
                assert time.monotonic() - began < 2
                assert {reply.status for reply in replies} == {503}
            for n in range(1, 4):
                reported = await caller.report("straitsx", orjson.dumps(payment(n)))
                assert reported["position"] in (1, 2, 3)
        assert await listening.count() == 3


async def test_a_stopping_receiver_answers_503_and_finishes_what_it_took(
    database: Database,
) -> None:
    async with receiving(database) as listening, calling(listening.url) as caller:
        async with stalled(database):
            taken = asyncio.create_task(caller.post("straitsx", GOOD))
            receiver = listening.web.app[RECEIVER]
            await eventually(lambda: _holds(receiver.log.in_flight, 1))
            receiver.stopping = True
            refused = await caller.post("straitsx", orjson.dumps(payment(2)))
            assert (refused.status, refused.headers["Connection"]) == (503, "close")
        assert (await taken).json["position"] == 1


def new_event(number: int, **changes: Any) -> NewEvent:
    given: dict[str, Any] = {
        "event_id": number.to_bytes(16, "big"),
        "idempotency_key": f"key/{number}",
        "kind": "payment",
        "resource_id": f"contract_{number}",
        "status": "completed",
        "idempotency_id": None,
        "provider_at": None,
        "path_event": None,
        "origin": "callback",
        "reason": None,
        "detail": None,
        "peer": "127.0.0.1",
        "headers": "{}",
        "body": b"body %d" % number,
        "received_at": MOMENT,
    }
    return NewEvent(**{**given, **changes})


@pytest.mark.parametrize(
    "poison",
    [{"resource_id": "a\x00b"}, {"status": "\ud800"}, {"origin": "nobody"}, {"event_id": b"x"},
     {"idempotency_id": "x" * 10}],
    ids=["NUL", "surrogate", "check", "length", "none"],
)  # fmt: skip
async def test_one_callback_that_the_database_refuses_fails_alone(
    database: Database, poison: dict[str, Any]
) -> None:
    log = Log(database.service_dsn, database.settings)
    appender = log.appenders["straitsx"]
    batch = [new_event(n, **(poison if n == 3 else {})) for n in range(1, 8)]
    waiting = [appender.append(each) for each in batch]
    running = asyncio.create_task(log.run())
    results = await asyncio.gather(*waiting, return_exceptions=True)
    log.stop()
    await running
    good = [result for result in results if not isinstance(result, BaseException)]
    assert [result.position for result in good] == list(range(1, len(good) + 1))
    if "idempotency_id" in poison:
        assert len(good) == 7
    else:
        assert len(good) == 6
        assert isinstance(results[2], AppendRefused)


async def post_raw(listening: Listening, *lines: str) -> int:
    request = head(*lines, f"Content-Length: {len(GOOD)}", "Connection: close") + GOOD
    return status(await exchange(listening.port, request))


async def test_a_forwarded_address_counts_from_a_trusted_proxy_only(database: Database) -> None:
    source = replace(
        database.settings.sources["straitsx"], allow_ips=("192.0.2.0/24",), secrets=("s",)
    )
    sources = {**database.settings.sources, "straitsx": source}
    signed = f"Xfers-Signature: {sign('s', GOOD)}"
    spoofed = ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-For: 203.0.113.9")
    async with receiving(database, sources=sources) as listening:
        assert await post_raw(listening, signed, "X-Forwarded-For: 192.0.2.7") == 403
    proxies = (network("127.0.0.1"),)
    async with receiving(database, sources=sources, trusted_proxies=proxies) as listening:
        for hops, code in (
            ((), 403),
            (spoofed, 403),
            (("X-Forwarded-For: 192.0.2.7, 203.0.113.9",), 403),
            (("X-Forwarded-For: 203.0.113.9, 192.0.2.7",), 200),
            (("X-Forwarded-For: \xff\xfe",), 403),
        ):
            assert await post_raw(listening, signed, *hops) == code
        assert await listening.count() == 1


@pytest.mark.parametrize(
    "hop",
    [
        "192.0.2.7",
        "192.0.2.7:50123",
        "::ffff:192.0.2.7",
        "[::ffff:192.0.2.7]:50123",
        "10.0.0.9, 192.0.2.7:50123, [2001:db8::1]:443",
        "192.0.2.7, , 2001:db8::1",
    ],
)
async def test_a_forwarded_address_is_read_however_proxies_write_it(
    database: Database, hop: str
) -> None:
    source = replace(database.settings.sources["straitsx"], allow_ips=("192.0.2.0/24",))
    sources = {**database.settings.sources, "straitsx": replace(source, secrets=("s",))}
    proxies = (network("::ffff:127.0.0.1"), network("2001:db8::/32"))
    async with receiving(database, sources=sources, trusted_proxies=proxies) as listening:
        for more in ((), ("TE: trailers",)):
            lines = (f"X-Forwarded-For: {hop}", f"Xfers-Signature: {sign('s', GOOD)}", *more)
            assert await post_raw(listening, *lines) == 200
        async with database.service() as connection:
            assert await connection.fetchval("SELECT peer FROM ledger.events") == "192.0.2.7"


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-For: 192.0.2.7",
        "x-forwarded-for:",
        "Forwarded: for=192.0.2.7",
        "X-Real-IP: 192.0.2.7",
        "Via: 1.1 proxy",
        "CF-Connecting-IP: 192.0.2.7",
    ],
)
async def test_a_proxy_on_this_machine_opens_nothing_that_is_for_this_machine_only(
    database: Database, line: str
) -> None:
    signed = replace(database.settings.sources["gokart"], secrets=("s",))
    sources = {**database.settings.sources, "gokart": signed}
    async with receiving(database, sources=sources, role="all") as listening:
        assert await post_raw(listening, line) == 403
        asked = "\r\n".join(["GET {} HTTP/1.1", "Host: localhost", "Connection: close"])
        for path, without in (("/", 200), ("/v1/nowhere", 404), ("/metrics", 200)):
            for lines, code in (((line,), 403), ((), without)):
                request = "\r\n".join([asked.format(path), *lines, "", ""]).encode()
                assert status(await exchange(listening.port, request)) == code
        token = head("X-Callback-Token: s", line, "Content-Length: 2", "Connection: close",
                     path="/callbacks/gokart")  # fmt: skip
        assert status(await exchange(listening.port, token + b"{}")) == 200
        assert await post_raw(listening) == 200

        async def recorded() -> bool:
            return [row[:2] for row in await listening.deliveries()] == [("refused", 403)]

        await eventually(recorded)


async def test_a_page_in_a_browser_cannot_post_to_a_source_without_a_secret(
    database: Database,
) -> None:
    async with receiving(database) as listening:
        assert await post_raw(listening, "Origin: http://page.example") == 403
        assert await post_raw(listening) == 200
        assert await listening.count() == 1


async def test_a_request_that_lies_about_itself_is_recorded_and_blocks_no_record(
    database: Database,
) -> None:
    async with receiving(database, trusted_proxies=(network("127.0.0.1"),)) as listening:
        size = 10**15
        answer = await exchange(listening.port, head(f"Content-Length: {size}"))
        assert status(answer) == 413
        lines = ("X-Forwarded-For: \xff" + "y" * 400, "Content-Length: 0", "Connection: close")
        strange = head(*lines, path="/callbacks/%00%ff")
        assert status(await exchange(listening.port, strange)) == 404

        async def recorded() -> bool:
            return len(await listening.deliveries()) == 2

        await eventually(recorded)
        first, second = await listening.deliveries()
    assert first == ("refused", 413, "127.0.0.1", 2**31 - 1)
    assert (second[:2], second[2].isascii(), len(second[2]) <= 64) == (("refused", 404), True, True)


async def test_records_of_refusals_are_written_before_a_stop(database: Database) -> None:
    async with receiving(database) as listening, calling(listening.url) as caller:
        replies = await asyncio.gather(*(_unknown(caller) for _ in range(20)))
    assert replies == [404] * 20
    assert len(await listening.deliveries()) == 20


async def _unknown(caller: Caller) -> int:
    return (await caller.post("nobody", GOOD)).status
