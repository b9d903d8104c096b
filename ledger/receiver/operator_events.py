"""Operators' decisions: events of the same log, appended by the same appenders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from ledger.errors import NotFound
from ledger.eventlog.appender import Log
from ledger.eventlog.new_event import NewEvent, operator_event
from ledger.evidence.authenticity import mark_event, require_secret


@dataclass(frozen=True, slots=True)
class OperatorEvents:
    """Appends what operators decide to the logs of configured sources."""

    log: Log
    role: str = "all"
    """The role of this process."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def decide(self, source: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Append a decision; return its position, event id and status.

        `body` has the action, and the exception or, without one, the resource that it is about.

        Raises NotFound and Conflicting, like `append`.
        """
        now = self.now()
        raw = orjson.dumps({**body, "decided_at": now.isoformat()}, option=orjson.OPT_SORT_KEYS)
        about = str(body["exception"] if "exception" in body else body.get("resource"))
        digest = hashlib.sha256(raw).hexdigest()
        new_event = operator_event(
            key=f"{source}/decision//{about}/{digest}",
            kind="decision",
            resource_id=about,
            status=str(body.get("action")),
            body=raw,
            received_at=now,
            provider_at=now,
        )
        return await self.append(source, new_event)

    async def append(self, source: str, new_event: NewEvent) -> dict[str, Any]:
        """Append an operator's event with its mark; return its position, event id and status.

        Raises NotFound for a source that is not configured, Conflicting where the event would lack
        its mark.
        """
        if source not in self.log.appenders:
            raise NotFound(f"source {source} is not configured in this service")
        configured = self.log.settings.sources[source]
        require_secret(configured, self.role)
        marked = mark_event(configured, source, new_event)
        appended = await self.log.appenders[source].append(marked)
        return {
            "position": appended.position,
            "event_id": marked.event_id.hex(),
            "status": "accepted" if appended.fresh else "duplicate",
        }
