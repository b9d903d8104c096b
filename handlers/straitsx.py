"""StraitsX: payments, payouts, swaps and customers of Singapore, Indonesia and beyond.

Signature: StraitsX docs, securing your callback. Statements: StraitsX docs, account statement.
"""

from __future__ import annotations

from ledger.model import Provider

PROVIDER = Provider(
    name="straitsx",
    scheme="hmac-sha256-hex",
    header="Xfers-Signature",
    statement_format="straitsx-json",
    statement_api="straitsx",
    default_place=1,
)
