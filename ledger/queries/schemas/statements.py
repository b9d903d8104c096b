"""The answers about statements, as types."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ledger.queries.schemas.log import ReportedText
from ledger.queries.schemas.money import Amount, Cursor, Moment, Positions, Schema


class StatementFile(Schema, frozen=True):
    """One imported statement."""

    source: str
    currency: str
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
    currency: str
    effective_at: Moment
    contract_id: str | None
    idempotency_id: str | None
    reference: str | None
    balance: Amount | None
    description: str
    status: Annotated[str, Meta(description="`stated` or `withdrawn` by a newer statement.")]
    file: str | None
    versions: Annotated[int, Meta(description="How often it was stated differently.")]
    position: int
    matched_by: Annotated[str | None, Meta(description="The rule; null: in no live match.")]
    match: Annotated[str | None, Meta(description="What the match is about.")]


class StatementLines(Schema, frozen=True):
    """Statement lines by source, in the order of the log."""

    statement_lines: list[StatementLine]
    next: Cursor
    position: Positions


class Imported(Schema, frozen=True):
    """What an import did."""

    status: Annotated[str, Meta(description="`accepted`, or `duplicate`: nothing changed.")]
    source: str
    position: Annotated[int, Meta(description="In the log of the source's statements.")]
    lines: int
    new: int
    changed: int
    withdrawn: Annotated[int, Meta(description="Lines of the period that it no longer has.")]


class Withdrawal(Schema, frozen=True, forbid_unknown_fields=True):
    """The withdrawal of a mistaken statement; `by` and `note` are required."""

    by: Annotated[ReportedText, Meta(description="Who withdraws it.")]
    note: Annotated[ReportedText, Meta(description="Why.")]


class Withdrawn(Schema, frozen=True):
    """What a withdrawal did."""

    source: str
    position: Annotated[int, Meta(description="In the log of the source's statements.")]
    files: Annotated[int, Meta(description="Imports of the file: one per currency and period.")]
    lines: Annotated[int, Meta(description="Lines that no statement has any more.")]
