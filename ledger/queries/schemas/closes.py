"""The answers about closed months and roll-forwards, as types."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ledger.queries.schemas.log import ReportedText, StatedName
from ledger.queries.schemas.money import Amount, Cursor, Moment, Positions, Schema

Period = Annotated[str, Meta(description="A month: `2026-06`.", max_length=7)]


class CloseOrder(Schema, frozen=True, forbid_unknown_fields=True):
    """A month to close, of every wallet with a statement or of the selected ones."""

    period: Annotated[StatedName, Meta(description="A month: `2026-06`.")]
    by: Annotated[ReportedText, Meta(description="Who closes.")]
    note: ReportedText = ""
    source: Annotated[StatedName | None, Meta(description="Only this source.")] = None
    currency: Annotated[StatedName | None, Meta(description="Only this currency.")] = None
    accept: Annotated[
        list[StatedName],
        Meta(description="Open breaks that are carried forward, by id.", max_length=10_000),
    ] = []


class ReopenOrder(Schema, frozen=True, forbid_unknown_fields=True):
    """A closed month to reopen; `by` and `note` are required."""

    by: ReportedText
    note: ReportedText
    source: StatedName | None = None
    currency: StatedName | None = None


class CloseItem(Schema, frozen=True):
    """Something that was open or in transit when the month was closed."""

    id: str
    type: str
    at: Moment
    gap: Amount
    accepted: bool


class CloseObstacle(Schema, frozen=True):
    """What stands in the way of closing a month, or why a wallet is left out."""

    source: str
    currency: str
    reason: Annotated[
        str,
        Meta(
            description="`not_covered`, `incomplete`, `open_break`, `not_in_order`, "
            "`closed_already` or `unknown_break`."
        ),
    ]
    detail: str
    break_id: str | None


class ChangedEntry(Schema, frozen=True):
    """What one event changed in the balance of a closed month."""

    source: str
    position: int
    kind: str
    transaction: str
    amount: Amount
    effective_at: Moment
    recorded_at: Moment
    href: str


class ChangedLine(Schema, frozen=True):
    """A statement line that is otherwise in a closed month than when it was closed."""

    source: str
    position: int
    line: str
    change: Annotated[
        str,
        Meta(
            description="`new`, `changed`, `withdrawn`, or `moved` in or out of the time before "
            "the end of the month."
        ),
    ]
    amount: Amount
    booked_at: Moment
    booked_before: Annotated[
        Moment | None, Meta(description="When it was booked by the statements at the close.")
    ]
    href: str


class CloseChanges(Schema, frozen=True):
    """What is recorded after the close and dated before its end; up to 100 of each."""

    changed: Annotated[
        bool,
        Meta(
            description="Whether entries, lines or the statement's balance are not as they were, "
            "or no statement reaches the end of the month any more."
        ),
    ]
    ledger: Annotated[Amount, Meta(description="By how much the ledger's balance at the end grew.")]
    statement: Annotated[
        Amount | None,
        Meta(description="The same of the statement's balance, by the latest reconciliation."),
    ]
    entries_count: int
    lines_count: int
    entries: list[ChangedEntry]
    lines: list[ChangedLine]


class RolledAmount(Schema, frozen=True):
    """Count and sum of the gaps (books - statement) of some breaks."""

    count: int
    amount: Amount


class RolledBreak(Schema, frozen=True):
    """One break of a roll-forward."""

    id: str
    type: str
    movement: Annotated[
        str,
        Meta(
            description="`carried_in`, `opened`, `closed_by_decision`, `closed_by_match` or "
            "`carried_out`."
        ),
    ]
    amount: Amount


class RollForwardAnswer(Schema, frozen=True):
    """The breaks of one wallet over one month: what was open, came, ended and remains.

    carried_in + opened + changed - closed_by_decision - closed_by_match = carried_out.
    """

    source: str
    currency: str
    period: Period
    state: str
    closed: Annotated[bool, Meta(description="Whether the month is closed.")]
    carried_in: RolledAmount
    opened: RolledAmount
    closed_by_decision: RolledAmount
    closed_by_match: RolledAmount
    changed: Annotated[Amount, Meta(description="Of the gaps of breaks that stay open.")]
    carried_out: RolledAmount
    items: Annotated[list[RolledBreak], Meta(description="When one month is requested.")]


class RollForwards(Schema, frozen=True):
    """Roll-forwards by source, currency and month."""

    roll_forward: list[RollForwardAnswer]
    position: Positions


class CloseAnswer(Schema, frozen=True):
    """A closed month of a wallet, and what has changed it since."""

    source: str
    currency: str
    period: Period
    status: Annotated[str, Meta(description="`closed` or `reopened`.")]
    begin: Moment
    end: Annotated[Moment, Meta(description="Exclusive.")]
    state: str
    statement_balance: Amount
    ledger_balance: Amount
    in_transit: Amount
    breaks: Annotated[Amount, Meta(description="The gaps of the accepted breaks.")]
    accepted: Annotated[list[str], Meta(description="Breaks that are carried forward.")]
    items: Annotated[list[CloseItem], Meta(description="What was open or in transit.")]
    lines: Annotated[int, Meta(description="Statement lines of the month.")]
    positions: Annotated[dict[str, int], Meta(description="Where both logs were.")]
    sha256: Annotated[str, Meta(description="Digest of the result at the end of the month.")]
    rules_sha256: str
    previous: Annotated[int | None, Meta(description="The position of the close before it.")]
    by: str
    note: str
    at: Moment | None
    position: Annotated[int | None, Meta(description="Of its event; null in a dry run.")]
    changes: CloseChanges | None
    roll_forward: RollForwardAnswer | None


class Closes(Schema, frozen=True):
    """Closed months by source, currency and month."""

    closes: list[CloseAnswer]
    next: Cursor
    position: Positions


class CloseResult(Schema, frozen=True):
    """What closing a month did, or would do."""

    period: Period
    dry_run: bool
    closes: list[CloseAnswer]
    obstacles: Annotated[
        list[CloseObstacle], Meta(description="With any, nothing is closed: 409 without dry_run.")
    ]
    skipped: list[CloseObstacle]
    position: Positions


class ReopenResult(Schema, frozen=True):
    """Which closed months are open again."""

    period: Period
    reopened: list[CloseObstacle]
    position: Positions
