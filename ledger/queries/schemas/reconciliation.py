"""The answers about statements and reconciliation, as types."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger.queries.schemas.log import ReportedText, StatedName
from ledger.queries.schemas.money import Amount, Cursor, Moment, Positions, Schema

State = Annotated[
    str,
    Meta(
        description="`RECONCILED`, `RECONCILED_WITH_TIMING`, `BREAKS` or `INCOMPLETE`: a window "
        "without a statement is never shown as one without a difference."
    ),
]


References = Annotated[
    list[str], Meta(description="Every name by which the other side may know it.")
]


class ReconciledLine(Schema, frozen=True):
    """A statement line of a match or a break."""

    line: str
    effective_at: Annotated[Moment, Meta(description="As the file dates it.")]
    booked_at: Annotated[
        Moment, Meta(description="Within the period of its statement, where the file dates it out.")
    ]
    amount: Annotated[Amount, Meta(description="Above 0 came in, below 0 went out.")]
    kind: str
    counterparty: str | None
    description: str | None
    references: References
    href: str


class ReconciledTransaction(Schema, frozen=True):
    """A transaction of a match or a break, as it moved the wallet."""

    kind: str
    id: str
    effective_at: Moment | None
    amount: Annotated[
        Amount | None,
        Meta(
            description="What it did to this wallet, its fee included: above 0 came in, below 0 "
            "went out. Where its amount and its fee are two breaks: that part. Null when it has no "
            "entry here."
        ),
    ]
    fee: Annotated[Amount | None, Meta(description="Contained in the amount.")]
    status: str | None
    customer_id: str | None
    counterparty: Annotated[str | None, Meta(description="Where the callbacks name one.")]
    references: References
    href: str


class CandidateAnswer(Schema, frozen=True):
    """What may be the other side of a break: a suggestion, never a match."""

    item: Annotated[str, Meta(description="`line:<id>` or `<kind>:<id>`, as a decision names it.")]
    side: Annotated[Literal["statement", "books"], Meta(description="Where it is.")]
    effective_at: Moment
    amount: Amount
    counterparty: str | None
    description: str | None
    reason: Annotated[str, Meta(description="What fits and what differs.")]


class BreakStep(Schema, frozen=True):
    """A decision on a break, or a note about it."""

    action: str
    by: str | None
    note: str | None
    at: Moment
    position: int


TimeZone = Annotated[
    str, Meta(description="In which reports and tables show its times; answers are in UTC.")
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
    lines: Annotated[list[ReconciledLine], Meta(description="On the statement, oldest first.")]
    transactions: Annotated[
        list[ReconciledTransaction],
        Meta(description="In the books, oldest first; also one that a line names in vain."),
    ]
    candidates: Annotated[
        list[CandidateAnswer],
        Meta(description="Up to three items in no match that may belong to it, the best first."),
    ]
    history: Annotated[list[BreakStep], Meta(description="Every decision and note, oldest first.")]
    time_zone: TimeZone
    href: str


class BreakDetail(BreakAnswer, frozen=True):
    """One break, whole."""

    position: Positions


class BreakTotal(Schema, frozen=True):
    """The sum of breaks in one currency."""

    currency: str
    count: int
    difference: Annotated[Amount, Meta(description="Books - statement, before any decision.")]
    gap: Annotated[Amount, Meta(description="What is left of it.")]


class BreakTypeTotal(Schema, frozen=True):
    """The sum of breaks of one type in one currency."""

    currency: str
    type: str
    count: int
    difference: Amount
    gap: Amount


class Breaks(Schema, frozen=True):
    """Breaks by source and id; or as `sort` orders them."""

    breaks: list[BreakAnswer]
    totals: Annotated[
        list[BreakTotal], Meta(description="Of everything that the filters select, not the page.")
    ]
    totals_by_type: list[BreakTypeTotal]
    next: Cursor
    position: Positions


class MatchAnswer(Schema, frozen=True):
    """Lines and transactions that are the same thing."""

    source: str
    currency: str
    anchor: Annotated[str, Meta(description="What the match is about.")]
    rule: Annotated[str, Meta(description="Which rule matched them.")]
    amount: Annotated[Amount | None, Meta(description="The sum of the lines.")]
    items: list[str]
    lines: list[ReconciledLine]
    transactions: list[ReconciledTransaction]
    time_zone: TimeZone


class RuleSum(Schema, frozen=True):
    """What one rule matched."""

    rule: str
    count: Annotated[int, Meta(description="Matches.")]
    lines: int
    transactions: int
    value: Annotated[Amount, Meta(description="The sum of the lines without their signs.")]


class RuleTotal(RuleSum, frozen=True):
    """What one rule matched in one wallet."""

    source: str
    currency: str


class Matches(Schema, frozen=True):
    """Matches by source, currency and anchor."""

    matches: list[MatchAnswer]
    totals: Annotated[
        list[RuleTotal], Meta(description="Of everything that the filters select, not the page.")
    ]
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
    closing: Annotated[
        Amount | None, Meta(description="The statement's closing balance; null: it states none.")
    ]
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
    by_rule: Annotated[list[RuleSum], Meta(description="How much was matched by what.")] = []


class ChangedMonth(Schema, frozen=True):
    """A closed month for which something was recorded after it was closed."""

    period: str
    amount: Annotated[Amount, Meta(description="By how much the ledger's balance at its end grew.")]
    detail: str
    exception: Annotated[str, Meta(description="Its id among `/v1/exceptions`.")]


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
    time_zone: TimeZone
    changed_months: Annotated[
        list[ChangedMonth],
        Meta(description="Closed months that changed since; `/v1/reconciliation/closes` has how."),
    ]


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
            description="`closed_month_changed`, `stuck_pending`, `payout_returned`, "
            "`payout_partly_returned`, `limit_drift` or `unverified_money`."
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
        list[StatedName],
        Meta(description="For match; the break's own when not given.", max_length=1000),
    ] = []
    account: Annotated[ReportedText | None, Meta(description="Where a write-off goes.")] = None
