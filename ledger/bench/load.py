"""The load generator, a process of its own: `python -m ledger.bench.load`.

It reads one command per line (JSON) and answers each with one line: requests are made beforehand
on `supply`, so that making them takes no processor from what is measured, and sent on `load`, which
is answered with figures. The bodies are StraitsX payments and payouts; every request of one process
has ids and a signature of its own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import msgspec
import orjson

from ledger.runtime.decimals import configure_decimal
from ledger.runtime.event_loop import runner
from ledger.signatures.hmac_sha256_hex import sign
from ledger.simulator.simulate import SimulatedCallback, fresh

KINDS: Final = ("payment", "payout")
TEMPLATES: Final = 256
BODY_BYTES_MIN: Final = 1_024
TICK_SECONDS: Final = 0.004
"""How often what is due is sent: finer ticks take more of the processors from what is measured.
Times count from when a request was due."""

DRAIN_SECONDS_MAX: Final = 20.0
CONNECT_SECONDS_MAX: Final = 10.0
LENGTH: Final = b"\r\nContent-Length: "
POSITION: Final = b"\r\nLedger-Position: "
DESCRIPTION: Final = b'"description":"'
WORDS: Final = b"Settlement of the fees agreed for the last calendar month. "
LOST: Final = "lost"
"""Counted beside the HTTP statuses: a connection ended before its answer."""


class Supply(msgspec.Struct, frozen=True, tag="supply"):
    """Have `count` requests ready before the next phase; more than those are made when needed."""

    path: str
    secret: str
    count: int


class LoadCommand(msgspec.Struct, frozen=True, tag="load"):
    """One phase: where to post, for how long, and either as fast as answers come or at `rate`.

    `keep_every` thins the latencies and positions that are reported.
    """

    port: int
    path: str
    secret: str
    seconds: float
    connections: int
    rate: float | None = None
    keep_every: int = 1


class Figures(msgspec.Struct):
    """What one phase gave. Times are of the monotonic clock, which all processes share.

    `counted` answers fell into the window of `seconds`; `answers` has all, by status. `acks` are
    (time of the answer, position in the log).
    """

    seconds: float
    counted: int
    answers: dict[str, int]
    latencies: list[float]
    acks: list[tuple[float, int]]
    cpu_seconds: float
    body_bytes: float


class Bodies:
    """An endless supply of distinct signed requests, made of templates by putting in new ids."""

    def __init__(self, seed: int, path: str, secret: str) -> None:
        made = fresh(KINDS, Random(seed), TEMPLATES)  # noqa: S311 - made-up callbacks
        self._templates = [cut(callback) for callback in made]
        self._run = f"{seed:016x}"
        self._path, self._secret = path, secret
        self._ready: deque[bytes] = deque()
        self.count = 0
        self._heads = [self._head(len(self.body(place, 0))) for place in range(TEMPLATES)]

    def _head(self, size: int) -> bytes:
        return (
            f"POST {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: StraitsX\r\n"
            f"Accept: */*\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
            "Xfers-Signature: "
        ).encode()

    def supply(self, count: int) -> None:
        """Make requests until so many are ready."""
        while len(self._ready) < count:
            self._ready.append(self._make())

    def next(self) -> bytes:
        """Return the bytes of the next request."""
        return self._ready.popleft() if self._ready else self._make()

    def _make(self) -> bytes:
        n = self.count
        self.count = n + 1
        place = n % TEMPLATES
        body = self.body(place, n)
        signature = sign(self._secret, body).encode()
        return b"".join((self._heads[place], signature, b"\r\n\r\n", body))

    def body(self, place: int, n: int) -> bytes:
        """Return template `place` as the callback number `n`."""
        own = f"{self._run}{n:016x}"
        ids = (own.encode(), f"{own[:8]}-{own[8:12]}-{own[12:16]}-{own[16:20]}-{own[20:]}".encode())
        return b"".join(
            part if type(part) is bytes else ids[part]  # type: ignore[index]
            for part in self._templates[place]
        )

    def mean_bytes(self) -> float:
        """Return the mean length of the bodies."""
        return sum(len(self.body(place, 0)) for place in range(TEMPLATES)) / TEMPLATES


def cut(callback: SimulatedCallback) -> tuple[bytes | int, ...]:
    """Cut a body at its ids: bytes, and between them 0 for its id, 1 for its idempotency id.

    A payout shorter than BODY_BYTES_MIN gets a longer description.
    """
    known = orjson.loads(callback.body)
    missing = max(0, BODY_BYTES_MIN - len(callback.body))
    words = WORDS * -(-missing // len(WORDS))
    ids = (known["id"].removeprefix("contract_").encode(), known["idempotency_id"].encode())
    parts: list[bytes | int] = [callback.body.replace(DESCRIPTION, DESCRIPTION + words)]
    for number, text in enumerate(ids):
        parts = [piece for part in parts for piece in _split(part, text, number)]
    return tuple(parts)


def _split(part: bytes | int, text: bytes, number: int) -> list[bytes | int]:
    if isinstance(part, int):
        return [part]
    pieces: list[bytes | int] = []
    for piece in part.split(text):
        pieces += [piece, number]
    return pieces[:-1]


class Link(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way."""

    __slots__ = ("_load", "_rest", "_transport", "busy", "due")

    def __init__(self, load: Load) -> None:
        self._load = load
        self._rest = b""
        self._transport: Any = None
        self.busy = False
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = transport

    def post(self, request: bytes, due: float) -> None:
        """Send a request that was due at `due`."""
        self.busy, self.due = True, due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Read an answer: its status, its length, its position; nothing else costs time."""
        if self._rest:
            data = self._rest + data
        end = data.find(b"\r\n\r\n")
        at = data.find(LENGTH, 0, end + 2)
        if end < 0 or at < 0:
            self._rest = data
            return
        at += len(LENGTH)
        if len(data) < end + 4 + int(data[at : data.find(b"\r", at)]):
            self._rest = data
            return
        self._rest = b""
        self.busy = False
        self._load.answered(self, data[9:12].decode(), data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count an unanswered request."""
        if self.busy:
            self.busy = False
            self._load.lost(self)

    def close(self) -> None:
        """End the connection."""
        self._transport.close()


@dataclass(slots=True)
class Load:
    """One phase under way."""

    command: LoadCommand
    bodies: Bodies
    answers: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    acks: list[tuple[float, int]] = field(default_factory=list)
    counted: int = 0
    _ends: float = 0.0
    _seen: int = 0
    _scheduled: bool = False
    _idle: list[Link] = field(default_factory=list)
    _late: deque[float] = field(default_factory=deque)

    async def run(self) -> Figures:
        """Open the connections, load for the phase's seconds, wait for what is still open."""
        links = await self._connect()
        before = os.times()
        started = time.monotonic()
        self._ends = started + self.command.seconds
        if self.command.rate is None:
            for link in links:
                link.post(self.bodies.next(), time.monotonic())
            await asyncio.sleep(self.command.seconds)
        else:
            await self._schedule(links, started, self.command.rate)
        await self._drain(links)
        after = os.times()
        for link in links:
            link.close()
        return Figures(
            self.command.seconds, self.counted, dict(self.answers), self.latencies, self.acks,
            after.user + after.system - before.user - before.system,
            self.bodies.mean_bytes(),
        )  # fmt: skip

    async def _connect(self) -> list[Link]:
        loop = asyncio.get_running_loop()
        links = []
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            for _ in range(self.command.connections):
                _, link = await loop.create_connection(
                    lambda: Link(self), "127.0.0.1", self.command.port
                )
                links.append(link)
        return links

    async def _schedule(self, links: list[Link], started: float, rate: float) -> None:
        """Send number n at started + n/rate, whether or not the service keeps up."""
        self._scheduled = True
        self._idle.extend(links)
        sent, total = 0, int(self.command.seconds * rate)
        while sent < total:
            now = time.monotonic()
            while sent < total and (due := started + sent / rate) <= now:
                sent += 1
                if self._idle:
                    self._idle.pop().post(self.bodies.next(), due)
                else:
                    self._late.append(due)
            await asyncio.sleep(TICK_SECONDS)

    async def _drain(self, links: list[Link]) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS_MAX
        while self._late or any(link.busy for link in links):
            if time.monotonic() > deadline:
                self.answers[LOST] += sum(link.busy for link in links)
                for link in links:
                    link.busy = False
                return
            await asyncio.sleep(TICK_SECONDS)

    def answered(self, link: Link, status: str, data: bytes) -> None:
        """Count an answer, and give its connection the next request."""
        now = time.monotonic()
        self.answers[status] += 1
        self._seen += 1
        if now <= self._ends:
            self.counted += 1
        if self._seen % self.command.keep_every == 0:
            self.latencies.append(now - link.due)
            at = data.find(POSITION)
            if at > 0:
                line = data[at + len(POSITION) : data.find(b"\r", at + len(POSITION))]
                self.acks.append((now, int(line.rpartition(b":")[2])))
        if not self._scheduled:
            if now < self._ends:
                link.post(self.bodies.next(), now)
        elif self._late:
            link.post(self.bodies.next(), self._late.popleft())
        else:
            self._idle.append(link)

    def lost(self, link: Link) -> None:
        """Count a request whose fate is unknown; its connection is gone."""
        self.answers[LOST] += 1
        if link in self._idle:
            self._idle.remove(link)


async def _serve() -> None:
    """Do one command after the other until stdin ends."""
    configure_decimal()
    decoder: msgspec.json.Decoder[Supply | LoadCommand] = msgspec.json.Decoder(Supply | LoadCommand)
    senders: dict[tuple[str, str], Bodies] = {}
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = decoder.decode(line)
        sender = command.path, command.secret
        if sender not in senders:
            senders[sender] = Bodies(int.from_bytes(os.urandom(7), "big"), *sender)
        _say(await _done(command, senders[sender]))


async def _done(command: Supply | LoadCommand, bodies: Bodies) -> Figures | None:
    if isinstance(command, Supply):
        bodies.supply(command.count)
        return None
    gc.collect()
    gc.disable()  # what is kept here has no cycles, and a pause would count as the service's
    try:
        return await Load(command, bodies).run()
    finally:
        gc.enable()


def _say(answer: Figures | None) -> None:
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    runner()(_serve())
