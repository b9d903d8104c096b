"""Operators' decisions: events of the same log, appended by the same appenders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson

from ledger.database import connection as database
from ledger.database.errors import CONNECTION_LOST
from ledger.errors import DatabaseUnavailable, NotFound
from ledger.eventlog.appender import APPEND, NOTIFY, Log, columns
from ledger.eventlog.identity import is_statements_log, source_of
from ledger.eventlog.new_event import NewEvent, operator_event
from ledger.evidence.authenticity import mark_event, require_secret, source_of_log


@dataclass(frozen=True, slots=True)
class OperatorEvents:
    """Appends what operators decide to the logs of configured sources and of their statements."""

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
        configured = source_of_log(self.log.settings, source)
        if configured is None:
            raise NotFound(f"source {source_of(source)} is not configured in this service")
        require_secret(configured, self.role)
        marked = mark_event(configured, source, new_event)
        if is_statements_log(source):
            position, is_fresh = await self._append_beside_imports(source, marked)
        else:
            appended = await self.log.appenders[source].append(marked)
            position, is_fresh = appended.position, appended.fresh
        return {
            "position": position,
            "event_id": marked.event_id.hex(),
            "status": "accepted" if is_fresh else "duplicate",
        }

    async def _append_beside_imports(self, log: str, new_event: NewEvent) -> tuple[int, bool]:
        """Append to a log of statements, which has no appender of its own.

        Raises DatabaseUnavailable; whether the event is in the log is not known then.
        """
        try:
            async with database.connected(self.log.dsn) as connection:
                await database.assert_safe(connection)
                row = await connection.fetchrow(APPEND, log, *columns([new_event]))
                await connection.execute(NOTIFY)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            raise DatabaseUnavailable("the database did not answer; repeat the request") from error
        if row["positions"] is None:
            return row["base"] + 1, True
        return row["positions"][0], row["fresh"][0]
