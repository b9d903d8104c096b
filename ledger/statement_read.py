"""Read a statement's file: find its format, hand it to the parser of that format."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ledger.statement import Statement, StatementRefused


def read_statement(
    body: bytes,
    *,
    format: str | None,  # noqa: A002 - the word users know
    currency: str | None,
    columns: Mapping[str, str] | None,
    window: tuple[datetime, datetime] | None,
) -> Statement:
    """Return what the file says. `format` None = found out from the bytes.

    `currency` must be given where the file names none, `columns` for CSV (see `statement_csv`);
    `window` is the period (from inclusive, to exclusive) where the file states none. Raises
    StatementRefused, naming the line, for anything malformed or a balance that does not add up.
    """
    raise StatementRefused(f"the format {format!r} is not read")
