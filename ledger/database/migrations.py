"""Forward-only migrations: checksummed files, one lock, one transaction per file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import migrations
from ledger.errors import MigrationError

MARK: Final = "-- migrate:up"
SEPARATOR: Final = "\n--;;\n"
LOCK_KEY: Final = 0x6C6564676572

LOCK: Final = "SELECT pg_advisory_xact_lock($1)"
CREATE_SCHEMA: Final = "CREATE SCHEMA IF NOT EXISTS ledger"
CREATE_RECORD: Final = """
CREATE TABLE IF NOT EXISTS ledger.migrations (
    name       text PRIMARY KEY,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
SELECT_APPLIED: Final = "SELECT name, sha256 FROM ledger.migrations ORDER BY name"
INSERT_APPLIED: Final = "INSERT INTO ledger.migrations (name, sha256) VALUES ($1, $2)"
SCHEMA_EXISTS: Final = "SELECT to_regclass('ledger.migrations') IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its name, its digest, its statements."""

    name: str
    sha256: str
    statements: tuple[str, ...]


def known() -> list[Migration]:
    """Read the migrations that this program carries, in order."""
    folder = Path(migrations.__path__[0])
    return [_read(path) for path in sorted(folder.glob("[0-9]*.sql"))]


def _read(path: Path) -> Migration:
    text = path.read_text(encoding="utf-8")
    if MARK not in text:
        raise MigrationError(f"{path.name} has no {MARK!r} line")
    body = text.split(MARK, 1)[1]
    statements = tuple(part.strip() for part in body.split(SEPARATOR) if part.strip())
    return Migration(path.name, hashlib.sha256(text.encode()).hexdigest(), statements)


async def pending(connection: Any) -> list[Migration]:
    """Return what is still to apply.

    Raises MigrationError when an applied file was edited, or the database is ahead of us.
    """
    applied: dict[str, str] = {}
    if await connection.fetchval(SCHEMA_EXISTS):
        applied = dict(await connection.fetch(SELECT_APPLIED))
    files = {migration.name: migration for migration in known()}
    for name, sha256 in applied.items():
        if name not in files:
            raise MigrationError(
                f"the database has migration {name}, which this program does not know; "
                "start the newer version of callback-ledger"
            )
        if files[name].sha256 != sha256:
            raise MigrationError(
                f"migration {name} was edited after it was applied; restore the original file "
                "and put the change into a new migration"
            )
    return [migration for name, migration in files.items() if name not in applied]


async def migrate(connection: Any) -> list[str]:
    """Apply what is pending, in order; safe to call from several processes at once.

    Returns the names applied now. `connection` belongs to the owner of the schema.
    """
    done: list[str] = []
    if not await pending(connection):
        return done  # nothing here needs the owner, so a lesser role may start the service
    while True:
        async with connection.transaction():
            await connection.execute(LOCK, LOCK_KEY)
            await connection.execute(CREATE_SCHEMA)
            await connection.execute(CREATE_RECORD)
            rest = await pending(connection)
            if not rest:
                return done
            for statement in rest[0].statements:
                await connection.execute(statement)
            await connection.execute(INSERT_APPLIED, rest[0].name, rest[0].sha256)
        done.append(rest[0].name)
