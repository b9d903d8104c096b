"""CSV statements of any provider, by a declared column map; only the delimiter is guessed.

The map names the column of each field, and how values are written:

* columns: `amount` (signed), or `amount` with `indicator`, or `debit` and `credit`; `effective_at`,
  and `time` where a column of its own has it; `id`, `kind`, `currency`, `contract_id`,
  `idempotency_id`, `reference`, `balance`, `description`;
* spelling: `time_format` (strptime; ISO 8601 without), `time_zone` (for times without an offset),
  `decimal` ("." or ","), `thousands`, `delimiter`, `encoding`, `credit_word` and `debit_word`;
* balances that no column has: `opening`, `closing`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from ledger.config.statement_profile import StatementProfile
from ledger.model import as_note, changed, shown
from ledger.statements.model import (
    Reading,
    Statement,
    StatementFormat,
    StatementLine,
    StatementRefused,
)
from ledger.statements.validation import (
    agreed_currency,
    check_line_count,
    checked_statement,
    money,
    refusal,
    text,
    zone,
)

NAME: Final = "csv"
COLUMNS: Final = frozenset(
    {"amount", "indicator", "debit", "credit", "effective_at", "time", "id", "kind", "currency",
     "contract_id", "idempotency_id", "reference", "balance", "description"}
)  # fmt: skip
SPELLINGS: Final = frozenset(
    {"time_format", "time_zone", "decimal", "thousands", "delimiter", "encoding", "credit_word",
     "debit_word", "opening", "closing"}
)  # fmt: skip
COLUMNS_MAX: Final = 256
DELIMITERS: Final = (",", ";", "\t", "|")
ENCODINGS: Final = frozenset({"utf-8", "utf-16", "latin-1", "cp1252"})

_SIGNS: Final = {
    "credit": 1, "c": 1, "cr": 1, "crdt": 1, "in": 1, "+": 1,
    "debit": -1, "d": -1, "dr": -1, "dbit": -1, "out": -1, "-": -1,
}  # fmt: skip
_GROUPS: Final = re.compile(r"[+-]?\d{1,3}(?:@\d{3})+(?:\.\d+)?", re.ASCII)


class _Row:
    """One row of the file, with its cells by the names of the map."""

    __slots__ = ("cells", "number", "places")

    def __init__(self, number: int, cells: list[str], places: Mapping[str, int]) -> None:
        self.number = number
        self.cells = cells
        self.places = places

    def cell(self, name: str) -> str:
        """Return the cell of a column of the map, trimmed; "" without such a column."""
        place = self.places.get(name)
        return "" if place is None else self.cells[place].strip()

    def word(self, name: str) -> str | None:
        """Return an id or a word of the row; None when blank."""
        return text(self.number, name, self.cell(name))


def read(body: bytes, how: Reading) -> Statement:
    """Read a CSV file by its column map. Raises StatementRefused, naming the line."""
    spelled = columns_of(how.profile)
    _check_map(spelled)
    where = zone(how.profile)
    stated: str | None = None
    lines = []
    for row in _rows(_decoded(body, spelled.get("encoding", "utf-8")), spelled):
        line = _line(row, spelled, where)
        stated = _one_currency(stated, line)
        lines.append(line)
    agreed_on = agreed_currency(how.currency, stated)
    return checked_statement(
        [_in(line, agreed_on) for line in lines],
        body=body,
        format=NAME,
        currency=agreed_on,
        window=how.window,
        opening=_amount(0, "opening", spelled.get("opening", ""), spelled),
        closing=_amount(0, "closing", spelled.get("closing", ""), spelled),
    )


def columns_of(profile: StatementProfile) -> dict[str, str]:
    """Return what a profile declares, without its format."""
    declared = msgspec.structs.asdict(profile)
    return {name: value for name, value in declared.items() if value and name != "format"}


def _check_map(spelled: Mapping[str, str]) -> None:
    unknown = sorted(set(spelled) - COLUMNS - SPELLINGS)
    if unknown:
        raise StatementRefused(
            f"the column map names {', '.join(unknown)}; it takes "
            f"{', '.join(sorted(COLUMNS))} and {', '.join(sorted(SPELLINGS))}"
        )
    if "effective_at" not in spelled:
        raise StatementRefused("the column map lacks effective_at; name the column of the time")
    if ("amount" in spelled) == ("debit" in spelled and "credit" in spelled):
        raise StatementRefused("name the amount's column, or those of both debit and credit")
    decimal, thousands = spelled.get("decimal", "."), spelled.get("thousands", "")
    if decimal not in (".", ",") or len(thousands) > 1 or thousands in (decimal, "-", "+"):
        raise StatementRefused(
            f"decimal is {shown(decimal)}, thousands {shown(thousands)}; decimal is . or , and "
            "thousands one other character, or nothing"
        )
    if thousands.isalnum():
        raise StatementRefused(f"thousands is {shown(thousands)}; it is no letter or digit")
    encoding = spelled.get("encoding", "utf-8")
    if encoding.lower() not in ENCODINGS:
        raise StatementRefused(
            f"encoding is {shown(encoding)}; it is one of {', '.join(sorted(ENCODINGS))}"
        )
    _check_time_format(spelled.get("time_format"))


def _check_time_format(pattern: str | None) -> None:
    """Refuse a pattern that strptime cannot use. It compiles one to a regular expression."""
    try:
        if pattern is not None:
            datetime.strptime("", pattern)  # noqa: DTZ007 - nothing is read
    except (re.error, KeyError, IndexError, TypeError) as error:
        raise _bad_format(pattern) from error
    except ValueError as error:
        if "does not match" not in str(error):
            raise _bad_format(pattern) from error


def _bad_format(pattern: object) -> StatementRefused:
    return StatementRefused(
        f"time_format {shown(pattern)} is no pattern of strptime; write it like %d/%m/%Y %H:%M"
    )


def _decoded(body: bytes, encoding: str) -> str:
    name = "utf-8-sig" if encoding.lower() == "utf-8" else encoding
    try:
        words = body.decode(name)
    except UnicodeError as error:
        raise StatementRefused(
            f"the file is not {encoding}: {error}; declare its encoding in the column map"
        ) from error
    if "\x00" in words:
        number = words.count("\n", 0, words.index("\x00")) + 1
        raise refusal(number, "holds a NUL character; export the statement again")
    return words


def _rows(words: str, spelled: Mapping[str, str]) -> Iterator[_Row]:
    delimiter = _delimiter(words, spelled)
    reader = csv.reader(io.StringIO(words, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        places = _places(header, spelled)
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            check_line_count(reader.line_num - 1)
            if len(cells) != len(header):
                raise refusal(reader.line_num, f"has {len(cells)} cells, the header "
                              f"{len(header)}; export the statement again")  # fmt: skip
            yield _Row(reader.line_num, cells, places)
    except csv.Error as error:
        raise refusal(reader.line_num, f"{error}; export the statement again") from error


def _delimiter(words: str, spelled: Mapping[str, str]) -> str:
    """Return the declared delimiter, or the one under which the header has every column."""
    declared = spelled.get("delimiter")
    if declared:
        declared = "\t" if declared in ("tab", "\\t") else declared
        if len(declared) != 1 or declared in '"\r\n':
            raise StatementRefused(f"delimiter is {shown(declared)}; it is one character, or tab")
        return declared
    header = words[: 64 * 1024].splitlines()[:1]
    required = {name for key, name in spelled.items() if key in COLUMNS}
    for delimiter in DELIMITERS:
        names = next(csv.reader(header, delimiter=delimiter), [])
        if required <= {name.strip() for name in names}:
            return delimiter
    return ","


def _places(header: list[str], spelled: Mapping[str, str]) -> dict[str, int]:
    if len(header) > COLUMNS_MAX:
        raise StatementRefused(f"line 1: more than {COLUMNS_MAX} columns; export fewer")
    names = [cell.strip() for cell in header]
    places = {}
    for key, name in spelled.items():
        if key not in COLUMNS:
            continue
        if names.count(name) != 1:
            raise StatementRefused(
                f"line 1: the header has {names.count(name)} columns {name!r} for {key}; it has "
                f"{', '.join(names)[:500]}"
            )
        places[key] = names.index(name)
    return places


def _line(row: _Row, spelled: Mapping[str, str], where: ZoneInfo | None) -> StatementLine:
    currency = row.word("currency") or ""
    return StatementLine(
        id=row.word("id") or "",
        number=row.number,
        kind=row.word("kind") or "",
        amount=_signed(row, spelled),
        currency=currency.upper(),
        effective_at=_instant(row, spelled, where),
        contract_id=row.word("contract_id"),
        idempotency_id=row.word("idempotency_id"),
        reference=row.word("reference"),
        balance=_amount(row.number, "balance", row.cell("balance"), spelled),
        description=as_note(row.cell("description")) or "",
    )


def _signed(row: _Row, spelled: Mapping[str, str]) -> Decimal:
    if "amount" not in spelled:
        return _debit_or_credit(row, spelled)
    amount = _amount(row.number, "amount", row.cell("amount"), spelled)
    if amount is None:
        raise refusal(row.number, f"has no {spelled['amount']}; remove the row or fill it in")
    if "indicator" not in spelled:
        return amount
    if amount < 0:
        raise refusal(row.number, "has a sign and an indicator; map only one of them")
    return amount if _sign(row, spelled) > 0 else amount.copy_negate()


def _debit_or_credit(row: _Row, spelled: Mapping[str, str]) -> Decimal:
    debit = _amount(row.number, "debit", row.cell("debit"), spelled)
    credit = _amount(row.number, "credit", row.cell("credit"), spelled)
    if (debit is None and credit is None) or (debit and credit):
        raise refusal(row.number, "needs an amount in one of debit and credit; correct the row")
    amount = credit or (debit or Decimal(0)).copy_negate()
    if (debit is not None and debit < 0) or (credit is not None and credit < 0):
        raise refusal(row.number, "has a negative debit or credit; map a signed amount instead")
    return amount or Decimal(0)


def _sign(row: _Row, spelled: Mapping[str, str]) -> int:
    word = row.cell("indicator")
    for name, sign in (("credit_word", 1), ("debit_word", -1)):
        if spelled.get(name) == word:
            return sign
    sign = _SIGNS.get(word.lower(), 0)
    if not sign or "credit_word" in spelled or "debit_word" in spelled:
        raise refusal(row.number, f"has the indicator {word[:32]!r}, neither credit nor debit; "
                      "declare credit_word and debit_word")  # fmt: skip
    return sign


def _amount(number: int, name: str, cell: str, spelled: Mapping[str, str]) -> Decimal | None:
    """Read an amount, written as the map declares; None when blank."""
    decimal, thousands = spelled.get("decimal", "."), spelled.get("thousands", "")
    if thousands and thousands in cell:
        pattern = cell.replace(thousands, "@").replace(decimal, ".")
        if not _GROUPS.fullmatch(pattern):
            raise refusal(number, f"{name} {cell[:40]!r} is not grouped in thousands by "
                          f"{thousands!r}; correct the map or the row")  # fmt: skip
        cell = cell.replace(thousands, "")
    if decimal == "," and "." in cell:
        raise refusal(number, f"{name} {cell[:40]!r} has a point, but the decimal sign is a comma")
    plain_cell = cell.replace(decimal, ".").removeprefix("+")
    try:
        return money(number, name, plain_cell or None)
    except StatementRefused as error:
        raise refusal(number, f"{name} {cell[:40]!r} is no plain amount; declare thousands and "
                      "decimal as they are written") from error  # fmt: skip


def _instant(row: _Row, spelled: Mapping[str, str], where: ZoneInfo | None) -> datetime:
    words = " ".join(filter(None, (row.cell("effective_at"), row.cell("time"))))
    pattern = spelled.get("time_format")
    try:
        moment = (
            datetime.strptime(words, pattern)  # noqa: DTZ007 - the zone is checked below
            if pattern
            else datetime.fromisoformat(words)
        )
        if moment.tzinfo is None:
            if where is None:
                raise refusal(row.number, f"{words[:40]!r} names no zone; declare time_zone")
            moment = moment.replace(tzinfo=where)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise refusal(row.number, f"{words[:40]!r} is no time; declare time_format") from error


def _one_currency(stated: str | None, line: StatementLine) -> str | None:
    if stated and line.currency and stated != line.currency:
        raise refusal(line.number, f"is in {line.currency}, earlier ones in {stated}; import one "
                      "currency at a time")  # fmt: skip
    return stated or line.currency or None


def _in(line: StatementLine, currency: str) -> StatementLine:
    return line if line.currency else changed(line, currency=currency)


def _recognises(head: bytes, profile: StatementProfile) -> bool:
    return profile.effective_at is not None


FORMAT: Final = StatementFormat(NAME, _recognises, read)
