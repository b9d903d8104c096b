"""The append-only file of signed checkpoints: `<data_dir>/checkpoints/<source>.txt`.

It is evidence outside the database: a copy of it elsewhere convicts a rewritten log. Notes are
separated by empty lines; a fragment that a crash left is marked ` (torn)` and passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ledger.keys import append_durably, private_folder
from ledger.note import Checkpoint, notes_in, open_checkpoint

FOLDER: Final = "checkpoints"
TAIL_BYTES: Final = 65_536
_TORN: Final = " (torn)\n\n"


def path_of(data_dir: Path, source: str) -> Path:
    """Name the file of a source."""
    return data_dir / FOLDER / f"{source}.txt"


def append(path: Path, notes: Sequence[str]) -> None:
    """Append signed notes and wait until they are on disk."""
    if notes:
        private_folder(path.parent)
        append_durably(path, "".join(note + "\n" for note in notes))


def last(path: Path) -> Checkpoint | None:
    """Return the largest checkpoint at the file's end, after closing a fragment; None if empty.

    Signatures are not checked here: the file is compared with what the database signed.
    """
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - TAIL_BYTES, 0))
            tail = file.read()
    except FileNotFoundError:
        return None
    if not tail:
        return None
    if not tail.endswith(b"\n\n"):
        append_durably(path, _TORN)
        tail += _TORN.encode()
    lines = tail.decode("utf-8", "replace").splitlines(keepends=True)
    found = [open_checkpoint(note, ())[0] for note in notes_in(_from_a_gap(lines))]
    return max(found, key=lambda checkpoint: checkpoint.size, default=None)


def _from_a_gap(lines: Sequence[str]) -> Sequence[str]:
    """Skip the note that the reading may have begun in the middle of."""
    if not lines or not lines[0].strip():
        return lines
    if lines[0].startswith("callback-ledger/"):
        return lines
    return lines[lines.index("\n") :] if "\n" in lines else ()


def read(path: Path) -> Iterator[str]:
    """Read the signed notes of any file of notes, in order, one at a time."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        yield from notes_in(lines)
