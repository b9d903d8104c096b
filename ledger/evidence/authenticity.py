"""Whether a stored event came through a receiver that knew the source's secret.

A signed callback keeps its provider's signature. What has none of its own (a callback with a
static token, an operator's word, a statement) gets a mark when it is appended: HMAC-SHA256 under
the source's first secret, over what names the event. Whoever can write to the database alone knows
no secret and can make neither. A source without a secret claims nothing, and nothing is checked.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Final, Literal, TypeVar

import msgspec

from ledger.config.settings import Settings, Source, secret_name
from ledger.errors import Conflicting
from ledger.eventlog.identity import is_statements_log, source_of
from ledger.evidence.leaf import COLUMNS
from ledger.signatures.schemes import HMAC_PROVIDERS, Verify, verifier

MARK: Final = "Ledger-Mark"
"""The name of a mark among the headers that an event keeps."""

QUERY: Final = "Query"
_OTHERS: Final = frozenset({"Content-Type", "User-Agent", QUERY, MARK})
"""Kept headers that are no provider's signature."""

_SIGNATURE: Final = re.compile(r"\s*([0-9a-fA-F]{64})\s*")
"""A signature as it was kept, by earlier versions with any space around it."""

_BEGIN: Final = b"callback-ledger mark 1\n"
_CALLBACK: Final = "callback"

_SENT_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""What PostgreSQL counts from when it sends times."""

_columns: Final = itemgetter(
    *map(COLUMNS.index, ("position", "event_id", "origin", "path_event", "reason", "headers",
                         "body", "recorded_at"))
)  # fmt: skip
_decode: Final = msgspec.json.Decoder(dict[str, str]).decode

Doubts = Literal["forged", "unknown", "unmarked"]
E = TypeVar("E", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why an event may not have come through a receiver.

    It is `forged`, of a secret `unknown` here, or `unmarked`: without a proof because it is from
    before the marks. `found` says what it lacks, as the end of a sentence.
    """

    kind: Doubts
    position: int
    found: str
    is_before_marks: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether no checkpoint may sign it."""
        return self.kind == "forged" or (self.kind == "unknown" and not self.is_before_marks)


def mark(secret: str, log: str, origin: str, path_event: str | None, event_id: bytes) -> str:
    """Return an event's mark, in hex. `event_id` covers key and body."""
    fields = (log.encode(), origin.encode(), (path_event or "").encode(), event_id)
    data = b"".join(len(each).to_bytes(4, "big") + each for each in fields)
    return hmac.digest(secret.encode(), _BEGIN + data, "sha256").hex()


def marked(
    source: Source | None, log: str, headers: str, *, origin: str, path_event: str | None,
    event_id: bytes,
) -> str:  # fmt: skip
    """Return the headers that an event keeps, a JSON object, with its mark where it needs one."""
    if source is None or not source.secrets:
        return headers
    if origin == _CALLBACK and source.provider in HMAC_PROVIDERS:
        return headers
    made = mark(source.secrets[0], log, origin, path_event, event_id)
    return msgspec.json.encode(_decode(headers) | {MARK: made}).decode()


def of_service(source: Source | None, log: str, event: E) -> E:
    """Return an event of the service's own, ready to be appended, with its mark."""
    new_event: Any = event
    headers = marked(
        source, log, new_event.headers, origin=new_event.origin, path_event=new_event.path_event,
        event_id=new_event.event_id,
    )  # fmt: skip
    made: E = msgspec.structs.replace(new_event, headers=headers)
    return made


def require_secret(source: Source, role: str) -> None:
    """Refuse to append what would lack its mark where the role `query` runs apart.

    The other parts may know a secret, and take what has no mark as forged. Raises Conflicting.
    """
    if role == "query" and not source.secrets:
        raise Conflicting(
            f"this part of the service knows no secret of source {source.name}, so what it appends "
            f"would lack its mark: start `ledger serve --role query` with {secret_name(source)}, "
            "as the receiver has it"
        )


def source_of_log(settings: Settings, log: str) -> Source | None:
    """Return the configured source whose callbacks or statements a log holds."""
    return settings.sources.get(source_of(log))


@dataclass(frozen=True, slots=True)
class Authenticity:
    """Judges the events of one log by all secrets that its source has or had."""

    log: str
    source: Source
    marked_since: datetime | None = None
    """When this database was first used by a version that marks events; None without marks."""
    unsigned_until: int = 0
    """Up to this position events are declared to have neither signature nor mark."""
    _secrets: tuple[str, ...] = ()
    _signed: Verify = field(default=lambda _value, _body: False)

    @classmethod
    def of(cls, settings: Settings, log: str, marked_since: datetime | None) -> Authenticity | None:
        """Return the judge of a log; None for one whose source is not configured."""
        source = source_of_log(settings, log)
        if source is None:
            return None
        secrets = (*source.secrets, *source.secrets_retired)
        until = source.unsigned_until
        if is_statements_log(log):
            until = source.unsigned_statements_until
        signed = verifier(source.provider, secrets)
        return cls(log, source, marked_since, until, secrets, signed)

    @property
    def claims(self) -> bool:
        """Whether the source has a secret, so that its events can be told from others."""
        return bool(self._secrets)

    def first_refused(self, rows: Sequence[Sequence[Any]]) -> Doubt | None:
        """Return why the first event that may not be signed is doubtful; rows have COLUMNS."""
        return next(
            (doubt for row in rows if (doubt := self.doubt(row)) and doubt.is_refused), None
        )

    def doubt(self, row: Sequence[Any]) -> Doubt | None:
        """Judge one event."""
        position, event_id, origin, path_event, reason, headers, body, recorded = _columns(row)
        if position <= self.unsigned_until:
            return None
        try:
            kept: Mapping[str, str] = _decode(headers)
        except msgspec.DecodeError:
            kept = {}
        signature = _signature(kept) if origin == _CALLBACK else None
        proof = kept.get(MARK) or (signature if self._is_signed_by_provider else None)
        if not self.claims:
            told = "carries a proof of its sender, but the settings name no secret to check it with"
            return Doubt("unknown", position, told) if proof else None
        is_before = self._is_before_marks(recorded)
        if MARK in kept:
            known = (mark(s, self.log, origin, path_event, event_id) for s in self._secrets)
            is_ours = kept[MARK] in known
        elif proof:
            is_ours = self._signed(signature, body) or (
                is_before and _is_query(kept, reason, body) and self._signed(signature, b"")
            )
        else:
            return self._unproved(position, origin, is_before=is_before)
        told = "carries a proof of its sender that none of the source's secrets makes"
        return None if is_ours else Doubt("unknown", position, told, is_before)

    @property
    def _is_signed_by_provider(self) -> bool:
        return self.source.provider in HMAC_PROVIDERS

    def _is_before_marks(self, recorded: datetime | bytes) -> bool:
        at = recorded if isinstance(recorded, datetime) else _sent(recorded)
        return at is not None and (self.marked_since is None or at < self.marked_since)

    def _unproved(self, position: int, origin: str, *, is_before: bool) -> Doubt:
        if is_before and not (origin == _CALLBACK and self._is_signed_by_provider):
            told = "was stored by a version of this program that made no marks"
            return Doubt("unmarked", position, told, is_before_marks=True)
        return Doubt("forged", position, "carries no proof that its sender knew a secret")


def _signature(kept: Mapping[str, str]) -> str | None:
    """Return the provider's signature, whatever its header was called then."""
    others = (value for name, value in kept.items() if name not in _OTHERS)
    found = next(filter(None, map(_SIGNATURE.fullmatch, others)), None)
    return found[1] if found else None


def _is_query(kept: Mapping[str, str], reason: str | None, body: bytes) -> bool:
    """Tell whether an event is a query string; before the marks its signature was over no body."""
    return reason == "unsupported_encoding" and kept.get(QUERY, "").encode() == body


def _sent(moment: bytes) -> datetime | None:
    """Return a time from the eight bytes that PostgreSQL sends; None for one out of reach."""
    try:
        return _SENT_EPOCH + timedelta(microseconds=int.from_bytes(moment, "big", signed=True))
    except OverflowError:
        return None
