"""Law: an export is sent as it is made, and one that cannot be finished never looks whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import TestClient, TestServer

from ledger.api import exports

PART = b"x" * exports.CHUNK_BYTES
SECONDS_MAX = 20.0

Chunks = Callable[[], AsyncGenerator[bytes, None]]
Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def sending(chunks: Chunks, stalled_seconds_max: float = 10.0) -> AsyncIterator[Client]:
    """Serve what `chunks` makes; what `send` raises is in app["raised"]."""
    raised: asyncio.Queue[Exception] = asyncio.Queue()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        try:
            await exports.send(request, response, chunks(), stalled_seconds_max=stalled_seconds_max)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            raised.put_nowait(error)
            if not response.prepared:
                return web.Response(status=400)
        return response

    app = web.Application()
    app[RAISED] = raised
    app.router.add_get("/", handle)
    async with TestClient(TestServer(app)) as client:
        yield client


RAISED = web.AppKey("RAISED", asyncio.Queue)


async def failure_of(client: Client) -> Exception:
    async with asyncio.timeout(SECONDS_MAX):
        found: Exception = await client.app[RAISED].get()
        return found


async def test_a_chunk_is_sent_before_the_next_one_is_made() -> None:
    received = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield PART
        await received.wait()
        yield b"rest"

    async with sending(chunks) as client, client.get("/") as response:
        assert await response.content.readexactly(len(PART)) == PART
        received.set()
        assert await response.read() == b"rest"
        assert client.app[RAISED].empty()


async def test_a_failure_before_the_first_chunk_is_answered() -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"begin"
        raise ValueError("early")

    async with sending(chunks) as client, client.get("/") as response:
        assert response.status == 400
        assert str(await failure_of(client)) == "early"


async def test_a_failure_after_the_first_chunk_cuts_the_file_off() -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield PART
        raise ValueError("late")

    async with sending(chunks) as client, client.get("/") as response:
        assert response.status == 200
        with pytest.raises(ClientPayloadError):
            await response.read()
        assert str((await failure_of(client)).__cause__) == "late"


async def test_a_client_that_leaves_ends_the_reading() -> None:
    ended = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield PART
        finally:
            ended.set()

    async with sending(chunks) as client:
        async with client.get("/") as response:
            await response.content.readexactly(1)
            response.close()
        async with asyncio.timeout(SECONDS_MAX):
            await ended.wait()


async def test_a_client_that_stops_reading_is_cut_off() -> None:
    made = 0

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal made
        while True:
            made += 1
            yield PART

    async with sending(chunks, stalled_seconds_max=0.5) as client, client.get("/") as response:
        assert isinstance((await failure_of(client)).__cause__, TimeoutError)
        assert made < 1_000
        with pytest.raises(ClientPayloadError):
            await response.read()
