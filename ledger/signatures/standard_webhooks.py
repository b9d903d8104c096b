"""The scheme `standard-webhooks`, version 1.0.0 of the specification at www.standardwebhooks.com.

`webhook-signature` holds signatures apart by spaces, each a version, a comma and base64; `v1` is
HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`. Other versions are passed over.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import ClassVar, Final

from ledger.signatures.scheme import BLANKS, HEADER_CHARS_MAX, Proof, Scheme

PREFIX: Final = "whsec_"
"""Begins a secret; the rest is the key in base64."""

VERSION: Final = "v1,"
_MESSAGE_ID: Final = re.compile(r"[\x21\x23-\x7e]{1,256}")
"""Printable, and no quotation mark: a part of a JSON body cannot pass for a message's id."""

_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the `v1` signature of a message; `timestamp` is whole seconds since 1970."""
    content = f"{message_id}.{timestamp}.".encode() + body
    return VERSION + base64.b64encode(hmac.digest(key, content, "sha256")).decode()


class StandardWebhooks(Scheme):
    """Three headers: the message's id, the time of the attempt, and the signatures."""

    name: ClassVar[str] = "standard-webhooks"
    description: ClassVar[str] = (
        "Standard Webhooks: `v1,` and the base64 HMAC-SHA256 of `webhook-id`, `webhook-timestamp` "
        "and the raw body, joined by full stops."
    )
    is_self_proving: ClassVar[bool] = True
    signs_time: ClassVar[bool] = True
    own_headers: ClassVar[tuple[str, ...]] = (
        "webhook-id", "webhook-timestamp", "webhook-signature",
    )  # fmt: skip

    @classmethod
    def key(cls, secret: str) -> bytes:
        """Return the key of a `whsec_` secret. Raises ValueError when the rest is no base64."""
        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except ValueError:
            key = b""
        if not key:
            raise ValueError(f"a secret of {cls.name} is {PREFIX} and then base64") from None
        return key

    def proves(self, proof: Proof, body: bytes) -> bool:
        """Tell whether one of the secrets makes one of the signatures of this message."""
        message_id, timestamp, signatures = (value.strip(BLANKS) for value in proof)
        if not (_MESSAGE_ID.fullmatch(message_id) and _TIMESTAMP.fullmatch(timestamp)):
            return False
        if len(signatures) > HEADER_CHARS_MAX:
            return False
        claimed = [each.encode("utf-8", "surrogateescape") for each in signatures.split(" ")]
        matched = False
        for key in self._keys:
            expected = signature(key, message_id, timestamp, body).encode()
            for each in claimed:
                matched |= hmac.compare_digest(expected, each)
        return matched

    def is_timely(self, proof: Proof, now: datetime) -> bool:
        """Tell whether the attempt was made within the tolerance before or after `now`."""
        return abs(now.timestamp() - int(proof[1].strip(BLANKS))) <= self.tolerance_seconds

    def kept(self, proof: Proof) -> dict[str, str]:
        """Return all three headers: the signature covers the other two."""
        pairs = zip(self.headers, proof, strict=True)
        return {name: value.strip(BLANKS)[:HEADER_CHARS_MAX] for name, value in pairs if value}

    def stored_proof(self, headers: Mapping[str, str]) -> Proof | None:
        """Return the three kept headers; None unless all are there."""
        proof = self.proof(headers)
        return proof if all(proof) else None

    def sign(self, body: bytes, now: datetime) -> dict[str, str]:
        """Return the three headers; the same body has the same message id, as a retry does."""
        message_id = f"msg_{sha256(body).hexdigest()[:24]}"
        timestamp = f"{now.astimezone(UTC).timestamp():.0f}"
        stated = signature(self._keys[0], message_id, timestamp, body)
        return dict(zip(self.headers, (message_id, timestamp, stated), strict=True))
