"""`ledger send`: chooses the callbacks, has them posted, and prints the answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom
from typing import Final

import orjson

from ledger.cli.options import Sending
from ledger.client.callback_sender import (
    CONCURRENCY,
    LINES_MAX,
    SendResult,
    exit_code,
    send,
    slowest,
    summary,
    target,
)
from ledger.client.service_client import service_url
from ledger.config.settings import Settings
from ledger.errors import InvalidRequest
from ledger.simulator.simulate import (
    SCENARIOS,
    SCRIPTS,
    SimulatedCallback,
    chosen,
    disturb,
    fresh,
    story,
)
from ledger.terminal import tables

SEED_MAX: Final = 2**31
COUNT_MAX: Final = 1_000_000
CONCURRENCY_MAX: Final = 1_000


def send_callbacks(
    settings: Settings, kinds: Sequence[str], files: Sequence[str], scenario: str | None,
    count: int | None, sending: Sending, *, json: bool,
) -> int:  # fmt: skip
    """Choose, disturb, send and print; return the exit status.

    Raises InvalidRequest for what cannot be chosen, ServiceUnreachable when no service answers.
    """
    _check(files, scenario, count, sending)
    seed = sending.seed if sending.seed is not None else SystemRandom().randrange(SEED_MAX)
    rng = Random(seed)  # noqa: S311 - made-up callbacks, repeatable on purpose
    made_up = scenario is not None or (count is not None and not files)
    callbacks = _choose(kinds, files, scenario, count, rng, settings)
    callbacks = disturb(
        callbacks, rng, duplicate=sending.duplicate, shuffle=sending.shuffle,
        conflict=sending.conflict,
    )  # fmt: skip
    to = target(
        settings, service_url(settings, sending.url), source=sending.source,
        event=sending.event, secret=sending.secret, rate=sending.rate,
        concurrency=sending.concurrency or (CONCURRENCY if made_up else 1),
        bad_signature=sending.bad_signature,
    )  # fmt: skip
    answers = asyncio.run(send(to, callbacks))
    chance = made_up or sending.shuffle or sending.conflict or sending.duplicate > 0
    _print(answers, seed if chance else None, json=json)
    return exit_code(answers, bad_signature=sending.bad_signature)


def _check(files: Sequence[str], scenario: str | None, count: int | None, sending: Sending) -> None:
    if not 0 <= sending.duplicate <= 1:
        raise InvalidRequest("--duplicate is a share from 0 to 1, like 0.3")
    if sending.rate is not None and not 0 < sending.rate <= COUNT_MAX:
        raise InvalidRequest("--rate is callbacks per second, greater than 0")
    if sending.concurrency is not None and not 1 <= sending.concurrency <= CONCURRENCY_MAX:
        raise InvalidRequest(f"--concurrency is a number from 1 to {CONCURRENCY_MAX}")
    if count is not None and not 1 <= count <= COUNT_MAX:
        raise InvalidRequest(f"--count is a number from 1 to {COUNT_MAX}")
    if scenario is not None and scenario not in SCENARIOS:
        raise InvalidRequest(f"no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    if scenario is not None and files:
        raise InvalidRequest("give --file or --scenario, not both")


def _choose(
    kinds: Sequence[str], files: Sequence[str], scenario: str | None, count: int | None,
    rng: Random, settings: Settings,
) -> list[SimulatedCallback]:  # fmt: skip
    if files:
        default = next(iter(settings.sources.values())).provider
        return [_file(name, default) for name in files] * (count or 1)
    if scenario is not None:
        return story(scenario, rng, count or 1)
    if count is not None:
        unknown = [kind for kind in kinds if kind not in SCRIPTS]
        if unknown:
            raise InvalidRequest(f"no kind {unknown[0]!r}; there are {', '.join(SCRIPTS)}")
        return fresh(kinds or tuple(SCRIPTS), rng, count)
    callbacks = chosen(kinds)
    if not callbacks:
        raise InvalidRequest(f"no sample fits {' '.join(kinds)}; kinds are {', '.join(SCRIPTS)}")
    return callbacks


def _file(name: str, provider: str) -> SimulatedCallback:
    if name == "-":
        return SimulatedCallback(provider, None, sys.stdin.buffer.read(), "standard input")
    try:
        return SimulatedCallback(provider, None, Path(name).read_bytes(), name)
    except OSError as error:
        raise InvalidRequest(f"--file {name} cannot be read: {error.strerror}") from error


def _print(answers: Sequence[SendResult], seed: int | None, *, json: bool) -> None:
    document = summary(answers, seed)
    if json:
        sys.stdout.write(orjson.dumps(document).decode() + "\n")
        return
    out = tables.console()
    if len(answers) <= LINES_MAX:
        for answer in answers:
            tables.line(out, answer.line(), answer.status)
    else:
        rows = [{"count": n, "answer": words} for words, n in document["counts"].items()]
        out.print(tables.table("answers", rows, out))
        tables.line(out, f"half within {slowest(answers, 0.5) * 1000:.1f} ms, 99 % within "
                    f"{slowest(answers, 0.99) * 1000:.1f} ms")  # fmt: skip
    if seed is not None:
        tables.line(out, f"seed {seed}")
