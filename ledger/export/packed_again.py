"""Reading the members of an audit pack from an archive that another `tar` made of them.

Its headers, its order and its end are another program's; its members must be ordinary files.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Final

from ledger.errors import Tampered

BLOCK: Final = tarfile.BLOCKSIZE
RECORD: Final = tarfile.RECORDSIZE
"""The size to a multiple of which other programs fill an archive up."""

UNREADABLE: Final = (
    tarfile.TarError,
    ValueError,
    ArithmeticError,
    LookupError,
    MemoryError,
    RecursionError,
)
"""What `tarfile` raises for headers that no program writes: sizes beyond any file, odd numbers."""


def members(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of each member of an archive. Raises Tampered."""
    end = 0
    try:
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                end = info.offset_data
                if info.isdir():
                    continue
                if info.issparse() or not info.isreg() or info.size < 0:
                    raise Tampered("container", None, f"{info.name} is no ordinary file")
                end += info.size + -info.size % BLOCK
                yield info.name.removeprefix("./"), info.offset_data, info.size
    except UNREADABLE as error:
        raise Tampered("container", None, f"the archive cannot be read: {error}") from error
    file.seek(end)
    zeros = 0
    while chunk := file.read(RECORD):
        if chunk.strip(b"\0"):
            raise Tampered("container", None, "the file does not end where the archive ends")
        zeros += len(chunk)
    if zeros < 2 * BLOCK:
        raise Tampered("container", None, "the archive has no end: the file was cut")


def check_end(place: int, rest: bytes) -> None:
    """Check what follows a block of zeros at `place`: more of them, up to the end of a record.

    Raises Tampered.
    """
    is_filled_up = (place + BLOCK + len(rest)) % RECORD == 0
    if len(rest) < BLOCK or rest.strip(b"\0") or not is_filled_up:
        raise Tampered("container", None, "the file does not end where the pack ends")
