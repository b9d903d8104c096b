"""Exit statuses: 1 is a finding; whatever could not be finished is 3, in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from ledger.cli import main as cli
from ledger.errors import (
    DatabaseUnavailable,
    FormatTooNarrow,
    InvalidRequest,
    LedgerError,
    NotFound,
    ServiceRefused,
)
from ledger.terminal import exit_status as exits


def postgres(kind: type[asyncpg.PostgresError], message: str) -> asyncpg.PostgresError:
    return asyncpg.PostgresError.new({"C": kind.sqlstate or "", "M": message, "D": "body=secret"})


LOST = DatabaseUnavailable("the database went away; try again")
FULL = postgres(asyncpg.TooManyConnectionsError, "sorry, too many clients already")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (LOST, 3, "the database went away; try again"),
        (InvalidRequest("name a source"), 2, "name a source"),
        (ServiceRefused(404, "nothing there"), 1, "nothing there"),
        (FULL, 3, "too many clients already (53300); it has no connection left; `ledger doctor`"),
        (postgres(asyncpg.QueryCanceledError, "canceling statement"), 3, "(57014); it cancelled"),
        (asyncpg.InterfaceError("connection is closed"), 3, "connection to the database failed"),
        (FormatTooNarrow("row 4 does not fit"), 3, "row 4 does not fit"),
        (OSError(28, "No space left on device"), 3, "No space left on device; correct it"),
        (TimeoutError(), 3, "no answer in time"),
        (KeyboardInterrupt(), 3, "stopped"),
        (KeyError("x"), 3, "KeyError at ?: 'x'; try again, and report it"),
        (ExceptionGroup("tasks", [OSError("gone"), ExceptionGroup("more", [FULL, LOST])]), 3,
         "the database went away"),
        (ExceptionGroup("tasks", [LOST, ValueError("odd")]), 3, "ValueError"),
        (ExceptionGroup("tasks", [InvalidRequest("name it"), InvalidRequest("two")]), 2, "name it"),
        (BaseExceptionGroup("tasks", [KeyboardInterrupt(), OSError("gone")]), 3, "stopped"),
    ],
)  # fmt: skip
def test_every_failure_has_a_status_and_one_sentence(
    error: BaseException, status: int, words: str
) -> None:
    assert exits.status_of(error) == status
    reported = exits.sentence(error)
    assert words in reported
    assert "\n" not in reported
    assert "secret" not in reported


@pytest.mark.parametrize(
    ("command", "error", "status"),
    [
        ("verify", ExceptionGroup("tasks", [OSError("gone"), KeyError("x")]), 3),
        ("verify", ServiceRefused(404, "no such source"), 2),
        ("prove straitsx 99999", ServiceRefused(404, "no such event"), 2),
        ("prove straitsx 99999", NotFound("no such event"), 2),
        ("wallets", ServiceRefused(404, "no such source"), 1),
    ],
)
def test_what_proves_never_ends_with_a_finding_that_it_did_not_make(
    monkeypatch: pytest.MonkeyPatch, command: str, error: Exception, status: int
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr("ledger.verify.database.run", fail)
    monkeypatch.setattr("ledger.client.service_client.Client.get", fail)
    assert cli.run(command.split()) == status


def test_a_result_that_was_not_read_is_no_pass(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    kept = {name: v for name, v in os.environ.items() if not name.startswith("LEDGER_")}
    command = [sys.executable, "-m", "ledger", "verify"]
    given = kept | {"LEDGER_DATA_DIR": str(tmp_path / "none")}
    done = subprocess.run(command, env=given, stdout=writing, check=False)
    os.close(writing)
    assert done.returncode == 3


def test_an_unexpected_failure_names_where_it_arose() -> None:
    def broken() -> None:
        raise LookupError("nothing")

    try:
        broken()
    except LookupError as error:
        reported = exits.sentence(error)
    assert reported.startswith("LookupError at test_exit_status.py:")
    assert issubclass(LedgerError, Exception)
