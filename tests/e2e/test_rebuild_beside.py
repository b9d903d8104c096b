"""Promise: books are rebuilt beside a running service; whatever is killed, nothing wrong shows."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

import handlers
from ledger.books.generations import SELECT_LIVE
from ledger.database import connection as db
from ledger.simulator.simulate import disturb, story
from tests.conftest import eventually
from tests.dumps import differences, dump, fold_from_zero
from tests.e2e.conftest import Serve
from tests.service import Caller, Service, calling

ROOT = Path(handlers.__file__).parents[1]
TOML = """
[sources.straitsx]
provider = "straitsx"
[sources.gokart]
provider = "gokart"
currency = "USD"
"""
LOTTERY = '''"""A lottery that pays into a wallet: a callback type that came later."""

from __future__ import annotations

from ledger.model import Envelope, Fact, Handler, Payload, SourceTerms, identify


def matches(payload: Payload) -> bool:
    """Say whether the body is of this type."""
    return payload.type == "lottery"


def envelope(payload: Payload) -> Envelope:
    """Return what the receiver needs."""
    return identify(payload, "payment", payload.text("status") or "completed")


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    """Return what the callback says."""
    return envelope(payload).fact(
        amount=payload.money("prize"), currency=payload.currency("currency"), fees=None
    )


HANDLER = Handler(
    provider="straitsx", kind="lottery", events=frozenset(), matches=matches,
    envelope=envelope, translate=translate, types=frozenset({"lottery"}),
)
'''
SECONDS_MAX = 60
KILLS = 5


def ledger(service: Service, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command of the service's own installation."""
    return subprocess.Popen(
        [sys.executable, "-m", "ledger", *arguments],
        env=service._environment(), cwd=service.folder, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


async def finished(process: subprocess.Popen[bytes]) -> tuple[int, dict[str, Any]]:
    """Return exit status and JSON of a command."""
    out, err = await asyncio.to_thread(process.communicate, None, SECONDS_MAX)
    assert out, err.decode()
    return process.returncode, orjson.loads(out)


async def rebuild(service: Service, *flags: str) -> tuple[int, dict[str, Any]]:
    return await finished(ledger(service, "rebuild", "--json", *flags))


async def report(caller: Caller, rng: random.Random, stories: int) -> int:
    """Post stories with every kind and disturbance; return how many callbacks."""
    stated = list(
        disturb(story("everything", rng, stories), rng, duplicate=0.2, shuffle=True, conflict=True)
    )
    for callback in stated:
        await caller.report(callback.provider, callback.body, callback.event)
    return len(stated)


@asynccontextmanager
async def busy(service: Service, rng: random.Random) -> AsyncIterator[list[dict[str, int]]]:
    """Post callbacks and ask for balances all the while; every one must be answered, none earlier
    than the one before."""
    stop = asyncio.Event()
    seen: list[dict[str, int]] = []

    async def post(caller: Caller) -> None:
        while not stop.is_set():
            await report(caller, rng, 1)

    async def ask(caller: Caller) -> None:
        while not stop.is_set():
            answer = await caller.ask("/v1/balances", limit=1000)
            sums: dict[str, float] = {}
            for row in answer["balances"]:
                sums[row["currency"]] = sums.get(row["currency"], 0) + float(row["debits"])
                sums[row["currency"]] -= float(row["credits"])
            assert all(abs(rest) < 1e-6 for rest in sums.values()), sums
            if seen:
                assert all(answer["position"][s] >= p for s, p in seen[-1].items()), seen[-1]
            seen.append(answer["position"])

    async with calling(service.url) as caller, asyncio.TaskGroup() as tasks:
        tasks.create_task(post(caller))
        tasks.create_task(ask(caller))
        try:
            yield seen
        finally:
            stop.set()


async def status(service: Service) -> dict[str, Any]:
    async with calling(service.url) as caller:
        return await caller.ask("/v1/status")


async def caught_up(service: Service) -> dict[str, Any]:
    async def check() -> dict[str, Any] | None:
        reported = await status(service)
        return reported if all(row["lag_events"] == 0 for row in reported["sources"]) else None

    found: dict[str, Any] = await eventually(check, SECONDS_MAX)
    return found


async def unlike_a_fold(service: Service) -> dict[str, Any]:
    """Return how the live books differ from the ordinary fold of the whole log."""
    from dataclasses import replace

    from ledger.config.settings import load

    dsn = service.environ["LEDGER_DATABASE_URL"]
    settings = replace(load({}), database_url=dsn)
    async with db.connected(dsn, seconds_max=60) as connection:
        live = (await connection.fetchrow(SELECT_LIVE))["generation"]
        other = await fold_from_zero(dsn, settings)
        return differences(await dump(connection, live), await dump(connection, other))


def copy_of_the_program(folder: Path) -> Path:
    """Copy the program, to be changed; a service runs it with this folder as its PYTHONPATH."""
    for name in ("handlers", "projections", "ledger", "migrations"):
        shutil.copytree(ROOT / name, folder / "code" / name)
    return folder / "code"


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text, (file, old)
    file.write_text(text.replace(old, new), "utf-8")


def seeded() -> random.Random:
    seed = random.randrange(2**32)
    print("seed", seed)
    return random.Random(seed)


async def test_under_live_traffic_no_callback_fails_and_no_answer_goes_back(serve: Serve) -> None:
    rng = seeded()
    with serve(TOML) as service:
        async with calling(service.url) as caller:
            await report(caller, rng, 3)
        before = (await caught_up(service))["generation"]
        async with busy(service, rng) as seen:
            code, reported = await rebuild(service, "--verify-only")
            assert (code, reported["verdict"]) == (0, "equal"), reported
            code, reported = await rebuild(service, "--swap")
            assert (code, reported["then"]) == (0, "swapped"), reported
            asked = len(seen)
            await eventually(lambda: _more(seen, asked + 3), SECONDS_MAX)
            code, reported = await rebuild(service, "--rollback")
            assert (code, reported["generation"]) == (0, before), reported
            asked = len(seen)
            await eventually(lambda: _more(seen, asked + 3), SECONDS_MAX)
        after = await caught_up(service)
        assert (after["generation"], after["books_version"]) == (before, reported["version"])
        assert await unlike_a_fold(service) == {}


async def _more(seen: Sequence[object], expected: int) -> bool:
    return len(seen) >= expected


@pytest.mark.timeout(180)
async def test_a_rebuild_killed_anywhere_resumes_and_nothing_wrong_is_served(serve: Serve) -> None:
    rng = seeded()
    with serve(TOML) as service:
        async with calling(service.url) as caller:
            await report(caller, rng, 8)
        await caught_up(service)
        kills = swaps = 0
        async with busy(service, rng):
            while kills < KILLS or not swaps:
                process = ledger(service, "rebuild", "--swap", "--json")
                try:
                    patience = rng.uniform(0.3, 3) if kills < KILLS else SECONDS_MAX
                    await asyncio.to_thread(process.wait, patience)
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    kills += 1
                out, err = await asyncio.to_thread(process.communicate, None, SECONDS_MAX)
                if process.returncode == 3:
                    # The one killed before has not let go of the database yet.
                    assert b"Another rebuild" in err, err
                    continue
                assert process.returncode in (0, -signal.SIGKILL), (out, err)
                swaps += process.returncode == 0
        print("kills", kills, "swaps", swaps)
        await caught_up(service)
        code, reported = await rebuild(service, "--verify-only")
        assert (code, reported["verdict"]) == (0, "equal"), reported
        assert await unlike_a_fold(service) == {}


async def test_two_rebuilds_at_once_are_refused_and_the_first_ends(serve: Serve) -> None:
    with serve(TOML) as service:
        async with calling(service.url) as caller:
            await report(caller, seeded(), 2)
        await caught_up(service)
        processes = [ledger(service, "rebuild", "--verify-only", "--json") for _ in range(3)]
        done = [await asyncio.to_thread(p.communicate, None, SECONDS_MAX) for p in processes]
        codes = [p.returncode for p in processes]
        assert codes.count(0) >= 1, done
        assert set(codes) <= {0, 3}, done
        for process, (_, err) in zip(processes, done, strict=True):
            if process.returncode == 3:
                assert b"Another rebuild of this database is running" in err


@pytest.mark.timeout(180)
async def test_an_unknown_callback_is_understood_when_its_handler_arrives(
    serve: Serve, tmp_path: Path
) -> None:
    """Only a file is added and the service restarted: it folds the log again by itself."""
    code = copy_of_the_program(tmp_path)
    body = orjson.dumps({"id": "win-1", "type": "lottery", "status": "completed", "prize": "77.5",
                         "currency": "xsgd", "updated_at": "2026-01-01T00:00:00Z"})  # fmt: skip
    changed = {"LEDGER_SWAP_CHANGED_BOOKS": "true"}
    with serve(TOML, PYTHONPATH=str(code), **changed) as service:
        async with calling(service.url) as caller:
            answer = await caller.report("straitsx", body)
            assert (answer["status"], answer["reason"]) == ("quarantined", "unknown")
            await report(caller, seeded(), 1)
            before = await caught_up(service)
            asked = await caller.request("GET", "/v1/transactions/straitsx/win-1")
            assert asked.status == 404
            assert asked.headers.get("Ledger-Books") is None
            (opened,) = await caller.rows("/v1/exceptions", "exceptions", reason="unknown")
            assert opened["event"]["position"] == answer["position"]
        assert await asyncio.to_thread(service.stop) == 0
        (code / "handlers" / "straitsx_lottery.py").write_text(LOTTERY, "utf-8")
        await asyncio.to_thread(service.start)

        async def understood() -> dict[str, Any] | None:
            reported = await status(service)
            return reported if reported["books_version"] != before["books_version"] else None

        after = await eventually(understood, SECONDS_MAX)
        assert after["generation"] == before["generation"] + 1
        assert {row["generation"] for row in after["sources"]} == {after["generation"]}
        async with calling(service.url) as caller:
            asked = await caller.request("GET", "/v1/transactions/straitsx/win-1")
            assert (asked.status, asked.json["amount"], asked.json["status"]) == (
                200, "77.5", "completed",
            )  # fmt: skip
            books_said = f"{after['generation']}/{after['books_version']}"
            assert asked.headers["Ledger-Books"] == books_said
            assert await caller.rows("/v1/exceptions", "exceptions", reason="unknown") == []
        assert "books_rebuild_compared" in service.text()
        assert "books_rebuild_swapped" in service.text()


@pytest.mark.timeout(180)
async def test_a_changed_posting_rule_folds_the_log_again_and_a_changed_pause_does_not(
    serve: Serve, tmp_path: Path
) -> None:
    code = copy_of_the_program(tmp_path)
    rng = seeded()
    with serve(TOML, PYTHONPATH=str(code), LEDGER_SWAP_CHANGED_BOOKS="true") as service:
        async with calling(service.url) as caller:
            await report(caller, rng, 2)
            before = await caught_up(service)
            fees = await caller.rows("/v1/balances", "balances", account="expenses:fees")
            assert fees
        assert await asyncio.to_thread(service.stop) == 0
        change(
            code / "ledger" / "books" / "projection_worker.py",
            "YIELD_EVERY_EVENTS: Final = 50", "YIELD_EVERY_EVENTS: Final = 40",
        )  # fmt: skip
        await asyncio.to_thread(service.start)
        async with calling(service.url) as caller:
            await report(caller, rng, 1)
        same = await caught_up(service)
        assert (same["generation"], same["books_version"]) == (
            before["generation"], before["books_version"],
        )  # fmt: skip
        assert "books_rebuild_started" not in service.text()
        assert await asyncio.to_thread(service.stop) == 0
        change(code / "projections" / "postings.py", '"expenses:fees"', '"expenses:all_fees"')
        await asyncio.to_thread(service.start)

        async def is_folded_again() -> dict[str, Any] | None:
            found = await status(service)
            return found if found["books_version"] != before["books_version"] else None

        after = await eventually(is_folded_again, SECONDS_MAX)
        assert after["generation"] == before["generation"] + 1
        async with calling(service.url) as caller:
            assert await caller.rows("/v1/balances", "balances", account="expenses:all_fees")
            assert await caller.rows("/v1/balances", "balances", account="expenses:fees") == []
