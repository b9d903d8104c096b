"""External sort of a log by stream, so that a fold holds one partition in memory at a time.

A partition is a share of the streams. A sorted file holds some events of a log, in log order within
every partition; the fold of a partition reads its segment of every file.
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
from ledger.fold.states import advance, links_of, stream_of
from ledger.model import StreamProjection

_ARRAY: Final = b"\xdd"
_PAIR: Final = b"\x92"
_PLACE: Final = Struct("<Q")
_encode_into: Final = msgspec.msgpack.Encoder().encode_into
_decode: Final = msgspec.msgpack.Decoder(tuple[list[TranslatedEvent], list[int]]).decode


def partition_of(key: StreamKey | None, position: int, partitions: int) -> int:
    """Return the partition that an event of stream `key` at `position` belongs to."""
    if key is None:
        return position % partitions
    return crc32(f"{key[0]}/{key[1]}".encode("utf-8", "surrogatepass")) % partitions


def links_from(
    event: TranslatedEvent, streams_of: Mapping[str, StreamProjection]
) -> tuple[str, ...]:
    """Return the links that an event may bring to its stream: names that it has, or mentions.

    The links of a state are among those of its facts, each folded alone.
    """
    key = stream_of(event, streams_of)
    if key is None or event.fact is None or event.fact.kind == DECISION:
        return ()
    projection = streams_of[key[0]]
    if projection.names is None and projection.mentions is None:
        return ()
    try:
        return links_of(projection, advance(projection, None, event))
    except Exception:  # noqa: BLE001 - a fold's bug parks its stream, which then has no links
        return ()


@dataclass(slots=True)
class PartitionWriter:
    """Collects events partition by partition and writes them as one file."""

    partitions: int
    events: list[bytearray] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    reread: list[list[int]] = field(default_factory=list)
    """Positions of events that the file cannot carry; they are read from the log again."""

    def __post_init__(self) -> None:
        self.events = [bytearray() for _ in range(self.partitions)]
        self.counts = [0] * self.partitions
        self.reread = [[] for _ in range(self.partitions)]

    def add(self, partition: int, event: TranslatedEvent) -> None:
        """Take an event; those of one partition come in log order."""
        buffer = self.events[partition]
        size = len(buffer)
        try:
            _encode_into(event, buffer, -1)
        except (TypeError, OverflowError, ValueError):
            # The exact lexeme of a number, or one of more than 64 bits, among the details.
            del buffer[size:]
            self.reread[partition].append(event.position)
        else:
            self.counts[partition] += 1

    def write(self, path: Path) -> None:
        """Write the file durably, whole or not at all."""
        places = [_PLACE.size * (self.partitions + 1)]
        segments = []
        for buffer, count, reread in zip(self.events, self.counts, self.reread, strict=True):
            head = _PAIR + _ARRAY + count.to_bytes(4, "big")
            segments.append((head, buffer, msgspec.msgpack.encode(reread)))
            places.append(places[-1] + sum(map(len, segments[-1])))
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(b"".join(map(_PLACE.pack, places)))
            for segment in segments:
                file.writelines(segment)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def read(path: Path, partition: int) -> tuple[list[TranslatedEvent], list[int]]:
    """Return a partition's events of one file, and the positions to be read from the log instead.

    A damaged file is taken away, so that it is made again. Raises OSError.
    """
    with path.open("rb") as file:
        file.seek(partition * _PLACE.size)
        try:
            (start,), (end,) = _PLACE.unpack(file.read(8)), _PLACE.unpack(file.read(8))
            file.seek(start)
            return _decode(file.read(end - start))
        except (msgspec.MsgspecError, error, ValueError, OverflowError, MemoryError) as damage:
            path.unlink(missing_ok=True)
            raise OSError(f"{path} was damaged, and is gone") from damage


def is_whole(path: Path, partitions: int) -> bool:
    """Tell whether a file is there as it was written."""
    try:
        with path.open("rb") as file:
            file.seek(partitions * _PLACE.size)
            end: int = _PLACE.unpack(file.read(8))[0]
            return path.stat().st_size == end
    except (OSError, error):
        return False
