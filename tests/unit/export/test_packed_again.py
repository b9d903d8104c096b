"""Law: an archive that no program writes is refused, whatever its headers say."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import Tampered
from ledger.export.pack_file import PackReader

BLOCK = 512


def archive(tar_format: int) -> bytes:
    """Return an archive with two members, the name of one longer than a header takes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for name in ("about.json", "books/" + "x" * 120):
            info = tarfile.TarInfo(name)
            info.size = 700
            tar.addfile(info, io.BytesIO(bytes(700)))
    return out.getvalue()


def with_header(data: bytes, start: int, place: int, field: bytes) -> bytes:
    """Return the archive with a field of one header replaced, under a right checksum."""
    block = bytearray(data[start : start + BLOCK])
    block[place : place + len(field)] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return data[:start] + bytes(block) + data[start + BLOCK :]


def number(value: int) -> bytes:
    """Return a number as GNU tar writes those that octal digits cannot hold."""
    return (b"\xff" if value < 0 else b"\x80") + (value % 256**11).to_bytes(11, "big")


@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"S", b"5", b"Z"])
@pytest.mark.parametrize("size", [2**62, 2**63 - 1, 2**80, -1, -512, -(2**63), 10**9])
def test_a_size_beyond_the_file_is_refused(kind: bytes, size: int) -> None:
    data = with_header(archive(tarfile.GNU_FORMAT), 0, 124, number(size))
    data = with_header(data, 0, 156, kind)
    with pytest.raises(Tampered):
        PackReader(io.BytesIO(data)).scan()


def test_long_names_without_end_are_refused() -> None:
    first = with_header(archive(tarfile.GNU_FORMAT), 0, 156, b"L")[:BLOCK]
    link = with_header(first, 0, 124, b"%011o\0" % 5) + b"name".ljust(BLOCK, b"\0")
    with pytest.raises(Tampered):
        PackReader(io.BytesIO(link * 5_000)).scan()


@settings(max_examples=400)
@given(st.data())
def test_a_damaged_archive_is_read_or_refused(data: st.DataObject) -> None:
    found = archive(data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])))
    start = data.draw(st.sampled_from(range(0, len(found), BLOCK)))
    place = data.draw(st.integers(0, 499))
    field = data.draw(st.binary(min_size=1, max_size=12))
    changed = with_header(found, start, place, field)
    try:
        PackReader(io.BytesIO(changed)).scan()
    except Tampered:
        return
