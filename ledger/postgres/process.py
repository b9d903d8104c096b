"""Under which account PostgreSQL's programs run, and whether a process still does.

PostgreSQL refuses to run as root, so root runs it under an ordinary account (setuid). Every
permission outside the cluster's directory stays as it is: the directory is passed on as an open
file descriptor, so that the server reaches it as /proc/self/fd/N even where its account may not
enter the directories above.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from ledger.errors import PostgresError
from ledger.postgres.binaries import PROGRAM_SECONDS_MAX, Binaries, readable_copy

if sys.platform != "win32":
    import pwd

DEFAULT_ACCOUNTS: Final = ("postgres", "nobody")
"""Accounts that root runs the server under: the first that exists, unless LEDGER_PG_USER is set."""

CREATE_ACCOUNT: Final = (
    "create an ordinary account (`useradd --system ledger-postgres`) and set "
    "LEDGER_PG_USER=ledger-postgres"
)

_STARTED: Final[dict[int, subprocess.Popen[bytes]]] = {}
"""Servers that this process started, by id: it has to reap them when they end."""


@dataclass(frozen=True, slots=True)
class SystemAccount:
    """An account of the operating system that the server runs under."""

    uid: int
    gid: int
    name: str
    is_current: bool
    """Whether it is the account of this process, so that nothing has to be switched."""

    def popen_arguments(self) -> dict[str, Any]:
        """Return the arguments of Popen that run a program as this account."""
        if self.is_current:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def take(self, path: Path) -> None:
        """Make this account the owner of a file or directory."""
        if not self.is_current:
            os.chown(path, self.uid, self.gid)


def accounts(pgdata: Path, pg_user: str | None) -> list[SystemAccount]:
    """List the accounts to try, best first; an existing cluster is run by its owner, unless that is
    root.

    Raises PostgresError if the cluster belongs to another account than this process may use, or
    `pg_user` does not exist.
    """
    current = os.geteuid()
    owner = pgdata.stat() if pgdata.exists() else None
    if current != 0:
        if owner is not None and owner.st_uid != current:
            raise PostgresError(
                f"{pgdata} belongs to {_name(owner.st_uid)}, this is {_name(current)}: start the "
                "ledger as its owner, or set LEDGER_DATA_DIR to another directory"
            )
        return [SystemAccount(current, os.getegid(), _name(current), is_current=True)]
    ordinary = _ordinary_accounts(pg_user)
    if owner is None or owner.st_uid == 0:
        return ordinary
    return [SystemAccount(owner.st_uid, owner.st_gid, _name(owner.st_uid), is_current=False)]


def _ordinary_accounts(pg_user: str | None) -> list[SystemAccount]:
    found = []
    for name in (pg_user,) if pg_user else DEFAULT_ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        found.append(SystemAccount(entry.pw_uid, entry.pw_gid, name, is_current=False))
    if pg_user and (not found or found[0].uid == 0):
        raise PostgresError(
            f"LEDGER_PG_USER={pg_user} is not an account that PostgreSQL can run as here: "
            "name an existing one other than root, or unset it"
        )
    return found


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def choose_account(
    binaries: Binaries, candidates: Sequence[SystemAccount]
) -> tuple[SystemAccount, Binaries]:
    """Choose the first account that can run the programs, copying them where it cannot read them.

    Raises PostgresError with the reason for every account that cannot.
    """
    refused = []
    for account in candidates:
        if account.is_current:
            return account, binaries
        issue = _trial(account, ["/bin/sh", "-c", ":"])
        if issue is None:
            issue = _trial(account, [str(binaries.path / "postgres"), "--version"])
            if issue is None:
                return account, binaries
            copy = readable_copy(binaries)
            if copy and _trial(account, [str(copy.path / "postgres"), "--version"]) is None:
                return account, copy
        refused.append(f"{account.name}: {issue}")
    tried = "; ".join(refused) or f"there is no account named {' or '.join(DEFAULT_ACCOUNTS)}"
    raise PostgresError(
        f"PostgreSQL does not run as root, and no ordinary account can run it ({tried}). What to "
        f"do: {CREATE_ACCOUNT}; it must be able to read {binaries.path}. Or run the ledger as an "
        "ordinary user, or set LEDGER_DATABASE_URL to a server that runs already"
    )


def _trial(account: SystemAccount, argv: Sequence[str]) -> str | None:
    """Return None if the account can run the command, else what happened."""
    try:
        done = subprocess.run(  # noqa: S603 - a shell that does nothing, or the located program
            argv, cwd="/", env=environment(), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=PROGRAM_SECONDS_MAX, check=False, **account.popen_arguments(),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    text = done.stderr.decode("utf-8", "replace").strip()
    return None if done.returncode == 0 else f"{text[-200:]} (exit status {done.returncode})"


def environment() -> dict[str, str]:
    """Return the environment of the programs: English messages, nothing of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return {"LC_ALL": "C", "TZ": "UTC", **kept}


@contextmanager
def opened_directory(
    account: SystemAccount, directory: Path
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Open a directory for a program of the account; yield its name and descriptors to pass."""
    if account.is_current or not Path("/proc/self/fd").is_dir():
        yield str(directory), ()
        return
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{opened}", (opened,)
    finally:
        os.close(opened)


def launch(
    account: SystemAccount, argv: Sequence[str], log: IO[bytes], passed: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C and our death do not reach it."""
    return subprocess.Popen(  # noqa: S603 - the located programs, our own arguments
        argv, cwd="/", env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True, pass_fds=passed, **account.popen_arguments(),
    )  # fmt: skip


def remember(process: subprocess.Popen[bytes]) -> int:
    """Remember a server that this process started, so that its end is noticed. Returns its pid."""
    _STARTED[process.pid] = process
    return process.pid


def was_started_here(pid: int) -> bool:
    """Return whether a process is a server that this process started and has not yet reaped."""
    return pid in _STARTED


def alive(pid: int) -> bool:
    """Return whether a process runs; one that ended but was not yet reaped does not."""
    started = _STARTED.get(pid)
    if started is not None:
        if started.poll() is None:
            return True
        del _STARTED[pid]
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _state(pid) != "Z"


def _state(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[0]


def serves(pid: int, pgdata: Path) -> bool:
    """Return whether a live process can be a PostgreSQL process of this cluster.

    Looks at its working directory, which is the cluster's; at its name where that is hidden.
    """
    if not alive(pid):
        return False
    process = Path(f"/proc/{pid}")
    if not process.is_dir():
        return True  # no /proc here: a connection shows it
    try:
        return (process / "cwd").samefile(pgdata)
    except OSError:
        return _program(pid) == "postgres"


def _program(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def any_serves(pgdata: Path) -> bool:
    """Return whether any process on this machine can belong to the cluster."""
    if not Path("/proc/self").exists():
        return True
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return any(_program(pid) == "postgres" and serves(pid, pgdata) for pid in pids)
