"""The composition of a web process: which routes it has, what they work with, how it stops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiohttp import web

from ledger.api import endpoints_decisions, endpoints_reconciliation
from ledger.api.admission import check_may_measure
from ledger.api.endpoints import DECIDE, QUERY, QueryState
from ledger.api.problems import guarded
from ledger.api.server import add_query_routes
from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.database.errors import EXPECTED
from ledger.errors import (
    DatabaseReadOnly,
    DatabaseRefused,
    NotCaughtUp,
    UnsafeDatabase,
)
from ledger.eventlog.appender import Log
from ledger.queries.snapshot import open_snapshot
from ledger.receiver.callback_protocol import CallbackServer
from ledger.receiver.connections import Connection, Connections, track_requests
from ledger.receiver.delivery_log import DeliveryLog
from ledger.receiver.endpoint import Receiver, add_receive_routes
from ledger.receiver.operator_events import OperatorEvents
from ledger.registry import load
from ledger.runtime import metrics
from ledger.service.gauges import DatabaseGauges

LOGGER = structlog.get_logger(__name__)

BACKLOG: Final = 1_024
LINGER_SECONDS: Final = 2.0
"""For how long the rest of a refused body is read, so that its sender gets to see the answer."""

READY_SECONDS_MAX: Final = 2.0
QUERIES_MAX: Final = 10
"""Connections that answer queries, per process."""

RECEIVER: Final = web.AppKey("receiver", Receiver)
GAUGES: Final = web.AppKey("gauges", DatabaseGauges)


def build(
    settings: Settings,
    dsn: str,
    role: str,
    result_seconds: float = endpoints_decisions.RESULT_SECONDS_MAX,
) -> web.Application:
    """Compose the application of `role` (`all`, `receiver` or `query`) over one database.

    An answer to a decision waits for up to `result_seconds` until the reconciliation has read it.
    """
    app = web.Application(client_max_size=settings.body_bytes_max, middlewares=[track_requests])
    receiver = Receiver(settings, load(), Log(dsn, settings), DeliveryLog(dsn, settings))
    app[RECEIVER] = receiver
    app[GAUGES] = DatabaseGauges(dsn)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _Readiness(dsn, receiver, role).handle)
    app.router.add_get("/metrics", guarded(_metrics))
    app.cleanup_ctx.append(_appending)
    if role in ("all", "receiver"):
        add_receive_routes(app, receiver)
    if role in ("all", "query"):
        operators = OperatorEvents(receiver.log, role, receiver.now)
        app[DECIDE] = operators.decide
        app[endpoints_reconciliation.DSN] = dsn
        app[endpoints_reconciliation.ROLE] = role
        app[endpoints_decisions.APPEND] = operators.append
        app[endpoints_decisions.DECIDING] = asyncio.Lock()
        app[endpoints_decisions.RESULT_SECONDS] = result_seconds
        app[endpoints_reconciliation.NOW] = receiver.now
        app[endpoints_reconciliation.IMPORTING] = set()
        add_query_routes(app)
        app.cleanup_ctx.append(_querying(settings, dsn))
    return app


async def _appending(app: web.Application) -> AsyncIterator[None]:
    """Run the appenders and the delivery records for as long as the application."""
    receiver = app[RECEIVER]
    appending = asyncio.create_task(receiver.log.run())
    records = asyncio.create_task(receiver.deliveries.run())
    counting = asyncio.create_task(receiver.counters.run())
    yield
    receiver.log.stop()
    await appending
    app[GAUGES].close()
    receiver.deliveries.stop()
    counting.cancel()
    await asyncio.wait([records, counting])


def _querying(settings: Settings, dsn: str) -> Any:
    async def context(app: web.Application) -> AsyncIterator[None]:
        async with database.pooled(dsn, size_max=QUERIES_MAX) as pool:
            app[QUERY] = QueryState(pool=pool, settings=settings)
            yield

    return context


async def _healthz(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _metrics(request: web.Request) -> web.Response:
    check_may_measure(request, request.app[RECEIVER].settings)
    gauges = await request.app[GAUGES].read()
    text = await asyncio.to_thread(metrics.render, gauges)
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4"})


@dataclass(slots=True)
class _Readiness:
    """Ready means: a callback posted now would be committed, a query sent now would be answered."""

    dsn: str
    receiver: Receiver
    role: str
    connection: Any = None
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    logged: str = ""

    async def handle(self, _request: web.Request) -> web.Response:
        reason = "stopping" if self.receiver.stopping else await self._reason()
        if reason is None:
            return web.json_response({"status": "ready"})
        return web.json_response(
            {"status": "not ready", "reason": reason}, status=503, headers={"Retry-After": "1"}
        )

    async def _reason(self) -> str | None:
        try:
            async with asyncio.timeout(READY_SECONDS_MAX), self.asking:
                if self.connection is None or self.connection.is_closed():
                    self.connection = await database.connect(self.dsn)
                    await database.assert_safe(self.connection)
                if self.role != "query":
                    await database.assert_writable(self.connection)
                if self.role != "receiver":
                    async with open_snapshot(self.connection):
                        return None
                return None
        except EXPECTED as error:
            if self.connection is not None:
                self.connection.terminate()
                self.connection = None
            reason = str(error) or type(error).__name__
            if reason != self.logged:
                LOGGER.warning("not_ready", error=reason)
            self.logged = reason
            return public_reason(error)


def public_reason(error: Exception) -> str:
    """Return why the service is not ready, without details for its operator alone."""
    match error:
        case UnsafeDatabase():
            return "a commit is not durable on this database; /v1/status says why"
        case DatabaseReadOnly():
            return "the database takes no writes: it is read-only or a standby"
        case NotCaughtUp():
            return "there are no books yet"
        case DatabaseRefused():
            return "the database refuses the service; its log says why"
        case _:
            return "the database does not answer"


@dataclass(slots=True)
class Web:
    """A running web process."""

    settings: Settings
    app: web.Application
    runner: web.AppRunner
    server: asyncio.AbstractServer
    connections: Connections
    callbacks: CallbackServer
    watching: asyncio.Task[None]

    @classmethod
    async def start(cls, settings: Settings, dsn: str, role: str, sock: socket.socket) -> Web:
        """Serve `role` on a listening socket."""
        app = build(settings, dsn, role)
        runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=settings.keepalive_seconds_max,
            auto_decompress=False,
            shutdown_timeout=settings.drain_seconds_max,
            lingering_time=LINGER_SECONDS,
        )
        await runner.setup()
        http = runner.server
        assert http is not None

        connections = Connections(settings)
        callbacks = CallbackServer(app[RECEIVER], http)
        make = http if role == "query" else callbacks

        def accept() -> asyncio.BaseProtocol:
            return Connection(connections, make)

        loop = asyncio.get_running_loop()
        server = await loop.create_server(accept, sock=sock, backlog=BACKLOG)
        watching = asyncio.create_task(connections.watch())
        return cls(settings, app, runner, server, connections, callbacks, watching)

    async def stop(self) -> None:
        """Refuse new callbacks with 503, finish those accepted, then close everything."""
        receiver = self.app[RECEIVER]
        receiver.stopping = True
        try:
            async with asyncio.timeout(self.settings.drain_seconds_max):
                await receiver.idle.wait()
        except TimeoutError:
            LOGGER.warning("drain_incomplete", events=receiver.in_flight)
        self.server.close()
        self.callbacks.close()
        self.watching.cancel()
        await self.runner.cleanup()
