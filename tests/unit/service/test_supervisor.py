"""Starting processes: errors that pass are tried again, others end the service at once."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from ledger import registry
from ledger.config.pull import Pull
from ledger.config.settings import load
from ledger.errors import ProcessNotStarted, RegistryError
from ledger.service.supervisor import ServiceProcess, Supervisor, serve
from tests.capturing import captured_logs

SECONDS_MAX = 30.0


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
async def test_a_process_that_cannot_be_started_for_now_is_started_later(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    supervisor = Supervisor(load({}), "all", {})
    start, attempts = asyncio.create_subprocess_exec, 0

    async def create(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise OSError(number, os.strerror(number))
        supervisor.stopping.set()
        return await start(sys.executable, "-c", "", **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", create)
    with captured_logs() as logged:
        async with asyncio.timeout(SECONDS_MAX):
            await supervisor.keep_running(ServiceProcess("projector", ("projector",), ()))
    assert attempts == 3
    failed = [entry for entry in logged if entry["event"] == "process_start_failed"]
    assert [entry["name"] for entry in failed] == ["projector"] * 2
    assert os.strerror(number) in failed[0]["error"]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOEXEC])
async def test_a_program_that_cannot_be_run_ends_the_service_at_once(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def create(*_: Any, **__: Any) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(asyncio, "create_subprocess_exec", create)
    supervisor = Supervisor(load({}), "all", {})
    with pytest.raises(ProcessNotStarted, match="projector cannot be started"):
        await supervisor.keep_running(ServiceProcess("projector", ("projector",), ()))


@pytest.mark.parametrize("role", ["all", "projector"])
async def test_an_unknown_statement_api_is_refused_before_anything_is_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, role: str
) -> None:
    settings = load({"LEDGER_DATA_DIR": str(tmp_path / "data")})
    pull = Pull("https://api.example/v1", "key", ("XSGD",), 60.0)
    straitsx = replace(settings.sources["straitsx"], pull=pull)
    known = registry.load()
    provider = replace(known.providers["straitsx"], statement_api="elsewhere")
    changed = replace(known, providers={**known.providers, "straitsx": provider})
    monkeypatch.setattr(registry, "load", lambda: changed)
    with pytest.raises(RegistryError, match="statement_api='elsewhere'; use one of straitsx"):
        await serve(replace(settings, sources={"straitsx": straitsx}), role)
    assert not (tmp_path / "data" / "pgdata").exists()
