"""Rows as the text that PostgreSQL reads, made column by column: few calls per value.

The text format of COPY, and the same columns as arrays of texts for statements that cast them.
Handing rows over costs a driver's encoding per value more than folding them does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import orjson

NULL: Final = r"\N"
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
_QUOTES: Final = str.maketrans({"\\": r"\\", '"': r"\""})
_SPECIAL: Final = ("\\", "\t", "\n", "\r")
_SAFE: Final = frozenset({"bigint", "int", "numeric", "timestamptz", "boolean"})
"""Types whose texts never need escaping."""


def encode(kinds: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Return rows of columns of these PostgreSQL types as COPY's text.

    Raises UnicodeEncodeError for a text that has no UTF-8 form.
    """
    if not rows:
        return b""
    columns = [
        _escaped(kind, _written(kind, values))
        for kind, values in zip(kinds, zip(*rows, strict=True), strict=True)
    ]
    lines = [*map("\t".join, zip(*columns, strict=True)), ""]
    return "\n".join(lines).encode()


async def once(data: bytes) -> AsyncIterator[bytes]:
    """Yield `data`, as the driver's COPY takes what is made already."""
    yield data


def arrays(kinds: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[list[str | None]]:
    """Return the columns of rows as texts, None for NULL, which PostgreSQL casts to their types."""
    columns = zip(kinds, zip(*rows, strict=True), strict=True)
    return [list(_written(kind, values)) for kind, values in columns]


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


def _escaped(kind: str, texts: Sequence[str | None]) -> Sequence[str]:
    """Escape a column for COPY; most need nothing, which one look at all of it tells."""
    is_safe = kind in _SAFE
    if None in texts:
        known = "" if is_safe else "".join([text for text in texts if text is not None])
        if not any(sign in known for sign in _SPECIAL):
            return [NULL if text is None else text for text in texts]
    elif is_safe or not any(sign in (known := "".join(texts)) for sign in _SPECIAL):  # type: ignore[arg-type]
        return texts  # type: ignore[return-value]
    return [NULL if text is None else text.translate(_ESCAPES) for text in texts]


def _quoted(values: Iterable[Any]) -> list[str]:
    """Write times or amounts: many at once, by the encoder that writes them fastest."""
    return msgspec.json.encode(values).decode()[2:-2].split('","')


def _numbers(values: Sequence[int]) -> list[str]:
    return orjson.dumps(values).decode()[1:-1].split(",")


def _structure(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _array(words: Iterable[object]) -> str:
    if not words:
        return "{}"
    quoted = ",".join([f'"{str(word).translate(_QUOTES)}"' for word in words])
    return f"{{{quoted}}}"


def _raw(value: bytes) -> str:
    """Write bytes as they are where they are text, which PostgreSQL takes; else in hexadecimal."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return r"\x" + value.hex()
    if "\x00" in text:
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
