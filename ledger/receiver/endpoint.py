"""The receiver: authenticate the raw bytes, limit everything, append, answer after the commit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Final, TypeAlias

import msgspec
import orjson
import structlog
from aiohttp import web
from multidict import MultiMapping

from ledger.config.settings import Settings
from ledger.config.source import EVENT_NAME, Source
from ledger.errors import DatabaseUnavailable, LedgerError, Overloaded
from ledger.eventlog.appender import AppendResult, InFlightLimit, Log
from ledger.eventlog.new_event import NewEvent, callback_event
from ledger.evidence.authenticity import mark_event
from ledger.fold.dispatch import EVENT_MISMATCH, UNKNOWN
from ledger.model import Envelope
from ledger.receiver.answers import (
    METHOD,
    Answer,
    Refusal,
    acknowledge,
    refuse,
    unavailable,
    unexpected,
)
from ledger.receiver.connections import Connection, connection_of
from ledger.receiver.delivery_log import DeliveryLog
from ledger.registry import UNREADABLE, ParsedCallback, Registry
from ledger.runtime import addresses
from ledger.runtime.metrics import RequestCounters
from ledger.signatures.scheme import HEADER_CHARS_MAX, Proof, Scheme
from ledger.strict_form import ADVICE, UNSUPPORTED_ENCODING, is_form

LOGGER = structlog.get_logger(__name__)

FORWARDED_FOR: Final = "X-Forwarded-For"
FORM: Final = "application/x-www-form-urlencoded"
UNSUPPORTED: Final = ParsedCallback(
    Envelope(UNREADABLE, "", UNREADABLE), UNSUPPORTED_ENCODING, ADVICE
)
"""A form or a query string that is not flat is stored as it came; no document says how it nests."""
OBJECT: Final = re.compile(rb"[ \t\r\n]*\{")
"""How a JSON object begins, and no form: who posts by hand easily forgets the type."""

COMPRESSIONS: Final = frozenset(
    (
        "gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress", "bzip2", "x-bzip2",
        "xz", "lzma", "lz4", "snappy", "dcb", "dcz", "exi", "pack200-gzip",
    )
)  # fmt: skip
"""Content codings that compress; what else senders write there (`utf-8`) codes nothing."""


Headers: TypeAlias = MultiMapping[str]


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """What is known of a callback before its body is read."""

    name: str
    """The source that its path names."""
    path_event: str | None
    method: str
    headers: Headers
    query: str
    peer: str
    """The sender's address."""
    body_bytes: int
    """The length that it states for its body; 0 when it states none."""


@dataclass(slots=True)
class Receiver:
    """Everything one receiver process needs to take callbacks."""

    settings: Settings
    registry: Registry
    log: Log
    deliveries: DeliveryLog
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    stopping: bool = False
    in_flight: int = 0
    """Callbacks that are being answered."""
    counters: RequestCounters = field(default_factory=RequestCounters)
    arriving: InFlightLimit = field(init=False)
    """Room for bodies that come in pieces: slow senders cannot take that of the appenders."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    schemes: Mapping[str, Scheme] = field(init=False)
    """Source → how its callbacks are authenticated."""

    def __post_init__(self) -> None:
        self.idle.set()
        self.arriving = InFlightLimit(self.settings.connections_max, self.settings.queue_bytes_max)
        self.schemes = {name: source.signatures() for name, source in self.settings.sources.items()}

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request under /callbacks, whatever happens to it."""
        started = perf_counter()
        incoming = self._incoming(request)
        self.begin()
        try:
            answer = await self._answer(request, incoming)
        finally:
            self.end()
        label = incoming.name if incoming.name in self.settings.sources else "unknown"
        self.counters.count(label, answer.outcome, answer.status, perf_counter() - started)
        return answer.response()

    def begin(self) -> None:
        """Count a callback that is being answered."""
        self.in_flight += 1
        self.idle.clear()

    def end(self) -> None:
        """Count a callback that is answered."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()

    async def _answer(self, request: web.Request, incoming: Incoming) -> Answer:
        try:
            return await self._take(request, incoming)
        except Refusal as error:
            self._record(incoming, "refused", error.status, error.reason)
            return refuse(error, is_read=request.content.is_eof())
        except (Overloaded, DatabaseUnavailable, TimeoutError) as error:
            return self._unavailable(incoming, error, is_read=request.content.is_eof())
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            LOGGER.exception("callback_failed", source=incoming.name)
            return self._unexpected(incoming, error)

    async def _take(self, request: web.Request, incoming: Incoming) -> Answer:
        """Append a callback. Raises Refusal, or what leaves unknown whether it was appended."""
        source = self.admit(incoming)
        body = await self._body(request)
        new_event = self.event_of(incoming, source, body)
        appender = self.log.appenders[source.name]
        result: AppendResult = await appender.append(new_event)
        if not result.is_same_resource:
            mismatch = _mismatch(result.position)
            new_event = self.event_of(incoming, source, body, mismatch)
            result = await appender.append(new_event)
        return acknowledge(source.name, new_event, result)

    def answer_of(
        self, incoming: Incoming, new_event: NewEvent, result: AppendResult | LedgerError
    ) -> Answer:
        """Return the answer to a callback that was submitted whole."""
        match result:
            case AppendResult():
                return acknowledge(incoming.name, new_event, result)
            case DatabaseUnavailable():
                return self._unavailable(incoming, result, is_read=True)
            case _:
                return self._unexpected(incoming, result)

    def admit(self, incoming: Incoming) -> Source:
        """Check everything that needs no body. Raises Refusal, or Overloaded when stopping."""
        if self.stopping:
            raise Overloaded("the service is stopping; send the callback again")
        source = self.settings.sources.get(incoming.name)
        if source is None:
            raise Refusal(404, "unknown_source", f"there is no source {incoming.name!r} here")
        if incoming.path_event is not None:
            self._check_event(source, incoming.path_event)
        if incoming.method != METHOD:
            raise Refusal(405, "method", "callbacks are posted")
        if not addresses.allowed(source.allow_ips, incoming.peer):
            raise Refusal(403, "address", "this address may not post here")
        if not source.secrets:
            _check_is_local(incoming.headers)
        _check_codings(incoming.headers)
        if incoming.body_bytes > self.settings.body_bytes_max:
            raise self._too_large()
        return source

    def event_of(
        self, incoming: Incoming, source: Source, body: bytes,
        callback: ParsedCallback | None = None,
    ) -> NewEvent:  # fmt: skip
        """Return the event of an admitted callback, read or as `callback` has it.

        Raises Refusal when it is not authentic.
        """
        is_query = not body and bool(incoming.query)
        if is_query:
            # The query is what is stored, so it must be signed: a signature over nothing proves
            # nothing of it.
            body = incoming.query.encode()
        scheme, now = self.schemes[source.name], self.now()
        proof = scheme.proof(incoming.headers)
        reason = scheme.refusal(proof, body, now)
        if reason is not None:
            raise Refusal(401, reason, "not authenticated")
        if (
            callback is None
            and not is_form(body)
            and (is_query or _names_form(incoming.headers, body))
        ):
            callback = UNSUPPORTED
        if callback is None:
            callback = self.registry.read(source.provider, incoming.path_event, body)
        new_event = callback_event(
            source.name, callback, body, received_at=now, path_event=incoming.path_event,
            peer=incoming.peer, headers=headers_to_keep(incoming, scheme, proof),
        )  # fmt: skip
        return mark_event(source, source.name, new_event)

    def _check_event(self, source: Source, path_event: str) -> None:
        """Raise Refusal for an event that the provider does not have, if it documents any."""
        if not EVENT_NAME.fullmatch(path_event):
            raise Refusal(404, "bad_event_name", "the event name in the URL is not one")
        names = self.registry.dispatch.events.get(source.provider)
        if names and path_event not in names:
            raise Refusal(404, "unknown_event", f"{source.provider} has no event of this name")

    def _too_large(self) -> Refusal:
        return Refusal(413, "too_large", f"bodies end at {self.settings.body_bytes_max} bytes")

    async def _body(self, request: web.Request) -> bytes:
        """Read the body within the limits. Raises Refusal, or Overloaded after the deadline."""
        try:
            if request.content.is_eof():
                return await request.read()
            size = request.content_length or self.settings.body_bytes_max
            with self.arriving.held(size):
                async with asyncio.timeout(self.settings.body_seconds_max):
                    return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise self._too_large() from error
        except TimeoutError as error:
            raise Overloaded("the body took too long; send the callback again") from error

    def _incoming(self, request: web.Request) -> Incoming:
        path, headers = request.match_info, request.headers
        return Incoming(
            path.get("source", ""), path.get("event"), request.method, headers,
            request.rel_url.raw_query_string,
            self.peer(connection_of(request), headers, request.remote),
            request.content_length or 0,
        )  # fmt: skip

    def peer(
        self, connection: Connection | None, headers: Headers, remote: str | None = None
    ) -> str:
        """Return the sender's address; X-Forwarded-For counts only from a trusted proxy.

        `remote` is the other end of a connection that is none of `connections`, or has ended.
        """
        if connection is not None and not connection.is_proxy:
            return connection.peer
        # Every line counts: a sender can write the first, its proxy then adds another.
        forwarded_for = ",".join(headers.getall(FORWARDED_FOR, ()))
        proxies = self.settings.trusted_proxies
        nearest = remote if connection is None else connection.peer
        return addresses.sender(nearest, forwarded_for, proxies) or ""

    def _unavailable(self, incoming: Incoming, error: Exception, *, is_read: bool) -> Answer:
        self._record(incoming, "failed", 503, type(error).__name__)
        return unavailable(error, closes=self.stopping or not is_read)

    def _unexpected(self, incoming: Incoming, error: Exception) -> Answer:
        self._record(incoming, "failed", 500, type(error).__name__)
        return unexpected()

    def _record(self, incoming: Incoming, outcome: str, status: int, reason: str) -> None:
        """Record a delivery that is not acknowledged."""
        name = incoming.name
        self.deliveries.record(
            source=name,
            at=self.now(),
            outcome=outcome,
            answer=status,
            path_event=(incoming.path_event or "")[:64] or None,
            peer=incoming.peer,
            reason=f"{reason} {name[:64]!r}" if reason == "unknown_source" else reason,
            body_bytes=incoming.body_bytes,
        )


def _check_is_local(headers: Headers) -> None:
    """Raise Refusal for an unsigned callback that may come from elsewhere than this machine."""
    if "Origin" in headers:
        # A page in a browser on this machine may post here without asking, but only thus.
        raise Refusal(403, "origin", "unsigned callbacks come from programs, not from pages")
    if addresses.is_forwarded(headers):
        # A proxy on this machine passes on what comes from anywhere.
        raise Refusal(403, "forwarded", "unsigned callbacks come from this machine only")


def _check_codings(headers: Headers) -> None:
    """Raise Refusal for a body that is compressed, or sent in another way than in chunks."""
    if "Content-Encoding" in headers and _words(headers, "Content-Encoding") & COMPRESSIONS:
        raise Refusal(415, "content_encoding", "send the body uncompressed")
    if "Transfer-Encoding" in headers and _words(headers, "Transfer-Encoding") - {"chunked"}:
        raise Refusal(501, "transfer_encoding", "send the body uncompressed, at most chunked")


def _names_form(headers: Headers, body: bytes) -> bool:
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return content_type == FORM and not OBJECT.match(body)


def _mismatch(position: int) -> ParsedCallback:
    """Return how a body is stored that the log has as another resource, by another URL."""
    detail = f"event {position} is these bytes too, posted under another event name"
    return ParsedCallback(Envelope(UNKNOWN, "", UNKNOWN), EVENT_MISMATCH, detail)


def headers_to_keep(incoming: Incoming, scheme: Scheme, proof: Proof) -> str:
    """Return the headers that an event keeps as a JSON object.

    Of the headers that the scheme reads, only what it keeps of them (`Scheme.kept`): never a
    secret, whatever the source calls its header.
    """
    read_by_scheme = {name.lower() for name in scheme.headers}
    kept = {
        name: value[:HEADER_CHARS_MAX]
        for name in ("Content-Type", "User-Agent")
        if name.lower() not in read_by_scheme and (value := incoming.headers.get(name))
    }
    kept.update(scheme.kept(proof))
    if incoming.query:
        kept["Query"] = incoming.query
    try:
        return orjson.dumps(kept).decode()
    except orjson.JSONEncodeError:
        ascii_only = {n: v.encode("ascii", "backslashreplace").decode() for n, v in kept.items()}
        return orjson.dumps(ascii_only).decode()


def _words(headers: Headers, name: str) -> set[str]:
    """Return the words of a header field that is a list, in lower case."""
    value = ",".join(headers.getall(name, ()))
    return {word for part in value.split(",") if (word := part.strip().lower())}


def add_receive_routes(app: web.Application, receiver: Receiver) -> None:
    """Register the callback paths; every method is answered, so that every try is recorded.

    A slash at the end means nothing: to a provider, 404 is a callback that need not be sent again.
    """
    app.router.add_route("*", "/callbacks/{source}", receiver.handle)
    app.router.add_route("*", "/callbacks/{source}/", receiver.handle)
    app.router.add_route("*", "/callbacks/{source}/{event}", receiver.handle)
    app.router.add_route("*", "/callbacks/{source}/{event}/", receiver.handle)
    app.router.add_route("*", "/callbacks", receiver.handle)
    app.router.add_route("*", "/callbacks/{source:.*}", receiver.handle)
    # Nearly the path: nothing else answers there, so the try is recorded as one.
    app.router.add_route("*", "/{source:/*(?i:callbacks?)(?:/.*)?}", receiver.handle)
