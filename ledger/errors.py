"""Every expected failure, under one root; docstrings are messages: what happened, what to do."""

from __future__ import annotations

from ledger.callback_errors import InvalidCallback as InvalidCallback
from ledger.callback_errors import LedgerError as LedgerError
from ledger.callback_errors import MalformedBody as MalformedBody


class SettingsError(LedgerError):
    """A setting is missing, unknown or malformed. Correct it and start again."""


class NotStorable(LedgerError, ValueError):
    """An event's own values cannot be folded or written. The event is parked and listed."""


class RegistryError(LedgerError):
    """A handler or projection cannot be used. The message names the file and what to correct."""


class DatabaseUnavailable(LedgerError):
    """The database did not answer in time; the outcome is unknown. Send the callback again."""


class DatabaseReadOnly(DatabaseUnavailable):
    """The database takes no writes now. Send the callback again; see that it takes writes."""


class DatabaseRefused(LedgerError):
    """PostgreSQL refuses this role, password or database. Correct LEDGER_DATABASE_URL."""


class Overloaded(LedgerError):
    """The receiver's queue is full. Send the callback again after the time in Retry-After."""


class MigrationError(LedgerError):
    """The database's schema and this program's migrations disagree. See the message."""


class UnsafeDatabase(LedgerError):
    """PostgreSQL is configured so that a committed callback can be lost. See the message."""


class DataFolderTaken(LedgerError):
    """Another service runs on this data folder. Stop it, or set another LEDGER_DATA_DIR."""


class ProcessNotStarted(LedgerError):
    """A process of the service could not be started. See the message, then start it again."""


class PostgresError(LedgerError):
    """The embedded PostgreSQL could not be found, created or started. See the message."""


class CheckpointConflict(LedgerError):
    """Another worker advanced this source's books; this one must load them again."""


class ServerNotFound(DatabaseUnavailable):
    """No embedded PostgreSQL runs in this data folder. Start `ledger serve`, then ask again.

    `found` is what there is instead, `advice` what to do.
    """

    def __init__(self, found: str, advice: str, *, is_broken: bool = False) -> None:
        super().__init__(f"{found}; {advice}")
        self.found = found
        self.advice = advice
        self.is_broken = is_broken


class NotFound(LedgerError):
    """There is no such object. Check the source and the id."""


class InvalidRequest(LedgerError):
    """The query is malformed. The message names the parameter and what it accepts."""


class ServiceUnreachable(LedgerError):
    """No service answers there. Start one with `ledger serve`, or name another with --url."""


class ServiceRefused(LedgerError):
    """The running service answered with a problem. The message says which.

    `status` is the HTTP status of its answer, `body` the answer's bytes.
    """

    def __init__(self, status: int, detail: str, body: bytes = b"") -> None:
        super().__init__(detail)
        self.status = status
        self.body = body


class FormatTooNarrow(LedgerError):
    """The format cannot hold a value. The message names the row and another format."""


class NotCaughtUp(LedgerError):
    """The books do not contain that position yet. Ask again after the time in Retry-After."""


class Conflicting(LedgerError):
    """The request contradicts what is already so. See the message."""


class Unauthenticated(LedgerError):
    """The request carries no valid token. Send `Authorization: Bearer <one of the tokens>`."""


class Refused(LedgerError):
    """Requests from this address are not allowed. The message names the setting."""


class MeasurementFailed(LedgerError):
    """The measurement could not be finished. The message says where it stopped."""


class MissingExtra(LedgerError):
    """The command needs a package that is not installed. The message names the command."""


class BadNote(LedgerError):
    """A signed note, checkpoint or key is malformed or its signature is wrong. See the message."""


class CannotSeal(LedgerError):
    """The log does not continue what was sealed; nothing was signed. Run `ledger verify`."""


class Tampered(LedgerError):
    """The evidence does not fit together. The message says where.

    `check` names what was checked, `position` the first bad one (None when there is none).
    """

    def __init__(self, check: str, position: int | None, detail: str) -> None:
        super().__init__(detail)
        self.check = check
        self.position = position


class BooksDisagree(LedgerError):
    """The live books and a fold of the log park different events. The message names one."""


class StatementRefused(LedgerError):
    """The statement cannot be taken as it is; nothing of it was kept. See the message."""


class OtherAccount(StatementRefused):
    """The file is about other accounts or currencies than the one requested."""


class PullFailed(LedgerError):
    """The provider's statement could not be fetched. See the message."""


class RebuildRunning(LedgerError):
    """Another rebuild of this database is running. Wait for it, or end it, and try again."""


class NoBooks(LedgerError):
    """There are no such books. The message says how to get them."""
