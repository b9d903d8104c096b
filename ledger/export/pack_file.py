"""The container of an audit pack: a plain tar file whose bytes its content determines.

Any `tar` opens it. Members have the same owner, mode and time (none); after them come
`SHA256SUMS`, for `sha256sum -c`, and its own hash. A header must be the one of its name and size,
padding is zero, and nothing follows, so that every byte is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from ledger.errors import Tampered

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
NAME_MAX: Final = 100
PREFIX_MAX: Final = 155
SIZE_MAX: Final = 8**11 - 1
PART_BYTES: Final = 4 * 1024 * 1024
"""The size at which a part of a table is closed."""

CHUNK_BYTES: Final = 1 << 20
LINE_BYTES_MAX: Final = 1 << 26
SMALL_BYTES_MAX: Final = 1 << 24
"""The largest member that is read into memory."""

SUMS: Final = "SHA256SUMS"
SUM_OF_SUMS: Final = "SHA256SUMS.sha256"


class Writable(Protocol):
    """The output of a pack."""

    def write(self, data: bytes, /) -> int:
        """Write all of `data`."""


def header(name: str, size: int) -> bytes:
    """Return the ustar header of a member. Raises ValueError when name or size do not fit."""
    prefix, short = _split(name.encode())
    if not 0 <= size <= SIZE_MAX:
        raise ValueError(f"{name} has {size} bytes, more than a header can state")
    fields = (
        short.ljust(NAME_MAX, b"\0"),
        b"0000600\0",
        b"0000000\0" * 2,
        b"%011o\0" % size,
        b"00000000000\0",
        b" " * 8,
        b"0",
        bytes(100),
        b"ustar\0" + b"00",
        bytes(32 + 32),
        b"0000000\0" * 2,
        prefix.ljust(PREFIX_MAX, b"\0"),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split(name: bytes) -> tuple[bytes, bytes]:
    if len(name) <= NAME_MAX:
        return b"", name
    cut = name.find(b"/", len(name) - NAME_MAX - 1)
    if not 0 < cut <= PREFIX_MAX or cut == len(name) - 1:
        raise ValueError(f"the name {name!r} is too long")
    return name[:cut], name[cut + 1 :]


@dataclass(slots=True)
class PackWriter:
    """Writes members one after the other, then the sums of them all."""

    file: Writable
    sums: list[str] = field(default_factory=list)

    def add(self, name: str, data: bytes) -> None:
        """Write a member."""
        self._put(name, data)
        self.sums.append(f"{sha256(data).hexdigest()}  {name}\n")

    def close(self) -> None:
        """Write the sums and the end."""
        sums = "".join(self.sums).encode()
        self._put(SUMS, sums)
        self._put(SUM_OF_SUMS, sum_line(sums))
        self.file.write(END)

    def _put(self, name: str, data: bytes) -> None:
        self.file.write(header(name, len(data)))
        self.file.write(data)
        self.file.write(bytes(-len(data) % BLOCK))


def sum_line(sums: bytes) -> bytes:
    """Return the content of SHA256SUMS.sha256."""
    return f"{sha256(sums).hexdigest()}  {SUMS}\n".encode()


@dataclass(slots=True)
class Parts:
    """Collects the lines of many tables into members: `<folder>/000001.jsonl` and so on."""

    put: Callable[[str, bytes], None]
    open: dict[str, list[bytes]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, folder: str, line: bytes) -> None:
        """Add a line to a table; its part is put away when it is full."""
        self.open.setdefault(folder, []).append(line)
        size = self.sizes[folder] = self.sizes.get(folder, 0) + len(line)
        if size >= PART_BYTES:
            self._close(folder)

    def finish(self) -> None:
        """Put away what is still open."""
        for folder in sorted(self.open):
            self._close(folder)

    def _close(self, folder: str) -> None:
        number = self.counts[folder] = self.counts.get(folder, 0) + 1
        lines = self.open.pop(folder)
        self.sizes.pop(folder)
        self.put(part_name(folder, number), b"".join(lines))


def part_name(folder: str, number: int) -> str:
    """Name a part of a table, counted from 1."""
    return f"{folder}/{number:06}.jsonl"


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member's bytes are, and what they hash to."""

    offset: int
    size: int
    sha256: str


@dataclass(slots=True)
class PackReader:
    """Reads a pack. Nothing is unpacked to anywhere, and memory does not grow with its size."""

    file: BinaryIO
    members: dict[str, Member] = field(default_factory=dict)

    def scan(self, progress: Callable[[int], None] = lambda _bytes: None) -> None:
        """Read every byte and find the members. Raises Tampered where it is no pack."""
        self.file.seek(0)
        while (block := self.file.read(BLOCK)) != bytes(BLOCK):
            name, size = _read_header(block, self.file.tell() - len(block))
            if name in self.members:
                raise Tampered("container", None, f"{name} is there twice")
            offset = self.file.tell()
            digest = sha256()
            for chunk in self._chunks(name, size):
                digest.update(chunk)
            if self.file.read(-size % BLOCK) != bytes(-size % BLOCK):
                raise Tampered("container", None, f"the padding after {name} is not zero")
            self.members[name] = Member(offset, size, digest.hexdigest())
            progress(self.file.tell())
        if self.file.read(BLOCK + 1) != bytes(BLOCK):
            raise Tampered("container", None, "the file does not end where the pack ends")

    def changed(self) -> list[str]:
        """Return the members that differ from SHA256SUMS, in order."""
        listed = list(self.members)
        if listed[-2:] != [SUMS, SUM_OF_SUMS]:
            return [SUMS]
        sums = self.read(SUMS)
        if self.read(SUM_OF_SUMS) != sum_line(sums):
            return [SUM_OF_SUMS]
        made = [f"{self.members[name].sha256}  {name}\n" for name in listed[:-2]]
        stated = sums.decode("utf-8", "replace").splitlines(keepends=True)
        known = dict.fromkeys(stated)
        changed = [name for name, line in zip(listed, made, strict=False) if line not in known]
        return changed or ([] if stated == made else [SUMS])

    def read(self, name: str) -> bytes:
        """Return a small member whole. Raises Tampered when it is missing or not small."""
        member = self.members.get(name)
        if member is None or member.size > SMALL_BYTES_MAX:
            raise Tampered("container", None, f"{name} is {'too large' if member else 'missing'}")
        return b"".join(self.bytes_of(name))

    def bytes_of(self, name: str) -> Iterator[bytes]:
        """Return a member's bytes in pieces."""
        self.file.seek(self.members[name].offset)
        return self._chunks(name, self.members[name].size)

    def lines(self, folder: str) -> Iterator[tuple[str, int, bytes]]:
        """Return the lines of a table, from its parts in order: member, number of line, line."""
        number = 1
        while (name := part_name(folder, number)) in self.members:
            rest, place = self.members[name].size, self.members[name].offset
            count = 0
            while rest > 0:
                self.file.seek(place)
                line = self.file.readline(min(rest, LINE_BYTES_MAX))
                count += 1
                rest, place = rest - len(line), place + len(line)
                yield name, count, line
            number += 1

    def _chunks(self, name: str, size: int) -> Iterator[bytes]:
        while size:
            chunk = self.file.read(min(size, CHUNK_BYTES))
            if not chunk:
                raise Tampered("container", None, f"the file ends within {name}: it was cut")
            size -= len(chunk)
            yield chunk


def open_pack(path: Path) -> BinaryIO:
    """Open a pack's file for reading."""
    return path.open("rb", buffering=CHUNK_BYTES)


def _read_header(block: bytes, offset: int) -> tuple[str, int]:
    """Read a member's name and size; the header must be the one that they make."""
    try:
        prefix, short = block[345:500].rstrip(b"\0"), block[:100].rstrip(b"\0")
        name = (prefix + b"/" + short if prefix else short).decode()
        size = int(block[124:135], 8)
        if name and header(name, size) == block:
            return name, size
    except ValueError:
        pass
    message = f"the header of a member at byte {offset} is damaged" if block else "the file was cut"
    raise Tampered("container", None, message)
