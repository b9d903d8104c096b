"""Law: a request that is read for the fast path is the one that aiohttp reads."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from ledger.receiver.callback_protocol import HEAD_BYTES_MAX, RequestReader
from tests.property.test_reading_laws import spoil

LINES = (
    b"Host: x", b"Content-Length: 2", b"User-Agent: a b", b"Xfers-Signature: 0aF", b"", b"{}",
)  # fmt: skip
REQUEST = b"\r\n".join((b"POST /callbacks/straitsx HTTP/1.1", *LINES))
PIECES = [
    b"\r\n", b"\n", b"\r", b":", b": ", b" ", b"\t", b"0", b"2", b"+2", b"Content-Length: 2\r\n",
    b"content-length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"\x00",
    b"Proxy-Connection: close\r\n", b"RTSP/1.1",
    b"X-A: 1\r\n", b"Host: y\r\n", b"/", b"?", b"%41", b"HTTP/1.0", b"GET", b"\xe9", b";",
    b"Expect: x\r\n", b"Xfers-Signature: a:  b \r\n", b"xfers-signature: 2\r\n", b"/name", b"{",
]  # fmt: skip


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_request_of_the_fast_path_is_what_aiohttp_reads(random: Random) -> None:
    data = spoil(REQUEST, PIECES, random)
    callback = RequestReader().read(data)
    if callback is None:
        return
    method, path, version, headers, body = asyncio.run(_parsed(data))
    assert (method, version) == ("POST", (1, 1))
    assert path == f"/callbacks/{callback.name}" + (
        f"/{callback.path_event}" if callback.path_event else ""
    )
    assert list(headers.items()) == list(callback.headers.items())
    assert body == callback.body


def test_an_ordinary_callback_takes_the_fast_path_again_and_again() -> None:
    reader = RequestReader()
    for _ in range(3):
        callback = reader.read(REQUEST)
        assert callback is not None
        assert (callback.name, callback.path_event, callback.body) == ("straitsx", None, b"{}")
        assert callback.headers["user-agent"] == "a b"


@pytest.mark.parametrize(
    "data",
    [
        REQUEST[:-1],
        REQUEST + REQUEST,
        REQUEST + b"P",
        REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"),
        REQUEST.replace(b"HTTP/1.1", b"RTSP/1.1"),
        REQUEST.replace(b"Host: x", b"Host: x\r\nProxy-Connection: close"),
        REQUEST.replace(b"POST", b"PUT"),
        REQUEST.replace(b"/callbacks/", b"/v1/"),
        REQUEST.replace(b"straitsx HTTP", b"straitsx?a=1 HTTP"),
        REQUEST.replace(b"Host: x", b"Host: x\r\nConnection: close"),
        REQUEST.replace(b"Host: x\r\n", b""),
        REQUEST.replace(b"Host: x", b"Host: x\r\nhost: x"),
        REQUEST.replace(b"Host: x", b"Host: x\r\nUser-Agent: b"),
        REQUEST.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue"),
        REQUEST.replace(b"Host: x", b"Host: x\r\nConnection: upgrade\r\nUpgrade: websocket"),
        REQUEST.replace(b"Host: x", b"Host: x\r\nX-Long: " + b"y" * HEAD_BYTES_MAX),
        REQUEST.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked").replace(
            b"{}", b"2\r\n{}\r\n0\r\n\r\n"
        ),
    ],
)
def test_any_other_request_is_left_to_aiohttp(data: bytes) -> None:
    assert RequestReader().read(data) is None


async def _parsed(data: bytes) -> tuple[str, str, tuple[int, int], CIMultiDict[str], bytes]:
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
    headers = CIMultiDict(message.headers)
    return message.method, message.path, tuple(message.version), headers, await stream.read()
