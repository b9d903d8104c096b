"""What the addresses do by which operators act on reconciliations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
from aiohttp import web

from ledger.api.endpoints import QUERY, json_answer
from ledger.api.endpoints_reconciliation import NOW, read_decision
from ledger.errors import InvalidRequest
from ledger.eventlog.new_event import NewEvent
from ledger.queries.params import QueryParams
from ledger.queries.schemas.log import Resolution
from ledger.queries.schemas.reconciliation import BreakDecision
from ledger.queries.snapshot import Snapshot, read_consistent
from ledger.reconciliation.decisions import DecisionRequest, decide, decision_event

Append: TypeAlias = Callable[[str, NewEvent], Awaitable[Mapping[str, Any]]]
"""(source, event) → position, event_id and status."""

APPEND: Final[web.AppKey[Append]] = web.AppKey("RECON_APPEND")


async def decide_break(request: web.Request, params: QueryParams) -> web.Response:
    """Take an operator's decision on a break; it becomes an event of the source's log."""
    rules = request.app[QUERY].settings.rules
    body = await read_decision(request, BreakDecision)
    decision = DecisionRequest(body.action, body.by, body.note, tuple(body.items), body.account)
    if decision.items and decision.action != "match":
        raise InvalidRequest("items go with the action match only")

    async def read(snapshot: Snapshot) -> tuple[str, dict[str, Any]]:
        return await decide(snapshot, params.need("id"), decision, rules)

    source, event = await read_consistent(request.app[QUERY].pool, {}, read)
    now = request.app[NOW]()
    new_event = decision_event(source, event | {"decided_at": now.isoformat()}, now)
    answer = msgspec.convert(await request.app[APPEND](source, new_event), Resolution)
    return json_answer(answer, {source: answer.position})
