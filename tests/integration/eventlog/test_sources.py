"""The database keeps the terms of every source, as the settings have them."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from ledger.errors import SettingsError
from ledger.eventlog.sources import changed_terms, load_terms, register, terms_of
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


async def test_an_expression_that_can_take_long_is_refused_where_it_would_be_used(
    database: Database,
) -> None:
    slow = OwnerRule("idempotency_id", "^(?:a+)+(b)$")
    own = database.settings.sources["straitsx"]
    there = replace(database.settings, sources={"straitsx": replace(own, owner_of=slow)})
    unconfigured = replace(database.settings, sources={})
    async with database.service() as connection:
        await register(connection, there, encode, decides=True)
        with pytest.raises(SettingsError, match=r"of the source straitsx .* repeats"):
            await load_terms(connection)
        with pytest.raises(SettingsError, match="configure the source"):
            await terms_of(connection, unconfigured)
        assert {t.owner_of for t in await terms_of(connection, database.settings)} == {None}
        await register(connection, database.settings, encode, decides=True)
        assert {terms.owner_of for terms in await load_terms(connection)} == {None}
