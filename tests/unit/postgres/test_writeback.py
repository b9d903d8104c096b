"""The kernel is told early of files that are written to, and of no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ledger.postgres.writeback import QUIET_SECONDS, SCAN_SECONDS, Writeback, beginner


class Begun(list[str]):
    def __call__(self, fd: int) -> None:
        self.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    database = tmp_path / "base" / "5"
    database.mkdir(parents=True)
    for name in ("100", "200"):
        (database / name).write_bytes(b"old")
    return database


def write(path: Path, text: bytes = b"more") -> None:
    """Write to a file so that its time is another, however fast this machine is."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_bytes(text)
    os.utime(path, ns=(before, max(before + 1, path.stat().st_mtime_ns)))


def test_only_files_that_were_written_to_are_begun(folder: Path) -> None:
    begun = Begun()
    files = Writeback(folder.parent.parent, begun)
    assert files.once(0.0) == [], "old files are only remembered"
    assert files.is_idle
    write(folder / "100")
    assert files.once(0.2) == [], "nothing is looked at between scans of an idle server"
    assert files.once(SCAN_SECONDS) == [str(folder / "100")]
    assert not files.is_idle
    assert files.once(SCAN_SECONDS + 0.2) == []
    write(folder / "100")
    write(folder / "200")
    assert files.once(SCAN_SECONDS + 0.4) == [str(folder / "100")]
    assert files.once(SCAN_SECONDS * 2) == [str(folder / "200")]
    assert begun == ["100", "100", "200"]
    quiet = SCAN_SECONDS * 2 + QUIET_SECONDS
    assert files.once(quiet + 0.1) == files.once(quiet + 0.3) == []
    assert files.is_idle


def test_a_new_file_is_found_and_a_dropped_one_forgotten(folder: Path) -> None:
    files = Writeback(folder.parent.parent, Begun())
    files.once(0.0)
    write(folder / "300")
    assert files.once(SCAN_SECONDS) == []
    write(folder / "300")
    assert files.once(SCAN_SECONDS * 2) == [str(folder / "300")]
    (folder / "300").unlink()
    assert files.once(SCAN_SECONDS * 2 + 0.2) == []
    assert files.is_idle
    folder.rename(folder.with_name("gone"))
    assert Writeback(folder, Begun()).once(0.0) == [], "a folder that is not there"


def test_the_kernel_takes_the_call(folder: Path) -> None:
    begin = beginner()
    if begin is None:
        pytest.skip("this system has no sync_file_range")
    with (folder / "100").open("r+b") as file:
        file.write(b"x" * 65_536)
        file.flush()
        assert begin(file.fileno()) == 0
        assert begin(10_000) == -1
