"""Receiving plain callbacks without a task and a request object: half the cost of an answer.

A connection starts here. As long as each request that arrives is one whole callback of an ordinary
head, it is appended and answered by two calls. With the first request that is not, the connection
goes to aiohttp, with the bytes as they came, and stays there; refusals are all answered there. The
parser is llhttp, as in aiohttp. What this buys is in `ledger/bench/RESULTS.md`; without this
module, connections start at aiohttp.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, cast

import httptools
import msgspec
from multidict import CIMultiDict

from ledger.errors import LedgerError, Overloaded
from ledger.eventlog.appender import AppendResult
from ledger.eventlog.new_event import NewEvent
from ledger.receiver.answers import METHOD, Refusal
from ledger.receiver.connections import Connection
from ledger.receiver.endpoint import Incoming, Receiver

PATH: Final = re.compile(rb"/callbacks/([a-z0-9][a-z0-9_-]{0,62})(?:/([A-Za-z0-9._-]{1,64}))?")
HEAD_BYTES_MAX: Final = 4_096
HEADERS_MAX: Final = 64
END: Final = b"\r\n\r\n"
VERSION: Final = b" HTTP/1.1"
"""How a request line ends; llhttp reads other protocols too."""
LEFT_TO_AIOHTTP: Final = ("Transfer-Encoding", "Expect", "Upgrade", "Trailer", "TE")
"""Header fields that change how the rest of a request is read; so may one that is repeated."""


class PlainCallback(msgspec.Struct, frozen=True, gc=False):
    """A callback as it was read from a connection."""

    name: str
    path_event: str | None
    headers: CIMultiDict[str]
    body: bytes


class RequestReader:
    """Reads the requests of one connection; llhttp calls its methods `on_…`."""

    __slots__ = ("_begun", "_body", "_ended", "_headers", "_keeps_alive", "_parser", "_url")

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self._headers: CIMultiDict[str] = CIMultiDict()
        self._begun = self._ended = 0
        self._keeps_alive = False

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        self._begun += 1

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field."""
        self._headers.add(
            name.decode("utf-8", "surrogateescape"),
            value.strip(b" \t").decode("utf-8", "surrogateescape"),
        )

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """Note that a request ends, and whether another one may follow it."""
        self._ended += 1
        self._keeps_alive = self._parser.should_keep_alive()

    def read(self, data: bytes) -> PlainCallback | None:
        """Return the callback that `data` is, whole and nothing more.

        None when it is anything else; the reader cannot go on then.
        """
        if data.find(END, 0, HEAD_BYTES_MAX) < 0:
            return None
        self._url, self._headers, self._body = b"", CIMultiDict(), []
        self._begun = self._ended = 0
        parser = self._parser
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        path = PATH.fullmatch(self._url)
        is_plain = (
            (self._begun, self._ended) == (1, 1)
            and path is not None
            and bool(self._body)
            and parser.get_method() == METHOD.encode()
            and data[: data.find(b"\r\n")].endswith(VERSION)
            and "Host" in self._headers
            and len({name.lower() for name in self._headers}) == len(self._headers) <= HEADERS_MAX
            and self._keeps_alive
            and not any(name in self._headers for name in LEFT_TO_AIOHTTP)
        )
        if not is_plain:
            return None
        assert path is not None
        name, event = path.groups()
        body = b"".join(self._body)
        return PlainCallback(name.decode(), event.decode() if event else None, self._headers, body)


@dataclass(slots=True)
class CallbackServer:
    """Makes the protocols of new connections."""

    receiver: Receiver
    make_http: Callable[[], asyncio.BaseProtocol]
    """Makes the aiohttp protocol that takes over a connection."""
    open: set[CallbackProtocol] = field(default_factory=set)

    def __call__(self) -> CallbackProtocol:
        """Return the protocol of a new connection."""
        return CallbackProtocol(self)

    def close(self) -> None:
        """Close the connections that wait for a callback."""
        for protocol in list(self.open):
            protocol.close()


class CallbackProtocol(asyncio.Protocol):
    """One connection. At most one of its callbacks is being answered."""

    __slots__ = (
        "_began_at", "_connection", "_held", "_incoming", "_new_event", "_reader", "_server",
        "_transport",
    )  # fmt: skip

    def __init__(self, server: CallbackServer) -> None:
        self._server = server
        self._reader = RequestReader()
        self._transport: asyncio.Transport | None = None
        self._connection: Connection | None = None
        self._incoming: Incoming | None = None
        self._new_event: NewEvent | None = None
        self._began_at = 0.0
        self._held = b""
        """What came while a callback was being answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._connection = cast("Connection", self._transport.get_protocol())
        self._server.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; a callback that was submitted is still appended."""
        self._server.open.discard(self)
        self._transport = self._connection = None

    def pause_writing(self) -> None:
        """Read nothing from a client that does not read answers."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self._transport is not None and not self._held:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Submit a callback, or hand the connection over with what came."""
        connection = self._connection
        if connection is None:
            return
        if self._new_event is not None:
            self._held += data
            self.pause_writing()
            return
        self._began_at = perf_counter()
        callback = self._reader.read(data)
        if callback is None or not self._submit(callback, connection):
            self._hand_over(connection, data)
        else:
            self._server.receiver.begin()
            connection.begin(None)

    def _submit(self, callback: PlainCallback, connection: Connection) -> bool:
        """Submit a callback for appending; False when aiohttp's handler must answer it."""
        receiver = self._server.receiver
        headers, body = callback.headers, callback.body
        peer = receiver.peer(connection, headers)
        incoming = Incoming(
            callback.name, callback.path_event, METHOD, headers, "", peer, len(body)
        )
        try:
            source = receiver.admit(incoming)
            new_event = receiver.event_of(incoming, source, body)
            if new_event.is_by_url:
                return False
            receiver.log.appenders[source.name].submit(new_event, self._answer)
        except (Refusal, Overloaded):
            return False
        except Exception:  # noqa: BLE001 - aiohttp's handler meets it again, logs and answers it
            return False
        self._incoming, self._new_event = incoming, new_event
        return True

    def close(self) -> None:
        """Close unless a callback is being answered."""
        if self._new_event is None and self._transport is not None:
            self._transport.close()

    def _hand_over(self, connection: Connection, data: bytes) -> None:
        protocol = self._server.make_http()
        self.connection_lost(None)
        connection.hand_over(protocol)
        connection.pass_on(data)

    def _answer(self, result: AppendResult | LedgerError) -> None:
        """Answer the callback that was submitted."""
        receiver, incoming, new_event = self._server.receiver, self._incoming, self._new_event
        assert incoming is not None
        assert new_event is not None
        self._incoming = self._new_event = None
        answer = receiver.answer_of(incoming, new_event, result)
        receiver.counters.count(
            incoming.name, answer.outcome, answer.status, perf_counter() - self._began_at
        )
        receiver.end()
        if self._transport is not None:
            self._transport.write(answer.encode())
        if self._connection is not None:
            self._connection.end()
            if self._held:
                asyncio.get_running_loop().call_soon(self._continue)

    def _continue(self) -> None:
        """Go on with what came while a callback was being answered."""
        held, self._held = self._held, b""
        if self._transport is not None:
            self._transport.resume_reading()
            self.data_received(held)
