"""Law: what is read the quick way is what is read with care, and what aiohttp would read."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import orjson
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import given
from hypothesis import strategies as st

from ledger import strict_json as payload
from ledger.config.source import Source
from ledger.errors import MalformedBody
from ledger.model import Number
from ledger.receiver.fast_path import Head, PlainCallback, RequestReader, read
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
LINES = (b"Host: x", b"Content-Length: 2", b"User-Agent: a b", b"", b"{}")
HEAD = b"\r\n".join((b"POST /callbacks/straitsx HTTP/1.1", *LINES))
PIECES = [
    b"\r\n", b"\n", b"\r", b":", b": ", b" ", b"\t", b"0", b"2", b"+2", b"Content-Length: 2\r\n",
    b"content-length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"\x00",
    b"X-A: 1\r\n", b"Host: y\r\n", b"/", b"?", b"%41", b"HTTP/1.0", b"GET", b"\xe9", b";",
    b"Expect: x\r\n",
]  # fmt: skip
STRAITSX = Source("straitsx", "straitsx", header="Xfers-Signature")
SIGNED = HEAD.replace(b"\r\n\r\n", b"\r\nXfers-Signature: 0aF\r\nContent-Type: a/b\r\n\r\n")
SIGNED_PIECES = [
    *PIECES, b"Xfers-Signature: 1\r\n", b"xfers-signature: 2\r\n", b"Xfers-Signature: \r\n",
    b"Xfers-Signature: a:  b \r\n", b"User-Agent: 1\r\n", b"/name", b"gokart", b"{",
]  # fmt: skip
READER = RequestReader({"straitsx": STRAITSX})


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


@given(st.randoms(use_true_random=False), st.booleans())
def test_a_body_read_quickly_is_the_body_read_with_care(random: Random, is_real: bool) -> None:
    scraps = b"".join(random.choices(SCRAPS, k=random.randrange(1, 8)))
    body = spoil(random.choice(BODIES), SCRAPS, random) if is_real else b"{" + scraps + b"}"
    quick = payload._plain(body)
    if quick is not None:
        assert shape(quick) == shape(payload._strict(body))


def test_ordinary_bodies_are_read_quickly() -> None:
    for body in BODIES:
        compact = orjson.dumps(orjson.loads(body))
        assert (payload._plain(body) is None) == (compact != body)


@pytest.mark.parametrize("lexeme", ["1.0", "13304.950", "-0.0", "1e5", "1E-07"])
def test_a_fraction_is_read_quickly_as_its_exact_lexeme(lexeme: str) -> None:
    quick = payload._plain(b'{"a":[%s]}' % lexeme.encode())
    assert shape(quick) == [("a", [(Number, lexeme)])]


@given(st.randoms(use_true_random=False))
def test_a_hostile_body_is_never_read_quickly(random: Random) -> None:
    long = b"9" * 70
    for body in (
        b'{"a":1,"a":1}', b'{"a":1.0,"a":1.0}', b'{"a":"\\u0000"}', b'{"a":%s}' % long,
        b'{"a":0.%s}' % long, b'{"a":1.5e%s}' % long, b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
    ):  # fmt: skip
        spoilt = body.replace(b"a", bytes([random.randrange(97, 123)]))
        assert payload._plain(spoilt) is None
    with pytest.raises(MalformedBody, match="twice"):
        payload.parse(b'{"a":1,"a":1}')


@given(st.randoms(use_true_random=False))
def test_a_request_read_shortly_is_what_aiohttp_reads(random: Random) -> None:
    data = spoil(HEAD, PIECES, random)
    plain = read(data)
    if plain is None:
        return
    method, path, version, headers, body = asyncio.run(_parsed(data))
    assert (method, version) == ("POST", (1, 1))
    assert path == f"/callbacks/{plain.source}" + (
        f"/{plain.path_event}" if plain.path_event else ""
    )
    assert headers == plain.fields
    assert body == plain.body


@given(st.randoms(use_true_random=False))
def test_a_request_whose_head_is_known_is_read_as_if_it_were_new(random: Random) -> None:
    for data in (SIGNED, spoil(SIGNED, SIGNED_PIECES, random), spoil(HEAD, SIGNED_PIECES, random)):
        plain = read(data)
        if plain is None or plain.source != "straitsx":
            assert READER.read(data) is None
            continue
        said = [plain.fields.get(n, "") for n in ("content-type", "user-agent", "x-forwarded-for")]
        expected = PlainCallback(
            Head(STRAITSX, plain.path_event, *said, bool(plain.fields.get("x-forwarded-for"))),
            plain.fields.get("xfers-signature"),
            plain.body,
        )
        assert READER.read(data) == READER.read(data) == expected


def test_the_head_of_a_plain_callback_is_looked_up() -> None:
    assert READER.read(SIGNED) is not None
    before = READER._head.cache_info().hits
    assert READER.read(SIGNED) is not None
    assert READER._head.cache_info().hits == before + 1


@pytest.mark.parametrize("header", ["User-Agent", "Content-Type", "X-Forwarded-For", "Host"])
def test_a_proof_in_a_field_that_matters_is_not_taken_out_of_it(header: str) -> None:
    reader = RequestReader({"straitsx": Source("straitsx", "straitsx", header=header)})
    lines = {"Host": "h", "User-Agent": "u", "Content-Type": "c", "X-Forwarded-For": "f"}
    told = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    data = f"POST /callbacks/straitsx HTTP/1.1\r\n{told}Content-Length: 2\r\n\r\n{{}}".encode()
    for _ in range(2):
        found = reader.read(data)
        assert found is not None
        assert found.proof == lines[header]
        head = found.head
        assert (head.content_type, head.agent, head.forwarded_for) == ("c", "u", "f")


def test_a_body_has_the_length_that_its_head_says_whatever_the_proof_is_called() -> None:
    reader = RequestReader({"straitsx": Source("straitsx", "straitsx", header="Content-Length")})
    head = b"POST /callbacks/straitsx HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\nx"
    assert reader.read(head % 1) is not None
    assert reader.read(head % 5) is None


async def _parsed(data: bytes) -> tuple[str, str, tuple[int, int], dict[str, str], bytes]:
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
    try:
        messages, upgraded, tail = parser.feed_data(data)
    except HttpProcessingError as error:
        raise AssertionError(f"aiohttp refuses {data!r}") from error
    (message, stream), *more = messages
    assert not more
    assert not upgraded
    assert not tail
    assert not message.should_close
    assert stream.is_eof()
    fields = {name.lower(): value for name, value in message.headers.items()}
    assert len(fields) == len(message.headers)
    return message.method, message.path, tuple(message.version), fields, await stream.read()
