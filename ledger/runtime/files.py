"""Files that appear whole or not at all: written beside their place, synced, then renamed."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from ledger.errors import InvalidRequest

if TYPE_CHECKING:
    from typing_extensions import Buffer


FRESH: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
"""Nothing that is there already is opened: neither a file nor a link to one."""


class HashedFile(io.RawIOBase):
    """A binary file that is only written to, and knows the SHA-256 and the size of it all."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = 0
        self._digest = hashlib.sha256()

    def writable(self) -> bool:
        """Return True: it can be written to."""
        return True

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self.size

    def write(self, data: Buffer, /) -> int:
        """Write all of `data`."""
        raw = bytes(data)
        self._digest.update(raw)
        self.size += len(raw)
        self.file.write(raw)
        return len(raw)

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written so far, in hex."""
        return self._digest.hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends well.

    Only its owner may read it: exports hold personal data. A link at `path` is replaced,
    never followed. Raises InvalidRequest when there is no folder to put it in, or `path` is a
    folder, a device or a pipe.
    """
    if not path.parent.is_dir():
        raise InvalidRequest(f"{path.parent} is not a folder; make it, or name another file")
    if path.is_dir():
        raise InvalidRequest(f"{path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise InvalidRequest(f"{path} is not a file; name one, or - for standard output")
    fresh = path.with_name(f".ledger-{secrets.token_hex(8)}.new")
    handle = os.open(fresh, FRESH, 0o600)
    try:
        with os.fdopen(handle, "wb", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until a folder's names are on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
