"""Who sent this: raw-body signatures and static tokens, in constant time over all secrets."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

Verify: TypeAlias = Callable[[str | None, bytes], bool]
"""(the header's value or None, the raw body) → whether the sender knows a secret."""

HMAC_PROVIDERS: Final = frozenset({"straitsx"})
HEX_DIGEST_CHARS: Final = 64
BLANKS: Final = " \t"
"""What may surround the value of a header (RFC 9110, 5.6.3)."""

HEADER_CHARS_MAX: Final = 512
"""Characters of a header that are kept; a longer proof is none."""

_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")


def sign(secret: str, body: bytes) -> str:
    """Return StraitsX's signature of `body`: lower-case hex HMAC-SHA256, no prefix.

    Source: StraitsX docs, securing your callback (header `Xfers-Signature`).
    """
    return hmac.digest(secret.encode(), body, "sha256").hex()


def verifier(provider: str, secrets: Sequence[str]) -> Verify:
    """Return the check for a provider's callbacks; without secrets everything passes it.

    Every secret is tried, so the time it takes does not tell which one fits.
    """
    if not secrets:
        return lambda _value, _body: True
    keys = [secret.encode() for secret in secrets]
    return _hmac(keys) if provider in HMAC_PROVIDERS else _token(keys)


def _hmac(keys: list[bytes]) -> Verify:
    # A copy of what has hashed the key already spares hashing it with every body.
    keyed = [hmac.new(key, digestmod="sha256") for key in keys]

    def verify(value: str | None, body: bytes) -> bool:
        stated = digits(value)
        if stated is None:
            return False
        claimed = stated.lower().encode()
        matched = False
        for begun in keyed:
            expected = begun.copy()
            expected.update(body)
            matched |= hmac.compare_digest(expected.hexdigest().encode(), claimed)
        return matched

    return verify


def digits(value: str | None) -> str | None:
    """Return the hex digits of a signature without the blanks around it; None if it is none."""
    stated = (value or "").strip(BLANKS)
    is_digest = len(value or "") <= HEADER_CHARS_MAX and _DIGEST.fullmatch(stated)
    return stated if is_digest else None


def _token(keys: list[bytes]) -> Verify:
    def verify(value: str | None, _body: bytes) -> bool:
        claimed = (value or "").strip(BLANKS).encode("utf-8", "surrogateescape")
        matched = False
        for key in keys:
            matched |= hmac.compare_digest(key, claimed)
        return matched

    return verify
