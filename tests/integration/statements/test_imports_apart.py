"""A statement's file is read in a process of its own, within limits, one at a time per source."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from ledger.config.source import Source
from ledger.config.statement_profile import StatementProfile
from ledger.errors import Conflicting, StatementRefused
from ledger.statements.import_process import ImportLimits, ImportOptions, import_file
from ledger.statements.importer import LOCK
from tests.asking import Service, payment, problem, serving
from tests.conftest import Database, eventually
from tests.service import calling
from tests.service import serving as running
from tests.statements import JANUARY, refused_statement, row, statement

SOURCE = Source("straitsx", "straitsx")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
FILE = statement([row("r1", "c1", "10", "2026-01-10T12:00:00Z")])
ASKED = {"source": "straitsx", "currency": "XSGD", "from": JANUARY[0], "to": JANUARY[1]}
MIB = 1024 * 1024
STALL_SECONDS_MAX = 2.0


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as found:
        yield found


def many_lines(count: int) -> bytes:
    """Return a CSV that takes a while to read."""
    lines = "".join(f"2026-01-10T12:00:00Z,{n}.25,c{n}\n" for n in range(count))
    return f"Date,Amount,Ref\n{lines}".encode()


CSV = ImportOptions(
    "csv", "XSGD",
    profile=StatementProfile(effective_at="Date", amount="Amount", reference="Ref"),
)  # fmt: skip


async def imported(
    database: Database, body: bytes, options: ImportOptions, limits: ImportLimits
) -> Any:
    return await asyncio.to_thread(
        import_file, database.service_dsn, SOURCE, body, options, NOW, limits=limits
    )


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ImportLimits(memory_bytes_max=320 * MIB), "takes more than 320 MiB of memory"),
        (ImportLimits(cpu_seconds_max=1), "takes more than 1 s of processor time"),
        (ImportLimits(seconds_max=1), "takes more than 1 s; split it"),
    ],
)
async def test_a_file_that_takes_too_much_is_refused_with_a_sentence(
    database: Database, limits: ImportLimits, message: str
) -> None:
    with pytest.raises(StatementRefused, match=message):
        await imported(database, many_lines(600_000), CSV, limits)
    done = await imported(database, FILE, ImportOptions(currency="XSGD"), ImportLimits())
    assert (done.status, done.new) == ("accepted", 1)


@pytest.mark.timeout(120)
async def test_callbacks_do_not_wait_for_a_hostile_file(tmp_path: Path) -> None:
    """26 MiB of one tag, and as much that is well-formed and slow to read."""
    tag = b"<" + b"A" * 26 * MIB
    entry = b'<Ntry><Amt Ccy="SGD">1</Amt><CdtDbtInd>CRDT</CdtDbtInd></Ntry>'
    deep = b"<Document><Stmt>" + entry * (26 * MIB // len(entry))
    with running(tmp_path) as service:
        async with calling(service.url) as caller:
            for number, body in enumerate((tag, deep), 1):
                post = caller.request("POST", "/v1/statements", params=ASKED, data=io.BytesIO(body))
                importing = asyncio.create_task(post)
                waits = []
                while not importing.done() or not waits:
                    began = time.monotonic()
                    stated = payment(number, amount=str(len(waits) + 1))
                    await caller.report("straitsx", orjson.dumps(stated))
                    waits.append(time.monotonic() - began)
                    await asyncio.wait([importing], timeout=0.05)
                reply = await importing
                assert (reply.status, max(waits) < STALL_SECONDS_MAX) == (422, True), (reply, waits)


async def test_an_endless_tag_is_refused_at_once(service: Service) -> None:
    status, stated = await refused_statement(service, b"<" + b"A" * 80_000)
    assert (status, "a tag is longer than 65536 bytes" in stated["detail"]) == (422, True)


async def test_a_second_import_of_a_source_is_refused_while_one_runs(service: Service) -> None:
    begun = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield FILE[:10]
        begun.set()
        await again.wait()
        yield FILE[10:]

    again = asyncio.Event()
    first = asyncio.create_task(_post(service, slowly()))
    await begun.wait()

    async def refusal() -> Any:
        status, stated = await _post(service, FILE)
        return stated["detail"] if status == 409 else None

    stated = await eventually(refusal)
    assert "another import of straitsx is running" in stated
    again.set()
    assert (await first)[0] == 200
    assert (await _post(service, FILE))[1]["status"] == "duplicate"


async def _post(service: Service, body: Any) -> tuple[int, dict[str, Any]]:
    async with service.client.post("/v1/statements", params=ASKED, data=body) as answer:
        if answer.status != 200:
            return await problem(answer)
        return answer.status, dict(await answer.json())


async def test_imports_of_several_processes_follow_each_other(database: Database) -> None:
    async with database.service() as other:
        await other.execute(LOCK, "straitsx.statements")
        with pytest.raises(Conflicting, match="another import of straitsx is running; wait"):
            await imported(database, FILE, ImportOptions(currency="XSGD"), ImportLimits())
    done = await imported(database, FILE, ImportOptions(currency="XSGD"), ImportLimits())
    assert done.status == "accepted"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGABRT, "takes more than 2048 MiB of memory; split it"),
        (signal.SIGKILL, "takes more than 2048 MiB of memory; split it"),
        (signal.SIGSEGV, r"ended the process that read it \(SIGSEGV\); split it"),
    ],
)
async def test_a_reader_that_is_brought_down_is_reported_in_one_sentence(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    message: str,
) -> None:
    """What the library writes about its end is not ours."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/file\necho backtrace >&2\nkill -{number} $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(StatementRefused, match=message):
        await imported(database, FILE, ImportOptions(currency="XSGD"), ImportLimits())
    assert "backtrace" not in capfd.readouterr().err


async def test_a_file_without_a_currency_is_of_the_wallet_of_its_account(
    database: Database,
) -> None:
    declared = Source("straitsx", "straitsx", accounts={"SG0001": "XSGD"})
    body = b"Account No.:,SG0001\nDate,Amount,Ref\n2026-01-10T12:00:00Z,5,c1\n"
    profile = msgspec.structs.replace(CSV.profile, account_after=("Account No.:",))
    options = ImportOptions("csv", profile=profile, account="SG0001")
    done = await asyncio.to_thread(import_file, database.service_dsn, declared, body, options, NOW)
    assert (done.status, done.currency, done.account, done.new) == ("accepted", "XSGD", "SG0001", 1)


def test_what_reads_a_file_ends_with_the_process_that_asked() -> None:
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "ledger.statements.import_process", str(reading)],
        stdin=subprocess.PIPE,
        pass_fds=(reading,),
    )
    try:
        os.close(writing)  # it waits for its task
        assert child.wait(10) == 1
    finally:
        child.kill()
        child.communicate()
        os.close(reading)
