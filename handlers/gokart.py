"""GoKart: rewards for completed offers. Its callbacks name no currency; revenue is in US dollars
unless the source names another currency.
"""

from __future__ import annotations

from ledger.model import Provider

PROVIDER = Provider(
    name="gokart",
    scheme="static-token",
    header="X-Callback-Token",
    default_currency="USD",
    default_place=2,
)
