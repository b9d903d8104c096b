"""Read a statement's file: recognise its format and hand it to the parser of that format."""

from __future__ import annotations

from typing import Final

from ledger.config.statement_profile import StatementProfile
from ledger.model import shown
from ledger.statements.formats import archive, straitsx
from ledger.statements.formats.camt053 import format as camt053
from ledger.statements.formats.mt940 import format as mt940
from ledger.statements.formats.tables.format import CSV_FORMAT, XLSX_FORMAT
from ledger.statements.formats.tables.xlsx_rows import is_spreadsheet
from ledger.statements.model import (
    BYTES_MAX,
    Reading,
    Statement,
    StatementFormat,
    StatementRefused,
)

FORMATS: Final[tuple[StatementFormat, ...]] = (
    camt053.FORMAT,
    mt940.FORMAT,
    straitsx.FORMAT,
    XLSX_FORMAT,
    CSV_FORMAT,
)
"""Every format; the first that recognises a file reads it, and JSON the one declared for it."""

FORMAT_NAMES: Final = tuple(sorted(each.name for each in FORMATS))
HEAD_BYTES: Final = 4096
"""The bytes by which a format is recognised."""

_BOM: Final = b"\xef\xbb\xbf"


def read_statement(
    body: bytes,
    how: Reading,
    *,
    json_format: str | None = None,
    bytes_max: int = BYTES_MAX,
) -> Statement:
    """Return the statement of a file; `json_format` is the one that the provider declares.

    Raises StatementRefused, naming the line, for anything malformed or a balance that does not add
    up.
    """
    if len(body) > bytes_max:
        raise StatementRefused(f"the file is larger than {bytes_max} bytes; split it by time")

    def read_one(file: bytes, how: Reading) -> Statement:
        if not file.strip():
            raise StatementRefused("the file is empty; export the statement again")
        name = how.format or how.profile.format
        parser = named(name) if name else recognised(file, how.profile, json_format)
        return parser.read(file, how)

    if archive.is_archive(body):
        return archive.read_archive(body, how, read_one, bytes_max)
    return read_one(body, how)


def named(name: str) -> StatementFormat:
    """Return the format of a name. Raises StatementRefused without one."""
    for each in FORMATS:
        if each.name == name:
            return each
    raise StatementRefused(f"{shown(name)} is no format; it is one of {', '.join(FORMAT_NAMES)}")


def recognised(
    body: bytes, profile: StatementProfile, json_format: str | None = None
) -> StatementFormat:
    """Return the format of a file by its first bytes. Raises StatementRefused without one."""
    head = body[:HEAD_BYTES].removeprefix(_BOM).lstrip()
    if head.startswith((b"{", b"[")) and not head.startswith(b"{1:"):  # which is SWIFT
        return named(json_format or straitsx.NAME)
    if is_spreadsheet(body):
        return XLSX_FORMAT
    for each in FORMATS:
        if each.recognises(head, profile):
            return each
    raise StatementRefused(
        f"the format is none of {', '.join(FORMAT_NAMES)}; for CSV name the column of each field "
        "(--column amount=Amount --column effective_at=Date …)"
    )
