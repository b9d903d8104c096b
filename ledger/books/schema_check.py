"""What `verify` and the doctor find of schemas that are not what this program makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from ledger import registry
from ledger.books import fold_version, schema_inventory
from ledger.books.generations import SELECT_LIVE, schema_of
from ledger.books.schema_inventory import SchemaDifference
from ledger.config.settings import Settings
from ledger.database import connection as database
from ledger.database import migrations as migrate
from ledger.errors import MigrationError
from ledger.eventlog.sources import terms_of

UNLIKE_MAX: Final = 20
"""Objects of a schema that are named one by one."""

ADVICE: Final = (
    "find out who changed it; a later migration or `ledger rebuild --swap` does not excuse it"
)
SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Schemas:
    """What was found of the log's schema and of the live books'."""

    log: tuple[SchemaDifference, ...] = ()
    books: tuple[SchemaDifference, ...] = ()
    not_compared: str = ""
    """Why the live books could not be compared with what this program makes; "" when they were."""

    @property
    def are_books_plain(self) -> bool:
        """Whether reading the live books runs nothing but this program's statements."""
        return all(each.how.endswith("is missing") for each in self.books)


async def examine(dsn: str, settings: Settings) -> Schemas:
    """Compare the schemas with what migrations and projections make; change nothing."""
    async with database.connected(dsn, seconds_max=SECONDS_MAX) as connection:
        try:
            if await migrate.pending(connection):
                return Schemas(not_compared="migrations are still to be applied")
        except MigrationError as error:
            return Schemas(not_compared=str(error))
        log = schema_inventory.compared(
            await schema_inventory.taken(connection, "ledger"), schema_inventory.of_migrations()
        )
        live = await connection.fetchrow(SELECT_LIVE)
        if live is None:
            return Schemas(tuple(log), not_compared="there are no books yet")
        found = await schema_inventory.taken(connection, schema_of(live["generation"]))
        unlike, why = await _books(connection, settings, live["version"], found)
        return Schemas(tuple(log), tuple(unlike), why)


async def _books(
    connection: Any, settings: Settings, version: str, found: schema_inventory.Inventory
) -> tuple[list[SchemaDifference], str]:
    """Compare the live books with those that this program makes, or with what none has."""
    if version != fold_version.current_version(await terms_of(connection, settings)):
        return schema_inventory.never(
            found
        ), "the books were folded by another version of this program"
    try:
        expected = await schema_inventory.of_books(connection, registry.load())
    except (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError) as error:
        return schema_inventory.never(
            found
        ), f"this role cannot make books to compare with: {error}"
    return schema_inventory.compared(found, expected), ""


def sentences(unlike: tuple[SchemaDifference, ...]) -> list[str]:
    """Say what is not as it should be, bounded."""
    shown = [each.how for each in unlike[:UNLIKE_MAX]]
    more = len(unlike) - len(shown)
    return [*shown, *([f"and {more} more objects"] if more else [])]
