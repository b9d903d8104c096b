"""Rows in COPY's text format, and columns as array literals: values as PostgreSQL reads them.

A driver's own encoding, value by value in PostgreSQL's binary format, costs more than folding does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

NULL: Final = r"\N"


async def copy(connection: Any, table: str, data: bytes, columns: Sequence[str] = ()) -> None:
    """Append encoded rows to a table: to these columns, or to all of them in their order."""

    async def source() -> AsyncIterator[bytes]:
        yield data  # not a file, which the driver would read in a thread

    await connection.copy_to_table(table, source=source(), columns=columns or None, format="text")


def encode(kinds: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Return rows of columns of these PostgreSQL types in COPY's text format.

    Raises UnicodeEncodeError for a text that has no UTF-8 form.
    """
    if not rows:
        return b""
    columns = []
    for kind, values in zip(kinds, zip(*rows, strict=True), strict=True):
        write = _COPY_WRITERS[kind]
        columns.append([NULL if value is None else write(value) for value in values])
    return "\n".join([*map("\t".join, zip(*columns, strict=True)), ""]).encode()


def arrays(kinds: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return the columns of rows, each as an array literal of the type `array_of` its own.

    A text that has no UTF-8 form is refused by the driver, as an asyncpg.DataError.
    """
    literals = []
    for kind, values in zip(kinds, zip(*rows, strict=True), strict=True):
        write = _WRITERS[kind]
        literals.append(_array([None if value is None else write(value) for value in values]))
    return literals


def array_of(kind: str) -> str:
    """Name the array type of a column for `arrays`: arrays of arrays are passed as texts."""
    return "text[]" if kind == "text[]" else f"{kind}[]"


def _escaped(text: str) -> str:
    """Escape what COPY's text format reads as a separator or an escape."""
    if text.isprintable() and "\\" not in text:
        return text
    text = text.replace("\\", r"\\")
    return text.replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def _array(words: Iterable[str | None]) -> str:
    return f"{{{','.join(['NULL' if word is None else _quoted(word) for word in words])}}}"


def _quoted(word: str) -> str:
    escaped = word.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _hexadecimal(value: bytes) -> str:
    return r"\x" + value.hex()


_WRITERS: Final[dict[str, Callable[[Any], str]]] = {
    "text": str,
    "bigint": str,
    "int": str,
    "numeric": str,
    "boolean": str,
    "timestamptz": datetime.isoformat,
    "jsonb": _json,
    "text[]": _array,
    "bytea": _hexadecimal,
}
"""PostgreSQL type → how a value that is not NULL is spelled."""

_COPY_WRITERS: Final[dict[str, Callable[[Any], str]]] = {
    **_WRITERS,
    "text": _escaped,
    "jsonb": lambda value: _escaped(_json(value)),
    "text[]": lambda value: _escaped(_array(value)),
    "bytea": lambda value: r"\\x" + value.hex(),
}
"""The same, escaped for COPY's text format."""
