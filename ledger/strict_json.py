"""Strict JSON: the object in a body, or the reason why it is unreadable.

Refused: bytes that are not UTF-8, a byte order mark, duplicate keys, NaN and infinities, NUL
characters, lone surrogates, depth beyond DEPTH_MAX, numbers longer than NUMBER_MAX characters,
and any root that is not an object. Floats never arise: a fraction stays its lexeme.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from ledger.callback_errors import MalformedBody
from ledger.payload import JSON, Number

DEPTH_MAX: Final = 64
NUMBER_MAX: Final = 64


def parse(body: bytes) -> dict[str, JSON]:
    """Return the object in `body`. Raises MalformedBody with a reason a person can act on."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedBody(f"not UTF-8 at byte {error.start}") from error
    if text.startswith("\ufeff"):
        raise MalformedBody("the body begins with a byte order mark; send JSON without one")
    try:
        root = _DECODER.decode(text)
    except RecursionError as error:
        raise MalformedBody(f"nested deeper than {DEPTH_MAX}") from error
    except json.JSONDecodeError as error:
        raise _no_json(error) from error
    if not isinstance(root, dict):
        raise MalformedBody("the body is not a JSON object")
    if body.count(b"{") + body.count(b"[") > DEPTH_MAX:
        _check_depth(root)
    if b"\\u" in body:
        _check_texts(root)
    return root


def _no_json(error: json.JSONDecodeError) -> MalformedBody:
    """Return what is wrong, and where."""
    what = error.msg.removesuffix(" at")  # of control characters it says "… character at"
    return MalformedBody(f"{what} at line {error.lineno} column {error.colno}")


def _object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise MalformedBody("an object has the same key twice")
    return fields


def _constant(word: str) -> NoReturn:
    raise MalformedBody(f"{word} is not a JSON number")


def _number(lexeme: str) -> Number:
    if len(lexeme) > NUMBER_MAX:
        raise MalformedBody(f"a number is longer than {NUMBER_MAX} characters")
    return Number(lexeme)


def _integer(lexeme: str) -> int:
    return int(_number(lexeme))


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_float=_number,
    parse_int=_integer,
    parse_constant=_constant,
)


def _check_depth(root: Any) -> None:
    """Walk the decoded tree level by level; the decoder itself ends at Python's own limit."""
    level = [root]
    for _ in range(DEPTH_MAX):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise MalformedBody(f"nested deeper than {DEPTH_MAX}")


def _check_texts(root: Any) -> None:
    """Refuse what only an escape can bring in: NUL and halves of surrogate pairs."""
    for text in _texts(root):
        if "\x00" in text:
            raise MalformedBody("a text holds the NUL character")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise MalformedBody("a text holds half of a surrogate pair") from error


def _texts(value: Any) -> list[str]:
    texts: list[str] = []
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending.extend(node)
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, str):
            texts.append(node)
    return texts


def scan(text: str, start: int) -> tuple[JSON, int]:
    """Decode the one JSON value that begins at `start`; return it and where it ends.

    As strict as `parse`, for files of many values. Raises MalformedBody.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError as error:
        raise MalformedBody(f"nested deeper than {DEPTH_MAX}") from error
    except json.JSONDecodeError as error:
        raise _no_json(error) from error
    if isinstance(value, dict | list):
        _check_depth(value)
    if "\\u" in text[start:end]:
        _check_texts(value)
    return value, end
