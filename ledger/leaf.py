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

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from operator import itemgetter
from struct import Struct
from typing import Any, Final

from ledger.merkle import leaf_hash

VERSION: Final = b"callback-ledger event 1\n"
TEXTS: Final = (
    "idempotency_key", "kind", "resource_id", "status", "idempotency_id", "path_event", "origin",
    "verdict", "reason", "detail", "peer", "headers",
)  # fmt: skip
TIMES: Final = ("provider_at", "received_at", "recorded_at")
FIELDS: Final = ("source", "position", "event_id", *TEXTS, *TIMES, "body_sha256")
"""The fields in their order."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ABSENT: Final = b"\x00"
_length: Final = Struct(">Q").pack
_PRESENT: Final = [b"\x01" + _length(length) for length in range(256)]
_REPEATED: Final = frozenset(TEXTS) - {"idempotency_key", "resource_id", "idempotency_id", "detail"}
"""Texts that mostly say the same in many events."""

_columns: Final = itemgetter("source", "position", "event_id", *TEXTS, *TIMES, "body")


def encode(event: Mapping[str, Any]) -> bytes:
    """Return the bytes of an event as the log has it (columns of ledger.events, body included)."""
    values = [event["source"].encode(), b"%d" % event["position"], event["event_id"]]
    values += [None if (text := event[name]) is None else text.encode() for name in TEXTS]
    values += [None if (at := event[name]) is None else _microseconds(at) for name in TIMES]
    values.append(sha256(event["body"]).digest())
    return VERSION + b"".join([_ABSENT if value is None else _field(value) for value in values])


def encode_all(events: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Return the bytes of many events: what `encode` says of each, made column by column."""
    if not events:
        return []
    sources, positions, ids, *others, bodies = zip(*map(_columns, events), strict=True)
    columns = [_repeated(sources), [_field(b"%d" % position) for position in positions]]
    columns.append([_field(event_id) for event_id in ids])
    for name, values in zip((*TEXTS, *TIMES), others, strict=True):
        columns.append(_times(values) if name in TIMES else _texts(name, values))
    columns.append([_field(sha256(body).digest()) for body in bodies])
    return [VERSION + b"".join(fields) for fields in zip(*columns, strict=True)]


def _field(value: bytes) -> bytes:
    size = len(value)
    return (_PRESENT[size] if size < len(_PRESENT) else b"\x01" + _length(size)) + value


def _texts(name: str, values: Sequence[str | None]) -> list[bytes]:
    if name in _REPEATED:
        return _repeated(values)
    return [_ABSENT if value is None else _field(value.encode()) for value in values]


def _repeated(values: Sequence[str | None]) -> list[bytes]:
    known: dict[str | None, bytes] = {
        value: _ABSENT if value is None else _field(value.encode()) for value in set(values)
    }
    return [known[value] for value in values]


def _times(values: Sequence[datetime | None]) -> list[bytes]:
    return [_ABSENT if value is None else _field(_microseconds(value)) for value in values]


def hash_of(event: Mapping[str, Any]) -> bytes:
    """Return an event's leaf hash."""
    return leaf_hash(encode(event))


def hashes_of(events: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Return the leaf hashes of many events."""
    return [leaf_hash(data) for data in encode_all(events)]


def decode(data: bytes) -> dict[str, bytes | None]:
    """Take the bytes apart: field → its bytes. Raises ValueError for what is not version 1."""
    if not data.startswith(VERSION):
        raise ValueError("these are not the bytes of an event, version 1")
    found: dict[str, bytes | None] = {}
    place = len(VERSION)
    for name in FIELDS:
        mark, place = data[place : place + 1], place + 1
        if mark == _ABSENT:
            found[name] = None
            continue
        length = int.from_bytes(data[place : place + 8])
        place += 8
        if mark != b"\x01" or place + length > len(data):
            raise ValueError(f"field {name} is cut or marked wrongly")
        found[name] = data[place : place + length]
        place += length
    if place != len(data):
        raise ValueError("there are bytes after the last field")
    return found


def _microseconds(moment: datetime) -> bytes:
    if moment.tzinfo is None:  # how the driver says that PostgreSQL's time is infinite
        return b"infinity" if moment.year > 1 else b"-infinity"
    return b"%d" % ((moment - _EPOCH) // _MICROSECOND)
