"""The answers to callbacks: what each outcome is in HTTP. Nothing else writes them.

200 means that the callback is in the log. 503 and 500 mean that it may or may not be, and that the
provider must send it again. Other statuses refuse it.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import msgspec
import orjson
from aiohttp import web

from ledger.errors import LedgerError
from ledger.eventlog.appender import AppendResult
from ledger.eventlog.new_event import NewEvent

RETRY_AFTER_SECONDS: Final = "5"
UNEXPECTED: Final = {"status": "error", "reason": "unexpected failure; resend"}
METHOD: Final = "POST"
CLOSE: Final = {"Connection": "close"}


class Refusal(LedgerError):
    """A callback that is answered with a status of 4xx or 501 and is not appended."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Answer(msgspec.Struct, frozen=True):
    """An answer, and the outcome under which it is counted."""

    outcome: str
    status: int
    content: Mapping[str, object]
    headers: Mapping[str, str]

    def encode(self) -> bytes:
        """Return the answer as the bytes of an HTTP response that keeps its connection open."""
        body = orjson.dumps(self.content)
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"Date: {formatdate(usegmt=True)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            "\r\n",
        ]
        return "\r\n".join(lines).encode() + body

    def response(self) -> web.Response:
        """Return the answer as HTTP."""
        response = web.Response(
            status=self.status, body=orjson.dumps(self.content), content_type="application/json"
        )
        response.headers.update(self.headers)
        return response


def acknowledge(source: str, new_event: NewEvent, result: AppendResult) -> Answer:
    """Answer a callback that is in the log."""
    outcome = "accepted" if new_event.reason is None else "quarantined"
    if not result.fresh:
        outcome = "duplicate"
    content: dict[str, object] = {
        "status": outcome,
        "source": source,
        "position": result.position,
        "event_id": result.event_id.hex(),
    }
    if outcome == "quarantined":
        content["reason"] = new_event.reason
        content["detail"] = new_event.detail
    return Answer(outcome, 200, content, {"Ledger-Position": f"{source}:{result.position}"})


def refuse(refusal: Refusal, *, is_read: bool) -> Answer:
    """Answer a callback that is refused; `is_read` tells whether its body came whole."""
    headers = {"Allow": METHOD} if refusal.status == 405 else {}
    if refusal.status == 413 or not is_read:
        headers |= CLOSE
    # Why a proof fails is for the operator, not for who tries.
    message = "not authenticated" if refusal.status == 401 else str(refusal)
    content = {"status": "refused", "reason": message}
    return Answer(refusal.reason, refusal.status, content, headers)


def unavailable(error: Exception, *, closes: bool) -> Answer:
    """Answer a callback that may or may not be in the log."""
    headers = {"Retry-After": RETRY_AFTER_SECONDS, **(CLOSE if closes else {})}
    return Answer("unavailable", 503, {"status": "unavailable", "reason": str(error)}, headers)


def unexpected() -> Answer:
    """Answer a callback whose handling failed in a way that nothing else covers."""
    return Answer("error", 500, UNEXPECTED, {})
