"""Strict URL-encoded forms: the fields in a body, or the reason why they cannot be read.

StraitsX documents payouts in this form too (StraitsX docs, regular payout and first party payout):
flat, one field of the JSON shape per name. What is read is decided by the bytes alone, so that
receiving and folding agree. How objects nest in a form is documented nowhere: those are not read.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from ledger.callback_errors import InvalidCallback, MalformedBody
from ledger.payload import JSON, shown
from ledger.strict_json import parse

UNSUPPORTED_ENCODING: Final = "unsupported_encoding"
"""The reason of a form that is not the flat form of a documented callback."""
ADVICE: Final = (
    "this is not the flat form of a documented callback; where the account sends another form, "
    "choose JSON as its callback format"
)

FIELDS_MAX: Final = 1_000
"""Fields of one form; the documents show some twenty."""

_FORM: Final = re.compile(rb"(?![\"\[{&=])[!-~][!-%'-<>-~]*=")
_HALF_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def is_form(body: bytes) -> bool:
    """Return whether a body begins as a form, with a name in ASCII and `=`.

    No JSON value does, nor one behind a byte order mark.
    """
    return not body.startswith(b"{") and _FORM.match(body) is not None


def parse_body(body: bytes) -> dict[str, JSON]:
    """Return the fields of a JSON object or of a flat form.

    Raises MalformedBody for what is unreadable, InvalidCallback `unsupported_encoding` for nested
    forms and `two_values` for a field that a form gives twice differently.
    """
    return parse_form(body) if is_form(body) else parse(body)


def parse_form(body: bytes) -> dict[str, JSON]:
    """Return the fields of a form as texts, empty ones as None: a form writes null so.

    Raises as `parse_body`.
    """
    fields: dict[str, JSON] = {}
    pairs = body.split(b"&")
    if len(pairs) > FIELDS_MAX:
        raise MalformedBody(f"the form has more than {FIELDS_MAX} fields")
    for pair in pairs:
        name, equals, value = pair.partition(b"=")
        if not equals or not name:
            raise MalformedBody("a field of the form is no name, = and value")
        key, text = _decoded(name), _decoded(value) or None
        if "[" in key or "]" in key:
            raise InvalidCallback(UNSUPPORTED_ENCODING, ADVICE)
        if fields.setdefault(key, text) != text:
            raise InvalidCallback("two_values", f"the form gives {shown(key)} twice, differently")
    return fields


def _decoded(encoded: bytes) -> str:
    """Decode a name or a value. Raises MalformedBody."""
    if _HALF_ESCAPE.search(encoded):
        raise MalformedBody("a % in the form is not followed by two hexadecimal digits")
    try:
        text = unquote_to_bytes(encoded.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedBody("a field of the form is not UTF-8") from error
    if "\x00" in text:
        raise MalformedBody("a text holds the NUL character")
    return text
