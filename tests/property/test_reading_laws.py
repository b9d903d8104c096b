"""Law: a body is read as another parser reads it, or refused."""

from __future__ import annotations

from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import strict_json
from ledger.errors import MalformedBody
from ledger.model import Number
from ledger.simulator import simulate

BODIES = [
    callback.body for callback in simulate.fresh(["payment", "payout", "customer"], Random(7), 60)
]
SCRAPS = [
    b'"', b":", b",", b"{", b"}", b"[", b"]", b"1", b"-0", b"1e5", b"0.5", b"1.0", b"true", b"null",
    b"NaN", b'"a"', b'"a":1', b'"a":2', b'"b":"x:y"', b'"a" :1', b" ", b"9" * 20, b"9" * 70, b"01",
    b"18446744073709551616", b"\x00", b"\x01", b"\\", b"\\u0000", b"\\ud800", b"\xff",
    b"\xed\xa0\x80", b"\xef\xbb\xbf", b'\\"', b"\n", b"/", b"[" * 70,
]  # fmt: skip


def spoil(whole: bytes, scraps: list[bytes], random: Random) -> bytes:
    """Put a few scraps into `whole`, over as many bytes or none."""
    spoilt = bytearray(whole)
    for _ in range(random.randrange(4)):
        place = random.randrange(len(spoilt) + 1)
        spoilt[place : place + random.randrange(3)] = random.choice(scraps)
    return bytes(spoilt)


def shape(value: Any) -> Any:
    """Return a value with the types of its parts and the order of its keys."""
    if isinstance(value, dict):
        return [(name, shape(part)) for name, part in value.items()]
    if isinstance(value, list):
        return [shape(part) for part in value]
    return (type(value), value)


def as_orjson_reads(value: Any) -> Any:
    """Return a strictly parsed value as orjson reads it: numbers beyond 64 bits are floats."""
    if isinstance(value, dict):
        return {name: as_orjson_reads(part) for name, part in value.items()}
    if isinstance(value, list):
        return [as_orjson_reads(part) for part in value]
    if isinstance(value, Number):
        return float(value)
    if type(value) is int and not -(2**63) <= value < 2**64:
        return float(value)
    return value


@given(st.randoms(use_true_random=False), st.booleans())
def test_a_body_that_is_read_is_what_another_parser_reads(random: Random, is_real: bool) -> None:
    scraps = b"".join(random.choices(SCRAPS, k=random.randrange(1, 8)))
    body = spoil(random.choice(BODIES), SCRAPS, random) if is_real else b"{" + scraps + b"}"
    try:
        strict = strict_json.parse(body)
    except MalformedBody:
        return
    assert shape(as_orjson_reads(strict)) == shape(orjson.loads(body))


def test_ordinary_bodies_are_read_in_any_layout() -> None:
    for body in BODIES:
        compact = orjson.dumps(orjson.loads(body))
        assert shape(strict_json.parse(body)) == shape(strict_json.parse(compact))


@pytest.mark.parametrize("lexeme", ["1.0", "13304.950", "-0.0", "1e5", "1E-07"])
def test_a_fraction_is_its_exact_lexeme(lexeme: str) -> None:
    root = strict_json.parse(b'{"a":[%s]}' % lexeme.encode())
    assert shape(root) == [("a", [(Number, lexeme)])]


@given(st.randoms(use_true_random=False))
def test_a_hostile_body_is_refused(random: Random) -> None:
    long = b"9" * 70
    for body in (
        b'{"a":1,"a":1}', b'{"a":1.0,"a":1.0}', b'{"a":"\\u0000"}', b'{"a":%s}' % long,
        b'{"a":0.%s}' % long, b'{"a":1.5e%s}' % long, b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
    ):  # fmt: skip
        spoilt = body.replace(b"a", bytes([random.randrange(97, 123)]))
        with pytest.raises(MalformedBody):
            strict_json.parse(spoilt)
    with pytest.raises(MalformedBody, match="twice"):
        strict_json.parse(b'{"a":1,"a":1}')
