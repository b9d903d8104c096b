"""The scheme `static-token`: a header holds the secret itself."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

from ledger.signatures.scheme import BLANKS, Proof, Scheme


class StaticToken(Scheme):
    """One header with the secret, which says nothing of the body and is never kept."""

    name: ClassVar[str] = "static-token"
    description: ClassVar[str] = "The source's secret, in the header that the source names."
    is_self_proving: ClassVar[bool] = False

    def proves(self, proof: Proof, body: bytes) -> bool:
        """Tell whether the header holds one of the secrets."""
        claimed = proof[0].strip(BLANKS).encode("utf-8", "surrogateescape")
        matched = False
        for key in self._keys:
            matched |= hmac.compare_digest(key, claimed)
        return matched

    def kept(self, proof: Proof) -> dict[str, str]:
        """Return nothing: readers of the log must not learn the secret."""
        return {}

    def stored_proof(self, headers: Mapping[str, str]) -> Proof | None:
        """Return None: no event keeps its token."""
        return None

    def sign(self, body: bytes, now: datetime) -> dict[str, str]:
        """Return the header that holds the first secret."""
        return {self.headers[0]: self._keys[0].decode()}
