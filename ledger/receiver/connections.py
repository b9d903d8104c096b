"""Open connections of one web process: how many, from where, and for how long without a request.

A tracked connection passes everything on to the protocol that reads from it. Beyond the limits
the one that was idle for longest makes room for a new one: of the same address beyond that
address's share, of the address with the most when all are taken. A request that is being
answered is never cut off.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from ledger.config.settings import Settings
from ledger.runtime.addresses import Address, address, is_within

LINGER_SECONDS: Final = 0.2
"""For how long a connection whose client sends no more stays open after an answer."""

PREFIX_BITS: Final = 64
"""One customer of a network has at least so many bits of IPv6 addresses."""

FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 24\r\n\r\n"
    b'{"status":"unavailable"}'
)


class ReadingConnection(Protocol):
    """What reads from a connection: Intake, or a protocol of aiohttp."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


@dataclass(slots=True)
class Connections:
    """The connections of one web process, by address."""

    settings: Settings
    by_address: dict[str, dict[Tracked, None]] = field(default_factory=dict)
    count: int = 0

    def admit(self, new: Tracked) -> bool:
        """Take a connection in, if need be for another one; False when all are busy."""
        settings = self.settings
        here = self.by_address.get(new.address, {})
        if not new.is_proxy and len(here) >= settings.per_address_max and not _drop_idlest(here):
            return False
        if self.count >= settings.connections_max and not self._make_room():
            return False
        self.by_address.setdefault(new.address, {})[new] = None
        self.count += 1
        return True

    def leave(self, old: Tracked) -> None:
        """Forget a connection, if it is still known."""
        here = self.by_address.get(old.address, {})
        if old in here:
            del here[old]
            self.count -= 1
        if not here:
            self.by_address.pop(old.address, None)

    async def watch(self) -> None:
        """Close connections that have been silent for too long, until cancelled."""
        settings = self.settings
        pace = min(1.0, settings.header_seconds_max / 4, settings.keepalive_seconds_max / 4)
        while True:
            await asyncio.sleep(pace)
            now = monotonic()
            for here in list(self.by_address.values()):
                for each in list(here):
                    if each.is_overdue(now):
                        each.drop()

    def _make_room(self) -> bool:
        """Drop the idlest connection of the address with the most; trusted proxies come last."""

        def most(here: dict[Tracked, None]) -> tuple[bool, int]:
            return next(iter(here)).is_proxy, -len(here)

        return any(_drop_idlest(here) for here in sorted(self.by_address.values(), key=most))


def _drop_idlest(found: Iterable[Tracked]) -> bool:
    """Drop the connection that was idle for longest; False when each has a request."""
    idle = [each for each in found if not each.requests]
    if not idle:
        return False
    min(idle, key=lambda each: each.active_at).drop()
    return True


class Tracked(asyncio.Protocol):
    """One connection: passes on what comes, and knows whether a request is on its way."""

    __slots__ = (
        "_connections", "_inner", "_is_over", "_make", "_request", "_transport", "active_at",
        "address", "began_at", "is_proxy", "is_used", "requests",
    )  # fmt: skip

    def __init__(self, connections: Connections, make: Callable[[], asyncio.BaseProtocol]) -> None:
        self._connections = connections
        self._make = make
        self._inner: ReadingConnection | None = None
        self._transport: asyncio.Transport | None = None
        self._request: web.BaseRequest | None = None
        self._is_over = False
        """Whether the client sends no more."""
        self.address = ""
        self.is_proxy = False
        self.is_used = False
        """Whether a request was answered."""
        self.requests = 0
        """Requests that are being answered."""
        self.active_at = monotonic()
        self.began_at: float | None = None
        """Since when a request is arriving whose head is not known yet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let a protocol read, or answer 503 when there is no room."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        found = address(peer[0]) if isinstance(peer, tuple) else None
        self.address = _block(found)
        self.is_proxy = is_within(found, self._connections.settings.trusted_proxies)
        if not self._connections.admit(self):
            self._transport.write(FULL)
            self._transport.close()
            return
        self.hand_over(self._make())

    def hand_over(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol read from now on."""
        self._inner = cast("ReadingConnection", protocol)
        assert self._transport is not None
        self._inner.connection_made(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._connections.leave(self)
        if self._inner is not None:
            self._inner.connection_lost(exc)
        self._inner = self._transport = self._request = None

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; those that no request explains yet begin one."""
        if self._inner is None:
            return
        self.active_at = monotonic()
        if self.began_at is None and not self.requests:
            self.began_at = self.active_at
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Keep open for the answer to a request that came whole; close otherwise."""
        self._is_over = True
        whole = self._request is None or self._request.content.is_eof()
        if whole and (self.requests or self.began_at is not None):
            self._close_soon()
            return True
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        """Say that the client does not read its answers."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Say that it does again."""
        if self._inner is not None:
            self._inner.resume_writing()

    def begin(self, request: web.BaseRequest | None = None) -> None:
        """Count a request whose head is known; None is one that came whole."""
        self.requests += 1
        self.began_at = None
        self._request = request
        if self._is_over and request is not None and not request.content.is_eof():
            self.drop()  # the rest of its body will never come

    def end(self) -> None:
        """Count an answer."""
        self.requests -= 1
        self.is_used = True
        self._request = None
        self.active_at = monotonic()
        if self._is_over:
            self._close_soon()

    def is_overdue(self, now: float) -> bool:
        """Tell whether a head, or the next request, takes too long."""
        settings = self._connections.settings
        if self.requests:
            return False
        if self.began_at is not None:
            return now - self.began_at > settings.header_seconds_max
        idle_max = settings.keepalive_seconds_max if self.is_used else settings.header_seconds_max
        return now - self.active_at > idle_max

    def drop(self) -> None:
        """Close at once; what the client does not read is lost."""
        self._connections.leave(self)
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    def _close_soon(self) -> None:
        """Close unless a request is being answered then."""
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if not self.requests and self._transport is not None:
            self._transport.close()


def _block(found: Address | None) -> str:
    """Name what counts as one address: an IPv4 address, or a network of IPv6 addresses."""
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found), PREFIX_BITS), strict=False))
    return str(found or "")


@web.middleware
async def tracking(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell a tracked connection when aiohttp begins a request and when it is answered."""
    transport: Any = request.transport
    tracked = transport.get_protocol() if transport is not None else None
    if not isinstance(tracked, Tracked):
        return await handler(request)
    tracked.begin(request)
    try:
        return await handler(request)
    finally:
        tracked.end()
