"""The settings of `[sources.<name>.statements.<profile>]`: how a statement's file is written."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class StatementProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the files of one bank or provider are written; "" and None = not declared."""

    format: str | None = None
    """The format's name; None = recognised from the file."""
    time_zone: str | None = None
    """Of days and of times without an offset, as `Asia/Singapore`; None = UTC, except in CSV."""

    # Columns of CSV and XLSX: the name in the header of the column that has …
    amount: str | None = None
    indicator: str | None = None
    debit: str | None = None
    credit: str | None = None
    effective_at: str | None = None
    time: str | None = None
    id: str | None = None
    kind: str | None = None
    currency: str | None = None
    contract_id: str | None = None
    idempotency_id: str | None = None
    reference: str | None = None
    balance: str | None = None
    description: str | None = None

    # How values are written.
    time_format: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    credit_word: str | None = None
    debit_word: str | None = None
    opening: str | None = None
    closing: str | None = None


def account_number(text: str) -> str:
    """Return an account's number as it is compared: without blanks, in upper case."""
    return "".join(text.split()).upper()


def profile_of(table: Mapping[str, object]) -> StatementProfile:
    """Return the profile of a table of settings. Raises ValueError, naming what is wrong."""
    known = StatementProfile.__struct_fields__
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise ValueError(f"the profile names {', '.join(unknown)}; it takes {', '.join(known)}")
    try:
        return msgspec.convert(table, StatementProfile, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"the profile of the file is wrong: {error}") from error
