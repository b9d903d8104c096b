"""An event that is to be appended, and how one is made of a callback or of an operator's word."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ledger.eventlog.identity import event_id, identity
from ledger.registry import ParsedCallback


class NewEvent(msgspec.Struct, kw_only=True, gc=False):
    """An event on its way into the log.

    `headers` is a JSON object; `received_at` and `provider_at` are aware times.
    """

    event_id: bytes
    idempotency_key: str
    kind: str
    resource_id: str
    status: str
    idempotency_id: str | None = None
    provider_at: datetime | None = None
    path_event: str | None = None
    origin: str
    reason: str | None = None
    detail: str | None = None
    peer: str = ""
    headers: str = "{}"
    body: bytes
    received_at: datetime
    is_by_url: bool = False
    """Whether only the URL gives its kind and resource, which its event id does not cover then."""


def callback_event(
    source: str,
    callback: ParsedCallback,
    body: bytes,
    *,
    received_at: datetime,
    path_event: str | None = None,
    peer: str = "",
    headers: str = "{}",
) -> NewEvent:
    """Return the event of an authentic callback of a source."""
    key, identifier = identity(source, callback, body)
    envelope = callback.envelope
    return NewEvent(
        event_id=identifier,
        idempotency_key=key,
        kind=envelope.kind,
        resource_id=envelope.resource_id,
        status=envelope.status,
        idempotency_id=envelope.idempotency_id,
        provider_at=envelope.provider_at,
        path_event=path_event,
        origin="callback",
        reason=callback.reason,
        detail=callback.detail,
        peer=peer,
        headers=headers,
        body=body,
        received_at=received_at,
        is_by_url=callback.is_by_url,
    )


def operator_event(
    *,
    key: str,
    kind: str,
    resource_id: str,
    status: str,
    body: bytes,
    received_at: datetime,
    provider_at: datetime | None,
) -> NewEvent:
    """Return the event of what an operator decides; `key` is its idempotency key."""
    return NewEvent(
        event_id=event_id(key, body),
        idempotency_key=key,
        kind=kind,
        resource_id=resource_id,
        status=status,
        provider_at=provider_at,
        origin="operator",
        body=body,
        received_at=received_at,
    )
