"""The scheme `hmac-sha256-hex`: a header holds the hex HMAC-SHA256 of the raw body."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Final

from ledger.signatures.scheme import (
    BLANKS,
    HEADER_CHARS_MAX,
    MARK_BEGIN,
    TOLERANCE_SECONDS,
    Proof,
    Scheme,
)

_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")
_STORED: Final = re.compile(r"\s*([0-9a-fA-F]{64})\s*")
"""A signature as it was kept, by earlier versions with any space around it."""


def sign(secret: str, body: bytes) -> str:
    """Return the signature of `body`: lower-case hex HMAC-SHA256, no prefix.

    Source: StraitsX docs, securing your callback (header `Xfers-Signature`).
    """
    return hmac.digest(secret.encode(), body, "sha256").hex()


class HmacSha256Hex(Scheme):
    """One header with the signature of the body, in hex of either case."""

    name: ClassVar[str] = "hmac-sha256-hex"
    description: ClassVar[str] = "Hex HMAC-SHA256 of the raw body with the source's secret."
    is_self_proving: ClassVar[bool] = True

    def __init__(
        self, header: str, secrets: Sequence[str], tolerance_seconds: float = TOLERANCE_SECONDS
    ) -> None:
        super().__init__(header, secrets, tolerance_seconds)
        # A copy of what has hashed the key already spares hashing it with every body.
        self._keyed = [hmac.new(key, digestmod="sha256") for key in self._keys]

    def proves(self, proof: Proof, body: bytes) -> bool:
        """Tell whether one of the secrets makes this signature of `body`."""
        stated = _digest(proof[0])
        if stated is None or body.startswith(MARK_BEGIN):
            return False
        claimed = stated.lower().encode()
        matched = False
        for keyed in self._keyed:
            expected = keyed.copy()
            expected.update(body)
            matched |= hmac.compare_digest(expected.hexdigest().encode(), claimed)
        return matched

    def kept(self, proof: Proof) -> dict[str, str]:
        """Return the header with the signature, without the blanks around it."""
        value = _digest(proof[0]) or proof[0][:HEADER_CHARS_MAX]
        return {self.headers[0]: value} if value else {}

    def stored_proof(self, headers: Mapping[str, str]) -> Proof | None:
        """Return the first value that is a signature, whatever its header was called then."""
        match = next(filter(None, map(_STORED.fullmatch, headers.values())), None)
        return (match[1],) if match else None

    def sign(self, body: bytes, now: datetime) -> dict[str, str]:
        """Return the header that signs `body` with the first secret."""
        return {self.headers[0]: hmac.digest(self._keys[0], body, "sha256").hex()}


def _digest(value: str) -> str | None:
    """Return the hex digits of a signature without the blanks around it; None if it is none."""
    stated = value.strip(BLANKS)
    return stated if len(value) <= HEADER_CHARS_MAX and _DIGEST.fullmatch(stated) else None
