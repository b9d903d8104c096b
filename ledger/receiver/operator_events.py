"""Operators' decisions: events of the same log, appended through the same lane."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from ledger.errors import NotFound
from ledger.eventlog.appender import NewEvent
from ledger.eventlog.identity import event_id
from ledger.evidence.authenticity import mark_event, require_secret
from ledger.receiver.endpoint import Receiver


def decider(
    receiver: Receiver, role: str = "all"
) -> Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]:
    """Return the function that appends a decision to a source's log and says where it is."""

    async def decide(source: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if source not in receiver.log.lanes:
            raise NotFound(f"source {source} is not configured in this service")
        now = receiver.now()
        raw = orjson.dumps({**body, "decided_at": now.isoformat()}, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(raw).hexdigest()
        key = f"{source}/decision//{body.get('exception')}/{digest}"
        new_event = NewEvent(
            event_id=event_id(key, raw),
            idempotency_key=key,
            kind="decision",
            resource_id=str(body.get("exception")),
            status=str(body.get("action")),
            idempotency_id=None,
            provider_at=now,
            path_event=None,
            origin="operator",
            reason=None,
            detail=None,
            peer="",
            headers="{}",
            body=raw,
            received_at=now,
        )
        return await append(source, new_event)

    append = appender(receiver, role)
    return decide


def appender(
    receiver: Receiver, role: str = "all"
) -> Callable[[str, NewEvent], Awaitable[dict[str, Any]]]:
    """Return the function that appends an operator's event to a source's log.

    It raises NotFound, or Conflicting where the event would lack its mark.
    """

    async def append(source: str, new_event: NewEvent) -> dict[str, Any]:
        if source not in receiver.log.lanes:
            raise NotFound(f"source {source} is not configured in this service")
        known = receiver.settings.sources[source]
        require_secret(known, role)
        new_event = mark_event(known, source, new_event)
        appended = await receiver.log.lanes[source].append(new_event)
        status = "accepted" if appended.fresh else "duplicate"
        return {
            "position": appended.position,
            "event_id": new_event.event_id.hex(),
            "status": status,
        }

    return append
