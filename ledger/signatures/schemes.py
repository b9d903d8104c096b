"""The signature schemes that there are, by name."""

from __future__ import annotations

from typing import Final

from ledger.signatures.hmac_sha256_hex import HmacSha256Hex
from ledger.signatures.scheme import Scheme
from ledger.signatures.standard_webhooks import StandardWebhooks
from ledger.signatures.static_token import StaticToken

SCHEMES: Final[dict[str, type[Scheme]]] = {
    scheme.name: scheme for scheme in (HmacSha256Hex, StaticToken, StandardWebhooks)
}
SELF_PROVING: Final = tuple(scheme for scheme in SCHEMES.values() if scheme.is_self_proving)
"""The schemes whose proofs are kept with the events."""
