"""Whether a stored event came through a receiver that knew the source's secret.

A signed callback keeps its provider's signature. An event without one (a callback with a static
token, an operator's decision, a statement) gets a mark when it is appended: HMAC-SHA256 under the
source's first secret, over what identifies the event. A writer to the database who knows no secret
can make neither. The events of a source without a secret are not checked.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeVar

import msgspec

from ledger.config.settings import Settings
from ledger.config.source import Source, secret_name
from ledger.errors import Conflicting
from ledger.eventlog.identity import is_statements_log, source_of
from ledger.signatures.scheme import MARK_BEGIN, Proof, Scheme
from ledger.signatures.schemes import SELF_PROVING

MARK: Final = "Ledger-Mark"
"""The name of the mark among the headers that an event keeps."""

QUERY: Final = "Query"
_OTHERS: Final = frozenset({"Content-Type", "User-Agent", QUERY, MARK})
"""Kept headers that are never a provider's signature."""

_CALLBACK: Final = "callback"

_decode: Final = msgspec.json.Decoder(dict[str, str]).decode

DoubtKind = Literal["forged", "unknown", "unmarked"]
"""`forged`: without a proof. `unknown`: none of the known secrets made its proof. `unmarked`:
without a proof, because a version of this program that made no marks stored it."""

E = TypeVar("E", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why an event may not have come through a receiver."""

    kind: DoubtKind
    position: int
    reason: str
    """What the event lacks, as the end of a sentence that begins with the event."""
    is_before_marks: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether no checkpoint may cover the event."""
        return self.kind == "forged" or (self.kind == "unknown" and not self.is_before_marks)


def mark(secret: str, log: str, origin: str, path_event: str | None, event_id: bytes) -> str:
    """Return an event's mark, in hex. `event_id` covers its key and body."""
    values = (log.encode(), origin.encode(), (path_event or "").encode(), event_id)
    data = b"".join(len(value).to_bytes(4, "big") + value for value in values)
    return hmac.digest(secret.encode(), MARK_BEGIN + data, "sha256").hex()


def headers_with_mark(
    source: Source | None, log: str, headers: str, *, origin: str, path_event: str | None,
    event_id: bytes,
) -> str:  # fmt: skip
    """Return the headers to keep of an event, a JSON object, with its mark where it needs one."""
    if source is None or not source.secrets:
        return headers
    if origin == _CALLBACK and source.scheme_type.is_self_proving:
        return headers
    value = mark(source.secrets[0], log, origin, path_event, event_id)
    return msgspec.json.encode(_decode(headers) | {MARK: value}).decode()


def mark_event(source: Source | None, log: str, event: E) -> E:
    """Return a copy of an event that this service makes, with its mark among its headers."""
    new_event: Any = event
    headers = headers_with_mark(
        source, log, new_event.headers, origin=new_event.origin, path_event=new_event.path_event,
        event_id=new_event.event_id,
    )  # fmt: skip
    marked: E = msgspec.structs.replace(new_event, headers=headers)
    return marked


def require_secret(source: Source, role: str) -> None:
    """Raise Conflicting where a separate `query` role knows no secret to mark its events with.

    The roles that know a secret would take such an event for a forged one.
    """
    if role == "query" and not source.secrets:
        raise Conflicting(
            f"this process knows no secret of source {source.name}, so it cannot mark the event: "
            f"start `ledger serve --role query` with {secret_name(source)}, as the receiver has it"
        )


def source_of_log(settings: Settings, log: str) -> Source | None:
    """Return the configured source whose callbacks or statements a log holds."""
    return settings.sources.get(source_of(log))


@dataclass(frozen=True, slots=True)
class Authenticity:
    """Checks the events of one log by all secrets that its source has or had."""

    log: str
    source: Source
    marked_since: datetime | None = None
    """When a version that marks events first used this database; None before that."""
    unsigned_until: int = 0
    """The settings declare that events up to this position have neither signature nor mark."""
    _secrets: tuple[str, ...] = ()
    _schemes: tuple[Scheme, ...] = ()
    """Every scheme whose proofs events keep, with the secrets that it can use."""

    @classmethod
    def of(cls, settings: Settings, log: str, marked_since: datetime | None) -> Authenticity | None:
        """Return the check of a log's events; None when its source is not configured."""
        source = source_of_log(settings, log)
        if source is None:
            return None
        secrets = (*source.secrets, *source.secrets_retired)
        until = source.unsigned_until
        if is_statements_log(log):
            until = source.unsigned_statements_until
        schemes = tuple(
            scheme(source.header, [secret for secret in secrets if scheme.can_use(secret)])
            for scheme in SELF_PROVING
        )
        return cls(log, source, marked_since, until, secrets, schemes)

    @property
    def has_secret(self) -> bool:
        """Whether the source has a secret, so that forged events can be recognised."""
        return bool(self._secrets)

    def first_refused(self, events: Sequence[Mapping[str, Any]]) -> Doubt | None:
        """Return the doubt about the first event that no checkpoint may cover; None without one."""
        doubts = filter(None, map(self.doubt, events))
        return next((doubt for doubt in doubts if doubt.is_refused), None)

    def doubt(self, event: Mapping[str, Any]) -> Doubt | None:
        """Check one event (columns of ledger.events); return None when its proof holds."""
        position: int = event["position"]
        if position <= self.unsigned_until:
            return None
        kept = _kept_headers(event)
        proofs = self._signatures(event, kept)
        has_proof = MARK in kept or bool(proofs)
        if not self.has_secret:
            reason = "carries a proof of its sender, but the settings name no secret to check it by"
            return Doubt("unknown", position, reason) if has_proof else None
        is_before_marks = self._is_before_marks(event["recorded_at"])
        if not has_proof:
            return self._unproved(event, is_before_marks=is_before_marks)
        if MARK in kept:
            is_valid = self._has_valid_mark(event, kept)
        else:
            is_valid = _has_valid_signature(event, kept, proofs, is_before_marks=is_before_marks)
        if is_valid:
            return None
        reason = "carries a proof of its sender that none of the source's secrets makes"
        return Doubt("unknown", position, reason, is_before_marks)

    def _signatures(
        self, event: Mapping[str, Any], kept: Mapping[str, str]
    ) -> list[tuple[Scheme, Proof]]:
        """Return the provider's signature by every scheme: the source's may have changed since."""
        if event["origin"] != _CALLBACK:
            return []
        others = {name: value for name, value in kept.items() if name not in _OTHERS}
        stored = ((scheme, scheme.stored_proof(others)) for scheme in self._schemes)
        return [(scheme, proof) for scheme, proof in stored if proof is not None]

    def _has_valid_mark(self, event: Mapping[str, Any], kept: Mapping[str, str]) -> bool:
        names = event["origin"], event["path_event"], event["event_id"]
        return kept[MARK] in (mark(secret, self.log, *names) for secret in self._secrets)

    def _is_before_marks(self, recorded_at: datetime) -> bool:
        if recorded_at.tzinfo is None:  # an infinite time
            return False
        return self.marked_since is None or recorded_at < self.marked_since

    def _unproved(self, event: Mapping[str, Any], *, is_before_marks: bool) -> Doubt:
        is_always_signed = event["origin"] == _CALLBACK and self.source.scheme_type.is_self_proving
        if is_before_marks and not is_always_signed:
            reason = "was stored by a version of this program that made no marks"
            return Doubt("unmarked", event["position"], reason, is_before_marks=True)
        reason = "carries no proof that its sender knew a secret"
        return Doubt("forged", event["position"], reason)


def _has_valid_signature(
    event: Mapping[str, Any], kept: Mapping[str, str], proofs: Sequence[tuple[Scheme, Proof]], *,
    is_before_marks: bool,
) -> bool:  # fmt: skip
    bodies = [event["body"]]
    if is_before_marks and _is_query(event, kept):
        # Versions without marks checked the signature of a query string over an empty body.
        bodies.append(b"")
    return any(scheme.proves(proof, body) for scheme, proof in proofs for body in bodies)


def _kept_headers(event: Mapping[str, Any]) -> dict[str, str]:
    try:
        return _decode(event["headers"])
    except msgspec.DecodeError:
        return {}


def _is_query(event: Mapping[str, Any], kept: Mapping[str, str]) -> bool:
    """Tell whether the event's body is a query string."""
    body: bytes = event["body"]
    return event["reason"] == "unsupported_encoding" and kept.get(QUERY, "").encode() == body
