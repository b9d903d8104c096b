"""The short way in: a plain callback is read and answered without a task or a request object.

A connection starts here. As long as each of its requests is one callback that came in one piece
and says nothing unusual, it is queued and answered by two calls. Anything else is handed to
aiohttp with the bytes as they came, and the connection stays there. What is read here is a small
subset of HTTP/1.1 that leaves nothing to interpretation (RFC 9112).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from time import monotonic, time
from typing import Final, cast

import msgspec
import orjson

from ledger.config.source import Source
from ledger.errors import DatabaseUnavailable, LedgerError, Overloaded
from ledger.eventlog.appender import AppendResult, OnResult
from ledger.eventlog.new_event import NewEvent
from ledger.receiver.connections import Tracked
from ledger.receiver.endpoint import (
    FORM,
    RETRY_AFTER_SECONDS,
    UNEXPECTED,
    Receiver,
    kept_headers,
    unavailable,
    verdict,
)
from ledger.runtime.addresses import allowed, is_forwarded

START: Final = b"POST /callbacks/"
REQUEST_LINE: Final = re.compile(
    r"POST /callbacks/([a-z0-9][a-z0-9_-]{0,62})(?:/([A-Za-z0-9._-]{1,64}))? HTTP/1\.1"
)
FIELD_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
UNUSUAL: Final = frozenset(
    ("content-encoding", "expect", "origin", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Fields that change what a message is, or who may send it."""

END: Final = b"\r\n\r\n"
"""Ends a head."""

LENGTH: Final = b"\r\nContent-Length: "
SAID: Final = ("content-type", "user-agent", "x-forwarded-for")
"""Fields whose values matter beside the proof, in the order of `Head`."""

HEAD_BYTES_MAX: Final = 4_096
LINE_BYTES_MAX: Final = 160
"""Longest request line that is looked up: what a source and an event may be named, and the rest."""

HEADS_MAX: Final = 1_024
STAND_IN: Final = b"1"
"""Stands for a value that was cut out of a head: also the length of a body of one byte."""

ANSWER: Final = (
    b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nDate: %b\r\n%b\r\n%b"
)
OK: Final = b"200 OK"
UNAVAILABLE: Final = b"503 Service Unavailable"
FAILED: Final = b"500 Internal Server Error"
RETRY: Final = f"Retry-After: {RETRY_AFTER_SECONDS}\r\n".encode()


class Plain(msgspec.Struct):
    """A plain request: one callback, whole and nothing more."""

    source: str
    path_event: str | None
    fields: dict[str, str]
    """Header fields by lower-case name; each was given once."""
    body: bytes


def read(data: bytes) -> Plain | None:
    """Return the callback that `data` is, whole and nothing more; None when it is not so plain."""
    end = data.find(END, 0, HEAD_BYTES_MAX)
    if end < 0 or not data.startswith(START):
        return None
    head = data[:end].decode("latin-1")
    line, *lines = head.split("\r\n")
    place = _place(line)
    if place is None or not _is_plain(head):
        return None
    fields: dict[str, str] = {}
    for each in lines:
        name, _, value = each.partition(": ")
        if not value:
            return None
        fields[_field(name)] = value
    body = data[end + 4 :]
    told_once = len(fields) == len(lines) and "" not in fields
    if not told_once or "host" not in fields or not UNUSUAL.isdisjoint(fields):
        return None
    if not body or fields.get("content-length") != str(len(body)):
        return None
    if fields.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    return Plain(place[0], place[1], fields, body)


def _is_plain(head: str) -> bool:
    """Tell whether a head is printable ASCII without blanks around a field's value."""
    text = head.replace("\r\n", "")
    blank = " \r\n" in head or ":  " in head or head[-1] == " "
    return text.isascii() and text.isprintable() and not blank


@lru_cache(maxsize=1024)
def _place(line: str) -> tuple[str, str | None] | None:
    found = REQUEST_LINE.fullmatch(line)
    return (found[1], found[2]) if found else None


@lru_cache(maxsize=1024)
def _field(name: str) -> str:
    """Return a field's name in lower case, or nothing if it is none."""
    return name.lower() if FIELD_NAME.fullmatch(name) else ""


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


class Head(msgspec.Struct, frozen=True):
    """What a callback's head says that matters, but for the sender's proof."""

    source: Source
    path_event: str | None
    content_type: str
    agent: str
    forwarded_for: str
    is_forwarded: bool
    """Whether a proxy passed it on."""


class PlainCallback(msgspec.Struct):
    """A callback of a known source as it was read from a connection."""

    head: Head
    proof: str | None
    """The value of the source's own header: a signature, or a token."""
    body: bytes


class RequestReader:
    """Reads the callbacks of known sources.

    The heads of one sender mostly differ in the body's length and the proof alone. Without these
    two values they are looked up, so that only a new head is read field by field.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources
        self._mark = lru_cache(maxsize=HEADS_MAX)(self._find_mark)
        self._head = lru_cache(maxsize=HEADS_MAX)(self._read_head)

    def read(self, data: bytes) -> PlainCallback | None:
        """Return the callback that `data` is; None when it is not plain, or of no known source."""
        found = self._read_alike(data)
        if found is None and (plain := read(data)) is not None:
            head = self._of(plain)
            if head is not None:
                return PlainCallback(head, plain.fields.get(head.source.header.lower()), plain.body)
        return found

    def _read_alike(self, data: bytes) -> PlainCallback | None:
        """Read a callback whose two values are where they are looked for."""
        line = data.find(b"\r\n", 0, LINE_BYTES_MAX) if data.startswith(START) else -1
        end = data.find(END, line, HEAD_BYTES_MAX) if line > 0 else -1
        mark = self._mark(data[:line]) if end > 0 else None
        if mark is None:
            return None
        rest, proof = _cut(data[:end], mark)
        rest, size = _cut(rest, LENGTH)
        body = data[end + 4 :]
        if proof is None or not _is_value(proof) or not body or size != b"%d" % len(body):
            return None
        head = self._head(rest)
        return None if head is None else PlainCallback(head, proof.decode(), body)

    def _find_mark(self, line: bytes) -> bytes | None:
        """Return what stands before the proof of the source that a request line names."""
        place = _place(line.decode("latin-1"))
        source = self._sources.get(place[0]) if place else None
        if source is None or source.header.lower() in (*SAID, "content-length"):
            return None
        return f"\r\n{source.header}: ".encode()

    def _read_head(self, rest: bytes) -> Head | None:
        """Read a head whose values were cut out, as that of a body that fits."""
        plain = read(rest + END + b"x")
        return None if plain is None else self._of(plain)

    def _of(self, plain: Plain) -> Head | None:
        source = self._sources.get(plain.source)
        if source is None:
            return None
        content_type, agent, forwarded_for = (plain.fields.get(name, "") for name in SAID)
        passed_on = is_forwarded(plain.fields)
        return Head(source, plain.path_event, content_type, agent, forwarded_for, passed_on)


def _cut(head: bytes, mark: bytes) -> tuple[bytes, bytes | None]:
    """Take the value after `mark` out of a head; return what is left, and the value if any."""
    before, found, rest = head.partition(mark)
    if not found:
        return head, None
    value, line_end, after = rest.partition(b"\r\n")
    return b"".join((before, mark, STAND_IN, line_end, after)), value


def _is_value(value: bytes) -> bool:
    """Tell whether a field may have this value."""
    return value.isalnum() or _is_plain(": " + value.decode("latin-1"))


@dataclass(slots=True)
class Door:
    """What the connections of one web process share."""

    receiver: Receiver
    fallback: Callable[[], asyncio.Protocol]
    """Makes the aiohttp protocol that takes over a connection."""
    open: set[Intake] = field(default_factory=set)
    read: Callable[[bytes], PlainCallback | None] = field(init=False)

    def __post_init__(self) -> None:
        sources = self.receiver.settings.sources
        simple = {name: s for name, s in sources.items() if not s.scheme_type.own_headers}
        self.read = RequestReader(simple).read

    def __call__(self) -> Intake:
        """Return the protocol of a new connection."""
        return Intake(self)

    def close(self) -> None:
        """Close the connections that wait for a callback."""
        for each in list(self.open):
            each.close()

    def submit(
        self, callback: PlainCallback, peer: str | None, on_result: OnResult
    ) -> NewEvent | None:
        """Queue a callback; `on_result` is called once. None when it needs the long way."""
        receiver, head, body = self.receiver, callback.head, callback.body
        source = head.source
        sender = receiver.sender(peer, head.forwarded_for)
        scheme, proof = receiver.schemes[source.name], (callback.proof or "",)
        if (
            receiver.stopping
            or (head.is_forwarded and not source.secrets)
            or not receiver.documents(source, head.path_event)
            or len(body) > receiver.settings.body_bytes_max
            or FORM in head.content_type.lower()
            or not allowed(source.allow_ips, sender)
            or scheme.refusal(proof, body, receiver.now()) is not None
        ):
            return None
        reading = receiver.registry.read(source.provider, head.path_event, body)
        if reading.is_by_url:
            return None
        new_event = receiver.new_event(
            source,
            head.path_event,
            peer=sender,
            headers=kept_headers(head.content_type, head.agent, scheme.kept(proof)),
            body=body,
            reading=reading,
        )
        try:
            receiver.log.appenders[source.name].submit(new_event, on_result)
        except Overloaded:
            return None
        return new_event

    def record(
        self, callback: PlainCallback, new_event: NewEvent, answer: int, why: object
    ) -> None:
        """Record a callback that could not be acknowledged."""
        self.receiver.deliveries.record(
            source=callback.head.source.name,
            at=self.receiver.now(),
            outcome="failed",
            answer=answer,
            path_event=callback.head.path_event,
            peer=new_event.peer,
            reason=type(why).__name__,
            body_bytes=len(callback.body),
        )


class Intake(asyncio.Protocol):
    """One connection. At most one of its callbacks is on its way into the log."""

    __slots__ = (
        "_arrival", "_began_at", "_callback", "_door", "_held", "_peer", "_tracked", "_transport",
    )  # fmt: skip

    def __init__(self, door: Door) -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None
        self._tracked: Tracked | None = None
        self._peer: str | None = None
        self._callback: PlainCallback | None = None
        self._arrival: NewEvent | None = None
        self._began_at = 0.0
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        peer = transport.get_extra_info("peername")
        self._transport = cast("asyncio.Transport", transport)
        self._tracked = cast("Tracked", self._transport.get_protocol())
        self._peer = peer[0] if isinstance(peer, tuple) else None
        self._door.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; a callback that is on its way is still appended."""
        self._door.open.discard(self)
        self._transport = self._tracked = None

    def pause_writing(self) -> None:
        """Read nothing from whoever does not read answers."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self._transport is not None and not self._held:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take a callback, or hand the connection over with what came."""
        if self._arrival is not None:
            self._held += data
            self.pause_writing()
            return
        self._began_at = monotonic()
        callback = self._door.read(data)
        if callback is not None:
            self._callback = callback
            self._arrival = self._door.submit(callback, self._peer, self._told)
        if self._arrival is None:
            self._hand_over(data)
        else:
            self._door.receiver.begin()
            if self._tracked is not None:
                self._tracked.begin()

    def close(self) -> None:
        """Close unless a callback is on its way."""
        if self._arrival is None and self._transport is not None:
            self._transport.close()

    def _hand_over(self, data: bytes) -> None:
        tracked, protocol = self._tracked, self._door.fallback()
        self.connection_lost(None)
        if tracked is not None:
            tracked.hand_over(protocol)
            protocol.data_received(data)

    def _told(self, result: AppendResult | LedgerError) -> None:
        """Answer the callback that was on its way."""
        new_event, callback, receiver = self._arrival, self._callback, self._door.receiver
        content: Mapping[str, object]
        assert new_event is not None
        assert callback is not None
        self._arrival = self._callback = None
        name = callback.head.source.name
        if isinstance(result, AppendResult):
            status = 200
            outcome, content = verdict(name, new_event, result)
            head, field = OK, f"Ledger-Position: {name}:{result.position}\r\n".encode()
        elif isinstance(result, DatabaseUnavailable):
            status, outcome, content = 503, "unavailable", unavailable(result)
            head, field = UNAVAILABLE, RETRY
        else:
            status, outcome, content = 500, "error", UNEXPECTED
            head, field = FAILED, b""
        if status != 200:
            self._door.record(callback, new_event, status, result)
        receiver.tally.count(name, outcome, status, monotonic() - self._began_at)
        receiver.end()
        if self._transport is not None:
            body = orjson.dumps(content)
            self._transport.write(ANSWER % (head, len(body), _date(int(time())), field, body))
        if self._tracked is not None:
            self._tracked.end()
            if self._held:
                asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Go on with what came while a callback was on its way."""
        held, self._held = self._held, b""
        if self._transport is not None:
            self._transport.resume_reading()
            self.data_received(held)
