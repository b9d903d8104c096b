"""What a user would write instead, a process of its own: three aiohttp handlers to compare with.

`python -m ledger.bench.baseline` reads a line of JSON (`Setup`), prints the ports of its handlers
and serves until stdin ends. Event loop and server settings are those of the receiver; the two
handlers that write use the same database server, so a commit is as durable.

* `noop` reads the body and does nothing: what aiohttp alone costs.
* `insert` checks the signature and inserts the callback, one row and one commit per request.
* `balances` does the same, and in that commit updates the transaction and two balances.
"""

from __future__ import annotations

import asyncio
import hmac
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import asyncpg
import msgspec
import orjson
from aiohttp import web

from ledger.config.settings import Settings
from ledger.runtime.event_loop import runner
from ledger.service.web import BACKLOG

DONE: Final = {"status": "ok"}
HEADER: Final = "Xfers-Signature"
HOST: Final = "127.0.0.1"

CREATE_TABLES: Final = (
    "CREATE SCHEMA bench_baseline",
    "CREATE TABLE bench_baseline.callbacks (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
    "resource_id text NOT NULL, status text NOT NULL, received_at timestamptz NOT NULL "
    "DEFAULT now(), body bytea NOT NULL, UNIQUE (resource_id, status))",
    "CREATE TABLE bench_baseline.transactions (resource_id text PRIMARY KEY, status text NOT NULL, "
    "amount numeric NOT NULL, updated_at timestamptz NOT NULL DEFAULT now())",
    "CREATE TABLE bench_baseline.balances (account text PRIMARY KEY, amount numeric NOT NULL)",
    "INSERT INTO bench_baseline.balances VALUES ('clearing', 0), ('wallet', 0)",
)
INSERT_CALLBACK: Final = (
    "INSERT INTO bench_baseline.callbacks (resource_id, status, body) VALUES ($1, $2, $3) "
    "ON CONFLICT DO NOTHING RETURNING id"
)
PUT_TRANSACTION: Final = (
    "INSERT INTO bench_baseline.transactions (resource_id, status, amount) VALUES ($1, $2, $3) "
    "ON CONFLICT (resource_id) DO UPDATE SET status = $2, amount = $3, updated_at = now()"
)
ADD_TO_BALANCE: Final = "UPDATE bench_baseline.balances SET amount = amount + $2 WHERE account = $1"


class Setup(msgspec.Struct, frozen=True):
    """What the handlers need to know; `dsn` names a database in which they make their tables."""

    path: str
    secret: str
    dsn: str


class Ports(msgspec.Struct, frozen=True):
    """Where each handler listens."""

    noop: int
    insert: int
    balances: int


@dataclass(frozen=True, slots=True)
class Handlers:
    """The three handlers, over one pool of connections."""

    secret: bytes
    pool: asyncpg.Pool[Any]

    async def noop(self, request: web.Request) -> web.Response:
        """Read the body and answer."""
        await request.read()
        return _done()

    async def insert(self, request: web.Request) -> web.Response:
        """Check the signature and insert the callback."""
        body = await self._authentic(request)
        callback = orjson.loads(body)
        async with self.pool.acquire() as connection:
            await connection.fetchval(INSERT_CALLBACK, callback["id"], callback["status"], body)
        return _done()

    async def balances(self, request: web.Request) -> web.Response:
        """Check the signature, insert the callback and update what it changes in one commit."""
        body = await self._authentic(request)
        callback = orjson.loads(body)
        resource, status, amount = callback["id"], callback["status"], Decimal(callback["amount"])
        async with self.pool.acquire() as connection, connection.transaction():
            new = await connection.fetchval(INSERT_CALLBACK, resource, status, body)
            if new is not None:
                await connection.execute(PUT_TRANSACTION, resource, status, amount)
                await connection.execute(ADD_TO_BALANCE, "clearing", -amount)
                await connection.execute(ADD_TO_BALANCE, "wallet", amount)
        return _done()

    async def _authentic(self, request: web.Request) -> bytes:
        """Return a signed body."""
        body = await request.read()
        expected = hmac.digest(self.secret, body, "sha256").hex()
        if not hmac.compare_digest(expected, request.headers.get(HEADER, "")):
            raise web.HTTPUnauthorized
        return body


def _done() -> web.Response:
    return web.Response(body=orjson.dumps(DONE), content_type="application/json")


async def _listen(
    stack: AsyncExitStack, path: str, handle: Callable[[web.Request], Awaitable[web.Response]]
) -> int:
    """Serve a handler until `stack` ends; return its port."""
    settings = Settings()
    app = web.Application(client_max_size=settings.body_bytes_max + 1)
    app.router.add_post(path, handle)
    app_runner = web.AppRunner(
        app, access_log=None, keepalive_timeout=settings.header_seconds_max, auto_decompress=False
    )
    await app_runner.setup()
    stack.push_async_callback(app_runner.cleanup)
    assert app_runner.server is not None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(app_runner.server, HOST, 0, backlog=BACKLOG)
    stack.callback(server.close)
    return int(server.sockets[0].getsockname()[1])


async def _serve() -> None:
    setup = msgspec.json.decode(await asyncio.to_thread(sys.stdin.readline), type=Setup)
    async with asyncpg.create_pool(setup.dsn) as pool, AsyncExitStack() as stack:
        for statement in CREATE_TABLES:
            await pool.execute(statement)
        handlers = Handlers(setup.secret.encode(), pool)
        ports = Ports(
            await _listen(stack, setup.path, handlers.noop),
            await _listen(stack, setup.path, handlers.insert),
            await _listen(stack, setup.path, handlers.balances),
        )
        sys.stdout.write(msgspec.json.encode(ports).decode() + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    runner()(_serve())
