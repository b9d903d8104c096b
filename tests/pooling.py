"""A connection pooler of the worst kind: each transaction may get another session.

Imitates PgBouncer with `pool_mode = transaction`: it names a process of its own to its clients,
hands out the session that was free last, and may drop the settings that a client begins with.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

SSL_REQUEST = 80877103
CANCEL_REQUEST = 80877102
IDLE = b"I"
NATIVE = {"user", "database", "client_encoding", "application_name"}


@dataclass(slots=True)
class Session:
    """One connection to PostgreSQL, and what it said of itself."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    parameters: bytes = b""


@dataclass(slots=True)
class Pooler:
    """Clients in front, sessions behind."""

    socket: str
    drops: bool
    """Whether it takes settings and drops them (ignore_startup_parameters), or refuses them."""
    free: list[Session] = field(default_factory=list)
    open: list[Session] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client to its end."""
        with suppress(OSError, asyncio.IncompleteReadError):
            if (startup := await self._startup(reader, writer)) is not None:
                await self._relay(reader, writer, startup)
        await close(writer)

    async def _startup(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        while True:
            (size,) = struct.unpack("!I", await reader.readexactly(4))
            body = await reader.readexactly(size - 4)
            (code,) = struct.unpack("!I", body[:4])
            if code == CANCEL_REQUEST:
                return None
            if code != SSL_REQUEST:
                break
            writer.write(b"N")
        words = body[4:].rstrip(b"\0").split(b"\0")
        asked = dict(zip(words[::2], words[1::2], strict=True))
        unknown = [name for name in asked if name.decode() not in NATIVE]
        if unknown and not self.drops:
            fields = b"SFATAL\0C08P01\0Munsupported startup parameter: " + unknown[0] + b"\0\0"
            writer.write(b"E" + struct.pack("!I", len(fields) + 4) + fields)
            await writer.drain()
            return None
        kept = b"".join(k + b"\0" + v + b"\0" for k, v in asked.items() if k not in unknown)
        return struct.pack("!II", len(kept) + 9, 196608) + kept + b"\0"

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, startup: bytes
    ) -> None:
        """Let the client authenticate at PostgreSQL, then share that session with everybody."""
        behind = Session(*await asyncio.open_unix_connection(self.socket))
        self.open.append(behind)
        behind.writer.write(startup)
        if not await self._authenticate(reader, writer, behind):
            return
        self.free.append(behind)
        session: Session | None = None
        while True:
            kind, body = await _message(reader)
            if kind == b"X":
                break
            session = session or self.free.pop()
            session.writer.write(kind + struct.pack("!I", len(body) + 4) + body)
            if kind == b"H":
                await _answer(session, writer, b"TnE")
            elif kind in b"QS" and await _answer(session, writer, b"Z") == IDLE:
                self.free.append(session)
                session = None
        if session is not None:
            await close(session.writer)

    async def _authenticate(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behind: Session
    ) -> bool:
        while True:
            kind, body = await _message(behind.reader)
            if kind == b"K":
                body = struct.pack("!II", 7, 7)
            writer.write(kind + struct.pack("!I", len(body) + 4) + body)
            await writer.drain()
            if kind == b"E":
                return False
            if kind == b"Z":
                return True
            if kind == b"R" and struct.unpack("!I", body[:4])[0] in (10, 11):
                kind, body = await _message(reader)
                behind.writer.write(kind + struct.pack("!I", len(body) + 4) + body)


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await reader.readexactly(1)
    (size,) = struct.unpack("!I", await reader.readexactly(4))
    return kind, await reader.readexactly(size - 4)


async def _answer(session: Session, writer: asyncio.StreamWriter, ends: bytes) -> bytes:
    """Pass an answer on up to a message of one of the kinds `ends`; return that one's body."""
    while True:
        kind, body = await _message(session.reader)
        writer.write(kind + struct.pack("!I", len(body) + 4) + body)
        if kind in ends:
            await writer.drain()
            return body


async def close(writer: asyncio.StreamWriter) -> None:
    """Close one side of a conversation."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def socket_of(dsn: str) -> str:
    """Return the unix socket that a DSN names."""
    query = parse_qs(urlsplit(dsn).query)
    return f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"


@asynccontextmanager
async def pooling(dsn: str, *, drops: bool) -> AsyncIterator[str]:
    """Put a pooler before the server of `dsn`, which is on a unix socket; yield its own DSN."""
    parts = urlsplit(dsn)
    pooler = Pooler(socket_of(dsn), drops)
    async with listening(pooler.serve) as port:
        user = parts.netloc.rpartition("@")[0]
        yield f"postgresql://{user}@127.0.0.1:{port}{parts.path}"
    for session in pooler.open:
        await close(session.writer)


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Serve whoever connects, until the block ends and the last one left; yield the port."""
    conversations: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.add(asyncio.current_task())  # type: ignore[arg-type]
        await serve(reader, writer)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        server.close()
        if conversations:
            await asyncio.wait(conversations, timeout=10)


@asynccontextmanager
async def forwarding(dsn: str) -> AsyncIterator[int]:
    """Make a server on a unix socket reachable by TCP, for a program of another account."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        await close(writer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_unix_connection(socket_of(dsn))
        await asyncio.gather(copy(reader, outer), copy(inner, writer))

    async with listening(serve) as port:
        yield port
