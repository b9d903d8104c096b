"""What the addresses of the query API do with a checked request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from aiohttp import web

from ledger.api.problems import PRIVATE
from ledger.config.settings import Settings
from ledger.errors import InvalidRequest
from ledger.queries import events, evidence, exceptions, status
from ledger.queries.attribution import prepare_attribution
from ledger.queries.kinds import kinds_of
from ledger.queries.params import QueryParams, decode_body
from ledger.queries.schemas.evidence import Seal
from ledger.queries.schemas.log import Attribution, Decision, Resolution
from ledger.queries.snapshot import Pool, Snapshot, read_consistent

DECISION_BYTES_MAX: Final = 16_384
BODY_SECONDS_MAX: Final = 10.0
EXPORTS_MAX: Final = 3
"""Exports at once, per process; each holds one of the connections that answer queries."""

D = TypeVar("D", Attribution, Decision)

Read: TypeAlias = Callable[[Snapshot, QueryParams], Awaitable[Any]]
Decide: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[Mapping[str, Any]]]
"""(source, decision) → position, event_id and status of the operator's event."""


@dataclass(frozen=True, slots=True)
class QueryState:
    """What the query API answers from. The pool's connections have a command timeout."""

    pool: Pool
    settings: Settings
    exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(EXPORTS_MAX))
    """Limits how many exports run at once."""


QUERY: Final = web.AppKey("QUERY", QueryState)
DECIDE: Final[web.AppKey[Decide]] = web.AppKey("DECIDE")


@dataclass(frozen=True, slots=True)
class SnapshotRead:
    """The endpoint of an address whose answer is what one read of a snapshot gives."""

    read: Read

    async def __call__(self, request: web.Request, params: QueryParams) -> web.Response:
        """Answer with what the read gives, and where it is true."""
        return await answer_read(request, params, self.read)


async def answer_read(request: web.Request, params: QueryParams, read: Read) -> web.Response:
    """Read in one snapshot that has caught up with `params`, and answer with the result."""

    async def respond(snapshot: Snapshot) -> web.Response:
        answer = await read(snapshot, params)
        position = snapshot.position if params.as_of is None else answer.position
        return json_answer(answer, position, snapshot.books)

    return await read_consistent(request.app[QUERY].pool, params.at_least, respond)


def json_answer(
    answer: msgspec.Struct, position: Mapping[str, int], books: str | None = None
) -> web.Response:
    """Return an answer as JSON, with headers that name where it is true and from which books."""
    headers = {**PRIVATE, "Ledger-Position": positions_text(position)}
    if books is not None:
        headers["Ledger-Books"] = books
    return web.Response(
        body=msgspec.json.encode(answer), content_type="application/json", headers=headers
    )


def positions_text(position: Mapping[str, int]) -> str:
    """Write positions as the header `Ledger-Position` has them."""
    return ",".join(f"{source}:{place}" for source, place in position.items())


async def show_status(request: web.Request, params: QueryParams) -> web.Response:
    """Answer how far each log and its books are, and what the settings warn of."""
    warnings = request.app[QUERY].settings.warnings()

    async def read(snapshot: Snapshot, _: QueryParams) -> Any:
        return await status.status(snapshot, warnings)

    return await answer_read(request, params, read)


async def list_exceptions(request: web.Request, params: QueryParams) -> web.Response:
    """Answer what an operator should look at, by the rules that each source declares."""
    rules = request.app[QUERY].settings.rules

    async def read(snapshot: Snapshot, params: QueryParams) -> Any:
        return await exceptions.exceptions(snapshot, params, rules)

    return await answer_read(request, params, read)


async def event_body(request: web.Request, params: QueryParams) -> web.Response:
    """Answer an event's body, byte for byte as it arrived."""

    async def read(snapshot: Snapshot) -> tuple[str, bytes]:
        return await events.body(snapshot, params)

    event_id, body = await read_consistent(request.app[QUERY].pool, params.at_least, read)
    name = f"{params.text('source')}-{params.number('position')}.bin"
    return web.Response(
        body=body,
        content_type="application/octet-stream",
        headers={
            **PRIVATE,
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Security-Policy": "sandbox",
            "Ledger-Event-Id": event_id,
        },
    )


async def seal_note(request: web.Request, params: QueryParams) -> web.Response:
    """Answer a signed checkpoint as text."""

    async def read(snapshot: Snapshot) -> Seal:
        return await evidence.seal(snapshot, params)

    seal = await read_consistent(request.app[QUERY].pool, params.at_least, read)
    headers = {**PRIVATE, "Ledger-Seal-Key": seal.vkey}
    return web.Response(text=seal.note, content_type="text/plain", headers=headers)


async def resolve_exception(request: web.Request, params: QueryParams) -> web.Response:
    """Take an operator's decision on an exception; it becomes an event of the log."""

    decision = await _decision(request)
    rules = request.app[QUERY].settings.rules

    async def read(snapshot: Snapshot) -> tuple[str, dict[str, Any], str]:
        source, details = await exceptions.prepare_decision(
            snapshot, params.need("id"), decision.action, decision.keep, rules
        )
        return source, details, snapshot.books

    source, details, books = await read_consistent(request.app[QUERY].pool, {}, read)
    given = {k: v for k, v in msgspec.structs.asdict(decision).items() if v is not None}
    done = await request.app[DECIDE](source, {**details, **given})
    answer = msgspec.convert(done, Resolution)
    return json_answer(answer, {source: answer.position}, books)


async def attribute_transaction(request: web.Request, params: QueryParams) -> web.Response:
    """Take an operator's decision on whose a transaction is; it becomes an event of the log."""
    stated = await _read_decision(request, Attribution)
    if not stated.note.strip():
        raise InvalidRequest('say why in "note"')
    kind = _same_kind(params.text("kind"), stated.kind)
    source, pool = params.need("source"), request.app[QUERY].pool

    async def head(snapshot: Snapshot) -> int:
        return snapshot.places[snapshot.check(source)].head

    async def read(snapshot: Snapshot) -> tuple[dict[str, Any], str]:
        id_ = params.need("id")
        details = await prepare_attribution(snapshot, source, id_, kind, stated.customer_id)
        return details, snapshot.books

    # What was decided or received a moment ago counts, too.
    reached = await read_consistent(pool, {}, head)
    details, books = await read_consistent(pool, {source: reached}, read)
    by = {} if stated.by is None else {"by": stated.by}
    done = await request.app[DECIDE](source, {**details, "note": stated.note, **by})
    answer = msgspec.convert(done, Resolution)
    return json_answer(answer, {source: answer.position}, books)


def _same_kind(asked: str | None, stated: str | None) -> str | None:
    """Return the kind that the address or the body names. Raises InvalidRequest."""
    if stated is not None and stated not in kinds_of("transactions"):
        listed = ", ".join(kinds_of("transactions"))
        raise InvalidRequest(f"kind {stated[:60]!a} is no kind; there is: {listed}")
    if asked is not None and stated is not None and asked != stated:
        raise InvalidRequest("the address and the decision name different kinds; name it once")
    return asked or stated


async def _decision(request: web.Request) -> Decision:
    decision = await _read_decision(request, Decision)
    if (decision.action == "keep") != (decision.keep is not None):
        raise InvalidRequest('"keep" takes the position of an event, with the action "keep" only')
    return decision


async def _read_decision(request: web.Request, kind: type[D]) -> D:
    """Read a decision within its limits. Raises InvalidRequest."""
    if request.content_type != "application/json":
        raise InvalidRequest("send the decision as JSON, with Content-Type: application/json")
    if (request.content_length or 0) > DECISION_BYTES_MAX:
        raise InvalidRequest(f"a decision has at most {DECISION_BYTES_MAX} bytes")
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            raw = await request.read()
    except TimeoutError as error:
        raise InvalidRequest("the decision took too long to arrive") from error
    return decode_body(raw, kind, "the decision")
