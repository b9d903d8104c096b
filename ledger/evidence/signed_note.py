"""Signed notes and checkpoints in the C2SP formats signed-note and tlog-checkpoint, Ed25519.

A note is a text of lines, an empty line, and signature lines `— <name> <base64(id ‖ signature)>`.
A checkpoint's text has three lines: origin, size, base64 of the root.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.errors import BadNote
from ledger.evidence.merkle import HASH_BYTES

KEY_NAME: Final = "callback-ledger"
ORIGIN: Final = "callback-ledger/"
_ALGORITHM: Final = b"\x01"
_KEY_BYTES: Final = 32
_NAME: Final = re.compile(r"[^\s+]+")
_SIGNATURE: Final = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_PRIVATE: Final = "PRIVATE+KEY+"


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key under a name; its text form is `<name>+<id in hex>+<base64(1 ‖ key)>`."""

    name: str
    key: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that name this key in a signature."""
        return sha256(self.name.encode() + b"\n" + _ALGORITHM + self.key).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64encode(_ALGORITHM + self.key).decode()}"

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Read a key's text form. Raises BadNote."""
        name, key, key_id = _parse_key(text.strip())
        verifier = cls(name, key)
        if verifier.id.hex() != key_id.lower():
            raise BadNote(f"the key {text.strip()[:120]!r} does not have the id that it names")
        return verifier

    def accepts(self, text: str, signature: bytes) -> bool:
        """Tell whether `signature` is this key's over `text`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True, repr=False)
class Signer:
    """A private key under a name; its text form is `PRIVATE+KEY+<name>+<id>+<base64(1 ‖ seed)>`."""

    name: str
    seed: bytes

    @classmethod
    def generate(cls, name: str = KEY_NAME) -> Signer:
        """Make a new key from the system's randomness."""
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Signer:
        """Read a key's text form. Raises BadNote."""
        if not text.startswith(_PRIVATE):
            raise BadNote("this is not a private key: it does not start with PRIVATE+KEY+")
        name, seed, key_id = _parse_key(text.strip().removeprefix(_PRIVATE))
        signer = cls(name, seed)
        if signer.verifier.id.hex() != key_id.lower():
            raise BadNote("the private key does not have the id that it names")
        return signer

    @property
    def text(self) -> str:
        """The key's text form. Keep it secret."""
        wrapped = b64encode(_ALGORITHM + self.seed).decode()
        return f"{_PRIVATE}{self.name}+{self.verifier.id.hex()}+{wrapped}"

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        private = Ed25519PrivateKey.from_private_bytes(self.seed)
        return Verifier(self.name, private.public_key().public_bytes_raw())

    def sign(self, text: str) -> str:
        """Return `text` as a signed note. Ed25519: the same text gives the same note."""
        _check_text(text)
        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(text.encode())
        return f"{text}\n— {self.name} {b64encode(self.verifier.id + signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The root over a log's first `size` events."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The note's text."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"

    @property
    def source(self) -> str:
        """The source of its log; "" for a log of another program."""
        return self.origin.removeprefix(ORIGIN) if self.origin.startswith(ORIGIN) else ""

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Parse a note's text; lines after the third are extensions. Raises BadNote."""
        lines = text.split("\n")
        if len(lines) < 4 or not lines[0] or not _SIZE.fullmatch(lines[1]):
            raise BadNote("this is not a checkpoint: origin, size and root are its first lines")
        root = _unbase64(lines[2])
        if len(root) != HASH_BYTES:
            raise BadNote("the checkpoint's root is not a SHA-256")
        return cls(lines[0], int(lines[1]), root)


def checkpoint_of(source: str, size: int, root: bytes) -> Checkpoint:
    """Return the checkpoint of a source's first `size` events."""
    return Checkpoint(ORIGIN + source, size, root)


def open_note(note: str, trusted: Iterable[Verifier]) -> tuple[str, list[Verifier]]:
    """Return a note's text and the trusted keys that signed it; [] when none did.

    Raises BadNote when it is not a note, or a signature under a trusted key is wrong.
    """
    text, signatures = _take_apart(note)
    known = {(key.name, key.id): key for key in trusted}
    signers: list[Verifier] = []
    for name, raw in signatures:
        key = known.get((name, raw[:4]))
        if key is None or key in signers:
            continue
        if not key.accepts(text, raw[4:]):
            raise BadNote(f"the signature of {name} ({raw[:4].hex()}) does not fit the text")
        signers.append(key)
    return text, signers


def open_checkpoint(note: str, trusted: Iterable[Verifier]) -> tuple[Checkpoint, list[Verifier]]:
    """Return a signed checkpoint and the trusted keys that signed it. Raises BadNote."""
    text, signers = open_note(note, trusted)
    return Checkpoint.parse(text), signers


def notes_in(lines: Iterable[str]) -> Iterator[str]:
    """Yield the complete notes among lines: each ends with an empty line or the end of the file.

    Incomplete notes that a crash left are skipped.
    """
    body: list[str] = []
    signatures: list[str] = []
    is_signed = False
    for raw in lines:
        line = raw.rstrip("\n")
        if is_signed and _SIGNATURE.fullmatch(line):
            signatures.append(line)
            continue
        if not is_signed and line:
            body.append(line)
            continue
        if is_signed:
            if signatures and not line:
                yield _joined(body, signatures)
            body, signatures = [line] if line else [], []
        is_signed = bool(body) and not line
    if signatures:
        yield _joined(body, signatures)


def _joined(body: list[str], signatures: list[str]) -> str:
    return "\n".join([*body, "", *signatures, ""])


def _take_apart(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    text, gap, tail = note.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise BadNote("this is not a signed note: text, an empty line, then signatures")
    text += "\n"
    _check_text(text)
    signatures: list[tuple[str, bytes]] = []
    for line in tail[:-1].split("\n"):
        match = _SIGNATURE.fullmatch(line)
        if match is None:
            raise BadNote(f"this is no signature line: {line[:80]!r}")
        raw = _unbase64(match[2])
        if len(raw) < 5:
            raise BadNote("a signature is too short")
        signatures.append((match[1], raw))
    return text, signatures


def _check_text(text: str) -> None:
    if not text.endswith("\n") or any(ord(sign) < 0x20 and sign != "\n" for sign in text):
        raise BadNote("a note's text ends with a line end and has no control characters")


def _parse_key(text: str) -> tuple[str, bytes, str]:
    name, _, rest = text.partition("+")
    key_id, _, wrapped = rest.partition("+")
    raw = _unbase64(wrapped)
    if not _NAME.fullmatch(name) or raw[:1] != _ALGORITHM or len(raw) != 1 + _KEY_BYTES:
        raise BadNote("this is not an Ed25519 key: <name>+<id>+<base64>")
    return name, raw[1:], key_id


def _unbase64(text: str) -> bytes:
    try:
        raw = b64decode(text, validate=True)
    except ValueError as error:
        raise BadNote(f"this is not base64: {text[:80]!r}") from error
    if b64encode(raw).decode() != text:
        raise BadNote(f"this is not canonical base64: {text[:80]!r}")
    return raw
