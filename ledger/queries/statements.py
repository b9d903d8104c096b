"""Reading imported statements, their lines and their files."""

from __future__ import annotations

from typing import Final

from ledger.errors import NotFound
from ledger.queries.params import QueryParams
from ledger.queries.reconciliation.breaks import RulesBySource, zone_name
from ledger.queries.schemas.money import from_row
from ledger.queries.schemas.statements import (
    StatementFile,
    StatementLine,
    StatementLines,
    Statements,
)
from ledger.queries.snapshot import Listing, Snapshot
from ledger.statements.events import piece_of

SELECT_STATEMENTS: Final = """
SELECT $1::text AS source, currency, account, format, sha256, opened_at, closed_at, opening,
       closing, lines, position, status, by, note
  FROM statements
 WHERE source = $1 || '.statements' AND ($3::bigint IS NULL OR position < $3)
   AND ($4::text IS NULL OR currency = $4)
 ORDER BY position DESC LIMIT $2
"""
SELECT_PARTS: Final = """
SELECT p.part, p.parts, e.body
  FROM statement_parts AS p
  JOIN ledger.events AS e ON e.source = p.source AND e.position = p.position
 WHERE p.source = $1 || '.statements' AND p.kind = 'statement_part'
   AND p.id = $2 || ':' || lpad($3::text, 5, '0')
"""
SELECT_STATEMENT_LINES: Final = """
SELECT $1::text AS source, l.line, l.row_kind, l.amount, l.currency, l.effective_at,
       l.booked_at, l.account, l.provider_id, l.contract_id, l.idempotency_id, l.reference,
       l.balance, l.description, l.counterparty, l.names, l.status, l.file,
       l.versions, l.position, l.first_position, m.rule AS matched_by, m.anchor AS match
  FROM statement_lines AS l
  LEFT JOIN ledger.recon_matches AS m
    ON m.source = $1 AND m.currency = l.currency AND m.item = 'line:' || l.line
   AND l.status = 'stated'
 WHERE l.source = $1 || '.statements' AND ($3::bigint IS NULL OR l.first_position > $3)
   AND ($4::text IS NULL OR l.currency = $4) AND ($5::text IS NULL OR l.contract_id = $5)
   AND ($6::text IS NULL
        OR l.line = $6 AND hashtextextended(l.line, 0) = hashtextextended($6, 0))
   AND ($7::text IS NULL OR (m.item IS NOT NULL) = ($7 = 'yes'))
   AND ($8::text IS NULL OR l.account = $8)
   AND ($9::text IS NULL OR m.rule = $9)
 ORDER BY l.first_position LIMIT $2
"""

STATEMENTS: Final = Listing(SELECT_STATEMENTS, {"position": int})
LINES: Final = Listing(SELECT_STATEMENT_LINES, {"first_position": int})


async def statements(snapshot: Snapshot, params: QueryParams, rules: RulesBySource) -> Statements:
    """Read the imported statements."""
    rows, following = await STATEMENTS.page(snapshot, params, params.text("currency"))
    files = [
        from_row(StatementFile, row, time_zone=zone_name(rules, row["source"])) for row in rows
    ]
    return Statements(statements=files, next=following, position=snapshot.position)


async def file_part(snapshot: Snapshot, source: str, sha256: str, number: int) -> tuple[int, bytes]:
    """Read the bytes of a part of a file, and how many parts there are. Raises NotFound."""
    row = await snapshot.row(SELECT_PARTS, snapshot.check(source), sha256, str(number))
    if row is None:
        raise NotFound(f"there is no statement {sha256} of {source}; /v1/statements lists them")
    return row["parts"], piece_of(row["body"])


async def statement_lines(
    snapshot: Snapshot, params: QueryParams, rules: RulesBySource
) -> StatementLines:
    """Read statement lines, each with its match."""
    rows, following = await LINES.page(
        snapshot,
        params,
        params.text("currency"),
        params.text("contract_id"),
        params.text("line"),
        params.text("matched"),
        params.text("account"),
        params.text("matched_by"),
    )
    lines = [
        from_row(StatementLine, row, time_zone=zone_name(rules, row["source"])) for row in rows
    ]
    return StatementLines(statement_lines=lines, next=following, position=snapshot.position)
