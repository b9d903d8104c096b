"""What a signature scheme is: how the callbacks of one source prove who sent them. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Final, TypeAlias

Proof: TypeAlias = tuple[str, ...]
"""The values of the headers that a scheme reads, in their order; "" for one that is absent."""

BLANKS: Final = " \t"
"""What may surround the value of a header (RFC 9110, 5.6.3)."""

HEADER_CHARS_MAX: Final = 512
"""Characters of a header that are kept; a longer value proves nothing."""

TOLERANCE_SECONDS: Final = 300.0
"""How far a signed time may be from ours unless the source says otherwise."""

MARK_BEGIN: Final = b"callback-ledger mark 1\n"
"""How the bytes begin that this program marks with a source's secret; no provider signs them.

Without this rule an event's mark would be a signature of a callback whose body is these bytes.
"""

NO_SIGNATURE: Final = "no_signature"
BAD_SIGNATURE: Final = "bad_signature"
STALE_TIMESTAMP: Final = "stale_timestamp"


class Scheme(ABC):
    """The scheme of one source, with its header and its secrets.

    Every secret is tried, so the time that a check takes does not depend on which one fits.
    """

    name: ClassVar[str]
    """As a provider and a source declare it."""
    description: ClassVar[str]
    """What the header holds, for the OpenAPI document."""
    is_self_proving: ClassVar[bool]
    """Whether the headers that an event keeps prove its sender again later.

    Where they do not, the event is marked with a secret of the source when it is appended.
    """
    signs_time: ClassVar[bool] = False
    """Whether the proof covers the time of sending, which must be near ours."""
    own_headers: ClassVar[tuple[str, ...]] = ()
    """The headers that the scheme itself prescribes; () = one, which provider or source names."""

    def __init__(
        self, header: str, secrets: Sequence[str], tolerance_seconds: float = TOLERANCE_SECONDS
    ) -> None:
        self.headers = self.own_headers or (header,)
        self.tolerance_seconds = tolerance_seconds
        self._keys = [self.key(secret) for secret in secrets]

    @classmethod
    def key(cls, secret: str) -> bytes:
        """Return the key that a secret is. Raises ValueError, without the secret, if it is none."""
        return secret.encode()

    @classmethod
    def can_use(cls, secret: str) -> bool:
        """Tell whether a secret is one of this scheme."""
        try:
            cls.key(secret)
        except ValueError:
            return False
        return True

    def proof(self, headers: Mapping[str, str]) -> Proof:
        """Return what a request's headers say about its sender."""
        return tuple([headers.get(name, "") for name in self.headers])

    def refusal(self, proof: Proof, body: bytes, now: datetime) -> str | None:
        """Return why a callback is not authentic; None when it is, or without any secret."""
        if not self._keys:
            return None
        if not any(proof):
            return NO_SIGNATURE
        if not self.proves(proof, body):
            return BAD_SIGNATURE
        return None if self.is_timely(proof, now) else STALE_TIMESTAMP

    @abstractmethod
    def proves(self, proof: Proof, body: bytes) -> bool:
        """Tell whether the sender of `body` knew one of the secrets, whenever that was."""

    def is_timely(self, proof: Proof, now: datetime) -> bool:
        """Tell whether a time that is part of the proof is near enough to `now`."""
        return True

    @abstractmethod
    def kept(self, proof: Proof) -> dict[str, str]:
        """Return the headers that an event keeps of a proof; never a secret."""

    @abstractmethod
    def stored_proof(self, headers: Mapping[str, str]) -> Proof | None:
        """Return the proof among the headers that an event kept; None when there is none."""

    @abstractmethod
    def sign(self, body: bytes, now: datetime) -> dict[str, str]:
        """Return the headers with which a sender that knows the first secret signs `body`."""
