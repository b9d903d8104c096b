"""Make the events of a statement: the file's header, its lines, and the file itself in parts.

Pure: the same file at the same place of the log makes the same events, byte for byte.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import orjson

from ledger.eventlog.identity import event_id
from ledger.model import plain
from ledger.statements.model import Statement, StatementLine

NAME_MAX: Final = 200
"""Characters of a line's id that go into its name; a longer one is digested."""
PART_BYTES: Final = 128 * 1024
"""Bytes of a file that one event keeps; it has no more than a large callback."""

Event = dict[str, Any]

BOOKED: Final = "booked_at"
_CONTENT: Final = frozenset(
    {"line", "provider_id", "row_kind", "amount", "currency", "effective_at", "contract_id",
     "idempotency_id", "reference", "balance", "description", "counterparty", "names"}
)  # fmt: skip
"""The fields of a line's body that are what the line states of itself."""


def header_name(statement: Statement) -> str:
    """Name a file's header: by its bytes and the period that it was imported for."""
    period = f"{statement.opened_at.isoformat()}/{statement.closed_at.isoformat()}"
    return f"{statement.currency}:{digest(statement.sha256 + period)}"


def import_event(log: str, statement: Statement, now: datetime, again: int | None) -> Event:
    """Return the event of a file's import; `again` is the position of the import it repeats."""
    name = header_name(statement)
    body = {
        "type": "statement",
        "id": name,
        "status": "imported",
        "format": statement.format,
        "sha256": statement.sha256,
        "currency": statement.currency,
        "opened_at": statement.opened_at.isoformat(),
        "closed_at": statement.closed_at.isoformat(),
        "opening": None if statement.opening is None else plain(statement.opening),
        "closing": None if statement.closing is None else plain(statement.closing),
        **_where_stated(statement),
        "lines": len(statement.lines),
        "lines_sha256": _lines_digest(statement.lines),
    }
    tail = name
    if again is not None:
        body["again"], tail = again, f"{name}/{again}"
    return event(log, "statement", name, "imported", statement.closed_at, tail, body, now)


def _lines_digest(lines: Iterable[StatementLine]) -> str:
    """Return the SHA-256 of the lines' contents, one a line, without holding them all."""
    digest = hashlib.sha256()
    for number, line in enumerate(lines):
        digest.update(b"\n" if number else b"")
        digest.update(content(line))
    return digest.hexdigest()


def _where_stated(statement: Statement) -> dict[str, str]:
    """Return what only some statements have: account, the currency as stated, where it claims."""
    claimed_from = statement.claimed_from
    fields = {
        "account": statement.account,
        "stated_currency": statement.stated_currency,
        "claimed_from": claimed_from.isoformat() if claimed_from else "",
    }
    if statement.stated_balances is not None:
        for name, value in zip(("opening", "closing"), statement.stated_balances, strict=True):
            fields[f"stated_{name}"] = "" if value is None else plain(value)
    return {name: value for name, value in fields.items() if value}


def withdrawal_event(
    log: str, name: str, imported: Mapping[str, Any], position: int, reason: Mapping[str, str],
    now: datetime,
) -> Event:  # fmt: skip
    """Return the event that withdraws a file; `imported` is the header in force, at `position`."""
    body = {**imported, **reason, "status": "withdrawn", "withdraws": position}
    at = datetime.fromisoformat(imported["closed_at"])
    return event(log, "statement", name, "withdrawn", at, f"{name}/{position}", body, now)


def stated_line(
    log: str, line: StatementLine, statement: Statement, position: int, now: datetime
) -> Event:
    """Return the event of a line that the import at `position` states new or differently."""
    name = line_name(line)
    booked_at = line.booked_at or line.effective_at
    body = {
        "type": "statement_line",
        "id": name,
        "status": "stated",
        "sha256": statement.sha256,
        "import": position,
        "number": line.number,
        **_fields(line),
    }
    if statement.account:
        body["account"] = statement.account
    if booked_at != line.effective_at:
        body[BOOKED] = booked_at.isoformat()
    tail = f"{position}/{content_digest(line)}"
    return event(log, "statement_line", name, "stated", booked_at, tail, body, now,
                 line.idempotency_id)  # fmt: skip


def withdrawn_line(
    log: str, known: Mapping[str, Any], sha256: str, position: int, now: datetime
) -> Event:
    """Return the event of a line that no file states since `position`; `known` is its body."""
    body = {**known, "status": "withdrawn", "sha256": sha256, "import": position}
    at = datetime.fromisoformat(known.get("booked_at") or known["effective_at"])
    return event(log, "statement_line", known["id"], "withdrawn", at, f"{position}/withdrawn", body,
                 now, known.get("idempotency_id"))  # fmt: skip


def part_events(log: str, sha256: str, body: bytes, now: datetime) -> Iterator[Event]:
    """Yield the events that keep a file, byte for byte."""
    count = max(1, -(-len(body) // PART_BYTES))
    for index in range(count):
        name = f"{sha256}:{index + 1:05d}"
        piece = body[index * PART_BYTES : (index + 1) * PART_BYTES]
        fields = {
            "type": "statement_part",
            "id": name,
            "sha256": sha256,
            "part": index + 1,
            "parts": count,
            "data": base64.b64encode(zlib.compress(piece, 9)).decode(),
        }
        yield event(log, "statement_part", name, "kept", None, sha256, fields, now)


def piece_of(body: bytes) -> bytes:
    """Return the bytes of the file that an event of `part_events` keeps."""
    return zlib.decompress(base64.b64decode(orjson.loads(body)["data"]))


def line_name(line: StatementLine) -> str:
    """Name a line within its log."""
    name = line.name if len(line.name) <= NAME_MAX else digest(line.name)
    return f"{line.currency}:{name}"


def _fields(line: StatementLine) -> dict[str, Any]:
    """Return what a line states of itself, without its place; absent fields are left out."""
    fields = {
        "line": line.name,
        "provider_id": (line.id or None) if line.id != line.name else None,
        "row_kind": line.kind or None,
        "amount": plain(line.amount),
        "currency": line.currency,
        "effective_at": line.effective_at.isoformat(),
        "contract_id": line.contract_id,
        "idempotency_id": line.idempotency_id,
        "reference": line.reference,
        "balance": None if line.balance is None else plain(line.balance),
        "description": line.description or None,
        "counterparty": line.counterparty or None,
        "names": list(line.names) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def content(line: StatementLine) -> bytes:
    """Return a line's fields as canonical JSON."""
    return orjson.dumps(_fields(line), option=orjson.OPT_SORT_KEYS)


def differing_fields(line: StatementLine, known: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a line states otherwise than its latest event, apart from the running balance."""
    fields = _fields(line)
    names = fields.keys() | {name for name in known if name in _CONTENT}
    differing = {name for name in names - {"balance"} if fields.get(name) != known.get(name)}
    booked_at = (line.booked_at or line.effective_at).isoformat()
    if booked_at != (known.get(BOOKED) or known["effective_at"]) and line.booked_at is not None:
        differing.add(BOOKED)
    return tuple(sorted(differing))


def content_digest(line: StatementLine) -> str:
    """Return the digest of what a line states of itself."""
    return digest(content(line).decode())


def digest(text: str) -> str:
    """Return 128 bits of a text's SHA-256, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def event(
    log: str, kind: str, name: str, status: str, at: datetime | None, tail: str,
    body: Mapping[str, Any], now: datetime, idempotency_id: str | None = None,
) -> Event:  # fmt: skip
    """Return an event of the log of statements, to append."""
    raw = orjson.dumps(dict(body), option=orjson.OPT_SORT_KEYS)
    key = "/".join((log, kind, idempotency_id or "", name, tail))
    return {
        "id": event_id(key, raw),
        "key": key,
        "kind": kind,
        "name": name,
        "status": status,
        "idempotency_id": idempotency_id,
        "at": at,
        "body": raw,
        "now": now,
    }
