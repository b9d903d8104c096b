"""An export is whole or not there, and touches nothing but its own file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ledger.errors import InvalidRequest
from ledger.runtime.files import replacing


def write(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def test_a_link_at_the_place_is_replaced_and_never_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    place = tmp_path / "out.csv"
    place.symlink_to(victim)
    write(place, b"rows")
    assert victim.read_bytes() == b"precious"
    assert (place.is_symlink(), place.read_bytes()) == (False, b"rows")
    assert place.stat().st_mode & 0o777 == 0o600


def test_links_planted_where_drafts_were_change_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / f".out.csv.{os.getpid()}.new").symlink_to(victim)
    write(tmp_path / "out.csv", b"rows")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "out.csv").read_bytes() == b"rows"


def test_a_failure_leaves_what_was_there_and_no_draft(tmp_path: Path) -> None:
    place = tmp_path / "out.csv"
    place.write_bytes(b"before")

    def fail() -> None:
        with replacing(place) as file:
            file.write(b"half")
            raise OSError

    with pytest.raises(OSError):
        fail()
    assert [each.name for each in tmp_path.iterdir()] == ["out.csv"]
    assert place.read_bytes() == b"before"


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "link to a pipe"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    with socket.socket(socket.AF_UNIX) as listener:
        match kind:
            case "pipe":
                os.mkfifo(place)
            case "socket":
                listener.bind(str(place))
            case "folder":
                place.mkdir()
            case _:
                os.mkfifo(tmp_path / "pipe")
                place.symlink_to(tmp_path / "pipe")
        mode = place.lstat().st_mode
        with pytest.raises(InvalidRequest):
            write(place, b"rows")
    assert place.lstat().st_mode == mode
