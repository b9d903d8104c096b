"""Compare a statement with the lines that its log has: what is new, restated, or gone.

The log shows for each line its latest event. Everything is read; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

import orjson

from ledger.errors import StatementRefused
from ledger.model import changed, plain
from ledger.statements.changes import CHANGES_MAX, Body, LineChange, changed_line, renamed
from ledger.statements.events import BOOKED, content_digest, line_name
from ledger.statements.model import Statement, StatementLine, stem_of

BATCH: Final = 1_000
"""Lines that are read at a time."""
ORDINAL_MAX: Final = 100
"""Lines of one core in different files."""
TEXTS: Final = frozenset({"row_kind", "description", "counterparty", "names"})
"""Fields that are not in the core of a line."""
DAY_MAX: Final = timedelta(hours=25)
"""The longest day there is, by a clock that is put back."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

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
SELECT_AT: Final = """
SELECT position, body FROM ledger.events WHERE source = $1 AND position = ANY ($2::bigint[])
"""
SELECT_IN_FORCE: Final = """
SELECT body
  FROM (SELECT DISTINCT ON (resource_id) status, body FROM ledger.events
         WHERE source = $1 AND origin = 'statement' AND kind = 'statement'
           AND starts_with(resource_id, $2)
         ORDER BY resource_id, position DESC) AS latest
 WHERE status = 'imported'
"""


class Changes(NamedTuple):
    """What a statement changes in its log."""

    new: list[StatementLine]
    restated: list[StatementLine]
    rebalanced: list[StatementLine]
    """Lines of which nothing but the running balance differs, as after a row entered late."""
    gone: list[Body]
    listed: tuple[LineChange, ...]


async def compare(
    connection: Any, log: str, statement: Statement, *, may_withdraw: bool
) -> Changes:
    """Compare a statement with what the log has of its lines and of its period.

    Without `may_withdraw` no line is gone, and a line of which only the core is that of a known one
    is another line; all are, of a statement that is `joined`.
    """
    if statement.stated_balances is not None:
        return Changes(await _all_apart(connection, log, statement), [], [], [], ())
    names = [line_name(line) for line in statement.lines]
    begin = statement.claimed_from or statement.opened_at
    rows = await connection.fetch(
        SELECT_LINES, log, f"{statement.currency}:", names, begin, statement.closed_at
    )
    stated = {row["resource_id"]: row for row in rows if row["status"] == "stated"}
    new = [line for line in statement.lines if line_name(line) not in stated]
    gone = await _bodies(connection, log, stated.keys() - {*names}) if may_withdraw else []
    dated = await _stated_at_their_date(connection, log, statement, new)
    stated |= dated
    late = await _bodies(connection, log, dated.keys() - {*names})
    new, taken = renamed(new, [*gone, *reversed(late)])
    lines = [line for line in statement.lines if line_name(line) in stated]
    lines += [line for line in new if line_name(line) in stated]
    differing = {
        line_name(line): line for line in lines
        if line_name(line) in dated
        or not stated[line_name(line)]["idempotency_key"].endswith("/" + content_digest(line))
    }  # fmt: skip
    restated: list[StatementLine] = []
    rebalanced: list[StatementLine] = []
    apart: list[StatementLine] = []
    listed: list[LineChange] = []
    for some in _batches(sorted(differing)):
        for body in await _bodies(connection, log, some):
            line = differing[body["id"]]
            change = changed_line(body, line)
            if not change.fields or (change.change == "moved" and body["id"] not in dated):
                rebalanced.append(changed(line, booked_at=change.booked_at))
                continue
            if not may_withdraw and TEXTS.issuperset(change.fields) and line.name.startswith("h:"):
                apart.append(line)  # a line of its own, of which only the core is equal
                continue
            restated.append(line)
            if len(listed) < CHANGES_MAX:
                listed.append(change)
    gone = [body for body in gone if body["id"] not in taken]
    listed += [changed_line(body) for body in gone[: CHANGES_MAX - len(listed)]]
    new = [line for line in new if line_name(line) not in stated]
    new += await _named_apart(connection, log, statement, apart)
    return Changes(new, restated, rebalanced, gone, tuple(listed))


async def _all_apart(connection: Any, log: str, statement: Statement) -> list[StatementLine]:
    """Return the lines of a statement, none of which the log has, each with a name of its own."""
    names = [line_name(line) for line in statement.lines]
    rows = await connection.fetch(SELECT_LINES, log, f"{statement.currency}:", names, EPOCH, EPOCH)
    known = {row["resource_id"] for row in rows}
    new = [line for line in statement.lines if line_name(line) not in known]
    apart = [line for line in statement.lines if line_name(line) in known]
    return [*new, *await _named_apart(connection, log, statement, apart)]


async def _named_apart(
    connection: Any, log: str, statement: Statement, lines: Sequence[StatementLine]
) -> list[StatementLine]:
    """Give lines whose names the log has for others the next ordinals that are free."""
    result: list[StatementLine] = []
    taken = {line_name(line) for line in statement.lines}
    for line in lines:
        stem = stem_of(line)
        for number in range(2, ORDINAL_MAX):
            other = changed(line, name=f"{stem}-{number}")
            name = line_name(other)
            if name not in taken and not await connection.fetch(
                SELECT_LINES, log, f"{statement.currency}:", [name], EPOCH, EPOCH
            ):
                break
        else:
            raise StatementRefused(
                f"line {line.number}: {ORDINAL_MAX} lines like it are in earlier files; import a "
                "file that has the whole period"
            )
        taken.add(name)
        result.append(other)
    return result


async def _stated_at_their_date(
    connection: Any, log: str, statement: Statement, new: Sequence[StatementLine]
) -> dict[str, Any]:
    """Return lines that the log has at the date of a late line, by files that reach in the period.

    A longer statement books a line at its date that the statement of a later day books on that day.
    """
    stems = {
        line_name(changed(line, name=f"{stem_of(changed(line, booked_at=None))}{ordinal}"))
        for line in new if line.booked_at != line.effective_at
        for ordinal in ("", "-2", "-3")
    }  # fmt: skip
    if not stems:
        return {}
    begin = statement.claimed_from or statement.opened_at
    rows = await connection.fetch(
        SELECT_LINES, log, f"{statement.currency}:", sorted(stems), begin, begin
    )
    bodies = await _bodies(
        connection, log, (row["resource_id"] for row in rows if row["status"] == "stated")
    )
    files = {
        row["position"]: orjson.loads(row["body"])
        for row in await connection.fetch(SELECT_AT, log, sorted({b["import"] for b in bodies}))
    }
    reaching = {body["id"] for body in bodies if _meets(statement, files.get(body["import"], {}))}
    return {row["resource_id"]: row for row in rows if row["resource_id"] in reaching}


def _meets(statement: Statement, header: Body) -> bool:
    """Tell whether the period of an earlier file has a part in common with a statement's."""
    if "opened_at" not in header:
        return False
    begin = datetime.fromisoformat(header.get("claimed_from") or header["opened_at"])
    own = statement.claimed_from or statement.opened_at
    return begin < statement.closed_at and own < datetime.fromisoformat(header["closed_at"])


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + BATCH] for start in range(0, len(names), BATCH))


async def _bodies(connection: Any, log: str, names: Iterable[str]) -> list[Body]:
    """Return what the log has of lines, by their events' names in order."""
    ordered = sorted(names)
    if not ordered:
        return []
    return [
        orjson.loads(row["body"]) for row in await connection.fetch(SELECT_BODIES, log, ordered)
    ]


async def joined(connection: Any, log: str, statement: Statement) -> Statement | None:
    """Return a statement as a part of its period that joins an earlier one; None when it is none.

    A bank may write several statements of one day, and an export may begin on the last day of the
    one before: the balance before its lines is then the closing balance of the earlier one, or
    theirs the opening balance of a later one. It has no other line of its period than its own, and
    its balances become those of the whole period, by the lines that the log has there.
    """
    begin, end = statement.claimed_from or statement.opened_at, statement.closed_at
    rows = await connection.fetch(SELECT_IN_FORCE, log, f"{statement.currency}:")
    files = [file for row in rows if _meets(statement, file := orjson.loads(row["body"]))]
    if any(_is_of_the_same_time(statement, file) for file in files):
        return None
    before = [file for file in files if _is_stated(file, "closing", statement.opening)]
    before = [file for file in before if begin < _time(file, "closed_at") <= end]
    after = [file for file in files if _is_stated(file, "opening", statement.closing)]
    after = [
        file
        for file in after
        if begin <= _time(file, "opened_at") and end <= _time(file, "closed_at")
    ]
    if bool(before) == bool(after):
        return None
    in_common = [_time(file, "closed_at") - begin for file in before]
    in_common += [end - _time(file, "opened_at") for file in after]
    amount, is_known = await _amount_there(connection, log, statement, begin)
    has_ids = any(not line.name.startswith("h:") for line in statement.lines)
    if is_known and (has_ids or not amount or min(in_common) > DAY_MAX):
        return None  # as likely the same lines once more
    opening, closing = statement.opening, statement.closing
    if before and opening is not None:
        opening -= amount
    if after and closing is not None:
        closing += amount
    side = "follows the one before it" if before else "comes before another"
    note = f"by its balances the statement {side} within the period; earlier lines of it stay"
    return changed(
        statement, opening=opening, closing=closing,
        stated_balances=(statement.opening, statement.closing), notes=(*statement.notes, note),
    )  # fmt: skip


def _is_of_the_same_time(statement: Statement, file: Body) -> bool:
    """Tell whether an earlier file begins or ends when the statement does, with its balance."""
    begins = statement.opened_at, statement.claimed_from
    return (
        _time(file, "opened_at") in begins and _is_stated(file, "opening", statement.opening)
    ) or (
        _time(file, "closed_at") == statement.closed_at
        and _is_stated(file, "closing", statement.closing)
    )


def _is_stated(file: Body, name: str, balance: Decimal | None) -> bool:
    """Tell whether an earlier file states a balance, as it has it itself."""
    stated = file.get(f"stated_{name}", file.get(name))
    return balance is not None and stated == plain(balance)


def _time(file: Body, name: str) -> datetime:
    return datetime.fromisoformat(file[name])


async def _amount_there(
    connection: Any, log: str, statement: Statement, begin: datetime
) -> tuple[Decimal, bool]:
    """Return the sum of the lines that the log has in a period, and whether any has a name of the
    statement's lines."""
    names = {line_name(line) for line in statement.lines}
    rows = await connection.fetch(
        SELECT_LINES, log, f"{statement.currency}:", sorted(names), begin, statement.closed_at
    )
    stated = sorted(row["resource_id"] for row in rows if row["status"] == "stated")
    amount = Decimal(0)
    for some in _batches(stated):
        for body in await _bodies(connection, log, some):
            at = datetime.fromisoformat(body.get(BOOKED) or body["effective_at"])
            if begin <= at < statement.closed_at:
                amount += Decimal(body["amount"])
    return amount, not names.isdisjoint(stated)
