"""What the Merkle tree covers of an event: every column, as one unambiguous run of bytes. Pure.

The bytes of version 1 are the line `callback-ledger event 1\\n`, then each of FIELDS in order:

    absent (NULL)   one byte 0
    present         one byte 1, the length in 8 bytes big-endian, then that many bytes

Texts are UTF-8. Numbers are ASCII decimals. Times are microseconds since 1970-01-01T00:00:00Z as
an ASCII decimal (`infinity` and `-infinity` for what is no time at all). `event_id` is its 16
bytes. `body_sha256` stands for the body: the 32 bytes of the SHA-256 of the raw body, so that an
event can be shown to a stranger without its body.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from ledger.evidence.merkle import leaf_hash

VERSION: Final = b"callback-ledger event 1\n"
TEXTS: Final = (
    "idempotency_key", "kind", "resource_id", "status", "idempotency_id", "path_event", "origin",
    "verdict", "reason", "detail", "peer", "headers",
)  # fmt: skip
TIMES: Final = ("provider_at", "received_at", "recorded_at")
FIELDS: Final = ("source", "position", "event_id", *TEXTS, *TIMES, "body_sha256")
"""The fields in their order."""

COLUMNS: Final = (*FIELDS[:-1], "body")
"""The columns of ledger.events that the fields are made of, in the same order."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ABSENT: Final = b"\x00"
_PRESENT: Final = b"\x01"
_LENGTH_BYTES: Final = 8


def encode(event: Mapping[str, Any]) -> bytes:
    """Return the bytes of an event as the log has it (COLUMNS; times are datetimes).

    A datetime without a zone is how asyncpg reads an infinite time.
    """
    values = [event["source"].encode(), b"%d" % event["position"], event["event_id"]]
    values += [None if (text := event[name]) is None else text.encode() for name in TEXTS]
    values += [None if (at := event[name]) is None else _microseconds(at) for name in TIMES]
    values.append(sha256(event["body"]).digest())
    return VERSION + b"".join([
        _ABSENT if value is None else _PRESENT + len(value).to_bytes(_LENGTH_BYTES) + value
        for value in values
    ])  # fmt: skip


def hash_of(event: Mapping[str, Any]) -> bytes:
    """Return an event's leaf hash."""
    return leaf_hash(encode(event))


def decode(data: bytes) -> dict[str, bytes | None]:
    """Return the fields of an encoded event: name → its bytes, None when absent.

    Raises ValueError for other bytes.
    """
    if not data.startswith(VERSION):
        raise ValueError("these are not the bytes of an event, version 1")
    fields: dict[str, bytes | None] = {}
    place = len(VERSION)
    for name in FIELDS:
        mark, place = data[place : place + 1], place + 1
        if mark == _ABSENT:
            fields[name] = None
            continue
        length = int.from_bytes(data[place : place + _LENGTH_BYTES])
        place += _LENGTH_BYTES
        if mark != _PRESENT or place + length > len(data):
            raise ValueError(f"field {name} is cut short or has an unknown first byte")
        fields[name] = data[place : place + length]
        place += length
    if place != len(data):
        raise ValueError("there are bytes after the last field")
    return fields


def _microseconds(moment: datetime) -> bytes:
    if moment.tzinfo is None:
        return b"infinity" if moment.year > 1 else b"-infinity"
    return b"%d" % ((moment - _EPOCH) // _MICROSECOND)
