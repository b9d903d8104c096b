"""The answers about statements, as types."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ledger.queries.schemas.log import ReportedText
from ledger.queries.schemas.money import Amount, Cursor, Moment, Positions, Schema
from ledger.queries.schemas.reconciliation import TimeZone


class StatementFile(Schema, frozen=True):
    """One imported statement."""

    source: str
    currency: Annotated[str, Meta(description="Of the wallet.")]
    account: Annotated[str | None, Meta(description="Whose statement it is, where it says so.")]
    format: str | None
    sha256: str | None
    opened_at: Moment | None
    closed_at: Annotated[Moment | None, Meta(description="Exclusive.")]
    opening: Amount | None
    closing: Amount | None
    lines: int | None
    position: Annotated[int, Meta(description="In the log of the source's statements.")]
    status: Annotated[str, Meta(description="`imported`, or `withdrawn`, which no longer counts.")]
    by: Annotated[str | None, Meta(description="Who withdrew it.")]
    note: Annotated[str | None, Meta(description="Why it was withdrawn.")]
    time_zone: TimeZone


class Statements(Schema, frozen=True):
    """Imported statements by source, the newest first."""

    statements: list[StatementFile]
    next: Cursor
    position: Positions


class StatementLine(Schema, frozen=True):
    """One line, as the latest statement that has it states it."""

    source: str
    line: str | None
    row_kind: str
    amount: Annotated[Amount, Meta(description="> 0 into our wallet, < 0 out of it.")]
    currency: Annotated[str, Meta(description="Of the wallet.")]
    effective_at: Annotated[Moment, Meta(description="Its time as the statement has it.")]
    booked_at: Annotated[
        Moment,
        Meta(description="When it counts in the balances: within the statement's period."),
    ]
    account: str | None
    provider_id: Annotated[
        str | None,
        Meta(description="The id that the file gives it; a bank may give it to other lines too."),
    ]
    contract_id: str | None
    idempotency_id: str | None
    reference: str | None
    balance: Amount | None
    description: str
    counterparty: str | None
    names: Annotated[list[str], Meta(description="Other names by which it may be matched.")]
    status: Annotated[str, Meta(description="`stated` or `withdrawn` by a newer statement.")]
    file: str | None
    versions: Annotated[int, Meta(description="How often it was stated differently.")]
    position: int
    matched_by: Annotated[str | None, Meta(description="The rule; null: in no live match.")]
    match: Annotated[str | None, Meta(description="What the match is about.")]
    time_zone: TimeZone


class StatementLines(Schema, frozen=True):
    """Statement lines by source, in the order of the log."""

    statement_lines: list[StatementLine]
    next: Cursor
    position: Positions


class ChangedLine(Schema, frozen=True):
    """A line of an earlier file that an import changes or withdraws."""

    change: Annotated[
        str, Meta(description="`changed`, `moved` to another day of booking, or `withdrawn`.")
    ]
    line: str
    effective_at: Moment
    amount: Annotated[Amount, Meta(description="As the earlier file states it.")]
    description: str
    reference: str
    file: Annotated[str, Meta(description="SHA-256 of the earlier file.")]
    now_amount: Amount | None
    now_effective_at: Moment | None
    now_description: str | None
    booked_at: Moment | None
    now_booked_at: Moment | None
    fields: Annotated[list[str], Meta(description="What is stated differently.")]


class Imported(Schema, frozen=True):
    """What an import did or, with dry_run, would do."""

    status: Annotated[
        str,
        Meta(
            description="`accepted`; `duplicate`: it was imported before and nothing changed; "
            "`preview`: nothing was stored."
        ),
    ]
    source: str
    position: Annotated[
        int, Meta(description="In the log of the source's statements; 0 of a preview.")
    ]
    currency: Annotated[str, Meta(description="Of the wallet.")]
    account: str | None
    format: str
    sha256: str
    opened_at: Moment
    closed_at: Annotated[Moment, Meta(description="Exclusive.")]
    opening: Amount | None
    closing: Amount | None
    lines: int
    new: int
    changed: Annotated[int, Meta(description="Lines that earlier files state differently.")]
    unchanged: int
    withdrawn: Annotated[int, Meta(description="Lines of the period that it no longer has.")]
    changes: Annotated[
        list[ChangedLine], Meta(description="The first changed and withdrawn lines.")
    ]
    notes: Annotated[list[str], Meta(description="What is worth knowing about the file.")]
    time_zone: TimeZone


class Withdrawal(Schema, frozen=True, forbid_unknown_fields=True):
    """The withdrawal of a mistaken statement; `by` and `note` are required."""

    by: Annotated[ReportedText, Meta(description="Who withdraws it.")]
    note: Annotated[ReportedText, Meta(description="Why.")]


class Withdrawn(Schema, frozen=True):
    """What a withdrawal did."""

    source: str
    position: Annotated[int, Meta(description="In the log of the source's statements.")]
    files: Annotated[int, Meta(description="Imports of the file: one per currency and period.")]
    lines: Annotated[int, Meta(description="Lines that it stated last.")]
    again: Annotated[
        list[str],
        Meta(
            description="SHA-256 of other files of the time: import them with again=true if they "
            "have these lines, too."
        ),
    ]
