"""Which failures of the database mean what: lost, transient, caused by an event's own values."""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg

from ledger.errors import LedgerError, NotStorable

REFUSED_CONNECTION: Final = (
    ValueError,
    asyncpg.ClientConfigurationError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
"""What no waiting cures: a malformed DSN, a wrong password, a database that does not exist."""

CONNECTION_LOST: Final = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
)
"""The database did not answer: the outcome is unknown, never "not done"."""

EXPECTED: Final = (LedgerError, asyncpg.PostgresError, *CONNECTION_LOST)
"""Failures that outside causes explain: logged in one line, where others are logged as bugs."""

TRANSIENT: Final = (
    *CONNECTION_LOST,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.PostgresSystemError,
)
"""Failures that may end without any change of ours: a start waits for it."""

UNKNOWN_NAMES: Final = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)
"""What books get asked that an earlier version of the program made, until they are rebuilt."""

DATA_CLASSES: Final = ("22", "23", "54")
"""SQLSTATE classes that a row's own values cause: data, integrity, program limits."""


def is_data_error(error: BaseException) -> bool:
    """Return whether a row's own values cause an error, so that trying again cannot help.

    That is SQLSTATE classes 22, 23 and 54, and what the driver cannot encode. Locks, time-outs,
    grants, read-only databases, damaged files and all else may be over at the next attempt.
    """
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in DATA_CLASSES
    if isinstance(error, OSError | asyncpg.ClientConfigurationError):
        return False  # no connection: some of these are ValueErrors too
    # asyncpg.DataError is a ValueError that is an InterfaceError too: an argument does not encode.
    return isinstance(error, ValueError | TypeError | OverflowError)


def is_server_gone(error: asyncpg.PostgresError) -> bool:
    """Return whether an error means that the server went away: SQLSTATE classes 08 and 57."""
    return (error.sqlstate or "")[:2] in ("08", "57")


def describe(error: BaseException) -> str:
    """Name a failure for operators without quoting a callback: its kind, SQLSTATE and object."""
    if isinstance(error, asyncpg.PostgresError):
        place = getattr(error, "constraint_name", None) or getattr(error, "table_name", None)
        return f"{type(error).__name__} ({error.sqlstate}{f', {place}' if place else ''})"
    if isinstance(error, LedgerError) and not isinstance(error, NotStorable):
        return str(error)
    return type(error).__name__
