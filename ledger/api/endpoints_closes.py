"""What the addresses about closed months do with a checked request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import msgspec
from aiohttp import web

from ledger.api.endpoints import QUERY, answer_read, json_answer
from ledger.api.endpoints_decisions import APPEND, RESULT_SECONDS, deciding
from ledger.api.endpoints_reconciliation import DECISION_BYTES_MAX, NOW, read_body
from ledger.api.problems import problem
from ledger.errors import Conflicting, InvalidRequest
from ledger.queries.params import QueryParams, decode_body
from ledger.queries.schemas.closes import (
    CloseAnswer,
    CloseObstacle,
    CloseOrder,
    CloseResult,
    ReopenOrder,
    ReopenResult,
    RollForwards,
)
from ledger.queries.snapshot import Snapshot, read_consistent
from ledger.reconciliation.closing.answers import (
    planned_answer,
    read_roll_forwards,
)
from ledger.reconciliation.closing.closes import (
    ClosePlan,
    CloseRequest,
    Obstacle,
    close_event,
    plan_close,
    plan_reopening,
)

Bodies: TypeAlias = list[tuple[str, dict[str, Any]]]
"""Source and body of each event."""


async def close_month(request: web.Request, params: QueryParams) -> web.Response:
    """Close a month of every selected wallet, or of none: each is an event of its source's log."""
    order = decode_body(await _json_body(request), CloseOrder, "the close")
    if not order.by.strip():
        raise InvalidRequest('name who closes in "by"')
    is_dry = params.text("dry_run") == "true"
    currency = order.currency.upper() if order.currency else None
    wished = CloseRequest(
        order.period, order.by, order.note, order.source or None, currency, tuple(order.accept)
    )
    pool, rules = request.app[QUERY].pool, request.app[QUERY].settings.rules

    async def read(snapshot: Snapshot) -> tuple[ClosePlan, dict[str, int]]:
        return await plan_close(snapshot, wished, rules), snapshot.position

    async with deciding(request.app):
        plan, position = await read_consistent(pool, {}, read, request.app[RESULT_SECONDS])
        if plan.obstacles and not is_dry:
            return _refusal(plan)
        closes: list[CloseAnswer] = []
        for source, body in plan.bodies:
            if is_dry or plan.obstacles:
                closes.append(planned_answer(source, body, None, None))
                continue
            now = request.app[NOW]()
            done = await request.app[APPEND](source, close_event(source, body, now))
            place = position[source] = int(done["position"])
            closes.append(planned_answer(source, body, now, place))
    answer = CloseResult(
        order.period, is_dry, closes, [*map(_obstacle, plan.obstacles)],
        [*map(_obstacle, plan.skipped)], position,
    )  # fmt: skip
    return json_answer(answer, position)


def _refusal(plan: ClosePlan) -> web.Response:
    """Answer 409 with everything that stands in the way."""
    first = plan.obstacles[0]
    wallet = f"{first.currency} of {first.source}: " if first.source else ""
    more = len(plan.obstacles) - 1
    rest = f"; and {more} more, see `obstacles`" if more else ""
    obstacles = [msgspec.structs.asdict(_obstacle(each)) for each in plan.obstacles]
    error = Conflicting(f"the month cannot be closed: {wallet}{first.detail}{rest}")
    return problem(error, {"obstacles": obstacles})


def _obstacle(each: Obstacle) -> CloseObstacle:
    return CloseObstacle(each.source, each.currency, each.reason, each.detail, each.break_id)


async def _json_body(request: web.Request) -> bytes:
    if request.content_type != "application/json":
        raise InvalidRequest("send JSON, with Content-Type: application/json")
    return await read_body(request, DECISION_BYTES_MAX)


async def reopen_month(request: web.Request, params: QueryParams) -> web.Response:
    """Reopen a closed month; the close stays in the log and no longer counts."""
    order = decode_body(await _json_body(request), ReopenOrder, "the reopening")
    if not order.by.strip() or not order.note.strip():
        raise InvalidRequest('name who reopens in "by" and why in "note"')
    currency = order.currency.upper() if order.currency else None
    wished = CloseRequest(
        params.need("period"), order.by, order.note, order.source or None, currency
    )

    async def read(
        snapshot: Snapshot,
    ) -> tuple[list[tuple[str, dict[str, object]]], dict[str, int]]:
        return await plan_reopening(snapshot, wished), snapshot.position

    reopened: list[CloseObstacle] = []
    async with deciding(request.app):
        bodies, position = await read_consistent(request.app[QUERY].pool, {}, read)
        for source, body in bodies:
            now = request.app[NOW]()
            done = await request.app[APPEND](source, close_event(source, body, now))
            position[source] = int(done["position"])
            detail = f"reopened at position {done['position']}"
            currency = str(body["currency"])
            reopened.append(CloseObstacle(source, currency, "reopened", detail, None))
    return json_answer(ReopenResult(wished.period, reopened, position), position)


Each = TypeVar("Each")


async def _of_sources(
    snapshot: Snapshot,
    params: QueryParams,
    read: Callable[[Snapshot, str, str | None, str | None], Awaitable[list[Each]]],
) -> list[Each]:
    """Return what `read` gives of each requested source, for its currency and period."""
    return [
        each
        for source in snapshot.sources(params)
        for each in await read(snapshot, source, params.text("currency"), params.text("period"))
    ]


async def list_roll_forwards(request: web.Request, params: QueryParams) -> web.Response:
    """Answer how the breaks of each wallet go from month to month."""

    async def read(snapshot: Snapshot, params: QueryParams) -> RollForwards:
        rolls = await _of_sources(snapshot, params, read_roll_forwards)
        return RollForwards(rolls, snapshot.position)

    return await answer_read(request, params, read)
