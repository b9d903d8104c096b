"""The doctor's checks of the schemas: tables, functions and triggers are those of this program."""

from __future__ import annotations

import asyncpg

from ledger.books import schema_check
from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.doctor.check import Check, fail, ok, warn
from ledger.eventlog.sources import changed_terms


async def examine(dsn: str, settings: Settings) -> list[Check]:
    """Check the log's schema, the live books' and the terms of the sources in ledger.sources.

    Raises DatabaseUnavailable when the database does not answer.
    """
    try:
        found = await schema_check.examine(dsn, settings)
        async with database.connected(dsn) as connection:
            terms = await changed_terms(connection, settings)
    except asyncpg.PostgresError as error:
        # The other checks report a schema that is missing altogether.
        return [warn("schema", f"not compared: {error}", "correct what is named above first")]
    sentences = schema_check.sentences((*found.log, *found.books))
    checks = [fail("schema", sentence, schema_check.ADVICE) for sentence in sentences]
    checks += [
        fail("terms", f"{source}: {how}", "check the settings, then restart `ledger serve`")
        for source, how in terms
    ]
    if found.not_compared:
        reason = f"the books' tables were not compared: {found.not_compared}"
        checks.append(warn("schema", reason, "see `ledger serve` and its log"))
    elif not sentences:
        checks.append(ok("schema", "tables, functions and triggers are this program's"))
    return checks
