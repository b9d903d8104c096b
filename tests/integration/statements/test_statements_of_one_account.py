"""Statements of one account, one a file and all in one file, are the same lines."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from ledger.statements.importer import ImportResult, add_statement, exclusive_import
from ledger.statements.model import Reading
from ledger.statements.reader import read_statement
from tests.conftest import Database

FILES = Path(__file__).parents[2] / "unit" / "statements" / "mt940"


async def imported(database: Database, body: str) -> ImportResult:
    """Import a file that may neither change nor withdraw a line of an earlier one."""
    statement = read_statement(body.encode(), Reading())
    async with exclusive_import(database.service_dsn, "bank") as connection:
        return await add_statement(connection, "bank", statement, datetime.now(UTC))


@pytest.mark.parametrize("name", ["balances_of_the_same_day", "booked_outside", "days"])
async def test_the_file_of_all_statements_changes_nothing(database: Database, name: str) -> None:
    body = (FILES / f"{name}.sta").read_text()
    parts = [f":20:{part}" for part in body.split(":20:")[1:]]
    for part in parts:
        assert (await imported(database, part)).status == "accepted"
    together = await imported(database, body)
    assert (together.status, together.new, together.changed, together.withdrawn) == (
        "accepted", 0, 0, 0,
    )  # fmt: skip
    assert together.lines == body.count(":61:")


@pytest.mark.parametrize("name", ["balances_of_the_same_day", "booked_outside", "days"])
async def test_a_statement_after_the_file_of_all_changes_nothing(
    database: Database, name: str
) -> None:
    body = (FILES / f"{name}.sta").read_text()
    assert (await imported(database, body)).status == "accepted"
    for part in body.split(":20:")[1:]:
        again = await imported(database, f":20:{part}")
        assert (again.status, again.new, again.changed, again.withdrawn) == ("accepted", 0, 0, 0)
