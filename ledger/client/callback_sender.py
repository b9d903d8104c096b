"""Posts signed callbacks to a running service, as their providers would."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp

from ledger.client.service_client import path_of, unreachable
from ledger.config.settings import Settings
from ledger.config.source import Source, source_of_provider
from ledger.errors import ServiceUnreachable, SettingsError
from ledger.simulator.simulate import SimulatedCallback

CONCURRENCY: Final = 8
ANSWER_SECONDS_MAX: Final = 30.0
LOST: Final = (aiohttp.ClientError, OSError, ValueError)
WRONG_SECRET: Final = base64.b64encode(b"not the secret of any source").decode()
"""Signs wrongly on purpose, in every scheme."""

LINES_MAX: Final = 60
"""Answers beyond this many are summed up instead of listed one by one."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """What the service answered to one callback; `position` only when it has one."""

    source: str
    name: str
    code: int
    status: str
    position: int | None
    reason: str | None
    seconds: float

    @property
    def accepted(self) -> bool:
        """Whether the provider would count the callback as delivered."""
        return 200 <= self.code < 300

    def line(self) -> str:
        """Return the answer in one line: code, status, position, what was sent, why."""
        place = f"{self.source}:{self.position}" if self.position else self.source
        return f"{self.code} {self.status:<11} {place:<16} {self.name} {self.reason or ''}".rstrip()


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to send: the service, its sources, how fast, and how wrongly signed.

    `rate` is callbacks per second, None as fast as answers come. `secret` replaces the sources'
    own first secrets.
    """

    url: str
    sources: Mapping[str, Source]
    source: str | None = None
    event: str | None = None
    secret: str | None = None
    rate: float | None = None
    concurrency: int = CONCURRENCY
    bad_signature: bool = False

    def source_of(self, provider: str) -> Source:
        """Return the source a provider's callbacks go to; one not configured is taken by name."""
        if self.source:
            return self.sources.get(self.source) or source_of_provider(provider, self.source)
        for source in self.sources.values():
            if source.provider == provider:
                return source
        return source_of_provider(provider)


def target(settings: Settings, url: str, **options: Any) -> Target:
    """Make a Target of the settings' sources; the options are the fields of Target."""
    return Target(url=url, sources=settings.sources, **options)


def headers(source: Source, body: bytes, target: Target, now: datetime) -> dict[str, str]:
    """Return the headers of a callback; those that authenticate it need a secret.

    Raises SettingsError when the secret is none of the source's scheme.
    """
    common = {"Content-Type": "application/json"}
    secrets = (target.secret,) if target.secret else source.secrets[:1]
    if target.bad_signature:
        secrets = (WRONG_SECRET,)
    if not secrets:
        return common
    try:
        return common | source.signatures(secrets).sign(body, now)
    except ValueError as error:
        raise SettingsError(f"source {source.name}: {error}") from error


async def send(target: Target, callbacks: Sequence[SimulatedCallback]) -> list[SendResult]:
    """Post every callback, at most `concurrency` at a time, each starting in the given order.

    Answers come in the order of the callbacks. Raises ServiceUnreachable when no service listens.
    """
    answers: dict[int, SendResult] = {}
    queue = iter(enumerate(callbacks))
    started = time.monotonic()
    limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    try:
        async with aiohttp.ClientSession(timeout=limit) as session, asyncio.TaskGroup() as group:
            for _ in range(min(target.concurrency, max(1, len(callbacks)))):
                group.create_task(_work(session, target, queue, answers, started))
    except ExceptionGroup as several:
        error = several.exceptions[0]
        if isinstance(error, LOST):
            raise ServiceUnreachable(unreachable(target.url, error)) from error
        raise
    return [answers[n] for n in sorted(answers)]


async def _work(
    session: aiohttp.ClientSession, target: Target, queue: Iterator[tuple[int, SimulatedCallback]],
    answers: dict[int, SendResult], started: float,
) -> None:  # fmt: skip
    for n, callback in queue:
        if target.rate:
            await asyncio.sleep(max(0.0, started + n / target.rate - time.monotonic()))
        answers[n] = await _post(session, target, callback)


async def _post(
    session: aiohttp.ClientSession, target: Target, callback: SimulatedCallback
) -> SendResult:
    source = target.source_of(callback.provider)
    event = target.event or callback.event
    path = path_of("callbacks", source.name, *([event] if event else []))
    signed = headers(source, callback.body, target, datetime.now(UTC))
    start = time.monotonic()
    async with session.post(target.url + path, data=callback.body, headers=signed) as answer:
        body = await answer.read()
    seconds = time.monotonic() - start
    return _read(source.name, callback.name, answer.status, body, seconds)


def _read(source: str, name: str, code: int, body: bytes, seconds: float) -> SendResult:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    document = document if isinstance(document, dict) else {}
    status = document.get("status")
    position = document.get("position")
    reason = document.get("reason") or document.get("detail") or document.get("title")
    return SendResult(
        source,
        name,
        code,
        status if isinstance(status, str) else "refused",
        position if isinstance(position, int) else None,
        str(reason) if reason else None,
        seconds,
    )


def exit_code(answers: Sequence[SendResult], *, bad_signature: bool) -> int:
    """Return 0 when all were accepted or, when signed wrongly, refused; else 1."""
    return int(any(answer.accepted == bad_signature for answer in answers))


def summary(answers: Sequence[SendResult], seed: int | None) -> dict[str, Any]:
    """Return the answers as one JSON-able document, counted by code and status."""
    counts = Counter(f"{answer.code} {answer.status}" for answer in answers)
    return {
        "seed": seed,
        "sent": len(answers),
        "counts": dict(sorted(counts.items())),
        "answers": [asdict(answer) for answer in answers],
    }


def slowest(answers: Sequence[SendResult], share: float) -> float:
    """Return the time in seconds within which `share` (0..1) of the answers came."""
    times = sorted(answer.seconds for answer in answers)
    return times[min(len(times) - 1, int(len(times) * share))] if times else 0.0
