"""The doctor's look at the schemas: are tables, functions and triggers what this program makes."""

from __future__ import annotations

import asyncpg

from ledger.books import schema_check
from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.doctor.check import Check, fail, ok, warn
from ledger.eventlog.sources import changed_terms


async def examine(dsn: str, settings: Settings) -> list[Check]:
    """Check the log's schema, the live books' and what ledger.sources says of the sources.

    Raises DatabaseUnavailable when the database does not answer.
    """
    try:
        found = await schema_check.examine(dsn, settings)
        async with database.connected(dsn) as connection:
            terms = await changed_terms(connection, settings)
    except asyncpg.PostgresError as error:
        # What is missing altogether is told by the other checks.
        return [warn("schema", f"not compared: {error}", "mend what is named above first")]
    told = schema_check.sentences((*found.log, *found.books))
    findings = [fail("schema", each, schema_check.ADVICE) for each in told]
    findings += [
        fail("terms", f"{source}: {how}", "check the settings, then restart `ledger serve`")
        for source, how in terms
    ]
    if found.not_compared:
        said = f"the books' tables were not compared: {found.not_compared}"
        findings.append(warn("schema", said, "see `ledger serve` and its log"))
    elif not told:
        findings.append(ok("schema", "tables, functions and triggers are this program's"))
    return findings
