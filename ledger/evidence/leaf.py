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

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from operator import itemgetter
from struct import Struct, unpack
from typing import Any, Final

import orjson

from ledger.evidence.merkle import LEAF, leaf_hash

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
_SENT_EPOCH: Final = (datetime(2000, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""What PostgreSQL counts from when it sends times."""

_READABLE: Final = range(
    (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND - _SENT_EPOCH,
    (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND - _SENT_EPOCH + 1,
)
"""Times as sent that a `datetime` can hold."""

_INFINITE: Final = {2**63 - 1: b"infinity", -(2**63): b"-infinity"}
_ABSENT: Final = b"\x00"
_length: Final = Struct(">Q").pack
_REPEATED: Final = frozenset(TEXTS) - {"idempotency_key", "resource_id", "idempotency_id", "detail"}
"""Texts that mostly say the same in many events."""

COLUMNS: Final = (*FIELDS[:-1], "body")
"""The columns of ledger.events, in the order of their fields."""

_columns: Final = itemgetter(*COLUMNS)


def encode(event: Mapping[str, Any]) -> bytes:
    """Return the bytes of an event as the log has it (columns of ledger.events, body included)."""
    values = [event["source"].encode(), b"%d" % event["position"], event["event_id"]]
    values += [None if (text := event[name]) is None else text.encode() for name in TEXTS]
    values += [None if (at := event[name]) is None else _microseconds(at) for name in TIMES]
    values.append(sha256(event["body"]).digest())
    return VERSION + b"".join([_ABSENT if value is None else _field(value) for value in values])


def _encode_rows(begin: bytes, rows: Sequence[Sequence[Any]]) -> list[bytes]:
    """Return `begin` and what `encode` says of each event, made column by column."""
    if not rows:
        return []
    sources, positions, ids, *others, bodies = zip(*rows, strict=True)
    columns = [[begin] * len(rows), _repeated(sources)]
    columns.append(_fields([b"%d" % position for position in positions]))
    columns.append(_fields(ids))
    for name, values in zip((*TEXTS, *TIMES), others, strict=True):
        columns.append(_times(values) if name in TIMES else _texts(name, values))
    columns.append(_fields([sha256(body).digest() for body in bodies]))
    return list(map(b"".join, zip(*columns, strict=True)))


class _Present(dict[int, bytes]):
    """What is written before a value that is present, by its length."""

    def __missing__(self, length: int) -> bytes:
        found = self[length] = b"\x01" + _length(length)
        return found


_PRESENT: Final = _Present()


def _field(value: bytes) -> bytes:
    return _PRESENT[len(value)] + value


def _fields(values: Iterable[bytes | None]) -> list[bytes]:
    """Write a column; what `_field` does is written out, since calls cost more than it does."""
    present = _PRESENT
    return [_ABSENT if value is None else present[len(value)] + value for value in values]


def _texts(name: str, values: Sequence[str | None]) -> list[bytes]:
    if name in _REPEATED:
        return _repeated(values)
    return _fields([None if value is None else value.encode() for value in values])


def _repeated(values: Sequence[str | None]) -> list[bytes]:
    known: dict[str | None, bytes] = {
        value: _ABSENT if value is None else _field(value.encode()) for value in set(values)
    }
    return [known[value] for value in values]


def _times(values: Sequence[Any]) -> list[bytes]:
    known = [value for value in values if value is not None]
    if known and isinstance(known[0], bytes):
        written = _sent(known)
    else:
        written = [_microseconds(moment) for moment in known]
    if len(known) == len(values):
        return _fields(written)
    rest = iter(written)
    return _fields([None if value is None else next(rest) for value in values])


def _sent(moments: Sequence[bytes]) -> list[bytes]:
    """Write times from the eight bytes that PostgreSQL sends: microseconds since 2000.

    Raises OverflowError for one that no `datetime` can hold, which nobody could read again.
    """
    numbers = unpack(f">{len(moments)}q", b"".join(moments))
    if min(numbers) in _READABLE and max(numbers) in _READABLE:
        return orjson.dumps([number + _SENT_EPOCH for number in numbers])[1:-1].split(b",")
    if unreadable := {n for n in numbers if n not in _READABLE} - _INFINITE.keys():
        raise OverflowError(f"a time is {min(unreadable)} microseconds after 2000")
    return [_INFINITE.get(number) or b"%d" % (number + _SENT_EPOCH) for number in numbers]


def hash_of(event: Mapping[str, Any]) -> bytes:
    """Return an event's leaf hash."""
    return leaf_hash(encode(event))


def hashes_of(events: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Return the leaf hashes of many events."""
    return hashes_of_rows(list(map(_columns, events)))


def hashes_of_rows(rows: Sequence[Sequence[Any]]) -> list[bytes]:
    """Return the leaf hashes of events whose values are in the order of COLUMNS.

    Times may also be the eight bytes that PostgreSQL sends of them: datetimes cost more than all
    other columns. Raises OverflowError for one that no datetime can hold.
    """
    return [sha256(data).digest() for data in _encode_rows(LEAF + VERSION, rows)]


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
