"""The identity of an event: its idempotency key, its event id, and the logs that hold it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from ledger.errors import Tampered
from ledger.registry import BY_URL, ParsedCallback

EVENT_ID_BYTES: Final = 16
STATEMENTS_SUFFIX: Final = ".statements"
"""How the name of the log of a source's statements ends."""


def event_id(key: str, body: bytes) -> bytes:
    """Return an event's id: 128 bits of SHA-256 over its idempotency key, a zero byte, its body."""
    return sha256(key.encode() + b"\x00" + body).digest()[:EVENT_ID_BYTES]


def identity(source: str, reading: ParsedCallback, body: bytes) -> tuple[str, bytes]:
    """Return a callback's idempotency key and its event id.

    The key is source, kind, idempotency id, resource and the state reported. What is not understood
    is keyed by its bytes alone, and so is what only the URL's event name identifies: one signed
    body is one event, whatever URL it is posted to.
    """
    envelope = reading.envelope
    tail = envelope.tail
    if tail is None:
        tail = sha256(body).hexdigest()
    if not envelope.resource_id:
        tail = f"/{tail}"
    key = "/".join(
        (source, envelope.kind, envelope.idempotency_id or "", envelope.resource_id, tail)
    )
    if reading.is_by_url:
        key = by_url_key(source, body)
    return key, event_id(key, body)


def by_url_key(source: str, body: bytes) -> str:
    """Return the idempotency key of a callback that only the URL identifies."""
    return f"{source}/{BY_URL}///{sha256(body).hexdigest()}"


def check_identity(source: str, row: Mapping[str, Any]) -> None:
    """Check that a stored event's id and key are those of its body. Raises Tampered.

    The key begins with source, kind, idempotency id and resource, or is that of a body
    that only the URL identifies; the id is 128 bits of SHA-256 over key and body.
    """
    position, key = row["position"], row["idempotency_key"]
    if event_id(key, row["body"]) != row["event_id"]:
        problem = f"event {position} is not the one that its event_id names: key or body differs"
        raise Tampered("identity", position, problem)
    begin = "/".join((source, row["kind"], row["idempotency_id"] or "", row["resource_id"], ""))
    if not key.startswith(begin) and key != by_url_key(source, row["body"]):
        problem = f"event {position} has another kind, idempotency id or resource than its key"
        raise Tampered("identity", position, problem)


def statements_log(source: str) -> str:
    """Return the name of the log that holds a source's statements."""
    return source + STATEMENTS_SUFFIX


def is_statements_log(log: str) -> bool:
    """Tell whether a log holds statements rather than callbacks."""
    return log.endswith(STATEMENTS_SUFFIX)


def source_of(log: str) -> str:
    """Return the source whose callbacks or statements a log holds."""
    return log.removesuffix(STATEMENTS_SUFFIX)
