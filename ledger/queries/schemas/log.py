"""The answers about the log itself: events, deliveries, exceptions, decisions, status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta

from ledger.payload import NAME_MAX, TEXT_MAX
from ledger.queries.schemas.money import Cursor, Moment, Positions, Schema

_NO_NUL: Final = r"^[^\x00]*$"
_NOT_BLANK: Final = r"^[^\x00]*[^\x00\s][^\x00]*$"
PATTERNS: Final[Mapping[str, str]] = {
    _NO_NUL: "without the NUL character",
    _NOT_BLANK: "that is not blank and has no NUL character",
}
"""What the patterns of texts in decisions mean, in the words of a message."""

ReportedText: TypeAlias = Annotated[str, Meta(max_length=400, pattern=_NO_NUL)]

StatedName: TypeAlias = Annotated[str, Meta(max_length=NAME_MAX, pattern=_NO_NUL)]
"""The name of something in a request's body."""

NamedText: TypeAlias = Annotated[str, Meta(min_length=1, max_length=TEXT_MAX, pattern=_NOT_BLANK)]


class Event(Schema, frozen=True):
    """The envelope of one event; its body has an address of its own."""

    source: str
    position: int
    event_id: str
    idempotency_key: str
    kind: Annotated[str, Meta(description="`unreadable` or `unknown` when not understood.")]
    resource_id: str
    status: str
    idempotency_id: str | None
    provider_at: Moment | None
    path_event: str | None
    origin: Annotated[str, Meta(description="`callback` or `operator`.")]
    verdict: Annotated[str, Meta(description="`accepted` or `quarantined`.")]
    reason: str | None
    detail: str | None
    peer: str
    received_at: Moment
    recorded_at: Moment
    body_bytes: int


class EventDetail(Event, frozen=True):
    """An event with the headers that were kept of it."""

    headers: dict[str, Any]


class Events(Schema, frozen=True):
    """Events by source, the newest first; `position` is the head of the log here."""

    events: list[Event]
    next: Cursor
    position: Positions


class Delivery(Schema, frozen=True):
    """One request that reached the receiver, or several equal ones, and the answer it got."""

    source: str
    at: Annotated[Moment, Meta(description="When it was recorded.")]
    outcome: Annotated[
        str, Meta(description="`accepted`, `quarantined`, `duplicate`, `refused` or `failed`.")
    ]
    answer: Annotated[int, Meta(description="HTTP status.")]
    position: Annotated[int | None, Meta(description="The event that it made or repeated.")]
    path_event: str | None
    peer: str
    reason: str | None
    body_bytes: int
    count: Annotated[
        int,
        Meta(
            description="How many requests this row counts: beyond the first hundred duplicates "
            "of an event on one day (UTC) the last of them counts the others."
        ),
    ]
    last_at: Annotated[Moment | None, Meta(description="When the last of them came.")]


class Deliveries(Schema, frozen=True):
    """Deliveries by source, the newest first; `position` is the head of the log here."""

    deliveries: list[Delivery]
    next: Cursor
    position: Positions


class EventRef(Schema, frozen=True):
    """Names an event."""

    position: int
    event_id: str | None


class OperatorException(Schema, frozen=True):
    """Something an operator should look at, in its current state."""

    id: str
    source: str
    reason: str
    detail: str | None
    kind: str
    resource_id: str
    event: Annotated[
        EventRef | None,
        Meta(description="Its event; of a finding the latest one about it, where there is one."),
    ]
    state: Annotated[str, Meta(description="`open`, `cleared` by an event, or `resolved`.")]
    opened_at: Annotated[
        Moment | None,
        Meta(
            description="When its event was recorded; of a finding, since when it is so, by the "
            "provider's time; null where it is unknown."
        ),
    ]
    closed_at: Moment | None
    note: str | None


class Exceptions(Schema, frozen=True):
    """Exceptions by source: those of its log, the newest first, then its findings likewise."""

    exceptions: list[OperatorException]
    next: Cursor
    position: Positions


class Decision(Schema, frozen=True, forbid_unknown_fields=True):
    """What an operator decides about an exception."""

    action: Annotated[
        Literal["acknowledge", "keep", "retry"],
        Meta(
            description="acknowledge: seen, nothing changes; keep: the facts of the event at "
            "`keep` apply; retry: fold the parked event again."
        ),
    ]
    keep: Annotated[int | None, Meta(description="Position of the event whose facts apply.")] = None
    note: Annotated[ReportedText | None, Meta(description="Why.")] = None
    by: Annotated[ReportedText | None, Meta(description="Who decides.")] = None


class Attribution(Schema, frozen=True, forbid_unknown_fields=True):
    """Whose a transaction is, as an operator decides."""

    customer_id: Annotated[
        NamedText | None,
        Meta(description="The customer; null undoes what was decided before."),
    ]
    note: Annotated[ReportedText, Meta(description="Why; at least one character that is no blank.")]
    by: Annotated[ReportedText | None, Meta(description="Who decides.")] = None
    kind: Annotated[
        StatedName | None,
        Meta(description="Which one, where several kinds share the id, as `?kind=`."),
    ] = None


class Resolution(Schema, frozen=True):
    """An operator's decision, as an event of the log."""

    position: int
    event_id: str
    status: str


class SourceStatus(Schema, frozen=True):
    """How far the log of one source and its books are."""

    source: str
    head: Annotated[int, Meta(description="Last position of the log.")]
    books_position: int
    lag_events: int
    lag_seconds: Annotated[float, Meta(description="Age of the oldest event not in the books.")]
    parked: Annotated[int, Meta(description="Events set aside because folding them failed.")]
    exceptions: Annotated[
        int,
        Meta(
            description="Open exceptions of the log. What looks incomplete by now (findings) is "
            "not counted here; `/v1/exceptions` lists both."
        ),
    ]
    generation: Annotated[int, Meta(description="The generation of the books that answers.")]


class DatabaseStatus(Schema, frozen=True):
    """The database that answers."""

    version: str
    safe: Annotated[bool, Meta(description="Whether a commit survives a crash.")]
    writable: Annotated[
        bool,
        Meta(description="Whether callbacks can be committed; not on a standby, which follows."),
    ]


class Status(Schema, frozen=True):
    """How the service is doing."""

    sources: list[SourceStatus]
    generation: Annotated[int, Meta(description="The generation of the books that answers.")]
    books_version: Annotated[str, Meta(description="Version of the code that folded them.")]
    version: Annotated[str, Meta(description="Version of the program.")]
    database: DatabaseStatus
    warnings: list[str]
    position: Positions


class Received(Schema, frozen=True, omit_defaults=True):
    """What the receiver answers to an authentic callback, after it is durable."""

    status: Annotated[str, Meta(description="`accepted`, `duplicate` or `quarantined`.")]
    source: str
    position: Annotated[int, Meta(description="Place in the source's log.")]
    event_id: str
    reason: str | None = None
    detail: str | None = None


class NotReceived(Schema, frozen=True):
    """What the receiver answers when it stored nothing."""

    status: Annotated[str, Meta(description="`refused`, `unavailable` or `error`.")]
    reason: str


class Problem(Schema, frozen=True):
    """What went wrong, and what to do next (RFC 9457)."""

    type: Annotated[str, Meta(description="A stable name of this sort of problem.")]
    title: str
    status: int
    detail: str
