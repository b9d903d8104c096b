"""Write tables as JSON lines, CSV and Parquet, with exact amounts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Protocol

import msgspec
import orjson

from ledger.errors import LedgerError, MissingExtra
from ledger.export.jsonl import EVENT_FIELDS

Row = Mapping[str, Any]

DIGITS: Final = 38
DECIMALS: Final = 18
_AMOUNT: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


class DoesNotFit(LedgerError):
    """An amount has more digits than its column can hold; the export is repeated with texts in it.

    `column` is its name.
    """

    def __init__(self, column: str) -> None:
        super().__init__(f"{column} has more digits than {DIGITS}")
        self.column = column


@dataclass(frozen=True, slots=True)
class ExportColumn:
    """A column of an export; its kind is text, amount, moment, integer, boolean or json."""

    name: str
    kind: str


class Sink(Protocol):
    """The output of an export."""

    def write(self, data: bytes, /) -> int:
        """Write all of `data`."""


class RowWriter(Protocol):
    """Writes rows of JSON values."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write further rows."""

    def close(self) -> None:
        """Write the end."""


EVENT_COLUMNS: Final = tuple(
    ExportColumn(
        name, {"position": "integer"}.get(name, "moment" if name.endswith("_at") else "text")
    )
    for name in EVENT_FIELDS
)


def columns_of(kind: type[Any]) -> tuple[ExportColumn, ...]:
    """Return the columns of an answer's rows."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return tuple(ExportColumn(each.encode_name, _kind(each.type)) for each in info.fields)


def _kind(info: Any) -> str:
    types = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    for each in types:
        each = each.type if isinstance(each, msgspec.inspect.Metadata) else each
        match each:
            case msgspec.inspect.StrType(pattern=pattern):
                return "amount" if pattern else "text"
            case msgspec.inspect.DateTimeType():
                return "moment"
            case msgspec.inspect.IntType():
                return "integer"
            case msgspec.inspect.BoolType():
                return "boolean"
    return "json"


class JsonLines:
    """One JSON object a line."""

    def __init__(self, sink: Sink, columns: Sequence[ExportColumn]) -> None:
        self.sink = sink

    def write(self, rows: Sequence[Row]) -> None:
        """Write further rows."""
        self.sink.write(
            b"".join(
                orjson.dumps(row, default=_fragment, option=orjson.OPT_APPEND_NEWLINE)
                for row in rows
            )
        )

    def close(self) -> None:
        """Write nothing: the last line is the end."""


class Csv:
    """RFC 4180, with a header; a text that a spreadsheet would run as a formula begins with `'`."""

    def __init__(self, sink: Sink, columns: Sequence[ExportColumn]) -> None:
        self.sink = sink
        self.columns = columns
        self._put([[column.name for column in columns]])

    def write(self, rows: Sequence[Row]) -> None:
        """Write further rows."""
        self._put([cell(row[column.name]) for column in self.columns] for row in rows)

    def close(self) -> None:
        """Write nothing: the last row is the end."""

    def _put(self, rows: Iterable[Sequence[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self.sink.write(text.getvalue().encode())


def cell(value: Any) -> str:
    """Return a value for a spreadsheet; a text that would be a formula gets a `'` before it.

    A plain negative number is not one.
    """
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case dict() | list() | msgspec.Raw():
            return _json(value)
        case str() if value.startswith(_FORMULA) and not _AMOUNT.fullmatch(value):
            return "'" + value
        case _:
            return str(value)


class Parquet:
    """Apache Parquet by pyarrow: amounts as decimal128(38, 18), or as texts where one is longer."""

    def __init__(
        self, sink: Sink, columns: Sequence[ExportColumn], texts: frozenset[str] = frozenset()
    ) -> None:
        self.arrow = _arrow()
        self.columns = columns
        self.kinds = {c.name: "text" if c.name in texts else c.kind for c in columns}
        types = [(c.name, self._type(self.kinds[c.name])) for c in columns]
        self.schema = self.arrow.schema(types)
        self._writer = self.arrow.parquet.ParquetWriter(sink, self.schema, compression="zstd")

    def write(self, rows: Sequence[Row]) -> None:
        """Write further rows. Raises DoesNotFit."""
        arrays = [
            self.arrow.array(
                [self._value(c.name, row[c.name]) for row in rows], self.schema.field(c.name).type
            )
            for c in self.columns
        ]
        self._writer.write_table(self.arrow.Table.from_arrays(arrays, schema=self.schema))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()

    def _type(self, kind: str) -> Any:
        match kind:
            case "amount":
                return self.arrow.decimal128(DIGITS, DECIMALS)
            case "moment":
                return self.arrow.timestamp("us", tz="UTC")
            case "integer":
                return self.arrow.int64()
            case "boolean":
                return self.arrow.bool_()
            case _:
                return self.arrow.string()

    def _value(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        match self.kinds[name]:
            case "amount":
                amount = Decimal(value)
                if abs(amount) >= 10 ** (DIGITS - DECIMALS) or amount != round(amount, DECIMALS):
                    raise DoesNotFit(name)
                return amount
            case "moment":
                return datetime.fromisoformat(value)
            case "json":
                return _json(value)
            case _:
                return value


def _json(value: Any) -> str:
    """Return a value as JSON: what is JSON text already stays exactly this text."""
    return orjson.dumps(value, default=_fragment).decode()


def _fragment(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return orjson.Fragment(bytes(value))
    raise TypeError


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(
            "Parquet needs pyarrow: run `pip install 'callback-ledger[analytics]'`, or export csv"
        ) from error
    return pyarrow
