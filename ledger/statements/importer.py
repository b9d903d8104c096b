"""Append a statement to its log: the file's header, its lines and its bytes as events.

A file is appended in one transaction, so it is in the log whole or not at all. Imports of one
source follow each other (an advisory lock of the session, taken first), because the log itself
shows which lines a file changes. Callbacks never wait for it; they are in another log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain, islice
from typing import Any, Final

import asyncpg
import orjson

from ledger.config.source import Source
from ledger.database import connection as database
from ledger.errors import Conflicting, NotFound, StatementRefused
from ledger.eventlog.appender import APPEND, NOTIFY, time_texts
from ledger.eventlog.identity import source_of, statements_log
from ledger.eventlog.sources import ADD_SOURCE, REGISTER_HEAD
from ledger.evidence.authenticity import headers_with_mark
from ledger.model import Record, changed
from ledger.registry import STATEMENT
from ledger.statements.changes import Body, LineChange
from ledger.statements.comparison import SELECT_IN_FORCE, compare, joined
from ledger.statements.events import (
    Event,
    header_name,
    import_event,
    line_name,
    part_events,
    stated_line,
    withdrawal_event,
    withdrawn_line,
)
from ledger.statements.model import Statement
from ledger.statements.validation import refusal

BATCH: Final = 1_000
IMPORT_SECONDS_MAX: Final = 600.0
AHEAD_MAX: Final = timedelta(days=1)
"""How far ahead of our clock a period may end: days differ by time zone, typing errors by years."""
TURN_SECONDS_MAX: Final = 5
"""How long a change of a log of statements waits for another one."""

BEFORE: Final = (
    "the file was imported before, at position {}; import it with again (--again) if another file "
    "has changed its lines since"
)
DECLARE: Final = 'declare which wallet it proves, [sources.{}.accounts] "{}" = "…"'

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
SELECT_ACCOUNTS: Final = """
SELECT DISTINCT convert_from(body, 'UTF8')::jsonb->>'account' AS account
  FROM (SELECT DISTINCT ON (resource_id) status, body FROM ledger.events
         WHERE source = $1 AND origin = 'statement' AND kind = 'statement'
           AND starts_with(resource_id, $2)
         ORDER BY resource_id, position DESC) AS latest
 WHERE status = 'imported' AND convert_from(body, 'UTF8')::jsonb ? 'account'
"""
SELECT_HEADERS: Final = """
SELECT DISTINCT ON (resource_id) resource_id, position, status, body FROM ledger.events
 WHERE source = $1 AND origin = 'statement' AND kind = 'statement'
   AND convert_from(body, 'UTF8')::jsonb->>'sha256' = $2
 ORDER BY resource_id, position DESC
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
    """The result of an import, or what one would do. `lines` = new + changed + unchanged."""

    status: str
    """`accepted`; `duplicate`: the file was imported before and nothing happened; `preview`: asked
    for what it would do; `refused`: it would change or withdraw lines, which was not allowed."""
    source: str
    position: int
    """The last one of the file, or of its first import; 0 when nothing was stored."""
    currency: str
    """Of the wallet."""
    account: str
    format: str
    sha256: str
    opened_at: datetime
    closed_at: datetime
    opening: Decimal | None
    closing: Decimal | None
    lines: int
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    withdrawn: int = 0
    """Lines of the period that the file does not have any more."""
    changes: tuple[LineChange, ...] = ()
    """At most CHANGES_MAX of the changed and withdrawn lines."""
    notes: tuple[str, ...] = ()


class Permission(Record, frozen=True):
    """What an import may do to lines of earlier files, and whether it does anything."""

    again: bool = False
    """State the file once more although it was imported before, as after a mistaken newer one."""
    replace: bool = False
    """Change and withdraw lines of earlier files."""
    add: bool = False
    """The file states only some of the lines of its period: withdraw none."""
    dry_run: bool = False


ALLOWED: Final = Permission()


async def add_statement(
    connection: Any, source: str, statement: Statement, now: datetime,
    permission: Permission = ALLOWED, terms: Source | None = None,
) -> ImportResult:  # fmt: skip
    """Append a file through a connection of `exclusive_import`. Times are `now`, aware.

    `terms` are the source's settings: the wallets of its accounts, the secret that marks its
    events. Raises StatementRefused for a period that ends more than a day ahead or an account that
    is not declared, Conflicting for a file that was withdrawn. After a database error the outcome
    is unknown; importing again is safe.
    """
    if statement.closed_at > now + AHEAD_MAX:
        raise _in_the_future(statement)
    log = statements_log(source)
    statement = in_wallet(statement, terms)
    if len({line_name(line) for line in statement.lines}) != len(statement.lines):
        raise StatementRefused("two lines of the file have one name; report it, with the file")
    before = None
    if permission.again:
        before = await connection.fetchrow(SELECT_HEADER, log, header_name(statement))
    header = import_event(log, statement, now, before["position"] if before else None)
    result = _result_of(source, statement)
    known_at = await _imported_at(connection, log, header, permission)
    if known_at is not None:
        return replace(result, position=known_at, notes=(*result.notes, BEFORE.format(known_at)))
    await _check_account(connection, log, statement, terms)
    part = None if permission.again else await joined(connection, log, statement)
    if part is not None:
        statement, result = part, replace(result, notes=part.notes)
        header = import_event(log, statement, now, None)
    changes = await compare(connection, log, statement, may_withdraw=not permission.add)
    new, restated, gone = len(changes.new), len(changes.restated), len(changes.gone)
    unchanged = len(statement.lines) - new - restated
    result = replace(
        result, status="preview", new=new, changed=restated, withdrawn=gone, unchanged=unchanged,
        changes=changes.listed,
    )  # fmt: skip
    if permission.add and unchanged:
        note = f"{unchanged} lines are in earlier files already; they count once"
        result = replace(result, notes=(*result.notes, note))
    if permission.dry_run:
        return result
    if (restated or gone) and not permission.replace:
        return replace(result, status="refused")
    async with _changing(connection, log):
        first = await _append(connection, log, [header], terms) or 0
        events = chain(
            (stated_line(log, line, statement, first, now)
             for line in chain(changes.new, changes.restated, changes.rebalanced)),
            (withdrawn_line(log, body, statement.sha256, first, now) for body in changes.gone),
            part_events(log, statement.sha256, statement.body, now),
        )  # fmt: skip
        position = await _append_all(connection, log, events, first, terms)
    return replace(result, status="accepted", position=position)


def _in_the_future(statement: Statement) -> StatementRefused:
    """Return the refusal of a period that has not ended: a typing error, of a row or of a date."""
    latest = max(statement.lines, key=lambda line: line.effective_at, default=None)
    if statement.is_inferred and latest is not None:
        at = latest.effective_at.isoformat()
        return refusal(latest.number, f"is dated {at}, which is in the future; correct its date")
    return StatementRefused(
        f"the period ends at {statement.closed_at.isoformat()}, which is in the future; correct "
        "what is given (--to), or export the statement up to now"
    )


def _result_of(source: str, statement: Statement) -> ImportResult:
    """Return the result of an import that changes nothing."""
    return ImportResult(
        "duplicate", source, 0, statement.currency, statement.account, statement.format,
        statement.sha256, statement.opened_at, statement.closed_at, statement.opening,
        statement.closing, len(statement.lines), unchanged=len(statement.lines),
        notes=statement.notes,
    )  # fmt: skip


def in_wallet(statement: Statement, terms: Source | None) -> Statement:
    """Return a statement as one of the wallet that its account proves.

    Raises StatementRefused when others are declared for the wallet of its currency, but not it.
    """
    accounts = terms.accounts if terms else {}
    account, currency = statement.account, statement.currency
    wallet = accounts.get(account, currency)
    others = [name for name, each in accounts.items() if each == wallet]
    if account and account not in accounts and others:
        raise StatementRefused(
            f"account {account} is not declared, and the wallet {wallet} is proved by "
            f"{', '.join(others)}; {DECLARE.format(terms.name if terms else '', account)}"
        )
    if wallet == currency:
        return statement
    lines = tuple(changed(line, currency=wallet) for line in statement.lines)
    return changed(statement, currency=wallet, stated_currency=currency, lines=lines)


async def _check_account(
    connection: Any, log: str, statement: Statement, terms: Source | None
) -> None:
    """Refuse the statement of another account than the one whose statements the wallet has."""
    if not statement.account:
        return
    rows = await connection.fetch(SELECT_ACCOUNTS, log, f"{statement.currency}:")
    others = sorted({row["account"] for row in rows} - {statement.account})
    declared = terms.accounts if terms else {}
    if others and any(
        declared.get(name) != statement.currency for name in (*others, statement.account)
    ):
        raise StatementRefused(
            f"the wallet {statement.currency} has statements of account {', '.join(others)}, this "
            f"file is of {statement.account}; two accounts prove two wallets: "
            f"{DECLARE.format(source_of(log), statement.account)}, or both names with one wallet "
            "if they are names of one account"
        )


@dataclass(frozen=True, slots=True)
class WithdrawResult:
    """The result of withdrawing a file."""

    source: str
    position: int
    files: int
    """Imports of the file that were in force: one per currency and period."""
    lines: int
    """Lines that it stated last."""
    again: tuple[str, ...] = ()
    """SHA-256 of the files in force whose periods meet its own: they may have these lines, too."""


async def withdraw_statement(
    dsn: str, source: str, sha256: str, reason: Mapping[str, str], now: datetime,
    terms: Source | None = None,
) -> WithdrawResult:  # fmt: skip
    """Withdraw a file with the lines that it stated last; `reason` is who and why.

    Other files may have the same lines: importing them again (`again`) states those once more.
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
        again = await _meeting(connection, log, sha256, [orjson.loads(r["body"]) for r in headers])
    return WithdrawResult(source, position, len(files), len(gone), again if gone else ())


async def _meeting(
    connection: Any, log: str, sha256: str, headers: Sequence[Body]
) -> tuple[str, ...]:
    """Return the files in force, of the same wallets, whose periods meet those of some headers."""
    found: dict[str, None] = {}
    for own in headers:
        for row in await connection.fetch(SELECT_IN_FORCE, log, f"{own['currency']}:"):
            other = orjson.loads(row["body"])
            if (
                other["sha256"] != sha256
                and other["opened_at"] < own["closed_at"]
                and own["opened_at"] < other["closed_at"]
            ):
                found[str(other["sha256"])] = None
    return tuple(found)


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


async def _imported_at(
    connection: Any, log: str, header: Event, permission: Permission
) -> int | None:
    """Return where the file was imported for the same period; None when it was not.

    Raises Conflicting when it is withdrawn by now.
    """
    known_at = await connection.fetchval(SELECT_SAME, log, header["id"])
    latest = await connection.fetchrow(SELECT_HEADER, log, header["name"])
    if known_at is None and (permission.again or latest is None):
        return None
    if latest is not None and latest["status"] == "withdrawn":
        raise Conflicting(
            f"this file was imported and withdrawn at {log}:{latest['position']}; to state it "
            "again, import it with again (--again)"
        )
    return int(latest["position"] if known_at is None else known_at)


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
