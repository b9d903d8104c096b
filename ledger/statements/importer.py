"""Append a statement to its log: the file's header, its lines and its bytes as events.

A file is appended in one transaction, so it is in the log whole or not at all. Imports of one
source follow each other (an advisory lock of the session, taken first), because the log itself
shows which lines a file changes. Callbacks never wait for it; they are in another log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any, Final

import asyncpg
import orjson

from ledger.config.source import Source
from ledger.database import connection as database
from ledger.errors import Conflicting, NotFound, StatementRefused
from ledger.eventlog.appender import APPEND, NOTIFY, time_texts
from ledger.eventlog.identity import statements_log
from ledger.eventlog.sources import ADD_SOURCE, REGISTER_HEAD
from ledger.evidence.authenticity import headers_with_mark
from ledger.registry import STATEMENT
from ledger.statements.events import (
    Event,
    content_digest,
    header_name,
    import_event,
    line_name,
    part_events,
    stated_line,
    withdrawal_event,
    withdrawn_line,
)
from ledger.statements.model import Statement

BATCH: Final = 1_000
IMPORT_SECONDS_MAX: Final = 600.0
AHEAD_MAX: Final = timedelta(days=1)
"""How far ahead of our clock a period may end: days differ by time zone, typing errors by years."""
TURN_SECONDS_MAX: Final = 5
"""How long a change of a log of statements waits for another one."""

BUSY: Final = "another import of {} is running; wait until it has ended and import the file again"

WAIT_BOUNDED: Final = f"SET lock_timeout = '{TURN_SECONDS_MAX}s'"
WAIT_AS_BEFORE: Final = "RESET lock_timeout"
LOCK: Final = "SELECT pg_advisory_lock(hashtextextended('ledger.import.' || $1, 0))"
SELECT_SAME: Final = """
SELECT position FROM ledger.events WHERE source = $1 AND event_id = $2
"""
# `position + 0`, `kind || ''`: a name is found by its hash, never by following positions or times.
SELECT_HEADER: Final = """
SELECT position, status FROM ledger.events
 WHERE source = $1 AND origin = 'statement' AND kind = 'statement' AND resource_id = $2
   AND hashtextextended(resource_id, 0) = hashtextextended($2, 0)
 ORDER BY position + 0 DESC LIMIT 1
"""
SELECT_HEADERS: Final = """
SELECT DISTINCT ON (resource_id) resource_id, position, status, body FROM ledger.events
 WHERE source = $1 AND kind = 'statement'
   AND convert_from(body, 'UTF8')::jsonb->>'sha256' = $2
 ORDER BY resource_id, position DESC
"""
# Only what the file can change: its own lines, and those of its period that it may not have.
SELECT_LINES: Final = """
SELECT latest.resource_id, latest.status, latest.idempotency_key, latest.provider_at
  FROM (SELECT id, bool_or(own) AS own
          FROM (SELECT unnest($3::text[]) AS id, true AS own
                 UNION ALL
                SELECT resource_id, false FROM ledger.events
                 WHERE source = $1 AND origin = 'statement' AND kind = 'statement_line'
                   AND provider_at >= $4 AND provider_at < $5
                   AND starts_with(resource_id, $2)) AS named
         GROUP BY id) AS named_line
 CROSS JOIN LATERAL (
       SELECT e.resource_id, e.status, e.idempotency_key, e.provider_at FROM ledger.events AS e
        WHERE e.source = $1 AND e.origin = 'statement' AND e.kind || '' = 'statement_line'
          AND e.resource_id = named_line.id
          AND hashtextextended(e.resource_id, 0) = hashtextextended(named_line.id, 0)
        ORDER BY e.position + 0 DESC LIMIT 1) AS latest
 WHERE named_line.own
    OR (latest.status = 'stated' AND latest.provider_at >= $4 AND latest.provider_at < $5)
"""
SELECT_BODIES: Final = """
SELECT latest.body FROM unnest($2::text[]) AS named_line(id)
 CROSS JOIN LATERAL (
       SELECT e.body FROM ledger.events AS e
        WHERE e.source = $1 AND e.origin = 'statement' AND e.kind || '' = 'statement_line'
          AND e.resource_id = named_line.id
          AND hashtextextended(e.resource_id, 0) = hashtextextended(named_line.id, 0)
        ORDER BY e.position + 0 DESC LIMIT 1) AS latest
 ORDER BY named_line.id
"""
SELECT_STATED_BY: Final = """
SELECT body
  FROM (SELECT DISTINCT ON (resource_id) resource_id, status, body FROM ledger.events
         WHERE source = $1 AND kind = 'statement_line'
         ORDER BY resource_id, position DESC) AS latest
 WHERE status = 'stated' AND convert_from(body, 'UTF8')::jsonb->>'sha256' = $2
 ORDER BY resource_id
"""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The result of an import. `position` is the last of the file, or that of its first import."""

    status: str
    """`accepted`, or `duplicate`: the file was imported before and nothing happened."""
    source: str
    position: int
    lines: int
    new: int
    changed: int
    withdrawn: int
    """Lines of the period that the file does not have any more."""


@dataclass(frozen=True, slots=True)
class WithdrawResult:
    """The result of withdrawing a file."""

    source: str
    position: int
    files: int
    """Imports of the file that were in force: one per currency and period."""
    lines: int
    """Lines that no statement has any more."""


async def add_statement(
    connection: Any, source: str, statement: Statement, now: datetime, *, again: bool,
    terms: Source | None = None,
) -> ImportResult:  # fmt: skip
    """Append a file through a connection of `exclusive_import`. Times are `now`, aware.

    `again` states it once more although it was imported before, as after a mistaken newer file.
    The secret of `terms`, the source's settings, marks the events. Raises StatementRefused for a
    period that ends more than a day ahead, Conflicting for a file that was withdrawn. After a
    database error the outcome is unknown; importing again is safe.
    """
    if statement.closed_at > now + AHEAD_MAX:
        raise StatementRefused(
            f"the period ends at {statement.closed_at.isoformat()}, which is in the future; "
            "correct it (--to)"
        )
    log = statements_log(source)
    async with _changing(connection, log):
        name = header_name(statement)
        before = await connection.fetchrow(SELECT_HEADER, log, name) if again else None
        header = import_event(log, statement, now, before["position"] if before else None)
        first = await _append(connection, log, [header], terms)
        if first is None:
            return await _duplicate(connection, source, statement, header)
        names = [line_name(line) for line in statement.lines]
        window = statement.opened_at, statement.closed_at
        rows = await connection.fetch(SELECT_LINES, log, f"{statement.currency}:", names, *window)
        known = {row["resource_id"]: row for row in rows}
        events, new, changed = _lines(log, statement, known, first, now)
        missing = sorted(known.keys() - {*names})
        gone = [
            withdrawn_line(log, orjson.loads(row["body"]), statement.sha256, first, now)
            for row in await connection.fetch(SELECT_BODIES, log, missing)
        ]
        kept = part_events(log, statement.sha256, statement.body, now)
        position = await _append_all(connection, log, chain(events, gone, kept), first, terms)
    return ImportResult("accepted", source, position, len(statement.lines), new, changed, len(gone))


async def withdraw_statement(
    dsn: str, source: str, sha256: str, reason: Mapping[str, str], now: datetime,
    terms: Source | None = None,
) -> WithdrawResult:  # fmt: skip
    """Withdraw a file with the lines that no later one states; `reason` is who and why.

    Raises NotFound when no import of the file is in force.
    """
    log = statements_log(source)
    async with exclusive_import(dsn, source) as connection, _changing(connection, log):
        headers = [
            row for row in await connection.fetch(SELECT_HEADERS, log, sha256)
            if row["status"] == "imported"
        ]  # fmt: skip
        if not headers:
            raise NotFound(f"no statement {sha256} of {source} is in force; /v1/statements lists")
        files = [
            withdrawal_event(
                log, row["resource_id"], orjson.loads(row["body"]), row["position"], reason, now
            )
            for row in headers
        ]
        position = await _append(connection, log, files, terms) or 0
        gone = [
            withdrawn_line(log, orjson.loads(row["body"]), sha256, position, now)
            for row in await connection.fetch(SELECT_STATED_BY, log, sha256)
        ]
        position = await _append_all(connection, log, iter(gone), position, terms)
    return WithdrawResult(source, position, len(files), len(gone))


@asynccontextmanager
async def exclusive_import(dsn: str, source: str) -> AsyncIterator[Any]:
    """Open a connection that alone may change a source's log of statements during the block.

    Raises Conflicting when another one is still open after TURN_SECONDS_MAX.
    """
    async with database.connected(dsn, seconds_max=IMPORT_SECONDS_MAX) as connection:
        await connection.execute(WAIT_BOUNDED)
        try:
            await connection.execute(LOCK, statements_log(source))
        except asyncpg.LockNotAvailableError as error:
            raise Conflicting(BUSY.format(source)) from error
        await connection.execute(WAIT_AS_BEFORE)
        yield connection


@asynccontextmanager
async def _changing(connection: Any, log: str) -> AsyncIterator[None]:
    """Change a log of statements in one transaction, and notify the projector."""
    async with connection.transaction():
        await database.assert_safe(connection)
        await connection.execute(ADD_SOURCE, log, STATEMENT, None, "{}", None, None, "creation")
        await connection.execute(REGISTER_HEAD, log)
        yield
        await connection.execute(NOTIFY)


async def _duplicate(
    connection: Any, source: str, statement: Statement, header: Event
) -> ImportResult:
    log = statements_log(source)
    latest = await connection.fetchrow(SELECT_HEADER, log, header["name"])
    if latest is not None and latest["status"] == "withdrawn":
        raise Conflicting(
            f"this file was imported and withdrawn at {log}:{latest['position']}; to state it "
            "again, import it with again (--again)"
        )
    position = await connection.fetchval(SELECT_SAME, log, header["id"])
    return ImportResult("duplicate", source, int(position), len(statement.lines), 0, 0, 0)


def _lines(
    log: str, statement: Statement, known: Mapping[str, Any], place: int, now: datetime
) -> tuple[list[Event], int, int]:
    """Return the events of the lines that are new or stated differently, and how many of each."""
    events, new, changed = [], 0, 0
    for line in statement.lines:
        before = known.get(line_name(line))
        if before is None:
            new += 1
        elif before["status"] == "stated" and before["idempotency_key"].endswith(
            "/" + content_digest(line)
        ):
            continue
        else:
            changed += 1
        events.append(stated_line(log, line, statement.sha256, place, now))
    return events, new, changed


async def _append_all(
    connection: Any, log: str, events: Iterator[Event], position: int, terms: Source | None
) -> int:
    """Append events batch by batch; return the last position that is the file's."""
    while batch := list(islice(events, BATCH)):
        position = await _append(connection, log, batch, terms) or position
    return position


async def _append(
    connection: Any, log: str, events: Sequence[Mapping[str, Any]], terms: Source | None
) -> int | None:
    """Append a batch; return its last position, or None when every event was there before."""
    count = len(events)
    record = await connection.fetchrow(
        APPEND,
        log,
        *(list(column) for column in _columns(events)),
        [None] * count,
        ["statement"] * count,
        [None] * count,
        [None] * count,
        [""] * count,
        [
            headers_with_mark(
                terms, log, "{}", origin="statement", path_event=None, event_id=event["id"]
            )
            for event in events
        ],
        [event["body"] for event in events],
        time_texts(event["now"] for event in events),
    )
    if record["positions"] is None:
        return int(record["base"]) + count
    return max(record["positions"]) if any(record["fresh"]) else None


def _columns(events: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    for name in ("id", "key", "kind", "name", "status", "idempotency_id"):
        yield [event[name] for event in events]
    yield time_texts(event["at"] for event in events)
