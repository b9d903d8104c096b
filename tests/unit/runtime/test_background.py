"""Work in a thread: its failure is logged and passed on; its end is never an error of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, NoReturn

import pytest

from ledger.errors import RegistryError
from ledger.runtime.background import in_thread
from tests.capturing import captured_logs

SECONDS_MAX = 10.0


async def fail() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(refuse())


async def refuse() -> None:
    raise RegistryError("the provider p declares an unknown API")


async def return_at_once() -> None:
    return None


def test_a_failure_is_logged_and_passed_on_and_the_block_ends_without_another() -> None:
    with captured_logs() as logged, in_thread("puller", fail) as ended:
        failure = ended.exception(SECONDS_MAX)
    assert isinstance(failure, ExceptionGroup)
    (entry,) = logged
    assert (entry["event"], entry["name"]) == ("background_work_failed", "puller")
    assert entry["error"] == "the provider p declares an unknown API"


def test_work_that_has_ended_is_no_error_at_the_end_of_the_block() -> None:
    with captured_logs() as logged, in_thread("sealer", return_at_once) as ended:
        assert ended.result(SECONDS_MAX) is None
    assert logged == []


def test_work_is_cancelled_at_the_end_of_the_block_and_that_is_no_failure() -> None:
    cancelled: Future[bool] = Future()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set_result(True)
            raise

    with captured_logs() as logged, in_thread("sealer", wait) as ended:
        assert not ended.done()
    assert cancelled.result(SECONDS_MAX)
    assert ended.result(SECONDS_MAX) is None
    assert logged == []


def test_an_event_loop_that_cannot_be_made_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(main: Coroutine[Any, Any, None]) -> NoReturn:
        main.close()
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("uvloop.run", run)
    with captured_logs() as logged, in_thread("sealer", return_at_once) as ended:
        assert isinstance(ended.exception(SECONDS_MAX), OSError)
    assert [entry["error"] for entry in logged] == ["OSError"]
