"""The receiver: authenticate the raw bytes, bound everything, append, answer after the commit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Final

import orjson
import structlog
from aiohttp import web

from ledger.config.settings import Settings
from ledger.config.source import EVENT_NAME, Source
from ledger.errors import DatabaseUnavailable, LedgerError, Overloaded
from ledger.eventlog.appender import AppendResult, InFlightLimit, Log
from ledger.eventlog.new_event import NewEvent, callback_event
from ledger.evidence.authenticity import mark_event
from ledger.fold.dispatch import EVENT_MISMATCH, UNKNOWN
from ledger.model import Envelope
from ledger.receiver.delivery_log import DeliveryLog
from ledger.registry import UNREADABLE, ParsedCallback, Registry
from ledger.runtime import addresses
from ledger.runtime.addresses import allowed
from ledger.runtime.metrics import RequestCounters
from ledger.signatures.scheme import HEADER_CHARS_MAX, Scheme

LOGGER = structlog.get_logger("ledger.receive")

FORWARDED_FOR: Final = "X-Forwarded-For"
RETRY_AFTER_SECONDS: Final = "5"
FORM: Final = "application/x-www-form-urlencoded"
POST: Final = "POST"
UNEXPECTED: Final = {"status": "error", "reason": "unexpected failure; resend"}
UNSUPPORTED: Final = ParsedCallback(
    Envelope(UNREADABLE, "", UNREADABLE),
    "unsupported_encoding",
    "the account sends query strings: choose JSON as its callback format",
)
"""A form or a query string is kept as it came; no document says how it nests."""
OBJECT: Final = re.compile(rb"[ \t\r\n]*\{")
"""How a JSON object begins, and no form: whoever posts by hand easily forgets the type."""


COMPRESSIONS: Final = frozenset(
    (
        "gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress", "bzip2", "x-bzip2",
        "xz", "lzma", "lz4", "snappy", "dcb", "dcz", "exi", "pack200-gzip",
    )
)  # fmt: skip
"""Content codings that compress; what else senders write there (`utf-8`) codes nothing."""


class Refusal(LedgerError):
    """A callback that is answered without entering the log."""

    def __init__(self, answer: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.answer = answer
        self.reason = reason


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
    tally: RequestCounters = field(default_factory=RequestCounters)
    arriving: InFlightLimit = field(init=False)
    """Room for bodies that come in pieces: slow senders cannot take that of the queue."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    schemes: Mapping[str, Scheme] = field(init=False)
    """Source → how its callbacks are authenticated."""

    def __post_init__(self) -> None:
        self.idle.set()
        self.arriving = InFlightLimit(self.settings.connections_max, self.settings.queue_bytes_max)
        self.schemes = {name: source.signatures() for name, source in self.settings.sources.items()}

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request under /callbacks, whatever happens to it."""
        name = request.match_info.get("source", "")
        started = perf_counter()
        self.begin()
        try:
            outcome, response = await self._take(request, name)
        except Refusal as error:
            outcome = error.reason
            response = self._refuse(request, name, error)
        except (Overloaded, DatabaseUnavailable, TimeoutError) as error:
            outcome = "unavailable"
            response = self._unavailable(request, name, error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            outcome = "error"
            LOGGER.exception("callback_failed", source=name)
            self._record(request, name, "failed", 500, type(error).__name__)
            response = _answer(500, UNEXPECTED)
        finally:
            self.end()
        label = name if name in self.settings.sources else "unknown"
        self.tally.count(label, outcome, response.status, perf_counter() - started)
        return response

    def begin(self) -> None:
        """Count a callback that is being answered."""
        self.in_flight += 1
        self.idle.clear()

    def end(self) -> None:
        """Count it off."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()

    async def _take(self, request: web.Request, name: str) -> tuple[str, web.Response]:
        """Append a callback; return what became of it and the answer that says so."""
        source, path_event = self._admit(request, name)
        body = await self._body(request)
        scheme = self.schemes[name]
        proof = scheme.proof(request.headers)
        is_query = not body and bool(request.query_string)
        if is_query:
            # What is kept is what must be signed: a signature over no body says nothing of it.
            body = request.rel_url.raw_query_string.encode()
        refused = scheme.refusal(proof, body, self.now())
        if refused is not None:
            raise Refusal(401, refused, "not authenticated")
        is_form = request.content_type == FORM and not OBJECT.match(body)
        if is_query or is_form:
            reading = UNSUPPORTED
        else:
            reading = self.registry.read(source.provider, path_event, body)
        headers = _kept_headers(request, scheme.kept(proof))
        made = partial(
            self.new_event, source, path_event, peer=self.peer(request), headers=headers, body=body
        )
        new_event = made(reading=reading)
        appended = await self.log.appenders[name].append(new_event)
        if not appended.is_same_resource:
            new_event = made(reading=_elsewhere(appended.position))
            appended = await self.log.appenders[name].append(new_event)
        outcome, content = verdict(name, new_event, appended)
        place = {"Ledger-Position": f"{name}:{appended.position}"}
        return outcome, _answer(200, content, place)

    def documents(self, source: Source, path_event: str | None) -> bool:
        """Tell whether the provider has such an event; any name will do if it documents none."""
        names = self.registry.dispatch.events.get(source.provider)
        return path_event is None or not names or path_event in names

    def _admit(self, request: web.Request, name: str) -> tuple[Source, str | None]:
        """Check everything that needs no body. Raises Refusal, or Overloaded when stopping."""
        if self.stopping:
            raise Overloaded("the service is stopping; send the callback again")
        source = self.settings.sources.get(name)
        if source is None:
            raise Refusal(404, "unknown_source", f"there is no source {name!r} here")
        path_event = request.match_info.get("event")
        if path_event is not None and not EVENT_NAME.fullmatch(path_event):
            raise Refusal(404, "bad_event_name", "the event name in the URL is not one")
        if not self.documents(source, path_event):
            raise Refusal(404, "unknown_event", f"{source.provider} has no event of this name")
        if request.method != POST:
            raise Refusal(405, "method", "callbacks are posted")
        if not allowed(source.allow_ips, self.peer(request)):
            raise Refusal(403, "address", "this address may not post here")
        if not source.secrets and "Origin" in request.headers:
            # A page in a browser on this machine may post here without asking, but only thus.
            raise Refusal(403, "origin", "unsigned callbacks come from programs, not from pages")
        if not source.secrets and addresses.is_forwarded(request.headers):
            # A proxy on this machine passes on what comes from anywhere.
            raise Refusal(403, "forwarded", "unsigned callbacks come from this machine only")
        if not COMPRESSIONS.isdisjoint(_words(request, "Content-Encoding")):
            raise Refusal(415, "content_encoding", "send the body uncompressed")
        if _words(request, "Transfer-Encoding") - {"chunked"}:
            raise Refusal(501, "transfer_encoding", "send the body uncompressed, at most chunked")
        if (request.content_length or 0) > self.settings.body_bytes_max:
            raise self._too_large()
        return source, path_event

    def _too_large(self) -> Refusal:
        return Refusal(413, "too_large", f"bodies end at {self.settings.body_bytes_max} bytes")

    async def _body(self, request: web.Request) -> bytes:
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

    def new_event(
        self,
        source: Source,
        path_event: str | None,
        *,
        peer: str | None,
        headers: str,
        body: bytes,
        reading: ParsedCallback,
    ) -> NewEvent:
        """Return an authentic callback as the log takes it; `headers` are a JSON object."""
        new_event = callback_event(
            source.name, reading, body, received_at=self.now(), path_event=path_event,
            peer=peer or "", headers=headers,
        )  # fmt: skip
        return mark_event(source, source.name, new_event)

    def peer(self, request: web.Request) -> str | None:
        """Return the sender's address; X-Forwarded-For counts only from a trusted proxy."""
        # Every line counts: a sender can write the first, its proxy then adds another.
        return self.sender(request.remote, ",".join(request.headers.getall(FORWARDED_FOR, ())))

    def sender(self, peer: str | None, forwarded_for: str) -> str | None:
        """Return the address behind trusted proxies, from all that X-Forwarded-For says."""
        return addresses.sender(peer, forwarded_for, self.settings.trusted_proxies)

    def _refuse(self, request: web.Request, name: str, error: Refusal) -> web.Response:
        self._record(request, name, "refused", error.answer, error.reason)
        headers = {"Allow": POST} if error.answer == 405 else {}
        if error.answer == 413 or not request.content.is_eof():
            headers["Connection"] = "close"
        message = "not authenticated" if error.answer == 401 else str(error)
        return _answer(error.answer, {"status": "refused", "reason": message}, headers)

    def _unavailable(self, request: web.Request, name: str, error: Exception) -> web.Response:
        self._record(request, name, "failed", 503, type(error).__name__)
        headers = {"Retry-After": RETRY_AFTER_SECONDS}
        if self.stopping or not request.content.is_eof():
            headers["Connection"] = "close"
        return _answer(503, unavailable(error), headers)

    def _record(
        self, request: web.Request, name: str, outcome: str, answer: int, reason: str
    ) -> None:
        self.deliveries.record(
            source=name,
            at=self.now(),
            outcome=outcome,
            answer=answer,
            path_event=(request.match_info.get("event") or "")[:64] or None,
            peer=self.peer(request) or "",
            reason=f"{reason} {name[:64]!r}" if reason == "unknown_source" else reason,
            body_bytes=request.content_length or 0,
        )


def _elsewhere(position: int) -> ParsedCallback:
    """Return how a body is kept that is known as something else, by another URL."""
    detail = f"event {position} is these bytes too, posted under another event name"
    return ParsedCallback(Envelope(UNKNOWN, "", UNKNOWN), EVENT_MISMATCH, detail)


def unavailable(error: Exception) -> dict[str, object]:
    """Return the content of the answer to a callback that may or may not be in the log."""
    return {"status": "unavailable", "reason": str(error)}


def _kept_headers(request: web.Request, proof: Mapping[str, str]) -> str:
    header = request.headers.get
    query = request.rel_url.raw_query_string if request.query_string else ""
    return kept_headers(header("Content-Type", ""), header("User-Agent", ""), proof, query)


def kept_headers(content_type: str, agent: str, proof: Mapping[str, str], query: str = "") -> str:
    """Return the headers that an event keeps as a JSON object.

    `proof` is what the source's scheme keeps of its headers (`Scheme.kept`), never a secret.
    """
    common = {"Content-Type": content_type, "User-Agent": agent}
    kept = {name: value[:HEADER_CHARS_MAX] for name, value in common.items() if value}
    kept.update(proof)
    if query:
        kept["Query"] = query
    try:
        return orjson.dumps(kept).decode()
    except orjson.JSONEncodeError:
        clean = {n: v.encode("ascii", "backslashreplace").decode() for n, v in kept.items()}
        return orjson.dumps(clean).decode()


def verdict(
    name: str, new_event: NewEvent, appended: AppendResult
) -> tuple[str, dict[str, object]]:
    """Return what became of a callback, and the content of the answer that says so."""
    outcome = "accepted" if new_event.reason is None else "quarantined"
    if not appended.fresh:
        outcome = "duplicate"
    content: dict[str, object] = {
        "status": outcome,
        "source": name,
        "position": appended.position,
        "event_id": new_event.event_id.hex(),
    }
    if outcome == "quarantined":
        content["reason"] = new_event.reason
        content["detail"] = new_event.detail
    return outcome, content


def _words(request: web.Request, name: str) -> set[str]:
    """Return the words of a header field that is a list, in lower case."""
    told = ",".join(request.headers.getall(name, ()))
    return {word for part in told.split(",") if (word := part.strip().lower())}


def _answer(
    status: int, content: Mapping[str, object], headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(content),
        headers={"Content-Type": "application/json", **(headers or {})},
    )


Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
    # Nearly the path: nobody else answers there, so the try is recorded as one.
    app.router.add_route("*", "/{source:/*(?i:callbacks?)(?:/.*)?}", receiver.handle)
