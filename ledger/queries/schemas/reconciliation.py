"""The answers about statements and reconciliation, as types."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger.payload import NAME_MAX
from ledger.queries.schemas.log import ReportedText
from ledger.queries.schemas.money import Amount, Cursor, Moment, Positions, Schema

State = Annotated[
    str,
    Meta(
        description="`RECONCILED`, `RECONCILED_WITH_TIMING`, `BREAKS` or `INCOMPLETE`: a window "
        "without a statement is never shown as one without a difference."
    ),
]


class BreakAnswer(Schema, frozen=True):
    """One difference between statement and books, or (TIMING) one item in transit."""

    id: str
    source: str
    currency: str
    type: str
    state: Annotated[str, Meta(description="`OPEN` or `RESOLVED`.")]
    items: list[str]
    difference: Annotated[
        Amount,
        Meta(
            description="Books - statement, before any decision; negative where the books "
            "have less."
        ),
    ]
    gap: Annotated[
        Amount,
        Meta(
            description="What is left of the difference, with what decisions posted: books - "
            "statement. Those of open breaks add up to `breaks` of the balance sheet."
        ),
    ]
    at: Moment
    age_days: Annotated[int, Meta(description="At the cut-off.")]
    bucket: str
    owner: str
    detail: str
    anchor: str
    rule: str
    action: str | None
    decided_by: str | None
    decided_at: Moment | None
    note: str | None


class Breaks(Schema, frozen=True):
    """Breaks by source and id."""

    breaks: list[BreakAnswer]
    next: Cursor
    position: Positions


class Sealed(Schema, frozen=True):
    """The first signed checkpoint that covers a position."""

    source: str
    position: int
    size: int | None
    root: Annotated[str | None, Meta(description="Hex; null: not sealed yet.")]


class TypeSum(Schema, frozen=True):
    """Open breaks of one type and age."""

    type: str
    bucket: str
    count: int
    owner: str
    gap: Annotated[Amount, Meta(description="The sum of their gaps: books - statement.")]


class Sheet(Schema, frozen=True):
    """The balance sheet of a run: closing + in transit + breaks + residual = ledger.

    Differences, gaps and what is in transit are therefore books - statement.
    """

    opening: Amount | None
    matched_in: Amount
    matched_out: Amount
    fees: Amount
    unmatched: Annotated[Amount, Meta(description="Lines that are in no match.")]
    closing: Annotated[Amount | None, Meta(description="The statement's closing balance.")]
    ledger: Annotated[Amount, Meta(description="The books' balance at the cut-off.")]
    in_transit: Annotated[Amount, Meta(description="Not a break yet: books - statement.")]
    in_transit_count: int
    breaks: Annotated[Amount, Meta(description="The gaps of open breaks: books - statement.")]
    breaks_count: int
    resolved_count: int
    difference: Annotated[
        Amount | None,
        Meta(description="ledger - closing: in transit, breaks and residual together."),
    ]
    residual: Annotated[
        Amount | None, Meta(description="What nothing explains; 0 when the sheet is complete.")
    ]
    chain: Annotated[
        Amount | None, Meta(description="closing - opening - all lines; 0 when complete.")
    ]
    lines: int
    lines_matched: int
    transactions: int
    transactions_matched: int
    coverage_count: Annotated[str | None, Meta(description="Lines matched, in percent.")]
    coverage_value: Annotated[str | None, Meta(description="Amounts matched, in percent.")]
    by_type: list[TypeSum]


class RunAnswer(Schema, frozen=True):
    """The reconciliation of one wallet, with everything that it is based on."""

    source: str
    currency: str
    state: State
    opened_at: Moment
    through: Annotated[Moment, Meta(description="The cut-off: the end of what is covered.")]
    reasons: Annotated[list[str], Meta(description="Why it is INCOMPLETE.")]
    figures: Sheet
    files: Annotated[list[str], Meta(description="SHA-256 of each statement, oldest first.")]
    positions: Annotated[dict[str, int], Meta(description="Where both logs were.")]
    seals: list[Sealed]
    rules_sha256: str
    sha256: Annotated[str, Meta(description="Digest of all results of the run.")]
    current: Annotated[bool, Meta(description="Whether the books are still at `positions`.")]


class Unproved(Schema, frozen=True):
    """A wallet that moved and has no statement: INCOMPLETE."""

    source: str
    currency: str
    total: Amount


class Runs(Schema, frozen=True):
    """The latest reconciliation of each wallet, by source and currency."""

    reconciliations: list[RunAnswer]
    without_statement: Annotated[
        list[Unproved], Meta(description="Wallets without any statement: INCOMPLETE.")
    ]
    next: Cursor
    position: Positions


class FindingAnswer(Schema, frozen=True):
    """Something that looks incomplete, found without a statement."""

    source: str
    reason: Annotated[
        str,
        Meta(
            description="`stuck_pending`, `payout_returned`, `payout_partly_returned`, "
            "`limit_drift` or `unverified_money`."
        ),
    ]
    kind: str
    id: str
    currency: str | None
    amount: Amount | None
    since: Moment | None
    detail: str
    event_position: Annotated[
        int | None, Meta(description="The latest event about it, where there is one.")
    ]
    exception: Annotated[str, Meta(description="Its id among `/v1/exceptions`.")]


class Findings(Schema, frozen=True):
    """Findings by source, reason and id."""

    findings: list[FindingAnswer]
    as_of: Moment
    next: Cursor
    position: Positions


class BreakDecision(Schema, frozen=True, forbid_unknown_fields=True):
    """What an operator decides about a break; `by` and `note` are required."""

    action: Annotated[
        Literal["match", "write_off", "post_fee", "void", "reopen", "note"],
        Meta(
            description="match: `items` belong together; write_off: post the difference; post_fee: "
            "post it to expenses:fees; void: take the transaction back, or the line to suspense; "
            "reopen: take the decision back; note: only add a note."
        ),
    ]
    by: Annotated[ReportedText, Meta(description="Who decides.")]
    note: Annotated[ReportedText, Meta(description="Why.")]
    items: Annotated[
        list[Annotated[str, Meta(max_length=NAME_MAX)]],
        Meta(description="For match; the break's own when not given.", max_length=1000),
    ] = []
    account: Annotated[ReportedText | None, Meta(description="Where a write-off goes.")] = None
