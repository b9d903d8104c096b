"""Writing down what was reconciled: derived, replaced by each run, never older than before.

What is stored is read back and compared row by row, so that a run also mends what was changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
import orjson

from ledger.books import store as books
from ledger.reconciliation.result import Result

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
       action, decided_by, decided_at, note
  FROM ledger.recon_breaks WHERE source = $1 AND currency = $2
"""
DELETE_ALL_BREAKS: Final = "DELETE FROM ledger.recon_breaks WHERE source = $1 AND currency = $2"
# A break's id contains its currency: one that stands under another was put there by hand.
DELETE_BREAKS: Final = """
DELETE FROM ledger.recon_breaks
 WHERE source = $1 AND $2::text IS NOT NULL AND id = ANY ($3::text[])
"""
OBJECTS: Final = frozenset({"positions", "files", "figures", "reasons"})
"""Columns of a run that hold JSON."""


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table of results: how its rows are read and removed, within a source and currency."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    """The others, in the order in which they are selected."""
    select: str
    delete: str = ""
    """Takes the keys to remove."""


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
     "owner", "detail", "action", "decided_by", "decided_at", "note"),
    SELECT_BREAKS,
    DELETE_BREAKS,
)  # fmt: skip


async def stored(connection: Any, table: StoredTable, source: str, currency: str) -> Records:
    """Read what is stored of a wallet, its objects as objects."""
    rows = await connection.fetch(table.select, source, currency)
    if table is RUNS:
        found = [tuple(_read(name, row[name]) for name in RUNS.columns) for row in rows]
        return {(): found[0]} if found else {}
    return {(row[0],): tuple(row)[1:] for row in rows}


def _read(name: str, value: Any) -> Any:
    return orjson.loads(value) if name in OBJECTS else value


def run_of(result: Result, positions: Mapping[str, int], generation: int) -> Records:
    """Return the row of a run."""
    cover = result.cover
    row = (
        result.state, cover.frame.opened, cover.frame.cutoff, dict(positions), generation,
        list(cover.files), dict(result.figures), list(result.reasons), result.rules_sha256,
        result.sha256,
    )  # fmt: skip
    return {(): row}


def matches_of(result: Result) -> Records:
    """Return the rows of the live matches."""
    found: Records = {}
    for group in result.matches:
        told = (group.anchor, group.rule)
        found |= {(key,): told for key in group.keys}
    return found


def breaks_of(result: Result) -> Records:
    """Return the rows of the breaks."""
    found: Records = {}
    for each in result.breaks:
        told = msgspec.structs.asdict(each) | {"items": list(each.items)}
        found[(each.id,)] = tuple(told[name] for name in BREAKS.columns)
    return found


async def write(
    connection: Any, result: Result, positions: Mapping[str, int], generation: int
) -> bool:
    """Replace the stored run of a wallet, all or nothing; False when a later one is there."""
    place = result.source, result.currency
    async with connection.transaction():
        await connection.execute(LOCK_RUN, *place)
        (known,) = (await stored(connection, RUNS, *place)).values() or (None,)
        if known is not None and await _is_later(connection, known, positions, generation):
            return False
        await _bring(connection, MATCHES, place, matches_of(result))
        await _bring(connection, BREAKS, place, breaks_of(result))
        (row,) = run_of(result, positions, generation).values()
        values = [
            _json(value) if name in OBJECTS else value
            for name, value in zip(RUNS.columns, row, strict=True)
        ]
        await connection.execute(UPSERT_RUN, *place, *values)
    return True


async def currencies(connection: Any, source: str) -> list[str]:
    """Return every currency of which something is stored."""
    return [row["currency"] for row in await connection.fetch(SELECT_CURRENCIES, source)]


async def forget(
    connection: Any, source: str, kept: Sequence[str], positions: Mapping[str, int], generation: int
) -> None:
    """Remove the runs of currencies that have no statement any more."""
    for currency in await currencies(connection, source):
        if currency in kept:
            continue
        place = source, currency
        async with connection.transaction():
            await connection.execute(LOCK_RUN, *place)
            known = await stored(connection, RUNS, *place)
            if not any(
                [
                    await _is_later(connection, each, positions, generation)
                    for each in known.values()
                ]
            ):
                for statement in (DELETE_RUN, DELETE_ALL_MATCHES, DELETE_ALL_BREAKS):
                    await connection.execute(statement, *place)


async def _is_later(
    connection: Any, known: tuple[Any, ...], positions: Mapping[str, int], generation: int
) -> bool:
    """Tell whether what is stored must stay. A roll back makes an earlier generation live.

    A position that the log has not reached was never reconciled: somebody wrote it there.
    """
    row = dict(zip(RUNS.columns, known, strict=True))
    if row["generation"] != generation:
        live = await connection.fetchrow(books.SELECT_LIVE)
        return live is None or bool(live["generation"] != generation)
    told = row["positions"] if isinstance(row["positions"], dict) else {}
    heads = {
        row["source"]: row["position"]
        for row in await connection.fetch(SELECT_HEADS, list(positions))
    }
    return any(
        position < told[source] <= heads.get(source, 0)
        for source, position in positions.items()
        if isinstance(told.get(source), int)
    )


async def _bring(
    connection: Any, table: StoredTable, place: tuple[str, str], wanted: Records
) -> None:
    """Bring a wallet's rows to what they are now; only what differs is written."""
    have = await stored(connection, table, *place)
    gone = {key[0] for key, told in have.items() if wanted.get(key) != told}
    new = {key: told for key, told in wanted.items() if have.get(key) != told}
    if gone or new:
        await connection.execute(table.delete, *place, sorted(gone | {key[0] for key in new}))
    if new:
        columns = ("source", "currency", *table.key, *table.columns)
        await connection.copy_records_to_table(
            table.name, schema_name="ledger", columns=list(columns),
            records=[(*place, *key, *told) for key, told in new.items()],
        )  # fmt: skip


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
