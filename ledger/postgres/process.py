"""Under which account PostgreSQL's programs run, and whether a process still does.

PostgreSQL refuses to run as root. For root there are two ways that leave every permission outside
the data directory as it is: another account (`setuid`), or a user namespace in which root looks
like one. Either way the cluster's directory is handed over as an open file descriptor: the
server reaches it as /proc/self/fd/N even where its account may not enter the directories above.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final, Literal

from ledger.errors import PostgresError
from ledger.postgres import user_namespace as postgres_userns
from ledger.postgres.binaries import PROGRAM_SECONDS_MAX, Binaries, readable_copy

if sys.platform != "win32":
    import pwd

DEFAULT_ACCOUNTS: Final = ("postgres", "nobody")
"""Whom root becomes, the first that exists, unless LEDGER_PG_USER names another."""

_CHILDREN: Final[dict[int, subprocess.Popen[bytes]]] = {}
"""Servers this process is the parent of, so that a dead one is reaped and seen as dead."""


@dataclass(frozen=True, slots=True)
class SystemAccount:
    """Who the server is. `uid` and `gid` are what it sees itself as."""

    uid: int
    gid: int
    name: str
    how: Literal["direct", "setuid", "namespace"]

    def command(self, argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        """Return the command line and the Popen arguments that run `argv` as this account."""
        match self.how:
            case "direct":
                return list(argv), {}
            case "setuid":
                return list(argv), {"user": self.uid, "group": self.gid, "extra_groups": []}
            case "namespace":
                launcher = [sys.executable, "-I", "-S", postgres_userns.__file__]
                return [*launcher, str(self.uid), str(self.gid), *argv], {}

    def own(self, path: Path) -> None:
        """Give a file or directory of ours to this account."""
        if self.how == "setuid":
            os.chown(path, self.uid, self.gid)


def accounts(pgdata: Path, pg_user: str | None) -> list[SystemAccount]:
    """List the accounts to try, best first; an existing cluster is run by its owner.

    Raises PostgresError if the cluster belongs to somebody else or `pg_user` does not exist.
    """
    us = os.geteuid()
    owner = pgdata.stat() if pgdata.exists() else None
    if us != 0:
        if owner is not None and owner.st_uid != us:
            raise PostgresError(
                f"{pgdata} belongs to {_name(owner.st_uid)}, this is {_name(us)}: start the ledger "
                "as its owner, or set LEDGER_DATA_DIR to another directory"
            )
        return [SystemAccount(us, os.getegid(), _name(us), "direct")]
    named = _named(pg_user)
    inside = [replace(account, how="namespace") for account in named[:1] or _anyone()]
    if owner is None:
        return [*named, *inside]
    if owner.st_uid == 0:
        return inside
    return [SystemAccount(owner.st_uid, owner.st_gid, _name(owner.st_uid), "setuid")]


def _named(pg_user: str | None) -> list[SystemAccount]:
    found = []
    for name in (pg_user,) if pg_user else DEFAULT_ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        found.append(SystemAccount(entry.pw_uid, entry.pw_gid, name, "setuid"))
    if pg_user and (not found or found[0].uid == 0):
        raise PostgresError(
            f"LEDGER_PG_USER={pg_user} is not an account that PostgreSQL can run as here: "
            "name an existing one other than root, or unset it"
        )
    return found


def _anyone() -> list[SystemAccount]:
    # PostgreSQL looks itself up in the account database, so the id has to be in there.
    others = (entry for entry in pwd.getpwall() if entry.pw_uid != 0)
    return [SystemAccount(e.pw_uid, e.pw_gid, e.pw_name, "namespace") for e in others][:1]


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def settle(
    binaries: Binaries, candidates: Sequence[SystemAccount]
) -> tuple[SystemAccount, Binaries]:
    """Choose the first account that can run the programs, copying them where it cannot read them.

    Raises PostgresError that says why each account was passed over.
    """
    refused = []
    for account in candidates:
        if account.how == "direct":
            return account, binaries
        issue = _trial(account, ["/bin/sh", "-c", ":"])
        if issue is None:
            issue = _trial(account, [str(binaries.path / "postgres"), "--version"])
            if issue is None:
                return account, binaries
            copy = readable_copy(binaries)
            if copy and _trial(account, [str(copy.path / "postgres"), "--version"]) is None:
                return account, copy
        refused.append(f"{account.name} by {account.how}: {issue}")
    raise PostgresError(
        "PostgreSQL does not run as root, and no other way was open "
        f"({'; '.join(refused) or 'there is no other account'}). What to do: run the ledger as an "
        "ordinary user, set LEDGER_PG_USER to an account that may read "
        f"{binaries.path}, or set LEDGER_DATABASE_URL to a server that runs already"
    )


def _trial(account: SystemAccount, argv: Sequence[str]) -> str | None:
    """Return None if the account can run the command, else what happened."""
    line, arguments = account.command(argv)
    try:
        done = subprocess.run(  # noqa: S603 - a shell that does nothing, or the located program
            line, cwd="/", env=environment(), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=PROGRAM_SECONDS_MAX, check=False, **arguments,
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
def handed_over(account: SystemAccount, directory: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Open a directory for a program of the account: its name there, descriptors to pass on."""
    if account.how == "direct" or not Path("/proc/self/fd").is_dir():
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
    line, arguments = account.command(argv)
    return subprocess.Popen(  # noqa: S603 - the located programs, our own arguments
        line, cwd="/", env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True, pass_fds=passed, **arguments,
    )  # fmt: skip


def remember(process: subprocess.Popen[bytes]) -> int:
    """Remember a server started by this process, whoever looks after it later. Returns its pid."""
    _CHILDREN[process.pid] = process
    return process.pid


def is_child(pid: int) -> bool:
    """Tell whether a process is a server that this process started and has not yet reaped."""
    return pid in _CHILDREN


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended but was not yet reaped does not."""
    child = _CHILDREN.get(pid)
    if child is not None:
        if child.poll() is None:
            return True
        del _CHILDREN[pid]
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
    """Tell whether a live process can be a PostgreSQL process of this cluster.

    Looks at its working directory, which is the cluster's; at its name where that is hidden.
    """
    if not alive(pid):
        return False
    process = Path(f"/proc/{pid}")
    if not process.is_dir():
        return True  # no /proc here: a connection will tell
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
    """Tell whether any process on this machine can belong to the cluster."""
    if not Path("/proc/self").exists():
        return True
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return any(_program(pid) == "postgres" and serves(pid, pgdata) for pid in pids)
