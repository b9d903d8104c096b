"""What the addresses do by which operators act on reconciliations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec
from aiohttp import web

from ledger.api.endpoints import QUERY, answer_read, json_answer
from ledger.api.endpoints_reconciliation import (
    DECISION_BYTES_MAX,
    NOW,
    read_body,
    read_decision,
)
from ledger.config.reconciliation import Rules
from ledger.database.errors import CONNECTION_LOST
from ledger.errors import (
    Conflicting,
    DatabaseUnavailable,
    InvalidRequest,
    LedgerError,
    NotCaughtUp,
    NotFound,
)
from ledger.eventlog.new_event import NewEvent
from ledger.queries.params import QueryParams, decode_body
from ledger.queries.schemas.decisions import (
    AccountSum,
    DecisionAnswer,
    DecisionList,
    DecisionOutcome,
    ListedDecision,
    PostedLeg,
    PostingRules,
)
from ledger.queries.schemas.reconciliation import BreakDecision
from ledger.queries.snapshot import Snapshot, read_consistent
from ledger.reconciliation.decision_log import BEFORE_COMMIT, read_break_states
from ledger.reconciliation.decisions import (
    DecisionPlanner,
    DecisionRequest,
    PlannedDecision,
    decision_event,
    plan_decision,
)
from ledger.reconciliation.posting_rules import account_sums, read_rules

DECISIONS_MAX: Final = 1_000
"""Decisions of one request."""
RESULT_SECONDS_MAX: Final = 5.0
TURN_SECONDS_MAX: Final = 4.0
LOCK_DECISIONS: Final = "SELECT pg_advisory_xact_lock(7310298461)"
"""Held from the check of a decision until its event is in the log."""
STILL_TO_COME: Final = (
    "it is in the log; the reconciliation has not read it yet, `ledger reconcile` waits for it"
)

Append: TypeAlias = Callable[[str, NewEvent], Awaitable[Mapping[str, Any]]]
"""(source, event) → position, event_id and status."""

APPEND: Final[web.AppKey[Append]] = web.AppKey("RECON_APPEND")
DECIDING: Final[web.AppKey[asyncio.Lock]] = web.AppKey("RECON_DECIDING")
"""Held by the one request of this process that decides."""
RESULT_SECONDS: Final[web.AppKey[float]] = web.AppKey("RECON_RESULT_SECONDS")
"""For how long the answer to a decision waits until the reconciliation has read it."""

Wallet: TypeAlias = tuple[str, str]
"""Source and currency."""
Checked: TypeAlias = PlannedDecision | LedgerError
"""A decision that was checked, or why it is refused."""


async def decide_break(request: web.Request, params: QueryParams) -> web.Response:
    """Take an operator's decision on a break; it becomes an event of the source's log."""
    rules, pool = request.app[QUERY].settings.rules, request.app[QUERY].pool
    decision = _request_of(await read_decision(request, BreakDecision))
    break_id = params.need("id")

    async def read(snapshot: Snapshot) -> PlannedDecision:
        return await plan_decision(snapshot, break_id, decision, rules)

    async with deciding(request.app):
        planned = await read_consistent(pool, {}, read)
        done = await _append(request.app, planned)
    position = int(done["position"])
    wallet = planned.source, planned.currency
    states = await _await_result(request.app, {wallet: position}, [break_id])
    answer = DecisionAnswer(
        planned.source, position, str(done["event_id"]), str(done["status"]),
        states is not None, (states or {}).get(break_id),
        None if states is not None else STILL_TO_COME,
    )  # fmt: skip
    return json_answer(answer, {planned.source: position})


async def decide_breaks(request: web.Request, params: QueryParams) -> web.Response:
    """Take several decisions, each an event of its own; one that is refused stops no other."""
    is_dry = params.text("dry_run") == "true"
    rows = await _read_list(request)
    async with deciding(request.app):
        checked, position = await _check_all(request.app, rows)
        pairs = zip(rows, checked, strict=True)
        outcomes = [_outcome(place, *pair) for place, pair in enumerate(pairs, 1)]
        if not is_dry:
            outcomes = await _append_all(request.app, outcomes, checked)
    done: dict[Wallet, int] = {}
    for each, planned in zip(outcomes, checked, strict=True):
        if each.outcome == "done" and isinstance(planned, PlannedDecision):
            wallet = planned.source, planned.currency
            done[wallet] = max(done.get(wallet, 0), each.position or 0)
    ids = [each.id for each in outcomes]
    states = await _await_result(request.app, done, ids) if done else {}
    outcomes = [msgspec.structs.replace(o, state=(states or {}).get(o.id)) for o in outcomes]
    answer = DecisionList(
        is_dry, outcomes, _sums(outcomes), states is not None,
        None if states is not None else STILL_TO_COME,
        position | {source: place for (source, _), place in sorted(done.items())},
    )  # fmt: skip
    return json_answer(answer, answer.position)


async def list_rules(request: web.Request, params: QueryParams) -> web.Response:
    """Answer the rules that post without a decision, and what each posted."""
    declared = request.app[QUERY].settings.rules

    async def read(snapshot: Snapshot, params: QueryParams) -> PostingRules:
        rules = [
            rule
            for source in snapshot.sources(params)
            for rule in await read_rules(snapshot, source, declared.get(source, Rules()))
        ]
        return PostingRules(rules, snapshot.position)

    return await answer_read(request, params, read)


@asynccontextmanager
async def deciding(app: web.Application) -> AsyncIterator[None]:
    """Let one request decide at a time, of all processes, so that its check still holds.

    Raises DatabaseUnavailable when the turn does not come.
    """
    async with app[DECIDING], AsyncExitStack() as stack:
        try:
            pool = app[QUERY].pool
            connection = await stack.enter_async_context(pool.acquire(timeout=TURN_SECONDS_MAX))
            await stack.enter_async_context(connection.transaction())
            await connection.execute(LOCK_DECISIONS)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            raise DatabaseUnavailable(
                "another decision is being taken, or the database does not answer; repeat it"
            ) from error
        yield


def _request_of(body: BreakDecision) -> DecisionRequest:
    if body.items and body.action != "match":
        raise InvalidRequest("items go with the action match only")
    account = body.account or None
    return DecisionRequest(body.action, body.by, body.note, tuple(body.items), account)


async def _append(app: web.Application, planned: PlannedDecision) -> Mapping[str, Any]:
    now = app[NOW]()
    body = {**planned.body, "decided_at": now.isoformat()}
    return await app[APPEND](planned.source, decision_event(planned.source, body, now))


async def _await_result(
    app: web.Application, positions: Mapping[Wallet, int], ids: Sequence[str]
) -> dict[str, str] | None:
    """Wait until the stored results have what was appended; None when they have not in time.

    Returns the states of those of the breaks that are listed then.
    """
    furthest: dict[str, int] = {}
    for (source, _), position in positions.items():
        furthest[source] = max(position, furthest.get(source, 0))

    async def read(snapshot: Snapshot) -> dict[str, str]:
        return await read_break_states(snapshot, positions, ids)

    try:
        return await read_consistent(app[QUERY].pool, furthest, read, app[RESULT_SECONDS])
    except (NotCaughtUp, NotFound):
        return None


async def _read_list(request: web.Request) -> list[ListedDecision | LedgerError]:
    """Read the rows of several decisions; one that is unreadable is refused alone.

    Raises InvalidRequest.
    """
    if request.content_type != "application/json":
        raise InvalidRequest("send the decisions as JSON, with Content-Type: application/json")
    raw = await read_body(request, DECISION_BYTES_MAX)
    try:
        rows = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest("the body is not a JSON list of decisions") from error
    if not 0 < len(rows) <= DECISIONS_MAX:
        raise InvalidRequest(f"send 1 to {DECISIONS_MAX} decisions at a time, not {len(rows)}")
    return [_read_row(bytes(row)) for row in rows]


def _read_row(raw: bytes) -> ListedDecision | LedgerError:
    try:
        row = decode_body(raw, ListedDecision, "the decision")
        if not row.id:
            raise InvalidRequest('name the break in "id"')
        if not row.by.strip() or not row.note.strip():
            raise InvalidRequest('name who decides in "by" and why in "note"')
        _request_of(row)
    except InvalidRequest as error:
        return error
    return row


async def _check_all(
    app: web.Application, rows: Sequence[ListedDecision | LedgerError]
) -> tuple[list[Checked], dict[str, int]]:
    """Check every row in one snapshot, each as if those before it were in the log."""
    requests = [(row.id, _request_of(row)) for row in rows if isinstance(row, ListedDecision)]

    async def read(snapshot: Snapshot) -> tuple[list[Checked], dict[str, int]]:
        planner = await DecisionPlanner.over(snapshot, requests, app[QUERY].settings.rules)
        checked: list[Checked] = []
        for row in rows:
            if isinstance(row, LedgerError):
                checked.append(row)
                continue
            try:
                checked.append(await planner.plan(row.id, _request_of(row), once=True))
            except (Conflicting, InvalidRequest, NotFound) as error:
                checked.append(error)
        return checked, snapshot.position

    return await read_consistent(app[QUERY].pool, {}, read)


def _outcome(place: int, row: ListedDecision | LedgerError, checked: Checked) -> DecisionOutcome:
    """Return what would become of a row."""
    name, action = (row.id, row.action) if isinstance(row, ListedDecision) else ("", None)
    if isinstance(checked, LedgerError):
        reason = " ".join(str(checked).split())
        return DecisionOutcome(place, name, action, "refused", reason, None, None, None, [])
    wallet = checked.source, checked.currency
    if checked.done_at is None:
        legs = [PostedLeg(account, amount) for account, amount in _leg_texts(checked)]
        return DecisionOutcome(place, name, action, "planned", None, *wallet, None, legs)
    if checked.done_at == BEFORE_COMMIT:
        reason = "an earlier row requests the same"
        return DecisionOutcome(place, name, action, "unchanged", reason, *wallet, None, [])
    reason = f"taken before, at position {checked.done_at}"
    if not checked.is_in_force:
        reason += ", and decided otherwise since; to take it again, write another note"
    return DecisionOutcome(place, name, action, "unchanged", reason, *wallet, checked.done_at, [])


def _leg_texts(planned: PlannedDecision) -> list[tuple[str, str]]:
    return [(leg["account"], leg["amount"]) for leg in planned.body["legs"]]


async def _append_all(
    app: web.Application, outcomes: Sequence[DecisionOutcome], checked: Sequence[Checked]
) -> list[DecisionOutcome]:
    """Append what is planned, in the order of the rows; one that fails stops no other."""
    appending = [
        _append(app, planned)
        for each, planned in zip(outcomes, checked, strict=True)
        if each.outcome == "planned" and isinstance(planned, PlannedDecision)
    ]
    results = iter(await asyncio.gather(*appending, return_exceptions=True))
    made: list[DecisionOutcome] = []
    for each in outcomes:
        if each.outcome != "planned":
            made.append(each)
            continue
        result = next(results)
        if isinstance(result, LedgerError):
            failed = " ".join(str(result).split())
            made.append(msgspec.structs.replace(each, outcome="failed", reason=failed))
        elif isinstance(result, BaseException):
            raise result
        else:
            position = int(result["position"])
            made.append(msgspec.structs.replace(each, outcome="done", position=position))
    return made


def _sums(outcomes: Sequence[DecisionOutcome]) -> list[AccountSum]:
    legs = [
        (each.source or "", leg.account, each.currency or "", leg.amount)
        for each in outcomes
        if each.outcome in ("planned", "done")
        for leg in each.legs
    ]
    return [AccountSum(*key, amount, count) for key, amount, count in account_sums(legs)]
