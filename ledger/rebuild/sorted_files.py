"""Sorting a log by stream, in files: what a fold of everything needs to hold only a part at a time.

A part is a share of the streams. A sorted file holds some events of a log, in log order within
every part; whoever folds a part reads its segment of every file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct, error
from typing import Final
from zlib import crc32

import msgspec

from ledger.fold.change import DECISION, StreamKey, TranslatedEvent
from ledger.fold.states import advance, stream_of
from ledger.model import StreamProjection

_ARRAY: Final = b"\xdd"
_PAIR: Final = b"\x92"
_PLACE: Final = Struct("<Q")
_encode_into: Final = msgspec.msgpack.Encoder().encode_into
_decode: Final = msgspec.msgpack.Decoder(tuple[list[TranslatedEvent], list[int]]).decode


def part_of(key: StreamKey | None, position: int, parts: int) -> int:
    """Return the part that an event of stream `key` at `position` belongs to."""
    if key is None:
        return position % parts
    return crc32(f"{key[0]}/{key[1]}".encode("utf-8", "surrogatepass")) % parts


def links_of(event: TranslatedEvent, streams_of: Mapping[str, StreamProjection]) -> tuple[str, ...]:
    """Return the links that an event may bring to its stream.

    The links of a state are among those of its facts, each folded alone.
    """
    key = stream_of(event, streams_of)
    if key is None or event.fact is None or event.fact.kind == DECISION:
        return ()
    projection = streams_of[key[0]]
    if projection.links is None:
        return ()
    try:
        return projection.links(advance(projection, None, event))
    except Exception:  # noqa: BLE001 - a fold's bug parks its stream, which then has no links
        return ()


@dataclass(slots=True)
class PartitionWriter:
    """Collects events part by part and writes them as one file."""

    parts: int
    events: list[bytearray] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    retold: list[list[int]] = field(default_factory=list)
    """Positions of events that the file cannot carry; they are read from the log again."""

    def __post_init__(self) -> None:
        self.events = [bytearray() for _ in range(self.parts)]
        self.counts = [0] * self.parts
        self.retold = [[] for _ in range(self.parts)]

    def add(self, part: int, event: TranslatedEvent) -> None:
        """Take an event; those of one part come in log order."""
        buffer = self.events[part]
        size = len(buffer)
        try:
            _encode_into(event, buffer, -1)
        except (TypeError, OverflowError, ValueError):
            # The exact lexeme of a number, or one of more than 64 bits, among the details.
            del buffer[size:]
            self.retold[part].append(event.position)
        else:
            self.counts[part] += 1

    def write(self, path: Path) -> None:
        """Write the file durably, whole or not at all."""
        places = [_PLACE.size * (self.parts + 1)]
        segments = []
        for buffer, count, retold in zip(self.events, self.counts, self.retold, strict=True):
            head = _PAIR + _ARRAY + count.to_bytes(4, "big")
            segments.append((head, buffer, msgspec.msgpack.encode(retold)))
            places.append(places[-1] + sum(map(len, segments[-1])))
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(b"".join(map(_PLACE.pack, places)))
            for segment in segments:
                file.writelines(segment)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def read(path: Path, part: int) -> tuple[list[TranslatedEvent], list[int]]:
    """Return a part's events of one file, and the positions to be read from the log instead.

    A damaged file is taken away, so that it is made again. Raises OSError.
    """
    with path.open("rb") as file:
        file.seek(part * _PLACE.size)
        try:
            (start,), (end,) = _PLACE.unpack(file.read(8)), _PLACE.unpack(file.read(8))
            file.seek(start)
            return _decode(file.read(end - start))
        except (msgspec.MsgspecError, error, ValueError, OverflowError, MemoryError) as damage:
            path.unlink(missing_ok=True)
            raise OSError(f"{path} was damaged, and is gone") from damage


def whole(path: Path, parts: int) -> bool:
    """Tell whether a file is there as it was written."""
    try:
        with path.open("rb") as file:
            file.seek(parts * _PLACE.size)
            end: int = _PLACE.unpack(file.read(8))[0]
            return path.stat().st_size == end
    except (OSError, error):
        return False
