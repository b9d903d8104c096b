"""Encode tables as JSON lines, CSV and Parquet, with exact amounts.

An encoder returns bytes: who writes them to a file, or sends them, decides when.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, assert_never

import msgspec
import orjson

from ledger.errors import FormatTooNarrow, MissingExtra
from ledger.export.jsonl import EVENT_FIELDS
from ledger.queries.schemas.money import AMOUNT_PATTERN
from ledger.queries.schemas.views import ColumnType

if TYPE_CHECKING:
    from typing_extensions import Buffer

Row: TypeAlias = Mapping[str, Any]

DIGITS: Final = 38
DECIMALS: Final = 18
GROUP_ROWS_MAX: Final = 100_000
GROUP_BYTES_MAX: Final = 16 * 1024 * 1024
"""Rows and bytes after which a row group is complete."""
NAMING: Final = ("source", "kind", "id", "account", "currency", "position", "line", "transaction")
"""Columns that identify a row for a reader, where it has them."""
NAME_MAX: Final = 200
_AMOUNT: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class ExportColumn:
    """A column of an export, with the type of its values."""

    name: str
    type: ColumnType


class RowEncoder(Protocol):
    """Encodes a table of JSON values, page by page; the bytes of all calls are the file."""

    def begin(self) -> bytes:
        """Return what comes before all rows."""

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return further rows, or nothing yet."""

    def end(self) -> bytes:
        """Return the rest. A file without it is not whole."""


EVENT_COLUMNS: Final = tuple(
    ExportColumn(
        name, "integer" if name == "position" else "time" if name.endswith("_at") else "text"
    )
    for name in EVENT_FIELDS
)


def columns_of(kind: type[Any]) -> tuple[ExportColumn, ...]:
    """Return the columns of an answer's rows: the fields that are always present."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    optional = {
        field.name for field in msgspec.structs.fields(kind) if field.default is msgspec.UNSET
    }
    return tuple(
        ExportColumn(field.encode_name, _type_of(field.type))
        for field in info.fields
        if field.name not in optional
    )


def _type_of(info: Any) -> ColumnType:
    """Return the type of a field, without its description and whether it may be null or absent."""
    match info:
        case msgspec.inspect.Metadata(type=described):
            return _type_of(described)
        case msgspec.inspect.UnionType(types=choices):
            types = {_type_of(choice) for choice in choices if not _is_absence(choice)}
            return types.pop() if len(types) == 1 else "json"
        case msgspec.inspect.StrType(pattern=pattern):
            return "amount" if pattern == AMOUNT_PATTERN else "text"
        case msgspec.inspect.LiteralType(values=values) if all(isinstance(v, str) for v in values):
            return "text"
        case msgspec.inspect.DateTimeType():
            return "time"
        case msgspec.inspect.IntType():
            return "integer"
        case msgspec.inspect.BoolType():
            return "boolean"
        case msgspec.inspect.ListType(item_type=item) if _type_of(item) == "text":
            return "texts"
        case _:
            return "json"


def _is_absence(info: Any) -> bool:
    if isinstance(info, msgspec.inspect.CustomType):
        return info.cls is msgspec.UnsetType
    return isinstance(info, msgspec.inspect.NoneType)


class JsonLines:
    """One JSON object a line."""

    def __init__(self, columns: Sequence[ExportColumn]) -> None:
        self.columns = columns

    def begin(self) -> bytes:
        """Return nothing."""
        return b""

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return a line for each row."""
        return b"".join(
            orjson.dumps(row, default=_fragment, option=orjson.OPT_APPEND_NEWLINE) for row in rows
        )

    def end(self) -> bytes:
        """Return nothing: the last line is the end."""
        return b""


class Csv:
    """RFC 4180, with a header; a text that a spreadsheet would run as a formula begins with `'`."""

    def __init__(self, columns: Sequence[ExportColumn]) -> None:
        self.columns = columns

    def begin(self) -> bytes:
        """Return the header."""
        return _csv([[column.name for column in self.columns]])

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return a record for each row."""
        return _csv([cell(row[column.name]) for column in self.columns] for row in rows)

    def end(self) -> bytes:
        """Return nothing: the last record is the end."""
        return b""


def _csv(records: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(records)
    return text.getvalue().encode()


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


class _Output(io.RawIOBase):
    """A file that keeps what is written to it until it is taken."""

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        """Return True: it can be written to."""
        return True

    def tell(self) -> int:
        """Return how many bytes were written so far."""
        return self._size

    def write(self, data: Buffer, /) -> int:
        """Keep `data`."""
        raw = bytes(data)
        self._written.append(raw)
        self._size += len(raw)
        return len(raw)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken, self._written = b"".join(self._written), []
        return taken


class Parquet:
    """Apache Parquet by pyarrow, in row groups of bounded size. Amounts are decimal128(38, 18)."""

    def __init__(
        self, columns: Sequence[ExportColumn], *, group_bytes_max: int = GROUP_BYTES_MAX
    ) -> None:
        self.group_bytes_max = group_bytes_max
        self.arrow = _arrow()
        self.columns = columns
        self.schema = self.arrow.schema([(c.name, self._type(c.type)) for c in columns])
        self._output = _Output()
        self._writer = self.arrow.parquet.ParquetWriter(
            self._output, self.schema, compression="zstd"
        )
        self._group: list[Any] = []
        """The record batches of the next row group."""
        self._count = 0

    def begin(self) -> bytes:
        """Return the format's mark."""
        return self._output.take()

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return a row group when one is complete.

        Raises FormatTooNarrow for an amount that its column cannot hold.
        """
        values = [self._values(row, self._count + n) for n, row in enumerate(rows, start=1)]
        arrays = [
            self.arrow.array([row[place] for row in values], field.type)
            for place, field in enumerate(self.schema)
        ]
        self._group.append(self.arrow.RecordBatch.from_arrays(arrays, schema=self.schema))
        self._count += len(rows)
        if (
            sum(batch.num_rows for batch in self._group) >= GROUP_ROWS_MAX
            or sum(batch.nbytes for batch in self._group) >= self.group_bytes_max
        ):
            self._write_group()
        return self._output.take()

    def end(self) -> bytes:
        """Return the last row group and the footer."""
        if self._group:
            self._write_group()
        self._writer.close()
        return self._output.take()

    def _write_group(self) -> None:
        table = self.arrow.Table.from_batches(self._group, schema=self.schema)
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self._group = []

    def _type(self, kind: ColumnType) -> Any:
        arrow = self.arrow
        match kind:
            case "amount":
                return arrow.decimal128(DIGITS, DECIMALS)
            case "time":
                return arrow.timestamp("us", tz="UTC")
            case "integer":
                return arrow.int64()
            case "boolean":
                return arrow.bool_()
            case "texts":
                return arrow.list_(arrow.string())
            case "text" | "json":
                return arrow.string()
            case _:
                assert_never(kind)

    def _values(self, row: Row, number: int) -> list[Any]:
        """Return the values of a row, which is the `number`th one."""
        try:
            return [_arrow_value(column, row[column.name]) for column in self.columns]
        except _TooManyDigits as error:
            raise FormatTooNarrow(
                f"row {number} ({_name_of(row)}) does not fit into Parquet: its {error} has more "
                f"digits than decimal128({DIGITS}, {DECIMALS}) holds; export csv or jsonl, which "
                "hold any amount, or leave the row out by a filter"
            ) from error


class _TooManyDigits(Exception):
    """The amount in the column of this name does not fit."""


def _arrow_value(column: ExportColumn, value: Any) -> Any:
    """Return a value for an array of its column's type."""
    if value is None:
        return None
    match column.type:
        case "amount":
            amount = Decimal(value)
            places = amount.as_tuple().exponent
            if amount.adjusted() >= DIGITS - DECIMALS or -int(places) > DECIMALS:
                raise _TooManyDigits(f"{column.name}, {value},")
            return amount
        case "time":
            return datetime.fromisoformat(value)
        case "json":
            return _json(value)
        case _:
            return value


def _name_of(row: Row) -> str:
    """Name a row in a message, by those of its columns that identify rows."""
    named = [f"{name} {row[name]}" for name in NAMING if row.get(name) is not None]
    return ascii(", ".join(named))[1:-1][:NAME_MAX]


ENCODERS: Final[Mapping[str, Callable[[Sequence[ExportColumn]], RowEncoder]]] = {
    "jsonl": JsonLines,
    "csv": Csv,
    "parquet": Parquet,
}
"""The table formats."""


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
