"""Write events and rows of the books as lines of JSON, in one spelling, and read them. Pure.

The line of an event has everything that its leaf covers, the body in base64, and the leaf's hash.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson

from ledger.evidence import leaf
from ledger.payload import plain

EVENT_FIELDS: Final = (*(name for name in leaf.FIELDS if name != "body_sha256"), "body", "leaf")
"""The fields of an event's line, in their order."""

_OPTIONAL: Final = frozenset({"idempotency_id", "provider_at", "path_event", "reason", "detail"})


def event_line(event: Mapping[str, Any], hashed: bytes | None = None) -> bytes:
    """Return the line of an event (columns of ledger.events); `hashed` is its leaf's hash."""
    values = {name: event[name] for name in EVENT_FIELDS[:-2]}
    values["event_id"] = event["event_id"].hex()
    values["body"] = b64encode(event["body"]).decode()
    values["leaf"] = (hashed or leaf.hash_of(event)).hex()
    return orjson.dumps(values, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def read_event(line: bytes) -> dict[str, Any]:
    """Return the event of a line: `leaf` is the stated hash, `hashed` that of its content.

    Raises ValueError unless the line is, byte for byte, that of `event_line`.
    """
    values = orjson.loads(line)
    if not isinstance(values, dict) or tuple(values) != EVENT_FIELDS:
        raise ValueError("it does not have the fields of an event")
    if type(values["position"]) is not int:
        raise ValueError("its position is not a number")
    for name in EVENT_FIELDS:
        is_absent = values[name] is None and name in _OPTIONAL
        if name != "position" and not is_absent and not isinstance(values[name], str):
            raise ValueError(f"its {name} is not a text")
    event = values | {name: _moment(values[name]) for name in leaf.TIMES}
    event["event_id"] = bytes.fromhex(values["event_id"])
    event["body"] = b64decode(values["body"], validate=True)
    hashed = event["hashed"] = leaf.hash_of(event)
    begin = event_line(event, hashed).rpartition(b',"leaf":')[0]
    if line != b'%b,"leaf":%b}\n' % (begin, orjson.dumps(values["leaf"])):
        raise ValueError("it is not spelled as an event is")
    return event


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time names no zone")
    return moment


def row_line(columns: Mapping[str, str], row: Mapping[str, Any]) -> bytes:
    """Return the line of a row: columns in their order (name → PostgreSQL type), amounts as texts.

    Raises TypeError or ValueError for a value that JSON cannot hold.
    """
    values = {
        name: _sorted(row[name]) if kind == "jsonb" else row[name] for name, kind in columns.items()
    }
    option = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(values, default=_exact, option=option)


def _sorted(value: Any) -> Any:
    if value is None:
        return None
    return orjson.Fragment(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))


def _exact(value: Any) -> str:
    if isinstance(value, Decimal):
        return plain(value)
    raise TypeError(f"a {type(value).__name__} cannot be written in a line")
