"""Read a statement's file: find its format, hand it to the parser of that format."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ledger.model import shown
from ledger.statements import camt053 as statement_camt
from ledger.statements import csv_columns as statement_csv
from ledger.statements import mt940 as statement_mt940
from ledger.statements import straitsx as statement_straitsx
from ledger.statements.model import BYTES_MAX, FORMATS, Statement, StatementRefused

_BOM = b"\xef\xbb\xbf"


def read_statement(
    body: bytes,
    *,
    format: str | None,  # noqa: A002 - the word users know
    currency: str | None,
    columns: Mapping[str, str] | None,
    window: tuple[datetime, datetime] | None,
    json_format: str | None = None,
) -> Statement:
    """Return what the file says. `format` None = found out from the bytes.

    `currency` must be given where the file names none; `columns` is the column map of a CSV file
    (see `statement_csv`), for camt.053 and MT940 it may declare `time_zone`; `window` is the
    period (from inclusive, to exclusive) where the file states none; `json_format` is the format
    that the provider declares for its JSON. Raises StatementRefused, naming the line, for anything
    malformed or a balance that does not add up.
    """
    if len(body) > BYTES_MAX:
        raise StatementRefused(f"the file is larger than {BYTES_MAX} bytes; split it by time")
    if not body.strip():
        raise StatementRefused("the file is empty; export the statement again")
    match format or detected(body, columns, json_format):
        case statement_straitsx.FORMAT:
            return statement_straitsx.read(body, currency, window)
        case statement_csv.FORMAT:
            return statement_csv.read(body, currency, columns, window)
        case statement_camt.FORMAT:
            return statement_camt.read(body, currency, columns, window)
        case statement_mt940.FORMAT:
            return statement_mt940.read(body, currency, columns, window)
        case other:
            raise StatementRefused(
                f"{shown(other)} is no format; it is one of {', '.join(FORMATS)}"
            )


def detected(body: bytes, columns: Mapping[str, str] | None, json_format: str | None = None) -> str:
    """Return the format that the first bytes show. Raises StatementRefused when none does."""
    head = body[:4096].removeprefix(_BOM).lstrip()
    if head.startswith((b"{", b"[")) and not _is_swift(head):
        return json_format or statement_straitsx.FORMAT
    if head.startswith(b"<"):
        return statement_camt.FORMAT
    if _is_swift(head):
        return statement_mt940.FORMAT
    if columns and "effective_at" in columns:
        return statement_csv.FORMAT
    raise StatementRefused(
        f"the format is none of {', '.join(FORMATS)}; for CSV say which column is what "
        "(--column amount=Amount --column effective_at=Date …)"
    )


def _is_swift(head: bytes) -> bool:
    return head.startswith((b":20:", b"{1:")) or b"\n:20:" in head
