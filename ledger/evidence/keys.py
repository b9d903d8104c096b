"""The sealing key and the list of trusted keys, two files in the data directory.

`keys/seal.key` (0600) signs; `keys/trusted.txt` lists every public key that ever signed here, one
a line, the newest last. To check seals elsewhere, get that list through a channel that you trust.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ledger.errors import BadNote, CannotSeal
from ledger.evidence.signed_note import Signer, Verifier
from ledger.runtime.files import sync_folder

FOLDER: Final = "keys"
KEY_FILE: Final = "seal.key"
TRUSTED_FILE: Final = "trusted.txt"


def signing_key(data_dir: Path) -> Signer:
    """Return the key that signs.

    Raises CannotSeal when it or the list of trusted keys is gone, BadNote for a damaged file.
    """
    path = data_dir / FOLDER / KEY_FILE
    try:
        signer = _read_key(path)
    except FileNotFoundError as error:
        raise CannotSeal(
            f"{path} is gone, or was never made; restore {path.parent} from a backup; only if it "
            "is lost for good, `ledger seal rotate` makes a new key, which auditors do not know yet"
        ) from error
    if signer.verifier not in trusted_keys(data_dir):
        raise CannotSeal(
            f"{path.with_name(TRUSTED_FILE)} does not list the key that signs; restore "
            f"{path.parent} from a backup; only if it is lost for good, `ledger seal rotate` makes "
            "a new key and a new list"
        )
    return signer


def has_key(data_dir: Path) -> bool:
    """Tell whether the sealing key exists."""
    return (data_dir / FOLDER / KEY_FILE).exists()


def create_first(data_dir: Path) -> Signer:
    """Create the first key unless there is one. Only for a service whose logs are all empty."""
    with suppress(FileNotFoundError):
        return _read_key(data_dir / FOLDER / KEY_FILE)
    return _place(data_dir, Signer.generate(), replace=False)


def rotate(data_dir: Path) -> Signer:
    """Replace the key that signs; the public half of the old one stays trusted."""
    with suppress(FileNotFoundError):
        trust(data_dir, [_read_key(data_dir / FOLDER / KEY_FILE).verifier])
    return _place(data_dir, Signer.generate(), replace=True)


def trusted_keys(data_dir: Path) -> list[Verifier]:
    """Return the keys that this data directory trusts; [] when it has none. Raises BadNote."""
    try:
        return read_trusted(data_dir / FOLDER / TRUSTED_FILE)
    except FileNotFoundError:
        return []


def read_trusted(path: Path) -> list[Verifier]:
    """Read a list of public keys, one a line; empty lines and # lines are skipped."""
    lines = [line.strip() for line in path.read_text("utf-8", errors="replace").splitlines()]
    return [Verifier.parse(line) for line in lines if line and not line.startswith("#")]


def append_durably(path: Path, text: str, mode: int = 0o644) -> None:
    """Append to a file and wait until it is on disk, its name too."""
    is_new = not path.exists()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        data = text.encode()
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    if is_new:
        sync_folder(path.parent)


def create_private_folder(path: Path) -> None:
    """Create a folder that only its owner may enter, unless it exists."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _read_key(path: Path) -> Signer:
    text = path.read_text(encoding="ascii", errors="replace")
    try:
        return Signer.parse(text.strip())
    except BadNote as error:
        raise BadNote(f"{path}: {error}; restore it from a backup, or move it away") from error


def _place(data_dir: Path, signer: Signer, *, replace: bool) -> Signer:
    """Make `signer` the key, trusted before it signs anything; return the key that is in place.

    When another process created the first key at the same time, that one stays.
    """
    folder = data_dir / FOLDER
    create_private_folder(folder)
    fresh = folder / f"{KEY_FILE}.{os.getpid()}.new"
    fresh.unlink(missing_ok=True)
    append_durably(fresh, signer.text + "\n", 0o600)
    try:
        trust(data_dir, [signer.verifier])
        if replace:
            fresh.replace(folder / KEY_FILE)
        else:
            with suppress(FileExistsError):
                os.link(fresh, folder / KEY_FILE)
            signer = _read_key(folder / KEY_FILE)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(folder)
    return signer


def trust(data_dir: Path, keys: Sequence[Verifier]) -> None:
    """Add public keys to the trusted ones."""
    known = trusted_keys(data_dir)
    for key in keys:
        if key not in known:
            append_durably(data_dir / FOLDER / TRUSTED_FILE, f"{key}\n")
