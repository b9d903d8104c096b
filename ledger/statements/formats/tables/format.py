"""The formats `csv` and `xlsx`: a table whose columns a profile names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from ledger.config.statement_profile import StatementProfile, account_number
from ledger.model import changed
from ledger.statements.formats.tables.cells import Row, is_blank
from ledger.statements.formats.tables.columns import check_profile, find_header, listed
from ledger.statements.formats.tables.csv_rows import DELIMITERS, CsvFile
from ledger.statements.formats.tables.lines import LineReader, Stated, with_fees
from ledger.statements.formats.tables.profiles import (
    fitting_profile,
    profiles_that,
    shipped_profiles,
)
from ledger.statements.formats.tables.xlsx_rows import XlsxFile
from ledger.statements.model import Reading, Statement, StatementFormat, StatementRefused
from ledger.statements.validation import checked_statement, zone

CSV: Final = "csv"
XLSX: Final = "xlsx"

_FIT_BYTES: Final = 64 * 1024
"""Bytes of a CSV in which a profile's header is looked for."""
_BINARY: Final = (b"%PDF", b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"<")
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_ACCOUNT: Final = re.compile(
    r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]){6,32}(?![A-Z0-9])|(?<!\d)\d[\d-]{4,38}\d(?!\d)", re.ASCII
)
"""An IBAN, or a number of at least six digits."""
_LABELLED_MAX: Final = 200
"""Characters in which an account or a currency is looked for."""
_CODE: Final = re.compile(r"(?<!\S)[A-Z]{3,5}(?!\S)")


def read_csv(body: bytes, how: Reading) -> Statement:
    """Read a CSV by its profile, or the one that fits. Raises StatementRefused."""
    profile, notes = how.profile, list[str]()
    if not profile.effective_at:
        head = CsvFile(body[:_FIT_BYTES], profile, is_head=True)

        def fits(candidate: StatementProfile) -> bool:
            return CsvFile(body[:_FIT_BYTES], candidate, is_head=True).find(candidate) is not None

        profile, notes = _fitting(fits, how, head.head_rows(profile))
    check_profile(profile)
    file = CsvFile(body, profile)
    return _statement(CSV, file, body, profile, how, notes)


def read_xlsx(body: bytes, how: Reading) -> Statement:
    """Read a sheet of an XLSX by its profile, or the one that fits. Raises StatementRefused."""
    profile, notes = how.profile, list[str]()
    file = XlsxFile(body, profile.sheet)
    if not profile.effective_at:
        first = file

        def opened(sheet: str | None) -> XlsxFile:
            return first if sheet in (None, how.profile.sheet) else XlsxFile(body, sheet)

        def fits(candidate: StatementProfile) -> bool:
            return opened(candidate.sheet).find(candidate) is not None

        profile, notes = _fitting(fits, how, file.head_rows(profile))
        file = opened(profile.sheet)
    check_profile(profile)
    return _statement(XLSX, file, body, profile, how, notes)


def _fitting(
    fits: Callable[[StatementProfile], bool], how: Reading, rows: Sequence[Row]
) -> tuple[StatementProfile, list[str]]:
    """Return the profile that fits, under the settings given, and the sentence about it."""
    number, cells = _widest(rows)
    if len(cells) < 2:
        texts = " ".join(" ".join(cells).split())
        raise StatementRefused(
            f"line {number}: {texts[:40]!r} is no row of a table; name the format of the file "
            "(--format), or its delimiter (--column delimiter=;)"
        )
    header = f"line {number}: the header has {listed([' '.join(c.split()) for c in cells])}"
    name, profile = fitting_profile(fits, how.profiles, how.profile, header)
    kind = "of the source" if name in how.profiles else "that ships with the ledger"
    return profile, [f"read by the profile {name} {kind}, whose columns the header has"]


def _widest(rows: Sequence[Row]) -> Row:
    """Return the first of the rows with the most texts, which is the header or like it."""
    return max(
        ((number, cells) for number, cells in rows if not is_blank(cells)),
        key=lambda row: sum(1 for cell in row[1] if cell.strip()),
        default=(1, []),
    )


def _other_profiles(rows: Sequence[Row], how: Reading) -> str:
    """Name the profiles that fit a file which the chosen one does not fit; "" = none."""
    header = _widest(rows)

    def fits(candidate: StatementProfile) -> bool:
        return find_header([header], candidate) is not None

    others = ", ".join(profiles_that(fits, {**shipped_profiles(), **how.profiles}))
    return f"; the header has the columns of {others} (--profile)" if others else ""


def _statement(
    name: str,
    file: CsvFile | XlsxFile,
    body: bytes,
    profile: StatementProfile,
    how: Reading,
    notes: list[str],
) -> Statement:
    try:
        above, columns, table = file.open(profile)
    except StatementRefused as error:
        others = _other_profiles(file.head_rows(profile), how)
        raise StatementRefused(f"{error}{others}") from error
    rows_above = [row for row in file.head_rows(profile) if row[0] < above and not is_blank(row[1])]
    if rows_above:
        first, last = rows_above[0][0], rows_above[-1][0]
        lines_above = f"line {first}" if first == last else f"lines {first} to {last}"
        notes = [*notes, f"{lines_above} above the header: no rows of the statement"]
    stated = Stated(
        account=account_number(_after(rows_above, profile.account_after, _ACCOUNT)),
        currency=columns.currency or _after(rows_above, profile.currency_after, _CODE),
    )
    content = LineReader(columns, profile, how, stated).read(table)
    return checked_statement(
        [
            line if line.currency else changed(line, currency=content.currency)
            for line in with_fees(content)
        ],
        body=body,
        format=name,
        currency=content.currency,
        window=how.window,
        opening=content.opening,
        closing=content.closing,
        account=content.account,
        where=zone(how, profile),
        are_days=content.are_days and bool(content.lines),
        notes=[*notes, *content.notes],
    )


def _after(rows: Sequence[Row], labels: Sequence[str], pattern: re.Pattern[str]) -> str:
    """Return what stands behind one of the labels in the rows above the header; "" = nothing."""
    for _, cells in rows:
        texts = [" ".join(cell.split()) for cell in cells]
        for place, text in enumerate(texts):
            label = next((each for each in labels if _begins(text, each)), None)
            if label is None:
                continue
            for behind in (text[len(label) :], *texts[place + 1 :]):
                match = pattern.search(behind[:_LABELLED_MAX])
                if match:
                    return match[0]
    return ""


def _begins(text: str, label: str) -> bool:
    return text.casefold().startswith(label.casefold())


def _recognises_csv(head: bytes, profile: StatementProfile) -> bool:
    """Return whether a file is a text with a delimiter; the last of the formats to be tried."""
    if head.startswith(_BINARY):
        return False
    if profile.effective_at or head.startswith(_UTF_16):
        return True
    return b"\x00" not in head and any(each.encode() in head for each in DELIMITERS)


def _recognises_xlsx(head: bytes, profile: StatementProfile) -> bool:
    """Return False: `reader` looks into the zip, which the first bytes do not show."""
    return False


CSV_FORMAT: Final = StatementFormat(CSV, _recognises_csv, read_csv)
XLSX_FORMAT: Final = StatementFormat(XLSX, _recognises_xlsx, read_xlsx)
