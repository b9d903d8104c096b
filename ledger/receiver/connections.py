"""Open connections of one web process: how many, from where, and for how long without a request.

aiohttp limits none of this. A connection passes what it receives on to aiohttp's protocol. Beyond
the limits the connection that was idle for longest makes room for a new one: of the same address
beyond that address's share, of the address with the most when all are taken. A connection whose
request is being answered is never closed for another.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from time import monotonic
from typing import Any, Final, Protocol, cast

from aiohttp import StreamReader, web
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


HEAD_BYTES_MAX: Final = 64 * 1024
"""Bytes of a request's line and headers together; aiohttp limits only the number and each size."""

HEAD_END: Final = b"\r\n\r\n"
HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)


class HttpProtocol(Protocol):
    """What reads from a connection: CallbackProtocol, or a protocol of aiohttp."""

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
    by_address: dict[str, dict[Connection, None]] = field(default_factory=dict)
    count: int = 0

    def admit(self, new: Connection) -> bool:
        """Admit a connection, if need be in place of another; False when all are busy."""
        settings = self.settings
        here = self.by_address.get(new.address, {})
        if not new.is_proxy and len(here) >= settings.per_address_max and not _drop_idlest(here):
            return False
        if self.count >= settings.connections_max and not self._make_room():
            return False
        self.by_address.setdefault(new.address, {})[new] = None
        self.count += 1
        return True

    def leave(self, old: Connection) -> None:
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
                for connection in list(here):
                    if connection.is_overdue(now):
                        connection.drop()

    def _make_room(self) -> bool:
        """Drop the idlest connection of the address with the most; trusted proxies come last."""

        def size(here: dict[Connection, None]) -> tuple[bool, int]:
            return next(iter(here)).is_proxy, -len(here)

        return any(_drop_idlest(here) for here in sorted(self.by_address.values(), key=size))


def _drop_idlest(connections: Iterable[Connection]) -> bool:
    """Drop the connection that was idle for longest; False when each has a request."""
    idle = [connection for connection in connections if not connection.is_answering]
    if not idle:
        return False
    min(idle, key=attrgetter("active_at")).drop()
    return True


@dataclass(slots=True)
class HeadSize:
    """Counts the bytes of one request's head while they arrive."""

    count: int = 0
    is_complete: bool = False
    _last: bytes = b""

    def add(self, data: bytes) -> None:
        """Count those of the bytes that belong to the head."""
        if self.is_complete:
            return
        if not self.count:
            data = data.lstrip(b"\r\n")  # a parser skips empty lines before a request
        end = (self._last + data).find(HEAD_END)
        self.is_complete = end >= 0
        self.count += len(data) if end < 0 else end + len(HEAD_END) - len(self._last)
        self._last = (self._last + data)[1 - len(HEAD_END) :]


class Connection(asyncio.Protocol):
    """One connection: passes on what comes, and knows whether a request is being answered."""

    __slots__ = (
        "_connections", "_head", "_http", "_is_answering", "_is_over", "_make_http", "_request",
        "_transport", "_unread", "active_at", "address", "began_at", "is_proxy", "is_used", "peer",
    )  # fmt: skip

    def __init__(
        self, connections: Connections, make_http: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._connections = connections
        self._make_http = make_http
        self._http: HttpProtocol | None = None
        self._transport: asyncio.Transport | None = None
        self._request: web.BaseRequest | None = None
        """The request that aiohttp answers."""
        self._unread: StreamReader | None = None
        """The body of a request that was answered before all of it came."""
        self._head = HeadSize()
        self._is_answering = False
        self._is_over = False
        """Whether the client sends no more."""
        self.peer = ""
        """The address that it comes from."""
        self.address = ""
        """What counts as one address."""
        self.is_proxy = False
        self.is_used = False
        """Whether a request was answered."""
        self.active_at = monotonic()
        self.began_at: float | None = None
        """Since when a request is arriving whose head is not complete."""

    @property
    def is_answering(self) -> bool:
        """Whether a request is being answered."""
        return self._is_answering

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let aiohttp read, or answer 503 when there is no room."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        peer_address = address(peer[0]) if isinstance(peer, tuple) else None
        self.peer = str(peer_address or "")
        self.address = _block(peer_address)
        self.is_proxy = is_within(peer_address, self._connections.settings.trusted_proxies)
        if not self._connections.admit(self):
            self._transport.write(FULL)
            self._transport.close()
            return
        self.hand_over(self._make_http())

    def hand_over(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol read from now on."""
        assert self._transport is not None
        self._http = cast("HttpProtocol", protocol)
        self._http.connection_made(self._transport)

    def pass_on(self, data: bytes) -> None:
        """Let the protocol read bytes that came before it."""
        if self._http is not None:
            self._http.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._connections.leave(self)
        if self._http is not None:
            self._http.connection_lost(exc)
        self._http = self._transport = self._request = None

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; those of no known request begin one."""
        if self._http is None:
            return
        self.active_at = monotonic()
        if self.began_at is None and not self._is_answering:
            self.began_at = self.active_at
            self._head = HeadSize()
        if self._is_head_too_large(data):
            self._refuse_head()
        else:
            self._http.data_received(data)

    def _is_head_too_large(self, data: bytes) -> bool:
        """Count bytes of a head; False for those of a body, even of a request already answered."""
        if self._unread is not None and self._unread.is_eof():
            self._unread = None
            self._head = HeadSize()
        if self._is_answering or self._unread is not None:
            return False
        self._head.add(data)
        return self._head.count > HEAD_BYTES_MAX

    def _refuse_head(self) -> None:
        """Answer 431 and close."""
        self._connections.leave(self)
        if self._transport is not None:
            self._transport.write(HEAD_TOO_LARGE)
            self._transport.close()

    def eof_received(self) -> bool | None:
        """Keep open for the answer to a request that came whole; close otherwise."""
        self._is_over = True
        request = self._request
        is_whole = request is None or request.content.is_eof()
        if is_whole and (self._is_answering or self.began_at is not None):
            self._close_soon()
            return True
        return self._http.eof_received() if self._http is not None else None

    def pause_writing(self) -> None:
        """Pass on that the client does not read its answers."""
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it reads them again."""
        if self._http is not None:
            self._http.resume_writing()

    def begin(self, request: web.BaseRequest | None) -> None:
        """Note the request that is being answered from now on; None is one that came whole."""
        self._request = request
        self._is_answering = True
        self.began_at = None
        if self._is_over and request is not None and not request.content.is_eof():
            self.drop()  # the rest of its body will never come

    def end(self) -> None:
        """Note that its answer is ready."""
        request, self._request = self._request, None
        if request is not None and not request.content.is_eof():
            self._unread = request.content
        self._is_answering = False
        self.is_used = True
        self.active_at = monotonic()
        if self._is_over:
            self._close_soon()

    def is_overdue(self, now: float) -> bool:
        """Tell whether a head, or the next request, takes too long."""
        settings = self._connections.settings
        if self._is_answering:
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
        if not self._is_answering and self._transport is not None:
            self._transport.close()


def _block(peer: Address | None) -> str:
    """Name what counts as one address: an IPv4 address, or a network of IPv6 addresses."""
    if isinstance(peer, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(peer), PREFIX_BITS), strict=False))
    return str(peer or "")


def connection_of(request: web.BaseRequest) -> Connection | None:
    """Return the connection of a request; None when it is not one of these."""
    transport: Any = request.transport
    protocol = transport.get_protocol() if transport is not None else None
    return protocol if isinstance(protocol, Connection) else None


@web.middleware
async def track_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note on a connection when aiohttp begins a request and when it is answered."""
    connection = connection_of(request)
    if connection is None:
        return await handler(request)
    connection.begin(request)
    try:
        return await handler(request)
    finally:
        connection.end()
