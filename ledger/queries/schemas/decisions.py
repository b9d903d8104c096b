"""The answers about what operators and declared rules do, as types."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ledger.queries.schemas.log import StatedName
from ledger.queries.schemas.money import Amount, Positions, Schema
from ledger.queries.schemas.reconciliation import BreakDecision

BreakStateNow = Annotated[
    str | None,
    Meta(
        description="The break's state in the reconciliation's result: `OPEN`, `RESOLVED`, or null "
        "where it is not listed any more."
    ),
]


class DecisionAnswer(Schema, frozen=True):
    """A decision on a break, as an event of the log, and whether the result has it."""

    source: str
    position: int
    event_id: str
    status: str
    reconciled: Annotated[
        bool, Meta(description="Whether the reconciliation's result contains the decision.")
    ]
    state: BreakStateNow
    message: Annotated[str | None, Meta(description="What is still to come, where anything is.")]


class ListedDecision(BreakDecision, frozen=True, forbid_unknown_fields=True):
    """One of several decisions: the break, and what is decided about it."""

    id: Annotated[StatedName, Meta(description="The break's id; must be given.")] = ""


class PostedLeg(Schema, frozen=True):
    """One side of a posting: an amount above 0 is a debit."""

    account: str
    amount: Amount


class DecisionOutcome(Schema, frozen=True):
    """What became of one of several decisions, or would become of it."""

    row: Annotated[int, Meta(description="Its place in the list, from 1 on.")]
    id: str
    action: str | None
    outcome: Annotated[
        str,
        Meta(
            description="`planned` (dry run), `done`, `unchanged` (the same request was taken "
            "before), `refused` (nothing was done, `reason` says why) or `failed` (not certain: "
            "send the list again, which does nothing twice)."
        ),
    ]
    reason: str | None
    source: str | None
    currency: str | None
    position: int | None
    legs: list[PostedLeg]
    state: BreakStateNow = None


class AccountSum(Schema, frozen=True):
    """What several decisions post to one account."""

    source: str
    account: str
    currency: str
    amount: Amount
    count: int


class DecisionList(Schema, frozen=True):
    """What several decisions did, row by row, or would do."""

    dry_run: bool
    decisions: list[DecisionOutcome]
    sums: Annotated[
        list[AccountSum], Meta(description="What rows that are planned or done post, by account.")
    ]
    reconciled: Annotated[
        bool, Meta(description="Whether the reconciliation's result contains all that was done.")
    ]
    message: str | None
    position: Positions


class RulePostings(Schema, frozen=True):
    """What one rule posted in one currency, as far as it is not reopened."""

    currency: str
    count: int
    amount: Annotated[Amount, Meta(description="Posted to the rule's account; debits above 0.")]
    reopened: Annotated[int, Meta(description="Postings that operators took back.")]
    breaks: Annotated[list[str], Meta(description="The latest of these breaks, by id.")]
    href: Annotated[str, Meta(description="The breaks of this rule as a list.")]


class PostingRuleAnswer(Schema, frozen=True):
    """One declared rule and what it did."""

    source: str
    name: str
    declared: Annotated[bool, Meta(description="Whether the settings still have it.")]
    types: list[str]
    below: Amount | None
    currency: str | None
    line: str | None
    account: str | None
    posted: list[RulePostings]


class PostingRules(Schema, frozen=True):
    """The rules that post without a decision, in the order in which they are tried."""

    rules: list[PostingRuleAnswer]
    position: Positions
