"""Store the result of a reconciliation: derived rows, replaced by each later run.

A run compares its rows with the stored ones and writes the differences, so it also repairs rows
that were changed from outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final, TypeAlias

import msgspec
import orjson

from ledger.books.generations import SELECT_LIVE
from ledger.model import plain
from ledger.reconciliation.result import MonthItem, Result, candidate_documents

Records: TypeAlias = dict[tuple[str, ...], tuple[Any, ...]]
"""Key, within a wallet → the other columns, in their order."""

LOCK_RUN: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1 || '|' || $2, 7))"
SELECT_RUN: Final = """
SELECT state, opened_at, closed_at, positions::text AS positions, generation, files::text AS files,
       figures::text AS figures, reasons::text AS reasons, rules_sha256, sha256
  FROM ledger.recon_runs WHERE source = $1 AND currency = $2
"""
SELECT_HEADS: Final = "SELECT source, position FROM ledger.heads WHERE source = ANY ($1::text[])"
UPSERT_RUN: Final = """
INSERT INTO ledger.recon_runs AS r
       (source, currency, state, opened_at, closed_at, positions, generation, files, figures,
        reasons, rules_sha256, sha256)
VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8::text::jsonb, $9::text::jsonb,
        $10::text::jsonb, $11, $12)
ON CONFLICT (source, currency) DO UPDATE
   SET state = EXCLUDED.state, opened_at = EXCLUDED.opened_at, closed_at = EXCLUDED.closed_at,
       positions = EXCLUDED.positions, generation = EXCLUDED.generation, files = EXCLUDED.files,
       figures = EXCLUDED.figures, reasons = EXCLUDED.reasons,
       rules_sha256 = EXCLUDED.rules_sha256, sha256 = EXCLUDED.sha256
"""
SELECT_MATCHES: Final = """
SELECT item, anchor, rule FROM ledger.recon_matches WHERE source = $1 AND currency = $2
"""
SELECT_CURRENCIES: Final = """
SELECT currency FROM ledger.recon_runs WHERE source = $1
 UNION
SELECT currency FROM ledger.recon_matches WHERE source = $1
 UNION
SELECT currency FROM ledger.recon_breaks WHERE source = $1
 UNION
SELECT currency FROM ledger.recon_months WHERE source = $1
 ORDER BY currency
"""
DELETE_RUN: Final = "DELETE FROM ledger.recon_runs WHERE source = $1 AND currency = $2"
DELETE_ALL_MATCHES: Final = "DELETE FROM ledger.recon_matches WHERE source = $1 AND currency = $2"
DELETE_MATCHES: Final = """
DELETE FROM ledger.recon_matches
 WHERE source = $1 AND currency = $2 AND item = ANY ($3::text[])
"""
SELECT_BREAKS: Final = """
SELECT id, type, state, anchor, rule, items, difference, gap, at, age_days, bucket, owner, detail,
       action, decided_by, decided_at, note, candidates::text AS candidates
  FROM ledger.recon_breaks WHERE source = $1 AND currency = $2
"""
SELECT_MONTHS: Final = """
SELECT period, begin_at, end_at, state, figures::text AS figures, open::text AS open,
       resolved::text AS resolved, reasons::text AS reasons, sha256
  FROM ledger.recon_months WHERE source = $1 AND currency = $2
"""
DELETE_MONTHS: Final = """
DELETE FROM ledger.recon_months
 WHERE source = $1 AND currency = $2 AND period = ANY ($3::text[])
"""
DELETE_ALL_MONTHS: Final = "DELETE FROM ledger.recon_months WHERE source = $1 AND currency = $2"
DELETE_ALL_BREAKS: Final = "DELETE FROM ledger.recon_breaks WHERE source = $1 AND currency = $2"
# A break's id contains its currency: a row with another one was not written by this program.
DELETE_BREAKS: Final = """
DELETE FROM ledger.recon_breaks
 WHERE source = $1 AND $2::text IS NOT NULL AND id = ANY ($3::text[])
"""
DELETE_ALL: Final = (DELETE_RUN, DELETE_ALL_MATCHES, DELETE_ALL_BREAKS, DELETE_ALL_MONTHS)
OBJECTS: Final = frozenset(
    {"positions", "files", "figures", "reasons", "candidates", "open", "resolved"}
)
"""Columns that hold JSON."""


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table of results: how its rows are read and removed, within a source and currency."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    """The others, in the order in which they are selected."""
    select: str
    delete: str = ""
    """Its third parameter are the keys to remove."""


RUNS: Final = StoredTable(
    "recon_runs",
    (),
    ("state", "opened_at", "closed_at", "positions", "generation", "files", "figures", "reasons",
     "rules_sha256", "sha256"),
    SELECT_RUN,
)  # fmt: skip
MATCHES: Final = StoredTable(
    "recon_matches", ("item",), ("anchor", "rule"), SELECT_MATCHES, DELETE_MATCHES
)
BREAKS: Final = StoredTable(
    "recon_breaks",
    ("id",),
    ("type", "state", "anchor", "rule", "items", "difference", "gap", "at", "age_days", "bucket",
     "owner", "detail", "action", "decided_by", "decided_at", "note",
     "candidates"),
    SELECT_BREAKS,
    DELETE_BREAKS,
)  # fmt: skip
MONTHS: Final = StoredTable(
    "recon_months",
    ("period",),
    ("begin_at", "end_at", "state", "figures", "open", "resolved", "reasons", "sha256"),
    SELECT_MONTHS,
    DELETE_MONTHS,
)  # fmt: skip


async def read_stored(connection: Any, table: StoredTable, source: str, currency: str) -> Records:
    """Read the stored rows of a wallet, JSON as objects."""
    rows = await connection.fetch(table.select, source, currency)
    return {
        tuple(row[name] for name in table.key): tuple(
            _decode(name, row[name]) for name in table.columns
        )
        for row in rows
    }


def _decode(name: str, value: Any) -> Any:
    return orjson.loads(value) if name in OBJECTS else value


def run_of(result: Result, positions: Mapping[str, int], generation: int) -> Records:
    """Return the row of a run."""
    period = result.coverage.period
    row = (
        result.state, period.opened_at, period.cutoff, dict(positions), generation,
        list(result.coverage.files), dict(result.figures), list(result.reasons),
        result.rules_sha256, result.sha256,
    )  # fmt: skip
    return {(): row}


def matches_of(result: Result) -> Records:
    """Return the rows of the matches, one for each item."""
    return {(key,): (match.anchor, match.rule) for match in result.matches for key in match.keys}


def breaks_of(result: Result) -> Records:
    """Return the rows of the breaks."""
    records: Records = {}
    for each in result.breaks:
        row = msgspec.structs.asdict(each)
        row |= {"items": list(each.items), "candidates": candidate_documents(each)}
        records[(each.id,)] = tuple(row[name] for name in BREAKS.columns)
    return records


def months_of(result: Result) -> Records:
    """Return the rows of the ends of months."""
    return {
        (month.period,): (
            month.begin, month.end, month.state, dict(month.figures),
            {"changed": [item_document(each) for each in month.changed],
             "ended": list(month.ended)},
            [item_document(each) for each in month.resolved], list(month.reasons), month.sha256,
        )
        for month in result.months
    }  # fmt: skip


def item_document(item: MonthItem) -> dict[str, Any]:
    """Return an item of a month as JSON has it."""
    return {
        "id": item.id, "type": item.type, "at": item.at.astimezone(UTC).isoformat(),
        "gap": plain(item.gap), "items": list(item.items), "action": item.action,
    }  # fmt: skip


async def replace_result(
    connection: Any, result: Result, positions: Mapping[str, int], generation: int
) -> bool:
    """Replace the stored result of a wallet, all or nothing; False when a later one is stored."""
    wallet = result.source, result.currency
    async with connection.transaction():
        await connection.execute(LOCK_RUN, *wallet)
        (known,) = (await read_stored(connection, RUNS, *wallet)).values() or (None,)
        if known is not None and await _is_later(connection, known, positions, generation):
            return False
        await _write_differences(connection, MATCHES, wallet, matches_of(result))
        await _write_differences(connection, BREAKS, wallet, breaks_of(result))
        await _write_differences(connection, MONTHS, wallet, months_of(result))
        (row,) = run_of(result, positions, generation).values()
        await connection.execute(UPSERT_RUN, *wallet, *_encoded(RUNS, row))
    return True


async def stored_currencies(connection: Any, source: str) -> list[str]:
    """Return every currency of which something is stored."""
    return [row["currency"] for row in await connection.fetch(SELECT_CURRENCIES, source)]


async def delete_missing(
    connection: Any, source: str, kept: Sequence[str], positions: Mapping[str, int], generation: int
) -> None:
    """Delete the results of the currencies that have no statement any more (not in `kept`)."""
    for currency in await stored_currencies(connection, source):
        if currency in kept:
            continue
        wallet = source, currency
        async with connection.transaction():
            await connection.execute(LOCK_RUN, *wallet)
            known = await read_stored(connection, RUNS, *wallet)
            if known and await _is_later(connection, known[()], positions, generation):
                continue
            for statement in DELETE_ALL:
                await connection.execute(statement, *wallet)


async def _is_later(
    connection: Any, known: tuple[Any, ...], positions: Mapping[str, int], generation: int
) -> bool:
    """Tell whether a stored run must stay: it is of the live generation and a later position.

    After a roll back the live generation is an earlier one. A position that the log has not
    reached was not written by this program.
    """
    row = dict(zip(RUNS.columns, known, strict=True))
    if row["generation"] != generation:
        live = await connection.fetchrow(SELECT_LIVE)
        return live is None or bool(live["generation"] != generation)
    stored = row["positions"] if isinstance(row["positions"], dict) else {}
    heads = {
        row["source"]: row["position"]
        for row in await connection.fetch(SELECT_HEADS, list(positions))
    }
    return any(
        position < stored[source] <= heads.get(source, 0)
        for source, position in positions.items()
        if isinstance(stored.get(source), int)
    )


async def _write_differences(
    connection: Any, table: StoredTable, wallet: tuple[str, str], rows: Records
) -> None:
    """Replace a wallet's rows; only those that differ are deleted and inserted."""
    stored = await read_stored(connection, table, *wallet)
    obsolete = {key[0] for key, row in stored.items() if rows.get(key) != row}
    new = {key: row for key, row in rows.items() if stored.get(key) != row}
    if obsolete or new:
        keys = sorted(obsolete | {key[0] for key in new})
        await connection.execute(table.delete, *wallet, keys)
    if new:
        columns = ("source", "currency", *table.key, *table.columns)
        await connection.copy_records_to_table(
            table.name, schema_name="ledger", columns=list(columns),
            records=[(*wallet, *key, *_encoded(table, row)) for key, row in new.items()],
        )  # fmt: skip


def _encoded(table: StoredTable, row: tuple[Any, ...]) -> list[Any]:
    return [
        _json(value) if name in OBJECTS else value
        for name, value in zip(table.columns, row, strict=True)
    ]


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
