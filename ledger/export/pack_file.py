"""The container of an audit pack: a plain tar file whose bytes its content determines.

Any `tar` opens it. Members have the same owner, mode and time (none); after them come
`SHA256SUMS`, for `sha256sum -c`, and its own hash. A header must be the one of its name and size,
padding is zero, and nothing follows, so that every byte is checked. What another `tar` made of the
members is read as well, and reported as such.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from ledger.errors import InvalidRequest, Tampered
from ledger.export import packed_again

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

GZIP: Final = b"\x1f\x8b"
"""How a file begins that gzip made."""

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
    _is_written_here: bool = True
    """Whether every header and the end of the file are those that PackWriter writes."""

    def scan(self, progress: Callable[[int], None] = lambda _bytes: None) -> None:
        """Read every byte and find the members. Raises Tampered where it is no pack."""
        self.file.seek(0)
        first = self.file.read(BLOCK)
        self._is_written_here = not _is_by_another_program(first)
        members = self._members() if self._is_written_here else packed_again.members(self.file)
        for name, offset, size in members:
            if name in self.members:
                raise Tampered("container", None, f"{name} is there twice")
            self.file.seek(offset)
            digest = sha256()
            for chunk in self._chunks(name, size):
                digest.update(chunk)
            if self.file.read(-size % BLOCK) != bytes(-size % BLOCK):
                raise Tampered("container", None, f"the padding after {name} is not zero")
            self.members[name] = Member(offset, size, digest.hexdigest())
            progress(self.file.tell())

    def is_as_written(self) -> bool:
        """Tell whether the file is what PackWriter makes of the members, after `changed`."""
        return self._is_written_here and [*self.members] == self._listed()

    def changed(self) -> list[str]:
        """Return the members that differ from SHA256SUMS, in order."""
        for name in (SUMS, SUM_OF_SUMS):
            if name not in self.members:
                return [name]
        sums = self.read(SUMS)
        if self.read(SUM_OF_SUMS) != sum_line(sums):
            return [SUM_OF_SUMS]
        made = {
            f"{member.sha256}  {name}\n": name
            for name, member in self.members.items()
            if name not in (SUMS, SUM_OF_SUMS)
        }
        stated = self._stated()
        known = set(stated)
        changed = [name for line, name in made.items() if line not in known]
        return changed or ([] if sorted(stated) == sorted(made) else [SUMS])

    def _stated(self) -> list[str]:
        """Return the lines of SHA256SUMS, which has the members in the order of the writer."""
        return self.read(SUMS).decode("utf-8", "replace").splitlines(keepends=True)

    def _listed(self) -> list[str]:
        """Return the names of the members in the order of the writer."""
        names = [line.partition("  ")[2].removesuffix("\n") for line in self._stated()]
        return [*names, SUMS, SUM_OF_SUMS]

    def _members(self) -> Iterator[tuple[str, int, int]]:
        """Yield name, offset and size of each member of a file that PackWriter wrote."""
        place = 0
        while True:
            self.file.seek(place)
            block = self.file.read(BLOCK)
            if block == bytes(BLOCK):
                break
            name, size = _read_header(block, place)
            yield name, place + BLOCK, size
            place += BLOCK + size + -size % BLOCK
        rest = self.file.read(packed_again.RECORD + 1)
        if rest != bytes(BLOCK):
            self._is_written_here = False
            packed_again.check_end(place, rest)

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
    """Open a pack's file for reading. Raises InvalidRequest for a compressed one."""
    file = path.open("rb", buffering=CHUNK_BYTES)
    if file.read(len(GZIP)) == GZIP:
        file.close()
        raise InvalidRequest(f"{path} is compressed; run `gunzip`, then verify what it makes")
    return file


def _is_by_another_program(block: bytes) -> bool:
    """Tell whether an archive's first block is a header, and not one that PackWriter makes.

    One that differs from ours in nothing but its checksum is a damaged one of ours.
    """
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        ours = header(info.name, info.size)
    except (tarfile.HeaderError, ValueError):
        return False
    return ours[:148] + ours[156:] != block[:148] + block[156:]


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
