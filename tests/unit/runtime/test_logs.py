"""Promise: a log line says what happened and where, never what a callback or a secret holds."""

from __future__ import annotations

import subprocess
import sys

import pytest

CANARY = "canary"
START = """
import logging, sys, aiohttp.http, structlog
from ledger.runtime import logs
logs.configure(sys.argv[1])
ours, theirs = structlog.get_logger("ledger.test"), logging.getLogger("elsewhere")
"""
EXCEPTIONS = """
def fail(body):
    secret = f"secret {body}"
    try:
        raise ValueError(secret)
    except ValueError as error:
        raise KeyError(body) from error

for logger in (ours, theirs):
    try:
        fail("canary")
    except KeyError:
        logger.exception("it_failed")
    try:
        raise ExceptionGroup("canary", [ValueError("canary"), TypeError("canary")])
    except ExceptionGroup:
        logger.exception("they_failed")
"""
FIELDS = """
ours.info("seen", source="straitsx", body="canary", customer="canary")
"""
PASSWORDS = r"""
for url in ("postgresql://u:hush:hush@db/x", "postgresql://u:hush@hush@db/x",
            "host=db password='hush hush' user=u", "postgresql://db/x?password=hush"):
    ours.info("seen", error=f"cannot connect to {url}")
    theirs.warning("cannot connect to %s", url)
    theirs.warning(f"cannot connect to {url}")
"""
NOT_HTTP = """
for error in (aiohttp.http.HttpProcessingError(message="canary"), OSError("canary")):
    try:
        raise error
    except Exception:
        logging.getLogger("aiohttp.server").exception("Error handling request")
"""
formats = pytest.mark.parametrize("log_format", ["json", "console"])


def reported(code: str, log_format: str) -> str:
    """Return what a process with configured logs says."""
    done = subprocess.run(
        [sys.executable, "-c", START + code, log_format], capture_output=True, check=True, text=True
    )
    assert done.stdout == ""
    return done.stderr


@formats
def test_an_exception_is_logged_without_its_message_and_variables(log_format: str) -> None:
    words = reported(EXCEPTIONS, log_format)
    assert CANARY not in words
    for each in ("it_failed", "they_failed", "in fail", "builtins.KeyError", "builtins.TypeError",
                 "caused by", "of which"):  # fmt: skip
        assert words.count(each) >= 2, each


@formats
def test_fields_that_are_not_allowed_are_dropped(log_format: str) -> None:
    words = reported(FIELDS, log_format)
    assert "straitsx" in words
    assert CANARY not in words


@formats
def test_a_request_that_is_not_http_is_not_logged_at_all(log_format: str) -> None:
    words = reported(NOT_HTTP, log_format)
    assert words.count("Error handling request") == 1
    assert "builtins.OSError" in words
    assert CANARY not in words


@formats
def test_a_password_of_the_database_is_left_out(log_format: str) -> None:
    words = reported(PASSWORDS, log_format)
    assert "hush" not in words
    assert words.count("***") == 12
