"""How the command line reports a failure: an exit status and one sentence.

1 is kept for what was found different; whatever could not be finished is 3. Heavy modules are
looked at only where they were imported already.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ledger.errors import (
    InvalidRequest,
    LedgerError,
    NotFound,
    RegistryError,
    ServiceRefused,
    SettingsError,
)

OK: Final = 0
PROBLEM: Final = 1
USAGE: Final = 2
UNFINISHED: Final = 3

USAGE_STATUSES: Final = frozenset({400, 404, 405, 409, 422})
"""HTTP answers that mean "ask differently"; every other refusal means "could not finish"."""

STATES: Final = {
    "53300": "it has no connection left; `ledger doctor` says how many the service needs",
    "57014": "it cancelled a command, by a time limit or by hand; try again",
    "57P01": "it ended our connection; see that it runs, and try again",
    "42501": "ask as the service's role, or give this role what it may not",
}
"""SQLSTATE → what PostgreSQL did, or what to do about it."""


def status_of(error: BaseException) -> int:
    """Return the exit status of a failure; a group of several that disagree is unfinished."""
    match error:
        case BaseExceptionGroup():
            statuses = {status_of(leaf) for leaf in _leaves(error)}
            return statuses.pop() if len(statuses) == 1 else UNFINISHED
        case ServiceRefused(status=404) | NotFound():
            return PROBLEM
        case ServiceRefused(status=code) if code in USAGE_STATUSES:
            return USAGE
        case SettingsError() | InvalidRequest() | RegistryError():
            return USAGE
        case _:
            return UNFINISHED


def sentence(error: BaseException) -> str:
    """Describe a failure in one line, with what to do next; of a group, the clearest."""
    leaf = min(_leaves(error), key=_rank)
    if isinstance(leaf, LedgerError):
        return " ".join(str(leaf).split())
    if isinstance(leaf, KeyboardInterrupt):
        return "stopped"
    message = (str(leaf).splitlines() or [""])[0].strip() or type(leaf).__name__
    if _is_postgres(leaf):
        state = str(getattr(leaf, "sqlstate", "") or "")
        advice = STATES.get(state, "see that the database runs, and try again")
        return f"PostgreSQL: {message} ({state}); {advice}"
    if isinstance(leaf, TimeoutError):
        return "there was no answer in time; see `ledger doctor`, and try again"
    if isinstance(leaf, OSError):
        return f"{leaf}; correct it and try again"
    if type(leaf).__module__.startswith("asyncpg"):
        return f"the connection to the database failed: {message}; try again"
    return (
        f"{type(leaf).__name__} at {_place(leaf)}: {message}; try again, and report it if it stays"
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for member in error.exceptions:
        yield from _leaves(member)


def _rank(error: BaseException) -> int:
    """Rank failures by how much they explain: an unexpected one first, a lost connection last."""
    if isinstance(error, LedgerError):
        return 1
    if _is_postgres(error):
        return 2
    return 3 if isinstance(error, OSError) or not isinstance(error, Exception) else 0


def _is_postgres(error: BaseException) -> bool:
    asyncpg = sys.modules.get("asyncpg")
    return asyncpg is not None and isinstance(error, asyncpg.PostgresError)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
