"""Statements into the log: a file's header and lines as events of the log beside the callbacks'.

A file is appended in one transaction, so it is in the log whole or not at all. Imports of one
source follow each other (an advisory lock, taken first): which lines a file changes is read from
the log itself. Callbacks never wait for it; they are in another log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

import orjson

from ledger import database
from ledger.log import ADD_SOURCE, APPEND, REGISTER_HEAD, RING
from ledger.model import plain
from ledger.registry import STATEMENT
from ledger.statement import Line, Statement

SUFFIX: Final = ".statements"
BATCH: Final = 1_000
IMPORT_SECONDS_MAX: Final = 600.0
NAME_MAX: Final = 200
"""Characters of a line's id that go into its name; a longer one is digested."""

LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('ledger.import.' || $1, 0))"
SELECT_HEADER: Final = """
SELECT position FROM ledger.events WHERE source = $1 AND event_id = $2
"""
SELECT_LINES: Final = """
SELECT DISTINCT ON (resource_id) resource_id, status, idempotency_key, provider_at
  FROM ledger.events
 WHERE source = $1 AND kind = 'statement_line' AND starts_with(resource_id, $2)
 ORDER BY resource_id, position DESC
"""
SELECT_BODY: Final = """
SELECT body FROM ledger.events
 WHERE source = $1 AND kind = 'statement_line' AND resource_id = ANY ($2::text[])
 ORDER BY resource_id, position DESC
"""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did. `position` is the last one of the file, or of its first import."""

    status: str
    """`accepted`, or `duplicate`: the file was imported before and nothing happened."""
    source: str
    position: int
    lines: int
    new: int
    changed: int
    withdrawn: int
    """Lines of the period that the file does not have any more."""


def log_of(source: str) -> str:
    """Name the log of a source's statements."""
    return source + SUFFIX


def source_of(log: str) -> str:
    """Name the source whose statements a log holds."""
    return log.removesuffix(SUFFIX)


async def append_statement(dsn: str, source: str, statement: Statement, now: datetime) -> Imported:
    """Append a file to the log of a source's statements. Times are `now`, aware.

    Raises DatabaseUnavailable when nothing is known about the outcome; importing again is safe.
    """
    log = log_of(source)
    async with (
        database.connected(dsn, seconds_max=IMPORT_SECONDS_MAX) as connection,
        connection.transaction(),
    ):
        await database.assert_safe(connection)
        await connection.execute(LOCK, log)
        await connection.execute(ADD_SOURCE, log, STATEMENT, None, "{}")
        await connection.execute(REGISTER_HEAD, log)
        header = _header(log, statement, now)
        first = await _append(connection, log, [header])
        if first is None:
            position = await connection.fetchval(SELECT_HEADER, log, header["id"])
            return Imported("duplicate", source, int(position), len(statement.lines), 0, 0, 0)
        known = {
            row["resource_id"]: row
            for row in await connection.fetch(SELECT_LINES, log, f"{statement.currency}:")
        }
        events, new, changed = _lines(log, statement, known, now)
        withdrawn = await _withdrawn(connection, log, statement, known, now)
        position = first
        rest = iter([*events, *withdrawn])
        while batch := list(islice(rest, BATCH)):
            position = await _append(connection, log, batch) or position
        await connection.execute(RING)
    return Imported(
        "accepted", source, position, len(statement.lines), new, changed, len(withdrawn)
    )


def _header(log: str, statement: Statement, now: datetime) -> dict[str, Any]:
    period = f"{statement.opened_at.isoformat()}/{statement.closed_at.isoformat()}"
    name = f"{statement.currency}:{_digest(statement.sha256 + period)}"
    body = {
        "type": "statement",
        "id": name,
        "format": statement.format,
        "sha256": statement.sha256,
        "currency": statement.currency,
        "opened_at": statement.opened_at.isoformat(),
        "closed_at": statement.closed_at.isoformat(),
        "opening": None if statement.opening is None else plain(statement.opening),
        "closing": None if statement.closing is None else plain(statement.closing),
        "lines": len(statement.lines),
        "lines_sha256": hashlib.sha256(
            b"\n".join(_content(line) for line in statement.lines)
        ).hexdigest(),
    }
    return _event(log, "statement", name, "imported", statement.closed_at, name, body, now)


def _lines(
    log: str, statement: Statement, known: Mapping[str, Any], now: datetime
) -> tuple[list[dict[str, Any]], int, int]:
    """Return the events of the lines that are new or stated differently, and how many of each."""
    events, new, changed = [], 0, 0
    for line in statement.lines:
        name = _name(line)
        digest = _digest(_content(line).decode())
        before = known.get(name)
        if before is None:
            new += 1
        elif before["status"] == "stated" and before["idempotency_key"].endswith("/" + digest):
            continue
        else:
            changed += 1
        body = _body(line, name, statement.sha256)
        tail = f"{statement.sha256}/{digest}"
        events.append(
            _event(log, "statement_line", name, "stated", line.effective_at, tail, body, now,
                   line.idempotency_id)
        )  # fmt: skip
    return events, new, changed


async def _withdrawn(
    connection: Any, log: str, statement: Statement, known: Mapping[str, Any], now: datetime
) -> list[dict[str, Any]]:
    """Return the events of lines in the file's period that it does not state any more."""
    stated = {_name(line) for line in statement.lines}
    gone = sorted(
        name for name, row in known.items()
        if name not in stated and row["status"] == "stated"
        and statement.opened_at <= row["provider_at"] < statement.closed_at
    )  # fmt: skip
    bodies: dict[str, dict[str, Any]] = {}
    for row in await connection.fetch(SELECT_BODY, log, gone) if gone else ():
        body = orjson.loads(row["body"])
        bodies.setdefault(body["id"], body)
    return [
        _event(
            log, "statement_line", name, "withdrawn", known[name]["provider_at"],
            f"{statement.sha256}/withdrawn",
            bodies[name] | {"status": "withdrawn", "sha256": statement.sha256}, now,
            bodies[name].get("idempotency_id"),
        )
        for name in gone
    ]  # fmt: skip


def _name(line: Line) -> str:
    name = line.id if len(line.id) <= NAME_MAX else _digest(line.id)
    return f"{line.currency}:{name}"


def _body(line: Line, name: str, sha256: str) -> dict[str, Any]:
    return {
        "type": "statement_line",
        "id": name,
        "status": "stated",
        "sha256": sha256,
        "number": line.number,
        **_said(line),
    }


def _said(line: Line) -> dict[str, Any]:
    """Return what a line says, without where it stands; absent things are left out."""
    said = {
        "line": line.id,
        "row_kind": line.kind or None,
        "amount": plain(line.amount),
        "currency": line.currency,
        "effective_at": line.effective_at.isoformat(),
        "contract_id": line.contract_id,
        "idempotency_id": line.idempotency_id,
        "reference": line.reference,
        "balance": None if line.balance is None else plain(line.balance),
        "description": line.description or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _content(line: Line) -> bytes:
    return orjson.dumps(_said(line), option=orjson.OPT_SORT_KEYS)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _event(
    log: str, kind: str, name: str, status: str, at: datetime, tail: str,
    body: Mapping[str, Any], now: datetime, idempotency_id: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    raw = orjson.dumps(dict(body), option=orjson.OPT_SORT_KEYS)
    key = "/".join((log, kind, idempotency_id or "", name, tail))
    return {
        "id": hashlib.sha256(key.encode() + b"\x00" + raw).digest()[:16],
        "key": key,
        "kind": kind,
        "name": name,
        "status": status,
        "idempotency_id": idempotency_id,
        "at": at,
        "body": raw,
        "now": now,
    }


async def _append(connection: Any, log: str, events: Sequence[Mapping[str, Any]]) -> int | None:
    """Append a batch; return its last position, or None when all of it was there already."""
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
        ["{}"] * count,
        [event["body"] for event in events],
        [event["now"] for event in events],
    )
    if record["positions"] is None:
        return int(record["base"]) + count
    return max(record["positions"]) if any(record["fresh"]) else None


def _columns(events: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    for name in ("id", "key", "kind", "name", "status", "idempotency_id", "at"):
        yield [event[name] for event in events]
