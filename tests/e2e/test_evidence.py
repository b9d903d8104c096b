"""Promise: the service seals by itself, whatever is killed, and commands prove it all."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from ledger.evidence import checkpoint_file
from ledger.evidence.signed_note import open_checkpoint
from tests import samples
from tests.conftest import eventually
from tests.e2e.conftest import Serve
from tests.evidence import stories
from tests.service import Caller, Service, calling

TOML = """
[sources.straitsx]
provider = "straitsx"
"""


@pytest.fixture(scope="module")
def service(serve: Serve) -> Iterator[Service]:
    with serve(TOML) as running:
        yield running


def ledger(service: Service, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command with --json on the service's settings; return exit status and document."""
    done = subprocess.run(
        [sys.executable, "-m", "ledger", *arguments, "--json"],
        env={k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")}
        | {"LEDGER_DATA_DIR": str(service.data_dir), **service.environ},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout, done.stderr.decode()
    return done.returncode, orjson.loads(done.stdout)


async def is_sealed(caller: Caller, position: int) -> bool:
    reply = await caller.request("GET", "/v1/seals/straitsx")
    return reply.status == 200 and reply.json["size"] >= position


async def last_position(caller: Caller) -> int:
    return int((await caller.ask("/v1/events", limit=1))["events"][0]["position"])


async def test_every_command_that_proves_passes_on_a_running_service(service: Service) -> None:
    async with calling(service.url) as caller:
        for name in samples.names("straitsx"):
            await caller.report("straitsx", samples.body(name))
        size = await last_position(caller)
        await eventually(lambda: is_sealed(caller, size), 3)
        note = (await caller.request("GET", "/v1/seals/straitsx/note")).body
        await caller.ask("/v1/status", at_least=f"straitsx:{size}")
        first = open_checkpoint(note.decode(), ())[0].size
        for body in stories(3):
            await caller.report("straitsx", orjson.dumps(body))
        await eventually(lambda: is_sealed(caller, size + 3), 3)
    url = ("--url", service.url)
    code, proof = ledger(service, "prove", "straitsx", "2", *url)
    assert (code, proof["verdict"], proof["troubles"]) == (0, "ok", [])
    code, proof = ledger(
        service, "prove", "straitsx", "--consistency", str(first), str(size + 3), *url
    )
    assert (code, proof["verdict"], proof["from"]) == (0, "ok", first)
    kept = service.folder / "kept.txt"
    kept.write_bytes(note)
    code, found = ledger(service, "verify", "--against", str(kept))
    assert (code, found["verdict"]) == (0, "ok"), found
    code, found = ledger(service, "verify", "--skip-books")
    assert (code, found["verdict"]) == (3, "INCOMPLETE")
    kept.write_bytes(note.replace(b"\n" + str(first).encode() + b"\n", b"\n1\n"))
    code, found = ledger(service, "verify", "--skip-books", "--against", str(kept))
    assert (code, found["verdict"]) == (1, "fail")
    assert (service.data_dir / "keys" / "seal.key").stat().st_mode & 0o777 == 0o600


async def test_a_key_rotated_under_way_signs_from_then_on(service: Service) -> None:
    async with calling(service.url) as caller:
        before = await last_position(caller)
        await eventually(lambda: is_sealed(caller, before), 3)
        code, found = ledger(service, "seal", "rotate")
        assert (code, len(found["keys"])) == (0, 2)
        for body in stories(2):
            await caller.report("straitsx", orjson.dumps(body))
        await eventually(lambda: is_sealed(caller, before + 2), 3)
        assert (await caller.ask("/v1/seals/straitsx"))["vkey"] == found["keys"][1]
    code, found = ledger(service, "verify")
    assert (code, found["verdict"]) == (0, "ok"), found


async def test_a_log_that_is_being_written_can_be_verified_whole(service: Service) -> None:
    async with calling(service.url) as caller:

        async def write() -> None:
            while True:
                for body in stories(20):
                    await caller.report("straitsx", orjson.dumps(body))

        writing = asyncio.create_task(write())
        before = await last_position(caller)
        code, found = await asyncio.to_thread(ledger, service, "verify")
        writing.cancel()
        await asyncio.wait([writing])
        assert (code, found["verdict"]) == (0, "ok"), found
        assert await last_position(caller) > before


async def test_a_sealer_killed_again_and_again_never_signs_two_histories(service: Service) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    async with calling(service.url) as caller:
        for _ in range(8):
            for body in stories(rng.randrange(1, 30)):
                await caller.report("straitsx", orjson.dumps(body))
            await asyncio.sleep(rng.random() * 0.5)
            for pid in service.pids("projector"):
                os.kill(pid, signal.SIGKILL)
        size = await last_position(caller)
        await eventually(lambda: is_sealed(caller, size), 30)
        seals = await caller.rows("/v1/seals", "seals", limit=1000)
        await caller.ask("/v1/status", at_least=f"straitsx:{size}")
    sizes: dict[int, set[str]] = {}
    for note in checkpoint_file.read(checkpoint_file.path_of(service.data_dir, "straitsx")):
        sizes.setdefault(open_checkpoint(note, ())[0].size, set()).add(note)
    assert {size: {seal["note"]} for seal in seals for size in [seal["size"]]} == sizes
    code, found = ledger(service, "verify")
    assert (code, found["verdict"]) == (0, "ok"), found


def test_without_a_running_database_nothing_is_claimed(tmp_path: Path) -> None:
    nothing = Service(tmp_path)
    code, found = ledger(nothing, "verify")
    assert (code, found["verdict"]) == (3, "INCOMPLETE")
    assert "embedded, not created yet" in found["checks"][0]["found"]
