"""The sources that have a log: what the database knows of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ledger.settings import Settings

ADD_SOURCE: Final = """
INSERT INTO ledger.sources (source, provider, currency, wallets) VALUES ($1, $2, $3, $4)
ON CONFLICT (source) DO NOTHING
"""
REGISTER_SOURCE: Final = """
INSERT INTO ledger.sources (source, provider, currency, wallets) VALUES ($1, $2, $3, $4)
ON CONFLICT (source) DO UPDATE
   SET provider = EXCLUDED.provider, currency = EXCLUDED.currency, wallets = EXCLUDED.wallets
"""
REGISTER_HEAD: Final = "INSERT INTO ledger.heads (source) VALUES ($1) ON CONFLICT DO NOTHING"


async def register(
    connection: Any, settings: Settings, encode: Callable[[Any], str], *, decides: bool
) -> None:
    """Make every configured source known to the database; its log starts empty.

    Only a service that projects `decides` the terms of a source that is known already.
    """
    statement = REGISTER_SOURCE if decides else ADD_SOURCE
    for source in settings.sources.values():
        terms = source.terms
        wallets: Mapping[str, str] = terms.wallets
        await connection.execute(
            statement, terms.source, terms.provider, terms.currency, encode(wallets)
        )
        await connection.execute(REGISTER_HEAD, terms.source)
