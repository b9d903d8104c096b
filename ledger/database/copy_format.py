"""Rows as the text that PostgreSQL reads, made with few calls per value.

Rows are JSON arrays, written in one call, which COPY reads as CSV; columns are JSON arrays too,
whose brackets alone differ from PostgreSQL's. Only where a text holds what is not printable, some
of which JSON spells otherwise, rows are written in COPY's text format, column by column. Handing
rows over value by value, as a driver does, costs more than folding them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
import orjson

NULL: Final = r"\N"
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
_QUOTES: Final = str.maketrans({"\\": r"\\", '"': r"\""})
_SPECIAL: Final = ("\\", "\t", "\n", "\r")
_SAFE: Final = frozenset({"bigint", "int", "numeric", "timestamptz", "boolean"})
"""Types whose texts never need escaping."""

_PLAIN: Final = _SAFE | {"text"}
"""Types whose JSON is a word, a number or a quoted text."""

_ANY_TEXT: Final = frozenset({"text", "text[]"})
"""Types whose texts may hold control signs; those of the others never do."""

_CONTROLS: Final = bytes(range(32))

_TEXT: Final = {"format": "text"}
_CSV: Final = {"format": "csv", "null": "null", "escape": "\\"}
_lines: Final = msgspec.json.Encoder().encode_lines
_json: Final = msgspec.json.Encoder().encode


class Copied(NamedTuple):
    """Rows as COPY takes them."""

    data: bytes
    options: Mapping[str, str]
    """How COPY is to read `data`."""


def copied(kinds: Sequence[str], rows: Sequence[Sequence[Any]]) -> Copied:
    """Return rows of columns of these PostgreSQL types for COPY.

    Raises UnicodeEncodeError for a text that has no UTF-8 form.
    """
    if not rows:
        return Copied(b"", _TEXT)
    data = None
    if not _PLAIN.issuperset(kinds):
        data = _one_by_one(kinds, rows)
    elif _is_read_back(lines := _lines(rows)):
        data = lines[1:-2].replace(b"]\n[", b"\n")
    if data is None:
        return Copied(encode(kinds, rows), _TEXT)
    return Copied(data + b"\n", _CSV)


def _one_by_one(kinds: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes | None:
    """Write wide rows, which are made of fewer pieces so; None where a text is not printable."""
    special = [(place, _WRITERS[kind]) for place, kind in enumerate(kinds) if kind not in _PLAIN]
    flat = []
    for row in rows:
        values = [*row]
        for place, write in special:
            if values[place] is not None:
                values[place] = write(values[place])
        flat.append(values)
    for place, kind in enumerate(kinds):
        if kind in _ANY_TEXT and not _is_printable([values[place] for values in flat]):
            return None
    return b"\n".join([_json(values)[1:-1] for values in flat])


def _is_printable(texts: Sequence[str | None]) -> bool:
    return "".join([text for text in texts if text is not None]).isprintable()


def _is_read_back(data: bytes) -> bool:
    """Tell whether JSON escapes only quotes and its own sign, which PostgreSQL reads alike."""
    if b"\\" not in data:
        return True
    return b"\\" not in data.replace(b"\\\\", b"").replace(b'\\"', b"")


async def copy(connection: Any, table: str, rows: Copied, columns: Sequence[str] = ()) -> None:
    """Put rows into a table: into these columns, or into all of them in their order."""
    # Not a file: the driver would have a thread read it.
    await connection.copy_to_table(
        table, source=_whole(rows.data), columns=columns or None, **rows.options
    )


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


def encode(kinds: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Return rows of columns of these PostgreSQL types as COPY's text.

    Raises UnicodeEncodeError for a text that has no UTF-8 form.
    """
    if not rows:
        return b""
    columns = [
        _written(kind, values) for kind, values in zip(kinds, zip(*rows, strict=True), strict=True)
    ]
    nulls = [column.count(None) for column in columns]
    marked = [_marked(*each) for each in zip(columns, nulls, strict=True)]
    text = _joined(marked)
    # Most rows hold nothing that COPY would read as a sign: then all signs are those put there.
    is_safe = (
        text.count("\t") == len(rows) * (len(columns) - 1)
        and text.count("\n") == len(rows)
        and text.count("\\") == sum(nulls)
        and "\r" not in text
    )
    if not is_safe:
        escaped = [_escaped(*each) for each in zip(kinds, columns, strict=True)]
        text = _joined([_marked(*each) for each in zip(escaped, nulls, strict=True)])
    return text.encode()


def _joined(columns: Sequence[Sequence[str]]) -> str:
    return "\n".join([*map("\t".join, zip(*columns, strict=True)), ""])


def _marked(texts: Sequence[str | None], nulls: int) -> Sequence[str]:
    """Write NULL as COPY reads it."""
    if not nulls:
        return texts  # type: ignore[return-value]
    return [NULL if text is None else text for text in texts]


def arrays(kinds: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return the columns of rows, each as the text of an array of `array_of` its type.

    Raises UnicodeEncodeError for a text that has no UTF-8 form.
    """
    columns = zip(kinds, zip(*rows, strict=True), strict=True)
    return [_array_text(kind, values) for kind, values in columns]


def _array_text(kind: str, values: Sequence[Any]) -> str:
    texts = values if kind in _PLAIN else _written(kind, values)
    data = _json(texts)
    if kind not in _ANY_TEXT or _is_read_back(data):
        return f"{{{data[1:-1].decode()}}}"
    words = ["null" if text is None else _quoted_word(text) for text in texts]
    return f"{{{','.join(words)}}}"


def array_of(kind: str) -> str:
    """Name the type of what `arrays` makes of a column: arrays have no arrays of their own."""
    return "text[]" if kind == "text[]" else f"{kind}[]"


def _written(kind: str, values: Sequence[Any]) -> Sequence[str | None]:
    """Write the values of a column; NULL stays None."""
    if kind == "text":
        return values
    # Not `None in values`: a Decimal takes long to find out that it is not None.
    known = [value for value in values if value is not None]
    together = _TOGETHER.get(kind)
    if together is None:
        write = _WRITERS[kind]
        written = [write(value) for value in known]
    else:
        written = together(known) if known else []
    if len(known) == len(values):
        return written
    texts = iter(written)
    return [None if value is None else next(texts) for value in values]


def _escaped(kind: str, texts: Sequence[str | None]) -> Sequence[str | None]:
    """Escape a column for COPY; most need nothing, which one look at all of it tells."""
    known = "" if kind in _SAFE else "".join([text for text in texts if text is not None])
    if not any(sign in known for sign in _SPECIAL):
        return texts
    return [None if text is None else text.translate(_ESCAPES) for text in texts]


def _quoted(values: Sequence[Any]) -> list[str]:
    """Write times or amounts: many at once, by the encoder that writes them fastest."""
    data = _json(values)
    if data.count(b'"') != 2 * len(values):
        # A whole number among them, which the encoder does not quote.
        return [_json(value).strip(b'"').decode() for value in values]
    return data.decode()[2:-2].split('","')


def _numbers(values: Sequence[int]) -> list[str]:
    return orjson.dumps(values).decode()[1:-1].split(",")


def _structure(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _array(words: Iterable[object]) -> str:
    if not words:
        return "{}"
    return f"{{{','.join([_quoted_word(word) for word in words])}}}"


def _quoted_word(word: object) -> str:
    return f'"{str(word).translate(_QUOTES)}"'


def _raw(value: bytes) -> str:
    """Write bytes as they are where they are a line of text, else in hexadecimal."""
    if len(value.translate(None, _CONTROLS)) != len(value):
        return r"\x" + value.hex()
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return r"\x" + value.hex()
    return text.replace("\\", r"\\") if "\\" in text else text


def _truth(value: bool) -> str:
    return "t" if value else "f"


_TOGETHER: Final[dict[str, Callable[[Sequence[Any]], list[str]]]] = {
    "timestamptz": _quoted,
    "numeric": _quoted,
    "bigint": _numbers,
    "int": _numbers,
}
"""PostgreSQL type → how many values are written at once."""

_WRITERS: Final[dict[str, Callable[[Any], str]]] = {
    "timestamptz": datetime.isoformat,
    "jsonb": _structure,
    "text[]": _array,
    "bytea": _raw,
    "boolean": _truth,
}
"""PostgreSQL type → how a value that is not NULL is written."""
