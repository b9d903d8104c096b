"""What keeps a process from its work is shown while it lasts, and no longer."""

from __future__ import annotations

from ledger.database import conditions
from ledger.doctor import database as doctor_database
from tests.conftest import Database


async def test_a_condition_is_current_while_it_is_reported(database: Database) -> None:
    async with database.service() as connection:
        await conditions.report(connection, "straitsx", "fold_retrying", "55P03: a lock")
        await conditions.report(connection, "straitsx", "fold_retrying", "57014: cancelled")
        (found,) = await conditions.current(connection)
        assert (found.source, found.name, found.detail) == (
            "straitsx", "fold_retrying", "57014: cancelled",
        )  # fmt: skip
        assert found.sentence.startswith("straitsx: fold_retrying for ")
        (check,) = await doctor_database.check_conditions(connection)
        assert (check.verdict, "57014" in check.found) == ("fail", True)
        await conditions.clear(connection, "straitsx", "fold_retrying")
        assert await conditions.current(connection) == []


async def test_a_condition_whose_process_is_gone_is_over_and_begins_again_later(
    database: Database,
) -> None:
    old = (
        "UPDATE ledger.conditions"
        " SET since = since - interval '1 h', seen_at = seen_at - interval '1 h'"
    )
    async with database.service() as connection:
        await conditions.report(connection, "", "clock_behind", "61 s")
        await connection.execute(old)
        assert await conditions.current(connection) == []
        await conditions.report(connection, "", "clock_behind", "62 s")
        (found,) = await conditions.current(connection)
        assert found.seconds < 60
