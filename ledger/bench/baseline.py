"""The yardstick, a process of its own: an aiohttp handler that reads a body and does nothing.

`python -m ledger.bench.baseline PATH` prints its port and serves until stdin ends. Event loop,
parser and server settings are those of the receiver.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import orjson
from aiohttp import web

from ledger.config.settings import Settings
from ledger.runtime.event_loop import runner
from ledger.service.web import BACKLOG

DONE: Final = {"status": "ok"}


async def _nothing(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=orjson.dumps(DONE), content_type="application/json")


async def _serve() -> None:
    settings = Settings()
    app = web.Application(client_max_size=settings.body_bytes_max + 1)
    app.router.add_post(sys.argv[1], _nothing)
    made = web.AppRunner(
        app, access_log=None, keepalive_timeout=settings.header_seconds_max, auto_decompress=False
    )
    await made.setup()
    loop = asyncio.get_running_loop()
    assert made.server is not None
    server = await loop.create_server(made.server, "127.0.0.1", 0, backlog=BACKLOG)
    sys.stdout.write(orjson.dumps({"port": server.sockets[0].getsockname()[1]}).decode() + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    server.close()
    await made.cleanup()


if __name__ == "__main__":
    runner()(_serve())
