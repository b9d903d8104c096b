"""The append-only file of signed checkpoints: `<data_dir>/checkpoints/<source>.txt`.

It is evidence outside the database: a copy of it elsewhere proves that a log was rewritten. Empty
lines separate the notes; an incomplete note that a crash left gets ` (torn)` and is skipped.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ledger.config.source import LOG_NAME
from ledger.errors import BadNote, CannotSeal
from ledger.evidence.keys import append_durably, create_private_folder
from ledger.evidence.signed_note import Checkpoint, notes_in, open_checkpoint
from ledger.runtime.files import sync_folder

FOLDER: Final = "checkpoints"
TAIL_BYTES: Final = 65_536
HEADING: Final = "checkpoints of "
LATE_MAX: Final = 2
"""Checkpoints that a crash may keep from the file: each of two sealers signs one at a time."""

_TORN: Final = " (torn)\n\n"


def path_of(data_dir: Path, source: str) -> Path:
    """Return the file of a source. Raises CannotSeal for an invalid name of a source."""
    if not LOG_NAME.fullmatch(source):
        raise CannotSeal(
            f"{source[:80]!r} cannot be the name of a source, so the database was changed; find "
            "out who did it"
        )
    return data_dir / FOLDER / f"{source}.txt"


def begin(path: Path) -> None:
    """Create the file of a source without checkpoints, with a heading and no note.

    Raises FileExistsError when it exists, FileNotFoundError without the folder.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    append_durably(fresh, f"{HEADING}{path.stem}\n\n")
    try:
        os.link(fresh, path)
    finally:
        fresh.unlink()
    sync_folder(path.parent)


def begin_again(data_dir: Path, source: str) -> Path | None:
    """Rename the file of a source and begin another one; return the renamed file.

    The sealer then writes the checkpoints of the database to it.
    """
    path, aside = path_of(data_dir, source), None
    create_private_folder(path.parent)
    if path.exists():
        places = (path.with_suffix(f".{n}.old") for n in range(1, 10_000))
        aside = next(place for place in places if not place.exists())
        path.rename(aside)
    begin(path)
    return aside


def is_begun(path: Path) -> bool:
    """Tell whether a file has its heading and no checkpoint yet."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        return file.read(len(HEADING)) == HEADING.encode() and last(path) is None
    return False


def append(path: Path, notes: Sequence[str]) -> None:
    """Append signed notes and wait until they are on disk.

    Raises CannotSeal when the file does not exist or is empty.
    """
    if not notes:
        return
    if not path.exists() or not path.stat().st_size:
        raise CannotSeal(lost(path, "is gone or was emptied"))
    append_durably(path, "".join(note + "\n" for note in notes))


def lost(path: Path, what: str) -> str:
    """Return the message that a file lost checkpoints, and what to do."""
    return (
        f"{path} {what}, although checkpoints were signed: restore it from a backup and run "
        f"`ledger verify`; only if it is lost for good, `ledger seal begin-file {path.stem}` "
        "begins another one"
    )


def missing(path: Path, what: str) -> str:
    """Return the message that a file without known checkpoints is missing, and what to do."""
    return (
        f"{path} {what}: if it was ever there, restore it from a backup and run `ledger verify`; "
        f"otherwise `ledger seal begin-file {path.stem}` makes it"
    )


def last(path: Path) -> Checkpoint | None:
    """Return the largest checkpoint at the file's end, after closing a torn note; None if empty.

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
    checkpoints = [open_checkpoint(note, ())[0] for note in notes_in(_whole_notes(lines))]
    return max(checkpoints, key=lambda checkpoint: checkpoint.size, default=None)


def size_of(note: str) -> int:
    """Return the size of a checkpoint; 0 for another note."""
    with suppress(BadNote):
        return open_checkpoint(note, ())[0].size
    return 0


def _whole_notes(lines: Sequence[str]) -> Sequence[str]:
    """Skip the note whose beginning may be before the lines."""
    if not lines or not lines[0].strip():
        return lines
    if lines[0].startswith("callback-ledger/"):
        return lines
    return lines[lines.index("\n") :] if "\n" in lines else ()


def read(path: Path) -> Iterator[str]:
    """Yield the signed notes of a file in order."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        yield from notes_in(lines)
