"""The database keeps the terms of every source, as the settings have them."""

from __future__ import annotations

from dataclasses import replace

import orjson

from ledger.eventlog.sources import changed_terms, load_terms, register
from ledger.model import OwnerRule
from tests.conftest import Database

RULE = OwnerRule("idempotency_id", "^cust-(.+)-[0-9]+$")


def encode(value: object) -> str:
    return orjson.dumps(value).decode()


async def test_owners_and_dates_are_terms_in_the_database(database: Database) -> None:
    own = database.settings.sources["straitsx"]
    declared = replace(own, owner_of=RULE, date_by="receipt")
    settings = replace(database.settings, sources={"straitsx": declared})
    async with database.service() as connection:
        ((source, how),) = await changed_terms(connection, settings)
        assert source == "straitsx"
        assert "owner_of is None in ledger.sources" in how
        assert "date_by is 'creation' in ledger.sources, 'receipt' by the settings" in how
        await register(connection, settings, encode, decides=False)
        assert await changed_terms(connection, settings), "only a projector changes known terms"
        await register(connection, settings, encode, decides=True)
        assert await changed_terms(connection, settings) == []
        stored = {terms.source: terms for terms in await load_terms(connection)}
        assert stored["straitsx"] == declared.terms
        await register(connection, database.settings, encode, decides=True)
        assert await changed_terms(connection, database.settings) == []
