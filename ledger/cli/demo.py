"""`ledger demo`: a whole service in a temporary folder, fed by the simulator, shown as tables."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson

from ledger.client.callback_sender import SendResult, Target, send
from ledger.client.service_client import Client
from ledger.config.settings import Settings, load
from ledger.errors import LedgerError, ServiceRefused, ServiceUnreachable
from ledger.payload import plain
from ledger.postgres.server import EmbeddedPostgres
from ledger.simulator.simulate import GOKART, STRAITSX, SimulatedCallback, chosen, disturb, story
from ledger.terminal import tables

READY_SECONDS_MAX: Final = 60.0
FOLDED_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 30.0
POLL_SECONDS: Final = 0.1
LOG_LINES: Final = 5
STORIES: Final = 2
REPEATED: Final = 0.3

PAGES: Final = (
    ("wallets", "What every wallet holds. Money of a conflict is held, announced money is "
     "pending; INCOMPLETE means that no statement has confirmed the figures yet."),
    ("balances", "Double entry: in every currency the debits equal the credits, and every "
     "repeated callback counted once."),
    ("transactions", "What all callbacks of a transaction say together, in whatever order they "
     "came; the flags name what deserves a look."),
    ("customers", "The verification status that the provider reported last by its own clock."),
    ("exceptions", "What a person should look at: nothing was guessed, dropped or counted twice. "
     "Below what events opened is listed what looks incomplete by now."),
)  # fmt: skip
"""List → what is seen in it."""


@dataclass(frozen=True, slots=True)
class DemoService:
    """The demo's own service: where it answers, and with which settings it was started."""

    url: str
    settings: Settings


class NotFinished(LedgerError):
    """The demo could not finish. The message names where it stopped."""


def run(*, seed: int, json: bool) -> int:
    """Run the demo, leave nothing behind, and return 0, or 1 if the books do not balance.

    Raises LedgerError if it cannot finish.
    """
    try:
        shown = asyncio.run(_demo(seed, quiet=json))
    except asyncio.CancelledError as error:
        raise NotFinished("the demo was stopped; nothing of it is left") from error
    if json:
        sys.stdout.write(orjson.dumps(shown).decode() + "\n")
    else:
        _show(shown)
    return int(any(amount != "0" for amount in shown["sums"].values()))


async def _demo(seed: int, *, quiet: bool) -> dict[str, Any]:
    started = time.monotonic()
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    _say(quiet, "starting a service with its own PostgreSQL in a temporary folder …")
    async with _service() as service:
        callbacks = _callbacks(Random(seed))  # noqa: S311 - made-up callbacks, repeatable
        _say(quiet, f"ready on {service.url} after {time.monotonic() - started:.1f} s; posting "
             f"{len(callbacks)} callbacks, repeated and reordered …")  # fmt: skip
        answers = await send(Target(service.url, service.settings.sources), callbacks)
        _check(answers)
        pages = await _ask(service, answers)
        return {"sent": _sent(answers), "sums": _sums(pages["balances"]), **pages}


def _callbacks(rng: Random) -> list[SimulatedCallback]:
    """Return every sample in order, then stories out of order, repeated and contradicted."""
    callbacks = story("everything", rng, STORIES)
    return [*chosen(()), *disturb(callbacks, rng, duplicate=REPEATED, shuffle=True, conflict=True)]


def _check(answers: Sequence[SendResult]) -> None:
    wrong = [answer for answer in answers if not answer.accepted]
    if wrong:
        raise NotFinished(f"{len(wrong)} callbacks were refused, the first: {wrong[0].line()}")


def _sent(answers: Sequence[SendResult]) -> dict[str, int]:
    return {"callbacks": len(answers), **Counter(answer.status for answer in answers)}


async def _ask(service: DemoService, answers: Sequence[SendResult]) -> dict[str, Any]:
    """Return every page of the demo, true at the last position that was acknowledged."""
    last: dict[str, int] = {}
    for answer in answers:
        last[answer.source] = max(last.get(answer.source, 0), answer.position or 0)
    at_least = ",".join(f"{source}:{position}" for source, position in last.items())
    params = {"at_least": at_least, "limit": "1000"}
    async with Client(service.url) as client:
        await _folded(client, params)
        return {name: orjson.loads(await client.get(f"/v1/{name}", params)) for name, _ in PAGES}


async def _folded(client: Client, params: Mapping[str, str]) -> None:
    """Wait until the books have reached what was acknowledged."""
    deadline = time.monotonic() + FOLDED_SECONDS_MAX
    while True:
        try:
            await client.get("/v1/wallets", params)
        except ServiceRefused as error:
            if error.status != 503 or time.monotonic() > deadline:
                raise NotFinished(
                    f"the books did not reach {params['at_least']}: {error}"
                ) from error
            await asyncio.sleep(POLL_SECONDS)
        else:
            return


def _sums(balances: Mapping[str, Any]) -> dict[str, str]:
    """Return debits minus credits over all accounts, per currency; all "0" in sound books."""
    sums: dict[str, Decimal] = {}
    for row in balances["balances"]:
        side = Decimal(row["debits"]) - Decimal(row["credits"])
        sums[row["currency"]] = sums.get(row["currency"], Decimal(0)) + side
    return {currency: plain(amount) for currency, amount in sums.items()}


@asynccontextmanager
async def _service() -> AsyncIterator[DemoService]:
    """Run `ledger serve` as a child process for the length of the block, then remove it all."""
    folder = Path(tempfile.mkdtemp(prefix="ledger-demo-"))
    environ = _environment(folder)
    service = DemoService(f"http://127.0.0.1:{environ['LEDGER_PORT']}", load(environ))
    log = folder / "service.log"
    try:
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ledger", "serve", env=environ, cwd=folder,
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        try:
            await _until_ready(service, process, log)
            yield service
        finally:
            await _stop(process)
            await EmbeddedPostgres(service.settings.data_dir).stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    """Return the child's environment: none of the operator's settings, secrets of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    kept |= {name: os.environ[name] for name in ("LEDGER_PG_BIN", "LEDGER_PG_USER")
             if name in os.environ}  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return kept | {
        "LEDGER_DATA_DIR": str(folder / "data"),
        "LEDGER_PORT": str(port),
        "LEDGER_LOG_FORMAT": "json",
        "LEDGER_SOURCES": f"{STRAITSX},{GOKART}",
        "LEDGER_SECRET_STRAITSX": secrets.token_hex(32),
        "LEDGER_SECRET_GOKART": secrets.token_hex(32),
    }


async def _until_ready(
    service: DemoService, process: asyncio.subprocess.Process, log: Path
) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    async with Client(service.url) as client:
        while True:
            if process.returncode is not None:
                raise NotFinished(f"the service ended at once: {_tail(log)}")
            try:
                await client.get("/readyz")
            except (ServiceUnreachable, ServiceRefused) as error:
                if time.monotonic() > deadline:
                    raise NotFinished(f"the service did not become ready: {_tail(log)}") from error
                await asyncio.sleep(POLL_SECONDS)
            else:
                return


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _tail(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return " | ".join(lines[-LOG_LINES:]) or "its log is empty"


def _say(quiet: bool, words: str) -> None:
    if not quiet:
        sys.stderr.write(f"{words}\n")


def _show(shown: Mapping[str, Any]) -> None:
    out = tables.console()
    sent = ", ".join(f"{count} {word}" for word, count in shown["sent"].items())
    tables.line(out, f"Sent {sent}.")
    for name, sentence in PAGES:
        out.print()
        tables.line(out, name.upper(), "bold" if out.is_terminal else "")
        tables.line(out, sentence)
        tables.show(name, shown[name], out)
        if name == "balances":
            sums = ", ".join(f"{currency} {amount}" for currency, amount in shown["sums"].items())
            tables.line(out, f"Debits minus credits over all accounts: {sums}.")
    out.print()
    tables.line(out, "The service has stopped and its folder is gone. Next: `make run`, then "
                "`.venv/bin/ledger send` in another terminal.")  # fmt: skip
